"""Nodes and weights, chains, and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp import activations
from gpubp._checks import whole_number
from gpubp._devices import to_numpy
from gpubp._network import Network, is_network
from gpubp._typing import Array
from gpubp.activations import Activation
from gpubp.callbacks import TrainingState
from gpubp.engines import engine_for
from gpubp.plots.style import (
    BLUE,
    GREY,
    INK,
    TEXT,
    VERMILLION,
    axes,
    dress,
    host,
    line_style,
)
from gpubp.training.loop import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Snapshots",
    "activation",
    "activation_histograms",
    "architecture",
    "history",
    "norms",
    "norms_in_training",
]


_NEGATIVE: Any = (0, (4, 2))


class Snapshots(list[Array]):
    """The weights at each epoch's end: a callback for ``train``, and the list of the copies, on the host.

    ``Snapshots([w])`` begins with the first weights.
    """

    def on_epoch_end(self, state: TrainingState) -> None:
        """Keep a copy."""
        self.append(np.array(to_numpy(state.w)))


def architecture(net: Network, w: Array | None = None, *, most: int = 12, ax: Axes | None = None) -> Axes:
    """The nodes of each layer, and the weights between them as lines.

    A line's width is abs(W) over the largest drawn of its layer; positive weights are solid, negative ones dashed, and
    biases aren't drawn. Of a layer with more than ``most`` nodes, the first and the last are.

    Raises
    ------
    ValueError : w isn't (n_weights,) or not finite; ``most`` is below 2
    """
    is_network(net)
    most = whole_number("most", most, least=2)
    W = None if w is None else [host(W, "w") for W, _ in net.layers(w)]
    ax = axes(ax)
    shown = [_ends(n, most) for n in net.sizes]
    heights = [_heights(n, len(nodes)) for n, nodes in zip(net.sizes, shown, strict=True)]
    for i, (left, right) in enumerate(pairwise(shown)):
        part = np.ones((len(right), len(left))) if W is None else W[i][np.ix_(right, left)]
        width = np.full(part.shape, 0.8) if W is None else 3.2 * abs(part) / (abs(part).max() or 1.0)
        for k, m in np.ndindex(part.shape):
            ax.plot(
                [i, i + 1],
                [heights[i][m], heights[i + 1][k]],
                color=GREY if W is None else VERMILLION if part[k, m] < 0 else BLUE,
                linestyle=_NEGATIVE if part[k, m] < 0 else "-",
                linewidth=width[k, m],
                zorder=1 + width[k, m] / 4,
            )
    for j, (n, nodes) in enumerate(zip(net.sizes, shown, strict=True)):
        ax.scatter(
            [j] * len(nodes), heights[j], s=190, color="white", edgecolors=INK, linewidths=1.6, zorder=3
        )
        if len(nodes) < n:
            ax.scatter([j] * 3, [-0.03, 0.0, 0.03], marker=".", s=22, color=INK, zorder=3)
        words = f"q[{j}]: {n}\n{net.sigma[j].name}"
        ax.text(j, -0.56, words, ha="center", va="top", fontsize=TEXT, color=INK)
    if W is not None:
        for dash, colour, words in (("-", BLUE, "W > 0"), (_NEGATIVE, VERMILLION, "W < 0")):
            ax.plot([], [], linestyle=dash, color=colour, linewidth=2.5, label=words)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=2, frameon=False, fontsize=TEXT)
    ax.set(xlim=(-0.4, len(net.sizes) - 0.6), ylim=(-0.8, 0.56))
    ax.axis("off")
    return ax


def _ends(n: int, most: int) -> list[int]:
    """The numbers of the nodes drawn: all, or the first and the last."""
    return list(range(n)) if n <= most else [*range(most // 2), *range(n - (most - most // 2), n)]


def _heights(n: int, shown: int) -> NDArray[np.float64]:
    """Where the nodes stand, between 0.5 and -0.5, a few of them nearer to 0; with a gap where some are left out."""
    half = 0.5 * min(1.0, 0.22 * (shown - 1))
    if shown == n:
        return np.linspace(half, -half, shown) if shown > 1 else np.zeros(1)
    upper = shown // 2
    return np.concatenate([np.linspace(0.5, 0.12, upper), np.linspace(-0.12, -0.5, shown - upper)])


def history(run: Run | Mapping[str, Sequence[Any]], *, of: str = "cost", ax: Axes | None = None) -> Axes:
    """The cost (or, ``of="metric"``, the metric) of each epoch; dashed on the validation part, if there is one.

    ``run`` is what ``train`` gave back, or its ``history``.

    Raises
    ------
    ValueError : ``of`` is another word, or nothing of that was kept
    """
    lists = run.history if isinstance(run, Run) else run
    if of not in ("cost", "metric"):
        raise ValueError(f"of must be 'cost' or 'metric', got {of!r}: choose one")
    values = list(lists[of])
    if not values or values[0] is None:
        raise ValueError(
            f"run must have a {of} of one epoch at least, got none: train with epochs and metric"
        )
    ax = axes(ax)
    ax.plot(lists["epoch"], values, color=BLUE, linewidth=2.5, label="training")
    held = lists[f"validation_{of}"]
    if held[0] is not None:
        ax.plot(lists["epoch"], held, color=VERMILLION, linewidth=2, linestyle="--", label="validation")
    if isinstance(run, Run) and held[0] is not None and run.best_epoch:
        best = held[run.best_epoch - 1]
        ax.plot([run.best_epoch], [best], "o", color=INK, markersize=8, label="the best, kept")
    if of == "cost" and min(v for v in [*values, *held] if v is not None) > 0:
        ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)
    return dress(ax, x="epoch", y="cost C" if of == "cost" else "metric", legend=held[0] is not None)


def norms(
    net: Network,
    w: Array,
    x: Array,
    y: Array,
    *,
    of: Sequence[str] = ("Delta", "dW"),
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """How the backward chain fades or grows over depth: the norms of Delta[j] at node j, and of dW[i] between nodes i
    and i+1; each is the square root of the sum of its squares, for the mean cost of the batch.

    ``of`` names which; lines already on ``ax`` are told from new ones by ``label``, dash and marker.

    Raises
    ------
    ValueError : ``of`` holds another word, or arguments that ``net.backward`` refuses
    """
    is_network(net)
    if not of or not set(of) <= {"Delta", "dW"}:
        raise ValueError(f"of must hold 'Delta', 'dW' or both, got {of!r}: choose among them")
    chains = net.backward(w, x, y)
    ax = axes(ax)
    for kind in of:
        parts = chains.Delta if kind == "Delta" else chains.dW
        sizes = [_norm(part, kind) for part in parts]
        where = np.arange(len(sizes)) + (0.0 if kind == "Delta" else 0.5)
        words = f"{label}, {_letters(kind)}" if label and len(of) > 1 else label or _letters(kind)
        ax.plot(where, sizes, label=words, **line_style(len(ax.lines)))
    ax.set_yscale("log")
    ax.set_xticks(range(len(net.sizes)))
    return dress(ax, x="node j", y=" and ".join(f"norm of {_letters(kind)}" for kind in of), legend=True)


def norms_in_training(
    net: Network, weights: Sequence[Array], x: Array, y: Array, *, of: str = "dW", ax: Axes | None = None
) -> Axes:
    """The norms of dW[i] (or ``of="Delta"``, of Delta[j]) over training, a line for each i (or j).

    ``weights`` holds a w for each epoch, such as a ``Snapshots`` that was one of the callbacks; for a batch x, y.

    Raises
    ------
    ValueError : no weights, ``of`` is another word, or arguments that ``net.backward`` refuses
    """
    is_network(net)
    if of not in ("Delta", "dW"):
        raise ValueError(f"of must be 'Delta' or 'dW', got {of!r}: choose one")
    if len(weights) == 0:
        raise ValueError(
            "weights must hold one w at least, got none: give Snapshots() to train as a callback"
        )
    rows = []
    for w in weights:
        chains = net.backward(w, x, y)
        parts = chains.Delta if of == "Delta" else chains.dW
        rows.append([_norm(part, of) for part in parts])
    ax = axes(ax)
    for k, line in enumerate(np.array(rows).T):
        ax.plot(range(len(rows)), line, label=f"{of}[{k}]", **line_style(k, len(rows)))
    ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)
    return dress(ax, x="epoch", y=f"norm of {_letters(of)}", legend=True)


def _norm(part: Array, name: str) -> float:
    return float(np.linalg.norm(host(part, name).astype(np.float64)))


def _letters(kind: str) -> str:
    return "Delta[j]" if kind == "Delta" else "dW[i]"


def activation_histograms(
    net: Network, w: Array, x: Array, *, bins: int = 40, ax: Axes | None = None
) -> Axes:
    """How the values of q[j] are spread over the rows of x and the nodes of layer j: a histogram for each j.

    Each has its own height. Values of exactly 0, which a relu makes, are left out of it and told as a share.

    Raises
    ------
    ValueError : ``bins`` below 1, arguments that ``net.forward`` refuses, or activations that aren't finite
    """
    is_network(net)
    bins = whole_number("bins", bins)
    q = [host(part, f"q[{j}]").astype(np.float64).ravel() for j, part in enumerate(net.forward(w, x).q)]
    ax = axes(ax, (6.4, 1.2 + 0.8 * len(q)))
    low, high = min(values.min() for values in q), max(values.max() for values in q)
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    for j, values in enumerate(q):
        counts = np.histogram(values[values != 0], edges)[0]
        height = 0.85 * counts / max(counts.max(), 1)
        ax.stairs(height + j, edges, baseline=j, fill=True, color="#8fc1e0")
        ax.stairs(height + j, edges, baseline=j, color=INK, linewidth=1.2)
        zeros = float(np.mean(values == 0))
        if zeros >= 0.005:
            ax.text(edges[-1], j + 0.45, f"{zeros:.0%} are 0", ha="right", fontsize=TEXT, color=INK)
    ax.set_yticks(range(len(q)), [f"q[{j}] {sigma.name}" for j, sigma in enumerate(net.sigma)])
    dress(ax, x="activation q")
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-0.08, len(q) + 0.05)
    ax.tick_params(axis="y", length=0)
    return ax


def activation(
    *sigma: str | Activation,
    span: tuple[float, float] = (-4.0, 4.0),
    ax: Sequence[Axes] | None = None,
) -> tuple[Axes, Axes]:
    """sigma(p) on the left and sigma'(p) on the right, between ``span``; ``ax`` and what comes back are two axes.

    Raises
    ------
    ValueError : none given, an unknown name, one that mixes a layer's nodes (softmax), or ``ax`` isn't two
    """
    if not sigma:
        raise ValueError("sigma must be one activation at least, got none: try 'sigmoid'")
    if ax is not None and len(ax) != 2:
        raise ValueError(f"ax must be two axes, for sigma and sigma', got {len(ax)}: give two")
    p = np.linspace(*span, 161)[:, None]
    curves = {}
    for each in map(activations.get, sigma):
        pair = np.concatenate([p, p[::-1]], axis=1)
        q = np.asarray(each.value(np, p))
        if not np.allclose(each.value(np, pair)[:, :1], q, equal_nan=True):
            raise ValueError(
                f"sigma must act on each node alone to be drawn as a curve, got {each.name!r}: it has no sigma'"
            )
        slope = engine_for(p).pull_back(each, p, q, np.ones_like(p))
        curves[each.name] = host(q, "sigma(p)")[:, 0], host(slope, "sigma'(p)")[:, 0]
    if ax is None:
        figure = axes(None, (9.6, 4.0)).figure
        figure.clear()
        ax = figure.subplots(1, 2)
    left, right = (axes(each) for each in ax)
    for k, (name, (q, slope)) in enumerate(curves.items()):
        look = line_style(k, len(p)) | {"markevery": (10 + 4 * k, 40)}
        left.plot(p[:, 0], q, label=name, **look)
        right.plot(p[:, 0], slope, label=name, **look)
    dress(left, x="p", y="sigma(p)", legend=True)
    dress(right, x="p", y="sigma'(p)")
    return left, right
