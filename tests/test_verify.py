"""check_gradient: right networks pass, every planted mistake is found and placed, kinks are no mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import PLACES, Place, library
from reference import COSTS, targets

import gpubp
from gpubp import Activation, Cost, Network, Report, check_gradient
from gpubp.engines import Numpy

without_jax = pytest.mark.parametrize("place", [p for p in PLACES if p.name != "jax"], indirect=True, ids=str)


def problem(net: Network, B: int = 6, seed: int = 0, dtype: str = "float64") -> tuple[Any, Any, Any]:
    """w with biases that aren't 0, x, and targets that suit every cost."""
    rng = np.random.default_rng(seed)
    w = net.init(seed, dtype="float64") + 0.1 * rng.standard_normal(net.n_weights)
    x, y = rng.standard_normal((B, net.sizes[0])), rng.uniform(0.1, 0.9, (B, net.sizes[-1]))
    return w.astype(dtype), x.astype(dtype), y.astype(dtype)


SMOOTH = Network((3, 4, 2), hidden="tanh", cost="cross_entropy")
KINKED = Network((3, 4, 5, 2), hidden=("relu", "leaky_relu"), cost="huber")


# right networks


@pytest.mark.parametrize("place", [p for p in PLACES if str(p) != "jax-float32"], indirect=True, ids=str)
@pytest.mark.parametrize("net", [SMOOTH, KINKED, Network((3, 1), bias=False)], ids=str)
def test_right_networks_pass(place: Place, net: Network) -> None:
    if place.device.startswith("no_"):
        pytest.skip("no float64 there")
    w, x, y = map(place.array, problem(net))
    report = check_gradient(net, w, x, y)
    assert report.passed, report
    analytic = net is not KINKED
    assert (report.method, report.checked) == ("complex" if analytic else "central", net.n_weights)
    assert report.tolerance == (1e-3 if place.dtype == "float32" else 1e-12 if analytic else 1e-7)
    assert 0 <= report.worst <= report.tolerance


@pytest.mark.parametrize("cost", COSTS)
def test_every_cost(cost: str) -> None:
    net = Network((3, 4, 2), hidden="tanh", cost=cost)
    w, x, _ = problem(net)
    y, s = targets(cost, np.random.default_rng(0), 6, 2), np.arange(6.0)
    methods = ("complex", "central") if net.analytic else ("central",)
    for method in methods:
        report = check_gradient(net, w, x, y, sample_weight=s, method=method)
        assert report.passed, report
    assert check_gradient(net, w, x, y, sample_weight=s).method == methods[0]


@without_jax
def test_weights_and_classes(place: Place) -> None:
    if place.device.startswith("no_"):
        pytest.skip("no float64 there")
    w, x, _ = map(place.array, problem(SMOOTH))
    y, s = place.array(np.array([0, 1, 1, 0, 1, 0], "int32")), place.array(np.arange(6.0))
    for method in ("complex", "central"):
        report = check_gradient(SMOOTH, w, x, y, sample_weight=s, method=method)
        assert report.passed, report


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["central", "complex"])
def test_large_networks_go_in_random_directions(dtype: str, method: str) -> None:
    net = Network((30, 40, 25, 4), hidden="tanh", cost="cross_entropy")
    report = check_gradient(net, *problem(net, dtype=dtype), method=method)
    assert report.passed, report
    assert report.checked == 40
    assert report.where.startswith("direction ")
    assert report != check_gradient(net, *problem(net, dtype=dtype), method=method, seed=1)
    assert report == check_gradient(net, *problem(net, dtype=dtype), method=method, seed=0)


def test_the_tolerances_of_the_methods() -> None:
    w, x, y = problem(SMOOTH)
    assert check_gradient(SMOOTH, w, x, y, method="central").tolerance == 1e-7
    assert check_gradient(SMOOTH, w, x, y, method="complex").worst <= 1e-13
    assert check_gradient(SMOOTH, *problem(SMOOTH, dtype="float32")).tolerance == 1e-3


@pytest.mark.parametrize("hidden", ["relu", "leaky_relu", "selu", "elu(alpha=0.5)"])
@pytest.mark.parametrize("sizes", [(2, 2, 2, 1), (3, 3, 3, 3, 3, 2), (4, 5, 3, 2)], ids=str)
def test_layers_that_are_dead_for_a_row(sizes: tuple[int, ...], hidden: str) -> None:
    """With biases of 0, as first drawn, the next layer's p is then exactly at the kink."""
    net, at_the_kink = Network(sizes, hidden=hidden), 0
    for seed in range(6):
        _, x, y = problem(net, seed=seed)
        w = net.init(seed, dtype="float64")
        at_the_kink += any((p == 0).any() for p in net.forward(w, x).p)
        report = check_gradient(net, w, x, y)
        assert report.passed, report
    assert at_the_kink or hidden != "relu"


@pytest.mark.parametrize("hidden", ["relu", "leaky_relu(slope=0.3)", "selu"])
def test_rows_of_zeros(hidden: str) -> None:
    for sizes in ((3, 4, 2), (3, 4, 4, 2), (40, 60, 5)):
        net = Network(sizes, hidden=hidden)
        _, x, y = problem(net)
        x[1] = 0.0
        report = check_gradient(net, net.init(0, dtype="float64"), x, y)
        assert report.passed, report


@pytest.mark.parametrize("cost", ["absolute_error", "quantile(tau=0.2)"])
def test_targets_that_are_met(cost: str) -> None:
    net = Network((3, 4, 2), hidden="tanh", cost=cost)
    w, x, y = problem(net)
    y[:2] = net.predict(w, x)[:2]
    assert check_gradient(net, w, x, y).passed


def test_a_gradient_of_zeros() -> None:
    net = Network((3, 4, 2), hidden="tanh")
    w, x, _ = problem(net)
    report = check_gradient(net, w, x, net.predict(w, x))
    assert report.passed, report


@pytest.mark.parametrize("method", ["central", "complex"])
def test_at_an_optimum(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Where the gradient is rounding and nothing else, and a mistake of the data's size is still one."""
    net = Network((3, 1), bias=False)
    for seed in range(5):
        _, x, y = problem(net, B=40, seed=seed)
        y *= 10.0
        w = np.linalg.lstsq(x, y, rcond=None)[0][:, 0]
        assert np.abs(net.gradient(w, x, y)).max() < 1e-13
        assert check_gradient(net, w, x, y, method=method).passed
        with monkeypatch.context() as patch:
            plant(patch, lambda g: g + 1e-5)
            assert not check_gradient(net, w, x, y, method=method).passed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", ["relu", "tanh"])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_trained_networks(hidden: str, dtype: str, rows: int) -> None:
    net = Network((4, 8, 3), hidden=hidden, cost="cross_entropy")
    x = np.random.default_rng(0).standard_normal((40, 4)).astype(dtype)
    y = np.argmax(x[:, :3], axis=1)
    run = gpubp.train(
        net, x, y, optimizer=gpubp.Adam(0.05), epochs=400, batch_size=40, device="cpu", progress=False
    )
    assert run.history["cost"][-1] < 1e-2
    report = check_gradient(net, run.w, x[:rows], y[:rows])
    assert report.passed, report


# planted mistakes


def plant(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let ``net.gradient`` give ``change(g)`` for g."""
    right = Network.cost_and_gradient

    def wrong(*args: Any, **more: Any) -> tuple[Any, Any]:
        C, g = right(*args, **more)
        return C, change(g.copy())

    monkeypatch.setattr(Network, "cost_and_gradient", wrong)


@pytest.mark.parametrize("method", ["central", "complex"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_wrong_weight_is_placed(monkeypatch: pytest.MonkeyPatch, method: str, dtype: str) -> None:
    w, x, y = problem(SMOOTH, dtype=dtype)
    places = [
        f"W[{i}][{r}, {c}]" for i, (n, m) in enumerate([(4, 3), (2, 4)]) for r in range(n) for c in range(m)
    ]
    places += [f"b[{i}][{r}]" for i, n in enumerate([4, 2]) for r in range(n)]
    assert len(places) == SMOOTH.n_weights
    off = 5e-2 if dtype == "float32" else 1e-5

    for k, place in enumerate(places):

        def change(g: Any, k: int = k) -> Any:
            g[k] += off * np.abs(g).max()
            return g

        with monkeypatch.context() as patch:
            plant(patch, change)
            report = check_gradient(SMOOTH, w, x, y, method=method)
        assert (report.passed, report.where) == (False, place)


@pytest.mark.parametrize(("net", "k", "place"), [(KINKED, 12 + 7, "W[1][1, 3]"), (KINKED, -1, "b[2][1]")])
def test_one_wrong_weight_among_kinks(
    monkeypatch: pytest.MonkeyPatch, net: Network, k: int, place: str
) -> None:
    def change(g: Any) -> Any:
        g[k] += 1e-4 * np.abs(g).max()
        return g

    plant(monkeypatch, change)
    report = check_gradient(net, *problem(net))
    assert (report.passed, report.where) == (False, place)


@pytest.mark.parametrize(("method", "little", "much"), [("central", 1e-9, 1e-6), ("complex", 1e-14, 1e-11)])
@pytest.mark.parametrize("sizes", [(3, 4, 2), (30, 60, 5)])
def test_how_much_is_too_much(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], method: str, little: float, much: float
) -> None:
    net = Network(sizes, hidden="tanh")
    w, x, y = problem(net)
    for off, passes in (
        (0.0, True),
        (little, True),
        (much, False),
        (-much, False),
        (-1.0, False),
        (1.0, False),
    ):
        with monkeypatch.context() as patch:
            plant(patch, lambda g, off=off: g * (1.0 + off))
            assert check_gradient(net, w, x, y, method=method).passed == passes, off


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["central", "complex"])
def test_a_gradient_that_is_not_finite_fails(
    monkeypatch: pytest.MonkeyPatch, method: str, value: float
) -> None:
    def change(g: Any) -> Any:
        g[17] = value
        return g

    plant(monkeypatch, change)
    report = check_gradient(SMOOTH, *problem(SMOOTH), method=method)
    assert (report.passed, report.where) == (False, "W[1][1, 1]")
    plant(monkeypatch, lambda g: g * np.nan)
    assert not check_gradient(SMOOTH, *problem(SMOOTH), method=method).passed


def test_a_cost_that_is_not_finite_fails() -> None:
    w, x, y = problem(SMOOTH)
    with pytest.raises(ValueError, match="sample_weight must have a finite sum other than 0"):
        check_gradient(SMOOTH, w, x, y, sample_weight=np.zeros(6))
    xp = library("array_api_strict")  # where nothing looks at values
    w, x, y, s = map(xp.asarray, (w, x, y, np.zeros(6)))
    assert not check_gradient(SMOOTH, w, x, y, sample_weight=s).passed
    assert not check_gradient(
        Network((3, 2), output="exp"), 1e4 * np.ones(8), np.ones((2, 3)), np.ones((2, 2))
    ).passed


WRONG = {
    "slope": Activation(
        lambda xp, p: xp.tanh(p), lambda xp, p, q: 1.0001 - q * q, name="slope", analytic=True, check_at=None
    ),
    "sign": Activation(lambda xp, p: -p, lambda xp, p, q: xp.ones_like(p), name="sign", check_at=None),
    "dead": Activation(
        lambda xp, p: xp.maximum(p, 0.0),
        lambda xp, p, q: xp.astype(q >= 0, q.dtype),
        name="dead",
        check_at=None,
    ),
    "leak": Activation(
        lambda xp, p: xp.where(p > 0, p, 0.1 * p),
        lambda xp, p, q: xp.where(p > 0, xp.ones_like(p), 0.2),
        name="leak",
        check_at=None,
    ),
    "pullback": Activation(
        lambda xp, p: p - xp.mean(p, axis=1, keepdims=True),
        pullback=lambda xp, p, q, g: g,
        name="pullback",
        check_at=None,
    ),
    "nan": Activation(lambda xp, p: p, lambda xp, p, q: p * xp.nan, name="nan", check_at=None),
}


@pytest.mark.parametrize("sizes", [(3, 4, 2), (40, 60, 5)], ids=str)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_derivatives_are_found(name: str, sizes: tuple[int, ...]) -> None:
    net = Network(sizes, hidden=WRONG[name])
    for dtype in ("float32", "float64"):
        if dtype == "float64" or name != "slope":  # 1e-4 is within float32's rounding
            report = check_gradient(net, *problem(net, dtype=dtype))
            assert not report.passed
            assert report.where.startswith(("W[0]", "b[0]") if sizes == (3, 4, 2) else "direction")


def test_a_cost_with_a_hidden_1_over_B_is_found() -> None:
    """The trap other libraries set."""
    cost = Cost(lambda xp, q, y: xp.sum((q - y) ** 2, axis=1), lambda xp, q, y: 2.0 * (q - y), name="square")
    net = Network((3, 4, 2), hidden="tanh", cost=cost)
    assert check_gradient(net, *problem(net)).passed
    object.__setattr__(cost, "derivative", lambda xp, q, y: 2.0 * (q - y) / q.shape[0])
    report = check_gradient(net, *problem(net))
    assert not report.passed
    assert report.worst == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("verb", "wrong"),
    [
        ("sum_rows", lambda self, Delta, out=None: Delta.mean(axis=0)),
        ("contract", lambda self, Delta, q, out=None: (Delta.T @ q).T.copy()),
        ("propagate", lambda self, Delta, W, out=None: Delta @ W.T),
        ("weigh", lambda self, Delta, weights, out=None: Delta),
    ],
)
def test_wrong_verbs_are_found(monkeypatch: pytest.MonkeyPatch, verb: str, wrong: Any) -> None:
    net = Network((3, 3, 3), hidden="tanh")
    w, x, y = problem(net)
    assert check_gradient(net, w, x, y).passed
    monkeypatch.setattr(Numpy, verb, wrong)
    monkeypatch.setattr(
        Numpy, "join", lambda self, parts, out=None: np.concatenate([p.ravel() for p in parts])
    )
    assert not check_gradient(net, w, x, y).passed


# the report


def test_reports_print_well() -> None:
    report = Report(3.21e-9, "W[1][0, 2]", "central", 1e-7, True, 26)
    assert str(report) == (
        "gradient check passed: worst relative error 3.2e-09 at W[1][0, 2], tolerance 1e-07 "
        "(central differences, 26 compared)"
    )
    failed = Report(0.25, "direction 3", "complex", 1e-12, False, 40)
    assert str(failed) == (
        "gradient check FAILED: worst relative error 2.5e-01 at direction 3, tolerance 1e-12 "
        "(complex step, 40 compared)"
    )


def test_nothing_of_the_callers_is_written() -> None:
    given = problem(KINKED)
    for part in given:
        part.setflags(write=False)
    assert check_gradient(KINKED, *given).passed


# refusals


def spoiled(array: Any) -> Any:
    array = array.copy()
    array.flat[3] = np.nan
    return array


w, x, y = problem(SMOOTH)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"w": spoiled(w)}, ValueError, r"w must be finite, got a NaN or inf: remove or replace it"),
        ({"x": spoiled(x)}, ValueError, r"x must be finite, got a NaN or inf"),
        ({"y": spoiled(y)}, ValueError, r"y must be finite, got a NaN or inf"),
        (
            {"sample_weight": spoiled(np.ones(6))},
            ValueError,
            r"sample_weight must be finite, got a NaN or inf",
        ),
        (
            {"method": "forward"},
            ValueError,
            r"method must be 'auto', 'central' or 'complex', got 'forward': choose one",
        ),
        (
            {"net": KINKED, "method": "complex"},
            ValueError,
            r"a complex step needs analytic activations and cost, got",
        ),
        ({"net": "mlp"}, TypeError, r"net must be a gpubp.Network, got str"),
        ({"w": w.tolist()}, TypeError, r"Array API library are needed, got list"),
        ({"y": y.tolist()}, TypeError, r"Array API library are needed, got list"),
        ({"w": w[:-1]}, ValueError, r"w must have shape \(n_weights,\) with n_weights = 26, got \(25,\)"),
        ({"x": x[:, :2]}, ValueError, r"x must have shape \(B, n_0\) with n_0 = 3, got \(6, 2\)"),
        ({"x": x.astype("float32")}, TypeError, r"x must be float64 like w, got float32"),
        ({"w": w.astype(int)}, TypeError, r"w must be float32 or float64, got int64"),
        ({"w": w + 0j}, TypeError, r"w must be float32 or float64, got complex128"),
        ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
    ],
)
def test_refusals(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check_gradient(**{"net": SMOOTH, "w": w, "x": x, "y": y, **wrong})


@without_jax
@pytest.mark.parametrize(("bad", "range_"), [(2, r"0\.\.2"), (-1, r"-1\.\.1")])
def test_classes_out_of_range(place: Place, bad: int, range_: str) -> None:
    classes = place.array(np.array([0, 1, bad, 0, 1, 0], "int32"))
    with pytest.raises(
        ValueError, match=rf"y must hold classes 0..1 for n_L = 2, got {range_}: number them from 0"
    ):
        check_gradient(SMOOTH, place.array(w), place.array(x), classes)


@pytest.mark.parametrize("place", [p for p in PLACES if p.device.startswith("no_")], indirect=True, ids=str)
def test_devices_without_float64(place: Place) -> None:
    with pytest.raises(TypeError, match=r"differences need float64, .* array_api_strict.*: .*use NumPy"):
        check_gradient(SMOOTH, *map(place.array, (w, x, y)))


def test_jax_without_float64(jax: Any) -> None:
    with jax.enable_x64(False):
        arrays = [jax.numpy.asarray(part.astype("float32")) for part in (w, x, y)]
        with pytest.raises(
            TypeError, match=r"differences need float64, .*: enable it \(jax_enable_x64 in JAX\), or use"
        ):
            check_gradient(SMOOTH, *arrays)


def test_the_doors_of_the_package() -> None:
    assert gpubp.check_gradient is check_gradient
