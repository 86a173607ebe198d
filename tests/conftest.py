"""The places where arrays live: every library, on every device of it that is here, in float32 and float64."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import checker
import numpy as np
import pytest

import gpubp
from gpubp._devices import why_no_gpu
from gpubp._typing import Array, Namespace, NativeDevice
from gpubp.recording.recorded import Recorded

REMEDIES = {
    "array_api_strict": "array-api-strict is not installed: ci/test adds it",
    "jax": "JAX is not installed: ci/test adds it",
    "torch": "PyTorch is not installed: ci/test --with-torch adds it",
}


def library(module: str) -> Any:
    """The library of that name, ready for float64; the test skips, with the remedy, where it is not installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(REMEDIES[module])
    found = importlib.import_module(module)
    if module == "jax":
        found.config.update("jax_enable_x64", True)
    return found


@dataclass(frozen=True)
class Place:
    """A namespace, a device and a dtype, with ways to bring NumPy arrays there and back that gpubp has no part in."""

    name: str
    device: str
    dtype: str

    def __str__(self) -> str:
        return "-".join(filter(None, (self.name, self.device, self.dtype)))

    @property
    def xp(self) -> Namespace:
        if self.name == "numpy":
            return np
        if self.name == "cupy":
            return importlib.import_module("array_api_compat.cupy")
        module = library({"strict": "array_api_strict"}.get(self.name, self.name))
        if self.name == "torch":
            return importlib.import_module("array_api_compat.torch")
        return module.numpy if self.name == "jax" else module

    @property
    def native(self) -> NativeDevice:
        if self.name == "strict":
            return self.xp.Device(self.device)
        return library("torch").device(self.device) if self.name == "torch" else None

    @property
    def rtol(self) -> float:
        return 1e-12 if self.dtype == "float64" else 2e-5

    @property
    def eps(self) -> float:
        return float(np.finfo(self.dtype).eps)

    def array(self, host: Any, dtype: str | None = None) -> Array:
        """An array here: floating numbers in this place's dtype, others in their own."""
        host = np.asarray(host)
        host = host.astype(dtype or (self.dtype if host.dtype.kind == "f" else host.dtype))
        return self.xp.asarray(host) if self.native is None else self.xp.asarray(host, device=self.native)

    def host(self, array: Array) -> Any:
        """The array in NumPy."""
        if isinstance(array, np.ndarray | np.generic):
            return np.asarray(array)
        if self.name == "cupy":
            return array.get()
        if self.name == "strict":
            return np.asarray(array.to_device(self.xp.Device("CPU_DEVICE")))
        return np.asarray(array)

    def here(self, array: Array) -> bool:
        """Whether the array is one of this place's own."""
        if self.name in (
            "numpy",
            "cupy",
        ):  # their sums over everything are scalars in one, 0-d arrays in the other
            kind = self.xp.ndarray | (np.generic if self.name == "numpy" else self.xp.ndarray)
            return isinstance(array, kind) and array.dtype == self.dtype
        native = self.native is None or array.device == self.native
        return native and str(array.dtype).rpartition(".")[2] == self.dtype


PLACES = [
    Place(name, device, dtype)
    for name, device, dtypes in [
        ("numpy", "", "float32 float64"),
        ("cupy", "", "float32 float64"),
        ("strict", "CPU_DEVICE", "float32 float64"),
        ("strict", "device1", "float32 float64"),
        ("strict", "device2", "float64"),
        ("strict", "no_float64", "float32"),
        ("strict", "no_x64", "float32"),
        ("torch", "cpu", "float32 float64"),
        ("jax", "", "float32 float64"),
    ]
    for dtype in dtypes.split()
]


def _ready(place: Place) -> Place:
    if place.name == "cupy" and (reason := why_no_gpu()) is not None:
        pytest.skip(reason)
    place.xp  # noqa: B018  skips where the library is missing
    return place


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    """Every place."""
    return _ready(request.param)


@pytest.fixture(params=[p for p in PLACES if p.dtype == "float64" and p.device != "device2"], ids=str)
def place64(request: pytest.FixtureRequest) -> Place:
    """Every library, in float64."""
    return _ready(request.param)


@pytest.fixture(params=[p for p in PLACES if p.name in ("numpy", "cupy")], ids=str)
def buffered(request: pytest.FixtureRequest) -> Place:
    """Every place whose engine writes into buffers."""
    return _ready(request.param)


@pytest.fixture
def gpu() -> gpubp.Device:
    """The first GPU."""
    if (reason := why_no_gpu()) is not None:
        pytest.skip(reason)
    return gpubp.device("cuda:0")


@pytest.fixture
def gpus(gpu: gpubp.Device) -> tuple[gpubp.Device, gpubp.Device]:
    """Two of them."""
    if (reason := why_no_gpu(1)) is not None:
        pytest.skip(f"two GPUs are needed: {reason}")
    return gpu, gpubp.device("cuda:1")


@pytest.fixture
def jax() -> Any:
    """JAX with float64."""
    return library("jax")


@pytest.fixture
def torch() -> Any:
    """PyTorch."""
    return library("torch")


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """``device="auto"`` is the CPU, also where there is a GPU."""
    monkeypatch.setenv("GPUBP_DEVICE", "cpu")


@pytest.fixture(autouse=True)
def own_choice_of_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    # a benchmark's training sets it, for the process that it has to itself
    monkeypatch.delenv("GPUBP_COMPILE", raising=False)


_MOST_WORK = 20_000  # of a check: some tenths of a second
_checked: set[tuple[Any, ...]] = set()


@pytest.fixture(autouse=True)
def every_recording_is_checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test records is proven right in exact arithmetic, where it is small; but for ``unchecked`` tests."""

    def check(recorded: Recorded) -> None:
        shapes = tuple(array.shape for array in recorded.arguments)
        known = recorded.source, recorded.batch_size, shapes
        if known not in _checked and checker.work(recorded) <= _MOST_WORK:
            checker.check(recorded)
            _checked.add(known)

    if request.node.get_closest_marker("unchecked") is None:
        checker.watch(monkeypatch.setattr, check)
