"""The verbs on CuPy, which has NumPy's interface: here is what differs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from inspect import isfunction
from threading import local
from typing import Any

from gpubp._typing import Array, Formula, Namespace
from gpubp.engines.numpy import Numpy
from gpubp.tracing.kernel import written
from gpubp.tracing.operations import Untraceable

__all__ = ["Cupy"]

logger = logging.getLogger("gpubp")

_KEPT_ROWS = 1 << 16


class Cupy(Numpy):
    """Buffers live as long as the training does; everything runs on the current device and stream."""

    block = sys.maxsize  # all at once: every call is a launch
    asynchronous = True

    def __init__(self, library: Namespace = None) -> None:
        """``library`` stands in for CuPy in tests."""
        self._kept = local()
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

    def sum_rows(self, Delta: Array, out: Array | None = None) -> Array:
        # a product keeps the whole device busy where CuPy's own sum has 32 columns a block
        ones = self._ones(Delta.shape[0], Delta)
        total = self.library.matmul(ones, Delta, out=None if out is None else out[None, :])
        return total[0] if out is None else out

    def update(
        self,
        formula: Formula,
        arrays: Sequence[Array],
        numbers: Sequence[Array | float] = (),
        out: Sequence[Array] | None = None,
    ) -> tuple[Array, ...]:
        # a function with a state of its own may be another one at the next step
        if out is not None and isfunction(formula) and formula.__closure__ is None:
            types = {(array.shape, array.dtype.name) for array in arrays}
            are_floats = tuple(isinstance(number, float) for number in numbers)
            if len(types) == 1 and hasattr(self.library, "ElementwiseKernel"):
                kernel = _kernel(self.library, formula, *types.pop(), len(arrays), are_floats)
                if kernel is not None:
                    kernel(*arrays, *numbers, *out)
                    return tuple(out)
        return super().update(formula, arrays, numbers, out)

    def _ones(self, B: int, like: Array) -> Array:
        """(1, B), kept for the next time on the same stream: another one may read before they are written."""
        cuda = getattr(self.library, "cuda", None)
        place = like.device, None if cuda is None else cuda.get_current_stream().ptr
        kept: dict[Any, tuple[Any, Array]] = self._kept.__dict__
        found, ones = kept.get(like.dtype, (None, None))
        if ones is None or found != place or ones.shape[1] < B:
            ones = self.library.ones((1, B), dtype=like.dtype)
            if B <= _KEPT_ROWS:
                kept[like.dtype] = place, ones
        return ones[:, :B]


@lru_cache(maxsize=256)
def _kernel(
    library: Namespace,
    formula: Formula,
    shape: tuple[int, ...],
    dtype: str,
    arrays: int,
    are_floats: tuple[bool, ...],
) -> Any:  # needs a GPU
    """The formula as one launch, or None where it can't be written so."""
    if dtype not in ("float32", "float64"):
        return None
    try:
        kernel = written(formula, shape, dtype, arrays, are_floats)
    except Untraceable as reason:
        logger.info("%s is computed operation by operation: %s", formula.__qualname__, reason)
        return None
    # multiply and add rounded one by one, as in CuPy's own kernels and NumPy
    return library.ElementwiseKernel(*kernel, name="gpubp_update", no_return=True, options=("-fmad=false",))
