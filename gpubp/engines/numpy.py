"""The verbs on NumPy: products and sums go straight into the buffers they are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpubp._typing import Array, Formula, Namespace, Sigma
from gpubp.engines.generic import Generic

__all__ = ["Numpy"]

_NARROW = 32  # columns


class _Rows:
    """NumPy, but for the largest and the sum of each row of a narrow matrix, as softmax asks for them: NumPy starts
    anew at every row, and a transposed copy has long rows instead."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        setattr(self, name, value)
        return value

    def max(self, x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
        return _of_rows(np.maximum, x, axis, keepdims)

    def sum(
        self, x: Array, /, *, axis: int | None = None, keepdims: bool = False, dtype: Any = None
    ) -> Array:
        return _of_rows(np.add, x, axis, keepdims, dtype)


def _of_rows(ufunc: np.ufunc, x: Array, axis: int | None, keepdims: bool, dtype: Any = None) -> Array:
    if axis != 1 or x.ndim != 2 or dtype is not None or x.shape[0] == 1 or not 1 < x.shape[1] <= _NARROW:
        return ufunc.reduce(x, axis=axis, dtype=dtype, keepdims=keepdims)
    of_each = ufunc.reduce(np.ascontiguousarray(x.T), axis=0)
    return of_each[:, None] if keepdims else of_each


class Numpy(Generic):
    """The generic verbs, with ``out=`` used."""

    block = 60_000  # bytes: a handful of them, a formula's temporaries, fill half of a common L2 cache

    def __init__(self, xp: Namespace = np, library: Namespace = np) -> None:
        super().__init__(xp)
        self.library = library  # where functions take out=
        if xp is np:
            self.formulas = _Rows()

    def buffer(self, shape: tuple[int, ...], like: Array) -> Array | None:
        return self.library.empty(shape, dtype=like.dtype)

    def gather(self, x: Array, rows: Array, out: Array | None = None) -> Array:
        # "clip" takes straight into out; the default mode would go through a copy.
        return x.take(rows, axis=0, out=out, mode="clip")

    def affine(self, q: Array, W: Array, b: Array | None, out: Array | None = None) -> Array:
        p = self.library.matmul(q, W.T, out=out)
        return p if b is None else self.library.add(p, b, out=p)

    def activate(self, sigma: Sigma, p: Array, out: Array | None = None) -> Array:
        if out is None or p.nbytes <= self.block:
            return sigma.value(self.formulas, p)
        for here in self._blocks(p):
            part = p[here]
            q = sigma.value(self.formulas, part)
            if q is not part or out is not p:  # the identity's is there already
                out[here] = q
        return out

    def pull_back(self, sigma: Sigma, p: Array | None, q: Array, g: Array, out: Array | None = None) -> Array:
        if out is None:
            return super().pull_back(sigma, p, q, g)
        for here in self._blocks(g):
            part, p_part, q_part = g[here], None if p is None else p[here], q[here]
            into = part if out is g else out[here]  # one object, else CuPy copies what it reads
            if sigma.derivative is not None:
                self.library.multiply(part, sigma.derivative(self.formulas, p_part, q_part), out=into)
            else:
                Delta = super().pull_back(sigma, p_part, q_part, part)
                if Delta is not into:
                    into[...] = Delta
        return out

    def propagate(self, Delta: Array, W: Array, out: Array | None = None) -> Array:
        return self.library.matmul(Delta, W, out=out)

    def contract(self, Delta: Array, q: Array, out: Array | None = None) -> Array:
        return self.library.matmul(Delta.T, q, out=out)

    def sum_rows(self, Delta: Array, out: Array | None = None) -> Array:
        return self.library.add.reduce(Delta, axis=0, out=out)

    def weigh(self, Delta: Array, weights: Array | float, out: Array | None = None) -> Array:
        return self.library.multiply(
            Delta, weights if isinstance(weights, float) else weights[:, None], out=out
        )

    def join(self, parts: Sequence[Array], out: Array | None = None) -> Array:
        return super().join(parts) if out is None else out

    def update(
        self,
        formula: Formula,
        arrays: Sequence[Array],
        numbers: Sequence[Array | float] = (),
        out: Sequence[Array] | None = None,
    ) -> tuple[Array, ...]:
        if out is None:
            return super().update(formula, arrays, numbers)
        for here in self._blocks(arrays[0]):
            for whole, part in zip(out, formula(self.xp, *(a[here] for a in arrays), *numbers), strict=True):
                whole[here] = part
        return tuple(out)

    def _blocks(self, x: Array) -> Iterable[slice]:
        """Equal slices of x along its first axis, of about ``block`` bytes at most."""
        n, count = x.shape[0], -(-x.nbytes // self.block)
        if count <= 1:
            return (slice(None),)
        step = -(-n // count)
        return (slice(start, min(start + step, n)) for start in range(0, n, step))
