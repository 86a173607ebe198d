"""PyTorch: eager, and with its forward pass and cost compiled (the backward pass follows); fused Adam in both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from benchmarks._cases import BETA1, BETA2, RATE, Case, flat

__all__ = ["fit", "predictor", "trainer"]


def sequential(sizes: Sequence[int], activation: str) -> Any:
    """Linear layers with the activation between them."""
    sigma = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[activation]
    parts: list[Any] = []
    for m, n in pairwise(sizes):
        parts += [torch.nn.Linear(m, n), sigma()]
    return torch.nn.Sequential(*parts[:-1])


def adam(model: Any, epsilon: float) -> Any:
    """Fused where this build has it for this device."""
    settings = {"lr": RATE, "betas": (BETA1, BETA2), "eps": epsilon}
    try:
        return torch.optim.Adam(model.parameters(), fused=True, **settings)
    except RuntimeError:
        return torch.optim.Adam(model.parameters(), **settings)


def loaded(case: Case, dtype: str) -> Any:
    """The case's network with its first weights."""
    model = sequential(case.sizes, case.activation).to(getattr(torch, dtype))
    load(model, case, dtype)
    return model


def load(model: Any, case: Case, dtype: str) -> None:
    """Set the first weights."""
    with torch.no_grad():
        for layer, (W, b) in zip(model[::2], case.layers(dtype), strict=True):
            layer.weight.copy_(torch.from_numpy(W))
            layer.bias.copy_(torch.from_numpy(b))


class Training:
    """A network of the grid in PyTorch."""

    def __init__(self, variant: str, case: Case, dtype: str, epsilon: float) -> None:
        self.case, self.dtype, self.epsilon = case, dtype, epsilon
        x, y = case.data(dtype)
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.model = loaded(case, dtype)

        def mean_cost(x: Any, y: Any) -> Any:
            p = self.model(x)
            if case.regression:
                return 0.5 * functional.mse_loss(p[:, 0], y)
            return functional.cross_entropy(p, y)

        self.mean_cost = mean_cost
        if variant == "compile":
            torch.compiler.reset()  # it gives up compiling a function after some networks, and says nothing
            self.mean_cost = torch.compile(mean_cost, dynamic=False)

    def run(self, epochs: int) -> float:
        load(self.model, self.case, self.dtype)
        optimizer = adam(self.model, self.epsilon)
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            costs = []
            for which in torch.from_numpy(self.case.order(number)):
                optimizer.zero_grad(set_to_none=True)
                x, y = self.x.index_select(0, which), self.y.index_select(0, which)
                C = self.mean_cost(x, y)
                C.backward()
                optimizer.step()
                costs.append(C.detach())
            self.cost = float(torch.stack(costs).mean())
        return time.perf_counter() - start

    def result(self) -> tuple[Any, float]:
        layers = [(each.weight.detach().numpy(), each.bias.detach().numpy()) for each in self.model[::2]]
        return flat(layers), self.cost


def trainer(variant: str, case: Case, dtype: str, epsilon: float) -> Training:
    """A training of this case."""
    return Training(variant, case, dtype, epsilon)


def predictor(variant: str, case: Case) -> Callable[[Any], Any]:
    """Probabilities of the rows of a NumPy array, in NumPy."""
    model = loaded(case, "float32").eval()

    def predict(x: Any) -> Any:
        with torch.inference_mode():
            return torch.softmax(model(torch.from_numpy(x)), dim=1).numpy()

    return predict


def fit(x: Any, labels: Any, batch: int) -> None:
    """One epoch, as MLPClassifier would."""
    model = sequential((x.shape[1], 100, 10), "relu")
    optimizer = adam(model, 1e-8)
    x, y = torch.from_numpy(x), torch.from_numpy(labels)
    for which in torch.randperm(x.shape[0]).split(batch):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(x[which]), y[which]).backward()
        optimizer.step()


def threads() -> int:
    """How many it computes with."""
    return int(torch.get_num_threads())
