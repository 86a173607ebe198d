"""The catalogue of matrix derivatives, each held against a cost written out in NumPy and a complex step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from examples.article._claim import VALUES, Pairs, slopes
from gpubp import matrix_calculus
from gpubp.matrix_calculus import value

# Two activations that differ, in formulas and by hand.
ACTIVATIONS: dict[str, Any] = {"sigma": "sigmoid", "sigma1": "sigmoid", "sigma2": "softplus"}
sigma, sigma1, sigma2 = VALUES[1], VALUES[1], VALUES[2]

SIZES = {"1": 1, "l": 2, "m": 3, "n": 4}

BY_HAND: dict[str, Callable[..., Any]] = {
    "y' A x": lambda A, x, y: y.T @ A @ x,
    "y' A B x": lambda A, B, x, y: y.T @ A @ B @ x,
    "1/2 x' A' A x": lambda A, x: 0.5 * np.sum((A @ x) ** 2),
    "1/2 x' B' A' A B x": lambda A, B, x: 0.5 * np.sum((A @ B @ x) ** 2),
    "y' sigma(A) x": lambda A, x, y: y.T @ sigma(A) @ x,
    "y' sigma(A x)": lambda A, x, y: y.T @ sigma(A @ x),
    "y' sigma1(A sigma2(B)) x": lambda A, B, x, y: y.T @ sigma1(A @ sigma2(B)) @ x,
    "y' sigma1(A sigma2(B x))": lambda A, B, x, y: y.T @ sigma1(A @ sigma2(B @ x)),
    "1/2 |sigma(A x) - y|^2": lambda A, x, y: 0.5 * np.sum((sigma(A @ x) - y) ** 2),
}


def drawn(cost: str, seed: int = 0) -> dict[str, Any]:
    """Random matrices for an identity's letters: l = 2, m = 3, n = 4."""
    rng = np.random.default_rng(seed)
    shapes = matrix_calculus.identities[cost].shapes.items()
    return {name: rng.standard_normal((SIZES[rows], SIZES[columns])) for name, (rows, columns) in shapes}


def derivative(cost: str, variable: str, arrays: dict[str, Any]) -> Any:
    """What the catalogue gives for dC/dA at these matrices."""
    return value(matrix_calculus.identities[cost].derivatives[variable], **arrays, **ACTIVATIONS)


def stepped(cost: str, variable: str, arrays: dict[str, Any]) -> Any:
    """The same without the catalogue: a complex step through the cost by hand."""
    return slopes(lambda A: BY_HAND[cost](**{**arrays, variable: A}), arrays[variable])


def held(cost: str, variable: str) -> Pairs:
    """One derivative of the catalogue at several random matrices."""
    for seed in range(3):
        arrays = drawn(cost, seed)
        yield derivative(cost, variable, arrays), stepped(cost, variable, arrays)
