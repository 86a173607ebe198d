"""The networks that are timed, with their data, first weights and order of rows: the same numbers for every library.

NumPy alone is imported here, so that a library's process holds nothing but that library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = [
    "ALL",
    "BETA1",
    "BETA2",
    "CROSSOVER",
    "EPSILON",
    "EXACT",
    "GPU_GRID",
    "GPU_SMOKE",
    "GRID",
    "PREDICT",
    "RATE",
    "SEED",
    "SMOKE",
    "Case",
    "flat",
    "stored",
]

RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8  # Adam's, in every library
SEED = 1
EXACT = "float64 on float32's numbers"  # a precision, to compare others with


@dataclass(frozen=True)
class Case:
    """A network and its minibatches. ``steps`` make an epoch, long enough for the clock."""

    name: str
    hidden: tuple[int, ...]
    batch: int
    steps: int
    activation: str = "relu"
    inputs: int = 784
    outputs: int = 10

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def n_weights(self) -> int:
        return sum((m + 1) * n for m, n in pairwise(self.sizes))

    @property
    def rows(self) -> int:
        return self.steps * self.batch

    @property
    def regression(self) -> bool:
        """Squared error of one output; the others are cross-entropies of classes."""
        return self.outputs == 1

    @property
    def cost(self) -> str:
        """gpubp's name of it."""
        return "squared_error" if self.regression else "cross_entropy"

    def data(self, dtype: str) -> tuple[Any, Any]:
        """x (rows, inputs) from [0, 1), and y: classes (rows,) as int64, or targets (rows,) in x's dtype."""
        rng = np.random.default_rng(SEED)
        x = _aligned((self.rows, self.inputs), dtype)
        rng.random(dtype=x.dtype.type, out=x)
        if self.regression:
            return x, rng.standard_normal(self.rows, dtype=x.dtype.type)
        return x, rng.integers(0, self.outputs, self.rows)

    def layers(self, dtype: str) -> list[tuple[Any, Any]]:
        """First (W (n_out, n_in), b (n_out,)) of each layer, drawn in float64."""
        rng = np.random.default_rng(SEED)
        pairs = pairwise(self.sizes)
        drawn = [(rng.normal(0.0, math.sqrt(1 / m), (n, m)), rng.normal(0.0, 0.1, n)) for m, n in pairs]
        return [(W.astype(dtype), b.astype(dtype)) for W, b in drawn]

    def order(self, epoch: int) -> Any:
        """The rows of each minibatch (steps, batch), int64: gpubp's order of that epoch (1, 2, ...)."""
        return np.random.default_rng([SEED, epoch]).permutation(self.rows).reshape(self.steps, self.batch)


def flat(layers: list[tuple[Any, Any]]) -> Any:
    """All W, then all b, as one vector."""
    return np.concatenate([np.ravel(part) for parts in zip(*layers, strict=True) for part in parts])


def stored(precision: str) -> str:
    """The dtype of weights, data and what the optimizer keeps, where products are computed in this precision."""
    return "float64" if precision == "float64" else "float32"


def _aligned(shape: tuple[int, ...], dtype: str) -> Any:
    """Memory on a 64-byte boundary, which JAX takes over without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


GRID = (
    Case("32x32, 32", (32, 32), 32, 1000),
    Case("100, 200", (100,), 200, 300),
    Case("512x512, 128", (512, 512), 128, 80),
    Case("512x512, 1024", (512, 512), 1024, 16),
    Case("2048x2048, 512", (2048, 2048), 512, 12),
    Case("8 layers of 256, 256", (256,) * 8, 256, 60),
    Case("tanh 100x100, 200", (100, 100), 200, 200, activation="tanh"),
    Case("13-50-1, 32", (50,), 32, 2000, inputs=13, outputs=1),
)
SMOKE = Case("smoke", (8,), 4, 5, inputs=6, outputs=3)  # not of the grid: whether the machinery turns
PREDICT = Case("784-100-10", (100,), 200, 1)
ALL = {case.name: case for case in (*GRID, SMOKE)}

GPU_GRID = (
    Case("4 layers of 64, 256", (64,) * 4, 256, 1000),
    Case("4 layers of 256, 1024", (256,) * 4, 1024, 200),
    Case("3 layers of 1024, 4096", (1024,) * 3, 4096, 50),
    Case("3 layers of 4096, 8192", (4096,) * 3, 8192, 12),
    Case("3 layers of 8192, 16384", (8192,) * 3, 16384, 4),
)
GPU_SMOKE = (  # whether the machinery turns, also where the CPU stands in
    Case("2 layers of 8, 16", (8, 8), 16, 5, inputs=6, outputs=3),
    Case("3 layers of 16, 32", (16,) * 3, 32, 4, inputs=6, outputs=3),
)
CROSSOVER = tuple(
    Case(f"{n}x{n}, 128", (n, n), 128, max(10, 8192 // n))
    for n in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
)
