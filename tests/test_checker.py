"""The checker of recorded steps, and the exact arithmetic that it computes in."""

from __future__ import annotations

import math
import random
from typing import Any

import checker
import exact
import numpy as np
import pytest
from checker import Finding
from exact import unwritten

from gpubp.recording.compiled import Compiled
from gpubp.recording.recorded import Replayed

field: Any = exact.field  # whose operators are made in a loop, which types don't show


def test_numbers_are_exact() -> None:
    half, third = field(0.5), field(1.0) / 3
    assert half + half == 1
    assert third * 3 == 1
    assert 2.0 - third - third - third == 1
    assert field(0.1) + 0.2 != 0.3  # they aren't tenths
    assert field(2) ** 10 == 1024
    assert field(7) / 0 == 0
    assert -half < 0 or half < 0


def test_sums_may_be_in_any_order() -> None:
    numbers = list(exact.drawn(random.Random(0), (50,)))
    assert sum(numbers, field(0)) == sum(reversed(numbers), field(0))
    assert len({each.n for each in numbers}) == 50


def test_functions_are_known_by_their_operands_alone() -> None:
    x = field(3.0)
    exp, tanh = exact.functions["exp"], exact.functions["tanh"]
    assert exp(x) == exp(field(3))
    assert exp(x) != tanh(x)
    assert x**0.5 == field(3) ** field(0.5)


def test_nan_and_infinity_do_as_floats_do() -> None:
    nan, inf, x = field(math.nan), field(math.inf), field(5)
    assert (x + nan).n != (x + nan).n
    assert not nan < x
    assert nan != nan
    assert -inf < x < inf
    assert all(math.isnan(f(x, nan).n) and math.isnan(f(nan, x).n) for f in (exact.maximum, exact.minimum))
    assert exact.maximum(-inf, x) is x


def test_what_nobody_wrote_cant_be_used() -> None:
    a7 = unwritten("a7", np.empty((2, 3), object))
    for use in (lambda x: x + 1, lambda x: 1 - x, lambda x: field(2) * x, bool, abs, field, lambda x: x < 1):
        with pytest.raises(exact.ReadBeforeWritten, match=r"a7\[1, 2\] was read before it was written"):
            use(a7[1, 2])


def added(engine: Any, fixed: Any, states: Any, which: Any) -> Any:
    """A weighted sum of rows, which is added to the weights; and two results."""
    xp, (w,) = engine.xp, states.values()
    x = engine.gather(fixed["x"], which)
    g = xp.sum(x * w, axis=0)
    return [w + g], [xp.sum(xp.sum(x, axis=1)), xp.sum(g)]


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("kind", "right", "wrong", "found"),
    [
        (
            Replayed,
            "add(in_w, a5",
            "subtract(in_w, a5",
            r"state w differs from .* promised at element 0 after step 1",
        ),
        (
            Replayed,
            "in_x.take(in_which, 0, s0, 'clip')",
            "pass",
            r"^s0\[0, 0\] was read .* \(line 12: multiply",
        ),
        (Replayed, "r1s[step] = ", "r0s[step] = ", "result 0 differs from what was promised"),
        (Replayed, "r1s[step] = ", "r0s[step] + ", r"result 1 was never written at element 0"),
        (
            Compiled,
            "meet(meeting, thread, threads)",
            "pass",
            r"^of_each_sum_a5\[1, 0\] was read before it was written",
        ),
        (
            Compiled,
            "my_in_w[k] = v6",
            "in_w[k] = v6",
            r"^in_w\[\d\] is .* by part 0 and written by part 1 with no barrier between \(line .*; line .* = v6\)",
        ),
        (Compiled, "x5 = my_a5[k]", "x5 = a5[k]", "before it was written|with no barrier between"),
        (Compiled, "x1 = in_w[k]", "x1 = in_w[k + 1]", r"IndexError: element 9 of \(9,\)"),
    ],
)
def test_what_is_wrong_is_said(
    kind: Any, right: str, wrong: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker.watch(monkeypatch.setattr, lambda recorded: None)
    rng = np.random.default_rng(0)
    more = {"parts": 2} if kind is Compiled else {}
    recorded = kind(added, {"x": rng.standard_normal((20, 9))}, {"w": np.ones(9)}, 8, 0, **more)
    checker.check(recorded)
    assert right in recorded.source
    recorded.source = recorded.source.replace(right, wrong, 1)
    with pytest.raises(Finding, match=found):
        checker.check(recorded)
