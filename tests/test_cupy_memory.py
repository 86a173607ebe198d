"""Memory of a GPU that runs out at each allocation in turn: a sentence, all given back, the next training right."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import Device, Network, _devices
from gpubp._cli.commands import main

emulator = pytest.importorskip(
    "cupy_on_cpu.emulator", reason="allocations fail on the emulated device alone: ci/emulate runs this"
)

NET = Network((30, 20, 5), hidden="tanh", cost="cross_entropy")
rng = np.random.default_rng(0)
X, Y, S = (
    rng.standard_normal((400, 30)),
    rng.integers(0, 5, 400),
    np.arange(400.0) % 3,
)  # more than pools have over
W = NET.init(1, dtype="float64")
DATA = r"cuda:0 must have memory for the data and weights, but: {}: train on fewer rows, or device='cpu'"
STEP = r"cuda:0 must have memory for a step with batch_size = \d+, but: {}: give a smaller batch_size, or device='cpu'"
REASONS = {
    "pool": r"Out of memory allocating [\d,]+ bytes \(allocated so far: [\d,]+ bytes\)",
    "no pool": "cudaErrorMemoryAllocation: out of memory",
}


@pytest.fixture(params=REASONS)
def allocator(request: pytest.FixtureRequest, gpu: Device) -> Iterator[str]:
    """CuPy's pool, or none: every array is then an allocation of its own, and its own failure is a RuntimeError."""
    if not emulator.is_here():
        pytest.skip("allocations fail on the emulated device alone: ci/emulate runs this")
    cupy = sys.modules["cupy"]
    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc if request.param == "pool" else None)
    gc.collect()
    gc.disable()  # all must be given back without a collector of cycles
    yield request.param
    gc.enable()
    cupy.cuda.set_allocator(before)


class Job:
    """A training on arrays that are on the GPU already, and what it must leave as it was."""

    def __init__(self, gpu: Device, epochs: int) -> None:
        self.given = [gpu.put(array) for array in (X, Y, S, W)]
        self.gpu, self.epochs = gpu, epochs
        self.right = self()

    def __call__(self, **more: Any) -> Any:
        x, y, s, w = self.given
        held: dict[str, Any] = {"validation": 0.2} if self.epochs > 1 else {}
        run = gpubp.train(
            NET, x, y, sample_weight=s, w=w, epochs=self.epochs,
            batch_size=160 if self.epochs > 1 else 400, l2=0.1, clip_norm=1.0,
            device=self.gpu, progress=False, **held, **more,
        )  # fmt: skip
        return run.w.get()

    def count(self) -> int:
        with emulator.counting() as (times, _):
            self()
        return int(times["allocate"])

    def check(self) -> None:
        """The caller's arrays are whole, and a training gives the same bits."""
        for array, host in zip(self.given, (X, Y, S, W), strict=True):
            np.testing.assert_array_equal(array.get(), host)
        np.testing.assert_array_equal(self(), self.right)


def nothing_over(allocator: str) -> Any:
    """While it is open, CuPy's pool, if it has one, is new and empty."""
    cuda = sys.modules["cupy"].cuda
    return cuda.using_allocator(cuda.MemoryPool().malloc if allocator == "pool" else None)


def free_bytes(gpu: Device) -> int:
    return int(sys.modules["cupy"].cuda.Device(gpu.native).mem_info[0])


@contextmanager
def all_given_back(gpu: Device) -> Iterator[None]:
    """As much memory is free after it as before, by the device's own count."""
    gpu.give_back()
    before = free_bytes(gpu)
    yield
    assert free_bytes(gpu) == before


@pytest.fixture
def job(allocator: str, gpu: Device) -> Job:
    return Job(gpu, epochs=3 if allocator == "pool" else 1)


def test_cupy_training_without_memory_from_each_allocation_on(job: Job, allocator: str) -> None:
    said = []
    for n in range(1, job.count() + 1):
        with all_given_back(job.gpu), emulator.allocations_fail(n):
            with pytest.raises(MemoryError) as caught:
                job()
            assert type(caught.value) is MemoryError
            assert caught.value.__context__ is None
            said.append(str(caught.value))
            del caught
        job.check()
    data, step = (re.compile(sentence.format(REASONS[allocator])) for sentence in (DATA, STEP))
    of_data = sum(map(bool, map(data.fullmatch, said)))
    assert 0 < of_data < len(said)
    assert [s for s in said[of_data:] if not step.fullmatch(s)] == []


def test_cupy_training_where_one_allocation_fails(job: Job, allocator: str) -> None:
    """CuPy's pool tries again, after it has freed what nobody uses: nothing is seen of it."""
    for n in range(1, job.count() + 1):
        with all_given_back(job.gpu), emulator.allocations_fail(n, 1):
            if allocator == "pool":
                np.testing.assert_array_equal(job(), job.right)
                job.gpu.give_back()  # what its weights took
            else:
                with pytest.raises(MemoryError, match="must have memory for"):
                    job()
    job.check()


@pytest.mark.parametrize("allocator", ["pool"], indirect=True)
def test_cupys_pool_with_a_limit(allocator: str, gpu: Device) -> None:
    job, pool = Job(gpu, 1), sys.modules["cupy"].get_default_memory_pool()
    before = pool.get_limit()
    pool.set_limit(size=pool.total_bytes() + 2048)
    try:
        assert gpu.free_bytes() == pool.get_limit() - pool.used_bytes()
        with pytest.raises(
            MemoryError, match=r"^cuda:0 must have memory for .*, limit set to: [\d,]+ bytes\): "
        ):
            job()
    finally:
        pool.set_limit(size=before)
    job.check()


DOORS: dict[str, Callable[[Job, Path], Any]] = {
    "put": lambda job, file: job.gpu.put(X),
    "init": lambda job, file: NET.init(device="cuda"),
    "load": lambda job, file: gpubp.load(file, device="cuda"),
    "scaler": lambda job, file: gpubp.Standardizer(X[0], X[1]).put(job.gpu),
}


@pytest.mark.parametrize("door", DOORS)
def test_cupy_arrays_that_find_no_memory(door: str, job: Job, allocator: str, tmp_path: Path) -> None:
    gpubp.save(tmp_path / "model", NET, W, scaler=gpubp.Standardizer(X[0], X[1] ** 2))
    with all_given_back(job.gpu), nothing_over(allocator), emulator.allocations_fail(1):
        with pytest.raises(MemoryError) as caught:
            DOORS[door](job, tmp_path / "model")
        words = r"cuda:0 needs \d+ bytes for this array, and has \d+ free: put fewer rows at a time"
        assert re.fullmatch(words, str(caught.value))
        assert caught.value.__context__ is None
        del caught
    job.check()


@pytest.mark.parametrize("call", ["predict", "backward", "cost"])
def test_cupy_calls_without_memory_give_theirs_back(call: str, job: Job) -> None:
    x, y, _, w = job.given
    arguments = (w, x) if call == "predict" else (w, x, y)

    def result() -> Any:
        found = getattr(NET, call)(*arguments)
        return (found.gradient if call == "backward" else found).get()

    right, n = result(), 0
    for n in range(1, 100):
        with all_given_back(job.gpu), emulator.allocations_fail(n):
            try:
                result()
                break
            except (MemoryError, RuntimeError) as error:
                if not _devices.out_of_memory(error):
                    raise
            finally:
                job.gpu.give_back()
        np.testing.assert_array_equal(result(), right)
    assert 2 < n < 99


def test_gpubp_train_on_cupy_without_memory(
    allocator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    command = [
        "train",
        str(tmp_path / "data.npz"),
        "-o",
        str(tmp_path / "model"),
        "--device",
        "cuda",
        "--quiet",
    ]
    with emulator.allocations_fail(1):
        assert main(command) == 1
    assert re.fullmatch(
        r"gpubp train: cuda:0 must have memory for [^\n]*, or device='cpu'\n", capsys.readouterr().err
    )
    assert not (tmp_path / "model").exists()


def test_a_gpu_without_memory_is_asked_again(allocator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUBP_DEVICE", raising=False)
    _devices.computes.cache_clear()
    with nothing_over(allocator), emulator.allocations_fail(1):
        with pytest.raises(RuntimeError, match=r"GPU that computes, but its memory is used up: .*nvidia-smi"):
            gpubp.device("cuda")
        assert gpubp.device("auto").name == "cpu"
    assert gpubp.device("auto").name == "cuda:0"
