"""Backpropagation II: activations that aren't linear, one node a layer.

Run it from the repository root: python -m examples.article.one_node

Prints the eight terms of each chain, and each derivative as delta q beside a complex step; identity activations
give back section I.
"""

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp import plots

net = gpubp.Network((1, 1, 1, 1), input="tanh", hidden=["sigmoid", "softplus"], output="tanh", bias=False)
w = np.array([1.5, -0.7, 2.0])  # w_01, w_12, w_23
x, y = np.array([[0.8]]), np.array([[0.3]])
chains = net.backward(w, x, y)
p, q = ([float(part[0, 0]) for part in parts] for parts in (chains.p, chains.q))
delta = [float(Delta[0, 0]) for Delta in chains.Delta[::-1]]  # delta_k = dC/dp_{3-k}


def activations() -> Figure:
    """Four activations and their slopes: what a backward chain is multiplied with at each node."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 2)
    plots.activation("identity", "sigmoid", "tanh", "relu", ax=axes)
    axes[0].set_ylim(-1.6, 2.6)
    return figure


def chain() -> Figure:
    """The network, p and q above its nodes and both kinds of term of the backward chain below them."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    ax = figure.subplots()
    plots.architecture(net, w, ax=ax)
    dq = backward()[::2]  # dC/dq_3 .. dC/dq_0
    for j in range(4):
        ax.text(j, 0.16, f"$p_{j}$ = {p[j]:.3f}\n$q_{j}$ = {q[j]:.3f}", ha="center", fontsize=14)
        terms = f"$dC/dq_{j}$ = {dq[3 - j]:.3f}\n" + rf"$\delta_{3 - j}$ = {delta[3 - j]:.4f}"
        ax.text(j, -0.42, terms, ha="center", fontsize=14)
    for i in range(3):
        ax.text(i + 0.5, 0.05, f"$w_{{{i}{i + 1}}}$ = {w[i]:g}", ha="center", fontsize=13)
    return figure


def backward() -> list[float]:
    """The eight terms of the backward chain: dC/dq_3, dC/dp_3, dC/dq_2, .. dC/dp_0."""
    terms = [q[3] - float(y[0, 0])]
    for k in range(4):
        terms.append(delta[k])
        if k < 3:
            terms.append(delta[k] * w[2 - k])
    return terms


def main() -> None:
    """Print it all."""
    for j in range(4):
        print(f"p_{j} = {p[j]:.6f}  q_{j} = sigma_{j}(p_{j}) = {q[j]:.6f}  ({net.sigma[j].name})")
    for k, term in enumerate(backward()):
        print(f"dC/d{'pq'[k % 2 == 0]}_{3 - k // 2} = {term:.6f}" + f" = delta_{k // 2}" * (k % 2))
    for i in (2, 1, 0):
        moved = w.astype(complex)
        moved[i] += 1e-30j
        step = float(np.imag(net.cost(moved, x.astype(complex), y)) / 1e-30)
        print(
            f"dC/dw_{i}{i + 1} = delta_{2 - i} q_{i} = {delta[2 - i] * q[i]:.15f}; by a complex step {step:.15f}"
        )
        if abs(delta[2 - i] * q[i] - step) > 1e-13:
            raise SystemExit("the rule dC/dw = delta q does not hold")
    linear = gpubp.Network((1, 1, 1, 1), hidden="identity", bias=False)
    x_3 = float(np.prod(w) * x[0, 0])
    print(f"with identities dC/dw_01 = {linear.gradient(w, x, y)[0]:.12g}, section I says", end=" ")
    print(f"{(x_3 - y[0, 0]) * w[2] * w[1] * x[0, 0]:.12g}")


if __name__ == "__main__":
    main()
