"""What the text of a compiled step calls, so that several threads can run it at once: each some parts of every array.

Part 0, 1, ... of so many parts has its own rows of a batch, elements of a vector, or columns of a product, the same
ones every time, so that a thread waits for others (``meet``) only where a part reads what another one wrote. How many
parts there are depends on shapes alone, and so do the results; which thread does which part changes nothing.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from llvmlite.binding import add_symbol
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic
from scipy.linalg import cython_blas

__all__ = ["combine", "is_wide", "meet", "mine", "product", "product_of_rows"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# as SciPy declares it: two letters; m, n, k; alpha, then a, b, each with its width; beta, out, its width
_GEMM = f"void ({'char *, ' * 2}{'int *, ' * 3}number *, {'number *, int *, ' * 2}number *, number *, int *)"
_UNIT = 4  # a share is a multiple of it, but for the last: BLAS takes rows by fours at least
_SPINS = 4096  # some microseconds; who waits longer gives up the core, as others may need it


def _compiled(function: _Function) -> _Function:
    return cast(_Function, numba.njit(error_model="numpy")(function))


def _inlined(function: _Function) -> _Function:
    # where handing arrays over would cost as much as the work on them
    return cast(_Function, numba.njit(error_model="numpy", forceinline=True)(function))


def _blas(name: str) -> int:
    """The address of SciPy's ``sgemm`` or ``dgemm``, of the BLAS that numba's own products are of."""
    # by a new object, as others may use ctypes' own with other types
    told = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    try:
        signature = told(cython_blas.__pyx_capi__[name]).decode()
        address: int = get_cython_function_address("scipy.linalg.cython_blas", name)
    except (AttributeError, KeyError, ValueError) as error:
        raise ImportError(f"SciPy must have the BLAS function {name}: {error}") from error
    if re.sub(r"\b(float|double|__pyx_t_\w+_[sd]) \*", "number *", signature) != _GEMM:
        raise ImportError(f"SciPy's {name} must be {_GEMM}, got {signature}: install another SciPy")
    return address


# by its address, as a name that the linker didn't find would end the process
_windows = sys.platform == "win32"
_yield = getattr(
    ctypes.CDLL("kernel32" if _windows else None), "SwitchToThread" if _windows else "sched_yield"
)
add_symbol("gpubp_give_way", ctypes.cast(_yield, ctypes.c_void_p).value)
for _name in ("sgemm", "dgemm"):
    add_symbol(f"gpubp_{_name}", _blas(_name))
_give_way = types.ExternalFunction("gpubp_give_way", types.intc())


@intrinsic  # type: ignore[untyped-decorator]
def _arrive(typing_context: Any, meeting: Any) -> Any:
    """Add 1 to the first number, for all threads to see, and all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(meeting), generate


@intrinsic  # type: ignore[untyped-decorator]
def _arrived(typing_context: Any, meeting: Any) -> Any:
    """The first number, as it is now."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(meeting), generate


@_compiled
def meet(meeting: Any, thread: int, threads: int) -> None:
    """Wait until all threads are here. ``meeting`` (1 + threads, 8), int64: arrivals, then each thread's count of those
    due; 8, as what several threads write shouldn't share a cache line."""
    if threads > 1:
        due = meeting[1 + thread, 0] + threads
        meeting[1 + thread, 0] = due
        _arrive(meeting)
        spins = 0
        while _arrived(meeting) < due:
            spins += 1
            if spins > _SPINS:
                _give_way()


@_compiled
def _start(size: int, part: int, parts: int) -> int:
    return size // _UNIT * part // parts * _UNIT if part < parts else size


@_inlined
def mine(x: Any, part: int, parts: int) -> Any:
    """The part's rows, or elements."""
    return x[_start(x.shape[0], part, parts) : _start(x.shape[0], part + 1, parts)]


@_inlined
def combine(total: Any, sums: Any, part: int, parts: int) -> None:
    """total (n,) is the sum of every part's (parts, n or more), always in the same order."""
    for k in range(_start(total.shape[0], part, parts), _start(total.shape[0], part + 1, parts)):
        value = sums[0, k]
        for other in range(1, parts):
            value += sums[other, k]
        total[k] = value


@intrinsic  # type: ignore[untyped-decorator]
def _gemm(
    typing_context: Any,
    a: Any,
    a_start: Any,
    a_turned: Any,
    b: Any,
    b_start: Any,
    b_turned: Any,
    out: Any,
    out_start: Any,
    m: Any,
    n: Any,
    k: Any,
) -> Any:
    """BLAS's product (m, k) (k, n) of contiguous arrays, each from an element of its own on; numba's dot takes no parts
    of rows."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        char, whole, number = ir.IntType(8), ir.IntType(32), context.get_value_type(out.dtype)
        pointer = char.as_pointer()

        def from_element(which: int) -> tuple[Any, Any]:
            array = context.make_array(signature.args[which])(context, builder, args[which])
            start = builder.gep(array.data, [args[which + 1]])
            return builder.bitcast(start, pointer), size(cgutils.unpack_tuple(builder, array.shape)[1])

        def at(value: Any) -> Any:
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        def size(value: Any) -> Any:
            return at(builder.trunc(value, whole))  # Compiled refuses larger ones

        def turned(flag: Any) -> Any:
            return at(builder.select(flag, ir.Constant(char, ord("t")), ir.Constant(char, ord("n"))))

        one, zero = at(ir.Constant(number, 1.0)), at(ir.Constant(number, 0.0))
        (a_data, a_width), (b_data, b_width), (out_data, out_width) = map(from_element, (0, 3, 6))
        # the factors change places, as BLAS goes by columns
        values = [turned(args[5]), turned(args[2]), size(args[9]), size(args[8]), size(args[10]), one]
        values += [b_data, b_width, a_data, a_width, zero, out_data, out_width]
        name = "gpubp_sgemm" if out.dtype == types.float32 else "gpubp_dgemm"
        as_it_is = ir.FunctionType(ir.VoidType(), [pointer] * len(values))
        builder.call(cgutils.get_or_insert_function(builder.module, as_it_is, name), values)
        return context.get_dummy_value()

    numbers = types.intp
    return types.none(a, numbers, types.boolean, b, numbers, types.boolean, out, *[numbers] * 4), generate


@_compiled
def product(a: Any, a_turned: bool, b: Any, b_turned: bool, out: Any, part: int, parts: int) -> None:
    """The part's columns of out = a b, or of their transposes."""
    first, end = _start(out.shape[1], part, parts), _start(out.shape[1], part + 1, parts)
    k, b_first = a.shape[0] if a_turned else a.shape[1], first * b.shape[1] if b_turned else first
    if end > first:
        _gemm(a, 0, a_turned, b, b_first, b_turned, out, first, out.shape[0], end - first, k)


@_inlined
def is_wide(out: Any) -> Any:
    """Whether a product's columns are cut rather than its rows: BLAS has less to rearrange where the longer side is."""
    return out.shape[0] < out.shape[1]


@_compiled
def product_of_rows(a: Any, b: Any, b_turned: bool, out: Any, part: int, parts: int) -> None:
    """The part's rows of out = a b, or a b'; its columns where ``is_wide``."""
    if is_wide(out):
        product(a, False, b, b_turned, out, part, parts)
    else:
        n, k = out.shape[1], a.shape[1]
        first, end = _start(out.shape[0], part, parts), _start(out.shape[0], part + 1, parts)
        if end > first:
            _gemm(a, first * k, False, b, 0, b_turned, out, first * n, end - first, n, k)
