"""Backpropagation III: linear activations, many nodes a layer.

Run it from the repository root: python -m examples.article.linear

Prints the shapes and norms of both chains, each dC/dW as Delta x' beside the article's closed form, and the single
matrix W_c that the three layers equal.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp import plots

net = gpubp.Network((3, 4, 4, 2), hidden="identity", bias=False)
w = net.init(0, dtype="float64")
W_01, W_12, W_23 = (W for W, _ in net.layers(w))
W_c, _ = net.collapse(w)  # W_23 W_12 W_01
x_0, y = np.array([[0.5], [-1.0], [2.0]]), np.array([[1.0], [0.0]])  # columns, as in the article
chains = net.backward(w, x_0.T, y.T)  # a row is one example, so columns go in and come out transposed
dW = [W for W, _ in net.layers(net.gradient(w, x_0.T, y.T))]
Delta = [part.T for part in chains.Delta[::-1]]  # Delta_0 .. Delta_3, columns
x = [part.T for part in chains.q]  # x_0 .. x_3, columns


def collapse() -> Figure:
    """The network of three layers, and the one of a single layer that computes the same."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.architecture(net, w, ax=left)
    plots.architecture(gpubp.Network((3, 2), bias=False), W_c.ravel(), ax=right)
    for ax, words in ((left, "three layers"), (right, "$W_c$ alone")):
        ax.set_title(words, fontsize=15, loc="left", fontweight="bold")
        ax.legend().remove()
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=13
    )
    return figure


def closed() -> list[Any]:
    """The article's summary: dC/dW_01, dC/dW_12, dC/dW_23 from weights, x_0 and y alone."""
    x_3 = W_c @ x_0
    return [
        W_12.T @ W_23.T @ (x_3 - y) @ x_0.T,
        W_23.T @ (x_3 - y) @ (W_01 @ x_0).T,
        (x_3 - y) @ (W_12 @ W_01 @ x_0).T,
    ]


def main() -> None:
    """Print it all."""
    for k in range(4):
        print(f"x_{k} {x[k].shape} of length {np.linalg.norm(x[k]):.4f}", end=", ")
        print(f"Delta_{k} {Delta[k].shape} of length {np.linalg.norm(Delta[k]):.4f}")
    for i, wanted in enumerate(closed()):
        ours = Delta[2 - i] @ x[i].T
        off = max(float(np.max(np.abs(other - wanted))) for other in (ours, dW[i]))
        print(
            f"dC/dW_{i}{i + 1} = Delta_{2 - i} x_{i}' has shape {ours.shape}, {off:.0e} from the article's form"
        )
        if off > 1e-12:
            raise SystemExit("Delta x' is not the article's form")
    print(f"W_c = W_23 W_12 W_01 has shape {W_c.shape};", end=" ")
    print(f"W_c x_0 is {np.max(np.abs(W_c @ x_0 - x[3])):.0e} from x_3")


if __name__ == "__main__":
    main()
