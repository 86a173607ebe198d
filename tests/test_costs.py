"""Costs: values by hand, the output's Delta, both ends, sample weights, and a user's own."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import Place
from reference import COSTS, DELTA, TAU, bare, targets

import gpubp
from gpubp import Cost, Network, activations, costs
from gpubp.costs import Partner

log = math.log
Q = [[0.5, 0.25], [0.75, 0.125]]
Y = [[1.0, 0.0], [0.5, 0.5]]
BY_HAND = {  # errors q - y: (-1/2, 1/4), (1/4, -3/8)
    "squared_error": [(0.25 + 0.0625) / 2, (0.0625 + 0.140625) / 2],
    "absolute_error": [0.75, 0.625],
    "huber": [(0.25 + 0.0625) / 2, (0.0625 + 0.140625) / 2],  # all within delta = 0.7
    "quantile": [0.3 * 0.5 + 0.7 * 0.25, 0.7 * 0.25 + 0.3 * 0.375],
    "cross_entropy": [log(2), -0.5 * log(0.75) + 0.5 * log(8)],
    "binary_cross_entropy": [
        log(2) - log(0.75),
        -0.5 * (log(0.75) + log(0.25)) + 0.5 * (log(8) - log(0.875)),
    ],
    "poisson": [0.5 + log(2) + 0.25, 0.75 - 0.5 * log(0.75) + 0.125 + 0.5 * log(8)],
}
SLOPES: dict[str, Any] = {
    "squared_error": [[-0.5, 0.25], [0.25, -0.375]],
    "absolute_error": [[-1, 1], [1, -1]],
    "huber": [[-0.5, 0.25], [0.25, -0.375]],
    "quantile": [[-0.3, 0.7], [0.7, -0.3]],
    "cross_entropy": [[-2, 0], [-2 / 3, -4]],
    "binary_cross_entropy": [[-2, 4 / 3], [-2 / 3 + 2, -4 + 0.5 / 0.875]],
    "poisson": [[-1, 1], [1 / 3, -3]],
}


@pytest.mark.parametrize("name", COSTS)
def test_by_hand(place: Place, name: str) -> None:
    cost = costs.get(name)
    q, y = place.array(Q), place.array(Y)
    c, slope = cost.value(place.xp, q, y), cost.derivative(place.xp, q, y)
    assert place.here(c)
    assert place.here(slope)
    np.testing.assert_allclose(place.host(c), BY_HAND[bare(name)], rtol=place.rtol)
    np.testing.assert_allclose(place.host(slope), SLOPES[bare(name)], rtol=place.rtol)


def test_beyond_the_bend() -> None:
    """huber grows by delta per unit of error outside, and joins without a step or a kink."""
    q, y = np.array([[3.0, -2.0, 0.25]]), np.zeros((1, 3))
    cost = costs.huber(delta=0.5)
    assert cost.value(np, q, y)[0] == 0.5 * 2.75 + 0.5 * 1.75 + 0.03125
    np.testing.assert_array_equal(cost.derivative(np, q, y), [[0.5, -0.5, 0.25]])
    near = np.array([[0.5 - 1e-9], [0.5 + 1e-9]])
    low, high = cost.value(np, near, np.zeros((2, 1)))
    assert high - low == pytest.approx(0.5 * 2e-9, rel=1e-6)


def test_the_slope_at_a_kink_is_0() -> None:
    y = np.array([[1.0, -2.0]])
    for name in ("absolute_error", "quantile"):
        np.testing.assert_array_equal(costs.get(name).derivative(np, y, y), [[0.0, 0.0]])


def test_a_quantile_is_where_its_cost_is_least() -> None:
    y = np.random.default_rng(0).standard_normal((999, 1))
    grid = np.linspace(-3.0, 3.0, 601)
    total = [costs.quantile(0.8).value(np, np.full_like(y, q), y).sum() for q in grid]
    assert grid[np.argmin(total)] == pytest.approx(np.quantile(y, 0.8), abs=0.011)


@pytest.mark.parametrize("name", COSTS)
def test_derivatives(name: str) -> None:
    rng = np.random.default_rng(1)
    q, y = rng.uniform(0.05, 0.95, (9, 3)), targets(name, rng, 9, 3)
    cost, h = costs.get(name), 1e-3
    if cost.analytic:
        right = [cost.value(np, q + 1e-30j * e, y).imag / 1e-30 for e in np.eye(3)]
        np.testing.assert_allclose(cost.derivative(np, q, y), np.stack(right, 1), rtol=1e-13, atol=1e-14)
    else:
        right = [(cost.value(np, q + h * e, y) - cost.value(np, q - h * e, y)) / (2 * h) for e in np.eye(3)]
        np.testing.assert_allclose(cost.derivative(np, q, y), np.stack(right, 1), rtol=1e-10, atol=1e-10)


NATURAL = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid", "poisson": "exp"}


@pytest.mark.parametrize("name", COSTS)
def test_partners(name: str) -> None:
    net = Network((2, 3), cost=name)
    assert net.sigma[-1].name == NATURAL.get(name, "identity")
    assert net.natural == (name in NATURAL)
    assert Network((2, 3), cost=name, output=net.sigma[-1]) == net
    made = getattr(activations, net.sigma[-1].name)()
    assert Network((2, 3), cost=name, output=made).natural == net.natural


@pytest.mark.parametrize("name", NATURAL)
def test_a_natural_pair_knows_delta_in_one_piece(place: Place, name: str) -> None:
    """Delta = (sum y) q - y for cross_entropy, else q - y; the same as by derivative and pull-back, and the cost from p
    the same as from q."""
    cost, sigma = costs.get(name), activations.get(NATURAL[name])
    rng = np.random.default_rng(2)
    p, y = place.array(rng.standard_normal((6, 3))), place.array(targets(name, rng, 6, 3))
    xp, q = place.xp, sigma.value(place.xp, p)
    assert cost.partner.value is not None
    assert cost.partner.Delta is not None
    Delta = place.host(cost.partner.Delta(xp, q, y))
    host_q, host_y = place.host(q), place.host(y)
    total = host_y.sum(1, keepdims=True) if name == "cross_entropy" else 1.0
    atol = 8 * place.eps
    np.testing.assert_allclose(Delta, total * host_q - host_y, rtol=place.rtol, atol=atol)
    g = cost.derivative(xp, q, y)
    if sigma.pullback is not None:
        pulled = sigma.pullback(xp, p, q, g)
    else:
        assert sigma.derivative is not None
        pulled = g * sigma.derivative(xp, p, q)
    np.testing.assert_allclose(Delta, place.host(pulled), rtol=place.rtol, atol=atol)
    from_p, from_q = cost.partner.value(xp, p, q, y), cost.value(xp, q, y)
    assert place.here(from_p)
    np.testing.assert_allclose(place.host(from_p), place.host(from_q), rtol=place.rtol, atol=atol)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_classes_and_probabilities_agree(place: Place, output: str, dtype: str) -> None:
    if (place.device, dtype) == ("no_x64", "int64"):
        pytest.skip("no_x64 has no int64")
    net = Network((2, 4), output=output, cost="cross_entropy")
    rng = np.random.default_rng(3)
    w, x = place.array(rng.standard_normal(12)), place.array(rng.standard_normal((5, 2)))
    labels = np.array([3, 0, 1, 3, 2])
    classes, rows = place.array(labels, dtype), place.array(np.eye(4)[labels])
    ours, right = net.backward(w, x, classes), net.backward(w, x, rows)
    np.testing.assert_array_equal(place.host(ours.cost), place.host(right.cost))
    np.testing.assert_array_equal(place.host(ours.gradient), place.host(right.gradient))
    assert place.here(ours.gradient)


SATURATED: list[tuple[str, list[float], list[float], float]] = [
    ("cross_entropy", [1e4, -1e4, 0.0], [0.0, 1.0, 0.0], 2e4),
    ("cross_entropy", [1e4, -1e4, 0.0], [1.0, 0.0, 0.0], 0.0),
    ("cross_entropy", [-1e4, -1e4, -1e4], [0.0, 0.0, 1.0], log(3)),
    ("binary_cross_entropy", [1e4, -1e4, 1e4], [0.0, 0.0, 1.0], 1e4),
    ("binary_cross_entropy", [-1e4, -1e4, 0.0], [1.0, 1.0, 1.0], 2e4 + log(2)),
    ("poisson", [-1e4, -1e4, 0.0], [2.0, 0.0, 1.0], 2e4 + 1),
]


@pytest.mark.parametrize(("name", "p", "y", "right"), SATURATED)
def test_saturated_outputs(place: Place, name: str, p: list[float], y: list[float], right: float) -> None:
    """An identity weight matrix makes the logits x itself."""
    net = Network((3, 3), cost=name, bias=False)
    w, x, y_here = place.array(np.eye(3).ravel()), place.array([p]), place.array([y])
    chains: Any = net.backward(w, x, y_here)
    assert float(chains.cost) == pytest.approx(right, rel=2 * place.eps)
    assert np.isfinite(place.host(chains.gradient)).all()
    np.testing.assert_array_equal(place.host(net.cost(w, x, y_here)), place.host(chains.cost))


@pytest.mark.parametrize("name", ["cross_entropy", "poisson"])
def test_outputs_that_round_to_0_cost_nothing_where_the_target_is_0(name: str) -> None:
    q, y = np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]])
    assert costs.get(name).value(np, q, y)[0] == (1.0 if name == "poisson" else 0.0)
    assert np.isfinite(costs.get(name).derivative(np, q, y)).all()


def test_a_sure_no_and_a_sure_yes_cost_nothing() -> None:
    q = np.array([[0.0, 1.0]])
    assert costs.get("binary_cross_entropy").value(np, q, q)[0] == 0.0
    assert np.isfinite(costs.get("binary_cross_entropy").derivative(np, q, q)).all()


@pytest.mark.parametrize("name", [c for c in COSTS if costs.get(c).analytic])
def test_analytic_formulas_hold_for_complex_numbers(name: str) -> None:
    rng = np.random.default_rng(4)
    q = rng.uniform(0.2, 0.8, (5, 3)) + 0.1j * rng.standard_normal((5, 3))
    y, h, cost = targets(name, rng, 5, 3), 1e-5, costs.get(name)
    np.testing.assert_allclose(cost.value(np, q.real + 0j, y), cost.value(np, q.real, y), rtol=1e-14)
    step = rng.standard_normal((5, 3))
    along, across = (
        (cost.value(np, q + h * turn * step, y) - cost.value(np, q - h * turn * step, y)) / (2 * h * turn)
        for turn in (1, 1j)
    )
    np.testing.assert_allclose(along, across, rtol=1e-7)


def test_which_are_analytic() -> None:
    not_analytic = {name for name in costs.names() if not costs.get(name).analytic}
    assert not_analytic == {"absolute_error", "huber", "quantile"}


@pytest.mark.parametrize("name", [*costs.names(), "huber(2.0)", "quantile(tau=0.9)"])
def test_built_ins_are_values(name: str) -> None:
    cost = costs.get(name)
    assert costs.get(cost) is cost
    assert costs.get(cost.name) == cost
    assert (getattr(costs, bare(name))() == cost) == ("(" not in name)
    for twin in (pickle.loads(pickle.dumps(cost)), copy.deepcopy(cost)):
        assert twin == cost
        assert hash(twin) == hash(cost)
    assert repr(cost) == f"<cost {cost.name}>"


def test_numbers_in_names() -> None:
    assert costs.get("huber(0.7)") == costs.huber(delta=DELTA) != costs.huber()
    assert costs.get("quantile(tau=0.3)") == costs.quantile(TAU)
    assert Network((1, 1), cost=costs.huber(2.0)) == Network((1, 1), cost="huber(delta=2)")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        (
            "cross_entropi",
            ValueError,
            r"cost must be one of absolute_error, .*: did you mean 'cross_entropy'\?",
        ),
        ("mse", ValueError, r"got 'mse': choose one of these or make your own"),
        ("squared_error(2)", ValueError, r"can't be read: squared_error takes no numbers"),
        ("huber(0)", ValueError, r"delta must lie in \(0, inf\), got 0: give a number inside"),
        ("quantile(1)", ValueError, r"tau must lie in \(0, 1\), got 1"),
        (
            max,
            TypeError,
            r"a cost must be a name or a gpubp.Cost, got builtin_function_or_method: wrap it in one",
        ),
    ],
)
def test_names_that_are_refused(name: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        costs.get(name)


def test_a_number_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="delta must be a number, got str: give a float"):
        costs.huber(delta="1")


def test_ones_own_is_accepted() -> None:
    quartic = Cost(
        lambda xp, q, y: xp.sum((q - y) ** 4, axis=1), lambda xp, q, y: 4 * (q - y) ** 3, name="quartic"
    )
    net = Network((2, 3, 2), hidden="tanh", cost=quartic)
    assert net.sigma[-1].name == "identity"
    assert not net.natural
    rng = np.random.default_rng(0)
    w, x, y = rng.standard_normal(net.n_weights), rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    chains = net.backward(w, x, y)
    assert chains.cost == pytest.approx(((chains.q[-1] - y) ** 4).sum() / 4, rel=1e-14)
    log_cosh = Cost(
        lambda xp, q, y: xp.sum(xp.log(xp.cosh(q - y)), axis=1),
        lambda xp, q, y: xp.tanh(q - y),
        name="log_cosh",
        analytic=True,
        check_at=(np.linspace(-2, 2, 6).reshape(3, 2), np.zeros((3, 2))),
    )
    assert Network((2, 2), cost=log_cosh, output="tanh").analytic


@pytest.mark.parametrize(
    ("value", "derivative", "words"),
    [
        (
            lambda xp, q, y: xp.sum((q - y) ** 2, axis=1),
            lambda xp, q, y: q - y,
            r"the derivative of cost 'own' must agree with central differences of its value, got a difference of "
            r"\d\.\de.\d+: mend the derivative, with no 1/B in it, or give check_at",
        ),
        (
            lambda xp, q, y: xp.sum((q - y) ** 2, axis=1),
            lambda xp, q, y: 2 * (q - y) / q.shape[0],
            r"with no 1/B in it",
        ),
        (
            lambda xp, q, y: xp.sum((q - y) ** 2, axis=1),
            lambda xp, q, y: 2 * xp.sum(q - y, axis=1),
            r"the derivative of cost 'own' must agree",
        ),
        (
            lambda xp, q, y: xp.mean((q - y) ** 2),
            lambda xp, q, y: q - y,
            r"cost 'own' must give one number an example, shape \(B,\), got \(\): sum over axis=1",
        ),
        (
            lambda xp, q, y: np.float64(0.5) * xp.sum((q - y) ** 2, axis=1),
            lambda xp, q, y: q - y,
            r"cost 'own' must keep the dtype of q, got float64 from float32: use Python numbers",
        ),
    ],
)
def test_ones_own_that_is_wrong_is_refused(value: Any, derivative: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cost(value, derivative, name="own")


def test_ones_own_that_mixes_rows_is_refused() -> None:
    """Each c_i must be its own example's, or sample weights and per-example chains would mean nothing."""
    with pytest.raises(ValueError, match=r"cost 'own' must treat each row alone"):
        Cost(
            lambda xp, q, y: xp.sum((q - xp.mean(q, axis=0)) ** 2, axis=1),
            lambda xp, q, y: 2 * (q - xp.mean(q, axis=0)),
            name="own",
        )


def own_binary(**changed: Any) -> Cost:
    """The binary cross-entropy as a user would write it."""
    built_in = costs.binary_cross_entropy()
    parts: dict[str, Any] = {
        "domain": (0.0, 1.0),
        "targets": built_in.targets,
        "partner": built_in.partner,
        "labels": True,
    }
    return Cost(built_in.value, built_in.derivative, name="own", **{**parts, **changed})


def test_a_users_own_cost_can_have_what_the_built_in_ones_have() -> None:
    built_in, own = (Network((3, 4, 2), cost=cost) for cost in ("binary_cross_entropy", own_binary()))
    assert own.sigma == built_in.sigma
    assert own.natural
    w, x = built_in.init(dtype="float64"), np.random.default_rng(0).standard_normal((5, 3))
    y = (x[:, :2] > 0).astype(float)
    for ours, theirs in zip(own.cost_and_gradient(w, x, y), built_in.cost_and_gradient(w, x, y), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(
        own.gradient(w, x, np.array([0, 1, 1, 0, 1])), own.gradient(w, x, np.eye(2)[[0, 1, 1, 0, 1]])
    )
    with pytest.raises(ValueError, match=r"the output of cost 'own' must lie in \(0, 1\), got 'tanh'"):
        Network((3, 2), output="tanh", cost=own_binary())
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        gpubp.train(own, x, 2.0 * y, epochs=1, progress=False, device="cpu")


@pytest.mark.parametrize(
    ("partner", "words"),
    [
        (
            Partner("sigmoid", lambda xp, p, q, y: 2.0 * xp.sum(p, axis=1), lambda xp, q, y: q - y),
            "the partner's value of cost 'own' must be the cost's after 'sigmoid', got other numbers: mend the value",
        ),
        (
            costs.binary_cross_entropy().partner._replace(Delta=lambda xp, q, y: (q - y) / 7),
            "the partner's Delta of cost 'own' must be the cost's after 'sigmoid', got other numbers: mend the Delta",
        ),
        (
            Partner("sigmoid", Delta=lambda xp, q, y: q - y),
            "the partner of cost 'own' needs both value and Delta, got one: give the other",
        ),
        (Partner("sigmoyd"), "did you mean 'sigmoid'"),
    ],
)
def test_a_partner_that_disagrees_is_refused(partner: Partner, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Network((3, 2), cost=own_binary(partner=partner))
