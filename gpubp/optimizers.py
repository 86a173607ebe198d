"""Gradient descent and its descendants: w_{t+1} from w_t and dC/dw_t (article, "Global view").

Each optimizer is one arithmetic formula, applied element by element to the flat vector of all weights; how (on whole
arrays, in blocks that stay in cache) is the engine's business. t counts steps from 1; eta is the learning rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from gpubp._checks import FRACTION, NOT_NEGATIVE, real_number
from gpubp._devices import at
from gpubp._registry import Catalogue
from gpubp._typing import Array, Namespace
from gpubp.engines import Generic, engine_for
from gpubp.schedules import Schedule, rate_at

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSprop", "State", "get", "names"]


def __dir__() -> list[str]:
    return __all__


def _fraction(default: float) -> Any:
    """A number of an optimizer that must lie in [0, 1)."""
    return field(default=default, metadata={"inside": FRACTION})


class State(NamedTuple):
    """What an optimizer remembers: steps done, and arrays of the shape of w."""

    steps: int
    slots: tuple[Array, ...]


@dataclass(frozen=True)
class Optimizer:
    """A formula for one step. To make another, give ``slots``, ``numbers`` and ``formula``.

    ``learning_rate`` is a number or ``schedule(step)``, step = 0, 1, ... Other numbers must be at least 0, or lie in
    the ``Interval`` of their field's ``metadata["inside"]``.

    Raises
    ------
    ValueError : a number outside its range
    """

    slots: ClassVar[int] = 0

    learning_rate: float | Schedule = 0.01

    def __post_init__(self) -> None:
        for number in fields(self):
            value = getattr(self, number.name)
            if not callable(value):
                inside = number.metadata.get("inside", NOT_NEGATIVE)
                # a Python number: NumPy's float64 would turn float32 weights into float64 ones
                object.__setattr__(self, number.name, real_number(number.name, value, inside))

    def init(self, w: Array) -> State:
        """The state before the first step."""
        xp = engine_for(w).xp
        with at(w):
            return State(0, tuple(xp.zeros_like(w) for _ in range(self.slots)))

    def step(
        self, w: Array, g: Array, state: State, *, overwrite: bool = False, engine: Generic | None = None
    ) -> tuple[Array, State]:
        """One step down the gradient ``g`` (n_weights,) from ``w`` (n_weights,): the new w and state.

        What came in stays as it is, unless ``overwrite`` permits to use its memory for the result; ``engine`` is one
        for w's library.
        """
        eta, t = rate_at(self.learning_rate, state.steps), state.steps + 1
        with at(w):
            new_w, *slots = self.descend(
                engine or engine_for(w), w, g, state.slots, eta, t, overwrite=overwrite
            )
        return new_w, State(t, tuple(slots))

    def descend(
        self,
        engine: Generic,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        eta: Any,
        t: Any,
        overwrite: bool = False,
    ) -> tuple[Array, ...]:
        """(w, *slots) after step t = 1, 2, ... at the learning rate eta."""
        out = (w, *slots) if overwrite else None
        return engine.update(self.formula, (w, g, *slots), self.numbers(eta, t), out)

    def numbers(self, eta: float, t: int) -> tuple[float, ...]:
        """What the formula needs besides arrays, at learning rate eta and step t."""
        return (eta,)

    @staticmethod
    @abstractmethod
    def formula(xp: Namespace, w: Array, g: Array, *more: Any) -> tuple[Array, ...]:
        """``formula(xp, w, g, *slots, *numbers) -> (w, *slots)``, element by element."""


_catalogue: Catalogue[Optimizer] = Catalogue("optimizer")
names = _catalogue.names


def get(optimizer: str | Any) -> Any:
    """The optimizer of that name, such as ``"adam"`` or ``"momentum(learning_rate=0.1)"``; anything with ``init`` and
    ``step`` comes back as it is.

    Raises
    ------
    ValueError : no such name
    TypeError : neither a name nor an optimizer
    """
    if isinstance(optimizer, str):
        return _catalogue.get(optimizer)
    if isinstance(optimizer, type) or not (hasattr(optimizer, "init") and hasattr(optimizer, "step")):
        raise TypeError(
            f"optimizer must be a name or have init(w) and step(w, g, state), got {optimizer!r}: "
            "try gpubp.Adam(learning_rate=1e-3)"
        )
    return optimizer


@_catalogue.add
@dataclass(frozen=True)
class SGD(Optimizer):
    """w <- w - eta g (the article's rule, taken at t)."""

    @staticmethod
    def formula(xp: Namespace, w: Array, g: Array, eta: float) -> tuple[Array, ...]:
        return (w - eta * g,)


@_catalogue.add
@dataclass(frozen=True)
class Momentum(Optimizer):
    """v <- mu v + g, w <- w - eta v (Polyak 1964). As in PyTorch, eta multiplies v; Sutskever et al. 2013 keep it
    inside v, which is the same while eta is constant."""

    slots: ClassVar[int] = 1
    momentum: float = _fraction(0.9)

    def numbers(self, eta: float, t: int) -> tuple[float, ...]:
        return eta, self.momentum

    @staticmethod
    def formula(xp: Namespace, w: Array, g: Array, v: Array, eta: float, mu: float) -> tuple[Array, ...]:
        v = mu * v + g
        return w - eta * v, v


@_catalogue.add
@dataclass(frozen=True)
class Nesterov(Momentum):
    """v <- mu v + g, w <- w - eta (g + mu v) (Nesterov 1983; the form of PyTorch and Keras)."""

    @staticmethod
    def formula(xp: Namespace, w: Array, g: Array, v: Array, eta: float, mu: float) -> tuple[Array, ...]:
        v = mu * v + g
        return w - eta * (g + mu * v), v


@_catalogue.add
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """v <- rho v + (1 - rho) g^2, w <- w - eta g / (sqrt(v) + epsilon) (Hinton 2012, lecture 6e). epsilon stands
    outside the root, as in PyTorch; TensorFlow 1 has it inside."""

    slots: ClassVar[int] = 1
    learning_rate: float | Schedule = 1e-3
    decay: float = _fraction(0.9)
    epsilon: float = 1e-8

    def numbers(self, eta: float, t: int) -> tuple[float, ...]:
        return eta, self.decay, self.epsilon

    @staticmethod
    def formula(
        xp: Namespace, w: Array, g: Array, v: Array, eta: float, rho: float, epsilon: float
    ) -> tuple[Array, ...]:
        v = rho * v + (1.0 - rho) * (g * g)
        return w - eta * g / (xp.sqrt(v) + epsilon), v


@_catalogue.add
@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2,
    w <- w - eta m^ / (sqrt(v^) + epsilon), m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t) (Kingma & Ba 2014)."""

    slots: ClassVar[int] = 2
    learning_rate: float | Schedule = 1e-3
    beta1: float = _fraction(0.9)
    beta2: float = _fraction(0.999)
    epsilon: float = 1e-8

    def numbers(self, eta: float, t: int) -> tuple[float, ...]:
        # The root's correction is a number: divide it out of v's root, not out of every v.
        return (
            eta / (1.0 - self.beta1**t),
            (1.0 - self.beta2**t) ** -0.5,
            self.beta1,
            self.beta2,
            self.epsilon,
        )

    @staticmethod
    def formula(
        xp: Namespace,
        w: Array,
        g: Array,
        m: Array,
        v: Array,
        rate: float,
        root: float,
        beta1: float,
        beta2: float,
        epsilon: float,
    ) -> tuple[Array, ...]:
        m = beta1 * m + (1.0 - beta1) * g
        v = beta2 * v + (1.0 - beta2) * (g * g)
        return w - rate * m / (root * xp.sqrt(v) + epsilon), m, v


@_catalogue.add
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with w <- (1 - eta ``weight_decay``) w beside its step (Loshchilov & Hutter 2017). As in PyTorch and optax
    the decay acts on all of w, biases too, and is scaled by eta; ``l2`` of ``train`` goes through the gradient."""

    weight_decay: float = 0.01

    def numbers(self, eta: float, t: int) -> tuple[float, ...]:
        return 1.0 - eta * self.weight_decay, *super().numbers(eta, t)

    @staticmethod
    def formula(
        xp: Namespace, w: Array, g: Array, m: Array, v: Array, shrink: float, *numbers: float
    ) -> tuple[Array, ...]:
        return Adam.formula(xp, shrink * w, g, m, v, *numbers)
