"""How good predictions are: accuracy or R2, as sums over batches that stay on the device until the epoch's end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpubp._numerics import long_mean, long_sum
from gpubp._typing import Array, Formula, Namespace

__all__ = ["Metric", "accuracy", "label_accuracy", "metric_for", "r2"]


@dataclass(frozen=True)
class Metric:
    """A mean over rows: ``hits(xp, q, y, s) -> (k,)`` summed over batches, then ``finish(sums, norm) -> float``,
    where ``norm`` is ``hits`` of the trivial prediction (NumPy arrays both)."""

    name: str
    hits: Formula
    norm: Formula
    finish: Any


def _weights(xp: Namespace, q: Array, s: Array | None) -> Array:
    return xp.ones_like(q[:, 0]) if s is None else s


def _right_class(xp: Namespace, q: Array, y: Array, s: Array | None) -> Array:
    if q.shape[1] == 1:
        return _right_labels(xp, q, y, s)
    wanted = y if y.ndim == 1 else xp.argmax(y, axis=1)
    right = xp.astype(xp.argmax(q, axis=1) == wanted, q.dtype)
    return xp.sum(right * _weights(xp, q, s))[None]


def _right_labels(xp: Namespace, q: Array, y: Array, s: Array | None) -> Array:
    y = y[:, None] if y.ndim == 1 else y
    right = xp.astype(xp.all((q > 0.5) == (y > 0.5), axis=1), q.dtype)
    return xp.sum(right * _weights(xp, q, s))[None]


def _residual(xp: Namespace, q: Array, y: Array, s: Array | None) -> Array:
    y = y[:, None] if y.ndim == 1 else y
    return xp.sum((q - y) ** 2 * _weights(xp, q, s)[:, None], axis=0)


def _all_rows(xp: Namespace, y: Array, s: Array | None) -> Array:
    return xp.asarray(float(y.shape[0])) if s is None else xp.sum(s)


def _spread(xp: Namespace, y: Array, s: Array | None) -> Array:
    y = y[:, None] if y.ndim == 1 else y
    e = y - long_mean(xp, y, s)
    return long_sum(xp, e**2 * _weights(xp, y, s)[:, None])


def _share(right: Any, rows: Any) -> float:
    return float(right[0] / rows)


def _r2(residual: Any, spread: Any) -> float:
    # A constant target has no spread to explain: 1 where it is met, else 0, as in scikit-learn.
    scores = [1.0 - r / t if t > 0 else float(r == 0) for r, t in zip(residual, spread, strict=True)]
    return float(sum(scores) / len(scores))


accuracy = Metric("accuracy", _right_class, _all_rows, _share)
label_accuracy = Metric("accuracy", _right_labels, _all_rows, _share)
r2 = Metric("R2", _residual, _spread, _r2)


def metric_for(name: str | None, cost: str) -> Metric | None:
    """The metric of that name; ``"auto"`` is accuracy for the two cross-entropies, R2 for the other costs.

    Raises
    ------
    ValueError : no such metric
    """
    if name is None:
        return None
    classes = {"cross_entropy": accuracy, "binary_cross_entropy": label_accuracy}
    if name == "auto":
        return classes.get(cost, r2)
    if name == "accuracy":
        return classes.get(cost, accuracy)
    if name == "r2":
        return r2
    raise ValueError(f"metric must be 'auto', 'accuracy', 'r2' or None, got {name!r}: choose one of these")
