"""Pictures of what a network answers: regions of the plane, numbers beside the truth, and classes taken for others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp._checks import whole_number
from gpubp._devices import device_of
from gpubp._network import Network, is_network
from gpubp._typing import Array
from gpubp.plots.style import COLOURS, INK, MARKERS, TEXT, axes, chosen_classes, dress, host

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_matrix", "decision_boundary", "predicted_against_true"]

_TINTS = ("#ffffff", "#c9c9c9", "#e6e6e6", "#a9a9a9", "#f3f3f3", "#d8d8d8", "#b8b8b8")
_MOST_NUMBERED = 20  # classes, in a confusion matrix


def decision_boundary(
    net: Network,
    w: Array,
    X: Array,
    y: Array | None = None,
    *,
    labels: Sequence[Any] | None = None,
    resolution: int = 160,
    ax: Axes | None = None,
) -> Axes:
    """Which class the network gives to each point of the plane, around the rows of X (n, 2), marked by their own class.

    A row's class is the largest of several outputs, or whether a single one is above a half. ``y``: classes (n,), or
    probabilities (n, n_L).

    Raises
    ------
    ValueError : the network hasn't two inputs, or arrays of other shapes
    """
    is_network(net)
    if net.sizes[0] != 2:
        raise ValueError(f"net must have n_0 = 2 inputs, a plane, got {net.sizes[0]}: choose two features")
    whole_number("resolution", resolution, least=2)
    net.predict(w, X)  # refuses what doesn't fit
    points = host(X, "X")
    own = np.zeros(len(points), int) if y is None else chosen_classes(host(y, "y"), "y")
    if len(own) != len(points):
        raise ValueError(
            f"y must have one class for each of the {len(points)} rows of X, got {len(own)}: give as many"
        )
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1.0)
    sides = [np.linspace(a - m, b + m, resolution) for a, b, m in zip(low, high, margin, strict=True)]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2).astype(points.dtype)
    lead = _lead(host(net.predict(w, device_of(X).put(grid)), "q")).reshape(resolution, resolution, -1)
    ax = axes(ax)
    for k in range(lead.shape[2]):
        if lead[:, :, k].max() > 0:
            ax.contourf(*sides, lead[:, :, k], levels=[0.0, np.inf], colors=[_TINTS[k % len(_TINTS)]])
            ax.contour(*sides, lead[:, :, k], levels=[0.0], colors=[INK], linewidths=1.6)
    for k in np.unique(own):
        colour = COLOURS[k % len(COLOURS)]
        ax.scatter(
            points[own == k, 0],
            points[own == k, 1],
            s=40,
            marker=MARKERS[k % len(MARKERS)],
            facecolors="white" if k % 2 else colour,
            edgecolors=colour if k % 2 else "white",
            linewidths=1.8 if k % 2 else 0.7,
            label=str(labels[k]) if labels is not None else f"class {k}",
        )
    dress(ax, x="x[:, 0]", y="x[:, 1]")
    if y is not None:
        ax.legend(fontsize=TEXT - 1, framealpha=0.9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _lead(q: NDArray[Any]) -> NDArray[Any]:
    """By how much each class leads the others, (n, K); a single output is the second of two classes."""
    if q.shape[1] == 1:
        return np.concatenate([0.5 - q, q - 0.5], axis=1)
    first, second = np.sort(q, axis=1)[:, :-3:-1].T[:, :, None]
    return np.asarray(q - np.where(q == first, second, first))


def predicted_against_true(q: Array, y: Array, *, ax: Axes | None = None) -> Axes:
    """Predictions q over true values y, both (n,) or (n, n_L), with the line where they agree, and R2 over all.

    Raises
    ------
    ValueError : shapes that differ, or numbers that aren't finite
    """
    found, true = host(q, "q").astype(np.float64), host(y, "y").astype(np.float64)
    found, true = (part[:, None] if part.ndim == 1 else part for part in (found, true))
    if found.shape != true.shape or found.ndim != 2 or 0 in found.shape:
        raise ValueError(
            f"q and y must have one shape, (n,) or (n, n_L), got {found.shape} and {true.shape}: one row each"
        )
    ax = axes(ax, (5.0, 4.8))
    ends = min(found.min(), true.min()), max(found.max(), true.max())
    ax.plot(ends, ends, color=INK, linewidth=1.4, linestyle="--", zorder=3)
    size = float(np.clip(3000 / len(true), 8, 40))
    for k in range(true.shape[1]):
        look: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
        ax.scatter(true[:, k], found[:, k], s=size, alpha=0.6, linewidths=0, label=f"output {k}", **look)
    spread = ((true - true.mean(axis=0)) ** 2).sum()
    if spread > 0:
        r2 = 1.0 - ((found - true) ** 2).sum() / spread
        ax.text(0.04, 0.96, f"R2 = {r2:.3f}", transform=ax.transAxes, va="top", fontsize=TEXT, color=INK)
    return dress(ax, x="true y", y="predicted q", legend=true.shape[1] > 1)


def confusion_matrix(
    q: Array, y: Array, *, labels: Sequence[Any] | None = None, ax: Axes | None = None
) -> Axes:
    """How many rows of each true class (down) were taken for each class (across); the darker, the larger a share of
    the true class.

    ``q``, ``y``: classes (n,), probabilities (n, n_L), or of the second of two classes, (n,) or (n, 1).

    Raises
    ------
    ValueError : other shapes, or too few ``labels``
    """
    found, true = chosen_classes(host(q, "q"), "q"), chosen_classes(host(y, "y"), "y")
    if found.shape != true.shape:
        raise ValueError(f"q and y must have as many rows, got {len(found)} and {len(true)}: one each")
    K = max(int(found.max()), int(true.max())) + 1
    K = max(K, 2, *(part.shape[1] for part in (q, y) if part.ndim == 2))
    if labels is not None and len(labels) < K:
        raise ValueError(f"labels must name all {K} classes, got {len(labels)}: give one for each")
    counts = np.zeros((K, K), int)
    np.add.at(counts, (true, found), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax = axes(ax, (5.4, 5.0))
    ax.imshow(share, cmap="Greys", vmin=0, vmax=1)
    for i, j in np.argwhere(counts) if K <= _MOST_NUMBERED else []:
        colour = "white" if share[i, j] > 0.5 else INK
        ax.text(
            j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=TEXT if K <= 6 else 10.5
        )
    names = [str(k) for k in range(K)] if labels is None else [str(label) for label in labels[:K]]
    ax.set_xticks(range(K), names, rotation=0 if max(map(len, names)) * K < 40 else 90)
    ax.set_yticks(range(K), names)
    return dress(ax, x="predicted class", y="true class")
