"""Training on a GPU that is stopped in the middle of an epoch: weights as promised, memory given back, arrays whole."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from trainings import Plain, W, X, Y, by_hand, close, fit, on_batch, on_epoch, problem

import gpubp
from gpubp import SGD, Device, DivergenceError

RIGHT = by_hand(W)[0]


@pytest.fixture
def arrays(gpu: Device) -> Iterator[tuple[Any, Any, Any]]:
    """X, Y and w on the GPU, whole at the end; and the next training is right."""
    cupy = sys.modules["cupy"]
    given = tuple(map(cupy.asarray, (X, Y, W)))
    train(given)
    yield given
    for array, host in zip(given, (X, Y, W), strict=True):
        np.testing.assert_array_equal(array.get(), host)
    close(train(given).w.get(), RIGHT[-1])


def train(arrays: Any, **more: Any) -> Any:
    x, y, w = arrays
    return fit(x, y, **{"w": w, **more})


@contextmanager
def no_memory_kept() -> Iterator[None]:
    """What CuPy's pool has given out is the same after it, without a collector of cycles."""
    pool = sys.modules["cupy"].get_default_memory_pool()
    gc.collect()
    before = pool.used_bytes()
    gc.disable()
    try:
        yield
        assert pool.used_bytes() == before
    finally:
        gc.enable()


class Stop(Exception):
    """A user's own."""


def at_batch(n: int, *doing: Any) -> Any:
    """A callback that does these things at the n-th batch of all."""
    seen: list[int] = []

    def watch(state: Any) -> None:
        seen.append(state.batch)
        if len(seen) == n:
            for do in doing:
                do()

    return on_batch(watch)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def blow() -> None:
    raise Stop("here")


@pytest.mark.parametrize("n", [1, 5, 7, 15])
def test_cupy_ctrl_c_lets_the_batch_finish(n: int, arrays: Any) -> None:
    with no_memory_kept():
        run = train(arrays, callbacks=[at_batch(n, press)])
        assert (run.stopped, run.w.device.id) == ("interrupted", 0)
        close(run.w.get(), RIGHT[n - 1])
        del run


def test_cupy_ctrl_c_gives_the_best_weights_back(arrays: Any) -> None:
    ends: list[Any] = []
    run = train(
        arrays, optimizer=SGD(0.3), epochs=9, validation=problem(40, 3),
        callbacks=[on_epoch(lambda state: ends.append(state.w.get())), at_batch(17, press)],
    )  # fmt: skip
    best = int(np.argmin(run.history["validation_cost"]))
    assert (len(ends), run.best_epoch) == (3, best + 1)
    np.testing.assert_array_equal(run.w.get(), ends[best])


@pytest.mark.parametrize("n", [1, 7, 10])
@pytest.mark.parametrize("twice", [True, False], ids=["Ctrl-C twice", "an error"])
def test_cupy_is_stopped_at_once(twice: bool, n: int, arrays: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    with no_memory_kept():
        with pytest.raises(KeyboardInterrupt if twice else Stop) as caught:
            train(arrays, callbacks=[at_batch(n, *([press, press] if twice else [blow]))])
        del caught
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError, RuntimeError])
def test_an_optimizer_that_raises_on_cupy(error: type[BaseException], arrays: Any) -> None:
    class Fails(Plain):
        def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
            if state == 6:
                raise error("here")
            return super().step(w, g, state)

    words = r"^cuda:0 must have memory for a step with batch_size = 5, but: here: give a smaller batch_size"
    with no_memory_kept():
        with pytest.raises(error, match=words if error is MemoryError else "^here$") as caught:
            train(arrays, optimizer=Fails())
        del caught


@pytest.mark.parametrize("part", ["init", "callback", "activation"])
def test_a_users_part_that_raises_on_cupy(part: str, arrays: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(9))

    def value(xp: Any, p: Any) -> Any:
        if next(calls, None) is None:
            blow()
        return p**2

    class Fails(Plain):
        def init(self, w: Any) -> int:
            blow()
            return 0

    given: Any = {
        "init": {"optimizer": Fails()},
        "callback": {"callbacks": [on_epoch(lambda state: blow())]},
        "activation": {
            "net": gpubp.Network(
                (3, 4, 2),
                hidden=gpubp.Activation(value, lambda xp, p, q: 2 * p, name="square", check_at=None),
            )
        },
    }[part]
    with no_memory_kept():
        with pytest.raises(Stop) as caught:
            train(arrays, **given)
        del caught


def test_cupy_divergence_carries_the_last_good_weights(arrays: Any) -> None:
    class Blows(Plain):
        def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
            return w - self.learning_rate * g * (np.inf if state == 6 else 1.0), state + 1

    with no_memory_kept():
        with pytest.raises(DivergenceError, match="epoch 2, batch 3") as caught:
            train(arrays, optimizer=Blows())
        close(caught.value.w.get(), RIGHT[4])
        del caught
