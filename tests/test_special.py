"""Functions that the Array API standard lacks, against ``math``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import Place

from gpubp._devices import native_erf
from gpubp._numerics import erf, long_mean, long_sum


def test_erf_is_right_to_1e_15(place64: Place) -> None:
    x = np.concatenate([np.linspace(-7.0, 7.0, 4001), [1e-300, -1e-12, 26.0, -1e4, 1e4, 0.0]])
    right = np.array([math.erf(v) for v in x])
    ours = place64.host(erf(place64.xp, place64.array(x)))
    assert np.max(np.abs(ours - right)) <= 1e-15
    np.testing.assert_array_equal(ours[-3:], [-1.0, 1.0, 0.0])
    native = native_erf(place64.xp)
    assert (native is None) == (place64.name in ("numpy", "strict"))
    if native is not None:
        assert np.max(np.abs(place64.host(native(place64.array(x))) - right)) <= 1e-15


def test_erf_near_0_keeps_its_digits() -> None:
    x = np.array([1e-300, 1e-20, -1e-8, 0.3])
    np.testing.assert_allclose(erf(np, x), [math.erf(v) for v in x], rtol=4e-16)


def rows(offset: float, n: int = 300_000) -> Any:
    return (np.random.default_rng(0).standard_normal((n, 2)) + offset).astype("float32")


def test_long_sums_keep_their_digits() -> None:
    """Row by row, a float32 sum of this length is off by far more."""
    X = rows(10.0)
    right = np.array([math.fsum(column) for column in X.T.astype(float)])
    np.testing.assert_allclose(long_sum(np, X), right, rtol=3e-6)
    assert long_sum(np, X).dtype == np.float32
    np.testing.assert_allclose(long_sum(np, X[:, 0]), right[0], rtol=3e-6)


@pytest.mark.parametrize("n", [1, 2, 1000, 4096, 4097, 10_000])
def test_sums_of_every_length(place: Place, n: int) -> None:
    X = np.random.default_rng(n).random((n, 3))
    assert place.here(long_sum(place.xp, place.array(X)))
    np.testing.assert_allclose(place.host(long_sum(place.xp, place.array(X))), X.sum(0), rtol=50 * place.eps)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_means_far_from_0(offset: float) -> None:
    X = rows(offset, 50_000)
    s = np.random.default_rng(1).random(50_000, dtype="float32")
    wide = X.astype(float)
    np.testing.assert_allclose(long_mean(np, X), wide.mean(0), rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(long_mean(np, X, s), np.average(wide, axis=0, weights=s), rtol=3e-7, atol=1e-6)


def test_the_mean_of_equal_rows_is_the_row(place: Place) -> None:
    row = place.array([[0.1, -1e7, 3e-9]])
    X = place.xp.concat([row] * 777)
    weights = place.array(np.linspace(0.1, 2.0, 777))
    for s in (None, weights):
        np.testing.assert_array_equal(place.host(long_mean(place.xp, X, s)), place.host(row)[0])
