"""The second way to get every number: activations of one number by ``math``, whole networks by ``jax.nn``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import Network, activations, costs
from gpubp._typing import Array

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

# where the derivative is taken well away from every kink
SLOPE, ALPHA, DELTA, TAU = 0.2, 1.3, 0.7, 0.3
HIDDEN = [
    {"leaky_relu": f"leaky_relu(slope={SLOPE})", "elu": f"elu(alpha={ALPHA})"}.get(name, name)
    for name in activations.names()
]
COSTS = [
    {"huber": f"huber(delta={DELTA})", "quantile": f"quantile(tau={TAU})"}.get(name, name)
    for name in costs.names()
]


def _sigmoid(p: float) -> float:
    return 1.0 / (1.0 + math.exp(-p)) if p >= 0 else math.exp(p) / (1.0 + math.exp(p))


def _elu(p: float, alpha: float) -> float:
    return p if p > 0 else alpha * math.expm1(p)


# all but softmax, which needs a whole row
SCALAR: dict[str, Callable[[float], float]] = {
    "identity": lambda p: p,
    "relu": lambda p: max(p, 0.0),
    "leaky_relu": lambda p: p if p > 0 else SLOPE * p,
    "elu": lambda p: _elu(p, ALPHA),
    "selu": lambda p: SELU_SCALE * _elu(p, SELU_ALPHA),
    "sigmoid": _sigmoid,
    "tanh": math.tanh,
    "softplus": lambda p: max(p, 0.0) + math.log1p(math.exp(-abs(p))),
    "softsign": lambda p: p / (1.0 + abs(p)),
    "gelu": lambda p: 0.5 * p * math.erfc(-p / math.sqrt(2.0)),
    "gelu_tanh": lambda p: 0.5 * p * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (p + 0.044715 * p**3))),
    "silu": lambda p: p * _sigmoid(p),
    "exp": lambda p: math.exp(p) if p < 709 else math.inf,
}


def bare(name: str) -> str:
    return name.partition("(")[0]


def targets(cost: str, rng: np.random.Generator, B: int, n: int) -> Any:
    """Targets (B, n) that a cost is made for; cross_entropy's rows do not sum to 1."""
    kind = bare(cost)
    if kind == "poisson":
        return rng.poisson(1.5, (B, n)).astype(float)
    return rng.random((B, n)) if kind.endswith("cross_entropy") else 2.0 * rng.standard_normal((B, n))


def jax_activation(jax: Any, name: str) -> Callable[[Array], Array]:
    nn, jnp = jax.nn, jax.numpy
    table: dict[str, Callable[[Array], Array]] = {
        "identity": lambda p: p,
        "relu": nn.relu,
        "leaky_relu": lambda p: nn.leaky_relu(p, SLOPE),
        "elu": lambda p: nn.elu(p, ALPHA),
        "selu": nn.selu,
        "sigmoid": nn.sigmoid,
        "tanh": jnp.tanh,
        "softplus": nn.softplus,
        "softsign": nn.soft_sign,
        "gelu": lambda p: nn.gelu(p, approximate=False),
        "gelu_tanh": lambda p: nn.gelu(p, approximate=True),
        "silu": nn.silu,
        "exp": jnp.exp,
        "softmax": lambda p: nn.softmax(p, axis=1),
    }
    return table[bare(name)]


def jax_row_costs(jax: Any, name: str, output: str, p: Array, y: Array) -> Array:
    """c (B,) from the output's p (B, n), in the textbook form where rounding allows it."""
    nn, jnp = jax.nn, jax.numpy
    q = jax_activation(jax, output)(p)
    e = q - y
    log_q = nn.log_softmax(p, axis=1) if output == "softmax" else jnp.log(q)
    log_rest = -nn.softplus(p) if output == "sigmoid" else jnp.log1p(-q)
    table = {
        "squared_error": e**2 / 2,
        "absolute_error": jnp.abs(e),
        "huber": jnp.where(jnp.abs(e) <= DELTA, e**2 / 2, DELTA * (jnp.abs(e) - DELTA / 2)),
        "quantile": jnp.where(e < 0, -TAU * e, (1 - TAU) * e),
        "cross_entropy": -y * log_q,
        "binary_cross_entropy": -y * log_q - (1 - y) * log_rest,
        "poisson": q - y * log_q,
    }
    return table[bare(name)].sum(axis=1)


def jax_cost(
    jax: Any, net: Network, w: Array, x: Array, y: Array, s: Array | None = None, reduction: str = "mean"
) -> Array:
    """C of a network, unpacking w by its own count: all W, then all b."""
    sigma = [jax_activation(jax, part.name) for part in net.sigma]
    pairs = list(zip(net.sizes[1:], net.sizes[:-1], strict=True))
    W, start = [], 0
    for n, m in pairs:
        W.append(w[start : start + n * m].reshape(n, m))
        start += n * m
    q, p = sigma[0](x), x
    for i, (n, _) in enumerate(pairs):
        p = q @ W[i].T
        if net.bias:
            p = p + w[start : start + n]
            start += n
        q = sigma[i + 1](p)
    c = jax_row_costs(jax, net.cost_function.name, net.sigma[-1].name, p, y)
    s = jax.numpy.ones(len(x)) if s is None else s
    return (s * c).sum() / (s.sum() if reduction == "mean" else 1.0)


def differences(value: Callable[[Any], Any], w: Any, h: float = 1e-4) -> Any:
    """Central differences of fourth order of a real function along every coordinate of w."""
    g = np.empty_like(w)
    for k, step in enumerate(h * np.eye(w.size)):
        near, far = (value(w + n * step) - value(w - n * step) for n in (1, 2))
        g[k] = (8 * near - far) / (12 * h)
    return g


def worst(a: Any, b: Any) -> float:
    """The worst relative error of two gradients: abs(a - b) / max(abs(a), abs(b), 1e-3 max abs(b))."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    floor = 1e-3 * np.max(np.abs(b))
    return float(np.max(np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), floor)))
