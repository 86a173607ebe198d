"""The networks that are timed, with their data, first weights and order of rows: the same numbers for every library.

NumPy alone is imported here, so that a library's process holds nothing but that library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = ["ALL", "BETA1", "BETA2", "EPSILON", "GRID", "PREDICT", "RATE", "SEED", "SMOKE", "Case", "flat"]

RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8  # Adam's, in every library
SEED = 1


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
