"""Backpropagation IV: the full network, and the batch formula that the article stops short of.

Run it from the repository root: python -m examples.article.full

Prints the recursion for a batch beside the library's chains, the sum of every example's Delta q' beside the one product
Delta' q, and how fast the backward chain fades in a deep network, by activation and first weights.
"""

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp import plots

rng = np.random.default_rng(0)
DEPTH, WIDTH = 10, 32
x, y = rng.standard_normal((64, 8)), rng.standard_normal((64, 1))
FIRST = {  # by variance: Glorot's 2 / (n_in + n_out), He's 2 / n_in, and weights of one small or large size
    "sigmoid": ("glorot_normal", "normal(scale=0.05)", "normal(scale=1.0)"),
    "relu": ("he_normal", "normal(scale=0.05)", "normal(scale=1.0)"),
}


def deep(hidden: str) -> gpubp.Network:
    """Ten hidden layers of 32 nodes."""
    return gpubp.Network((8, *[WIDTH] * DEPTH, 1), hidden=hidden)


def vanishing() -> Figure:
    """The norm of Delta[j] over depth, for sigmoid and relu, by first weights."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    for hidden, ax in zip(FIRST, figure.subplots(1, 2, sharey=True), strict=True):
        net = deep(hidden)
        for first in FIRST[hidden]:
            w = net.init(0, dtype="float64", weights=first)
            plots.norms(net, w, x, y, of=["Delta"], label=first, ax=ax)
        ax.set_title(hidden, fontsize=15, loc="left", fontweight="bold")
    return figure


def training() -> Figure:
    """The norm of dW[i] over twenty epochs: of sigmoids, the first layers hardly move."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    for hidden, ax in zip(FIRST, figure.subplots(1, 2, sharey=True), strict=True):
        net = gpubp.Network((8, *[WIDTH] * 4, 1), hidden=hidden)
        w = net.init(0, dtype="float64", weights=FIRST[hidden][0])
        kept = plots.Snapshots([w])
        sgd = gpubp.SGD(learning_rate=0.02)
        gpubp.train(net, x, y, w=w, optimizer=sgd, epochs=20, device="cpu", progress=False, callbacks=[kept])
        plots.norms_in_training(net, kept, x, y, ax=ax)
        ax.set_title(hidden, fontsize=15, loc="left", fontweight="bold")
        ax.legend(frameon=False, fontsize=14, ncols=2, loc="lower right")
        ax.set_xticks(range(0, 21, 5))
    figure.axes[0].legend().remove()
    return figure


def main() -> None:
    """Print it all."""
    net = gpubp.Network((3, 4, 4, 2), hidden=["tanh", "sigmoid"], output="softplus", bias=False)
    w, X, Y = net.init(1, dtype="float64"), x[:5, :3].copy(), x[:5, 3:5].copy()
    chains = net.backward(w, X, Y)
    W = [W for W, _ in net.layers(w)]
    slope = {
        1: 1 - np.tanh(chains.p[1]) ** 2,
        2: chains.q[2] * (1 - chains.q[2]),
        3: 1 / (1 + np.exp(-chains.p[3])),
    }
    Delta = {3: (chains.q[3] - Y) / len(X) * slope[3]}
    for i in (2, 1):
        Delta[i] = (Delta[i + 1] @ W[i]) * slope[i]
    for i in (2, 1, 0):
        one_by_one = sum(np.outer(row, q) for row, q in zip(Delta[i + 1], chains.q[i], strict=True))
        off = np.max(np.abs(one_by_one - chains.dW[i]))
        print(
            f"dW[{i}] {chains.dW[i].shape}: the sum of every example's Delta q' is {off:.0e} from it,",
            end=" ",
        )
        print(f"Delta[{i + 1}] {Delta[i + 1].shape} {np.max(np.abs(Delta[i + 1] - chains.Delta[i + 1])):.0e}")
        if off > 1e-13:
            raise SystemExit("the recursion and the library disagree")
    for hidden, firsts in FIRST.items():
        for first in firsts:
            c = deep(hidden).backward(deep(hidden).init(0, dtype="float64", weights=first), x, y)
            ratio = np.linalg.norm(c.Delta[1]) / np.linalg.norm(c.Delta[-1])
            print(f"{hidden:8} {first:20} the norm of Delta[1] is {ratio:.1e} of Delta[{DEPTH + 1}]'s")


if __name__ == "__main__":
    main()
