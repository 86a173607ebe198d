"""Pictures of the cost over the weights: along a line, over a plane, and descended (article, "Global view")."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp._checks import POSITIVE, real_number, whole_number
from gpubp._devices import device_of
from gpubp._network import Network, is_network
from gpubp._typing import Array
from gpubp.optimizers import SGD
from gpubp.plots.style import BLUE, DASHES, INK, TEXT, VERMILLION, axes, dress, host, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cost_along_gradient", "cost_plane", "descent"]

_POINTS = 161


def descent(
    net: Network,
    x: Array,
    y: Array,
    *,
    starts: Sequence[float],
    learning_rate: float,
    steps: int = 5,
    span: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The cost C[w] of a network of one weight, its minimum w*, and gradient descent down it from each start, as the
    article pictures it. A step goes along w by -learning_rate dC/dw, then to the curve; the slope is drawn at each w_t.

    ``span``: the w between which the curve is drawn; None takes what the steps reach.

    Raises
    ------
    ValueError : the network hasn't one weight, or a number out of range
    """
    is_network(net)
    if net.n_weights != 1:
        raise ValueError(f"net must have one weight, got {net.n_weights}: try Network((1, 1), bias=False)")
    rate, steps = real_number("learning_rate", learning_rate, POSITIVE), whole_number("steps", steps)
    if len(starts) == 0:
        raise ValueError("starts must hold one w at least, got none: give one on each side of the minimum")
    home, dtype = device_of(x), host(x, "x").dtype

    def at(w: float) -> tuple[float, float]:
        C, g = net.cost_and_gradient(home.put(np.array([w], dtype)), x, y)
        return float(C), float(g[0])

    tracks = [_track(net, home.put(np.array([start], dtype)), x, y, rate, steps) for start in starts]
    reached = np.concatenate(tracks)
    low, high = span or (reached.min(), reached.max())
    margin = 0.0 if span else 0.12 * (high - low or 1.0)
    w = np.linspace(low - margin, high + margin, _POINTS)
    C = np.array([at(each)[0] for each in w])
    ax = axes(ax)
    ax.plot(w, C, color=INK, linewidth=2.2, label="C[w]")
    width, rise = float(np.ptp(w)), float(np.ptp(C)) or 1.0
    for k, track in enumerate(tracks):
        look = line_style(k) | {"linestyle": "none", "markevery": 1, "markersize": 8, "zorder": 4}
        heights = np.array([at(each)[0] for each in track])
        ax.plot(track, heights, label=f"from w_0 = {track[0]:.3g}", **look)
        ax.step(
            track,
            heights,
            where="post",
            color=look["color"],
            linewidth=1.4,
            linestyle=DASHES[k % 2],
            zorder=3,
        )
        for t, (here, there) in enumerate(pairwise(track)):
            slope, reach = at(here)[1], 0.09 * width
            half = (reach if t == 0 else min(reach, abs(there - here))) / math.hypot(
                1.0, slope * width / rise
            )
            ends = np.array([here - half, here + half])
            tangent = ax.plot(
                ends, heights[t] + slope * (ends - here), color=look["color"], linewidth=6, zorder=2
            )
            tangent[0].set(alpha=0.35, label="_" if k or t else "slopes dC/dw")
    bottom = _minimum(lambda w: at(w)[1], w, C)
    if bottom is not None:
        ax.plot(
            [bottom], [at(bottom)[0]], "*", color=INK, markersize=14, label=f"w* = {bottom:.3g}", zorder=5
        )
    if span:
        ax.set(xlim=span, ylim=(C.min() - 0.08 * rise, C.max() + 0.08 * rise))
    return dress(ax, x="w", y="cost C[w]", legend=True)


def _track(net: Network, w: Array, x: Array, y: Array, rate: float, steps: int) -> NDArray[Any]:
    """w_0 .. w_steps."""
    sgd = SGD(learning_rate=rate)
    state, track = sgd.init(w), [float(w[0])]
    for _ in range(steps):
        w, state = sgd.step(w, net.gradient(w, x, y), state)
        track.append(float(w[0]))
    return host(np.array(track), "w")


def _minimum(slope: Callable[[float], float], w: NDArray[Any], C: NDArray[Any]) -> float | None:
    """Where the slope changes sign beside the lowest point of the curve; None where that is at an end."""
    lowest = int(C.argmin())
    if lowest in (0, len(w) - 1):
        return None
    low, high = float(w[lowest - 1]), float(w[lowest + 1])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2


def cost_along_gradient(
    net: Network, w: Array, x: Array, y: Array, *, reach: float | None = None, ax: Axes | None = None
) -> Axes:
    """C[w - eta g] over eta, where g = dC/dw at w: what a step of each learning rate would do to the cost.

    Dashed is what the slope at w promises, C - eta abs(g)^2. ``reach`` is the largest eta; None goes well
    beyond the lowest cost.

    Raises
    ------
    ValueError : g is 0, a ``reach`` that isn't positive, or arguments that ``net.gradient`` refuses
    """
    is_network(net)
    first, g = net.cost_and_gradient(w, x, y)
    C = float(first)
    steepness = float(np.sum(host(g, "dC/dw").astype(np.float64) ** 2))
    if steepness == 0:
        raise ValueError(
            "the gradient must not be 0, got 0 at w: there is no direction to follow at a minimum"
        )
    far = 2.0 * abs(C) / steepness or 1.0 if reach is None else real_number("reach", reach, POSITIVE)
    while True:
        eta = np.linspace(0.0, far, _POINTS)
        with device_of(w).current():
            found = np.array([float(net.cost(w - float(each) * g, x, y)) for each in eta])
        costs = host(found, "the cost along the line")
        best = int(costs.argmin())
        if reach is not None or not 0 < best < _POINTS // 4:
            break
        far = 3.0 * eta[best]
    ax = axes(ax)
    ax.plot(eta, costs, color=BLUE, linewidth=2.5, label="C[w - eta g]")
    promised = C - eta * steepness
    seen = promised >= costs.min() - 0.15 * (costs.max() - costs.min())
    ax.plot(eta[seen], promised[seen], color=VERMILLION, linewidth=2, linestyle="--", label="C - eta |g|^2")
    ax.plot([eta[best]], [costs[best]], "*", color=INK, markersize=14, label=f"lowest, eta = {eta[best]:.3g}")
    return dress(ax, x="learning rate eta", y="cost", legend=True)


def cost_plane(
    net: Network,
    w: Array,
    x: Array,
    y: Array,
    *,
    directions: Sequence[Array] | None = None,
    path: Sequence[Array] | None = None,
    reach: float | None = None,
    resolution: int = 31,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """C over a plane of weights through w, as lines of equal cost; darker is higher.

    The plane is spanned by ``directions``, two vectors (n_weights,), made orthonormal; else by the two in which the
    weights of ``path`` are spread most; else by the gradient and a random direction, drawn by ``seed``. ``path``, such
    as ``Snapshots``, is drawn as it falls on the plane. ``reach`` is how far the plane goes from w each way; None takes
    what holds the path, or the length of w.

    Raises
    ------
    ValueError : fewer than two weights, directions that don't span a plane, or arguments that ``net.cost`` refuses
    """
    is_network(net)
    if net.n_weights < 2:
        raise ValueError(f"net must have two weights at least, got {net.n_weights}: see descent for one")
    whole_number("resolution", resolution, least=2)
    g = host(net.gradient(w, x, y), "dC/dw").astype(np.float64)
    centre = host(w, "w").astype(np.float64)
    walked = None
    if path is not None:
        walked = np.stack([host(each, "path").astype(np.float64) for each in path]) - centre
    if directions is not None:
        span = [host(each, "directions").astype(np.float64) for each in directions]
    elif walked is not None:
        span = list(np.linalg.svd(walked)[2][:2])
    else:
        span = [g, np.random.default_rng(seed).standard_normal(net.n_weights)]
    basis = _orthonormal(span, net.n_weights)
    trace = None if walked is None else walked @ basis.T
    if reach is None:
        reach = (
            float(np.linalg.norm(centre)) or 1.0
            if trace is None
            else 1.25 * float(np.abs(trace).max()) or 1.0
        )
    sides = np.linspace(-1.0, 1.0, resolution) * real_number("reach", reach, POSITIVE)
    home, dtype = device_of(w), host(w, "w").dtype
    u, v = (home.put(direction.astype(dtype)) for direction in basis)
    with home.current():
        costs = np.array(
            [[float(net.cost(w + float(a) * u + float(b) * v, x, y)) for a in sides] for b in sides]
        )
    ax = axes(ax, (5.6, 4.8))
    drawn = ax.contourf(
        sides, sides, host(costs, "the cost over the plane"), levels=12, cmap="Greys", alpha=0.75
    )
    lines = ax.contour(drawn, levels=np.asarray(drawn.levels)[::2], colors=[INK], linewidths=0.9)
    ax.clabel(lines, fontsize=TEXT - 2, fmt="%.3g")
    if trace is not None:
        ax.plot(*trace.T, color=VERMILLION, linewidth=2.4, marker="o", markersize=4, label="path")
        ax.plot(*trace[:1].T, "s", color=VERMILLION, markersize=9, label="its start")
    ax.plot([0], [0], "*", color=INK, markersize=15, markeredgecolor="white", label="w")
    along = "gradient" if directions is None and path is None else "first direction"
    across = "random direction" if along == "gradient" else "second direction"
    dress(ax, x=f"along the {along}", y=f"along the {across}")
    ax.legend(loc="upper right", fontsize=TEXT - 1, framealpha=0.9)
    return ax


def _orthonormal(span: Sequence[NDArray[Any]], n: int) -> NDArray[Any]:
    """Two vectors (n,) of length 1, at right angles, spanning the same plane, (2, n)."""
    if len(span) != 2 or any(each.shape != (n,) for each in span):
        raise ValueError(
            f"directions must be two vectors of shape (n_weights,) with n_weights = {n}, got "
            f"{[each.shape for each in span]}: see net.flatten"
        )
    first, second = span
    length = float(np.linalg.norm(first)) or 1.0
    e = first / length
    f = second - (second @ e) * e
    if not (first.any() and np.linalg.norm(f) > 1e-12 * np.linalg.norm(second)):
        raise ValueError("directions must span a plane, got two on one line: give others")
    return np.stack([e, f / np.linalg.norm(f)])
