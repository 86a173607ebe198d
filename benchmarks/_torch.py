"""PyTorch: eager; with its forward pass and cost compiled (the backward pass follows), also at "max-autotune", which on
a GPU replays both as CUDA graphs; and with the whole eager step as one CUDA graph. Fused Adam in all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from benchmarks._cases import BETA1, BETA2, RATE, Case, flat, stored

__all__ = ["fit", "predictor", "trainer"]


def sequential(sizes: Sequence[int], activation: str) -> Any:
    """Linear layers with the activation between them."""
    sigma = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[activation]
    parts: list[Any] = []
    for m, n in pairwise(sizes):
        parts += [torch.nn.Linear(m, n), sigma()]
    return torch.nn.Sequential(*parts[:-1])


def adam(model: Any, epsilon: float, capturable: bool = False) -> Any:
    """Fused where this build has it for this device."""
    settings = {"lr": RATE, "betas": (BETA1, BETA2), "eps": epsilon, "capturable": capturable}
    try:
        return torch.optim.Adam(model.parameters(), fused=True, **settings)
    except RuntimeError:
        return torch.optim.Adam(model.parameters(), **settings)


def loaded(case: Case, dtype: str) -> Any:
    """The case's network with its first weights."""
    model = sequential(case.sizes, case.activation).to(getattr(torch, dtype))
    load(model, case.layers(dtype))
    return model


def load(model: Any, layers: Sequence[tuple[Any, Any]]) -> None:
    """Set the weights."""
    with torch.no_grad():
        for layer, (W, b) in zip(model[::2], layers, strict=True):
            layer.weight.copy_(torch.from_numpy(W))
            layer.bias.copy_(torch.from_numpy(b))


class Training:
    """A network of the grid in PyTorch."""

    def __init__(self, variant: str, case: Case, precision: str, epsilon: float, device: str) -> None:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.cuda.empty_cache()  # what the network before has left; nothing without a GPU
        self.case, self.epsilon, self.device = case, epsilon, device
        self.first = case.layers(stored(precision))
        self.x, self.y = (torch.from_numpy(part).to(device) for part in case.data(stored(precision)))
        with torch.device(device):
            self.model = sequential(case.sizes, case.activation).to(self.x.dtype)

        def mean_cost(x: Any, y: Any) -> Any:
            p = self.model(x)
            if case.regression:
                return 0.5 * functional.mse_loss(p[:, 0], y)
            return functional.cross_entropy(p, y)

        self.mean_cost = mean_cost
        if precision == "bfloat16":
            self.mean_cost = torch.autocast(device, torch.bfloat16)(mean_cost)
        self.replays = variant == "autotune"
        if variant in ("compile", "autotune"):
            torch.compiler.reset()  # it gives up compiling a function after some networks, and says nothing
            mode = "max-autotune" if self.replays else None
            self.mean_cost = torch.compile(self.mean_cost, dynamic=False, mode=mode)

    def run(self, epochs: int) -> float:
        load(self.model, self.first)
        optimizer = adam(self.model, self.epsilon)
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            costs = []
            for which in torch.from_numpy(self.case.order(number)).to(self.device):
                optimizer.zero_grad(set_to_none=True)
                x, y = self.x.index_select(0, which), self.y.index_select(0, which)
                C = self.mean_cost(x, y)
                C.backward()
                optimizer.step()
                # the next replay of a graph writes where this one has
                costs.append(C.detach().clone() if self.replays else C.detach())
            self.cost = float(torch.stack(costs).mean())  # waits for all that was launched before
        return time.perf_counter() - start

    def result(self) -> tuple[Any, float]:
        host = [(each.weight.detach().cpu(), each.bias.detach().cpu()) for each in self.model[::2]]
        return flat([(W.numpy(), b.numpy()) for W, b in host]), self.cost


class Replayed(Training):
    """Gather, gradient and Adam as one CUDA graph: the count of steps, from which the rows follow, is on the device."""

    def __init__(self, variant: str, case: Case, precision: str, epsilon: float, device: str) -> None:
        super().__init__(variant, case, precision, epsilon, device)
        self.optimizer = adam(self.model, epsilon, capturable=device != "cpu")
        self.order = torch.zeros((case.steps, case.batch), dtype=torch.int64, device=device)
        self.costs = torch.zeros(case.steps, dtype=self.x.dtype, device=device)
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self.replay = self.step if device == "cpu" else captured(self.step)

    def step(self) -> None:
        which = self.order.index_select(0, self.number)[0]
        self.optimizer.zero_grad(set_to_none=True)
        C = self.mean_cost(self.x.index_select(0, which), self.y.index_select(0, which))
        C.backward()
        self.optimizer.step()
        self.costs.index_copy_(0, self.number, C.detach()[None])
        self.number.add_(1).remainder_(self.case.steps)

    def run(self, epochs: int) -> float:
        load(self.model, self.first)
        for state in self.optimizer.state.values():  # in place, where the graph reads it
            for part in state.values():
                part.zero_()
        self.number.zero_()
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            self.order.copy_(torch.from_numpy(self.case.order(number)))
            for _ in range(self.case.steps):
                self.replay()
            self.cost = float(self.costs.mean())
        return time.perf_counter() - start


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The launches of a step, replayed by one call; a side stream runs it first, as what is made once is no part."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay


def trainer(variant: str, case: Case, precision: str, epsilon: float, device: str = "cpu") -> Training:
    """A training of this case."""
    return (Replayed if variant == "graph" else Training)(variant, case, precision, epsilon, device)


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
