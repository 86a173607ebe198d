"""train: Ctrl-C, divergence and memory that runs out."""

from __future__ import annotations

import pickle
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Place
from trainings import (
    Plain,
    W,
    X,
    Y,
    by_hand,
    close,
    cost_by_hand,
    fit,
    on_batch,
    on_epoch,
    problem,
    without_jax,
)

from gpubp import SGD, Device, DivergenceError, Network, backprop
from gpubp.engines import Numpy
from gpubp.training import loop

pytestmark = pytest.mark.usefixtures("on_the_cpu")

# Ctrl-C


def _press(state: Any) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def handler() -> Iterator[Any]:
    """A handler that is not Python's own, to be found again."""

    def mine(signum: int, frame: Any) -> None:
        raise AssertionError("the run's own handler was not there")

    before = signal.signal(signal.SIGINT, mine)
    yield mine
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_lets_the_batch_finish(handler: Any) -> None:
    seen: list[int] = []

    def watch(state: Any) -> None:
        seen.append(state.rows_done)
        if len(seen) == 7:
            _press(state)

    run = fit(callbacks=[on_batch(watch)])
    assert len(seen) == 7
    assert (run.interrupted, run.stopped, run.history["epoch"]) == (True, "interrupted", [1])
    close(run.w, by_hand(W)[0][6])
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_gives_the_best_weights_back(handler: Any) -> None:
    ends: list[Any] = []
    keep = on_epoch(lambda state: ends.append(state.w.copy()))
    stop = on_batch(lambda state: _press(state) if state.epoch == 4 else None)
    run = fit(
        *problem(12, noise=2.0),
        optimizer=SGD(0.3),
        epochs=9,
        validation=problem(40, 3),
        callbacks=[keep, stop],
    )
    assert run.interrupted
    assert len(ends) == 3
    assert run.best_epoch == int(np.argmin(run.history["validation_cost"])) + 1
    np.testing.assert_array_equal(run.w, ends[run.best_epoch - 1])


@pytest.mark.parametrize("epoch", [1, 3])
def test_ctrl_c_between_epochs(handler: Any, epoch: int) -> None:
    run = fit(callbacks=[on_epoch(lambda state: _press(state) if state.epoch == epoch else None)])
    assert (run.stopped, run.history["epoch"][-1], run.best_epoch) == ("interrupted", epoch, epoch)
    close(run.w, by_hand(W)[0][5 * epoch - 1])


def test_ctrl_c_twice_is_at_once(handler: Any) -> None:
    seen: list[int] = []

    def twice(state: Any) -> None:
        seen.append(state.batch)
        _press(state)
        _press(state)
        seen.append(-1)

    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[on_batch(twice)])
    assert seen == [1]
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_stays_ignored_where_it_was() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert fit(callbacks=[on_batch(_press)]).stopped == "epochs"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_ctrl_c_alone(handler: Any) -> None:
    seen: list[Any] = []
    watch = on_batch(lambda state: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: seen.append(fit(callbacks=[watch])))
    thread.start()
    thread.join()
    assert seen[:-1] == [handler] * 15
    close(seen[-1].w, by_hand(W)[0][-1])


# divergence


class Blows(Plain):
    """Good until step 7, the second of the second epoch."""

    def learning_rate(self, step: int) -> float:  # type: ignore[override]
        return 0.1 / (step + 1)

    def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
        return w * (np.inf if state == 6 else 0.99), state + 1


@without_jax
@pytest.mark.parametrize("validation", [None, problem(9, 3)], ids=["", "validated"])
def test_divergence_says_where_and_carries_weights(place: Place, validation: Any) -> None:
    ends: list[Any] = []
    watch = on_epoch(lambda state: ends.append(place.host(state.w).copy()))
    x, y = place.array(X), place.array(Y)
    with pytest.raises(
        DivergenceError,
        match=r"the cost must stay finite, got NaN or inf at epoch 2, batch 3, learning rate 0.0125: lower the "
        "learning rate, scale the inputs, or give clip_norm",
    ) as caught:
        fit(x, y, optimizer=Blows(), validation=validation, callbacks=[watch])
    error = caught.value
    assert (error.epoch, error.batch, error.learning_rate) == (2, 3, 0.1 / 8)
    assert place.here(error.w)
    np.testing.assert_array_equal(place.host(error.w), ends[0])
    assert isinstance(error, ArithmeticError)


def test_divergence_carries_the_best_validated_weights() -> None:
    held, ends = problem(9, 3), []

    class Later(Plain):
        def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
            return w - (0.3 if state < 15 else -0.3) * g * (np.inf if state == 25 else 1.0), state + 1

    with pytest.raises(DivergenceError) as caught:
        fit(
            optimizer=Later(),
            epochs=9,
            validation=held,
            callbacks=[on_epoch(lambda s: ends.append(s.w.copy()))],
        )
    best = int(np.argmin([cost_by_hand(w, *held) for w in ends]))
    assert best < len(ends) - 1
    np.testing.assert_array_equal(caught.value.w, ends[best])


def test_overflow_is_never_silent(place: Place) -> None:
    net = Network((3, 4, 2), hidden="exp")
    with pytest.raises(DivergenceError, match="the cost must stay finite") as caught:
        fit(place.array(100.0 * X), place.array(Y), net=net, w=100.0 * W)
    assert (caught.value.epoch, caught.value.batch) == (1, 1)
    np.testing.assert_allclose(place.host(caught.value.w), 100.0 * W, rtol=1e-6)


@without_jax
def test_overflow_in_the_last_step_alone(place: Place) -> None:
    huge = 1e30 if place.dtype == "float32" else 1e300
    with pytest.raises(
        DivergenceError, match=r"every weight must stay finite, .* at epoch 1, batch 1,"
    ) as caught:
        fit(
            place.array(1e5 * X),
            place.array(Y),
            optimizer=SGD(huge),
            epochs=1,
            batch_size=23,
            net=Network((3, 2)),
            w=None,
        )
    assert np.isfinite(place.host(caught.value.w)).all()


def test_a_validation_cost_that_overflows() -> None:
    x, y = X.astype("float32"), Y.astype("float32")
    with pytest.raises(
        DivergenceError, match=r"the validation cost must stay finite, .* at epoch 1, batch 5"
    ):
        fit(x, y, validation=(x, np.full_like(y, 1e30)))


def test_divergence_is_pickled() -> None:
    error = DivergenceError("the cost", 2, 3, 0.5, np.ones(2))
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert (twin.epoch, twin.batch, twin.learning_rate) == (2, 3, 0.5)
    np.testing.assert_array_equal(twin.w, error.w)


# memory


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the step's buffers were gone, each time that memory was given back."""
    rooms: list[Any] = []
    gone: list[bool] = []

    class Noted(backprop.Workspace):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            rooms.append(weakref.ref(self))

    monkeypatch.setattr(backprop, "Workspace", Noted)
    monkeypatch.setattr(Device, "give_back", lambda self: gone.append(all(room() is None for room in rooms)))
    return gone


def test_memory_is_given_back_after_a_run(given_back: list[bool]) -> None:
    run = fit()
    assert given_back == [True]
    assert run.w.shape == W.shape


def test_memory_that_runs_out_is_told_with_the_batch_and_the_remedy(
    given_back: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(6))
    true = Numpy.contract

    def failing(self: Numpy, *arrays: Any, **out: Any) -> Any:
        if next(steps, None) is None:
            raise MemoryError("Out of memory allocating 4,096 bytes (allocated so far: 512 bytes).\nmore")
        return true(self, *arrays, **out)

    monkeypatch.setattr(Numpy, "contract", failing)
    w = W.copy()
    with pytest.raises(
        MemoryError,
        match=r"^cpu must have memory for a step with batch_size = 5, but: Out of memory allocating 4,096 bytes "
        r"\(allocated so far: 512 bytes\): give a smaller batch_size$",
    ) as caught:
        fit(w=w)
    assert next(steps, None) is None
    np.testing.assert_array_equal(w, W)
    assert given_back == [True]
    assert caught.value.__context__ is None  # nothing holds on to the frames of the step


def test_on_a_gpu_the_cpu_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(loop.Loop, "go", failing)
    gpu = Device("gpu", np, "NumPy under another name")
    with pytest.raises(
        MemoryError, match=r"^gpu must .*, but: MemoryError: give a smaller batch_size, or device='cpu'$"
    ):
        fit(device=gpu)


@pytest.mark.parametrize(
    ("module", "said", "is_memory"),
    [
        ("cupy_backends.cuda.libs.cublas", "CUBLAS_STATUS_ALLOC_FAILED", True),
        ("cupy_backends.cuda.api.runtime", "cudaErrorMemoryAllocation: out of memory", True),
        ("cupy_backends.cuda.api.driver", "CUDA_ERROR_OUT_OF_MEMORY: out of memory", True),
        ("cupy_backends.cuda.libs.cublas", "CUBLAS_STATUS_EXECUTION_FAILED", False),
        (
            "cupy_backends.cuda.api.runtime",
            "cudaErrorIllegalAddress: an illegal memory access was met",
            False,
        ),
        ("elsewhere", "CUBLAS_STATUS_ALLOC_FAILED", False),
    ],
)
def test_memory_that_cudas_libraries_lack_is_told_too(
    monkeypatch: pytest.MonkeyPatch, module: str, said: str, is_memory: bool
) -> None:
    error = type("CUDAError", (RuntimeError,), {"__module__": module})

    def failing(*arguments: Any) -> None:
        raise error(said)

    monkeypatch.setattr(loop.Loop, "go", failing)
    with pytest.raises(MemoryError if is_memory else error, match=said):
        fit()
