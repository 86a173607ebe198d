"""Learning rates that change with the step: ``schedule(step) -> learning rate``, step = 0, 1, 2, ... over the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from gpubp._checks import NOT_NEGATIVE, POSITIVE, real_number, whole_number

__all__ = ["Constant", "Cosine", "InverseScaling", "Schedule", "StepDecay", "WarmUp", "rate_at"]


def __dir__() -> list[str]:
    return __all__


Schedule: TypeAlias = Callable[[int], float]


def rate_at(learning_rate: float | Schedule, step: int) -> float:
    """The learning rate at a step, of a number or of a schedule."""
    return float(learning_rate(step)) if callable(learning_rate) else learning_rate


@dataclass(frozen=True)
class Constant:
    """``learning_rate`` at every step."""

    learning_rate: float

    def __post_init__(self) -> None:
        real_number("learning_rate", self.learning_rate, NOT_NEGATIVE)

    def __call__(self, step: int) -> float:
        return self.learning_rate


@dataclass(frozen=True)
class StepDecay:
    """``learning_rate factor^floor(step / every)``."""

    learning_rate: float
    every: int
    factor: float = 0.5

    def __post_init__(self) -> None:
        real_number("learning_rate", self.learning_rate, NOT_NEGATIVE)
        whole_number("every", self.every)
        real_number("factor", self.factor, POSITIVE)

    def __call__(self, step: int) -> float:
        return self.learning_rate * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Cosine:
    """From ``learning_rate`` down half a cosine to ``final``, reached at ``steps`` and kept (Loshchilov & Hutter
    2016)."""

    learning_rate: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        real_number("learning_rate", self.learning_rate, NOT_NEGATIVE)
        whole_number("steps", self.steps)
        real_number("final", self.final, NOT_NEGATIVE)

    def __call__(self, step: int) -> float:
        way = min(step / self.steps, 1.0)
        return self.final + (self.learning_rate - self.final) * 0.5 * (1.0 + math.cos(math.pi * way))


@dataclass(frozen=True)
class WarmUp:
    """Linear from ``after(0) / steps`` up to ``after``, which then runs on from its own step 0 (Goyal et al. 2017)."""

    steps: int
    after: float | Schedule

    def __post_init__(self) -> None:
        whole_number("steps", self.steps)
        if not callable(self.after):
            real_number("after", self.after, NOT_NEGATIVE)

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return rate_at(self.after, 0) * (step + 1) / self.steps
        return rate_at(self.after, step - self.steps)


@dataclass(frozen=True)
class InverseScaling:
    """``learning_rate / (step + 1)^power``: scikit-learn's "invscaling" counts samples where this counts steps."""

    learning_rate: float
    power: float = 0.5

    def __post_init__(self) -> None:
        real_number("learning_rate", self.learning_rate, NOT_NEGATIVE)
        real_number("power", self.power, NOT_NEGATIVE)

    def __call__(self, step: int) -> float:
        return self.learning_rate / math.pow(step + 1, self.power)
