"""Data on its way into training: the checks of values, splitting, minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpubp._checks import REALS, Interval
from gpubp._datasets import check_finite
from gpubp._devices import Device, at, device_of, moved, native_device, to_numpy
from gpubp._devices import device as named_device
from gpubp._network import Network
from gpubp._numerics import largest_to_square, native
from gpubp._typing import Array
from gpubp.engines import Numpy, engine_for

__all__ = [
    "Rows",
    "dtype_of",
    "first_weights",
    "held_out",
    "home_for",
    "index",
    "minibatches",
    "permutation",
    "split",
    "take",
    "unit_rows",
    "validated",
    "watchers",
]


class Rows(NamedTuple):
    """Examples: x (n, n_0), y (n, n_L) or (n,), s (n,) or None."""

    x: Array
    y: Array
    s: Array | None


def dtype_of(X: Array, dtype: str | None) -> str:
    """The dtype to train in: what was asked for, else X's, else float32 for integers and booleans."""
    xp = engine_for(X).xp
    if dtype is not None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32', 'float64' or None, got {dtype!r}: give one of these")
        return dtype
    kind = X.dtype.newbyteorder("=") if isinstance(X, np.ndarray) else X.dtype
    if kind == xp.float64:
        return "float64"
    if kind == xp.float32 or xp.isdtype(X.dtype, ("bool", "integral")):
        return "float32"
    raise TypeError(
        f"X must be float32, float64, integer or boolean, got {X.dtype}: convert it, or give dtype"
    )


def home_for(X: Array, name: str) -> Device:
    """The device to train on: "auto" chooses for NumPy alone, and stays where other arrays are."""
    if name == "auto" and not isinstance(X, np.ndarray):
        return device_of(X)
    return named_device(name)


def held_out(validation: Any) -> Rows:
    """The rows of (X, Y) or (X, Y, sample_weight)."""
    if not isinstance(validation, tuple | list) or len(validation) not in (2, 3):
        raise TypeError(
            f"validation must be None, a fraction, (X, Y) or (X, Y, sample_weight), got {type(validation).__name__}: "
            "give one of these"
        )
    return Rows(validation[0], validation[1], validation[2] if len(validation) == 3 else None)


def first_weights(net: Network, w: Array, target: Device, dtype: str) -> Array:
    """The caller's first weights, copied."""
    net.layers(w)
    w = native(w)
    _check_real("w", w)
    engine = engine_for(w)
    with at(w):
        finite = bool(engine.xp.all(engine.xp.isfinite(w)))
    if not finite:
        raise ValueError("w must be finite, got a NaN or inf: draw it with net.init")
    first = _to("w", w, target, dtype)
    return engine_for(first).xp.asarray(first, copy=True)


def watchers(callbacks: Any) -> list[Any]:
    """The callbacks as a list.

    Raises
    ------
    TypeError : not a sequence, or one of them can't be told anything
    """
    if not hasattr(callbacks, "__iter__"):
        raise TypeError(
            f"callbacks must be a sequence of objects, got {type(callbacks).__name__}: put it in a list"
        )
    given = list(callbacks)
    for watcher in given:
        told = hasattr(watcher, "on_batch_end") or hasattr(watcher, "on_epoch_end")
        if isinstance(watcher, type) or not told:
            raise TypeError(
                f"callbacks must have on_batch_end(state) or on_epoch_end(state), got {watcher!r}: give objects that do"
            )
    return given


def validated(net: Network, rows: Rows, target: Device, dtype: str, names: tuple[str, str, str]) -> Rows:
    """The rows on ``target`` in ``dtype``, every value checked where it came from; rows of weight 0 are left out.

    Raises
    ------
    ValueError : a shape, a non-finite value, a class out of range, or weights that are negative, all zero or too large
    TypeError : not arrays, or of a dtype that isn't a number
    MemoryError : the rows don't fit the device
    """
    x, y, s = rows = Rows(*map(native, rows))
    x_name, y_name, s_name = names
    for name, array in zip(names, rows, strict=True):
        if array is not None or name != s_name:
            _check_real(name, array)
            check_finite(name, array)
    n_0, n_L = net.sizes[0], net.sizes[-1]
    if x.ndim != 2 or x.shape[1] != n_0 or x.shape[0] < 1:
        raise ValueError(
            f"{x_name} must have shape (n, n_0) with n >= 1 and n_0 = {n_0}, got {tuple(x.shape)}: one example per row"
        )
    n = x.shape[0]
    labels = net.cost_function.labels and y.ndim == 1 and engine_for(y).xp.isdtype(y.dtype, "integral")
    if labels:
        _check_classes(y_name, y, n_L)
        with at(y):
            y = engine_for(y).xp.astype(y, engine_for(y).xp.int32)  # which every device has
    if tuple(y.shape) not in ({(n,)} if labels else {(n, n_L), (n,) if n_L == 1 else (n, n_L)}):
        also = ", or integer classes (n,)" if net.cost_function.labels else ""
        raise ValueError(
            f"{y_name} must have shape (n, n_L) with n = {n}, n_L = {n_L}{also}, got {tuple(y.shape)}: "
            "one row of targets an example"
        )
    if not labels:
        _check_targets(y_name, y, net)
    if s is not None:
        x, y, s = _weighted(x, y, s, n, s_name, dtype)
    _check_fits(target, (x, y, s), dtype, net)
    return Rows(
        _whole_rows(_to(x_name, x, target, dtype)),
        _whole_rows(moved(y, target) if labels else _to(y_name, y, target, dtype)),
        s if s is None else _whole_rows(_to(s_name, s, target, dtype)),
    )


def _whole_rows(array: Array) -> Array:
    """Row after row in memory: else NumPy would copy all of it for every minibatch, and a GPU read with strides."""
    engine = engine_for(array)
    return engine.library.ascontiguousarray(array) if isinstance(engine, Numpy) else array


def split(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """(training, validation): ``fraction`` of the rows, drawn by the seed, are for validation.

    Raises
    ------
    ValueError : a part would be empty
    """
    n = rows.x.shape[0]
    held = round(n * fraction)
    if not 0 < held < n:
        raise ValueError(
            f"validation must leave rows on both sides, got {fraction:g} of {n} rows: give a fraction between them"
        )
    order = np.random.default_rng([seed, 0, 1]).permutation(n)  # not an epoch's stream
    return take(rows, np.sort(order[held:])), take(rows, np.sort(order[:held]))


def permutation(n: int, seed: int, epoch: int) -> Any:
    """The order of n rows in an epoch (1, 2, ...): keyed by both, so that any epoch can be had alone; NumPy int64."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def unit_rows(y: Array, n_L: int, like: Array) -> Array | None:
    """The unit matrix (n_L, n_L) in the dtype of ``like`` where y holds integer classes, else None."""
    xp = engine_for(y).xp
    if y.ndim != 1 or not xp.isdtype(y.dtype, "integral"):
        return None
    return xp.eye(n_L, dtype=like.dtype, device=native_device(like))


def minibatches(order: Array, batch_size: int) -> Iterator[Array]:
    """Slices of the order, ``batch_size`` rows each; the last, smaller one is kept."""
    n = order.shape[0]
    for start in range(0, n, batch_size):
        yield order[start : min(start + batch_size, n)]


def take(rows: Rows, which: Any) -> Rows:
    """The rows of those numbers (NumPy int64)."""
    return Rows(*(None if array is None else _take(array, which) for array in rows))


def _take(array: Array, which: Any) -> Array:
    engine = engine_for(array)
    with at(array):
        return engine.gather(array, index(which, array))


def index(which: Any, like: Array) -> Array:
    """Row numbers (NumPy int64) beside the array they index."""
    if not isinstance(like, np.ndarray) and like.shape[0] < 2**31:
        which = which.astype(np.int32)  # which every device has
    return moved(which, device_of(like))


def _weighted(x: Array, y: Array, s: Array, n: int, name: str, dtype: str) -> tuple[Array, Array, Array]:
    if tuple(s.shape) != (n,):
        raise ValueError(
            f"{name} must have shape (n,) with n = {n}, got {tuple(s.shape)}: one weight an example"
        )
    xp = engine_for(s).xp
    with at(s):
        s = _narrowed(name, xp.astype(s, xp.int8) if xp.isdtype(s.dtype, "bool") else s, dtype)
        negative = bool(xp.any(s < 0))
    if negative:
        raise ValueError(f"{name} must hold weights of at least 0, got a negative one: mend it")
    host = to_numpy(s)
    kept = np.flatnonzero(host)
    if kept.size == 0:
        raise ValueError(f"{name} must hold a weight above 0, got none: give some rows weight")
    # Sums of weights are multiplied by costs and squared errors, in this dtype.
    with np.errstate(over="ignore"):
        total = host.sum(dtype=np.float64)
    if total > largest_to_square(dtype):
        raise ValueError(
            f"{name} must have a sum of at most {largest_to_square(dtype):.1e} in {dtype}, got {total:.1e}: scale the "
            "weights down, as their ratios alone count"
        )
    if kept.size < n:
        x, y, s = _take(x, kept), _take(y, kept), _take(s, kept)
    return x, y, s


def _check_real(name: str, array: Array) -> None:
    if not engine_for(array).xp.isdtype(array.dtype, ("bool", "integral", "real floating")):
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}: convert it")


def _check_classes(name: str, y: Array, n_L: int) -> None:
    xp = engine_for(y).xp
    with at(y):
        low, high = int(xp.min(y)), int(xp.max(y))
    if low < 0 or high >= n_L:
        raise ValueError(
            f"{name} must hold classes 0..{n_L - 1} for n_L = {n_L}, got {low}..{high}: number them from 0"
        )


def _check_targets(name: str, y: Array, net: Network) -> None:
    cost = net.cost_function
    xp = engine_for(y).xp
    if cost.targets == REALS or xp.isdtype(y.dtype, "bool"):
        return
    with at(y):
        low, high = float(xp.min(y)), float(xp.max(y))
    if not Interval(low, high, True, True).within(cost.targets):
        raise ValueError(
            f"{name} must lie in {cost.targets} for cost {cost.name!r}, got {low:g}..{high:g}: scale or encode it"
        )


def _check_fits(target: Device, arrays: tuple[Array | None, ...], dtype: str, net: Network) -> None:
    free = target.free_bytes()
    if free is None:
        return
    size = np.dtype(dtype).itemsize
    data = sum(int(np.prod(array.shape)) * size for array in arrays if array is not None)
    weights = 5 * net.n_weights * size  # w, its best copy, the gradient and two slots of an optimizer
    if data + weights > free:
        raise MemoryError(f"they need {data + weights} bytes, and {free} are free")


def _to(name: str, array: Array, target: Device, dtype: str) -> Array:
    """On ``target`` in ``dtype``; narrowed before it travels (not every device has float64), widened after."""
    there = moved(_narrowed(name, array, dtype), target)
    xp = engine_for(there).xp
    wanted = getattr(xp, dtype)
    return there if there.dtype == wanted else xp.astype(there, wanted)


def _narrowed(name: str, array: Array, dtype: str) -> Array:
    """In float32 where that is ``dtype`` and its elements are wider."""
    xp = engine_for(array).xp
    if dtype != "float32" or array.dtype not in (xp.float64, xp.int64, xp.uint64):
        return array
    with at(array), np.errstate(over="ignore"):
        array = xp.astype(array, xp.float32)
        finite = bool(xp.all(xp.isfinite(array)))
    if not finite:
        raise ValueError(f"{name} must fit float32, got larger numbers: scale them, or give dtype='float64'")
    return array
