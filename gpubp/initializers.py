"""First weights w_0 (the article asks how to choose them, "Global view"; the answers are below, by paper).

An initializer is ``draw(rng, shape, n_in, n_out) -> NumPy float64 array``; it draws on the host, so that a seed gives
the same numbers on every device and library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gpubp._checks import NOT_NEGATIVE, REALS, real_number
from gpubp._registry import Catalogue

__all__ = [
    "Initializer",
    "default_for",
    "drawn",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "names",
    "normal",
    "orthogonal",
    "zeros",
]


def __dir__() -> list[str]:
    return __all__


# Quoted: naming it would import numpy.random.
Initializer: TypeAlias = Callable[["np.random.Generator", tuple[int, ...], int, int], Any]

_catalogue: Catalogue[Initializer] = Catalogue("initializer")
names = _catalogue.names


def get(initializer: str | Initializer) -> Initializer:
    """The initializer of that name, such as ``"he_normal"`` or ``"normal(scale=0.1)"``; a callable comes back as is.

    Raises
    ------
    ValueError : no such name
    TypeError : neither a name nor callable
    """
    return _catalogue.resolve(initializer, callable, "callable, got {}: give a name")


def drawn(
    initializer: str | Initializer, rng: np.random.Generator, shape: tuple[int, ...], n_in: int, n_out: int
) -> Any:
    """What it draws; refused where that isn't of the shape asked for."""
    part = np.asarray(get(initializer)(rng, shape, n_in, n_out))
    if part.shape != shape:
        raise ValueError(
            f"an initializer must give the shape it is asked for, {shape}, got {part.shape}: mend it"
        )
    return part


def default_for(activation: str) -> str:
    """The initializer that keeps the scale of p over depth, by the activation that follows."""
    name = activation.partition("(")[0]
    if name == "selu":
        return "lecun_normal"
    if name in {"relu", "leaky_relu", "elu", "softplus", "gelu", "gelu_tanh", "silu"}:
        return "he_normal"
    return "glorot_uniform"


def _with_variance(variance: Callable[[int, int], float], uniform: bool) -> Initializer:
    def draw(rng: np.random.Generator, shape: tuple[int, ...], n_in: int, n_out: int) -> Any:
        deviation = math.sqrt(variance(n_in, n_out))
        if uniform:
            limit = math.sqrt(3.0) * deviation
            return rng.uniform(-limit, limit, shape)
        return deviation * rng.standard_normal(shape)

    return draw


def _glorot(n_in: int, n_out: int) -> float:
    return 2.0 / (n_in + n_out)


def _he(n_in: int, n_out: int) -> float:
    return 2.0 / n_in


def _lecun(n_in: int, n_out: int) -> float:
    return 1.0 / n_in


@_catalogue.add
def glorot_uniform() -> Initializer:
    """Uniform, variance 2 / (n_in + n_out) (Glorot & Bengio 2010)."""
    return _with_variance(_glorot, uniform=True)


@_catalogue.add
def glorot_normal() -> Initializer:
    """Normal, variance 2 / (n_in + n_out) (Glorot & Bengio 2010)."""
    return _with_variance(_glorot, uniform=False)


@_catalogue.add
def he_uniform() -> Initializer:
    """Uniform, variance 2 / n_in (He et al. 2015)."""
    return _with_variance(_he, uniform=True)


@_catalogue.add
def he_normal() -> Initializer:
    """Normal, variance 2 / n_in (He et al. 2015)."""
    return _with_variance(_he, uniform=False)


@_catalogue.add
def lecun_uniform() -> Initializer:
    """Uniform, variance 1 / n_in (LeCun et al. 1998)."""
    return _with_variance(_lecun, uniform=True)


@_catalogue.add
def lecun_normal() -> Initializer:
    """Normal, variance 1 / n_in (LeCun et al. 1998)."""
    return _with_variance(_lecun, uniform=False)


@_catalogue.add
def normal(scale: float = 1.0) -> Initializer:
    """Normal, standard deviation ``scale``."""
    scale = real_number("scale", scale, NOT_NEGATIVE)
    return _with_variance(lambda n_in, n_out: scale * scale, uniform=False)


@_catalogue.add
def orthogonal(gain: float = 1.0) -> Initializer:
    """``gain`` times a random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2013)."""
    gain = real_number("gain", gain, REALS)

    def draw(rng: np.random.Generator, shape: tuple[int, ...], n_in: int, n_out: int) -> Any:
        if len(shape) != 2:
            raise ValueError(
                f"orthogonal needs a matrix, got shape {shape}: use another initializer for biases"
            )
        Q, R = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
        Q = Q * np.where(np.diag(R) < 0, -1.0, 1.0)  # the sign that makes the draw uniform
        return gain * (Q if shape[0] >= shape[1] else Q.T)

    return draw


@_catalogue.add
def zeros() -> Initializer:
    """All 0."""
    return lambda rng, shape, n_in, n_out: np.zeros(shape)
