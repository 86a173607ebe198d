"""Backpropagation I: linear activations, one node a layer.

Run it from the repository root: python -m examples.article.one_node_linear

Prints both chains in the article's numbering, and each derivative with its missing factor in brackets, beside the
library's number; the three weights' single stand-in w_c; and the same rule for deeper networks.
"""

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp import plots

net = gpubp.Network((1, 1, 1, 1), hidden="identity", bias=False)
w = np.array([1.5, -0.7, 2.0])  # w_01, w_12, w_23
x_0, y = 0.8, 0.3
chains = net.backward(w, np.array([[x_0]]), np.array([[y]]))
gradient = net.gradient(w, np.array([[x_0]]), np.array([[y]]))
x = [float(q[0, 0]) for q in chains.q]  # x_0 .. x_3
delta = [
    float(Delta[0, 0]) for Delta in chains.Delta[::-1]
]  # delta_0 .. delta_3: the article counts from the output


def chain() -> Figure:
    """The network, the forward chain above its nodes and the backward chain below them."""
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    ax = figure.subplots()
    plots.architecture(net, w, ax=ax)
    for j in range(4):
        ax.text(j, 0.17, f"$x_{j}$ = {x[j]:.4g}", ha="center", fontsize=15)
        ax.text(j, -0.28, rf"$\delta_{3 - j}$ = {delta[3 - j]:.4g}", ha="center", fontsize=15)
    for i in range(3):
        ax.text(i + 0.5, 0.05, f"$w_{{{i}{i + 1}}}$ = {w[i]:g}", ha="center", fontsize=14)
    return figure


def main() -> None:
    """Print it all."""
    forward, backward = ["x_0"], ["(x_3 - y)"]
    for i in range(3):
        forward.append(f"w_{i}{i + 1} {forward[-1]}")
        backward.append(f"w_{2 - i}{3 - i} {backward[-1]}")
    for k in range(4):
        print(f"x_{k} = {forward[k]} = {x[k]:.6g}")
    for k in range(4):
        print(f"delta_{k} = {backward[k]} = {delta[k]:.6g}")
    names = [f"w_{i}{i + 1}" for i in range(3)]
    for i in (2, 1, 0):
        factors = " ".join(f"[{name}]" if name == names[i] else name for name in reversed(names))
        number = (x[3] - y) * float(np.prod(np.delete(w, i))) * x_0
        print(f"dC/d{names[i]} = (x_3 - y) {factors} x_0 = delta_{2 - i} x_{i} = {number:.12g}", end="; ")
        print(f"by the library {gradient[i]:.12g}")
        if max(abs(number - gradient[i]), abs(number - delta[2 - i] * x[i])) > 1e-12:
            raise SystemExit("the rule dC/dw = delta x does not hold")
    w_c = float(np.prod(w))
    print(f"x_3 = w_c x_0 with w_c = w_23 w_12 w_01 = {w_c:.6g}: {w_c * x_0:.12g}")
    # There is no magic about the 2: it is the number of hidden layers.
    for hidden in (0, 1, 5):
        deep = gpubp.Network((1,) * (hidden + 2), hidden="identity", bias=False)
        v = np.random.default_rng(hidden).uniform(0.5, 1.5, hidden + 1)
        rest = [float(np.prod(np.delete(v, i))) for i in range(hidden + 1)]
        slopes = deep.gradient(v, np.array([[x_0]]), np.array([[y]]))
        off = np.max(np.abs(slopes - (np.prod(v) * x_0 - y) * np.array(rest) * x_0))
        print(
            f"{hidden} hidden layers: dC/dw_i,i+1 = delta_({hidden}-i) x_i, the missing factor left out, to {off:.0e}"
        )


if __name__ == "__main__":
    main()
