"""What a user may write: its types are checked as they stand, with nothing asserted, cast or ignored."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp


class Fading:
    """A callback that keeps how large the first layer's gradient is."""

    def __init__(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        self.x, self.y, self.sizes = x, y, list[float]()

    def on_epoch_end(self, state: gpubp.callbacks.TrainingState) -> None:
        chains = state.net.backward(state.w, self.x, self.y)
        self.sizes.append(
            float(abs(chains.dW[0]).max() + abs(chains.db[0]).max() + abs(chains.Delta[0]).max())
        )


def square(xp: Any, p: Any) -> Any:
    return p * p


def double(xp: Any, p: Any, q: Any) -> Any:
    return 2.0 * p


x = np.random.default_rng(0).standard_normal((32, 3))
sigma = gpubp.Activation(square, double, name="square")
net = gpubp.Network((3, 8, 1), hidden=sigma, cost=gpubp.costs.huber(delta=2.0))
fading = Fading(x, x[:, :1])
run = gpubp.train(net, x, x[:, :1], epochs=3, optimizer=gpubp.Adam(1e-2), callbacks=[fading], progress=False)
(W_0, b_0), (W_1, b_1) = net.layers(run.w)
p, q = net.forward(run.w, x)
apart: float = abs(((x @ W_0.T + b_0) ** 2 @ W_1.T + b_1) - q[-1]).max()
bare = gpubp.Network((3, 1), bias=False)
nothing: list[None] = [b for _, b in bare.layers(bare.init())]
none: None = bare.backward(bare.init(dtype="float64"), x, x[:, :1]).db
right: bool = gpubp.check_gradient(net, run.w, x, x[:, :1]).passed
