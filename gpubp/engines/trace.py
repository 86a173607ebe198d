"""Element-wise formulas, run once on symbols: what comes out can be written down as a loop and compiled.

The formula stays the only spelling; the loop is made from it, never beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp._typing import Formula

__all__ = ["Untraceable", "traced"]


class Untraceable(Exception):
    """The formula does something that isn't arithmetic element by element."""


class _Symbol:
    """A value that isn't known yet; arithmetic on it adds a line to the program."""

    __slots__ = ("name", "program", "scalar", "truth")
    __array_ufunc__ = None
    __hash__ = object.__hash__
    dtype = "of the arrays"

    def __init__(self, program: _Program, name: str, scalar: bool, truth: bool = False) -> None:
        self.program, self.name, self.scalar, self.truth = program, name, scalar, truth

    def __add__(self, other: Any) -> _Symbol:
        return self.program.line("{} + {}", self, other)

    def __radd__(self, other: Any) -> _Symbol:
        return self.program.line("{} + {}", other, self)

    def __mul__(self, other: Any) -> _Symbol:
        return self.program.line("{} * {}", self, other)

    def __rmul__(self, other: Any) -> _Symbol:
        return self.program.line("{} * {}", other, self)

    def __sub__(self, other: Any) -> _Symbol:
        return self.program.line("{} - {}", self, other)

    def __rsub__(self, other: Any) -> _Symbol:
        return self.program.line("{} - {}", other, self)

    def __truediv__(self, other: Any) -> _Symbol:
        return self.program.line("{} / {}", self, other)

    def __rtruediv__(self, other: Any) -> _Symbol:
        return self.program.line("{} / {}", other, self)

    def __neg__(self) -> _Symbol:
        return self.program.line("-{}", self)

    def __pow__(self, power: Any) -> _Symbol:
        if power != 2:
            raise Untraceable(f"power {power!r}")
        return self * self

    def __lt__(self, other: Any) -> _Symbol:
        return self.program.line("{} < {}", self, other, truth=True)

    def __gt__(self, other: Any) -> _Symbol:
        return self.program.line("{} > {}", self, other, truth=True)

    def __eq__(self, other: object) -> _Symbol:  # type: ignore[override]
        return self.program.line("{} == {}", self, other, truth=True)

    def __bool__(self) -> bool:
        raise Untraceable("a branch on a value")


class _Program:
    """Lines of scalar arithmetic, each written once: on numbers, done once, and on elements, done for each."""

    def __init__(self) -> None:
        self.once: dict[str, str] = {}  # expression -> name
        self.each: dict[str, str] = {}

    def line(self, text: str, *values: Any, truth: bool = False) -> _Symbol:
        symbols = [self.symbol(value) for value in values]
        scalar = all(symbol.scalar for symbol in symbols)
        lines = self.once if scalar else self.each
        expression = text.format(*(symbol.name for symbol in symbols))
        name = lines.setdefault(expression, f"{'ne'[not scalar]}{len(lines)}")
        return _Symbol(self, name, scalar, truth)

    def symbol(self, value: Any) -> _Symbol:
        if isinstance(value, _Symbol):
            return value
        if isinstance(value, int | float):
            return _Symbol(self, self.once.setdefault(repr(float(value)), f"n{len(self.once)}"), scalar=True)
        raise Untraceable(f"a {type(value).__name__} in a formula")


class _Names:
    """The namespace that a traced formula is given: the arithmetic that a compiled loop does well.

    exp, log and tanh are missing on purpose: NumPy's own are vectorised, a compiled loop's are not.
    """

    float32 = float64 = complex128 = None

    def __init__(self, program: _Program) -> None:
        self._line = program.line

    def __getattr__(self, name: str) -> Any:
        raise Untraceable(name)

    def where(self, condition: _Symbol, a: Any, b: Any) -> _Symbol:
        return self._line("{1} if {0} else {2}", condition, a, b)

    def maximum(self, a: _Symbol, b: float) -> _Symbol:
        return self._line("{1} if {0} < {1} else {0}", a, _plain(b))  # a NaN stays

    def minimum(self, a: _Symbol, b: float) -> _Symbol:
        return self._line("{1} if {0} > {1} else {0}", a, _plain(b))

    def astype(self, a: _Symbol, dtype: object) -> _Symbol:
        return self.where(a, 1.0, 0.0) if a.truth else a

    def ones_like(self, a: _Symbol) -> _Symbol:
        return a.program.symbol(1.0)

    def sqrt(self, a: _Symbol) -> _Symbol:
        return self._line("sqrt({})", a)

    def abs(self, a: _Symbol) -> _Symbol:
        return self._line("abs({})", a)

    def sign(self, a: _Symbol) -> _Symbol:
        return self.where(a > 0.0, 1.0, self.where(a < 0.0, -1.0, a))


def _plain(number: Any) -> float:
    if isinstance(number, _Symbol):
        raise Untraceable("the larger of two arrays, where either may be NaN")
    return float(number)


def traced(formula: Formula, arrays: int, numbers: int, into: Sequence[int]) -> str:
    """The formula ``formula(xp, *arrays, *numbers)`` as a loop over flat arrays of one dtype, whose results overwrite
    the arrays numbered ``into``: what may alias what is then known, and the loop is vectorised.

    Source of two functions comes back. ``numbers(s0, ...)`` gives, from the formula's numbers, all that the loop needs,
    in double precision; ``loop(v, a0, ...)`` wants them in the arrays' dtype, and the arrays.

    Raises
    ------
    Untraceable : it isn't arithmetic element by element
    """
    program = _Program()
    x = [_Symbol(program, f"x{k}", scalar=False) for k in range(arrays)]
    s = [_Symbol(program, f"s{k}", scalar=True) for k in range(numbers)]
    try:
        results = formula(_Names(program), *x, *s)
    except Untraceable:
        raise
    except Exception as error:  # a user's formula may fail in any way on what isn't an array
        raise Untraceable(str(error)) from error
    ends = [program.symbol(end).name for end in (results if isinstance(results, tuple) else (results,))]
    known = [*(f"s{k}" for k in range(numbers)), *program.once.values()]
    lines = [
        "from math import sqrt",
        f"def numbers({', '.join(known[:numbers])}):",
        *(f"    {name} = {text}" for text, name in program.once.items()),
        f"    return ({', '.join(known)},)" if known else "    return ()",
        f"def loop(v, {', '.join(f'a{k}' for k in range(arrays))}):",
        *(f"    {name} = v[{k}]" for k, name in enumerate(known)),
        "    for k in range(a0.size):",
        *(f"        x{k} = a{k}[k]" for k in range(arrays)),
        *(f"        {name} = {text}" for text, name in program.each.items()),
        *(f"        a{k}[k] = {end}" for k, end in zip(into, ends, strict=True)),
    ]
    return "\n".join(lines) + "\n"
