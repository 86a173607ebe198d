"""PyTorch: shapes and hidden synchronisations on "meta", where every value read is an error, and its autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference import COSTS, HIDDEN, targets

from gpubp import Network, optimizers

B = 5


def meta(torch: Any, net: Network, dtype: str, labels: bool = False) -> dict[str, Any]:
    kind = getattr(torch, dtype)
    shapes = {"w": (net.n_weights,), "x": (B, net.sizes[0]), "y": (B, net.sizes[-1]), "s": (B,)}
    made = {name: torch.empty(shape, dtype=kind, device="meta") for name, shape in shapes.items()}
    return {**made, "y": torch.empty((B,), dtype=torch.int64, device="meta")} if labels else made


def on_meta(torch: Any, array: Any, shape: tuple[int, ...], dtype: str) -> None:
    assert (array.device.type, array.dtype, tuple(array.shape)) == ("meta", getattr(torch, dtype), shape)


def everything(torch: Any, net: Network, dtype: str, labels: bool = False) -> None:
    """Each method's shapes; on "meta" any value read raises."""
    w, x, y, s = meta(torch, net, dtype, labels).values()
    sizes, L = net.sizes, len(net.sizes) - 1
    for weight in (None, s):
        c: Any = net.backward(w, x, y, sample_weight=weight)
        for part in (c.p, c.q, c.Delta):
            for array, n in zip(part, sizes, strict=True):
                on_meta(torch, array, (B, n), dtype)
        for i in range(L):
            on_meta(torch, c.dW[i], (sizes[i + 1], sizes[i]), dtype)
            on_meta(torch, c.db[i], (sizes[i + 1],), dtype)
        on_meta(torch, c.gradient, (net.n_weights,), dtype)
        for C in (c.cost, net.cost(w, x, y, sample_weight=weight, reduction="sum")):
            on_meta(torch, C, (), dtype)
        C, g = net.cost_and_gradient(w, x, y, sample_weight=weight)
        on_meta(torch, C, (), dtype)
        on_meta(torch, g, (net.n_weights,), dtype)
    on_meta(torch, net.predict(w, x), (B, sizes[-1]), dtype)
    on_meta(torch, net.gradient(w, x, y), (net.n_weights,), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", HIDDEN)
def test_no_activation_reads_a_value(torch: Any, name: str, dtype: str) -> None:
    everything(torch, Network((3, 4, 2), hidden=name, output=name, input=name), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cost", COSTS)
def test_no_cost_reads_a_value(torch: Any, cost: str, dtype: str) -> None:
    everything(torch, Network((3, 4, 2), hidden="tanh", cost=cost), dtype)
    if cost.endswith("cross_entropy"):
        everything(torch, Network((3, 4, 2), hidden="tanh", output="softmax", cost=cost), dtype)


def test_classes_are_not_read(torch: Any) -> None:
    everything(torch, Network((3, 4, 2), cost="cross_entropy"), "float32", labels=True)


@pytest.mark.parametrize("name", optimizers.names())
def test_no_optimizer_reads_a_value(torch: Any, name: str) -> None:
    optimizer = optimizers.get(name)
    w = torch.empty(7, device="meta")
    state = optimizer.init(w)
    for _ in range(2):
        w, state = optimizer.step(w, w, state)
    on_meta(torch, w, (7,), "float32")


def test_meta_does_show_hidden_reads(torch: Any) -> None:
    """What the tests above rest on."""
    C = torch.empty((), device="meta")
    for read in (float, bool, lambda C: C.item()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(C)


def test_weights_drawn_onto_meta(torch: Any) -> None:
    w = Network((3, 2)).init(xp=torch, device="meta")
    on_meta(torch, w, (8,), "float32")


@pytest.mark.parametrize("name", ["w", "x", "y", "s"])
def test_two_devices_are_refused(torch: Any, name: str) -> None:
    net = Network((3, 4, 2))
    arrays = meta(torch, net, "float32")
    arrays[name] = torch.ones(arrays[name].shape)
    wrong = {"w": "x", "s": "sample_weight"}.get(name, name)
    words = rf"{wrong} must be on (meta|cpu) like w, got one on (meta|cpu): move it with torch.asarray\({wrong}, dev"
    with pytest.raises(RuntimeError, match=words):
        net.gradient(*(arrays[a] for a in "wxy"), sample_weight=arrays["s"])


@pytest.mark.parametrize("cost", COSTS)
def test_autograd_finds_the_same_gradient(torch: Any, cost: str) -> None:
    net = Network((3, 4, 2), hidden="silu", cost=cost)
    rng = np.random.default_rng(0)
    w, x, y = rng.standard_normal(net.n_weights), rng.standard_normal((B, 3)), targets(cost, rng, B, 2)
    learnt = torch.tensor(w, requires_grad=True)
    net.cost(learnt, torch.tensor(x), torch.tensor(y)).backward()
    np.testing.assert_allclose(net.gradient(w, x, y), learnt.grad, rtol=1e-11, atol=1e-15)


def test_half_precision_is_refused(torch: Any) -> None:
    net = Network((3, 4, 2))
    w, x, y, _ = meta(torch, net, "bfloat16").values()
    with pytest.raises(TypeError, match=r"w must be float32 or float64, got torch\.bfloat16: convert it"):
        net.gradient(w, x, y)
