"""Where arrays live: naming, probing and listing devices, and moving arrays between them."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import array_api_compat
import numpy as np

from gpubp._numerics import dtype_kind
from gpubp._typing import Array, Namespace, NativeDevice
from gpubp.engines import Generic, engine_for

logger = logging.getLogger("gpubp")

_PIP = "pip install 'gpubp[cuda13]' (or [cuda12] for an older driver)"

EMULATED = "CuPy on the CPU (no GPU)"  # the name of the device that ci/emulate makes

_ANYWHERE = nullcontext()
_CUDA = (2, 13)  # in DLPack: a GPU's memory, and what it shares with the host
_GPU_MEMORY = "__cuda_array_interface__"
# by cuBLAS and its like, the runtime and the driver
_NO_MEMORY = re.compile("_STATUS_ALLOC_FAILED|: out of memory")


@dataclass(frozen=True)
class Device:
    """A place where arrays live and are computed on.

    Attributes
    ----------
    name : ``"cpu"``, ``"cuda:0"``, ...; for arrays of another library its name leads, as in ``"torch:cpu"``
    xp : the array namespace of its arrays
    description : what it is, for people
    """

    name: str
    xp: Namespace = field(compare=False, repr=False)
    description: str = field(compare=False)
    native: NativeDevice = field(default=None, compare=False, repr=False)

    def put(self, array: Any) -> Array:
        """Return ``array`` on this device, in this device's library; dtype and shape are kept.

        Nothing is copied where the array is here already or where its memory can be shared (DLPack, and for GPUs
        ``__cuda_array_interface__``); CuPy then writes also to what was read-only.

        Raises
        ------
        TypeError : what came is not an array
        MemoryError : the array doesn't fit the device's free memory
        """
        if not _is_array(array):
            raise TypeError(f"put takes an array, got {type(array).__name__}: make it one with numpy.asarray")
        try:
            return moved(array, self)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        free = self.free_bytes()
        raise MemoryError(
            f"{self.name} needs {_bytes(array)} for this array, and has {'less' if free is None else free} free: "
            "put fewer rows at a time"
        )

    def current(self) -> AbstractContextManager[object]:
        """While it is open, this is the GPU that CuPy computes on; nothing for other devices."""
        if self.name.startswith("cuda"):  # needs a GPU
            return _cupy().cuda.Device(self.native)  # type: ignore[no-any-return]
        return nullcontext()

    def free_bytes(self) -> int | None:
        """Bytes free on a GPU; None where the system doesn't say in advance."""
        if self.name.startswith("cuda"):  # needs a GPU
            cupy = _cupy()
            pool = cupy.get_default_memory_pool()
            with cupy.cuda.Device(self.native) as current:
                free, limit = int(current.mem_info[0]) + int(pool.free_bytes()), int(pool.get_limit())
                return min(free, limit - int(pool.used_bytes())) if limit else free
        return None

    def give_back(self) -> None:
        """Return what CuPy keeps of a GPU's memory beyond the arrays that live; nothing for other devices."""
        if self.name.startswith("cuda"):
            with self.current():
                _cupy().get_default_memory_pool().free_all_blocks()


def device(name: str = "auto") -> Device:
    """The device of that name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``.

    ``"auto"`` is what ``GPUBP_DEVICE`` names, else the first GPU that computes, else the CPU.

    Raises
    ------
    ValueError, TypeError : no such name
    RuntimeError : a GPU was asked for and can't be used; the sentence says what is missing
    """
    if not isinstance(name, str):
        raise TypeError(f"device must be a name or a gpubp.Device, got {type(name).__name__}: try 'cpu'")
    if name == "auto":
        name = os.environ.get("GPUBP_DEVICE") or "auto"
    if name == "auto":
        reason = why_no_gpu()
        if reason is None:  # needs a GPU
            return device("cuda:0")
        logger.info("device auto is the CPU: %s", reason)
        name = "cpu"
    if name == "cpu":
        return Device("cpu", np, "NumPy on the CPU")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number.isdecimal() or name == "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    index = int(number or 0)
    reason = why_no_gpu(index)
    if reason is not None:
        raise RuntimeError(f"device {name!r} needs CuPy and an NVIDIA GPU that computes, but {reason}")
    return _cuda_device(index)  # needs a GPU


def is_emulated(device: Device) -> bool:
    """Whether it is no GPU, but the device on which ci/emulate runs CuPy's code on the CPU: it can't tell time."""
    return device.description.startswith(EMULATED)


def devices() -> tuple[Device, ...]:
    """Every device that can be used here, the CPU first."""
    found = [device("cpu")]
    while why_no_gpu(len(found) - 1) is None:  # needs a GPU
        found.append(device(f"cuda:{len(found) - 1}"))
    return tuple(found)


def why_no_gpu(index: int = 0) -> str | None:
    """Why GPU ``index`` can't be used, or None where it can: an elementwise kernel and a product really run."""
    try:
        return computes(index)
    except (MemoryError, RuntimeError) as error:
        return f"its memory is used up: {first_line(error)}: see who uses it with nvidia-smi"


@cache
def computes(index: int) -> str | None:
    """As ``why_no_gpu``, asked once; but memory that runs out is raised, as there may be some later."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed: {_PIP}"
    try:
        cupy = _cupy()
        count = cupy.cuda.runtime.getDeviceCount()
        if index >= count:
            return f"this machine has {count} GPU{'s' * (count != 1)}, numbered from 0"
        with cupy.cuda.Device(index):
            a = cupy.arange(4, dtype=cupy.float32).reshape(2, 2)
            right = float((a * 2 + 1).sum()) == 16.0 and float((a @ a)[1, 1]) == 11.0
        return None if right else "its arithmetic is wrong"
    except Exception as error:  # whatever CuPy, its libraries or the driver raise is the reason
        if out_of_memory(error):
            raise
        return f"{first_line(error)}: check the driver with nvidia-smi, then {_PIP}"


def cuda_versions() -> dict[str, str]:
    """The driver's own version and CUDA's, for people; a GPU must be usable."""
    runtime = _cupy().cuda.runtime
    cuda, allowed = (
        f"{number // 1000}.{number % 1000 // 10}"
        for number in (runtime.runtimeGetVersion(), runtime.driverGetVersion())
    )
    return {"driver": driver() or "nvidia-smi doesn't tell", "cuda": f"{cuda}, the driver's is {allowed}"}


def driver() -> str | None:
    """The NVIDIA driver's version, which CUDA doesn't give; None where nvidia-smi is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None


def device_of(array: Array) -> Device:
    """The Device that ``array`` lives on, whatever its library."""
    if isinstance(array, np.ndarray | np.generic):
        return device("cpu")
    if array_api_compat.is_cupy_array(array):  # needs a GPU
        return _cuda_device(int(array.device.id))
    xp = array_api_compat.array_namespace(array)
    library = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    native = native_device(array)
    where = re.sub(r".*\('(.*)'\)", r"\1", str(native))  # array-api-strict says Device('device1')
    return Device(f"{library}:{where}", xp, f"{library} on {where}", native)


def at(array: Array) -> AbstractContextManager[object]:
    """While it is open, CuPy computes where ``array`` lives: by itself it would on the current device, and read the
    others' memory from there. Nothing for other libraries."""
    return array.device if array_api_compat.is_cupy_array(array) else _ANYWHERE


def native_device(array: Array) -> NativeDevice:
    """The library's own device object; None while JAX traces."""
    return array_api_compat.device(array)


def moved(array: Any, target: Device) -> Array:
    """As ``Device.put``, but what it lacks is said in the library's own words."""
    if _is_ours(array, target):
        return array
    if target.name.startswith("cuda"):  # needs a GPU
        return _to_gpu(_shared(array), target)
    host = to_numpy(array)
    return host if target.xp is np else place(host, target.xp, target.native)


def place(host: Any, xp: Namespace, native: NativeDevice = None) -> Array:
    """A NumPy array as an array of ``xp`` on the library's own device (its default where None)."""
    if xp is np or xp.__name__ == "array_api_compat.numpy":
        return host
    host = host if host.flags.writeable else host.copy()  # PyTorch would share it, and warns
    if native is None:
        return xp.asarray(host)
    return xp.asarray(host, device=native)


def to_numpy(array: Array) -> Any:
    """The array as NumPy, copied from its device if need be; the library calls it only where a user asked to move."""
    if isinstance(array, np.ndarray | np.generic):
        return np.asarray(array)
    if not array_api_compat.is_array_api_obj(array):
        array = _shared(array)
    if array_api_compat.is_cupy_array(array):  # needs a GPU
        with array.device:  # on its own device's current stream
            return array.get()
    if array_api_compat.is_torch_array(array):
        return array.detach().cpu().numpy()
    try:
        return np.asarray(array)
    except RuntimeError:  # array-api-strict's made-up devices let go of an array only through DLPack
        return np.from_dlpack(array)


def check_alike(
    name: str,
    array: Array,
    w: Array,
    engine: Generic,
    model: str = "w",
    *,
    dtype: bool = True,
    real_allowed: bool = False,
) -> None:
    """Refuse an array of another library, device or dtype than w, which is called ``model``; nothing is waited for."""
    if engine_for(array) is not engine:
        raise TypeError(
            f"{name} must be an array of {_library(w)} like {model}, got one of {_library(array)}: "
            f"move it with {_mover(name, w, model)}"
        )
    if engine.xp is not np and _moved(array, w):
        raise RuntimeError(
            f"{name} must be on {native_device(w)} like {model}, got one on {native_device(array)}: "
            f"move it with {_mover(name, w, model)}"
        )
    if dtype and array.dtype != w.dtype:
        if (
            real_allowed
            and dtype_kind(engine.xp, w.dtype) == "complex"
            and dtype_kind(engine.xp, array.dtype) == "real"
        ):
            return
        raise TypeError(f"{name} must be {w.dtype} like {model}, got {array.dtype}: convert it with astype")


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: for what CuPy doesn't allocate itself, its libraries say so as a RuntimeError."""
    if isinstance(error, MemoryError):
        return True
    is_cuda = isinstance(error, RuntimeError) and type(error).__module__.startswith(
        ("cupy.", "cupy_backends.")
    )
    return is_cuda and _NO_MEMORY.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """What an error says, to be quoted in a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def native_erf(xp: Namespace) -> Callable[[Array], Array] | None:
    """The library's own error function, or None where it has none (NumPy and the standard have none)."""
    own = getattr(xp, "erf", None)
    if own is not None:
        return own  # type: ignore[no-any-return]
    if xp.__name__.startswith("jax"):
        return sys.modules["jax"].scipy.special.erf  # type: ignore[no-any-return]
    if "cupy" in xp.__name__:  # needs a GPU
        return importlib.import_module("cupyx.scipy.special").erf  # type: ignore[no-any-return]
    return None


def _cupy() -> Any:  # needs a GPU
    import cupy

    return cupy


@cache
def _cuda_device(index: int) -> Device:  # needs a GPU
    cupy = _cupy()
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    memory = properties["totalGlobalMem"] / 2**30
    xp = importlib.import_module("array_api_compat.cupy")
    return Device(f"cuda:{index}", xp, f"{properties['name'].decode()}, {memory:.0f} GiB, CuPy", index)


def _is_ours(array: Any, place_: Device) -> bool:
    if place_.xp is np:
        return isinstance(array, np.ndarray)
    if not array_api_compat.is_array_api_obj(array):
        return False
    return device_of(array).name == place_.name


def _is_array(array: Any) -> bool:
    return (hasattr(array, "shape") and hasattr(array, "dtype")) or hasattr(array, _GPU_MEMORY)


def _bytes(array: Any) -> str:
    return f"{array.nbytes} bytes" if hasattr(array, "nbytes") else "memory"


def _shared(array: Any) -> Any:
    """A foreign array in a GPU's memory as CuPy's, nothing copied; all else as it came."""
    if array_api_compat.is_cupy_array(array):  # needs a GPU
        return array
    if hasattr(array, "__dlpack_device__"):
        if array.__dlpack_device__()[0] not in _CUDA:
            return array
        foreign = array.detach() if array_api_compat.is_torch_array(array) else array  # needs a GPU
        return _cupy().from_dlpack(foreign)  # needs a GPU
    if hasattr(array, _GPU_MEMORY):  # needs a GPU
        cupy = _cupy()
        start = getattr(array, _GPU_MEMORY)["data"][0]  # 0 where there are no elements
        own = cupy.cuda.runtime.pointerGetAttributes(start).device if start else cupy.cuda.runtime.getDevice()
        with cupy.cuda.Device(own):
            return cupy.asarray(array)
    return array


def _to_gpu(array: Any, target: Device) -> Array:  # needs a GPU
    cupy = _cupy()
    with cupy.cuda.Device(target.native):
        if not array_api_compat.is_cupy_array(array):
            return cupy.asarray(to_numpy(array))
        if array.device.id == target.native:
            return array
        # streams of two devices don't wait for each other by themselves
        with array.device:
            array = array if array.flags.forc else cupy.ascontiguousarray(array)
            written = cupy.cuda.get_current_stream().record()
        cupy.cuda.get_current_stream().wait_event(written)
        copy = cupy.asarray(array)
        read = cupy.cuda.get_current_stream().record()
        with array.device:
            cupy.cuda.get_current_stream().wait_event(read)
        return copy


def _library(array: Array) -> str:
    name: str = array_api_compat.array_namespace(array).__name__
    return name.removeprefix("array_api_compat.")


def _mover(name: str, w: Array, model: str) -> str:
    library = _library(w)
    if library in ("numpy", "cupy"):
        return f"gpubp.device({device_of(w).name!r}).put({name})"
    return f"{library}.asarray({name}, device={model}.device)"


def _moved(array: Array, w: Array) -> bool:
    here, there = native_device(w), native_device(array)
    return here is not None and there is not None and here != there  # None: JAX is tracing
