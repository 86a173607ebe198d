"""The floor: the matrix products of a step, alone, into fixed buffers, by NumPy.

That is p = q W' and dC/dW = Delta' q of every layer, and dC/dq = Delta W of every layer but the first.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks._cases import Case

__all__ = ["trainer"]


class Floor:
    """Products of a case, step after step; there is nothing to learn."""

    def __init__(self, case: Case, dtype: str) -> None:
        self.case = case
        rng = np.random.default_rng(0)
        q = [rng.random((case.batch, n)).astype(dtype) for n in case.sizes]
        W = [W for W, _ in case.layers(dtype)]
        self.products: list[tuple[Any, Any, Any]] = []
        for i, matrix in enumerate(W):
            self.products.append((q[i], matrix.T, np.empty_like(q[i + 1])))
        for i in reversed(range(len(W))):
            self.products.append((q[i + 1].T, q[i], np.empty_like(W[i])))
            if i > 0:
                self.products.append((q[i + 1], W[i], np.empty_like(q[i])))

    def run(self, epochs: int) -> float:
        for _ in range(epochs):
            start = time.perf_counter()
            for _ in range(self.case.steps):
                for left, right, out in self.products:
                    np.matmul(left, right, out=out)
        return time.perf_counter() - start

    def result(self) -> tuple[Any, float]:
        return np.zeros(0), 0.0


def trainer(variant: str, case: Case, dtype: str, epsilon: float) -> Floor:
    """The products of this case."""
    return Floor(case, dtype)
