"""Exact arithmetic in which formulas can be computed: integers modulo a prime, and arrays of them.

There is no rounding, so sums may be in any order and two ways to compute a number must agree to the last digit; and two
numbers that should differ practically never coincide.
"""

from __future__ import annotations

import functools
import math
import operator
import random
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from gpubp._typing import Array
from gpubp.tracing.operations import FUNCTIONS

__all__ = [
    "Field",
    "ReadBeforeWritten",
    "Unwritten",
    "Values",
    "field",
    "functions",
    "maximum",
    "minimum",
    "unwritten",
    "xp",
]

PRIME = 2**61 - 1


class ReadBeforeWritten(Exception):
    """An element was used that nobody had written."""


class Unwritten:
    """What is in an element that nobody wrote: whatever is done with it raises."""

    def __init__(self, name: str, number: int = 0, shape: tuple[int, ...] = ()) -> None:
        self.name, self.number, self.shape = name, number, shape

    def used(self, *_: Any) -> Any:
        raise ReadBeforeWritten(f"{self} was read before it was written")

    def __repr__(self) -> str:
        place = ", ".join(map(str, np.unravel_index(self.number, self.shape)))
        return f"{self.name}[{place}]" if place else self.name

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = used
    __pow__ = __rpow__ = __neg__ = __abs__ = __lt__ = __le__ = __gt__ = __ge__ = used
    __eq__ = __ne__ = __bool__ = __index__ = __float__ = __int__ = used
    __hash__ = object.__hash__


class Field:
    """An integer modulo a prime; or infinity, or NaN, which do as floats do.

    + - * / are those of the field, with x / 0 = 0. Functions, and powers that aren't small integers, are not known but
    for giving the same result for the same operands. Order is that of -p/2 .. p/2, so that of random numbers about half
    are above 0.
    """

    __slots__ = ("n",)

    def __init__(self, n: int | float) -> None:
        self.n = n

    @property
    def order(self) -> int | float:
        return self.n - PRIME if type(self.n) is int and self.n > PRIME // 2 else self.n

    def __repr__(self) -> str:
        return str(self.order)

    def __hash__(self) -> int:
        return hash(self.n)

    def __neg__(self) -> Field:
        return made(-self.n)

    def __abs__(self) -> Field:
        return function("abs", self)

    def __bool__(self) -> bool:
        raise TypeError("a number in place of a condition")


def made(n: int | float) -> Field:
    return Field(n % PRIME) if type(n) is int else Field(n) if n else Field(0)


def _quotient(a: int | float, b: int | float) -> int | float:
    if type(a) is int and type(b) is int:
        return a * pow(b, -1, PRIME) if b else 0
    return a / b if b else 0.0 * a


def _power(a: int | float, b: int | float) -> int | float:
    if type(a) is int and type(b) is int and b < 64:
        return pow(a, b, PRIME)
    return math.nan if a != a or b != b else hash((a, b)) % PRIME


def _operation(act: Callable[[Any, Any], int | float], turned: bool = False) -> Callable[[Field, Any], Field]:
    def method(self: Field, other: Any) -> Field:
        if type(other) is not Field:
            other = field(other)
        return made(act(other.n, self.n) if turned else act(self.n, other.n))

    return method


def _comparison(act: Callable[[Any, Any], bool]) -> Callable[[Field, Any], bool]:
    def method(self: Field, other: Any) -> bool:
        if type(other) is not Field:
            other = field(other)
        return act(self.order, other.order)

    return method


_OPERATIONS = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": _quotient,
    "pow": _power,
}
for _name, _act in _OPERATIONS.items():
    setattr(Field, f"__{_name}__", _operation(_act))
    setattr(Field, f"__r{_name}__", _operation(_act, turned=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Field, f"__{_name}__", _comparison(getattr(operator, _name)))


def field(x: Any) -> Field:
    """A number as an element of the field: 0.5 is what gives 1 when it is doubled."""
    if type(x) is Field:
        return x
    if isinstance(x, Unwritten):
        x.used()
    return _of_number(float(x) if isinstance(x, float | np.floating) else int(x))


@functools.lru_cache(maxsize=4096)
def _of_number(x: int | float) -> Field:
    if not math.isfinite(x):
        return Field(x)
    ratio = Fraction(x)
    return Field(ratio.numerator * pow(ratio.denominator, -1, PRIME) % PRIME)


def function(name: str, x: Any) -> Field:
    """A function of which no more is known than that it is one."""
    n = field(x).n
    return Field(n) if n != n else Field(hash((zlib.crc32(name.encode()), n)) % PRIME)


functions: dict[str, Callable[[Any], Field]] = {name: functools.partial(function, name) for name in FUNCTIONS}


def maximum(a: Any, b: Any) -> Field:
    """The larger one; NaN where one is NaN."""
    first, second = field(a), field(b)
    return first if first != first or first >= second else second  # type: ignore[operator]


def minimum(a: Any, b: Any) -> Field:
    """The smaller one; NaN where one is NaN."""
    first, second = field(a), field(b)
    return first if first != first or first <= second else second  # type: ignore[operator]


def drawn(rng: random.Random, shape: tuple[int, ...], zeros: float = 0.0) -> Array:
    """Random elements of the field, none of them 0 but for that share."""
    size = math.prod(shape)
    numbers = [Field(0 if zeros and rng.random() < zeros else rng.randrange(1, PRIME)) for _ in range(size)]
    found = np.empty(size, object)
    found[:] = numbers
    return found.reshape(shape)


def unwritten(name: str, array: Array) -> Array:
    """The array, whose elements nobody has written."""
    each = np.empty(array.size, object)
    each[:] = [Unwritten(name, number, array.shape) for number in range(array.size)]
    array[...] = each.reshape(array.shape)
    return array


def dot(a: Array, b: Array) -> Array:
    """The product of matrices or vectors of the field."""
    if a.ndim == 1:
        return dot(a[None, :], b)[0]
    found = np.empty((a.shape[0], *b.shape[1:]), object)
    columns = [_integers(column) for column in (b.T if b.ndim == 2 else b[None, :])]
    for i, row in enumerate(map(_integers, a)):
        sums = [_sum_of_products(row, column) for column in columns]
        found[i] = sums if b.ndim == 2 else sums[0]
    return found


def _integers(vector: Array) -> list[int | float]:
    return [field(x).n for x in vector]


def _sum_of_products(a: Sequence[int | float], b: Sequence[int | float]) -> Field:
    return made(sum(map(operator.mul, a, b)))


_each = {name: np.frompyfunc(act, 2, 1) for name, act in (("max", maximum), ("min", minimum))}


class Values:
    """An array of the Array API standard, of field elements, integers or truth values."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any, dtype: Any) -> None:
        self.array, self.dtype = np.asarray(array, object), np.dtype(dtype)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return xp

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def mT(self) -> Values:
        return Values(self.array.mT, self.dtype)

    def __getitem__(self, key: Any) -> Values:
        return Values(self.array[key], self.dtype)

    def __matmul__(self, other: Values) -> Values:
        return Values(dot(self.array, other.array), self.dtype)

    def __neg__(self) -> Values:
        return Values(-self.array, self.dtype)

    def __pow__(self, other: Any) -> Values:
        return (
            self._with("mul", self)
            if isinstance(other, int | float) and other == 2
            else self._with("pow", other)
        )

    def __rpow__(self, other: Any) -> Values:
        return Values(other, self.dtype)._with("pow", self)

    def _with(self, name: str, other: Any) -> Values:
        comparison = name in ("lt", "le", "gt", "ge", "eq", "ne")
        found = getattr(operator, name)(_fielded(self), _fielded(other))
        return Values(found, bool if comparison else self.dtype)


def _fielded(x: Any) -> Array:
    """Field elements, also of whole numbers and of truth values."""
    x = x.array if isinstance(x, Values) else np.asarray(x, object)
    return np.asarray(np.frompyfunc(field, 1, 1)(x), object)


def _method(name: str, turned: bool = False) -> Callable[[Values, Any], Values]:
    def method(self: Values, other: Any) -> Values:
        return Values(other, self.dtype)._with(name, self) if turned else self._with(name, other)

    return method


for _name in ("add", "sub", "mul", "truediv"):
    setattr(Values, f"__{_name}__", _method(_name))
    setattr(Values, f"__r{_name}__", _method(_name, turned=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Values, f"__{_name}__", _method(_name))


class _Namespace:
    """The functions of the standard, by what they mean.

    ``unclear``: since it was set to False, the largest of a row was asked for where one is NaN.
    """

    __name__ = "exact"
    float32, float64, complex128 = np.float32, np.float64, np.complex128
    unclear = False

    def isdtype(self, dtype: Any, kind: str) -> bool:
        return bool(np.isdtype(np.dtype(dtype), kind))

    def __getattr__(self, name: str) -> Any:
        if name in FUNCTIONS:
            return lambda x: Values(np.frompyfunc(functions[name], 1, 1)(x.array), x.dtype)
        raise AttributeError(name)

    def where(self, condition: Values, a: Any, b: Any) -> Values:
        dtype = next((x.dtype for x in (b, a) if isinstance(x, Values)), np.float64)
        return Values(np.where(condition.array.astype(bool), _fielded(a), _fielded(b)), dtype)

    def maximum(self, a: Any, b: Any) -> Values:
        return Values(_each["max"](_fielded(a), _fielded(b)), (a if isinstance(a, Values) else b).dtype)

    def minimum(self, a: Any, b: Any) -> Values:
        return Values(_each["min"](_fielded(a), _fielded(b)), (a if isinstance(a, Values) else b).dtype)

    def sign(self, a: Values) -> Values:
        return Values(
            np.frompyfunc(lambda x: field((x > 0) - (x < 0)) if x == x else x, 1, 1)(a.array), a.dtype
        )

    def astype(self, a: Values, dtype: Any) -> Values:
        return Values(_fielded(a), dtype)

    def ones_like(self, a: Values) -> Values:
        return Values(np.broadcast_to(np.asarray(field(1), object), a.shape), a.dtype)

    def take(self, x: Values, rows: Values, axis: int = 0) -> Values:
        return Values(x.array[rows.array.astype(int)], x.dtype)

    def concat(self, parts: Sequence[Values], axis: int = 0) -> Values:
        return Values(np.concatenate([part.array for part in parts], axis=axis), parts[0].dtype)

    def reshape(self, x: Values, shape: tuple[int, ...]) -> Values:
        return Values(x.array.reshape(shape), x.dtype)

    def sum(self, x: Values, axis: int | None = None, keepdims: bool = False, dtype: Any = None) -> Values:
        return Values(np.sum(_fielded(x), axis=axis, keepdims=keepdims), x.dtype)

    def max(self, x: Values, axis: int | None = None, keepdims: bool = False) -> Values:
        return self._extreme("max", x, axis, keepdims)

    def min(self, x: Values, axis: int | None = None, keepdims: bool = False) -> Values:
        return self._extreme("min", x, axis, keepdims)

    def _extreme(self, name: str, x: Values, axis: int | None, keepdims: bool) -> Values:
        array = x.array.reshape(-1) if axis is None else x.array
        return Values(_each[name].reduce(array, axis=axis or 0, keepdims=keepdims), x.dtype)

    def all(self, x: Values, axis: int | None = None) -> Values:
        return Values(np.all(x.array.astype(bool), axis=axis), bool)

    def argmax(self, x: Values, axis: int | None = None) -> Values:
        assert axis == 1
        rows = [list(row) for row in x.array]
        self.unclear |= any(value != value for row in rows for value in row)
        return Values([max(range(len(row)), key=lambda k: (row[k].order, -k)) for row in rows], np.int64)


xp = _Namespace()
