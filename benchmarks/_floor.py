"""The floor: the matrix products of a step, alone, into fixed buffers, by NumPy, or by cuBLAS as CuPy calls it.

That is p = q W' and dC/dW = Delta' q of every layer, and dC/dq = Delta W of every layer but the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._cases import Case, stored

__all__ = ["trainer"]


class Floor:
    """Products of a case, step after step; there is nothing to learn."""

    def __init__(self, case: Case, precision: str, device: str) -> None:
        self.case, self.xp = case, library(device)
        dtype: Any = stored(precision)
        if precision == "bfloat16":
            from ml_dtypes import bfloat16 as dtype
        rng = np.random.default_rng(0)
        q = [self.xp.asarray(rng.random((case.batch, n)).astype(dtype)) for n in case.sizes]
        W = [self.xp.asarray(W.astype(dtype)) for W, _ in case.layers(stored(precision))]
        self.products: list[tuple[Any, Any, Any]] = []
        for i, matrix in enumerate(W):
            self.products.append((q[i], matrix.T, self.xp.empty_like(q[i + 1])))
        for i in reversed(range(len(W))):
            self.products.append((q[i + 1].T, q[i], self.xp.empty_like(W[i])))
            if i > 0:
                self.products.append((q[i + 1], W[i], self.xp.empty_like(q[i])))

    def run(self, epochs: int) -> float:
        matmul, wait = self.xp.matmul, waiting(self.xp)
        for _ in range(epochs):
            start = time.perf_counter()
            for _ in range(self.case.steps):
                for left, right, out in self.products:
                    matmul(left, right, out=out)
            wait()
        return time.perf_counter() - start

    def result(self) -> tuple[Any, float]:
        return np.zeros(0), 0.0


def library(device: str) -> Any:
    """NumPy or CuPy; the process's CUPY_TF32 says whether the latter's float32 products are tf32."""
    if device == "cpu":
        return np
    import cupy

    return cupy


def waiting(xp: Any) -> Callable[[], Any]:
    """What waits until all that was asked of the library is done."""
    return (lambda: None) if xp is np else xp.cuda.get_current_stream().synchronize


def trainer(variant: str, case: Case, precision: str, epsilon: float, device: str = "cpu") -> Floor:
    """The products of this case."""
    return Floor(case, precision, device)
