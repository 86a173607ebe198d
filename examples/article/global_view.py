"""The article's global view: a cost averaged over data, gradient descent down it, and linear regression as a network.

Run it from the repository root: python -m examples.article.global_view

Prints the cost of one weight beside the mean written out, what three learning rates do, and the weights of a linear
regression beside the solution of the normal equations.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp import plots

rng = np.random.default_rng(0)
net = gpubp.Network((1, 1), bias=False)  # f(x; w) = w x, one weight
x = rng.uniform(-2.0, 2.0, (30, 1))
y = 1.5 * x + 0.4 * rng.standard_normal(x.shape)
curvature = float(np.mean(x**2))  # the second derivative of C; a step beyond 2 / curvature goes up
RATES = {"too small": 0.12 / curvature, "good": 0.6 / curvature, "too large": 2.2 / curvature}

# Linear regression: y = w . x + b is a network without a hidden layer.
X = rng.standard_normal((60, 3))
Y = X @ np.array([[2.0], [-1.0], [0.5]]) + 0.7 + 0.3 * rng.standard_normal((60, 1))
linear = gpubp.Network((3, 1))


def solved() -> tuple[Any, Any]:
    """The regression's weights (w_1, w_2, w_3, b): by 300 steps of descent, and by the normal equations."""
    sgd = gpubp.SGD(learning_rate=0.3)
    run = gpubp.train(
        linear, X, Y, optimizer=sgd, epochs=300, batch_size=len(X), device="cpu", progress=False
    )
    A = np.hstack([X, np.ones((len(X), 1))])
    return run.w, np.linalg.solve(A.T @ A, A.T @ Y)[:, 0]


def descent() -> Figure:
    """The article's picture, three times: a start on the left of w* and one on the right, by learning rate."""
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for ax, (words, rate) in zip(axes, RATES.items(), strict=True):
        steps = 2 if words == "too large" else 6
        plots.descent(net, x, y, starts=(-0.3, 2.4), learning_rate=rate, steps=steps, span=(-1.2, 4.2), ax=ax)
        ax.set_title(f"{words}: eta = {rate:.2f}", fontsize=15, loc="left", fontweight="bold")
        for name, line, away in (("$w_L$", ax.lines[1], -0.6), ("$w_R$", ax.lines[3 + steps], 0.2)):
            ax.text(line.get_xdata()[0] + away, line.get_ydata()[0], name, fontsize=16)
        if ax is not axes[0]:
            ax.get_legend().remove()
            ax.set_ylabel("")
    return figure


def regression() -> Figure:
    """Two weights of a linear regression going down the bowl of the cost; the star is the normal equations' answer."""
    bowl, two = gpubp.Network((2, 1), bias=False), X[:, :2] * [1.0, 0.5]
    best = np.linalg.solve(two.T @ two, two.T @ Y)[:, 0]
    path = [np.array([-0.5, 1.5])]
    for _ in range(25):
        path.append(path[-1] - 0.5 * bowl.gradient(path[-1], two, Y))
    figure = Figure(figsize=(6.0, 4.9), layout="constrained")
    ax = figure.subplots()
    plots.cost_plane(bowl, best, two, Y, directions=list(np.eye(2)), path=path, reach=4.0, ax=ax)
    ax.set_xlabel("w_1 - its best")
    ax.set_ylabel("w_2 - its best")
    return figure


def main() -> None:
    """Print it all."""
    by_hand = sum((2.0 * x_i - y_i) ** 2 / 2 for x_i, y_i in zip(x[:, 0], y[:, 0], strict=True)) / len(x)
    print(f"C[w = 2] by the library {net.cost(np.array([2.0]), x, y):.12f}, written out {by_hand:.12f}")
    best = float(np.sum(x * y) / np.sum(x * x))
    for words, rate in RATES.items():
        w = np.array([0.5])
        for _ in range(6):
            w = w - rate * net.gradient(w, x, y)
        print(f"eta {rate:.3f}, {words:9}: from w = 0.5 six steps lead to {w[0]:.4f}; w* = {best:.4f}")
    descended, normal = solved()
    for name, ours, theirs in zip(("w_1", "w_2", "w_3", "b"), descended, normal, strict=True):
        print(f"{name:3} by descent {ours:.12f}, by the normal equations {theirs:.12f}")
    if np.max(np.abs(descended - normal)) > 1e-10:
        raise SystemExit("gradient descent did not reach the solution of the normal equations")


if __name__ == "__main__":
    main()
