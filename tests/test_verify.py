"""``check_gradient`` passes what is right, finds what is wrong, and says where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Place
from reference import COSTS, targets

from gpubp import Activation, Cost, Network, check_gradient

# a derivative 1 % too large, let through unchecked
WRONG = Activation(
    lambda xp, p: xp.tanh(p), lambda xp, p, q: 1.01 * (1.0 - q * q), name="wrong", check_at=None
)


def problem(net: Network, B: int = 5) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    return (
        net.init(0, dtype="float64"),
        rng.random((B, net.sizes[0])),
        targets(net.cost_function.name, rng, B, net.sizes[-1]),
    )


@pytest.mark.parametrize("cost", COSTS)
def test_right_gradients_pass(place64: Place, cost: str) -> None:
    net = Network((3, 4, 2), hidden="tanh", cost=cost)
    arrays = [place64.array(a) for a in problem(net)]
    weights = place64.array(np.arange(1.0, 6.0))
    report = check_gradient(net, *arrays, sample_weight=weights)
    assert report.passed, report
    assert report.method == ("complex" if net.analytic else "central")
    assert report.tolerance == (1e-12 if net.analytic else 1e-7)
    assert report.worst <= report.tolerance
    assert report.checked == net.n_weights
    assert check_gradient(net, *arrays, method="central").passed


def test_classes_are_welcome(place64: Place) -> None:
    net = Network((3, 4, 2), cost="cross_entropy")
    w, x, _ = (place64.array(a) for a in problem(net))
    report = check_gradient(net, w, x, place64.array(np.array([0, 1, 1, 0, 1])))
    assert report.passed
    assert report.method == "central"


@pytest.mark.parametrize("sizes", [(3, 4, 2), (60, 50, 2)], ids=["every weight", "directions"])
def test_wrong_gradients_are_found(sizes: tuple[int, ...]) -> None:
    net = Network(sizes, hidden=WRONG)
    report = check_gradient(net, *problem(net))
    assert not report.passed
    assert 1e-3 < report.worst < 1.0
    assert report.method == "central"
    if sizes == (3, 4, 2):
        assert report.where.startswith(("W[0]", "b[0]"))
        assert report.checked == net.n_weights
    else:
        assert report.where.startswith("direction")
        assert report.checked < net.n_weights
    start = "gradient check FAILED: worst relative error "
    assert str(report).startswith(start)
    assert str(report).endswith(
        f"at {report.where}, tolerance 1e-07 (central differences, {report.checked} compared)"
    )


def test_large_networks_pass() -> None:
    net = Network((60, 50, 3), hidden="gelu", cost="cross_entropy")
    assert check_gradient(net, *problem(net)).passed
    smooth = Network((60, 50, 3), hidden="silu", cost="cross_entropy")
    report = check_gradient(smooth, *problem(smooth), seed=3)
    assert report.passed
    assert report.method == "complex"


@pytest.mark.parametrize("dtype", ["float32"])
def test_float32_has_a_wider_gate(dtype: str) -> None:
    net = Network((3, 4, 2), hidden="relu")
    report = check_gradient(net, *(a.astype(dtype) for a in problem(net)))
    assert report.passed
    assert report.tolerance == 1e-3
    assert not check_gradient(
        Network((3, 4, 2), hidden=WRONG), *(a.astype(dtype) for a in problem(net))
    ).passed


def test_a_cost_with_a_hidden_1_over_B_is_found() -> None:
    """The trap other libraries set: made unchecked, as a subclass could."""
    right = Cost(lambda xp, q, y: xp.sum((q - y) ** 2, axis=1), lambda xp, q, y: 2.0 * (q - y), name="right")
    net = Network((3, 4, 2), hidden="tanh", cost=right)
    assert check_gradient(net, *problem(net)).passed
    object.__setattr__(right, "derivative", lambda xp, q, y: 2.0 * (q - y) / q.shape[0])
    report = check_gradient(net, *problem(net))
    assert not report.passed
    assert report.worst == pytest.approx(0.8)


def test_a_library_without_float64_is_refused(jax: Any) -> None:
    net = Network((3, 4, 2))
    words = r"differences need float64, got float32 from jax.numpy: enable it"
    with jax.enable_x64(False):
        arrays = [jax.numpy.asarray(a.astype("float32")) for a in problem(net)]
        with pytest.warns(UserWarning, match="float64"), pytest.raises(TypeError, match=words):
            check_gradient(net, *arrays)


def test_what_came_in_stays() -> None:
    net = Network((3, 4, 2))
    arrays = problem(net)
    kept = [a.copy() for a in arrays]
    check_gradient(net, *arrays)
    for a, b in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["w", "x", "y", "sample_weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    net = Network((3, 4, 2))
    arrays = dict(zip(("w", "x", "y", "sample_weight"), (*problem(net), np.ones(5)), strict=True))
    arrays[name].flat[0] = value
    with pytest.raises(ValueError, match=rf"{name} must be finite, got a NaN or inf: remove or replace it"):
        check_gradient(net, **arrays)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "forward"}, r"method must be 'auto', 'central' or 'complex', got 'forward': choose one"),
        (
            {"method": "complex"},
            r"a complex step needs analytic activations and cost, got others: use method='central'",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    net = Network((3, 4, 2), hidden="relu")
    with pytest.raises(ValueError, match=words):
        check_gradient(net, *problem(net), **options)
