"""Why activations that aren't linear: the regions of a linear network are cut straight, however many layers it has.

Run it from the repository root: python -m examples.article.boundary

Prints the share of points in two rings that a linear and a tanh network of the same sizes get right.
"""

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp import plots

rng = np.random.default_rng(0)
angle, rings = rng.uniform(0.0, 2.0 * np.pi, 160), np.arange(160) % 2
X = (0.5 + 0.8 * rings + 0.13 * rng.standard_normal(160))[:, None] * np.stack(
    [np.cos(angle), np.sin(angle)], axis=1
)


def trained(hidden: str) -> gpubp.Run:
    """A 2-8-8-1 network after 150 steps on all points."""
    net = gpubp.Network((2, 8, 8, 1), hidden=hidden, cost="binary_cross_entropy")
    adam = gpubp.Adam(learning_rate=0.03)
    y = rings.astype(np.float64)
    return gpubp.train(net, X, y, optimizer=adam, epochs=150, batch_size=160, device="cpu", progress=False)


def regions() -> Figure:
    """What the linear network and the tanh network make of the plane."""
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    for hidden, ax in zip(("identity", "tanh"), figure.subplots(1, 2), strict=True):
        run = trained(hidden)
        plots.decision_boundary(run.net, run.w, X, rings, labels=("inner", "outer"), resolution=80, ax=ax)
        ax.set_title(f"hidden layers: {hidden}", fontsize=15, loc="left", fontweight="bold")
        ax.set_aspect("equal")
    figure.axes[0].legend().remove()
    return figure


def main() -> None:
    """Print it all."""
    share = {}
    for hidden in ("identity", "tanh"):
        share[hidden] = float(np.mean((trained(hidden).predict(X)[:, 0] > 0.5) == rings))
        print(f"hidden layers of {hidden:8}: {share[hidden]:.0%} of the points on the right side")
    if share["tanh"] < 0.98 or share["identity"] > 0.75:
        raise SystemExit("the tanh network should separate the rings, and the linear one can't")


if __name__ == "__main__":
    main()
