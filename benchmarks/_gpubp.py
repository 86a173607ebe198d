"""gpubp as its users run it: ``gpubp.train``, epoch after epoch; the clock is the history's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import gpubp
from benchmarks._cases import BETA1, BETA2, EXACT, RATE, SEED, Case, stored

__all__ = ["fit", "predictor", "trainer"]


class Training:
    """A network of the grid, its data and first weights on the device where it is trained."""

    def __init__(self, case: Case, precision: str, epsilon: float, device: str) -> None:
        self.net, self.device = network(case), gpubp.device(device)
        x, y = case.data(stored(precision))
        first = self.net.flatten(case.layers(stored(precision)))
        if precision == EXACT:
            x, first = x.astype("float64"), first.astype("float64")
        self.x, self.y, self.first = (self.device.put(part) for part in (x, y, first))
        self.batch = case.batch
        self.adam = gpubp.Adam(RATE, BETA1, BETA2, epsilon)

    def run(self, epochs: int) -> float:
        self.trained = gpubp.train(
            self.net,
            self.x,
            self.y,
            w=self.first,
            optimizer=self.adam,
            epochs=epochs,
            batch_size=self.batch,
            device=self.device,
            seed=SEED,
            metric=None,
            progress=False,
        )
        return float(self.trained.history["seconds"][-1])

    def result(self) -> tuple[Any, float]:
        return gpubp.device("cpu").put(self.trained.w), float(self.trained.history["cost"][-1])


def network(case: Case) -> gpubp.Network:
    """The case's network."""
    return gpubp.Network(case.sizes, hidden=case.activation, cost=case.cost)


def trainer(variant: str, case: Case, precision: str, epsilon: float, device: str = "cpu") -> Training:
    """A training of this case: "fast" is compiled, from its first step; "plain" finds no numba, and is recorded;
    "step by step" is neither."""
    os.environ["GPUBP_COMPILE"] = "never" if variant == "step by step" else "always"
    return Training(case, precision, epsilon, device)


def predictor(variant: str, case: Case) -> Callable[[Any], Any]:
    """Probabilities of the rows of a NumPy array, in NumPy."""
    net = network(case)
    w = net.flatten(case.layers("float32"))
    return lambda x: net.predict(w, x)


def fit(x: Any, labels: Any, batch: int) -> None:
    """One epoch, as MLPClassifier would."""
    net = gpubp.Network((x.shape[1], 100, 10), cost="cross_entropy")
    gpubp.train(net, x, labels, epochs=1, batch_size=batch, metric=None, progress=False)
