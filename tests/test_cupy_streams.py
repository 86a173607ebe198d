"""The stream that a user computes on: all work goes there, and nothing needs another wait than the user's own.

On the emulated device with ``EMULATOR_DEFER`` a wait that is missing shows; on a card it may.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from trainings import on_batch

import gpubp
from gpubp import Device, Network
from gpubp.engines.cupy import Cupy

NET = Network((3, 40, 2), hidden="tanh")
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
W = NET.init(1, dtype="float64")
FIT: dict[str, Any] = {"w": W, "epochs": 3, "batch_size": 8, "progress": False, "validation": 0.2, "l2": 0.1}


@pytest.fixture
def cupy(gpu: Device) -> Any:
    return sys.modules["cupy"]


@pytest.fixture
def stream(cupy: Any) -> Iterator[Any]:
    """A stream that no other one waits for, current; it still is at the end."""
    with cupy.cuda.Stream(non_blocking=True) as stream:
        yield stream
        assert cupy.cuda.get_current_stream() == stream


@pytest.fixture(scope="module")
def right() -> Any:
    return gpubp.train(NET, X, Y, device="cpu", **FIT)


def close(there: Any, host: Any) -> None:
    np.testing.assert_allclose(there.get(), host, rtol=1e-11, atol=1e-13)


def late(cupy: Any, host: Any) -> Any:
    """The array, which the current stream is still writing when this comes back."""
    a = cupy.full(host.shape, np.nan)
    b = cupy.asarray(host)
    for _ in range(20):
        b = b + 1.0 - 1.0
    a[...] = b
    a += cupy.asarray(host) - b  # what rounding has moved
    return a


def test_cupy_trains_on_the_current_stream(stream: Any, right: Any, gpu: Device) -> None:
    run = gpubp.train(NET, X, Y, device=gpu, **FIT)
    close(run.w * 2.0, 2.0 * right.w)  # on the same stream, without a wait
    assert run.history["cost"] == pytest.approx(right.history["cost"], rel=1e-11)
    assert run.history["validation_cost"] == pytest.approx(right.history["validation_cost"], rel=1e-11)
    np.testing.assert_allclose(run.predict(X), right.predict(X), rtol=1e-11, atol=1e-13)


def test_cupy_arrays_that_the_current_stream_is_writing(stream: Any, right: Any, cupy: Any) -> None:
    x, y, w = (late(cupy, array) for array in (X, Y, W))
    close(NET.predict(w, x) + 1.0, NET.predict(W, X) + 1.0)
    close(NET.backward(w, x, y).gradient, NET.gradient(W, X, Y))
    close(gpubp.train(NET, late(cupy, X), late(cupy, Y), **{**FIT, "w": late(cupy, W)}).w, right.w)
    scaler = gpubp.Standardizer.fit(late(cupy, X))
    close(scaler.apply(late(cupy, X)), gpubp.Standardizer.fit(X).apply(X))
    np.testing.assert_allclose(gpubp.device("cpu").put(late(cupy, X)), X, rtol=1e-11)


def test_cupy_arrays_of_another_stream(right: Any, cupy: Any) -> None:
    """The user lets the one stream wait for the other, as CUDA wants it; nothing more is needed, there and back."""
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with first:
        x, y, w = (late(cupy, array) for array in (X, Y, W))
    second.wait_event(first.record())
    with second:
        run = gpubp.train(NET, x, y, **{**FIT, "w": w})
        q = NET.predict(run.w, x)
    first.wait_event(second.record())
    with first:
        close(run.w + 0.0, right.w)
        close(q * 1.0, right.predict(X))


def test_put_copies_before_the_host_writes_again(stream: Any, gpu: Device) -> None:
    host = np.arange(100_000.0)
    there = gpu.put(host)
    host[:] = np.nan
    np.testing.assert_array_equal(there.get(), np.arange(100_000.0))
    back = gpubp.device("cpu").put(there + 1.0)
    np.testing.assert_array_equal(back, np.arange(1.0, 100_001.0))


def test_cupy_streams_in_turn_share_nothing_unwritten(cupy: Any) -> None:
    """What an engine keeps, a row of ones, was written on one stream; another doesn't wait for that."""
    engine = Cupy()
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(4)]
    sums = []
    for rows in (3, 7, 5):
        for stream in streams:
            with stream:
                sums.append((rows, engine.sum_rows(cupy.ones((rows, 4)))))
    for rows, total in sums:
        cupy.cuda.Device().synchronize()
        np.testing.assert_array_equal(total.get(), np.full(4, float(rows)))


def test_a_callback_on_another_stream(stream: Any, right: Any, cupy: Any, gpu: Device) -> None:
    other, copies = cupy.cuda.Stream(non_blocking=True), []

    def keep(state: Any) -> None:
        other.wait_event(stream.record())
        with other:
            copies.append(state.w.copy())
        stream.wait_event(other.record())

    seen: list[Any] = []
    gpubp.train(
        NET, X, Y, device="cpu", callbacks=[on_batch(lambda state: seen.append(state.w.copy()))], **FIT
    )
    gpubp.train(NET, X, Y, device=gpu, callbacks=[on_batch(keep)], **FIT)
    other.synchronize()
    assert len(copies) == len(seen)
    for copy, host in zip(copies, seen, strict=True):
        close(copy, host)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_cupys_current_stream_stays_after_an_exception(
    error: type[BaseException], stream: Any, gpu: Device
) -> None:
    def fail(state: Any) -> None:
        raise error

    with pytest.raises(error):
        gpubp.train(NET, X, Y, device=gpu, callbacks=[on_batch(fail)], **FIT)


def test_cupy_threads_train_on_streams_of_their_own(right: Any, cupy: Any, gpu: Device) -> None:
    found: dict[int, Any] = {}

    def train(k: int) -> None:
        with cupy.cuda.Device(0), cupy.cuda.Stream(non_blocking=True):
            found[k] = gpubp.train(NET, X, Y, device=gpu, **FIT).w.get()

    threads = [threading.Thread(target=train, args=[k]) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2]
    for w in found.values():
        np.testing.assert_allclose(w, right.w, rtol=1e-11, atol=1e-13)


def test_cupy_trains_on_the_current_stream_of_a_second_gpu(
    stream: Any, right: Any, cupy: Any, gpus: tuple[Device, Device]
) -> None:
    first, second = gpus
    with second.current(), cupy.cuda.Stream(non_blocking=True):
        with first.current():
            x = late(cupy, X)
            run = gpubp.train(NET, x, Y, device=second, **FIT)
            q = run.predict(x)
            assert cupy.cuda.get_current_stream() == stream
            close(q + 0.0, right.predict(X))
        close(run.w + 0.0, right.w)
