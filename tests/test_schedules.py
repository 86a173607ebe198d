"""Learning rates by hand."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpubp import Adam
from gpubp.schedules import Constant, Cosine, InverseScaling, StepDecay, WarmUp, rate_at

BY_HAND: list[tuple[Callable[[int], float], dict[int, float]]] = [
    (Constant(0.1), {0: 0.1, 1000: 0.1}),
    (StepDecay(0.8, every=3), {0: 0.8, 2: 0.8, 3: 0.4, 5: 0.4, 6: 0.2, 9: 0.1}),
    (StepDecay(1.0, every=1, factor=0.1), {0: 1.0, 1: 0.1, 2: 0.01}),
    (Cosine(0.2, steps=4), {0: 0.2, 1: 0.1 * (1 + math.sqrt(0.5)), 2: 0.1, 4: 0.0, 9: 0.0}),
    (Cosine(0.5, steps=2, final=0.1), {0: 0.5, 1: 0.3, 2: 0.1, 100: 0.1}),
    (WarmUp(4, after=0.8), {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8, 50: 0.8}),
    (WarmUp(2, after=StepDecay(0.8, every=2)), {0: 0.4, 1: 0.8, 2: 0.8, 3: 0.8, 4: 0.4, 6: 0.2}),
    (InverseScaling(0.6), {0: 0.6, 3: 0.3, 8: 0.2}),
    (InverseScaling(0.6, power=1.0), {0: 0.6, 1: 0.3, 2: 0.2}),
]


@pytest.mark.parametrize(("schedule", "rates"), BY_HAND, ids=str)
def test_by_hand(schedule: Callable[[int], float], rates: dict[int, float]) -> None:
    assert {step: schedule(step) for step in rates} == pytest.approx(rates, rel=1e-14, abs=1e-16)
    assert rate_at(schedule, 0) == pytest.approx(rates[0])


@pytest.mark.parametrize(("schedule", "rates"), BY_HAND, ids=str)
def test_schedules_are_values(schedule: Callable[[int], float], rates: dict[int, float]) -> None:
    for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), eval(repr(schedule))):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
    assert Adam(schedule) == Adam(learning_rate=schedule)


def test_rates_are_python_numbers() -> None:
    """A NumPy number would turn float32 weights into float64."""
    assert rate_at(0.25, 7) == 0.25
    assert type(rate_at(lambda step: np.float64(0.5) / (step + 1), 1)) is float
    assert type(rate_at(Cosine(np.float64(0.5), 3), 1)) is float


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: Constant(-0.1),
            ValueError,
            r"learning_rate must lie in \[0, inf\), got -0.1: give a number inside",
        ),
        (lambda: Constant("0.1"), TypeError, r"learning_rate must be a number, got str: give a float"),  # type: ignore[arg-type]
        (lambda: StepDecay(0.1, every=0), ValueError, r"every must be at least 1, got 0: give a larger one"),
        (
            lambda: StepDecay(0.1, every=2.5),  # type: ignore[arg-type]
            TypeError,
            r"every must be a whole number, got float: give an int",
        ),
        (lambda: StepDecay(0.1, 2, factor=0.0), ValueError, r"factor must lie in \(0, inf\), got 0"),
        (lambda: Cosine(0.1, 0), ValueError, r"steps must be at least 1, got 0"),
        (lambda: Cosine(0.1, 5, final=math.nan), ValueError, r"final must lie in \[0, inf\), got nan"),
        (lambda: WarmUp(0, 0.1), ValueError, r"steps must be at least 1, got 0"),
        (lambda: WarmUp(2, -0.1), ValueError, r"after must lie in \[0, inf\), got -0.1"),
        (lambda: WarmUp(2, "cosine"), TypeError, r"after must be a number, got str"),  # type: ignore[arg-type]
        (lambda: InverseScaling(math.inf), ValueError, r"learning_rate must lie in \[0, inf\), got inf"),
        (lambda: InverseScaling(0.1, power=-1), ValueError, r"power must lie in \[0, inf\), got -1"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
