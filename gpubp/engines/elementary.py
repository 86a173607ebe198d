"""exp, log and their kin for float32 in compiled loops, as arithmetic that a compiler can do on many numbers at once.

Calls into the C library are made one number at a time; NumPy's own functions work on many, and so must these.
Polynomials and the splitting of ln 2 are those of the Cephes library (Moshier 1989), tanh's quotient that of the Eigen
library; all are good to a few roundings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

__all__ = ["exp", "expm1", "log", "log1p", "tanh"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_F = np.float32
_LARGEST, _SMALLEST = _F(88.72283), _F(-86.6)  # beyond it exp is inf; below it less than 2.5e-38, taken as 0
_PER_LN2, _LN2_HIGH, _LN2_LOW = _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_ROUNDER = _F(12582912.0)  # 1.5 2^23: adding it leaves a rounded integer in the last bits
_0, _1, _2, _HALF = _F(0.0), _F(1.0), _F(2.0), _F(0.5)
_INF, _NAN, _ROOT_HALF = _F(np.inf), _F(np.nan), _F(0.70710678)
_E = tuple(
    map(_F, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5))
)
_FLAT = _F(7.90531110763549805)  # beyond it tanh is 1 but for rounding
_T = tuple(
    map(
        _F,
        (
            -2.76076847742355e-16,
            2.00018790482477e-13,
            -8.60467152213735e-11,
            5.12229709037114e-08,
            1.48572235717979e-05,
            6.37261928875436e-04,
            4.89352455891786e-03,
        ),
    )
)
_Q = tuple(map(_F, (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)))
_L = tuple(
    map(
        _F,
        (
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ),
    )
)


def _same_bits(source: Any, target: Any) -> Any:
    def make(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), generate

    return intrinsic(make)


_bits = _same_bits(types.float32, types.int32)
_number = _same_bits(types.int32, types.float32)


def _compiled(function: _Function) -> _Function:
    # inlined, else a compiler doesn't see that a loop over it can work on many at once
    return cast(_Function, numba.njit(error_model="numpy", inline="always")(function))


@_compiled
def exp(x: Any) -> Any:
    """e^x."""
    y = x if x < _LARGEST else _LARGEST
    y = y if y > _SMALLEST else _SMALLEST
    turned = y * _PER_LN2 + _ROUNDER
    n = turned - _ROUNDER
    r = y - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    e = ((((_E[0] * r + _E[1]) * r + _E[2]) * r + _E[3]) * r + _E[4]) * r + _E[5]
    e = e * (r * r) + r + _1
    e = e * _number(np.int32((_bits(turned) + np.int32(126)) << np.int32(23))) * _2
    e = e if x > _SMALLEST else _0
    e = e if x <= _LARGEST else _INF
    return e if x == x else x


@_compiled
def log(x: Any) -> Any:
    """The natural logarithm; -inf at 0, NaN below."""
    bits = _bits(x)
    n = _F((bits >> np.int32(23)) - np.int32(126))
    m = _number(np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)))
    small = m < _ROOT_HALF
    n = n - _1 if small else n
    m = m + m - _1 if small else m - _1
    z = m * m
    y = (((_L[0] * m + _L[1]) * m + _L[2]) * m + _L[3]) * m + _L[4]
    y = (((y * m + _L[5]) * m + _L[6]) * m + _L[7]) * m + _L[8]
    y = y * m * z + n * _LN2_LOW - _HALF * z
    y = m + y + n * _LN2_HIGH
    y = y if x < _INF else x
    y = y if x > _0 else -_INF
    return y if x >= _0 else _NAN


@_compiled
def log1p(x: Any) -> Any:
    """log(1 + x), also of small x (Kahan's quotient)."""
    u = _1 + x
    y = log(u) * (x / (u - _1))
    return x if u == _1 else (y if u < _INF else u)


@_compiled
def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    y = x if x < _FLAT else _FLAT
    y = y if y > -_FLAT else -_FLAT
    z = y * y
    p = (((((_T[0] * z + _T[1]) * z + _T[2]) * z + _T[3]) * z + _T[4]) * z + _T[5]) * z + _T[6]
    q = ((_Q[0] * z + _Q[1]) * z + _Q[2]) * z + _Q[3]
    y = y * p / q
    return y if x == x else x


@_compiled
def expm1(x: Any) -> Any:
    """e^x - 1, also of small x (Kahan's quotient)."""
    u = exp(x)
    less = u - _1
    y = less * (x / log(u))
    y = y if less > -_1 else -_1
    y = y if u < _INF else u
    y = x if u == _1 else y
    return y if x == x else x
