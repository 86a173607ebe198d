"""The verbs on CuPy, which has NumPy's interface: here is what differs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gpubp._typing import Array, Formula
from gpubp.engines.numpy import Numpy


class Cupy(Numpy):
    """Buffers live as long as the training does; everything runs on the current device and stream."""

    def __init__(self, xp: Any = None) -> None:
        if xp is None:  # needs a GPU
            import cupy

            xp = cupy
        super().__init__(xp)

    def quiet(self) -> AbstractContextManager[object]:
        return nullcontext()

    def gather(self, x: Array, rows: Array, out: Array | None = None) -> Array:
        return self.xp.take(x, rows, axis=0, out=out)

    def update(
        self,
        formula: Formula,
        arrays: Sequence[Array],
        numbers: Sequence[Array | float] = (),
        out: Sequence[Array] | None = None,
    ) -> tuple[Array, ...]:
        # One block: on a GPU every call is a launch.
        return self._blockwise(formula, arrays, numbers, out, block=arrays[0].size or 1)
