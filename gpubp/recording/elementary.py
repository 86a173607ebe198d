"""exp, log and their kin in compiled loops, as arithmetic that a compiler can do on many numbers at once.

Calls into the C library are made one number at a time; NumPy's own functions work on many, and so must these. They are
Taylor's series near 0, and elsewhere come back to it by powers of two; all are good to a few roundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

__all__ = ["FLOAT32", "FLOAT64", "Functions"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Functions(NamedTuple):
    """Of one dtype, to be called in compiled code alone."""

    exp: Any
    expm1: Any
    log: Any
    log1p: Any
    tanh: Any


def _compiled(function: _Function) -> _Function:
    # inlined, else a compiler doesn't see that a loop over it can work on many at once
    return cast(_Function, numba.njit(error_model="numpy", inline="always")(function))


def _same_bits(source: Any, target: Any) -> Any:
    def make(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), generate

    return intrinsic(make)


def _made(F: Any, Z: Any, degree: int, terms: int) -> Functions:
    """For floating-point numbers F and integers Z of the same size: with a polynomial of that degree for exp on
    [-ln 2 / 2, ln 2 / 2], and with so many terms for log on [sqrt(1/2), sqrt(2)]."""
    info = np.finfo(F)
    bits = _same_bits(getattr(types, F.__name__), getattr(types, Z.__name__))
    number = _same_bits(getattr(types, Z.__name__), getattr(types, F.__name__))
    digits, half_range = Z(info.nmant), Z(info.maxexp - 2)
    mantissa, one_half = Z((1 << info.nmant) - 1), Z((info.maxexp - 2) << info.nmant)
    # ln 2 in two parts, the first with so few digits that a multiple of it by any exponent is exact
    few = 2.0 ** (info.nmant - 10)
    ln2_high = F(round(math.log(2.0) * few) / few)
    ln2_low = F(_LN2_HIGH - float(ln2_high) + _LN2_REST)
    per_ln2, rounder = F(1.0 / math.log(2.0)), F(1.5 * 2.0**info.nmant)  # adding it rounds to an integer
    largest, smallest = F(math.log(float(info.max))), F((info.minexp + 1) * math.log(2.0))
    zero, half, one, two, inf, nan, root_half = map(F, (0.0, 0.5, 1.0, 2.0, np.inf, np.nan, math.sqrt(0.5)))
    taylor = tuple(F(1.0 / math.factorial(k)) for k in range(degree, 1, -1))
    odd = tuple(F(2.0 / (2 * k + 1)) for k in range(terms, 0, -1))

    @_compiled
    def parts(x: Any) -> Any:
        """e^x - 1 of the rest r, and 2^n / 2, where x = n ln 2 + r."""
        y = x if x < largest else largest
        y = y if y > smallest else smallest
        turned = y * per_ln2 + rounder
        n = turned - rounder
        r = y - n * ln2_high
        r = r - n * ln2_low
        e = taylor[0]
        for c in numba.literal_unroll(taylor[1:]):
            e = e * r + c
        return e * (r * r) + r, number((bits(turned) + half_range) << digits)

    @_compiled
    def exp(x: Any) -> Any:
        e, scale = parts(x)
        y = (e + one) * scale * two
        y = y if x > smallest else zero
        y = y if x <= largest else inf
        return y if x == x else x

    @_compiled
    def expm1(x: Any) -> Any:
        e, scale = parts(x)
        y = (e * scale + (scale - half)) * two
        y = y if x <= largest else inf
        return y if x == x else x

    @_compiled
    def log(x: Any) -> Any:
        whole = bits(x)
        n = F((whole >> digits) - half_range)
        m = number((whole & mantissa) | one_half)
        small = m < root_half
        n = n - one if small else n
        m = m + m if small else m
        f = m - one
        s = f / (two + f)
        z = s * s
        t = odd[0]
        for c in numba.literal_unroll(odd[1:]):
            t = t * z + c
        y = n * ln2_high + (n * ln2_low + (s * (t * z) + two * s))
        y = y if x < inf else x
        y = y if x > zero else -inf
        return y if x >= zero else nan

    @_compiled
    def log1p(x: Any) -> Any:
        u = one + x
        y = log(u) * (x / (u - one))  # Kahan's quotient
        y = y if u < inf else u
        return x if u == one else y

    @_compiled
    def tanh(x: Any) -> Any:
        size = abs(x)
        e = expm1(size + size)
        y = one - two / (e + two)
        near = e / (e + two)
        y = near if size < half else y
        y = y if x > zero else -y
        return y if x == x else x

    return Functions(exp, expm1, log, log1p, tanh)


# ln 2 = _LN2_HIGH + _LN2_REST, the first in 32 binary digits
_LN2_HIGH, _LN2_REST = 0.693147180369123816490, 1.90821492927058770002e-10

FLOAT32 = _made(np.float32, np.int32, degree=7, terms=4)
FLOAT64 = _made(np.float64, np.int64, degree=13, terms=10)
