"""The emulated device seen from Python: what was asked of it, and allocations that fail.

Needs the environment that ci/emulate makes.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["allocations_fail", "counting", "is_here"]


def _path() -> Path:
    return Path(sysconfig.get_path("purelib")) / "cupy_on_cpu" / "libemulated.so"


def is_here() -> bool:
    """Whether this Python's CuPy computes on the emulated device."""
    return _path().exists()


@cache
def _library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(_path()))
    found.emulatorCounts.restype = ctypes.c_char_p
    found.emulatorFailAllocations.argtypes = [ctypes.c_long, ctypes.c_long]
    return found


def _totals() -> tuple[Counter[str], Counter[str]]:
    """How often each thing was asked for so far, and of how many bytes."""
    times, sizes = Counter[str](), Counter[str]()
    for line in _library().emulatorCounts().decode().splitlines():
        often, size, what = line.split(" ", 2)
        times[what], sizes[what] = int(often), int(size)
    return times, sizes


@contextmanager
def counting() -> Iterator[tuple[Counter[str], Counter[str]]]:
    """Once it is closed: how often each thing was asked for while it was open, and of how many bytes.

    Things are "launch NAME" of a kernel, "product" by cuBLAS, "copy host to device" and its like, "fill", "allocate",
    "free", "synchronise stream", "synchronise device", "synchronise event", "synchronise copy" (one that the host waits
    for) and "synchronise number" (which cuBLAS gives to the host).
    """
    times, sizes = _totals()
    found = Counter[str](), Counter[str]()
    try:
        yield found
    finally:
        for counter, now, before in zip(found, _totals(), (times, sizes), strict=True):
            counter.update(now - before)


@contextmanager
def allocations_fail(first: int, many: int | None = None) -> Iterator[None]:
    """While it is open, allocations on the device fail from the ``first`` on, counted from 1: so many, or all."""
    _library().emulatorFailAllocations(first - 1, -1 if many is None else many)
    try:
        yield
    finally:
        _library().emulatorFailAllocations(0, 0)
