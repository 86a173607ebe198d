"""An array library whose arrays are promises: a formula run on them, once, is written down instead of done.

It offers the part of the Array API standard that a training step needs, so that the generic engine runs on it as on
any other library. The writers of ``gpubp.recording`` turn what was written down into loops or calls of NumPy's
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["FUNCTIONS", "Batch", "Graph", "Kept", "Promise", "Untraceable", "xp"]

Shape = tuple[int, ...]


class Untraceable(Exception):
    """A formula does something that can't be written down."""


class Batch(int):
    """The number of rows of a batch: never 1 by broadcasting, whatever its value."""


class Kept(int):
    """The 1 that a reduction over an axis leaves in its place."""


class Graph:
    """What was promised, in order, each expression once."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.known: dict[tuple[Any, ...], Promise] = {}

    def input(self, name: str, shape: Shape, dtype: Any = None) -> Promise:
        """An array that will be given."""
        return self.promise(f"input {name}", (), shape, dtype or self.dtype)

    def promise(
        self, op: str, args: Sequence[Promise], shape: Shape, dtype: Any, more: Any = None
    ) -> Promise:
        """The promise of that operation, the earlier one where it was asked for before."""
        kinds = tuple(type(n).__name__ for n in shape)
        key = (op, tuple(id(a) for a in args), shape, kinds, more)
        if key not in self.known:
            self.known[key] = Promise(self, len(self.known), op, tuple(args), shape, np.dtype(dtype), more)
        return self.known[key]


class Promise:
    """An array to be computed. ``op`` is a template of Python text where it acts element by element."""

    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(
        self,
        graph: Graph,
        index: int,
        op: str,
        args: tuple[Promise, ...],
        shape: Shape,
        dtype: Any,
        more: Any,
    ) -> None:
        self.graph, self.index, self.op, self.args = graph, index, op, args
        self.shape, self.dtype, self.more = shape, dtype, more

    def __array_namespace__(self, api_version: str | None = None) -> _Namespace:
        return xp

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def mT(self) -> Promise:
        if self.ndim != 2:
            raise Untraceable("a transpose of what is no matrix")
        return self.graph.promise("mT", (self,), self.shape[::-1], self.dtype)

    def __getitem__(self, key: Any) -> Promise:
        if key is None and self.ndim == 0:
            return self.graph.promise("{}", (self,), (1,), self.dtype)
        if key == (slice(None), None) and self.rows_only:
            return self.graph.promise("{}", (self,), (self.shape[0], Kept(1)), self.dtype)
        if isinstance(key, tuple) and len(key) == 2 and key[0] == slice(None) and isinstance(key[1], int):
            return self.graph.promise("column", (self,), self.shape[:1], self.dtype, key[1])
        if isinstance(key, slice) and self.ndim == 1 and not self.rows_only:
            start, stop, step = key.indices(self.shape[0])
            if step == 1:
                return self.graph.promise("slice", (self,), (stop - start,), self.dtype, (start, stop))
        raise Untraceable(f"the index {key!r}")

    @property
    def rows_only(self) -> bool:
        """One number for each row of a batch: (B,), or (B, 1) where a reduction left the 1."""
        return (
            bool(self.shape)
            and isinstance(self.shape[0], Batch)
            and self.shape[1:] in ((), (Kept(1),))
            and all(isinstance(n, Kept) for n in self.shape[1:])
        )

    def __matmul__(self, other: Promise) -> Promise:
        (a, a_turned), (b, b_turned) = _turned(self), _turned(other)
        if (
            any(x.ndim != 2 or isinstance(x.shape[1], Kept) for x in (a, b))
            or self.shape[1] != other.shape[0]
        ):
            raise Untraceable("a product of what don't fit as matrices")
        shape = self.shape[0], other.shape[1]
        return self.graph.promise("matmul", (a, b), shape, self.dtype, (a_turned, b_turned))

    def __add__(self, other: Any) -> Promise:
        return _each("({} + {})", self, other)

    def __radd__(self, other: Any) -> Promise:
        return _each("({} + {})", other, self)

    def __mul__(self, other: Any) -> Promise:
        return _each("({} * {})", self, other)

    def __rmul__(self, other: Any) -> Promise:
        return _each("({} * {})", other, self)

    def __sub__(self, other: Any) -> Promise:
        return _each("({} - {})", self, other)

    def __rsub__(self, other: Any) -> Promise:
        return _each("({} - {})", other, self)

    def __truediv__(self, other: Any) -> Promise:
        return _each("({} / {})", self, other)

    def __rtruediv__(self, other: Any) -> Promise:
        return _each("({} / {})", other, self)

    def __pow__(self, power: Any) -> Promise:
        return (
            self * self if isinstance(power, int | float) and power == 2 else _each("({} ** {})", self, power)
        )

    def __rpow__(self, base: Any) -> Promise:
        return _each("({} ** {})", base, self)

    def __neg__(self) -> Promise:
        # not NumPy's negative, which is wrong where operand and result both have gaps (seen in 2.4.6)
        return self * -1.0

    def __lt__(self, other: Any) -> Promise:
        return _each("({} < {})", self, other, dtype=bool)

    def __le__(self, other: Any) -> Promise:
        return _each("({} <= {})", self, other, dtype=bool)

    def __gt__(self, other: Any) -> Promise:
        return _each("({} > {})", self, other, dtype=bool)

    def __ge__(self, other: Any) -> Promise:
        return _each("({} >= {})", self, other, dtype=bool)

    def __eq__(self, other: object) -> Promise:  # type: ignore[override]
        return _each("({} == {})", self, other, dtype=bool)

    def __ne__(self, other: object) -> Promise:  # type: ignore[override]
        return _each("({} != {})", self, other, dtype=bool)

    def __bool__(self) -> bool:
        raise Untraceable("a branch on a value")

    __float__ = __int__ = __index__ = __len__ = __iter__ = __bool__


def _turned(x: Promise) -> tuple[Promise, bool]:
    return (x.args[0], True) if x.op == "mT" else (x, False)


def _each(op: str, *values: Any, dtype: Any = None) -> Promise:
    graph = next(value.graph for value in values if isinstance(value, Promise))
    args = [_promised(graph, value) for value in values]
    shape: Shape = ()
    for arg in args:
        shape = _broadcast(shape, arg.shape)
    if any(isinstance(n, Batch) for n in shape[1:]) or any(arg.op == "mT" for arg in args):
        raise Untraceable("rows along columns")
    return graph.promise(op, args, shape, dtype or args[-1].dtype)


def _promised(graph: Graph, value: Any) -> Promise:
    if isinstance(value, Promise):
        return value
    if isinstance(value, bool | int | float):
        return graph.promise("number", (), (), graph.dtype, repr(float(value)))
    raise Untraceable(f"a {type(value).__name__} in a formula")


def _broadcast(a: Shape, b: Shape) -> Shape:
    short, long = sorted((a, b), key=len)
    tail = long[len(long) - len(short) :]
    return long[: len(long) - len(short)] + tuple(_common(m, n) for m, n in zip(short, tail, strict=True))


def _common(m: int, n: int) -> int:
    if isinstance(m, Kept) or (m == 1 and not isinstance(m, Batch) and not isinstance(n, Kept)):
        return n
    if isinstance(n, Kept) or (n == 1 and not isinstance(n, Batch)):
        return m
    if m != n or isinstance(m, Batch) != isinstance(n, Batch):
        raise Untraceable(f"sizes {m} and {n} side by side")
    return m


class _Namespace:
    """The functions of the standard that can be written down."""

    __name__ = "gpubp.tracing.tracer"
    float32, float64, complex128 = np.float32, np.float64, np.complex128

    def isdtype(self, dtype: Any, kind: str) -> bool:
        return bool(np.isdtype(np.dtype(dtype), kind))

    def __getattr__(self, name: str) -> Any:
        if name in FUNCTIONS:
            return lambda x: _each(f"{name}({{}})", x)
        raise AttributeError(f"{name} can't be written down")

    def where(self, condition: Promise, a: Any, b: Any) -> Promise:
        if not isinstance(b, Promise) and isinstance(a, Promise):
            b = _promised(a.graph, b)  # its dtype is the result's
        return _each("({1} if {0} else {2})", condition, a, b)

    def maximum(self, a: Any, b: Any) -> Promise:
        # NaN comes through, as in the standard
        if not isinstance(b, Promise):
            return _each("({1} if {0} < {1} else {0})", a, b)
        return _each("({0} if {0} >= {1} or {0} != {0} else {1})", a, b)

    def minimum(self, a: Any, b: Any) -> Promise:
        if not isinstance(b, Promise):
            return _each("({1} if {0} > {1} else {0})", a, b)
        return _each("({0} if {0} <= {1} or {0} != {0} else {1})", a, b)

    def sign(self, a: Promise) -> Promise:
        return self.where(a > 0.0, 1.0, self.where(a < 0.0, -1.0, a))

    def astype(self, a: Promise, dtype: Any) -> Promise:
        if np.dtype(dtype) != a.graph.dtype:
            raise Untraceable(f"dtype {dtype}")
        return a if a.dtype == dtype else _each("T({})", a, dtype=dtype)

    def ones_like(self, a: Promise) -> Promise:
        return a.graph.promise("number", (), a.shape, a.graph.dtype, "1.0")

    def take(self, x: Promise, rows: Promise, axis: int = 0) -> Promise:
        if isinstance(x.shape[0], Batch):
            raise Untraceable("rows of a batch that other threads may be writing")
        return x.graph.promise("take", (x, rows), rows.shape + x.shape[1:], x.dtype)

    def concat(self, parts: Sequence[Promise]) -> Promise:
        size = sum(part.shape[0] for part in parts)
        return parts[0].graph.promise("concat", tuple(parts), (size,), parts[0].dtype)

    def reshape(self, x: Promise, shape: Shape) -> Promise:
        flat = x.ndim == 1 and len(shape) == 2
        if not flat and not (x.op == "matmul" and shape == (-1,)) and not (x.ndim == 1 and len(shape) == 1):
            raise Untraceable(f"the shape {shape} for {x.shape}")
        if len(shape) == 1:
            size = int(np.prod(x.shape))
            return x if x.ndim == 1 else x.graph.promise("reshape", (x,), (size,), x.dtype)
        return x.graph.promise("reshape", (x,), tuple(shape), x.dtype)

    def sum(self, x: Promise, axis: int | None = None, keepdims: bool = False, dtype: Any = None) -> Promise:
        return self._reduced("sum", x, axis, keepdims)

    def max(self, x: Promise, axis: int | None = None, keepdims: bool = False) -> Promise:
        return self._reduced("max", x, axis, keepdims)

    def min(self, x: Promise, axis: int | None = None, keepdims: bool = False) -> Promise:
        return self._reduced("min", x, axis, keepdims)

    def all(self, x: Promise, axis: int | None = None) -> Promise:
        return self._reduced("all", x, axis, False)

    def argmax(self, x: Promise, axis: int | None = None) -> Promise:
        return self._reduced("argmax", x, axis, False, np.int64)

    def _reduced(self, op: str, x: Promise, axis: int | None, keepdims: bool, dtype: Any = None) -> Promise:
        rows = bool(x.shape) and isinstance(x.shape[0], Batch)
        if axis == 1 and rows and x.ndim == 2:
            if x.rows_only and op != "argmax":
                return x if keepdims else x.graph.promise("{}", (x,), x.shape[:1], x.dtype)
            shape = (x.shape[0], Kept(1)) if keepdims else x.shape[:1]
            return x.graph.promise(f"rows {op}", (x,), shape, dtype or x.dtype)
        if keepdims or op not in ("sum", "max") or (axis == 0 and op != "sum"):
            raise Untraceable(f"{op} along axis {axis}")
        if axis == 0 and rows and x.ndim == 2:
            return x.graph.promise("sum", (x,), (1,) if x.rows_only else x.shape[1:], x.dtype)
        if axis is None or x.ndim == 1:
            return x.graph.promise(op, (x,), (), x.dtype)
        raise Untraceable(f"{op} along axis {axis}")


FUNCTIONS = frozenset(  # of Python's math, and the built-in abs
    ("abs", "cos", "cosh", "exp", "expm1", "floor", "log", "log1p", "sin", "sinh", "sqrt", "tan", "tanh")
)

xp = _Namespace()
