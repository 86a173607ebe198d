"""Two GPUs: what lives on one is computed there, whichever is CuPy's current one, which stays so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from trainings import Plain, on_batch

import gpubp
from gpubp import Device, Network, Standardizer, _devices
from gpubp._devices import device_of

NET = Network((3, 4, 2), hidden="tanh", cost="cross_entropy")
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((23, 3)), rng.integers(0, 2, 23)
S = np.arange(23.0) % 3
W = NET.init(1, dtype="float64")
FIT: dict[str, Any] = {"epochs": 3, "batch_size": 5, "progress": False, "sample_weight": S, "validation": 0.3}

# PerformanceWarning, of memory read from another GPU, is an error as all warnings are


@pytest.fixture(params=[(0, 1), (1, 0)], ids=["second, first current", "first, second current"])
def away(request: pytest.FixtureRequest, gpus: tuple[Device, Device]) -> Iterator[Device]:
    """The one that isn't current."""
    cupy, (current, other) = sys.modules["cupy"], request.param
    with cupy.cuda.Device(current):
        yield gpus[other]
        assert cupy.cuda.runtime.getDevice() == current


def host(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else np.asarray(array)


def close(there: Any, here: Any, on: Device) -> None:
    assert device_of(there) == on
    np.testing.assert_allclose(host(there), here, rtol=1e-11, atol=1e-13)


COMPUTED: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "forward": lambda w, x, y, s: NET.forward(w, x).q[2],
    "predict": lambda w, x, y, s: NET.predict(w, x),
    "backward": lambda w, x, y, s: NET.backward(w, x, y, sample_weight=s).gradient,
    "Delta": lambda w, x, y, s: (NET.backward(w, x, y).Delta or ())[0],
    "cost": lambda w, x, y, s: NET.cost(w, x, y, sample_weight=s),
    "gradient": lambda w, x, y, s: NET.gradient(w, x, y),
    "flatten": lambda w, x, y, s: NET.flatten(NET.layers(w)),
    "collapse": lambda w, x, y, s: Network((3, 4, 2), hidden="identity").collapse(w)[0],
    "optimizer": lambda w, x, y, s: gpubp.Adam().step(w, w, gpubp.Adam().init(w))[1].slots[1],
    "standardizer": lambda w, x, y, s: Standardizer.fit(x).apply(x),
    "scale": lambda w, x, y, s: Standardizer.fit(x).scale,
    "inverse": lambda w, x, y, s: Standardizer(x[0], x[1]).invert(x),
    "saved": lambda w, x, y, s: gpubp.Saved(NET, w, Standardizer(x[0], x[1])).predict(x),
    "index_sum": lambda w, x, y, s: gpubp.matrix_calculus.index_sum("x_ij x_ik delta_jk", "i", x=x),
    "value": lambda w, x, y, s: gpubp.matrix_calculus.value("sigma(x' x)", x=x, sigma="tanh"),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_cupy_computes_where_the_arrays_are(name: str, away: Device) -> None:
    compute = COMPUTED[name]
    close(compute(*map(away.put, (W, X, Y, S))), compute(W, X, Y, S), away)


def test_cupy_checks_and_draws_where_the_arrays_are(away: Device) -> None:
    w, x, y = map(away.put, (W, X, Y))
    assert gpubp.check_gradient(NET, w, x, y).passed
    assert str(gpubp.explain(NET, w, x[:2], y[:2])) == str(gpubp.explain(NET, W, X[:2], Y[:2]))
    pytest.importorskip("matplotlib").use("Agg")
    assert gpubp.plots.cost_along_gradient(NET, w, x, y).lines
    assert gpubp.plots.cost_plane(NET, w, x, y, resolution=3).collections
    identity = gpubp.matrix_calculus.identities["1/2 x' A' A x"]
    assert identity.check(away.xp, device=sys.modules["cupy"].cuda.Device(away.native)) < 1e-10


@pytest.mark.parametrize("target", ["cpu", "cuda:0", "cuda:1", "auto"])
def test_cupy_trains_on_the_gpu_that_was_named(target: str, away: Device) -> None:
    right = gpubp.train(NET, X, Y, device="cpu", w=W, **FIT)
    given = {name: away.put(array) for name, array in {"X": X, "Y": Y, "w": W, "sample_weight": S}.items()}
    run = gpubp.train(NET, given.pop("X"), given.pop("Y"), device=target, **{**FIT, **given})
    assert run.device.name == (away.name if target == "auto" else target)
    close(run.w, right.w, run.device)
    close(run.predict(away.put(X)), right.predict(X), away)
    close(run.predict(X), right.predict(X), gpubp.device("cpu"))
    assert run.history["cost"] == pytest.approx(right.history["cost"], rel=1e-11)


def test_cupy_trains_on_arrays_of_both_gpus(away: Device, gpus: tuple[Device, Device]) -> None:
    right = gpubp.train(NET, X, Y, device="cpu", w=W, **FIT)
    for x, y, s in product(gpus, gpus, gpus):
        given = {**FIT, "sample_weight": s.put(S)}
        close(gpubp.train(NET, x.put(X), y.put(Y), w=s.put(W), device=away, **given).w, right.w, away)


def test_cupy_keeps_an_optimizers_state_beside_the_weights(away: Device) -> None:
    state = gpubp.Adam().init(away.put(W))
    assert {device_of(slot) for slot in state.slots} == {away}
    seen: set[Device] = set()

    class Own(Plain):
        def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
            seen.update(map(device_of, (w, g)))
            return super().step(w, g, state)

    run = gpubp.train(NET, X, Y, device=away, optimizer=Own(), w=W, **FIT)
    assert seen == {away} == {device_of(run.w)}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError])
def test_cupys_current_gpu_stays_after_an_exception(error: type[BaseException], away: Device) -> None:
    def fail(state: Any) -> None:
        raise error

    with pytest.raises(error):
        gpubp.train(NET, X, Y, device=away, callbacks=[on_batch(fail)], **FIT)
    with pytest.raises(ValueError, match="x must have shape"):
        NET.predict(away.put(W), away.put(X[:, :2]))  # the fixture looks at the current one


def test_cupy_arrays_of_two_gpus_are_refused(gpus: tuple[Device, Device]) -> None:
    first, second = gpus
    words = r"x must be on <CUDA Device 0> like w, got one on <CUDA Device 1>: move it with gpubp.device\('cuda:0'\)"
    with pytest.raises(RuntimeError, match=words):
        NET.predict(first.put(W), second.put(X))
    with pytest.raises(RuntimeError, match="y must be on <CUDA Device 1> like w"):
        NET.gradient(second.put(W), second.put(X), first.put(Y))
    with pytest.raises(RuntimeError, match=r"b\[0\] must be on <CUDA Device 0> like W\[0\]"):
        Network((3, 2)).flatten([(first.put(X[:2]), second.put(X[0, :2]))])
    with pytest.raises(
        TypeError, match=r"X must be an array like the standardizer's, on cuda:0, got one on cuda:1"
    ):
        Standardizer.fit(first.put(X)).apply(second.put(X))
    with pytest.raises(RuntimeError, match="X must be on <CUDA Device 1> like w"):
        gpubp.Saved(NET, second.put(W)).predict(first.put(X))


@pytest.mark.parametrize("layout", ["C", "F", "strided", "empty"])
def test_cupy_arrays_go_from_gpu_to_gpu(layout: str, away: Device, gpus: tuple[Device, Device]) -> None:
    made = {"C": X, "F": np.asfortranarray(X), "strided": X[::2, ::-2], "empty": X[:0]}[layout]
    for source, target in product(gpus, gpus):
        whole = source.put(X)
        there = {"C": whole, "F": source.put(made), "strided": whole[::2, ::-2], "empty": whole[:0]}[layout]
        put = target.put(there)
        assert device_of(put) == target
        assert (put is there) == (source == target)
        np.testing.assert_array_equal(host(put), made)
        np.testing.assert_array_equal(_devices.to_numpy(there), made)
        np.testing.assert_array_equal(host(there), made)


def test_cupy_waits_from_gpu_to_gpu(gpus: tuple[Device, Device]) -> None:
    """What a stream of one GPU is still writing, a copy on another's waits for; and the other way round."""
    cupy, (first, second) = sys.modules["cupy"], gpus
    with first.current(), cupy.cuda.Stream(non_blocking=True):
        with second.current(), cupy.cuda.Stream(non_blocking=True):
            with first.current():
                big = cupy.zeros((500, 500))
                big += 1.0
            there = second.put(big[:, ::2])
            with first.current():
                big += 1.0
            there *= 2.0
            back = first.put(there)
            assert back.device.id == 0
        np.testing.assert_array_equal(_devices.to_numpy(back), np.full((500, 250), 2.0))
        np.testing.assert_array_equal(_devices.to_numpy(there), np.full((500, 250), 2.0))


def test_cupy_waits_for_the_stream_of_the_arrays_own_gpu(gpus: tuple[Device, Device]) -> None:
    """Arrays go to the host after what their own GPU's current stream does, not after that of the current GPU."""
    cupy, (first, second) = sys.modules["cupy"], gpus
    with second.current(), cupy.cuda.Stream(non_blocking=True):
        there = cupy.full(1000, np.nan)
        there[...] = 1.0
        for _ in range(20):
            there += 1.0
        with first.current(), cupy.cuda.Stream(non_blocking=True):
            np.testing.assert_array_equal(_devices.to_numpy(there), np.full(1000, 21.0))
