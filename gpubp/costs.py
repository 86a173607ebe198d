"""Costs: how far predictions q are from targets y, one number c_i an example (article, "Global view").

The cost of a batch is C = sum_i c_i / B ("mean"), sum_i s_i c_i / sum_i s_i with sample weights, or sum_i s_i c_i
("sum"). That factor is the network's to apply, once: nothing here carries a 1/B.

Where a cost meets its natural partner (softmax, sigmoid or exp on the output), it is computed from p, so that no
logarithm of a rounded 0 or 1 is taken, and it owns the output's Delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpubp import activations
from gpubp._checks import NOT_NEGATIVE, OPEN_UNIT, POSITIVE, REALS, Interval, real_number
from gpubp._numerics import central_differences, log1p, real, sign
from gpubp._registry import BuiltIn, Catalogue, spelled
from gpubp._typing import Array, Formula, Namespace

__all__ = [
    "Cost",
    "Partner",
    "absolute_error",
    "binary_cross_entropy",
    "cross_entropy",
    "get",
    "huber",
    "names",
    "poisson",
    "quantile",
    "squared_error",
]


def __dir__() -> list[str]:
    return __all__


class Partner(NamedTuple):
    """The output activation a cost is made for, and both together as functions of p."""

    activation: str
    value: Formula | None = None  # value(xp, p, q, y) -> (B,)
    Delta: Formula | None = None  # Delta(xp, q, y) -> dC/dp, (B, n)


_NO_PARTNER = Partner("identity")


@dataclass(frozen=True)
class Cost:
    """A cost of one example, and its derivative with respect to the prediction.

    Parameters
    ----------
    value : ``value(xp, q, y) -> c``, (B, n_L), (B, n_L) -> (B,)
    derivative : ``derivative(xp, q, y) -> dc/dq``, (B, n_L); no 1/B and no sample weights
    name : what it is called in reprs and saved files
    analytic : the formula also holds for complex q
    check_at : arrays (q, y) of shape (B, n) where the derivative is compared with central differences when the
        object is made; by default drawn from (0.1, 0.9)
    domain, targets : where predictions and targets must lie: (low, high), ends left out, or an Interval
    partner : the output activation that a network takes where none is given, and where the partner has formulas, value
        and Delta from p in one piece, which are compared with the cost's own
    labels : whether targets may be integer classes (B,)

    Raises
    ------
    ValueError : the derivative disagrees with differences, a shape or dtype is wrong, or rows are mixed; the partner's
        formulas disagree with the cost's
    """

    value: Formula
    derivative: Formula
    name: str
    analytic: bool = False
    check_at: Any = None
    domain: Interval = REALS
    targets: Interval = REALS
    partner: Partner = _NO_PARTNER
    labels: bool = False

    def __init__(
        self,
        value: Formula,
        derivative: Formula,
        *,
        name: str,
        analytic: bool = False,
        check_at: Any = None,
        domain: tuple[float, float] | Interval = REALS,
        targets: tuple[float, float] | Interval = REALS,
        partner: Partner = _NO_PARTNER,
        labels: bool = False,
    ) -> None:
        domain, targets = (
            part if isinstance(part, Interval) else Interval(*part) for part in (domain, targets)
        )
        given = locals()
        for field in ("value", "derivative", "name", "analytic", "domain", "targets", "partner", "labels"):
            object.__setattr__(self, field, given[field])
        _check(self, check_at)
        if (partner.value, partner.Delta) != (None, None):
            _check_partner(self, partner)

    def __repr__(self) -> str:
        return f"<cost {self.name}>"


def _check(cost: Cost, check_at: Any) -> None:
    rng = np.random.default_rng(0)
    q, y = check_at if check_at is not None else rng.uniform(0.1, 0.9, (2, 7, 3))
    q, y = np.asarray(q, dtype=np.float64), np.asarray(y, dtype=np.float64)
    say = f"cost {cost.name!r}"
    c = np.asarray(cost.value(np, q, y))
    if c.shape != q.shape[:1]:
        raise ValueError(f"{say} must give one number an example, shape (B,), got {c.shape}: sum over axis=1")
    c32 = np.asarray(cost.value(np, q.astype(np.float32), y.astype(np.float32)))
    if c32.dtype != np.float32:
        raise ValueError(f"{say} must keep the dtype of q, got {c32.dtype} from float32: use Python numbers")
    if not np.allclose(cost.value(np, q[:1], y[:1]), c[:1], rtol=1e-12, atol=1e-12):
        raise ValueError(
            f"{say} must treat each row alone, got a row that changes with the others: use axis=1"
        )
    ours = np.asarray(cost.derivative(np, q, y))
    theirs = central_differences(lambda q: cost.value(np, q, y), q)
    worst = (
        np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))) if ours.shape == q.shape else math.inf
    )
    if not worst <= 1e-6:
        raise ValueError(
            f"the derivative of {say} must agree with central differences of its value, got a difference of "
            f"{worst:.1e}: mend the derivative, with no 1/B in it, or give check_at=(q, y) away from a kink"
        )


def _check_partner(cost: Cost, partner: Partner) -> None:
    if partner.value is None or partner.Delta is None:
        raise ValueError(
            f"the partner of cost {cost.name!r} needs both value and Delta, got one: give the other"
        )
    sigma = activations.get(partner.activation)
    rng = np.random.default_rng(0)
    p, y = rng.uniform(0.1, 0.9, (2, 7, 3))
    q = sigma.value(np, p)
    pairs = {
        "value": (partner.value(np, p, q, y), cost.value(np, q, y)),
        "Delta": (
            partner.Delta(np, q, y),
            central_differences(lambda p: cost.value(np, sigma.value(np, p), y), p),
        ),
    }
    for what, (ours, theirs) in pairs.items():
        if np.shape(ours) != theirs.shape or not np.allclose(ours, theirs, rtol=1e-6, atol=1e-6):
            raise ValueError(
                f"the partner's {what} of cost {cost.name!r} must be the cost's after {sigma.name!r}, got other "
                f"numbers: mend the {what}, with no 1/B in it"
            )


_catalogue: Catalogue[Cost] = Catalogue("cost")
names = _catalogue.names


def get(cost: str | Cost) -> Cost:
    """The cost of that name, such as ``"squared_error"`` or ``"huber(delta=2.0)"``; a Cost comes back as it is.

    Raises
    ------
    ValueError : no such name, or numbers it doesn't take
    TypeError : neither a name nor a Cost
    """
    return _catalogue.resolve(
        cost, lambda given: isinstance(given, Cost), "a gpubp.Cost, got {}: wrap it in one"
    )


class _BuiltIn(BuiltIn, Cost):
    get = staticmethod(get)

    def __init__(self, name: str, value: Formula, derivative: Formula, **more: Any) -> None:
        for field, given in {"name": name, "value": value, "derivative": derivative, **more}.items():
            object.__setattr__(self, field, given)


def _half(xp: Namespace, e: Array) -> Array:
    return 0.5 * xp.sum(e * e, axis=1)


@_catalogue.add
def squared_error() -> Cost:
    """c = 1/2 sum_k (q_k - y_k)^2 (article, "Global view"; for several outputs, section III)."""
    return _BuiltIn("squared_error", lambda xp, q, y: _half(xp, q - y), lambda xp, q, y: q - y, analytic=True)


@_catalogue.add
def absolute_error() -> Cost:
    """c = sum_k abs(q_k - y_k); its derivative at 0 is taken as 0."""
    return _BuiltIn(
        "absolute_error", lambda xp, q, y: xp.sum(xp.abs(q - y), axis=1), lambda xp, q, y: sign(xp, q - y)
    )


@_catalogue.add
def huber(delta: float = 1.0) -> Cost:
    """c = sum_k e^2/2 where abs(e) <= ``delta``, else ``delta`` (abs(e) - ``delta``/2); e = q_k - y_k (Huber 1964)."""
    delta = real_number("delta", delta, POSITIVE)

    def value(xp: Namespace, q: Array, y: Array) -> Array:
        size = xp.abs(q - y)
        small = xp.minimum(size, delta)
        return xp.sum(small * (size - 0.5 * small), axis=1)

    return _BuiltIn(
        spelled("huber", delta=delta), value, lambda xp, q, y: xp.maximum(xp.minimum(q - y, delta), -delta)
    )


@_catalogue.add
def quantile(tau: float = 0.5) -> Cost:
    """c = sum_k max(``tau`` e, (``tau`` - 1) e), e = y_k - q_k: q becomes the ``tau``-quantile of y (Koenker & Bassett
    1978); its derivative at 0 is taken as 0."""
    tau = real_number("tau", tau, OPEN_UNIT)

    def value(xp: Namespace, q: Array, y: Array) -> Array:
        e = y - q
        return xp.sum(xp.maximum(tau * e, (tau - 1.0) * e), axis=1)

    def derivative(xp: Namespace, q: Array, y: Array) -> Array:
        above = xp.where(y > q, -tau * xp.ones_like(q), 0.0)
        return xp.where(y < q, 1.0 - tau, above)

    return _BuiltIn(spelled("quantile", tau=tau), value, derivative)


def _y_log_q(xp: Namespace, q: Array, y: Array) -> Array:
    # 0 log 0 = 0: outputs can round to 0 where the target is 0.
    return xp.where(y == 0, 0.0, y * xp.log(xp.where(y == 0, 1.0, q)))


def _y_over_q(xp: Namespace, q: Array, y: Array) -> Array:
    return y / xp.where(y == 0, 1.0, q)


def _log_softmax(xp: Namespace, p: Array) -> Array:
    z = p - xp.max(real(xp, p), axis=1, keepdims=True)
    return z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))


@_catalogue.add
def cross_entropy() -> Cost:
    """c = -sum_k y_k log q_k, for targets y that are probabilities or, as integers (B,), classes (article, "Global
    view"). With softmax, Delta = (sum_k y_k) q - y."""
    return _BuiltIn(
        "cross_entropy",
        lambda xp, q, y: -xp.sum(_y_log_q(xp, q, y), axis=1),
        lambda xp, q, y: -_y_over_q(xp, q, y),
        analytic=True,
        domain=Interval(0.0, 1.0, high_closed=True),
        targets=NOT_NEGATIVE,
        labels=True,
        partner=Partner(
            "softmax",
            lambda xp, p, q, y: -xp.sum(y * _log_softmax(xp, p), axis=1),
            lambda xp, q, y: xp.sum(y, axis=1, keepdims=True) * q - y,
        ),
    )


def _binary_from_p(xp: Namespace, p: Array, q: Array, y: Array) -> Array:
    right = real(xp, p) > 0
    lost = xp.where(right, p, 0.0) - p * y + log1p(xp, xp.exp(xp.where(right, -p, p)))
    return xp.sum(lost, axis=1)


@_catalogue.add
def binary_cross_entropy() -> Cost:
    """c = -sum_k (y_k log q_k + (1 - y_k) log(1 - q_k)): each output answers yes or no for itself. With sigmoid,
    Delta = q - y."""
    return _BuiltIn(
        "binary_cross_entropy",
        lambda xp, q, y: -xp.sum(_y_log_q(xp, q, y) + _y_log_q(xp, 1.0 - q, 1.0 - y), axis=1),
        lambda xp, q, y: _y_over_q(xp, 1.0 - q, 1.0 - y) - _y_over_q(xp, q, y),
        analytic=True,
        domain=Interval(0.0, 1.0, high_closed=True),
        targets=Interval(0.0, 1.0, low_closed=True, high_closed=True),
        partner=Partner("sigmoid", _binary_from_p, lambda xp, q, y: q - y),
    )


@_catalogue.add
def poisson() -> Cost:
    """c = sum_k (q_k - y_k log q_k): the negative log-likelihood of counts y at rates q, without log y!. With exp,
    Delta = q - y."""
    return _BuiltIn(
        "poisson",
        lambda xp, q, y: xp.sum(q - _y_log_q(xp, q, y), axis=1),
        lambda xp, q, y: 1.0 - _y_over_q(xp, q, y),
        analytic=True,
        domain=POSITIVE,
        targets=NOT_NEGATIVE,
        partner=Partner("exp", lambda xp, p, q, y: xp.sum(q - y * p, axis=1), lambda xp, q, y: q - y),
    )
