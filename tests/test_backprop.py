"""The heart: every chain and gradient against numbers worked by hand, differences, and automatic differentiation."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Place
from reference import COSTS, HIDDEN, SCALAR, bare, differences, jax_cost, targets, worst

from gpubp import Network, backprop
from gpubp.backprop import Chains, ForwardChains
from gpubp.engines import engine_for

UNIT, POSITIVE = {"sigmoid", "softmax"}, {"sigmoid", "softmax", "softplus", "exp"}
ADMITTED = {"cross_entropy": UNIT, "binary_cross_entropy": UNIT, "poisson": POSITIVE}
BY_DIFFERENCES, BY_AUTODIFF = 1e-7, 1e-12


def problem(net: Network, B: int = 5, seed: int = 0, scale: float = 0.5) -> tuple[Any, Any, Any, Any]:
    """Weights, inputs, targets and sample weights."""
    rng = np.random.default_rng(seed)
    w = scale * rng.standard_normal(net.n_weights)
    x, s = rng.standard_normal((B, net.sizes[0])), rng.uniform(0.5, 2.0, B)
    return w, x, targets(net.cost_function.name, rng, B, net.sizes[-1]), s


def whole(net: Network, *arrays: Any, **options: Any) -> Any:
    """``net.backward``, none of whose parts is None."""
    return net.backward(*arrays, **options)


def check(net: Network, jax: Any = None, *, scale: float = 0.5, reduction: str = "mean") -> None:
    """The gradient, and dC/dx where jax is given, against a second way."""
    w, x, y, s = problem(net, scale=scale)
    ours = whole(net, w, x, y, sample_weight=s, reduction=reduction)
    if jax is None:
        by = differences(lambda w: net.cost(w, x, y, sample_weight=s, reduction=reduction), w)
        assert worst(ours.gradient, by) <= BY_DIFFERENCES
        return
    C, (dw, dx) = jax.value_and_grad(lambda w, x: jax_cost(jax, net, w, x, y, s, reduction), argnums=(0, 1))(
        *map(jax.numpy.asarray, (w, x))
    )
    assert float(C) == pytest.approx(float(ours.cost), rel=1e-13)
    assert worst(ours.gradient, dw) <= BY_AUTODIFF
    assert worst(ours.Delta[0], dx) <= BY_AUTODIFF
    inside = jax.grad(
        lambda w: net.cost(w, *map(jax.numpy.asarray, (x, y)), sample_weight=jax.numpy.asarray(s))
    )
    if reduction == "mean":
        assert worst(ours.gradient, inside(jax.numpy.asarray(w))) <= BY_AUTODIFF


WAYS = ["differences", "autodiff"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """None for differences, else JAX."""
    return None if request.param == "differences" else request.getfixturevalue("jax")


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", HIDDEN)
def test_every_activation_inside_with_every_cost(name: str, cost: str, way: Any) -> None:
    check(
        Network((3, 4, 3, 2), hidden=name, input=name, cost=cost), way, scale=0.05 if name == "exp" else 0.5
    )


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", HIDDEN)
def test_every_activation_as_output_with_every_cost(name: str, cost: str, way: Any) -> None:
    if bare(name) in ADMITTED.get(cost, {bare(name)}):
        check(Network((3, 4, 2), hidden="tanh", output=name, cost=cost), way)
        return
    words = (
        rf"the output of cost '{cost}' must lie in \(0, (1\]|inf\)), got .* with values in .*: use output="
    )
    with pytest.raises(ValueError, match=words):
        Network((3, 4, 2), output=name, cost=cost)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    "sizes", [(1, 1), (1, 3), (3, 1), (1, 1, 1), (2, 5, 1, 4), (4, 3) * 6 + (2,)], ids=str
)
def test_sizes(sizes: tuple[int, ...], bias: bool, way: Any) -> None:
    check(Network(sizes, hidden="tanh", bias=bias), way, scale=0.9)


def test_another_activation_at_every_layer(way: Any) -> None:
    inside = [name for name in HIDDEN if bare(name) not in ("exp", "identity")]
    assert len(inside) == 12
    sizes = (3, *(4, 3) * 6, 2)
    check(Network(sizes, hidden=inside, input="softsign", output="exp", cost="poisson"), way, scale=0.8)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("cost", ["squared_error", "cross_entropy"])
def test_reductions(cost: str, reduction: str, way: Any) -> None:
    check(Network((3, 4, 2), hidden="gelu", cost=cost), way, reduction=reduction)


def chained(arrays: tuple[Any, ...]) -> Any:
    return [np.asarray(a).tolist() for a in arrays]


def test_a_2_2_1_network_by_hand() -> None:
    """softsign is rational: q = p / (1 + |p|), sigma' = 1 / (1 + |p|)^2, so that every number is exact.

    W_0 = [1 -1; 2 1], b_0 = (0, -1), W_1 = [2 4], b_1 = 1, x = (1, 2), y = 1.
    p_1 = (1 - 2, 2 + 2 - 1) = (-1, 3), q_1 = (-1/2, 3/4), sigma'(p_1) = (1/4, 1/16).
    p_2 = -1 + 3 + 1 = 3, C = (3 - 1)^2 / 2 = 2.
    Delta_2 = 2, Delta_1 = (2 2 1/4, 2 4 1/16) = (1, 1/2), Delta_0 = (1 + 1, -1 + 1/2) = (2, -1/2).
    """
    net = Network((2, 2, 1), hidden="softsign")
    w = np.array([1.0, -1.0, 2.0, 1.0, 2.0, 4.0, 0.0, -1.0, 1.0])
    c = whole(net, w, np.array([[1.0, 2.0]]), np.array([[1.0]]))
    assert chained(c.p) == [[[1, 2]], [[-1, 3]], [[3]]]
    assert chained(c.q) == [[[1, 2]], [[-0.5, 0.75]], [[3]]]
    assert chained(c.Delta) == [[[2, -0.5]], [[1, 0.5]], [[2]]]
    assert chained(c.dW) == [[[1, 2], [0.5, 1]], [[-1, 1.5]]]
    assert chained(c.db) == [[1, 0.5], [2]]
    assert c.cost == 2.0
    assert chained((c.gradient,)) == [[1, 2, 0.5, 1, -1, 1.5, 1, 0.5, 2]]


def test_a_2_2_1_network_by_hand_in_a_batch() -> None:
    """A second row x = (1/3, 1/3), y = 3 has p_1 = q_1 = (0, 0), sigma'(p_1) = (1, 1), p_2 = 1, c = (1 - 3)^2 / 2 = 2,
    and alone Delta_2 = -2, Delta_1 = (-4, -8), Delta_0 = (-4 - 16, 4 - 8) = (-20, -4). With weights 1 and 3,
    C = (2 + 3 2) / 4 = 2, and the rows of Delta carry 1/4 and 3/4."""
    net = Network((2, 2, 1), hidden="softsign")
    w = np.array([1.0, -1.0, 2.0, 1.0, 2.0, 4.0, 0.0, -1.0, 1.0])
    third = 1.0 / 3.0
    x, y, s = np.array([[1.0, 2.0], [third, third]]), np.array([[1.0], [3.0]]), np.array([1.0, 3.0])
    c = whole(net, w, x, y, sample_weight=s)
    assert c.cost == 2.0
    np.testing.assert_allclose(c.Delta[2], [[0.5], [-1.5]], rtol=1e-15)
    np.testing.assert_allclose(c.Delta[1], [[0.25, 0.125], [-3.0, -6.0]], rtol=1e-15)
    np.testing.assert_allclose(c.Delta[0], [[0.5, -0.125], [-15.0, -3.0]], rtol=1e-15)
    np.testing.assert_allclose(c.dW[0], [[0.25 - 1, 0.5 - 1], [0.125 - 2, 0.25 - 2]], rtol=1e-15)
    np.testing.assert_allclose(c.dW[1], [[-0.25, 0.375]], rtol=1e-15)
    total = whole(net, w, x, y, sample_weight=s, reduction="sum")
    assert total.cost == 8.0
    np.testing.assert_allclose(total.gradient, 4 * c.gradient, rtol=1e-15)


def test_a_chain_of_single_linear_nodes() -> None:
    """The article's section I: dC/dw_{i,i+1} = delta_{2-i} x_i, the weight itself missing from the product."""
    net = Network((1, 1, 1, 1), hidden="identity", bias=False)
    w01, w12, w23, x0, y = 0.5, -2.0, 3.0, 4.0, 1.0
    c = whole(net, np.array([w01, w12, w23]), np.array([[x0]]), np.array([[y]]))
    e = w23 * w12 * w01 * x0 - y
    assert chained((c.gradient,)) == [[e * w23 * w12 * x0, e * w23 * w01 * x0, e * w12 * w01 * x0]]
    assert chained(c.Delta) == [[[w01 * w12 * w23 * e]], [[w12 * w23 * e]], [[w23 * e]], [[e]]]
    assert chained(c.q) == [[[x0]], [[w01 * x0]], [[w12 * w01 * x0]], [[w23 * w12 * w01 * x0]]]
    assert c.db is None


def test_a_chain_of_single_nodes() -> None:
    """The article's section II, with another sigma at every node, sigma_0 among them."""
    names = ("softsign", "tanh", "sigmoid", "softplus")
    sigma = [SCALAR[name] for name in names]
    slope: list[Callable[[float], float]] = [
        lambda p: 1 / (1 + abs(p)) ** 2,
        lambda p: 1 / math.cosh(p) ** 2,
        lambda p: math.exp(-p) / (1 + math.exp(-p)) ** 2,
        lambda p: 1 / (1 + math.exp(-p)),
    ]
    net = Network((1, 1, 1, 1), hidden=names[1:3], input=names[0], output=names[3], bias=False)
    w01, w12, w23, x, y = 0.7, -1.4, 2.1, 0.6, 0.3
    q0 = sigma[0](x)
    q1 = sigma[1](w01 * q0)
    q2 = sigma[2](w12 * q1)
    q3 = sigma[3](w23 * q2)
    d0 = (q3 - y) * slope[3](w23 * q2)
    d1 = d0 * w23 * slope[2](w12 * q1)
    d2 = d1 * w12 * slope[1](w01 * q0)
    d3 = d2 * w01 * slope[0](x)
    c = whole(net, np.array([w01, w12, w23]), np.array([[x]]), np.array([[y]]))
    np.testing.assert_allclose(c.gradient, [d2 * q0, d1 * q1, d0 * q2], rtol=1e-14)
    np.testing.assert_allclose(np.ravel(chained(c.Delta)), [d3, d2, d1, d0], rtol=1e-14)
    np.testing.assert_allclose(np.ravel(chained(c.q)), [q0, q1, q2, q3], rtol=1e-14)


def test_linear_layers_of_many_nodes() -> None:
    """The article's section III, each derivative of the product of matrices by itself."""
    rng = np.random.default_rng(0)
    A, B, D = rng.standard_normal((4, 3)), rng.standard_normal((5, 4)), rng.standard_normal((2, 5))
    x, y = rng.standard_normal((3, 1)), rng.standard_normal((2, 1))
    e = D @ B @ A @ x - y
    net = Network((3, 4, 5, 2), hidden="identity", bias=False)
    right: Any = [B.T @ D.T @ e @ x.T, D.T @ e @ (A @ x).T, e @ (B @ A @ x).T]
    dW = whole(net, net.flatten([(A, None), (B, None), (D, None)]), x.T, y.T).dW
    for ours, product in zip(dW, right, strict=True):
        np.testing.assert_allclose(ours, product, rtol=1e-13)


NETS = [
    Network((3, 4, 2), hidden="gelu", cost="cross_entropy"),
    Network((3, 5, 4, 2), hidden=("elu", "softmax"), input="tanh", output="softplus", cost="poisson"),
    Network((3, 4, 2), hidden="relu", cost="huber", bias=False),
    Network((3, 2), cost="binary_cross_entropy"),
]
each_net = pytest.mark.parametrize("net", NETS, ids=str)


def arrays(chains: Chains | ForwardChains) -> list[Any]:
    return [a for part in chains if part is not None for a in (part if isinstance(part, tuple) else (part,))]


@each_net
def test_every_place_gives_the_same_numbers(place: Place, net: Network) -> None:
    w, x, y, s = problem(net)
    here = [place.array(a) for a in (w, x, y)]
    weight = place.array(s)
    right = whole(net, w, x, y, sample_weight=s)
    ours = whole(net, *here, sample_weight=weight)
    scale = 1e3 * place.eps
    for a, b in zip(arrays(ours), arrays(right), strict=True):
        assert place.here(a)
        assert tuple(a.shape) == b.shape
        np.testing.assert_allclose(place.host(a), b, rtol=scale, atol=scale)
    C, g = net.cost_and_gradient(*here, sample_weight=weight)
    assert tuple(C.shape) == ()
    for same in (C, net.cost(*here, sample_weight=weight)):
        np.testing.assert_allclose(place.host(same), place.host(ours.cost), rtol=4 * place.eps)
    for same in (g, net.gradient(*here, sample_weight=weight)):
        np.testing.assert_allclose(
            place.host(same), place.host(ours.gradient), rtol=8 * place.eps, atol=place.eps
        )
    q = net.predict(*here[:2])
    assert place.here(q)
    np.testing.assert_array_equal(place.host(q), place.host(ours.q[-1]))
    forward = net.forward(*here[:2])
    assert forward._fields == ("p", "q")
    for a, b in zip(forward.p + forward.q, ours.p + ours.q, strict=True):
        np.testing.assert_array_equal(place.host(a), place.host(b))
    assert forward.p[0] is here[1]
    assert ours.p[0] is here[1]


@each_net
def test_the_parts_of_the_gradient(place64: Place, net: Network) -> None:
    """dW_i = Delta_{i+1}' q_i and db_i = the sum of its rows, in the order W_0, ..., b_0, ... of the flat vector."""
    w, x, y, _ = problem(net)
    c = whole(net, *(place64.array(a) for a in (w, x, y)))
    q, Delta = ([place64.host(a) for a in part] for part in (c.q, c.Delta))
    dW = [Delta[i + 1].T @ q[i] for i in range(len(net.sizes) - 1)]
    db = [D.sum(0) for D in Delta[1:]] if net.bias else []
    assert (c.db is None) == (not net.bias)
    for ours, right in zip((*c.dW, *(c.db or ())), (*dW, *db), strict=True):
        np.testing.assert_allclose(place64.host(ours), right, rtol=1e-13, atol=1e-15)
    flat = np.concatenate([a.ravel() for a in (*dW, *db)])
    np.testing.assert_allclose(place64.host(c.gradient), flat, rtol=1e-13, atol=1e-15)


@each_net
def test_a_batch_is_the_weighted_mean_of_its_examples(net: Network) -> None:
    w, x, y, s = problem(net)
    alone = [whole(net, w, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    C, g = (np.stack([np.asarray(getattr(c, part)) for c in alone]) for part in ("cost", "gradient"))
    mean, weighted = whole(net, w, x, y), whole(net, w, x, y, sample_weight=s)
    total = whole(net, w, x, y, reduction="sum")
    both = whole(net, w, x, y, sample_weight=s, reduction="sum")
    one = np.ones(5)
    for c, a in ((mean, one / 5), (weighted, s / s.sum()), (total, one), (both, s)):
        assert c.cost == pytest.approx(a @ C, rel=1e-13)
        np.testing.assert_allclose(c.gradient, a @ g, rtol=1e-12, atol=1e-14)
        for j, Delta in enumerate(c.Delta):
            own = np.concatenate([e.Delta[j] for e in alone])
            np.testing.assert_allclose(Delta, a[:, None] * own, rtol=1e-12, atol=1e-14)


@each_net
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_weight_of_2_is_a_repeated_row_and_0_a_removed_one(net: Network, reduction: str) -> None:
    w, x, y, _ = problem(net)
    s, rows = np.array([1.0, 2.0, 0.0, 1.0, 3.0]), [0, 1, 1, 3, 4, 4, 4]
    ours = whole(net, w, x, y, sample_weight=s, reduction=reduction)
    right = whole(net, w, x[rows], y[rows], reduction=reduction)
    assert ours.cost == pytest.approx(float(right.cost), rel=1e-14)
    np.testing.assert_allclose(ours.gradient, right.gradient, rtol=1e-12, atol=1e-15)
    assert all((Delta[2] == 0).all() for Delta in ours.Delta)


def test_one_column_of_targets_may_be_flat(place: Place) -> None:
    net = Network((3, 4, 1), cost="binary_cross_entropy")
    w, x, y, _ = (place.array(a) for a in problem(net))
    flat = whole(net, w, x, y[:, 0])
    for a, b in zip(arrays(flat), arrays(whole(net, w, x, y)), strict=True):
        np.testing.assert_array_equal(place.host(a), place.host(b))


@each_net
def test_what_came_in_stays_and_what_went_out_is_kept(place: Place, net: Network) -> None:
    host = problem(net)
    w, x, y, s = (place.array(a) for a in host)
    before = [place.host(a).copy() for a in (w, x, y, s)]
    first = whole(net, w, x, y, sample_weight=s)
    kept = [place.host(a).copy() for a in arrays(first)]
    again = [place.array(a) for a in problem(net, seed=1)]
    whole(net, *again[:3], sample_weight=again[3])
    net.gradient(*again[:3])
    net.predict(*again[:2])
    for a, b in zip((w, x, y, s), before, strict=True):
        np.testing.assert_array_equal(place.host(a), b)
    for a, b in zip(arrays(first), kept, strict=True):
        np.testing.assert_array_equal(place.host(a), b)


@each_net
def test_a_workspace_changes_nothing(buffered: Place, net: Network) -> None:
    """One room and one gradient for batch after batch, the last smaller, then a larger one again."""
    place = buffered
    w, x, y, s = (place.array(a) for a in problem(net, B=9))
    engine = engine_for(w)
    room, flat = backprop.Workspace(engine, w), engine.buffer((net.n_weights,), w)
    for stop in (6, 6, 2, 9):
        part = (x[:stop, :], y[:stop, :], s[:stop])
        right = backprop.cost_and_gradient(net, engine, w, *part)
        ours = backprop.cost_and_gradient(net, engine, w, *part, "mean", flat, room)
        assert ours[1] is flat
        for a, b in zip(ours, right, strict=True):
            np.testing.assert_allclose(place.host(a), place.host(b), rtol=8 * place.eps, atol=place.eps)


@pytest.mark.parametrize("output", ["identity", "sigmoid", "tanh"])
def test_complex_numbers_run_forward_unconjugated(place64: Place, output: str) -> None:
    """An imaginary step of 1e-30 in w gives the derivative along it to the last digit; the real part stays."""
    net = Network((3, 4, 2), hidden="softplus", output=output)
    assert net.analytic
    w, x, y, _ = problem(net)
    v = np.random.default_rng(5).standard_normal(w.size)
    w_z, x_z, y_z = (place64.array(a, "complex128") for a in (w + 1e-30j * v, x, y))
    right = whole(net, w, x, y)
    for target in (y_z, place64.array(y)):
        C = complex(net.cost(w_z, x_z, target))
        assert C.real == pytest.approx(float(right.cost), rel=1e-13)
        assert C.imag / 1e-30 == pytest.approx(right.gradient @ v, rel=1e-12)
    for a, b in zip(arrays(net.forward(w_z, x_z)), right.p + right.q, strict=True):
        np.testing.assert_allclose(place64.host(a).real, b, rtol=1e-13)
    q = net.predict(w_z, place64.array(x + 1e-30j, "complex128"))
    assert str(q.dtype).endswith("complex128")


@pytest.mark.parametrize("cost", ["cross_entropy", "binary_cross_entropy", "poisson"])
def test_complex_steps_through_natural_pairs(cost: str) -> None:
    net = Network((3, 4, 2), hidden="tanh", cost=cost)
    w, x, y, s = problem(net)
    v = np.random.default_rng(6).standard_normal(w.size)
    labels = np.arange(5) % 2
    for target in (y, labels)[: 1 + (cost == "cross_entropy")]:
        C = net.cost(w + 1e-30j * v, x + 0j, target)
        assert C.imag / 1e-30 == pytest.approx(net.gradient(w, x, target) @ v, rel=1e-12)
    C = net.cost(w + 1e-30j * v, x + 0j, y, sample_weight=s)
    assert C.imag / 1e-30 == pytest.approx(net.gradient(w, x, y, sample_weight=s) @ v, rel=1e-12)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"hidden": "tanh"}, "going back is for real numbers"),
        ({"hidden": "relu"}, "an activation or the cost is not analytic"),
        ({"hidden": "tanh", "cost": "huber"}, "an activation or the cost is not analytic"),
    ],
)
def test_complex_numbers_that_are_refused(parts: dict[str, Any], words: str) -> None:
    net = Network((3, 4, 2), **parts)
    w, x, y, _ = problem(net)
    w, x, start = w + 0j, x + 0j, "w must be float32 or float64, got complex128: "
    for call in (net.backward, net.gradient, net.cost_and_gradient):
        with pytest.raises(TypeError, match=f"{start}going back is for real numbers"):
            call(w, x, y)
    if net.analytic:
        assert np.isfinite(net.cost(w, x, y))
        return
    with pytest.raises(TypeError, match=start + words):
        net.cost(w, x, y)
    for forward in (net.forward, net.predict):
        with pytest.raises(TypeError, match=start + words):
            forward(w, x)


def test_a_workspace_lets_go_of_weights_that_were_replaced() -> None:
    net = Network((2, 3, 1))
    room = backprop.Workspace(engine_for(np.zeros(1)), np.zeros(1))
    first = net.init()
    layers = room.views(net, "w", first)
    assert room.views(net, "w", first) is layers
    gone = weakref.ref(first)
    del first, layers
    second = net.init(1)
    W, _ = room.views(net, "w", second)
    assert gone() is None
    assert np.shares_memory(W[0], second)
