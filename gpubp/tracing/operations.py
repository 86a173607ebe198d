"""What can be recorded: one table of operations, with a column for each target that they are written down for.

A new operation is one line here, and a method of the tracer that asks for it. A new target is one more column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

__all__ = ["FUNCTIONS", "Call", "Kind", "Means", "Op", "Shape", "Size", "Untraceable", "batch"]


class Untraceable(Exception):
    """A formula does something that can't be written down."""


class Means(Enum):
    """What a size of an array is."""

    PLAIN = auto()
    BATCH = auto()  # the rows of a batch: never 1 by broadcasting, whatever their number
    KEPT = auto()  # the 1 that a reduction over an axis leaves in its place


@dataclass(frozen=True)
class Size:
    """A size of an array. Sizes are equal where they mean the same."""

    number: int
    means: Means = Means.PLAIN

    def stretches(self, other: Size) -> bool:
        """Whether broadcasting makes it that other size."""
        plain_one = self.number == 1 and self.means is Means.PLAIN and other.means is not Means.KEPT
        return self.means is Means.KEPT or plain_one

    def __str__(self) -> str:
        return str(self.number)


def batch(rows: int) -> Size:
    """The number of rows of a batch."""
    return Size(rows, Means.BATCH)


Shape = tuple[Size, ...]


class Kind(Enum):
    """How an operation goes about its operands."""

    SOURCE = auto()  # it has none: it is given, or a number
    EACH = auto()  # element by element
    ROW = auto()  # every row of a batch comes to one number
    ALL = auto()  # all rows of a batch, or all numbers, come to one
    VIEW = auto()  # the same memory, looked at otherwise
    OTHER = auto()


class Call(NamedTuple):
    """A function of NumPy's.

    Attributes
    ----------
    name : of a ufunc, whose ``reduce`` it is for a reduction
    in_place : the operands, by number, whose memory the result may take
    named : whether ``out`` is given by name
    """

    name: str
    in_place: frozenset[int] = frozenset()
    named: bool = False


@dataclass(frozen=True, eq=False)
class _Row:
    kind: Kind
    # the shape, by those of the operands and what more there is to say; none: it is told
    shape: Callable[..., Shape] | None = None
    dtype: str | None = None  # of the result; none: that of the operand that is read last, or of the array
    # how targets say it: a call of NumPy's; Python, compiled or not; CUDA. {0}, {1}, ... are operands. A reduction
    # goes on from {0} with {1}, and starts with ``start``
    numpy: Call | None = None
    python: str | None = None
    cuda: str | None = None
    start: str | None = None


def _broadcast(*shapes: Shape, more: Any = None) -> Shape:
    found: Shape = ()
    for shape in shapes:
        short, long = sorted((found, shape), key=len)
        ahead = len(long) - len(short)
        found = long[:ahead] + tuple(map(_common, short, long[ahead:]))
    if any(n.means is Means.BATCH for n in found[1:]):
        raise Untraceable("rows along columns")
    return found


def _common(m: Size, n: Size) -> Size:
    if m.stretches(n):
        return n
    if n.stretches(m) or m == n:
        return m
    raise Untraceable(f"sizes {m} and {n} side by side")


def _a_row(x: Shape, more: bool) -> Shape:
    """``more``: whether the axis is kept."""
    return (x[0], Size(1, Means.KEPT)) if more else x[:1]


def _all(x: Shape, more: bool) -> Shape:
    """``more``: whether it is along the rows of a batch."""
    if not more:
        return ()
    return tuple(Size(1) if n.means is Means.KEPT else n for n in x[1:])


def _product(a: Shape, b: Shape, more: tuple[bool, bool]) -> Shape:
    """``more``: which are transposed."""
    if any(len(x) != 2 or x[1].means is Means.KEPT for x in (a, b)):
        raise Untraceable("a product of what don't fit as matrices")
    (m, k), (other, n) = (x[::-1] if transposed else x for x, transposed in zip((a, b), more, strict=True))
    if k.number != other.number:
        raise Untraceable("a product of what don't fit as matrices")
    return m, n


def _joined(*parts: Shape, more: None) -> Shape:
    return (Size(sum(part[0].number for part in parts)),)


def _each(call: str, text: str, cuda: str | None = None, operands: int = 2, **more: Any) -> _Row:
    # NumPy reads every element of the operands before it writes that of the result
    function = Call(call, frozenset(range(operands)), more.pop("named", False))
    return _Row(Kind.EACH, _broadcast, numpy=function, python=text, cuda=cuda or text, **more)


def _comparison(call: str, sign: str) -> _Row:
    return _each(call, f"({{0}} {sign} {{1}})", dtype="bool")


def _function(name: str, call: str | None = None, cuda: str | None = None) -> _Row:
    return _each(call or name, f"{name}({{0}})", f"{cuda or name}({{0}})", operands=1)


def _reduction(kind: Kind, call: str, start: str, text: str, dtype: str | None = None) -> _Row:
    shape = _a_row if kind is Kind.ROW else _all
    return _Row(kind, shape, dtype, Call(call), text, start=start)


def _sum(kind: Kind) -> _Row:
    return _reduction(kind, "add", "T(0)", "{0} + {1}")


def _max(kind: Kind) -> _Row:
    # NaN comes through
    return _reduction(kind, "maximum", "T(-inf)", "{1} if {1} > {0} or {1} != {1} else {0}")


class Op(Enum):
    """The operations."""

    INPUT = _Row(Kind.SOURCE)
    NUMBER = _Row(Kind.SOURCE)  # noqa: PIE796 -- a row equals itself alone

    ADD = _each("add", "({0} + {1})")
    SUBTRACT = _each("subtract", "({0} - {1})")
    MULTIPLY = _each("multiply", "({0} * {1})")
    DIVIDE = _each("divide", "({0} / {1})")
    POWER = _each("power", "({0} ** {1})", "pow({0}, {1})")
    LESS = _comparison("less", "<")
    LESS_EQUAL = _comparison("less_equal", "<=")
    GREATER = _comparison("greater", ">")
    GREATER_EQUAL = _comparison("greater_equal", ">=")
    EQUAL = _comparison("equal", "==")
    NOT_EQUAL = _comparison("not_equal", "!=")

    # with a number, which isn't NaN; NumPy wants ``out`` by name here
    AT_LEAST = _each("maximum", "({1} if {0} < {1} else {0})", "({0} < {1} ? {1} : {0})", named=True)
    AT_MOST = _each("minimum", "({1} if {0} > {1} else {0})", "({0} > {1} ? {1} : {0})", named=True)
    MAXIMUM = _each(
        "maximum",
        "({0} if {0} >= {1} or {0} != {0} else {1})",
        "({0} >= {1} || {0} != {0} ? {0} : {1})",
        named=True,
    )
    MINIMUM = _each(
        "minimum",
        "({0} if {0} <= {1} or {0} != {0} else {1})",
        "({0} <= {1} || {0} != {0} ? {0} : {1})",
        named=True,
    )
    WHERE = _Row(
        Kind.EACH,
        _broadcast,
        # two copies: all of the third operand, then what the first selects of the second
        numpy=Call("copyto", frozenset({2})),
        python="({1} if {0} else {2})",
        cuda="({0} ? {1} : {2})",
    )
    # with an axis of 1 more or less
    COPY = _Row(Kind.EACH, numpy=Call("copyto", frozenset({0})), python="{0}", cuda="{0}")
    CAST = _each("copyto", "T({0})", "({0})", operands=1)

    ABS = _function("abs", "absolute", "fabs")
    COS = _function("cos")
    COSH = _function("cosh")
    EXP = _function("exp")
    EXPM1 = _function("expm1")
    FLOOR = _function("floor")
    LOG = _function("log")
    LOG1P = _function("log1p")
    SIN = _function("sin")
    SINH = _function("sinh")
    SQRT = _function("sqrt")
    TAN = _function("tan")
    TANH = _function("tanh")

    ROW_SUM = _sum(Kind.ROW)
    ROW_MAX = _max(Kind.ROW)
    ROW_MIN = _reduction(Kind.ROW, "minimum", "T(inf)", "{1} if {1} < {0} or {1} != {1} else {0}")
    ROW_ALL = _reduction(Kind.ROW, "logical_and", "True", "{0} & {1}")
    ROW_ARGMAX = _Row(Kind.ROW, _a_row, "int64")
    SUM = _sum(Kind.ALL)
    MAX = _max(Kind.ALL)

    SLICE = _Row(Kind.VIEW, lambda x, more: (Size(more[1] - more[0]),))  # more: start and stop
    RESHAPE = _Row(Kind.VIEW)
    TRANSPOSE = _Row(Kind.OTHER, lambda x, more: x[::-1])
    COLUMN = _Row(Kind.OTHER, lambda x, more: x[:1])  # more: its number
    CONCAT = _Row(Kind.OTHER, _joined)
    TAKE = _Row(Kind.OTHER, lambda x, rows, more: rows + x[1:])
    MATMUL = _Row(Kind.OTHER, _product)

    def __init__(self, row: _Row) -> None:
        self.kind, self.shape, self.dtype = row.kind, row.shape, row.dtype
        self.numpy, self.python, self.cuda, self.start = row.numpy, row.python, row.cuda, row.start

    def __str__(self) -> str:
        return self.name.lower()


FUNCTIONS = {  # of Python's math, and the built-in abs, by name
    str(op): op
    for op in (
        *(Op.ABS, Op.COS, Op.COSH, Op.EXP, Op.EXPM1, Op.FLOOR, Op.LOG, Op.LOG1P),
        *(Op.SIN, Op.SINH, Op.SQRT, Op.TAN, Op.TANH),
    )
}
