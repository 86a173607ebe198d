"""What the Array API standard lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from gpubp._typing import Array, Namespace

# Chebyshev fits made in 50-digit arithmetic, as powers of s in [-1, 1]: erf(x)/x over x^2 in [0, 1], and
# exp(x^2) erfc(x) over t = (x - 3)/(x + 3) in [-1/2, 1], that is x >= 1.
_NEAR = (
    0.9654687386698673,
    -0.1405360890227171,
    0.019852496688983708,
    -0.0022854855611441132,
    0.00021751715604160108,
    -1.7537169441124826e-05,
    1.223382738352401e-06,
    -7.51156928660089e-08,
    4.11580059766496e-09,
    -2.035228404899467e-10,
    9.167606746069445e-12,
    -3.8078827395263415e-13,
    1.454817075960679e-14,
)
_FAR = (
    0.1107046377330686,
    -0.1706623181186141,
    0.08794177205336787,
    -0.03893730624921743,
    0.014367962980502025,
    -0.004163761083547392,
    0.0008129076673519302,
    -3.8187473694419646e-05,
    -3.606420145603078e-05,
    1.0634084103700895e-05,
    5.009533872220474e-07,
    -9.174899399209101e-07,
    8.373873748379828e-08,
    7.408385903837031e-08,
    -1.439927885788916e-08,
    -6.255515306468427e-09,
    1.6789450101614476e-09,
    4.2466250974808817e-10,
    -1.2672177371669044e-10,
)

_BLOCK = 4096  # rows


def sign(xp: Namespace, x: Array) -> Array:
    """The sign of real x, NaN where x is: by the standard, but CuPy's own waits for the device there."""
    return xp.where(x > 0.0, 1.0, xp.where(x < 0.0, -1.0, x))


def erf(xp: Namespace, x: Array) -> Array:
    """The error function of real x, element by element, to 1e-15."""
    size = xp.abs(x)
    square = xp.minimum(size * size, 1e4)
    near = x * _horner(_NEAR, 2.0 * xp.minimum(square, 1.0) - 1.0)
    t = (size - 3.0) / (size + 3.0)
    far = 1.0 - xp.exp(-square) * _horner(_FAR, (4.0 * xp.maximum(t, -0.5) - 1.0) / 3.0)
    return xp.where(size < 1.0, near, xp.sign(x) * far)


def _horner(coefficients: Sequence[float], s: Array) -> Array:
    total = coefficients[-1] * s
    for coefficient in reversed(coefficients[1:-1]):
        total = (total + coefficient) * s
    return total + coefficients[0]


def long_sum(xp: Namespace, X: Array) -> Array:
    """The sum of the rows of X (n, ...), in blocks: one float32 sum of a million rows loses half its digits."""
    n = X.shape[0]
    blocks = [xp.sum(X[start : min(start + _BLOCK, n), ...], axis=0) for start in range(0, n, _BLOCK)]
    return blocks[0] if len(blocks) == 1 else xp.sum(xp.stack(blocks), axis=0)


def long_mean(xp: Namespace, X: Array, s: Array | None = None) -> Array:
    """The mean of the rows of X (n, k), with weights s (n,), right to a few roundings also where it is far larger than
    the rows' differences; exact where they are equal."""
    total = X.shape[0] if s is None else long_sum(xp, s)
    mean = X[0, ...]
    for _ in range(2):
        e = X - mean if s is None else (X - mean) * s[:, None]
        mean = mean + long_sum(xp, e) / total
    return mean


def central_differences(f: Callable[[Any], Any], x: Any) -> Any:
    """The derivative of sum f(x) with respect to every element of x, NumPy float64."""
    h = 1e-6
    slopes = np.empty_like(x)
    for k in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[k] = h
        slopes[k] = np.sum(f(x + step) - f(x - step)) / (2 * h)
    return slopes


def complex_step(f: Callable[[Any], Any], x: Any) -> Any:
    """The same as ``central_differences``, of an analytic f, to the last digits: Im f(x + ih) / h (Squire & Trapp
    1998)."""
    h = 1e-20  # h^2 is lost beside 1, and float32 holds h
    slopes = np.empty_like(x)
    for k in np.ndindex(x.shape):
        z = x.astype(complex)
        z[k] += 1j * h
        slopes[k] = np.sum(np.imag(f(z))) / h
    return slopes


def real(xp: Namespace, z: Array) -> Array:
    """Re z, also of an array that is real already."""
    return xp.real(z) if dtype_kind(xp, z.dtype) == "complex" else z


def log1p(xp: Namespace, z: Array) -> Array:
    """log(1 + z); CuPy has a log1p for real numbers alone."""
    return xp.log(1.0 + z) if dtype_kind(xp, z.dtype) == "complex" else xp.log1p(z)


def largest_to_square(dtype: Any) -> float:
    """The largest number whose square is still in the range of a floating dtype, of any library."""
    return math.sqrt(np.finfo(str(dtype).rpartition(".")[2]).max)


def native(array: Array) -> Array:
    """The array in the machine's own order of bytes: NumPy's of the other order is copied, all else is as it came."""
    if not isinstance(array, np.ndarray) or array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="))


@cache
def dtype_kind(xp: Namespace, dtype: Any) -> str | None:
    """ "real" for float32 and float64, "complex" for complex floating dtypes, else None; kept, as libraries take
    microseconds to say so."""
    if dtype in (xp.float32, xp.float64):
        return "real"
    return "complex" if xp.isdtype(dtype, "complex floating") else None
