"""Optimizers: first steps by hand, twenty steps against PyTorch's, and nobody's arrays overwritten."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import PLACES, Place, _ready

from gpubp import SGD, Adam, AdamW, Momentum, Nesterov, Network, RMSprop, optimizers
from gpubp.optimizers import Optimizer
from gpubp.schedules import StepDecay

# From w = (1, -2), with g = (1/2, -4) and then (1/4, 2): what two steps give, worked out by hand.
FIRST, SECOND = (0.5, -4.0), (0.25, 2.0)
ROOT = math.sqrt
BY_HAND: list[tuple[Optimizer, Callable[[float, float, float], tuple[float, float]]]] = [
    (SGD(0.1), lambda w, g, h: (w - 0.1 * g, w - 0.1 * (g + h))),
    (Momentum(0.1, momentum=0.5), lambda w, g, h: (w - 0.1 * g, w - 0.1 * (1.5 * g + h))),
    (
        Nesterov(0.1, momentum=0.5),
        lambda w, g, h: (w - 0.1 * 1.5 * g, w - 0.1 * (1.5 * g + h + 0.5 * (0.5 * g + h))),
    ),
    (
        RMSprop(0.1, decay=0.75, epsilon=0.5),
        lambda w, g, h: (
            w - 0.1 * g / (abs(g) / 2 + 0.5),
            w - 0.1 * g / (abs(g) / 2 + 0.5) - 0.1 * h / (ROOT(0.75 * g * g / 4 + h * h / 4) + 0.5),
        ),
    ),
    (
        Adam(0.1, beta1=0.5, beta2=0.75, epsilon=0.5),  # bias corrections 1/2, 1/4, then 3/4, 7/16
        lambda w, g, h: (
            w - 0.1 * g / (abs(g) + 0.5),
            w
            - 0.1 * g / (abs(g) + 0.5)
            - 0.1 * ((g / 4 + h / 2) / 0.75) / (ROOT((3 * g * g / 16 + h * h / 4) / (7 / 16)) + 0.5),
        ),
    ),
    (
        AdamW(0.1, beta1=0.5, beta2=0.75, epsilon=0.5, weight_decay=0.2),  # shrinks w by 0.98 at each step
        lambda w, g, h: (
            0.98 * w - 0.1 * g / (abs(g) + 0.5),
            0.98 * (0.98 * w - 0.1 * g / (abs(g) + 0.5))
            - 0.1 * ((g / 4 + h / 2) / 0.75) / (ROOT((3 * g * g / 16 + h * h / 4) / (7 / 16)) + 0.5),
        ),
    ),
]
IDS = [type(optimizer).__name__ for optimizer, _ in BY_HAND]


@pytest.mark.parametrize(("optimizer", "right"), BY_HAND, ids=IDS)
def test_two_steps_by_hand(place: Place, optimizer: Optimizer, right: Callable[..., Any]) -> None:
    w = place.array([1.0, -2.0])
    state = optimizer.init(w)
    for n, g in enumerate((FIRST, SECOND)):
        w, state = optimizer.step(w, place.array(g), state)
        assert place.here(w)
        assert all(place.here(slot) for slot in state.slots)
        assert state.steps == n + 1
        by_hand = [right(start, *gs)[n] for start, *gs in zip((1.0, -2.0), FIRST, SECOND, strict=True)]
        np.testing.assert_allclose(place.host(w), by_hand, rtol=4 * place.eps)


def test_the_first_step_of_adam_is_the_learning_rate() -> None:
    """Kingma & Ba 2014, section 2.1: the step's size is about eta whatever the gradient's scale."""
    w, g = np.zeros(4), np.array([1e-3, -2.0, 5e4, 0.0])
    new_w, _ = Adam().step(w, g, Adam().init(w))
    np.testing.assert_allclose(new_w, [-1e-3, 1e-3, -1e-3, 0.0], rtol=2e-5)


def test_momentum_of_a_constant_gradient_adds_up() -> None:
    """After many steps, eta g / (1 - mu) a step (Goh 2017)."""
    w = np.zeros(1)
    optimizer = Momentum(0.1, momentum=0.75)
    state = optimizer.init(w)
    for _ in range(100):
        before, (w, state) = w, optimizer.step(w, np.ones(1), state)
    assert (before - w)[0] == pytest.approx(0.1 / 0.25)


TORCH: list[tuple[Optimizer, str, dict[str, Any]]] = [
    (SGD(0.1), "SGD", {"lr": 0.1}),
    (Momentum(0.05, momentum=0.8), "SGD", {"lr": 0.05, "momentum": 0.8}),
    (Nesterov(0.05, momentum=0.8), "SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    (RMSprop(0.02, decay=0.95), "RMSprop", {"lr": 0.02, "alpha": 0.95, "eps": 1e-8}),
    (Adam(0.03), "Adam", {"lr": 0.03}),
    (
        AdamW(0.03, beta1=0.8, weight_decay=0.1),
        "AdamW",
        {"lr": 0.03, "betas": (0.8, 0.999), "weight_decay": 0.1},
    ),
]


@pytest.mark.parametrize(("optimizer", "name", "options"), TORCH, ids=IDS)
def test_twenty_steps_as_in_pytorch(
    torch: Any, optimizer: Optimizer, name: str, options: dict[str, Any]
) -> None:
    """On a cost with a gradient that turns, C = sum (w^4 / 4 - w), with eta halved at step 10."""
    w = np.random.default_rng(0).standard_normal(50)
    theirs = torch.tensor(w, requires_grad=True)
    step = getattr(torch.optim, name)([theirs], **options)
    halved = torch.optim.lr_scheduler.StepLR(step, step_size=10, gamma=0.5)
    fields = {**vars(optimizer), "learning_rate": StepDecay(options["lr"], every=10, factor=0.5)}
    ours = type(optimizer)(**fields)
    state = ours.init(w)
    for _ in range(20):
        w, state = ours.step(w, w**3 - 1, state)
        theirs.grad = theirs.detach() ** 3 - 1
        step.step()
        halved.step()
    np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", optimizers.names())
def test_a_step_is_pure_unless_told(place: Place, name: str, overwrite: bool) -> None:
    """40,000 weights are several blocks; the same numbers come out either way."""
    optimizer = optimizers.get(name)
    rng = np.random.default_rng(1)
    host = {name: rng.standard_normal(40000) for name in "wgh"}
    w, g, h = (place.array(a) for a in host.values())
    _, state = optimizer.step(w, g, optimizer.init(w))
    right = optimizer.step(place.array(host["w"]), place.array(host["h"]), copy.copy(state))
    right = [place.host(a).copy() for a in (right[0], *right[1].slots)]
    kept = [place.host(a).copy() for a in (w, g, h, *state.slots)]
    new_w, new_state = optimizer.step(w, h, state, overwrite=overwrite)
    for a, b in zip((new_w, *new_state.slots), right, strict=True):
        np.testing.assert_array_equal(place.host(a), b)
    if overwrite and place.name in ("numpy", "cupy"):
        assert new_w is w
        assert all(a is b for a, b in zip(new_state.slots, state.slots, strict=True))
        kept[0], kept[3:] = right[0], right[1:]
    for a, b in zip((w, g, h, *state.slots), kept, strict=True):
        np.testing.assert_array_equal(place.host(a), b)
    assert (state.steps, new_state.steps) == (1, 2)


@pytest.mark.parametrize("name", optimizers.names())
def test_dtypes_are_kept(name: str) -> None:
    """A NumPy number for a learning rate, or a schedule that gives one, turns nothing into float64."""
    for rate in (np.float64(0.1), lambda step: np.float64(0.1)):
        optimizer = type(optimizers.get(name))(learning_rate=rate)
        w = np.ones(3, "float32")
        for overwrite in (False, True):
            new_w, state = optimizer.step(w, w, optimizer.init(w), overwrite=overwrite)
            assert {a.dtype for a in (new_w, *state.slots)} == {np.dtype("float32")}


PLACES64 = [p for p in PLACES if p.dtype == "float64" and p.name != "numpy"]


@pytest.mark.parametrize("there", PLACES64, ids=str)
def test_the_same_seed_gives_the_same_weights(there: Place) -> None:
    """After 100 steps of Adam on minibatches, from net.init, to 1e-10."""
    _ready(there)
    net = Network((5, 8, 6, 3), hidden=("gelu", "tanh"), cost="cross_entropy")
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)

    def weights(place: Place) -> Any:
        w = place.array(net.init(1, dtype="float64"))
        optimizer = Adam(0.01)
        state = optimizer.init(w)
        for step in range(100):
            rows = slice(step % 4 * 15, step % 4 * 15 + 15)
            g = net.gradient(w, place.array(X[rows]), place.array(Y[rows]))
            w, state = optimizer.step(w, g, state, overwrite=True)
        return place.host(w)

    right = weights(Place("numpy", "", "float64"))
    assert np.abs(right - net.init(1, dtype="float64")).max() > 0.1
    np.testing.assert_allclose(weights(there), right, rtol=0, atol=1e-10)


def test_defaults() -> None:
    assert Adam() == Adam(learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8)
    assert AdamW().weight_decay == 0.01
    assert Momentum() == Momentum(learning_rate=0.01, momentum=0.9)
    assert RMSprop() == RMSprop(learning_rate=1e-3, decay=0.9, epsilon=1e-8)


@pytest.mark.parametrize(
    "name", [*optimizers.names(), "adam(learning_rate=0.01)", "momentum(0.1, momentum=0.5)"]
)
def test_optimizers_are_values(name: str) -> None:
    optimizer = optimizers.get(name)
    assert optimizers.get(optimizer) is optimizer
    for twin in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer), eval(repr(optimizer))):
        assert twin == optimizer
        assert hash(twin) == hash(optimizer)
    with pytest.raises(AttributeError):
        optimizer.learning_rate = 1.0


def test_numbers_in_names() -> None:
    assert optimizers.get("adam(learning_rate=0.01)") == Adam(0.01)
    assert optimizers.get("Adam(0.01, beta1=0.8)") == Adam(0.01, beta1=0.8)
    assert optimizers.get("sgd") == SGD()
    assert SGD(1) == SGD(1.0)


def test_ones_own() -> None:
    class Sign:
        """Only init and step are asked for."""

        def init(self, w: Any) -> None:
            return None

        def step(self, w: Any, g: Any, state: None) -> tuple[Any, None]:
            return w - 0.1 * np.sign(g), None

    mine = Sign()
    assert optimizers.get(mine) is mine


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: optimizers.get("adm"),
            ValueError,
            r"optimizer must be one of .*, got 'adm': did you mean 'adam'\?",
        ),
        (
            lambda: optimizers.get("adam(rate=1)"),
            ValueError,
            r"can't be read: Adam takes the numbers learning_rate, b",
        ),
        (
            lambda: optimizers.get(Adam),
            TypeError,
            r"optimizer must be a name or have init\(w\) and step\(w, g, state\)",
        ),
        (lambda: optimizers.get(0.1), TypeError, r"got 0.1: try gpubp.Adam\(learning_rate=1e-3\)"),
        (
            lambda: SGD(-1.0),
            ValueError,
            r"learning_rate must lie in \[0, inf\), got -1: give a number inside",
        ),
        (lambda: SGD(math.nan), ValueError, r"learning_rate must lie in \[0, inf\), got nan"),
        (lambda: SGD("fast"), TypeError, r"learning_rate must be a number, got str: give a float"),  # type: ignore[arg-type]
        (lambda: Momentum(momentum=1.0), ValueError, r"momentum must lie in \[0, 1\), got 1"),
        (lambda: RMSprop(decay=1.5), ValueError, r"decay must lie in \[0, 1\), got 1.5"),
        (lambda: Adam(beta2=1), ValueError, r"beta2 must lie in \[0, 1\), got 1"),
        (lambda: Adam(epsilon=-1e-8), ValueError, r"epsilon must lie in \[0, inf\), got -1e-08"),
        (lambda: AdamW(weight_decay=math.inf), ValueError, r"weight_decay must lie in \[0, inf\), got inf"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
