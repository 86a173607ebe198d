"""Devices: their names, why there is no GPU, and moving arrays from library to library."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import PLACES, Place, _ready, library

import gpubp
from gpubp import Device, _devices, device, devices
from gpubp._devices import device_of, why_no_gpu

PIP = r"pip install 'gpubp\[cuda13\]' \(or \[cuda12\] for an older driver\)"


def without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine to make up: GPUs are looked for anew, before and after."""
    monkeypatch.delenv("GPUBP_DEVICE", raising=False)
    _devices.computes.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    _devices.computes.cache_clear()


@pytest.fixture
def no_gpu(machine: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without CuPy."""
    without_cupy(machine)
    return machine


def test_the_cpu() -> None:
    cpu = device("cpu")
    assert (cpu.name, cpu.xp, cpu.free_bytes()) == ("cpu", np, None)
    assert "CPU" in cpu.description
    assert devices()[0] == cpu
    with cpu.current():
        pass


def test_a_device_is_a_value() -> None:
    cpu = device("cpu")
    assert cpu == device("cpu") == Device("cpu", None, "the same, told otherwise")
    assert hash(cpu) == hash(device("cpu"))
    assert cpu != Device("cuda:0", np, "CPU")
    assert repr(cpu) == "Device(name='cpu', description='NumPy on the CPU')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        cpu.name = "cuda"  # type: ignore[misc]


def test_auto_without_a_gpu_is_the_cpu_and_says_why(
    no_gpu: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gpubp"):
        assert device().name == device("auto").name == "cpu"
    assert caplog.messages[0].startswith("device auto is the CPU: CuPy is not installed: pip install")
    assert devices() == (device("cpu"),)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_never_falls_back(no_gpu: pytest.MonkeyPatch, name: str) -> None:
    words = rf"device '{name}' needs CuPy and an NVIDIA GPU that computes, but CuPy is not installed: {PIP}"
    with pytest.raises(RuntimeError, match=words):
        device(name)


def test_the_environment_overrides_auto_alone(no_gpu: pytest.MonkeyPatch) -> None:
    no_gpu.setenv("GPUBP_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match="device 'cuda' needs CuPy"):
        device("auto")
    assert device("cpu").name == "cpu"
    for name, found in {"cpu": "cpu", "auto": "cpu", "": "cpu"}.items():
        no_gpu.setenv("GPUBP_DEVICE", name)
        assert device("auto").name == found
    no_gpu.setenv("GPUBP_DEVICE", "gpu")
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"):
        device()


@pytest.mark.parametrize(
    "name", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:1.0", "cuda:²", "cpu:0", "", " cuda"]
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got"):
        device(name)


@pytest.mark.parametrize("name", [0, None, b"cpu"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match=rf"device must be a name .*, got {type(name).__name__}: try 'cpu'"):
        device(name)


def no_device() -> int:
    raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected\nand a second line")


def silent() -> int:
    raise OSError


@pytest.mark.parametrize(
    ("count", "arange", "index", "reason"),
    [
        (lambda: 1, np.arange, 0, None),
        (lambda: 2, np.arange, 1, None),
        (lambda: 1, np.arange, 1, r"this machine has 1 GPU, numbered from 0"),
        (lambda: 0, np.arange, 0, r"this machine has 0 GPUs, numbered from 0"),
        (lambda: 1, lambda n, dtype: np.zeros(n, dtype), 0, r"its arithmetic is wrong"),
        (no_device, np.arange, 0, rf"cudaErrorNoDevice: no CUDA-capable device is detected: check .* {PIP}"),
        (silent, np.arange, 0, rf"OSError: check the driver with nvidia-smi, then {PIP}"),
    ],
)
def test_a_gpu_must_really_compute(
    machine: pytest.MonkeyPatch, count: Callable[[], int], arange: Any, index: int, reason: str | None
) -> None:
    cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count), Device=lambda index: nullcontext())
    machine.setattr(importlib.util, "find_spec", lambda name: object())
    machine.setattr(_devices, "_cupy", lambda: SimpleNamespace(cuda=cuda, arange=arange, float32=np.float32))
    found = why_no_gpu(index)
    if reason is None:
        assert found is None
        return
    assert found is not None
    assert "\n" not in found
    with pytest.raises(RuntimeError, match=rf"device 'cuda:{index}' needs CuPy .* but {reason}"):
        device(f"cuda:{index}")


def test_a_full_gpu_is_asked_again(machine: pytest.MonkeyPatch) -> None:
    """Other reasons stay for the process; this one passes."""
    asked: list[int] = []

    def count() -> int:
        asked.append(0)
        if len(asked) == 1:
            raise MemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes).")
        return 1

    cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count), Device=lambda index: nullcontext())
    machine.setattr(importlib.util, "find_spec", lambda name: object())
    machine.setattr(
        _devices, "_cupy", lambda: SimpleNamespace(cuda=cuda, arange=np.arange, float32=np.float32)
    )
    with pytest.raises(
        RuntimeError,
        match=r"needs CuPy and an NVIDIA GPU that computes, but its memory is used up: Out of memory allocating 512 "
        r"bytes \(allocated so far: 0 bytes\): see who uses it with nvidia-smi$",
    ):
        device("cuda")
    assert [why_no_gpu(), why_no_gpu()] == [None, None]
    assert len(asked) == 2


def test_memory_is_given_back_to_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    @contextmanager
    def current(index: int) -> Iterator[None]:
        done.append(index)
        yield
        done.append("end")

    pool = SimpleNamespace(free_all_blocks=lambda: done.append("freed"))
    cupy = SimpleNamespace(cuda=SimpleNamespace(Device=current), get_default_memory_pool=lambda: pool)
    monkeypatch.setattr(_devices, "_cupy", lambda: cupy)
    device("cpu").give_back()
    assert done == []
    Device("cuda:1", np, "", 1).give_back()
    assert done == [1, "freed", "end"]


@pytest.mark.parametrize(
    ("status", "output", "driver"),
    [(0, "580.65.06\n580.65.06\n", "580.65.06"), (9, "no driver", None), (0, "", None), (None, "", None)],
)
def test_the_driver_is_asked_of_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, status: int | None, output: str, driver: str | None
) -> None:
    def run(command: list[str], **_: Any) -> Any:
        assert command == ["smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return SimpleNamespace(returncode=status, stdout=output)

    monkeypatch.setattr(shutil, "which", lambda name: None if status is None else "smi")
    monkeypatch.setattr(subprocess, "run", run)
    runtime = SimpleNamespace(runtimeGetVersion=lambda: 12090, driverGetVersion=lambda: 13000)
    monkeypatch.setattr(_devices, "_cupy", lambda: SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    assert _devices.driver() == driver
    told = {"driver": driver or "nvidia-smi doesn't tell", "cuda": "12.9, the driver's is 13.0"}
    assert _devices.cuda_versions() == told


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "complex128"])
def test_arrays_come_to_the_cpu(place: Place, dtype: str) -> None:
    if place.device.startswith("no_") and dtype not in ("float32", "bool"):
        pytest.skip("this device has no such dtype")
    host = np.arange(6).reshape(2, 3).astype(dtype)
    put = device("cpu").put(place.array(host, dtype))
    assert type(put) is np.ndarray
    assert put.dtype == dtype
    np.testing.assert_array_equal(put, host)


HOMES = [
    Place(*key, "float64") for key in sorted({(p.name, p.device) for p in PLACES if p.dtype == "float64"})
]


@pytest.mark.parametrize("home", HOMES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_arrays_go_from_library_to_library(place64: Place, home: Place, dtype: str) -> None:
    _ready(home)
    host = np.arange(6).reshape(2, 3).astype(dtype)
    there = place64.array(host, dtype)
    target = device_of(home.array(np.zeros(1)))
    put = target.put(there)
    assert device_of(put) == target
    assert type(put) is type(home.array(np.zeros(1)))
    assert str(put.dtype).rpartition(".")[2] == dtype
    np.testing.assert_array_equal(home.host(put), host)
    assert target.put(put) is put


def test_nothing_is_copied_on_the_cpu_where_memory_can_be_shared() -> None:
    cpu, host = device("cpu"), np.arange(6.0)
    assert cpu.put(host) is host
    torch = library("torch")
    tensor = torch.arange(6.0)
    assert np.shares_memory(cpu.put(tensor), tensor.numpy())
    assert np.shares_memory(device_of(tensor).put(host).numpy(), host)
    learnt = torch.ones(3, requires_grad=True)
    assert np.shares_memory(cpu.put(learnt), learnt.detach().numpy())


def test_nothing_is_copied_from_jax(jax: Any) -> None:
    array = jax.numpy.arange(6.0)
    assert device("cpu").put(array).ctypes.data == array.unsafe_buffer_pointer()


def test_a_read_only_array_goes_to_pytorch_without_a_warning(torch: Any) -> None:
    host = np.arange(3.0)
    host.flags.writeable = False
    assert device_of(torch.zeros(1)).put(host).tolist() == [0, 1, 2]


@pytest.mark.parametrize("thing", [[1.0, 2.0], 3.0, None, "x", range(3)])
def test_put_takes_arrays(thing: Any) -> None:
    words = rf"put takes an array, got {type(thing).__name__}: make it one with numpy.asarray"
    with pytest.raises(TypeError, match=words):
        device("cpu").put(thing)
    there = Place("strict", "CPU_DEVICE", "float64")
    with pytest.raises(TypeError, match=words):
        device_of(there.array(np.zeros(1))).put(thing)


def test_put_says_what_memory_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(_devices, "moved", full)
    words = r"^cpu needs 24 bytes for this array, and has less free: put fewer rows at a time$"
    with pytest.raises(MemoryError, match=words) as caught:
        device("cpu").put(np.zeros(3))
    assert caught.value.__context__ is None


def test_where_an_array_lives(place64: Place) -> None:
    strict = f"array_api_strict:{place64.device}"
    names = {"numpy": "cpu", "cupy": "cuda:0", "strict": strict, "torch": "torch:cpu", "jax": "jax:"}
    assert device_of(place64.array([1.0])).name.startswith(names[place64.name])


def test_cupy_on_the_gpu() -> None:
    """What only a GPU can show: the round trip, free memory, weights drawn there, and a refused mixture."""
    if (reason := why_no_gpu()) is not None:
        pytest.skip(reason)
    gpu = device("cuda")
    assert gpu == device("cuda:0") == device_of(gpu.put(np.zeros(1)))
    assert (gpu.free_bytes() or 0) > 0
    assert gpu in devices()
    host = np.random.default_rng(0).standard_normal((3, 4))
    there = gpu.put(host)
    assert gpu.put(there) is there
    np.testing.assert_array_equal(device("cpu").put(there), host)
    net = gpubp.Network((4, 3, 2), hidden="gelu", cost="cross_entropy")
    w = net.init(3, dtype="float64", device="cuda")
    np.testing.assert_allclose(
        device("cpu").put(net.predict(w, there)), net.predict(net.init(3, dtype="float64"), host), rtol=1e-12
    )
    with pytest.raises(TypeError, match=r"x must be an array of cupy like w, got one of numpy"):
        net.predict(w, host)


@pytest.mark.parametrize("order", ["C", "F"])
def test_cupy_shares_with_pytorch_on_the_gpu(order: Any) -> None:
    if (reason := why_no_gpu()) is not None:
        pytest.skip(reason)
    torch = library("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    tensor = torch.arange(6.0, device="cuda").reshape(2, 3)
    tensor = tensor if order == "C" else tensor.T
    put = device("cuda").put(tensor)
    assert put.data.ptr == tensor.data_ptr()
    assert put.shape == tuple(tensor.shape)
