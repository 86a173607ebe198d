"""The verbs on CuPy, which has NumPy's interface: here is what differs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

from gpubp._typing import Array, Namespace
from gpubp.engines.numpy import Numpy

__all__ = ["Cupy"]


class Cupy(Numpy):
    """Buffers live as long as the training does; everything runs on the current device and stream."""

    block = sys.maxsize  # all at once: every call is a launch

    def __init__(self, library: Namespace = None) -> None:
        """``library`` stands in for CuPy in tests."""
        if library is None:  # needs a GPU
            import array_api_compat.cupy
            import cupy

            super().__init__(array_api_compat.cupy, cupy)
        else:
            super().__init__(library, library)

    def quiet(self) -> AbstractContextManager[object]:
        return nullcontext()

    def gather(self, x: Array, rows: Array, out: Array | None = None) -> Array:
        return self.library.take(x, rows, axis=0, out=out)
