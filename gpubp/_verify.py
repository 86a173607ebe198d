"""``check_gradient``: the gradient against a second way to get it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp._checks import whole_number
from gpubp._devices import at, device_of, to_numpy
from gpubp._network import Network, is_network
from gpubp._typing import Array
from gpubp.backprop import Chains
from gpubp.engines import engine_for

__all__ = ["Report", "check_gradient"]

_EVERY_COORDINATE = 2000  # weights; beyond, random directions
_DIRECTIONS = 40
_STEPS = (1e-5, 1e-6, 1e-7)  # a smaller one where a larger one may have stepped over a kink
_COMPLEX_STEP = 1e-30
_EPS, _EPS32 = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)
_GATES = {("central", "float64"): 1e-7, ("complex", "float64"): 1e-12}
_FLOAT32_GATE = 1e-3


@dataclass(frozen=True)
class Report:
    """What a gradient check found: the worst relative error, where it is, and whether it stays within ``tolerance``.

    ``method`` is "central" or "complex"; ``checked`` counts the coordinates or directions compared.
    """

    worst: float
    where: str
    method: str
    tolerance: float
    passed: bool
    checked: int

    def __str__(self) -> str:
        how = {"central": "central differences", "complex": "complex step"}[self.method]
        return (
            f"gradient check {'passed' if self.passed else 'FAILED'}: worst relative error {self.worst:.1e} at "
            f"{self.where}, tolerance {self.tolerance:.0e} ({how}, {self.checked} compared)"
        )


def check_gradient(
    net: Network,
    w: Array,
    x: Array,
    y: Array,
    *,
    sample_weight: Array | None = None,
    method: str = "auto",
    seed: int = 0,
) -> Report:
    """Compare ``net.gradient`` with differences of ``net.cost``.

    Each of up to 2,000 weights is moved alone; a larger network is moved in 40 random directions drawn by ``seed``.
    The error of one comparison is |a - b| / max(|a|, |b|, 1e-3 max|a|), a from the gradient and b from differences,
    which are taken in float64, also of a float32 gradient. An error beyond the gate is lessened by what rounding alone
    can do, which matters where the gradient nearly vanishes. Where central differences disagree, they are tried again
    beside w, a thousandth of its size away: w may lie on a kink, as where a layer of relus is dead for a row and the
    next has biases of 0, and the gradient there is a choice.

    Parameters
    ----------
    w, x, y, sample_weight : as for ``net.gradient``
    method : "central" differences, gate 1e-7; "complex" step (Squire & Trapp 1998), gate 1e-12, where activations and
        cost are analytic; "auto" takes the second where it can. For a float32 gradient the gate is 1e-3.

    Raises
    ------
    ValueError : a non-finite value, a class out of range, an unknown method, or a complex step through what isn't
        analytic
    TypeError : arrays whose library has no float64 here
    """
    is_network(net)
    whole_number("seed", seed, least=0)
    for name, array in {"w": w, "x": x, "y": y, "sample_weight": sample_weight}.items():
        if array is not None and engine_for(array) and not np.isfinite(to_numpy(array)).all():
            raise ValueError(f"{name} must be finite, got a NaN or inf: remove or replace it")
    if method not in ("auto", "central", "complex"):
        raise ValueError(f"method must be 'auto', 'central' or 'complex', got {method!r}: choose one")
    if method == "complex" and not net.analytic:
        raise ValueError(
            "a complex step needs analytic activations and cost, got others: use method='central'"
        )
    if method == "auto":
        method = "complex" if net.analytic else "central"
    _check_classes(net, y)
    with at(w):
        report = _compared(net, w, x, y, sample_weight, method, seed)
        if report.passed or method == "complex" or not math.isfinite(report.worst):
            return report
        return _compared(net, _beside(w, seed), x, y, sample_weight, method, seed)


def central_gradient(net: Network, w: Array, x: Array, y: Array) -> Any:
    """dC/dw (n_weights,) from costs alone: each weight moved alone, up and down, by 1e-5; NumPy float64."""
    wide = [_float64(array) for array in (w, x, y, None)]
    return np.asarray([_slope(net, wide, v, "central", _STEPS[0]) for _, v in _coordinates(net)])


def _compared(net: Network, w: Array, x: Array, y: Array, s: Array | None, method: str, seed: int) -> Report:
    ours = to_numpy(net.gradient(w, x, y, sample_weight=s)).astype(np.float64)
    wide = [_float64(array) for array in (w, x, y, s)]
    chains = net.backward(w, x, y, sample_weight=s)
    with np.errstate(invalid="ignore"):  # of chains that aren't finite
        noise = _noise(net, w, chains) * (_EPS if _is_float64(w) else _EPS32)
    lost = 4 * _EPS / _STEPS[0] * _cost_size(chains) if method == "central" else 0.0
    steps = _STEPS if method == "central" else (_COMPLEX_STEP,)
    moves = _coordinates(net) if net.n_weights <= _EVERY_COORDINATE else _directions(net, seed)
    gate = _GATES.get((method, "float64" if _is_float64(w) else "float32"), _FLOAT32_GATE)
    places, a, b, rounding = [], [], [], []
    with np.errstate(invalid="ignore"):
        for place, v in moves:
            places.append(place)
            a.append(float(np.sum(ours[v != 0] * v[v != 0])))  # a NaN elsewhere is not this one's
            rounding.append(float(noise @ np.abs(v)) + lost)
            b.append([_slope(net, wide, v, method, h) for h in steps])
        errors = _errors(np.asarray(a)[:, None], np.asarray(b), np.asarray(rounding)[:, None], gate)
    errors = np.where(np.isnan(errors), np.inf, errors).min(axis=1)
    worst = int(np.argmax(errors))
    return Report(float(errors[worst]), places[worst], method, gate, bool(errors[worst] <= gate), len(places))


def _errors(a: Any, b: Any, rounding: Any, gate: float) -> Any:
    floor = 1e-3 * np.max(np.abs(a), where=np.isfinite(a), initial=0.0)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), floor)
    size = np.where(size == 0, 1.0, size)
    error = np.abs(a - b) / size
    return np.where(error > gate, np.maximum(error - rounding / size, 0.0), error)


def _noise(net: Network, w: Array, chains: Chains) -> Any:
    """For each weight, what rounding can do to its derivative, in units of the last place: it is a sum of Delta' q over
    examples that may cancel, where the output's Delta is itself a difference of q and y that may."""
    Delta, q = (
        [np.abs(to_numpy(node)).astype(np.float64) for node in part] for part in (chains.Delta, chains.q)
    )
    lost = q[-1] / q[-1].shape[0]
    dW, db = [], []
    for i, (W, _) in reversed(list(enumerate(net.layers(w)))):
        size = Delta[i + 1] + lost
        dW.append((size.T @ q[i]).ravel())
        db.append(size.sum(axis=0))
        lost = lost @ np.abs(to_numpy(W))
    return 16 * np.concatenate([*dW[::-1], *(db[::-1] if net.bias else [])])


def _cost_size(chains: Chains) -> float:
    """The size of the numbers that a cost is made of: a cross-entropy near 0 is a difference of p_L's size."""
    return abs(float(chains.cost)) + float(np.mean(np.max(np.abs(to_numpy(chains.p[-1])), axis=1)))


def _beside(w: Array, seed: int) -> Array:
    """w moved at random by a thousandth of its size."""
    host = to_numpy(w)
    away = 1e-3 * (float(np.mean(np.abs(host))) or 1.0)
    moved = host + away * np.random.default_rng(seed).standard_normal(host.shape)
    return device_of(w).put(moved.astype(host.dtype))


def _check_classes(net: Network, y: Array) -> None:
    n_L = net.sizes[-1]
    if net.cost_function.labels and y.ndim == 1 and engine_for(y).xp.isdtype(y.dtype, "integral"):
        host = to_numpy(y)
        if host.size and not (host.min() >= 0 and host.max() < n_L):
            raise ValueError(
                f"y must hold classes 0..{n_L - 1} for n_L = {n_L}, got {host.min()}..{host.max()}: number them from 0"
            )


def _slope(net: Network, wide: list[Any], v: Any, method: str, h: float) -> float:
    """The derivative of the cost along v."""
    w, x, y, s = wide
    xp = engine_for(w).xp
    v = device_of(w).put(v)
    if method == "complex":
        z = xp.astype(w, xp.complex128) + xp.astype(v, xp.complex128) * (h * 1j)
        C = net.cost(
            z, xp.astype(x, xp.complex128), y, sample_weight=s if s is None else xp.astype(s, xp.complex128)
        )
        return float(xp.imag(C)) / h
    C = net.cost(w + h * v, x, y, sample_weight=s) - net.cost(w - h * v, x, y, sample_weight=s)
    return float(C) / (2 * h)


def _coordinates(net: Network) -> Iterator[tuple[str, Any]]:
    k = 0
    depth = len(net.sizes) - 1
    for part, shape in enumerate(net.layout.shapes):
        for place in np.ndindex(shape):
            v = np.zeros(net.n_weights)
            v[k] = 1.0
            k += 1
            yield f"{'Wb'[part // depth]}[{part % depth}][{', '.join(map(str, place))}]", v


def _directions(net: Network, seed: int) -> Iterator[tuple[str, Any]]:
    rng = np.random.default_rng(seed)
    for k in range(_DIRECTIONS):
        v = rng.standard_normal(net.n_weights)
        yield f"direction {k}", v / np.linalg.norm(v)


def _is_float64(array: Array) -> bool:
    return bool(array.dtype == engine_for(array).xp.float64)


def _float64(array: Array | None) -> Array | None:
    """In float64, but integer classes as they are."""
    if array is None:
        return None
    xp = engine_for(array).xp
    if not xp.isdtype(array.dtype, "real floating"):
        return array
    if _is_float64(array):
        return array
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX gives float32 and warns
        try:
            wide = xp.astype(array, xp.float64)
        except (TypeError, ValueError):  # a device without it
            wide = array
    if not _is_float64(wide):
        raise TypeError(
            f"differences need float64, got {array.dtype} where {device_of(array).name} has no other: enable it "
            "(jax_enable_x64 in JAX), or use NumPy"
        )
    return wide
