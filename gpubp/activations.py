"""Activations: q = sigma(p), and how dC/dq becomes dC/dp (article, sections II and IV).

Each formula is written once, in functions of the Array API standard, and holds for real and, where ``analytic``,
for complex p. All are finite and right at +-1e4, but ``exp``, which overflows to inf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpubp._checks import REALS, Interval, real_number
from gpubp._devices import native_erf
from gpubp._numerics import central_differences, erf, log1p, real
from gpubp._registry import BuiltIn, Catalogue, spelled
from gpubp._typing import Array, Formula, Namespace

__all__ = [
    "Activation",
    "elu",
    "exp",
    "gelu",
    "gelu_tanh",
    "get",
    "identity",
    "leaky_relu",
    "names",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Activation:
    """An activation function sigma of a layer's nodes, and its derivative.

    Parameters
    ----------
    value : ``value(xp, p) -> q``, both (B, n); ``xp`` is the namespace of the arrays
    derivative : ``derivative(xp, p, q) -> sigma'(p)``, (B, n), where sigma acts element by element
    pullback : ``pullback(xp, p, q, g) -> dC/dp`` from g = dC/dq, all (B, n), where it does not (softmax is one)
    name : what it is called in reprs and saved files
    analytic : the formula also holds for complex p, so that complex-step differentiation may be used
    check_at : the derivative is compared with central differences at points between these two, when the object is
        made; None leaves that out
    output_range : where every q lies, if known; lets a network refuse a cost that isn't defined there

    Exactly one of ``derivative`` and ``pullback`` is given. A formula that leaves one of p and q unread lets a
    network keep only the other.

    Raises
    ------
    TypeError : both or neither of ``derivative`` and ``pullback``
    ValueError : the derivative disagrees with differences, a shape or dtype isn't kept, or rows are mixed
    """

    value: Formula
    derivative: Formula | None = None
    pullback: Formula | None = None
    name: str = ""
    analytic: bool = False
    check_at: tuple[float, float] | None = (-3.0, 3.0)
    output_range: Interval | None = None

    def __init__(
        self,
        value: Formula,
        derivative: Formula | None = None,
        *,
        pullback: Formula | None = None,
        name: str,
        analytic: bool = False,
        check_at: tuple[float, float] | None = (-3.0, 3.0),
        output_range: tuple[float, float] | Interval | None = None,
    ) -> None:
        if (derivative is None) == (pullback is None):
            came = "neither" if derivative is None else "both"
            raise TypeError(
                f"activation {name!r} needs exactly one of derivative and pullback, got {came}: give one"
            )
        if isinstance(output_range, tuple):
            output_range = Interval(*output_range)
        given = locals()
        for field in self.__dataclass_fields__:
            object.__setattr__(self, field, given[field])
        if check_at is not None:
            _check(self)

    def __repr__(self) -> str:
        return f"<activation {self.name}>"

    @cached_property
    def reads_p(self) -> bool:
        """Whether going back through it needs p."""
        return self._reads(_UNREADABLE, np.ones((1, 1)))

    @cached_property
    def reads_q(self) -> bool:
        """Whether going back through it needs q."""
        return self._reads(np.ones((1, 1)), _UNREADABLE)

    def _reads(self, p: Any, q: Any) -> bool:
        try:
            if self.derivative is not None:
                result = self.derivative(np, p, q)
            else:
                assert self.pullback is not None
                result = self.pullback(np, p, q, np.ones((1, 1)))
        except Exception:  # a formula may fail in any way on an argument that can't be read
            return True
        return result is _UNREADABLE


class _Unreadable:
    """Stands in for an array to find out whether a formula reads it: every use raises."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise AttributeError("read")

    __array__ = __getattr__ = __bool__ = __float__ = __len__ = __iter__ = __getitem__ = _refuse
    __array_ufunc__ = __array_function__ = __eq__ = __ne__ = _refuse
    __hash__ = object.__hash__


_UNREADABLE = _Unreadable()


def _check(sigma: Activation) -> None:
    assert sigma.check_at is not None
    rng = np.random.default_rng(0)
    p = rng.uniform(*sigma.check_at, (7, 3))
    g = rng.standard_normal((7, 3))
    with np.errstate(all="ignore"):
        q = np.asarray(sigma.value(np, p))
        say = f"activation {sigma.name!r}"
        if q.shape != p.shape:
            raise ValueError(
                f"{say} must keep the shape (B, n), got {q.shape} from {p.shape}: return one q for each p"
            )
        q32 = np.asarray(sigma.value(np, p.astype(np.float32)))
        if q32.dtype != np.float32:
            raise ValueError(
                f"{say} must keep the dtype of p, got {q32.dtype} from float32: use Python numbers"
            )
        if not np.allclose(sigma.value(np, p[:1]), q[:1], rtol=1e-12, atol=1e-12):
            raise ValueError(
                f"{say} must treat each row alone, got a row that changes with the others: use axis=1"
            )
        if sigma.derivative is not None:
            slope = np.asarray(sigma.derivative(np, p, q))
            if slope.shape != p.shape:
                raise ValueError(
                    f"the derivative of {say} must have the shape (B, n) of p, got {slope.shape} for {p.shape}: "
                    "return one number for each p"
                )
            ours = g * slope
        else:
            assert sigma.pullback is not None
            ours = np.asarray(sigma.pullback(np, p, q, g))
        theirs = central_differences(lambda p: g * sigma.value(np, p), p)
    worst = np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs)))
    if not (ours.shape == p.shape and worst <= 1e-6):
        what = "derivative" if sigma.derivative is not None else "pullback"
        raise ValueError(
            f"the {what} of {say} must agree with central differences between {sigma.check_at[0]:g} and "
            f"{sigma.check_at[1]:g}, got a difference of {worst:.1e}: mend the {what}, or move check_at off a kink"
        )


_catalogue: Catalogue[Activation] = Catalogue("activation")
names = _catalogue.names


def get(activation: str | Activation) -> Activation:
    """The activation of that name, such as ``"relu"`` or ``"leaky_relu(slope=0.1)"``; an Activation comes back as is.

    Raises
    ------
    ValueError : no such name, or numbers it doesn't take
    TypeError : neither a name nor an Activation
    """
    return _catalogue.resolve(
        activation, lambda given: isinstance(given, Activation), "a gpubp.Activation, got {}: wrap it in one"
    )


class _BuiltIn(BuiltIn, Activation):
    get = staticmethod(get)


def _built_in(name: str, value: Formula, derivative: Formula | None = None, **more: Any) -> Activation:
    return _BuiltIn(value, derivative, name=name, check_at=None, **{"output_range": REALS, **more})


@_catalogue.add
def identity() -> Activation:
    """q = p: a linear layer (article, sections I and III)."""
    return _built_in("identity", lambda xp, p: p, pullback=lambda xp, p, q, g: g, analytic=True)


@_catalogue.add
def relu() -> Activation:
    """q = max(p, 0); sigma'(0) = 0."""
    return _built_in(
        "relu",
        lambda xp, p: xp.maximum(p, 0.0),
        lambda xp, p, q: xp.astype(q > 0, q.dtype),
        output_range=Interval(0.0, math.inf, low_closed=True),
    )


@_catalogue.add
def leaky_relu(slope: float = 0.01) -> Activation:
    """q = p where p > 0, else ``slope`` p (Maas et al. 2013)."""
    slope = real_number("slope", slope, REALS)
    return _built_in(
        spelled("leaky_relu", slope=slope),
        lambda xp, p: xp.where(p > 0, p, slope * p),
        lambda xp, p, q: xp.where(p > 0, xp.ones_like(p), slope),
    )


@_catalogue.add
def elu(alpha: float = 1.0) -> Activation:
    """q = p where p > 0, else ``alpha`` (exp(p) - 1) (Clevert et al. 2015)."""
    alpha = real_number("alpha", alpha, REALS)
    return _exponential_linear(spelled("elu", alpha=alpha), 1.0, alpha)


@_catalogue.add
def selu() -> Activation:
    """The ELU scaled so that mean 0 and variance 1 are kept (Klambauer et al. 2017)."""
    return _exponential_linear("selu", 1.0507009873554805, 1.6732632423543772)


def _exponential_linear(name: str, scale: float, alpha: float) -> Activation:
    def value(xp: Namespace, p: Array) -> Array:
        return scale * xp.where(p > 0, p, alpha * xp.expm1(xp.minimum(p, 0.0)))

    def derivative(xp: Namespace, p: Array, q: Array) -> Array:
        return xp.where(p > 0, xp.ones_like(p) * scale, q + scale * alpha)

    return _built_in(
        name, value, derivative, output_range=Interval(-scale * abs(alpha), math.inf, low_closed=True)
    )


def _sigmoid(xp: Namespace, p: Array) -> Array:
    # Two branches, so that exp never overflows; Re p chooses where p is complex.
    right = real(xp, p) > 0
    e = xp.exp(xp.where(right, -p, p))
    return xp.where(right, xp.ones_like(e), e) / (1.0 + e)


@_catalogue.add
def sigmoid() -> Activation:
    """q = 1 / (1 + exp(-p))."""
    return _built_in(
        "sigmoid", _sigmoid, lambda xp, p, q: q * (1.0 - q), analytic=True, output_range=Interval(0.0, 1.0)
    )


@_catalogue.add
def tanh() -> Activation:
    """q = tanh(p)."""
    return _built_in(
        "tanh",
        lambda xp, p: xp.tanh(p),
        lambda xp, p, q: 1.0 - q * q,
        analytic=True,
        output_range=Interval(-1.0, 1.0),
    )


def _softplus(xp: Namespace, p: Array) -> Array:
    right = real(xp, p) > 0
    return xp.where(right, p, 0.0) + log1p(xp, xp.exp(xp.where(right, -p, p)))


@_catalogue.add
def softplus() -> Activation:
    """q = log(1 + exp(p))."""
    return _built_in(
        "softplus",
        _softplus,
        lambda xp, p, q: _sigmoid(xp, p),
        analytic=True,
        output_range=Interval(0.0, math.inf),
    )


@_catalogue.add
def softsign() -> Activation:
    """q = p / (1 + abs(p))."""
    return _built_in(
        "softsign",
        lambda xp, p: p / (1.0 + xp.abs(p)),
        lambda xp, p, q: 1.0 / (1.0 + xp.abs(p)) ** 2,
        output_range=Interval(-1.0, 1.0),
    )


def _normal_below(xp: Namespace, p: Array) -> Array:
    own = native_erf(xp)
    z = p * math.sqrt(0.5)
    return 0.5 * (1.0 + (own(z) if own is not None else erf(xp, z)))


def _gelu_derivative(xp: Namespace, p: Array, q: Array) -> Array:
    return _normal_below(xp, p) + p * xp.exp(-0.5 * p * p) * math.sqrt(0.5 / math.pi)


@_catalogue.add
def gelu() -> Activation:
    """q = p Phi(p), Phi the normal distribution function, by erf (Hendrycks & Gimpel 2016)."""
    return _built_in(
        "gelu",
        lambda xp, p: p * _normal_below(xp, p),
        _gelu_derivative,
        output_range=Interval(-0.17, math.inf),
    )


_GELU_RATE = math.sqrt(2.0 / math.pi)
_GELU_CUBE = 0.044715


def _gelu_tanh(xp: Namespace, p: Array) -> Array:
    return 0.5 * p * (1.0 + xp.tanh(_GELU_RATE * (p + _GELU_CUBE * p * p * p)))


def _gelu_tanh_derivative(xp: Namespace, p: Array, q: Array) -> Array:
    t = xp.tanh(_GELU_RATE * (p + _GELU_CUBE * p * p * p))
    return 0.5 * (1.0 + t) + 0.5 * p * (1.0 - t * t) * _GELU_RATE * (1.0 + 3.0 * _GELU_CUBE * p * p)


@_catalogue.add
def gelu_tanh() -> Activation:
    """The tanh approximation of gelu, up to 4.7e-4 from it (Hendrycks & Gimpel 2016)."""
    return _built_in(
        "gelu_tanh",
        _gelu_tanh,
        _gelu_tanh_derivative,
        analytic=True,
        output_range=Interval(-0.171, math.inf),
    )


def _silu_derivative(xp: Namespace, p: Array, q: Array) -> Array:
    s = _sigmoid(xp, p)
    return s * (1.0 + p * (1.0 - s))


@_catalogue.add
def silu() -> Activation:
    """q = p sigmoid(p), also called swish (Elfwing et al. 2017)."""
    return _built_in(
        "silu",
        lambda xp, p: p * _sigmoid(xp, p),
        _silu_derivative,
        analytic=True,
        output_range=Interval(-0.279, math.inf),
    )


@_catalogue.add
def exp() -> Activation:
    """q = exp(p): rates that are positive; overflows to inf."""
    return _built_in(
        "exp",
        lambda xp, p: xp.exp(p),
        lambda xp, p, q: q,
        analytic=True,
        output_range=Interval(0.0, math.inf),
    )


def _softmax(xp: Namespace, p: Array) -> Array:
    e = xp.exp(p - xp.max(real(xp, p), axis=1, keepdims=True))
    return e / xp.sum(e, axis=1, keepdims=True)


@_catalogue.add
def softmax() -> Activation:
    """q_k = exp(p_k) / sum_l exp(p_l), over the nodes of a layer; its derivative is a matrix, so it pulls back:
    dC/dp = q o (g - sum_k q_k g_k)."""
    return _built_in(
        "softmax",
        _softmax,
        pullback=lambda xp, p, q, g: q * (g - xp.sum(q * g, axis=1, keepdims=True)),
        analytic=True,
        output_range=Interval(0.0, 1.0, high_closed=True),
    )
