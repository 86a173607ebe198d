"""A small problem, the loop by hand, and other things that the tests of train share."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import PLACES

import gpubp
from gpubp import SGD, Network, Run

# JAX compiles every shape anew: it takes part in the tests of NET and batches of 5 alone
without_jax = pytest.mark.parametrize("place", [p for p in PLACES if p.name != "jax"], indirect=True, ids=str)
without_jax64 = pytest.mark.parametrize(
    "place64", [p for p in PLACES if p.name != "jax" and p.dtype == "float64"], indirect=True, ids=str
)

NET = Network((3, 4, 2), hidden="tanh")
COLUMNS = ["epoch", "cost", "metric", "validation_cost", "validation_metric", "learning_rate", "seconds"]


def problem(n: int = 23, seed: int = 0, noise: float = 0.5) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    return X, X @ rng.standard_normal((3, 2)) + noise * rng.standard_normal((n, 2))


X, Y = problem()
W = NET.init(5, dtype="float64")
W += 0.1 * np.random.default_rng(1).standard_normal(W.shape)  # biases too
for part in (X, Y, W):
    part.setflags(write=False)


def fit(X: Any = X, Y: Any = Y, *, net: Network = NET, **more: Any) -> Run:
    given = {"w": W, "optimizer": SGD(0.1), "batch_size": 5, "epochs": 3, "progress": False, **more}
    return gpubp.train(net, X, Y, **given)


def by_hand(
    w: Any,
    X: Any = X,
    Y: Any = Y,
    *,
    epochs: Any = (1, 2, 3),
    batch_size: int = 5,
    seed: int = 0,
    rate: float = 0.1,
    l2: float = 0.0,
    l1: float = 0.0,
    clip_norm: float = np.inf,
    s: Any = None,
) -> tuple[list[Any], list[float]]:
    """SGD on NET written out: w after every step, and the epochs' costs."""
    w = w.copy()
    W0, W1, b0, b1 = w[:12].reshape(4, 3), w[12:20].reshape(2, 4), w[20:24], w[24:]
    s = np.ones(len(X)) if s is None else s
    steps, costs = [], []
    for epoch in epochs:
        order = np.random.default_rng([seed, epoch]).permutation(len(X))
        total = 0.0
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            x, y, a = X[rows], Y[rows], s[rows] / s[rows].sum()
            q = np.tanh(x @ W0.T + b0)
            e = q @ W1.T + b1 - y
            total += s[rows] @ (e**2).sum(1) / 2
            D2 = a[:, None] * e
            D1 = D2 @ W1 * (1 - q**2)
            g = np.concatenate([(D1.T @ x).ravel(), (D2.T @ q).ravel(), D1.sum(0), D2.sum(0)])
            g[:20] += l2 * w[:20] + l1 * np.sign(w[:20])
            w -= rate * g * min(1.0, clip_norm / np.sqrt(g @ g))
            steps.append(w.copy())
        costs.append(total / s.sum())
    return steps, costs


def cost_by_hand(w: Any, X: Any, Y: Any, s: Any = None) -> float:
    return by_hand(w, X, Y, epochs=[1], batch_size=len(X), rate=0.0, s=s)[1][0]


def on_batch(watch: Callable[[Any], Any]) -> SimpleNamespace:
    return SimpleNamespace(on_batch_end=watch)


def on_epoch(watch: Callable[[Any], Any]) -> SimpleNamespace:
    return SimpleNamespace(on_epoch_end=watch)


def close(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


class Plain:
    """Not one of gpubp's: its state is a count."""

    learning_rate = 0.1

    def init(self, w: Any) -> int:
        return 0

    def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
        return w - self.learning_rate * g, state + 1
