"""The verbs in pure Array API: right on every library, and what the other engines are compared with.

``out=`` is a permission to overwrite; the return value is the truth. Here the permission is never used, so this
engine also runs where arrays can't be written to (JAX, also under ``jax.jit``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np

from gpubp._typing import Array, Formula, Namespace, Sigma

__all__ = ["Generic"]


class Generic:
    """Twelve verbs. B rows, one example each; node i has n_i columns and feeds node j."""

    asynchronous = False  # whether verbs are known to come back before they are done

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp
        self.formulas = xp  # the namespace that formulas are given

    def quiet(self) -> AbstractContextManager[object]:
        """While it is open, overflow gives inf and 0/0 gives NaN without a warning, as they do on a GPU."""
        # Also for libraries that compute with NumPy inside; to others it means nothing.
        return np.errstate(over="ignore", invalid="ignore", divide="ignore")

    def buffer(self, shape: tuple[int, ...], like: Array) -> Array | None:
        """An array to hand in as ``out``, of the dtype and device of ``like``; None where nothing is overwritten."""
        return None

    def gather(self, x: Array, rows: Array, out: Array | None = None) -> Array:
        """The rows (B,) of x (n, ...): a minibatch, (B, ...)."""
        return self.xp.take(x, rows, axis=0)

    def affine(self, q: Array, W: Array, b: Array | None, out: Array | None = None) -> Array:
        """p_j = q_i W' + b: (B, n_i), (n_j, n_i), (n_j,) -> (B, n_j)."""
        p = q @ W.mT
        return p if b is None else p + b

    def activate(self, sigma: Sigma, p: Array, out: Array | None = None) -> Array:
        """q = sigma(p), (B, n). ``out`` may be p itself."""
        return sigma.value(self.formulas, p)

    def pull_back(self, sigma: Sigma, p: Array | None, q: Array, g: Array, out: Array | None = None) -> Array:
        """Delta = dC/dp from g = dC/dq, (B, n): g o sigma'(p). ``out`` may be g itself."""
        if sigma.derivative is None:
            assert sigma.pullback is not None
            return sigma.pullback(self.formulas, p, q, g)
        return g * sigma.derivative(self.formulas, p, q)

    def propagate(self, Delta: Array, W: Array, out: Array | None = None) -> Array:
        """dC/dq_i = Delta_j W: (B, n_j), (n_j, n_i) -> (B, n_i)."""
        return Delta @ W

    def contract(self, Delta: Array, q: Array, out: Array | None = None) -> Array:
        """dC/dW = Delta' q, every example's Delta q' summed in one product: (B, n_j), (B, n_i) -> (n_j, n_i)."""
        return Delta.mT @ q

    def sum_rows(self, Delta: Array, out: Array | None = None) -> Array:
        """dC/db, the sum of Delta over the batch: (B, n_j) -> (n_j,)."""
        return self.xp.sum(Delta, axis=0)

    def weigh(self, Delta: Array, weights: Array | float, out: Array | None = None) -> Array:
        """Every row of Delta (B, n) times its own weight (B,), or all times one number."""
        return Delta * (weights if isinstance(weights, float) else weights[:, None])

    def join(self, parts: Sequence[Array], out: Array | None = None) -> Array:
        """All the parts as one flat vector. Where ``out`` is given, the parts were computed with views of it as
        their own ``out``, in this order."""
        return self.xp.concat([self.xp.reshape(part, (-1,)) for part in parts])

    def update(
        self,
        formula: Formula,
        arrays: Sequence[Array],
        numbers: Sequence[Array | float] = (),
        out: Sequence[Array] | None = None,
    ) -> tuple[Array, ...]:
        """``formula(xp, *arrays, *numbers)``, element by element on flat vectors; ``out`` may be some of them."""
        return tuple(formula(self.xp, *arrays, *numbers))
