"""Refusals about shape, dtype, namespace and device; none of them reads a value, so none waits for a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpubp._typing import Array


@dataclass(frozen=True)
class Interval:
    """Where a value can lie: ``[low, high]`` with open ends unless said otherwise."""

    low: float
    high: float
    low_closed: bool = False
    high_closed: bool = False

    def within(self, other: Interval) -> bool:
        low = self.low > other.low or (self.low == other.low and (other.low_closed or not self.low_closed))
        high = self.high < other.high or (
            self.high == other.high and (other.high_closed or not self.high_closed)
        )
        return low and high

    def __str__(self) -> str:
        return f"{'(['[self.low_closed]}{self.low:g}, {self.high:g}{')]'[self.high_closed]}"


REALS = Interval(float("-inf"), float("inf"))
POSITIVE = Interval(0.0, float("inf"))
NOT_NEGATIVE = Interval(0.0, float("inf"), low_closed=True)
OPEN_UNIT = Interval(0.0, 1.0)
FRACTION = Interval(0.0, 1.0, low_closed=True)


def shape_is(name: str, array: Array, wanted: tuple[int | None, ...], symbols: str, remedy: str) -> None:
    """Refuse an array whose shape isn't ``wanted``, where None is any size."""
    shape = tuple(array.shape)
    if len(shape) == len(wanted) and all(w is None or w == s for w, s in zip(wanted, shape, strict=True)):
        return
    raise ValueError(f"{name} must have shape {symbols}, got {shape}: {remedy}")


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int, refused unless it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}: give an int")
    number = int(value.__index__())
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}: give a larger one")
    return number


def real_number(name: str, value: Any, interval: Interval) -> float:
    """``value`` as a float, refused unless it is a number in ``interval``."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}: give a float")
    number = float(value)
    inside = Interval(number, number, True, True).within(interval)
    if not inside:
        raise ValueError(f"{name} must lie in {interval}, got {number:g}: give a number inside")
    return number
