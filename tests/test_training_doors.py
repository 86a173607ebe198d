"""train: dtypes, devices, what is left alone, and every refusal."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from conftest import Place, library
from trainings import NET, W, X, Y, by_hand, close, fit, on_batch, problem, without_jax

import gpubp
from gpubp import SGD, Network
from gpubp._devices import Device, device_of

pytestmark = pytest.mark.usefixtures("on_the_cpu")

# dtypes, devices, what is left alone


@pytest.mark.parametrize(
    ("came", "given", "dtype"),
    [
        ("float32", None, "float32"),
        ("float64", None, "float64"),
        ("int64", None, "float32"),
        ("uint8", None, "float32"),
        ("bool", None, "float32"),
        ("float64", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float16", "float32", "float32"),
        ("int32", "float64", "float64"),
    ],
)
def test_dtypes(came: str, given: str | None, dtype: str) -> None:
    x = np.abs(X).round().astype(came)
    run = fit(x, Y, dtype=given)
    assert run.w.dtype == dtype
    close(run.w, by_hand(W, x.astype(float))[0][-1], 1e-12 if dtype == "float64" else 1e-5)
    assert run.predict(x).dtype == dtype


def test_the_order_of_bytes_makes_no_difference() -> None:
    """Nor is anything of it left in the weights."""

    def swapped(array: Any) -> Any:
        return array.astype(array.dtype.newbyteorder(">"))

    s = np.arange(1.0, 24.0)
    for dtype in ("float32", "float64"):
        x = X.astype(dtype)
        run, right = (
            fit(f(x), f(Y), sample_weight=f(s), w=f(W), validation=(f(x), f(Y), f(s)))
            for f in (swapped, lambda a: a)
        )
        assert run.w.dtype == dtype
        np.testing.assert_array_equal(run.w, right.w)
        assert run.history["validation_cost"] == right.history["validation_cost"]
        np.testing.assert_array_equal(run.predict(swapped(x)), right.predict(x))
    labels = np.arange(23) % 2
    run, right = (
        fit(f(np.abs(X).round().astype(int)), f(labels), net=CLASSES, w=None) for f in (swapped, lambda a: a)
    )
    np.testing.assert_array_equal(run.w, right.w)


@without_jax
def test_integers_on_every_library(place: Place) -> None:
    kind = "int32" if place.device == "no_x64" else "int64"
    x, y = (np.abs(part).round().astype(kind) for part in (X, Y))
    run = fit(place.array(x), place.array(y))
    close(place.host(run.w), by_hand(W, x, y)[0][-1], 1e-5)
    assert str(run.w.dtype).endswith("float32")
    assert run.predict(place.array(x)).shape == (23, 2)


@without_jax
def test_nothing_of_the_callers_is_written(place: Place) -> None:
    s = np.full(23, 2.0)
    given = [place.array(part) for part in (X, Y, W, s)]
    copies = [place.host(part).copy() for part in given]
    x, y, w, weights = given
    run = fit(x, y, w=w, sample_weight=weights, optimizer="adam", l2=0.1, clip_norm=0.1, validation=(x, y))
    for part, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(place.host(part), copy)
    assert not np.array_equal(place.host(run.w), place.host(w))
    assert fit(x, y, w=w, epochs=0).w is not w


def test_auto_stays_and_cpu_moves(place: Place) -> None:
    x, y = place.array(X), place.array(Y)
    assert place.here(fit(x, y).w)
    moved = fit(x, y, device="cpu")
    assert isinstance(moved.w, np.ndarray)
    assert (moved.w.dtype, moved.device.name) == (place.dtype, "cpu")
    close(moved.w, by_hand(W)[0][-1], 20 * place.rtol)


@without_jax
def test_a_device_brings_everything_there(place: Place) -> None:
    there = device_of(place.array(X))
    x = X.astype(place.dtype)
    s = np.ones(23)
    run = fit(x, Y, device=there, sample_weight=s, validation=(x, Y, s))
    assert place.here(run.w)
    assert run.device == there
    q = run.predict(x)
    assert isinstance(q, np.ndarray)
    close(q, NET.predict(place.host(run.w), x), 10 * place.rtol)


def test_predict_answers_where_it_was_asked(place: Place) -> None:
    run = fit(X.astype(place.dtype))
    q = run.predict(place.array(X))
    assert place.here(q)
    close(place.host(q), NET.predict(run.w, X.astype(place.dtype)), 10 * place.rtol)
    with pytest.raises(ValueError, match=r"x must have shape \(B, n_0\) with n_0 = 3, got \(23, 2\)"):
        run.predict(place.array(Y))


def test_mixed_libraries_go_to_the_device_of_x(torch: Any) -> None:
    run = fit(torch.tensor(X), Y, sample_weight=np.ones(23), validation=(X, torch.tensor(Y)))
    assert isinstance(run.w, torch.Tensor)
    close(run.w.numpy(), fit(validation=(X, Y)).w)


def test_the_environment_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_DEVICE", "cuda:99")
    with pytest.raises(
        RuntimeError, match=r"device 'cuda:99' needs CuPy and an NVIDIA GPU that computes, but"
    ):
        fit()
    assert fit(device="cpu").device.name == "cpu"


def test_the_device_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gpubp"):
        fit()
    (device,) = (d for d in gpubp.devices() if d.name == "cpu")
    assert f"training {NET!r} on cpu ({device.description})" in caplog.messages
    assert {record.name for record in caplog.records} == {"gpubp"}


def test_the_device_is_not_waited_for_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many reads of an array's values in an epoch of 20 batches as in one of 1."""
    kind = type(library("array_api_strict").asarray(1.0))
    reads: list[str] = []

    def counted(name: str, method: Any) -> Any:
        def read(self: Any, *args: Any, **more: Any) -> Any:
            reads.append(name)
            return method(self, *args, **more)

        return read

    ways = ["bool", "float", "int", "index", "complex", "array", "buffer", "dlpack"]
    for name in [f"__{way}__" for way in ways if hasattr(kind, f"__{way}__")]:
        monkeypatch.setattr(kind, name, counted(name, getattr(kind, name)))
    x, y, s = (library("array_api_strict").asarray(part) for part in (*problem(40), np.ones(40)))

    def count(batch_size: int, epochs: int) -> int:
        reads.clear()
        more = {"l2": 0.1, "l1": 0.1, "clip_norm": 1.0, "validation": (x, y, s), "sample_weight": s}
        fit(x, y, optimizer="adam", batch_size=batch_size, epochs=epochs, **more)
        return len(reads)

    assert count(2, 1) == count(40, 1)
    assert count(2, 5) > count(2, 1)


# refusals


def test_data_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1499)
    needed = 23 * (3 + 2) * 8 + 5 * 26 * 8
    with pytest.raises(
        MemoryError,
        match=rf"^cpu must have memory for the data and weights, but: they need {needed} bytes, and 1499 are free: "
        r"train on fewer rows$",
    ):
        fit()
    monkeypatch.setattr(Device, "free_bytes", lambda self: needed)
    close(fit().w, by_hand(W)[0][-1])


def spoiled(array: Any, *place: int, value: float = np.nan) -> Any:
    array = array.copy()
    array[place] = value
    return array


CLASSES = Network((3, 2), cost="cross_entropy")
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"net": "mlp"},
        TypeError,
        r"net must be a gpubp.Network, got str: make one with gpubp.Network\(sizes\)",
    ),
    (
        {"X": X.tolist()},
        TypeError,
        r"arrays of NumPy, CuPy or another Array API library are needed, got list",
    ),
    ({"X": X.tolist(), "dtype": "float32"}, TypeError, r"Array API library are needed, got list"),
    ({"X": None}, TypeError, r"Array API library are needed, got NoneType"),
    ({"Y": None}, TypeError, r"Array API library are needed, got NoneType"),
    ({"Y": Y.tolist()}, TypeError, r"Array API library are needed, got list"),
    (
        {"X": X[:, :2]},
        ValueError,
        r"X must have shape \(n, n_0\) with n >= 1 and n_0 = 3, got \(23, 2\): one example",
    ),
    ({"X": X[0]}, ValueError, r"X must have shape \(n, n_0\) .* got \(3,\): one example per row"),
    ({"X": X[:0], "Y": Y[:0]}, ValueError, r"X must have shape \(n, n_0\) with n >= 1 .* got \(0, 3\)"),
    (
        {"X": X.astype("float16")},
        TypeError,
        r"X must be float32, float64, integer or boolean, got float16: convert it",
    ),
    ({"X": X + 0j}, TypeError, r"X must be float32, float64, integer or boolean, got complex128"),
    ({"X": X + 0j, "dtype": "float64"}, TypeError, r"X must hold real numbers, got complex128: convert it"),
    ({"Y": Y + 0j}, TypeError, r"Y must hold real numbers, got complex128: convert it"),
    ({"X": np.full((23, 3), "a")}, TypeError, r"X must "),
    (
        {"X": spoiled(X, 4, 1)},
        ValueError,
        r"X must be finite, got a NaN or inf at row 4, column 1: remove or fill it",
    ),
    (
        {"X": spoiled(X, 4, 1, value=-np.inf)},
        ValueError,
        r"X must be finite, got a NaN or inf at row 4, column 1",
    ),
    ({"X": spoiled(X, 4, 1, value=1e300), "dtype": "float32"}, ValueError, r"X must .* float32"),
    ({"Y": spoiled(Y, 22, 0, value=1e300), "dtype": "float32"}, ValueError, r"Y must .* float32"),
    ({"Y": spoiled(Y, 22, 0)}, ValueError, r"Y must be finite, got a NaN or inf at row 22, column 0"),
    (
        {"Y": spoiled(Y[:, 0], 3), "net": Network((3, 1))},
        ValueError,
        r"Y must be finite, .* at row 3: remove or fill",
    ),
    (
        {"Y": Y[:, :1]},
        ValueError,
        r"Y must have shape \(n, n_L\) with n = 23, n_L = 2, got \(23, 1\): one row of",
    ),
    ({"Y": Y[:22]}, ValueError, r"Y must have shape \(n, n_L\) with n = 23, n_L = 2, got \(22, 2\)"),
    ({"Y": Y[:, 0]}, ValueError, r"Y must have shape \(n, n_L\) with n = 23, n_L = 2, got \(23,\)"),
    ({"Y": Y[:, 0], "net": CLASSES}, ValueError, r"n_L = 2, or integer classes \(n,\), got \(23,\)"),
    (
        {"Y": np.arange(23) % 3, "net": CLASSES},
        ValueError,
        r"Y must hold classes 0..1 for n_L = 2, got 0..2: number",
    ),
    (
        {"Y": np.arange(23) % 2 - 1, "net": CLASSES},
        ValueError,
        r"Y must hold classes 0..1 for n_L = 2, got -1..0",
    ),
    (
        {"sample_weight": np.ones((23, 1))},
        ValueError,
        r"sample_weight must have shape \(n,\) with n = 23, got \(23, 1\)",
    ),
    (
        {"sample_weight": -np.ones(23)},
        ValueError,
        r"sample_weight must hold weights of at least 0, got a negative one",
    ),
    (
        {"sample_weight": np.zeros(23)},
        ValueError,
        r"sample_weight must hold a weight above 0, got none: give some",
    ),
    (
        {"sample_weight": np.full(23, 1e-60), "dtype": "float32"},
        ValueError,
        r"sample_weight must hold a weight above 0, got none: give some",
    ),
    (
        {"sample_weight": np.full(23, 1e308)},
        ValueError,
        r"sample_weight must have a sum of at most 1.3e\+154 in float64, got inf: scale the weights down",
    ),
    (
        {"sample_weight": np.full(23, 1e30), "dtype": "float32"},
        ValueError,
        r"sample_weight must have a sum of at most 1.8e\+19 in float32, got 2.3e\+31: scale the weights down",
    ),
    (
        {"sample_weight": spoiled(np.ones(23), 6)},
        ValueError,
        r"sample_weight must be finite, .* at row 6: remove",
    ),
    (
        {"w": W[:-1]},
        ValueError,
        r"w must have shape \(n_weights,\) with n_weights = 26, got \(25,\): see net.init",
    ),
    ({"w": spoiled(W, 3)}, ValueError, r"w must be finite, got a NaN or inf: draw it with net.init"),
    ({"w": spoiled(W, 3, value=1e300), "dtype": "float32"}, ValueError, r"w must .* float32"),
    ({"w": W + 0j}, TypeError, r"w must hold real numbers, got complex128"),
    ({"w": W.tolist()}, TypeError, r"Array API library are needed, got list"),
    ({"optimizer": "adamm"}, ValueError, r"optimizer must be one of .*, got 'adamm': did you mean 'adam'\?"),
    (
        {"optimizer": SGD},
        TypeError,
        r"optimizer must be a name or have init\(w\) and step\(w, g, state\), got",
    ),
    (
        {"optimizer": 0.1},
        TypeError,
        r"optimizer must be a name or have init\(w\) and step\(w, g, state\), got 0.1",
    ),
    ({"epochs": -1}, ValueError, r"epochs must be at least 0, got -1"),
    ({"epochs": 2.0}, TypeError, r"epochs must be a whole number, got float"),
    ({"batch_size": 0}, ValueError, r"batch_size must be at least 1, got 0"),
    ({"batch_size": True}, TypeError, r"batch_size must be a whole number, got bool"),
    ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
    ({"seed": None}, TypeError, r"seed must be a whole number, got NoneType"),
    ({"device": "gpu"}, ValueError, r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    ({"device": None}, TypeError, r"device must be a name or a gpubp.Device, got NoneType"),
    (
        {"device": "cuda:99"},
        RuntimeError,
        r"device 'cuda:99' needs CuPy and an NVIDIA GPU that computes, but",
    ),
    (
        {"dtype": "float16"},
        ValueError,
        r"dtype must be 'float32', 'float64' or None, got 'float16': give one of these",
    ),
    (
        {"dtype": np.float32},
        ValueError,
        r"dtype must be 'float32', 'float64' or None, got <class 'numpy.float32'>",
    ),
    ({"l2": -0.1}, ValueError, r"l2 must lie in \[0, inf\), got -0.1"),
    ({"l1": np.inf}, ValueError, r"l1 must lie in \[0, inf\), got inf"),
    ({"l1": "0.1"}, TypeError, r"l1 must be a number, got str"),
    ({"clip_norm": 0}, ValueError, r"clip_norm must lie in \(0, inf\), got 0"),
    ({"clip_norm": "1"}, TypeError, r"clip_norm must be a number, got str"),
    ({"validation": 0.0}, ValueError, r"validation must lie in \(0, 1\), got 0"),
    ({"validation": 1}, ValueError, r"validation must lie in \(0, 1\), got 1"),
    (
        {"validation": 0.01},
        ValueError,
        r"validation must leave rows on both sides, got 0.01 of 23 rows: give a",
    ),
    ({"validation": 0.99}, ValueError, r"validation must leave rows on both sides, got 0.99 of 23 rows"),
    (
        {"validation": True},
        TypeError,
        r"validation must be None, a fraction, \(X, Y\) or .* got bool: give one",
    ),
    ({"validation": (X,)}, TypeError, r"validation must be None, a fraction, \(X, Y\) or .* got tuple"),
    ({"validation": X}, TypeError, r"validation must be None, a fraction, \(X, Y\) or .* got ndarray"),
    ({"validation": (X, None)}, TypeError, r"Array API library are needed, got NoneType"),
    ({"validation": (X[:, :2], Y)}, ValueError, r"validation X must have shape \(n, n_0\)"),
    ({"validation": (X, Y[:3])}, ValueError, r"validation Y must have shape \(n, n_L\) with n = 23"),
    (
        {"validation": (spoiled(X, 1, 2), Y)},
        ValueError,
        r"validation X must be finite, .* at row 1, column 2",
    ),
    (
        {"validation": (X, Y, -np.ones(23))},
        ValueError,
        r"validation sample_weight must hold weights of at least 0",
    ),
    ({"patience": 3}, ValueError, r"patience needs validation, got None: give validation=0.1 or \(X, Y\)"),
    ({"patience": 0, "validation": 0.2}, ValueError, r"patience must be at least 1, got 0"),
    (
        {"metric": "f1"},
        ValueError,
        r"metric must be 'auto', 'accuracy', 'r2' or None, got 'f1': choose one of these",
    ),
    ({"metric": 3}, ValueError, r"metric must be 'auto', 'accuracy', 'r2' or None, got 3"),
    (
        {"callbacks": [print]},
        TypeError,
        r"callbacks must have on_batch_end\(state\) or on_epoch_end\(state\), got",
    ),
    (
        {"callbacks": [gpubp.callbacks.ProgressBar]},
        TypeError,
        r"callbacks must have on_batch_end\(state\) or .* got",
    ),
    (
        {"Y": 2.0 * np.abs(Y), "net": Network((3, 2), cost="binary_cross_entropy")},
        ValueError,
        r"Y must lie in \[0, 1\] for cost 'binary_cross_entropy', got .*: scale or encode it",
    ),
    (
        {"Y": Y - 9.0, "net": Network((3, 2), cost="poisson")},
        ValueError,
        r"Y must lie in \[0, inf\) for cost 'poisson', got .*: scale or encode it",
    ),
    ({"callbacks": on_batch(print)}, TypeError, r"callbacks must be a sequence .* got SimpleNamespace"),
]


@pytest.mark.parametrize(
    ("wrong", "error", "words"), REFUSED, ids=lambda v: "-".join(v) if type(v) is dict else None
)
def test_refusals(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit(**wrong)


@without_jax
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"X": spoiled(X, 4, 1)}, r"X must be finite, got a NaN or inf at row 4, column 1"),
        (
            {"Y": np.arange(23, dtype="int32") % 3, "net": CLASSES},
            r"Y must hold classes 0..1 for n_L = 2, got 0..2",
        ),
        (
            {"sample_weight": -np.ones(23)},
            r"sample_weight must hold weights of at least 0, got a negative one",
        ),
        ({"w": spoiled(W, 3)}, r"w must be finite, got a NaN or inf"),
        (
            {"validation": (X, spoiled(Y, 2, 0, value=np.inf))},
            r"validation Y must be finite, .* at row 2, column 0",
        ),
    ],
)
def test_values_are_checked_on_every_library(place: Place, wrong: dict[str, Any], words: str) -> None:
    def there(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(there, value))
        return place.array(value) if isinstance(value, np.ndarray) else value

    with pytest.raises(ValueError, match=words):
        fit(
            **{
                name: there(value)
                for name, value in {"X": X, "Y": Y, "w": None if "net" in wrong else W, **wrong}.items()
            }
        )
