"""An array library whose arrays are promises: a formula run on them, once, is written down instead of done.

It offers the part of the Array API standard that a training step needs, so that the generic engine runs on it as on
any other library. The writers of ``gpubp.recording`` turn what was written down into loops or calls of NumPy's
functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.tracing.operations import FUNCTIONS, Kind, Means, Op, Shape, Size, Untraceable

__all__ = ["Graph", "Promise", "xp"]


class Graph:
    """What was promised, in order, each expression once."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.known: dict[tuple[Any, ...], Promise] = {}

    def input(self, name: str, shape: Sequence[int | Size], dtype: Any = None) -> Promise:
        """An array that will be given."""
        sizes = tuple(n if isinstance(n, Size) else Size(n) for n in shape)
        return self.promise(Op.INPUT, (), name, sizes, dtype or self.dtype)

    def number(self, value: float, sizes: Shape = ()) -> Promise:
        """A number, or an array of nothing else."""
        return self.promise(Op.NUMBER, (), repr(float(value)), sizes, self.dtype)

    def promise(
        self,
        op: Op,
        args: Sequence[Promise],
        more: Any = None,
        sizes: Shape | None = None,
        dtype: Any = None,
    ) -> Promise:
        """The promise of that operation, the earlier one where it was asked for before."""
        if sizes is None:
            assert op.shape is not None
            sizes = op.shape(*(arg.sizes for arg in args), more=more)
        key = (op, tuple(id(a) for a in args), sizes, more)
        if key not in self.known:
            dtype = dtype or op.dtype or args[-1 if op.kind is Kind.EACH else 0].dtype
            self.known[key] = Promise(self, len(self.known), op, tuple(args), sizes, np.dtype(dtype), more)
        return self.known[key]


class Promise:
    """An array to be computed.

    Attributes
    ----------
    shape, sizes : its sizes as formulas see them, and what they mean
    more : what there is to say beside the operands: the name of an input, a number as text, the bounds of a slice, ...
    """

    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(
        self,
        graph: Graph,
        index: int,
        op: Op,
        args: tuple[Promise, ...],
        sizes: Shape,
        dtype: np.dtype[Any],
        more: Any,
    ) -> None:
        self.graph, self.index, self.op, self.args = graph, index, op, args
        self.sizes, self.dtype, self.more = sizes, dtype, more
        self.shape = tuple(n.number for n in sizes)

    def __array_namespace__(self, api_version: str | None = None) -> _Namespace:
        return xp

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def mT(self) -> Promise:
        if self.ndim != 2:
            raise Untraceable("a transpose of what is no matrix")
        return self.graph.promise(Op.TRANSPOSE, (self,))

    def __getitem__(self, key: Any) -> Promise:
        if key is None and self.ndim == 0:
            return self._copied(Size(1))
        if key == (slice(None), None) and self.rows_only:
            return self._copied(self.sizes[0], Size(1, Means.KEPT))
        if isinstance(key, tuple) and len(key) == 2 and key[0] == slice(None) and isinstance(key[1], int):
            return self.graph.promise(Op.COLUMN, (self,), key[1])
        if isinstance(key, slice) and self.ndim == 1 and not self.rows_only:
            start, stop, step = key.indices(self.shape[0])
            if step == 1:
                return self.graph.promise(Op.SLICE, (self,), (start, stop))
        raise Untraceable(f"the index {key!r}")

    def _copied(self, *sizes: Size) -> Promise:
        return self.graph.promise(Op.COPY, (self,), sizes=sizes)

    @property
    def of_batch(self) -> bool:
        """Whether its rows are those of a batch."""
        return bool(self.sizes) and self.sizes[0].means is Means.BATCH

    @property
    def rows_only(self) -> bool:
        """One number for each row of a batch: (B,), or (B, 1) where a reduction left the 1."""
        return self.of_batch and all(n.means is Means.KEPT for n in self.sizes[1:])

    def __matmul__(self, other: Promise) -> Promise:
        (a, a_transposed), (b, b_transposed) = _factor(self), _factor(other)
        return self.graph.promise(Op.MATMUL, (a, b), (a_transposed, b_transposed))

    def __add__(self, other: Any) -> Promise:
        return _each(Op.ADD, self, other)

    def __radd__(self, other: Any) -> Promise:
        return _each(Op.ADD, other, self)

    def __mul__(self, other: Any) -> Promise:
        return _each(Op.MULTIPLY, self, other)

    def __rmul__(self, other: Any) -> Promise:
        return _each(Op.MULTIPLY, other, self)

    def __sub__(self, other: Any) -> Promise:
        return _each(Op.SUBTRACT, self, other)

    def __rsub__(self, other: Any) -> Promise:
        return _each(Op.SUBTRACT, other, self)

    def __truediv__(self, other: Any) -> Promise:
        return _each(Op.DIVIDE, self, other)

    def __rtruediv__(self, other: Any) -> Promise:
        return _each(Op.DIVIDE, other, self)

    def __pow__(self, power: Any) -> Promise:
        return self * self if isinstance(power, int | float) and power == 2 else _each(Op.POWER, self, power)

    def __rpow__(self, base: Any) -> Promise:
        return _each(Op.POWER, base, self)

    def __neg__(self) -> Promise:
        # not NumPy's negative, which is wrong where operand and result both have gaps (seen in 2.4.6)
        return self * -1.0

    def __lt__(self, other: Any) -> Promise:
        return _each(Op.LESS, self, other)

    def __le__(self, other: Any) -> Promise:
        return _each(Op.LESS_EQUAL, self, other)

    def __gt__(self, other: Any) -> Promise:
        return _each(Op.GREATER, self, other)

    def __ge__(self, other: Any) -> Promise:
        return _each(Op.GREATER_EQUAL, self, other)

    def __eq__(self, other: object) -> Promise:  # type: ignore[override]
        return _each(Op.EQUAL, self, other)

    def __ne__(self, other: object) -> Promise:  # type: ignore[override]
        return _each(Op.NOT_EQUAL, self, other)

    def __bool__(self) -> bool:
        raise Untraceable("a branch on a value")

    __float__ = __int__ = __index__ = __len__ = __iter__ = __bool__


def _factor(x: Promise) -> tuple[Promise, bool]:
    """A factor of a product, and whether it is transposed there."""
    return (x.args[0], True) if x.op is Op.TRANSPOSE else (x, False)


def _each(op: Op, *values: Any) -> Promise:
    graph = next(value.graph for value in values if isinstance(value, Promise))
    args = [_promised(graph, value) for value in values]
    if any(arg.op is Op.TRANSPOSE for arg in args):
        raise Untraceable("rows along columns")
    return graph.promise(op, args)


def _promised(graph: Graph, value: Any) -> Promise:
    if isinstance(value, Promise):
        return value
    if isinstance(value, bool | int | float):
        return graph.number(value)
    raise Untraceable(f"a {type(value).__name__} in a formula")


class _Namespace:
    """The functions of the standard that can be written down."""

    __name__ = "gpubp.tracing.tracer"
    float32, float64, complex128 = np.float32, np.float64, np.complex128

    def isdtype(self, dtype: Any, kind: str) -> bool:
        return bool(np.isdtype(np.dtype(dtype), kind))

    def __getattr__(self, name: str) -> Any:
        if name in FUNCTIONS:
            return lambda x: _each(FUNCTIONS[name], x)
        raise AttributeError(f"{name} can't be written down")

    def where(self, condition: Promise, a: Any, b: Any) -> Promise:
        if not isinstance(b, Promise) and isinstance(a, Promise):
            b = _promised(a.graph, b)  # its dtype is the result's
        return _each(Op.WHERE, condition, a, b)

    def maximum(self, a: Any, b: Any) -> Promise:
        # NaN comes through, as in the standard
        return _each(Op.MAXIMUM if isinstance(b, Promise) else Op.AT_LEAST, a, b)

    def minimum(self, a: Any, b: Any) -> Promise:
        return _each(Op.MINIMUM if isinstance(b, Promise) else Op.AT_MOST, a, b)

    def sign(self, a: Promise) -> Promise:
        return self.where(a > 0.0, 1.0, self.where(a < 0.0, -1.0, a))

    def astype(self, a: Promise, dtype: Any) -> Promise:
        if np.dtype(dtype) != a.graph.dtype:
            raise Untraceable(f"dtype {dtype}")
        return a if a.dtype == dtype else a.graph.promise(Op.CAST, (a,), dtype=dtype)

    def ones_like(self, a: Promise) -> Promise:
        return a.graph.number(1.0, a.sizes)

    def take(self, x: Promise, rows: Promise, axis: int = 0) -> Promise:
        if x.of_batch:
            raise Untraceable("rows of a batch that other threads may be writing")
        return x.graph.promise(Op.TAKE, (x, rows))

    def concat(self, parts: Sequence[Promise]) -> Promise:
        return parts[0].graph.promise(Op.CONCAT, tuple(parts))

    def reshape(self, x: Promise, shape: Sequence[int]) -> Promise:
        flat, matrix = len(shape) == 1, x.ndim == 1 and len(shape) == 2
        if not matrix and not (x.op is Op.MATMUL and tuple(shape) == (-1,)) and not (x.ndim == 1 and flat):
            raise Untraceable(f"the shape {shape} for {x.shape}")
        if x.ndim == 1 and flat:
            return x
        sizes = [Size(math.prod(x.shape))] if flat else map(Size, shape)
        return x.graph.promise(Op.RESHAPE, (x,), sizes=tuple(sizes))

    def sum(self, x: Promise, axis: int | None = None, keepdims: bool = False, dtype: Any = None) -> Promise:
        return _reduced(Op.ROW_SUM, Op.SUM, x, axis, keepdims)

    def max(self, x: Promise, axis: int | None = None, keepdims: bool = False) -> Promise:
        return _reduced(Op.ROW_MAX, Op.MAX, x, axis, keepdims)

    def min(self, x: Promise, axis: int | None = None, keepdims: bool = False) -> Promise:
        return _reduced(Op.ROW_MIN, None, x, axis, keepdims)

    def all(self, x: Promise, axis: int | None = None) -> Promise:
        return _reduced(Op.ROW_ALL, None, x, axis)

    def argmax(self, x: Promise, axis: int | None = None) -> Promise:
        return _reduced(Op.ROW_ARGMAX, None, x, axis)


def _reduced(of_rows: Op, of_all: Op | None, x: Promise, axis: int | None, keepdims: bool = False) -> Promise:
    matrix = x.of_batch and x.ndim == 2
    if axis == 1 and matrix:
        if x.rows_only and of_rows is not Op.ROW_ARGMAX:
            return x if keepdims else x._copied(x.sizes[0])
        return x.graph.promise(of_rows, (x,), keepdims)
    columns = axis == 0 and matrix
    if keepdims or of_all is None or (axis == 0 and of_all is not Op.SUM):
        raise Untraceable(f"{of_all or of_rows} along axis {axis}")
    if not columns and axis is not None and x.ndim != 1:
        raise Untraceable(f"{of_all} along axis {axis}")
    return x.graph.promise(of_all, (x,), columns)


xp = _Namespace()
