"""Standardizer, the bundled digits, splits, orders, minibatches, and what the doors of training let through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import PLACES, Place

from gpubp import Network, Standardizer, load_digits
from gpubp._devices import device, device_of
from gpubp.training.data import Rows, minibatches, permutation, take, validated

rng = np.random.default_rng(0)
X = 3.0 * rng.standard_normal((50, 4)) + [0.0, -5.0, 100.0, 7.0]
X[:, 3] = 7.3
without_jax = pytest.mark.parametrize("place", [p for p in PLACES if p.name != "jax"], indirect=True, ids=str)


def test_standardizing(place: Place) -> None:
    x = place.array(X)
    scaler = Standardizer.fit(x)
    z = scaler.apply(x)
    assert all(map(place.here, (scaler.mean, scaler.scale, z, scaler.invert(z))))
    scale = np.where(np.arange(4) == 3, 1.0, X.std(axis=0))
    np.testing.assert_allclose(place.host(scaler.mean), X.mean(axis=0), rtol=place.rtol, atol=place.rtol)
    np.testing.assert_allclose(place.host(scaler.scale), scale, rtol=place.rtol)
    np.testing.assert_allclose(place.host(z), (X - X.mean(axis=0)) / scale, atol=100 * place.rtol)
    np.testing.assert_allclose(place.host(scaler.invert(z)), X, rtol=10 * place.rtol, atol=10 * place.rtol)
    new = place.array([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(place.host(scaler.apply(new))[0, 3], 4.0 - 7.3, rtol=10 * place.rtol)
    np.testing.assert_array_equal(place.host(x), X.astype(place.dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0.0, 0.1, -12345.678, 1e30, -1e-30])
@pytest.mark.parametrize("rows", [1, 2, 7, 4097, 100_000])
def test_constant_columns_keep_scale_1(dtype: str, constant: float, rows: int) -> None:
    x = np.full((rows, 2), constant, dtype)
    scaler = Standardizer.fit(x)
    np.testing.assert_array_equal(scaler.scale, 1.0)
    np.testing.assert_array_equal(scaler.apply(x[:3]), 0.0)


def test_columns_that_differ_by_rounding_keep_scale_1() -> None:
    x = np.where(np.arange(9) % 2, 0.1 + 0.2, 0.3)[:, None]
    assert x.std() > 0
    assert Standardizer.fit(x).scale[0] == 1.0
    small = np.array([[1.0], [1.0 + 1e-12]])  # real, if small
    assert Standardizer.fit(small).scale[0] == pytest.approx(5e-13, rel=1e-3)


def test_a_million_rows_far_from_0_in_float32() -> None:
    x = (1000.0 + rng.standard_normal((1_000_000, 2))).astype("float32")
    x[0] = 1e5
    scaler = Standardizer.fit(x)
    z = scaler.apply(x).astype(float)
    np.testing.assert_allclose(scaler.mean, x.astype(float).mean(axis=0), rtol=1e-7)
    assert np.abs(z.mean(axis=0)).max() < 1e-5
    assert np.abs(z.std(axis=0) - 1).max() < 1e-5


def test_a_standardizer_moves(place: Place) -> None:
    scaler = Standardizer.fit(X.astype(place.dtype))
    moved = scaler.put(device_of(place.array(X)))
    assert place.here(moved.mean)
    np.testing.assert_allclose(
        place.host(moved.apply(place.array(X))), scaler.apply(X.astype(place.dtype)), rtol=1e-5, atol=1e-5
    )
    if place.name != "numpy":
        with pytest.raises(
            (TypeError, RuntimeError),
            match=r"X must be an array like the standardizer's, on cpu, got one on .*: move",
        ):
            scaler.apply(place.array(X))


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X[0], ValueError, r"X must have shape \(B, n\) with B >= 1, got \(4,\): one example per row"),
        (X[:0], ValueError, r"X must have shape \(B, n\) with B >= 1, got \(0, 4\)"),
        (
            np.where(np.isin(X, X[3, 1]), np.nan, X),
            ValueError,
            r"X must be finite, got a NaN or inf at row 3, column 1",
        ),
        (X.astype(int), TypeError, r"X must be float32 or float64, got int64: convert it"),
        (X.astype("float16"), TypeError, r"X must be float32 or float64, got float16: convert it"),
        (X + 0j, TypeError, r"X must be float32 or float64, got complex128: convert it"),
        (X.tolist(), TypeError, r"Array API library are needed, got list"),
    ],
)
def test_what_can_not_be_fitted(x: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Standardizer.fit(x)


def test_numbers_too_large_to_be_squared_are_refused() -> None:
    for dtype, large, most in (("float64", 1e200, r"1.3e\+154"), ("float32", 1e25, r"1.8e\+19")):
        x = np.array([[1.0, large], [2.0, -large]], dtype)
        with pytest.raises(
            ValueError,
            match=rf"less than {most} to be squared in {dtype}, got larger numbers in column 1: scale",
        ):
            Standardizer.fit(x)


def test_the_order_of_bytes_makes_no_difference() -> None:
    x = X.astype(">f8")
    scaler = Standardizer.fit(x)
    np.testing.assert_array_equal(scaler.mean, Standardizer.fit(X).mean)
    np.testing.assert_array_equal(scaler.apply(x), scaler.apply(X))
    np.testing.assert_array_equal(scaler.invert(x), scaler.invert(X))


def test_what_can_not_be_applied() -> None:
    scaler = Standardizer.fit(X)
    for use in (scaler.apply, scaler.invert):
        with pytest.raises(
            ValueError, match=r"X must have shape \(B, n\) with n = 4, got \(50, 3\): give the fitted"
        ):
            use(X[:, :3])
        with pytest.raises(ValueError, match=r"X must have shape \(B, n\) with n = 4, got \(4,\)"):
            use(X[0])
        with pytest.raises(
            TypeError, match=r"X must be float64 like the standardizer, got float32: convert it"
        ):
            use(X.astype("float32"))
        with pytest.raises(TypeError, match="Array API library are needed, got list"):
            use(X.tolist())


def test_strict_devices_do_not_mix() -> None:
    there, other = (
        p for p in PLACES if p.name == "strict" and p.device in ("CPU_DEVICE", "device1") and p.rtol < 1e-9
    )
    scaler = Standardizer.fit(there.array(X))
    with pytest.raises(
        (TypeError, RuntimeError, ValueError), match=r"X must be an array like the standardizer's, on"
    ):
        scaler.apply(other.array(X))


# the digits


def test_digits() -> None:
    x, y = load_digits()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((1797, 64), "float32", (1797,), "int64")
    assert (x.min(), x.max(), x.sum()) == (0.0, 16.0, 561718.0)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    np.testing.assert_array_equal(x[0, :16], [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0])
    assert y[:10].tolist() == list(range(10))
    x[:] = -1.0
    assert load_digits()[0].min() == 0.0  # each call's own


# splits, orders, minibatches


def test_orders_differ() -> None:
    orders = {tuple(permutation(40, seed, epoch)) for seed in range(10) for epoch in range(1, 11)}
    assert len(orders) == 100


@without_jax
def test_taking_rows_anywhere(place: Place) -> None:
    rows = take(Rows(place.array(X), place.array(X[:, 0]), None), np.array([4, 0, 4]))
    np.testing.assert_array_equal(place.host(rows.x), X.astype(place.dtype)[[4, 0, 4]])
    np.testing.assert_array_equal(place.host(rows.y), X.astype(place.dtype)[[4, 0, 4], 0])
    parts = list(minibatches(place.array(np.arange(5, dtype="int32")), 2))
    assert [place.host(part).tolist() for part in parts] == [[0, 1], [2, 3], [4]]


NAMES = ("X", "Y", "sample_weight")


def test_nothing_is_copied_where_it_can_stay() -> None:
    x, y, s = X.astype("float32"), X[:, 0].astype("float32"), np.ones(50, "float32")
    rows = validated(Network((4, 1)), Rows(x, y, s), device("cpu"), "float32", NAMES)
    assert all(np.shares_memory(a, b) for a, b in zip(rows, (x, y, s), strict=True))


@pytest.mark.parametrize("kind", ["every other", "backwards", "Fortran"])
def test_rows_that_dont_follow_each_other_are_copied_once(buffered: Place, kind: str) -> None:
    whole = buffered.array(np.random.default_rng(3).standard_normal((40, 2)))
    turned = buffered.array(buffered.host(whole).T.copy()).T
    given = {"every other": whole[::2], "backwards": whole[::-1], "Fortran": turned}[kind]
    home = device_of(given)
    rows = validated(Network((2, 2)), Rows(given, given, None), home, buffered.dtype, ("X", "Y", "s"))
    for part in (rows.x, rows.y):  # else NumPy copies all of them for every minibatch
        assert part.flags.c_contiguous
        np.testing.assert_array_equal(buffered.host(part), buffered.host(given))


def test_rows_of_weight_0_are_left_out(place: Place) -> None:
    s = np.where(np.arange(50) % 5 == 0, 0.0, 2.0)
    given = Rows(place.array(X), place.array(X[:, 0]), place.array(s))
    rows = validated(Network((4, 1)), given, device_of(given.x), place.dtype, NAMES)
    assert all(map(place.here, rows))
    kept = np.arange(50)[np.arange(50) % 5 > 0]
    np.testing.assert_array_equal(place.host(rows.x), X.astype(place.dtype)[kept])
    np.testing.assert_array_equal(place.host(rows.y), X.astype(place.dtype)[kept, 0])
    np.testing.assert_array_equal(place.host(rows.s), 2.0)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "int64", "uint64"])
def test_classes_of_any_integer_kind(kind: str) -> None:
    y = (np.arange(50) % 3).astype(kind)
    rows = validated(Network((4, 3), cost="cross_entropy"), Rows(X, y, None), device("cpu"), "float64", NAMES)
    np.testing.assert_array_equal(rows.y, y)
    assert rows.y.dtype.kind == "i"


def test_integer_targets_are_numbers_to_other_costs() -> None:
    rows = validated(Network((4, 1)), Rows(X, np.arange(50), None), device("cpu"), "float64", NAMES)
    assert rows.y.dtype == np.float64
    classes = np.eye(3, dtype=int)[np.arange(50) % 3]
    rows = validated(
        Network((4, 3), cost="cross_entropy"), Rows(X, classes, None), device("cpu"), "float64", NAMES
    )
    assert rows.y.dtype == np.float64
