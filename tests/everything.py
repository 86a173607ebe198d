"""Every public name, called with arrays of one place; ``test_cupy_every_name`` compares places."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import gpubp
from gpubp import Device, Network, activations, costs, initializers, optimizers, plots, schedules
from gpubp import matrix_calculus as calculus
from gpubp.engines import engine_for


class There(NamedTuple):
    """Where something is tried: a device, and how arrays come to it."""

    device: Device
    folder: Path

    def __call__(self, *shape: int, seed: int = 0) -> Any:
        return self.put(np.random.default_rng([seed, *shape]).uniform(0.1, 0.9, shape))

    def put(self, host: Any) -> Any:
        return host if self.device.name == "cpu" else sys.modules["cupy"].asarray(host)


Try = Callable[[There], Any]
TRIES: dict[str, tuple[Try, tuple[str, ...]]] = {}


def tries(*names: str) -> Callable[[Try], Try]:
    """Note which public names a function tries."""

    def note(function: Try) -> Try:
        TRIES[function.__name__] = function, names
        return function

    return note


NET = Network((3, 4, 2), hidden="tanh", cost="binary_cross_entropy")
LINEAR = Network((3, 4, 2), hidden="identity")
CLASSES = Network((2, 5, 3), hidden="silu", cost="cross_entropy")
LABELS = np.array([0, 1, 2, 1, 0, 2, 2])


def w_of(net: Network, at: There) -> Any:
    return at.put(net.init(2, dtype="float64", weights="glorot_normal", biases="normal(0.1)"))


def fit(at: There, net: Network = NET, **more: Any) -> Any:
    given = {"epochs": 2, "batch_size": 3, "progress": False, "device": at.device, **more}
    return gpubp.train(net, at(7, net.sizes[0]), at(7, net.sizes[-1], seed=1), **given)


@tries(
    "Network",
    "Network.forward",
    "Network.predict",
    "Network.layers",
    "Network.flatten",
    "ForwardChains",
)
def forward(at: There) -> Any:
    w, x = w_of(NET, at), at(5, 3)
    net = Network((3, 2))
    layers = NET.layers(w)
    return NET.forward(w, x)[:2], NET.predict(w, x), layers, NET.flatten(layers), net.predict(at(8), x)


@tries("Network.backward", "Network.cost", "Network.gradient", "Network.cost_and_gradient", "Chains")
def backward(at: There) -> Any:
    w, x, y, s = w_of(NET, at), at(5, 3), at(5, 2), at(5)
    chains = NET.backward(w, x, y, sample_weight=s)
    return (
        tuple(chains),
        NET.cost(w, x, y, reduction="sum"),
        NET.gradient(w, x, y),
        NET.cost_and_gradient(w, x, y, sample_weight=s),
    )


@tries("Network.collapse", "Network.init")
def collapse_and_init(at: There) -> Any:
    drawn = [NET.init(3, dtype="float64", device=at.device.name, weights=name) for name in ("orthogonal",)]
    return LINEAR.collapse(w_of(LINEAR, at)), drawn


@tries("activations.get", "activations.names", "Activation", "activations.Activation", "per_node")
def every_activation(at: There) -> Any:
    p = at(4, 6) - at.put(np.array(0.5))
    xp, found = engine_for(p).xp, []
    for sigma in map(activations.get, activations.names()):
        q = sigma.value(xp, p)
        net = Network((6, 6, 2), hidden=sigma, cost="huber")
        found += [q, net.backward(w_of(net, at), p, at(4, 2)).gradient]
    own = gpubp.Activation(lambda xp, p: p**3, lambda xp, p, q: 3 * p**2, name="cube")
    mixed = gpubp.per_node([own, "tanh", "relu", "relu", "softplus", own])
    net = Network((6, 6, 2), hidden=mixed)
    return found, net.gradient(w_of(net, at), p, at(4, 2)), mixed.value(xp, p)


@tries(*(f"activations.{name}" for name in activations.names()))
def activations_by_name(at: There) -> Any:
    p = at(4, 6)
    parts = [getattr(activations, name)() for name in activations.names()]
    return [sigma.value(engine_for(p).xp, p) for sigma in parts]


@tries(
    "costs.get", "costs.names", "Cost", "costs.Cost", "costs.Partner", *(f"costs.{n}" for n in costs.names())
)
def every_cost(at: There) -> Any:
    found = []
    partner = costs.Partner("identity")
    own = gpubp.Cost(
        lambda xp, q, y: xp.sum((q - y) ** 4, axis=1), lambda xp, q, y: 4 * (q - y) ** 3, name="quartic"
    )
    made = [getattr(costs, name)() for name in costs.names()]
    assert made == [costs.get(name) for name in costs.names()]
    assert own.partner.activation == partner.activation
    for cost in [*made, own]:
        net = Network((3, 4, 2), hidden="tanh", cost=cost)
        w, x = w_of(net, at), at(5, 3)
        y = at.put(LABELS[:5] % 2) if cost.labels else at(5, 2)
        found += [net.cost_and_gradient(w, x, y), net.backward(w, x, y)[2]]
    return found


@tries(
    "initializers.drawn",
    "initializers.default_for",
    "initializers.get",
    "initializers.names",
    "initializers.Initializer",
    *(f"initializers.{name}" for name in initializers.names()),
)
def every_initializer(at: There) -> Any:
    name, net = at.device.name, Network((3, 3, 3))
    made = [getattr(initializers, each)() for each in initializers.names()]
    assert all(map(callable, made + [initializers.get(each) for each in initializers.names()]))
    assert initializers.default_for("relu").startswith("he")
    draw = at.put(initializers.drawn(made[0], np.random.default_rng(0), (3, 3), 3, 3))
    return [net.init(1, dtype="float64", device=name, weights=each) for each in made], draw


@tries(
    *(f"{cls}.{method}" for cls in ("SGD", "Momentum", "Nesterov", "RMSprop", "Adam", "AdamW")
      for method in ("init", "step", "descend", "numbers", "formula")),
    *(f"optimizers.{name}" for name in optimizers.__all__),
    "SGD", "Momentum", "Nesterov", "RMSprop", "Adam", "AdamW",
)  # fmt: skip
def every_optimizer(at: There) -> Any:
    found = []
    assert [type(optimizers.get(name)) for name in optimizers.names()] == [
        gpubp.SGD, gpubp.Momentum, gpubp.Nesterov, gpubp.RMSprop, gpubp.Adam, gpubp.AdamW,
    ]  # fmt: skip
    for name in optimizers.names():
        optimizer: Any = optimizers.get(name)
        w, g = at(6), at(6, seed=1)
        state = optimizer.init(w)
        for _ in range(2):
            w, state = optimizer.step(w, g, state)
        found += [w, state.slots, fit(at, optimizer=optimizer).w]
    return found


@tries(*(f"schedules.{name}" for name in schedules.__all__))
def every_schedule(at: There) -> Any:
    warm = schedules.WarmUp(2, schedules.Cosine(0.1, 5))
    rates: list[schedules.Schedule] = [
        schedules.Constant(0.1),
        schedules.StepDecay(0.1, 2),
        schedules.InverseScaling(0.1),
        warm,
    ]
    return [fit(at, optimizer=gpubp.SGD(rate)).w for rate in rates], [schedules.rate_at(warm, 3)]


@tries("train", "Run", "Run.predict", "callbacks.TrainingState", "callbacks.ProgressBar")
def training(at: There) -> Any:
    seen: list[Any] = []

    class Watch:
        def on_batch_end(self, state: Any) -> None:
            seen.append([1.0 * state.w, 1.0 * state.cost])

    with contextlib.redirect_stderr(sys.stdout):
        run = fit(at, validation=0.3, l1=0.01, l2=0.1, clip_norm=1.0, callbacks=[Watch()], progress=True)
    history = [run.history[name] for name in ("cost", "metric", "validation_cost", "validation_metric")]
    return run.w, history, run.predict(at(4, 3)), seen, [run.device.name == at.device.name]


@tries("DivergenceError")
def divergence(at: There) -> Any:
    with pytest.raises(gpubp.DivergenceError) as caught:
        fit(at, LINEAR, optimizer=gpubp.SGD(1e200), w=at(LINEAR.n_weights))
    return caught.value.w, [caught.value.epoch, caught.value.batch]


@tries("check_gradient", "Report", "explain", "Explanation", "Explanation.html", "Explanation.latex")
def be_sure(at: There) -> Any:
    w, x, y = w_of(NET, at), at(2, 3), at(2, 2)
    report = gpubp.check_gradient(NET, w, x, y)
    told = gpubp.explain(NET, w, x, y)
    assert told.html().startswith("<!")
    return [report.passed, report.method, report.checked], [len(told.latex()), len(str(told))]


@tries("save", "load", "Saved", "Saved.predict", "Saved.classes", "CheckpointError")
def saving(at: There) -> Any:
    path = at.folder / "model"
    w, x, name = w_of(CLASSES, at), at(5, 2), at.device.name
    gpubp.save(path, CLASSES, w, scaler=gpubp.Standardizer.fit(x), labels=["a", "b", "c"])
    saved = gpubp.load(path, device=at.device)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(gpubp.CheckpointError):
        gpubp.load(path, device=name)
    assert saved.scaler is not None
    return saved.w, saved.scaler.mean, saved.predict(x), saved.classes(x).tolist()


@tries("Standardizer", *(f"Standardizer.{name}" for name in ("fit", "apply", "invert", "put")), "load_digits")
def data(at: There) -> Any:
    X, labels = gpubp.load_digits()
    scaler = gpubp.Standardizer.fit(at.put(X[:50].astype(float)))
    z = scaler.apply(at.put(X[:5].astype(float)))
    moved = scaler.put(at.device)
    return scaler.mean, scaler.scale, z, scaler.invert(z), moved.mean, labels[:5].tolist()


@tries("Device", "Device.put", "Device.current", "Device.free_bytes", "Device.give_back", "device", "devices")
def places(at: There) -> Any:
    device = gpubp.device(at.device.name)
    assert device in gpubp.devices()
    assert (device.free_bytes() is None) == (device.name == "cpu")
    device.give_back()
    with device.current():
        return device.put(np.arange(3.0)), device.put(np.arange(6).reshape(2, 3).T)


@tries(*(f"matrix_calculus.{name}" for name in calculus.__all__), "matrix_calculus.Identity.check")
def matrices(at: There) -> Any:
    A, x, y = at(4, 3), at(3, 1), at(4, 1)
    xp = engine_for(A).xp
    worst = [identity.check(xp) for identity in calculus.identities.values()]
    slope = calculus.Identity("y' A x", {"A": "y x'"}, {"A": ("m", "n"), "x": ("n", "1"), "y": ("m", "1")})
    assert max([*worst, slope.check(xp)]) < 1e-7
    term = "y_i a_ij x_j"
    assert calculus.contract(term) == term
    assert calculus.shape("y' A x", slope.shapes) == ("1", "1")
    (derivative, *_) = calculus.products(("m", "n"), {"y": (("m", "1"), 1), "x": (("n", "1"), 1)})
    assert calculus.differentiate(term, "a_kl")
    numbers = calculus.value(derivative, x=x, y=y), calculus.value("sigma(A x)", A=A, x=x, sigma="tanh")
    return numbers, calculus.index_sum(term, y=y[:, 0], a=A, x=x[:, 0]), calculus.index_sum("a_ii", a=A[:3])


def drawn(pyplot: Any, *axes: Any) -> list[Any]:
    """The numbers in a picture."""
    pyplot.close("all")
    found = [[np.asarray(line.get_xydata()).tolist() for line in ax.lines] for ax in axes]
    return [found, [len(ax.patches) + len(ax.collections) + len(ax.images) for ax in axes]]


@tries(*(f"plots.{name}" for name in plots.__all__), "plots.Snapshots.on_epoch_end")
def pictures(at: There) -> Any:
    pytest.importorskip("matplotlib").use("Agg")
    pyplot = import_module("matplotlib.pyplot")
    w, x, y = w_of(NET, at), at(5, 3), at(5, 2)
    flat, X2, labels = w_of(CLASSES, at), at(7, 2), at.put(LABELS)
    one = Network((1, 1), hidden="identity", bias=False)
    kept = plots.Snapshots()
    run = fit(at, callbacks=[kept])
    plain = Network((3, 4, 2), hidden="tanh")
    found = [
        plots.activation("tanh", "relu"),
        [plots.activation_histograms(NET, w, x)],
        [plots.architecture(NET, w)],
        [plots.confusion_matrix(CLASSES.predict(flat, X2), labels)],
        [plots.cost_along_gradient(NET, w, x, y)],
        [plots.cost_plane(NET, w, x, y, resolution=3)],
        [plots.decision_boundary(CLASSES, flat, X2, labels, resolution=5)],
        [plots.descent(one, at(4, 1), at(4, 1, seed=1), starts=[0.0], learning_rate=0.1, steps=2)],
        [plots.history(run)],
        [plots.norms(NET, w, x, y)],
        [plots.norms_in_training(NET, list(map(at.put, kept)), x, y)],
        [plots.predicted_against_true(plain.predict(w, x), y)],
    ]
    return [drawn(pyplot, *axes) for axes in found]
