"""Claims 1 to 27: the global view, and networks of one node a layer, without and with activations."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpubp
from examples.article._claim import SIGMA, SLOPES, VALUES, Pairs, Section, Seen, require, slopes
from gpubp import backprop
from gpubp._typing import Array
from gpubp.engines import Generic

overview = Section("Global view")
linear = Section("I")
full = Section("II")

# One example x_0 with its label y, and the three weights.
X0, Y = 0.8, 0.3
W01, W12, W23 = WEIGHTS = (1.5, -0.7, 2.0)
w = np.array(WEIGHTS)
LINE = gpubp.Network((1, 1, 1, 1), hidden="identity", bias=False)
CHAIN = gpubp.Network((1, 1, 1, 1), input=SIGMA[0], hidden=SIGMA[1:3], output=SIGMA[3], bias=False)


def sequences(net: gpubp.Network, w: Any, x: float, y: float) -> dict[str, float]:
    """The chains of a network of one node a layer by the article's names: x_j where it is linear, else p_j and q_j,
    dC/dq_j; and delta_k, which is dC/dp_{L-k}."""
    said = gpubp.explain(net, w, np.array([[x]]), np.array([[y]]))
    found = {term.article: term.value.item() for term in (*said.forward, *said.backward)}
    L = len(net.sizes) - 1
    return found | {f"dC/dp_{L - k}": found[f"delta_{k}"] for k in range(L + 1)}


def gradient(net: gpubp.Network, w: Any, x: float = X0, y: float = Y) -> Any:
    """dC/dw_01, dC/dw_12, ..."""
    return net.gradient(w, np.array([[x]]), np.array([[y]]))


def line_cost(x: Any, weights: Any) -> Any:
    """Section I's cost, by hand, of a value x and the weights that follow it."""
    return 0.5 * (np.prod(weights) * x - Y) ** 2


def line_slopes(weights: Any) -> Any:
    """Its derivatives by the weights."""
    return slopes(lambda w: line_cost(X0, w), weights)


def chain_cost(q: Any, j: int, weights: Any) -> Any:
    """Section II's cost, by hand, of a value q of node j and all weights."""
    for weight, sigma in zip(weights[j:], VALUES[j + 1 :], strict=True):
        q = sigma(weight * q)
    return 0.5 * (q - Y) ** 2


def chain_slopes() -> Any:
    """Its derivatives by the weights."""
    return slopes(lambda weights: chain_cost(VALUES[0](X0), 0, weights), w)


# Global view

N = 50
ONE_WEIGHT = gpubp.Network((1, 1), bias=False)
rng = np.random.default_rng(0)
DATA, LABELS = rng.standard_normal((N, 3)), rng.standard_normal(N)


@overview.identity(1, "linear regression y = w.x is a network", "Network((n, 1))")
def _() -> Pairs:
    net = gpubp.Network((3, 1), bias=False)
    weights = np.array([0.5, -2.0, 1.0])
    yield (
        net.predict(weights, DATA)[:, 0],
        [sum(a * b for a, b in zip(weights, row, strict=True)) for row in DATA],
    )
    normal = np.linalg.solve(DATA.T @ DATA, DATA.T @ LABELS)
    yield net.gradient(normal, DATA, LABELS), np.zeros(3)


@overview.identity(2, "the error is 0 only where prediction equals label", "costs.squared_error")
def _() -> Pairs:
    q = DATA[:, :1]
    for y in (q, q + 0.5, -q):
        c = gpubp.costs.get("squared_error").value(np, q, y)
        yield c, [(a - b) ** 2 / 2 for a, b in zip(q[:, 0], y[:, 0], strict=True)]
        yield np.sqrt(2 * c), np.abs(q - y)[:, 0]


@overview.identity(3, "C is the mean over the data set, i = 1..n", "net.cost")
def _() -> Pairs:
    net = gpubp.Network((3, 1), bias=False)
    weights = np.array([0.5, -2.0, 1.0])
    each = [(sum(weights * x) - y) ** 2 / 2 for x, y in zip(DATA, LABELS, strict=True)]
    yield net.cost(weights, DATA, LABELS), sum(each) / N


def steps(sign: float) -> Seen:
    """Steps of gradient descent from where the slope of a one-weight network has that sign."""
    optimizer, moved = gpubp.SGD(learning_rate=0.1), []
    for start in np.linspace(-3.0, 3.0, 200):
        weight = np.array([start])
        slope = gradient(ONE_WEIGHT, weight)
        if slope[0] * sign > 0:
            after, _ = optimizer.step(weight, slope, optimizer.init(weight))
            moved.append((after - weight).item() * sign < 0)
    return all(moved) and len(moved) > 20, f"{sum(moved)} of {len(moved)} steps"


@overview.behaviour(4, "positive slope: the step decreases w", "SGD.step")
def _() -> Seen:
    return steps(1.0)


@overview.behaviour(5, "negative slope: the step increases w", "SGD.step")
def _() -> Seen:
    return steps(-1.0)


@overview.identity(6, "w - eta |slope| sign(slope) = w - eta slope", "SGD.step")
def _() -> Pairs:
    optimizer = gpubp.SGD(learning_rate=0.1)
    for start in (-2.0, 0.1, 3.0):
        weight = np.array([start])
        slope = slopes(lambda v: 0.5 * (v[0] * X0 - Y) ** 2, weight)
        after, _ = optimizer.step(weight, gradient(ONE_WEIGHT, weight), optimizer.init(weight))
        yield after, weight - 0.1 * np.abs(slope) * np.sign(slope)


@overview.identity(7, "another cost changes only the first backward link", "Network(cost=)")
def _() -> Pairs:
    firsts = []
    for cost in ("squared_error", "huber", "absolute_error", "quantile(tau=0.3)"):
        net = gpubp.Network(CHAIN.sizes, SIGMA[1:3], SIGMA[3], SIGMA[0], cost, bias=False)
        chains = net.backward(w, np.array([[X0]]), np.array([[Y]]))
        p, Delta = chains.p, chains.Delta
        firsts.append(Delta[3].item())
        link = Delta[3]
        for j in (2, 1, 0):
            link = link * WEIGHTS[j] * SLOPES[j](p[j])
            yield Delta[j], link
    require(len(set(np.round(firsts, 6))) >= 3, "the costs have one first link")


# I. Linear, one node a layer


@linear.identity(8, "forward chain x_1 = w_01 x_0, x_2, x_3", "explain, forward")
def _() -> Pairs:
    found = sequences(LINE, w, X0, Y)
    for j in range(4):
        yield found[f"x_{j}"], np.prod(WEIGHTS[:j]) * X0


@linear.identity(9, "three weights equal one, w_c = w_23 w_12 w_01", "net.collapse")
def _() -> Pairs:
    w_c = LINE.collapse(w)[0].item()
    yield w_c, W23 * W12 * W01
    yield sequences(LINE, w, X0, Y)["x_3"], w_c * X0


def line_derivative(i: int, by_hand: float) -> Pairs:
    """The derivative with respect to one weight, by formula and by complex step."""
    ours = gradient(LINE, w)[i]
    yield ours, by_hand
    yield ours, line_slopes(w)[i]


@linear.identity(10, "dC/dw_23 = (x_3 - y) w_12 w_01 x_0", "net.gradient")
def _() -> Pairs:
    return line_derivative(2, (W23 * W12 * W01 * X0 - Y) * W12 * W01 * X0)


@linear.identity(11, "dC/dw_12 = (x_3 - y) w_23 w_01 x_0", "net.gradient")
def _() -> Pairs:
    return line_derivative(1, (W23 * W12 * W01 * X0 - Y) * W23 * W01 * X0)


@linear.identity(12, "dC/dw_01 = (x_3 - y) w_23 w_12 x_0", "net.gradient")
def _() -> Pairs:
    return line_derivative(0, (W23 * W12 * W01 * X0 - Y) * W23 * W12 * X0)


@linear.identity(13, "all vanish at x_3 = y", "net.gradient")
def _() -> Pairs:
    x_3 = sequences(LINE, w, X0, Y)["x_3"]
    yield gradient(LINE, w, y=x_3), np.zeros(3)
    require(np.all(np.abs(gradient(LINE, w, y=x_3 + 0.1)) > 0.01), "they vanish elsewhere too")


@linear.identity(14, "delta_k = (x_3 - y) times the last k weights", "explain, deltas")
def _() -> Pairs:
    found = sequences(LINE, w, X0, Y)
    for k in range(4):
        yield found[f"delta_{k}"], np.prod(WEIGHTS[3 - k :]) * (found["x_3"] - Y)
        yield found[f"delta_{k}"], slopes(line_cost, found[f"x_{3 - k}"], WEIGHTS[3 - k :]).item()


@linear.identity(15, "dC/dw_i,i+1 = delta_2-i x_i", "explain, deltas")
def _() -> Pairs:
    found = sequences(LINE, w, X0, Y)
    yield [found[f"delta_{2 - i}"] * found[f"x_{i}"] for i in range(3)], line_slopes(w)


@linear.identity(16, "the 2 is the number of hidden layers, any depth", "Network((1,) * n)")
def _() -> Pairs:
    for hidden in range(1, 8):
        net = gpubp.Network((1,) * (hidden + 2), hidden="identity", bias=False)
        weights = np.random.default_rng(hidden).uniform(0.5, 1.5, hidden + 1)
        found = sequences(net, weights, X0, Y)
        ours = [found[f"delta_{hidden - i}"] * found[f"x_{i}"] for i in range(hidden + 1)]
        yield ours, line_slopes(weights)


@linear.identity(17, "g(au + bv) = a g(u) + b g(v); false with tanh", "net.predict")
def _() -> Pairs:
    a, b, u, v = 1.7, -0.3, *np.random.default_rng(1).standard_normal((2, 1, 4))
    for hidden in ("identity", "tanh"):
        net = gpubp.Network((4, 3, 2), hidden=hidden, bias=False)
        weights = net.init(1, dtype="float64")
        whole = net.predict(weights, a * u + b * v)
        parts = a * net.predict(weights, u) + b * net.predict(weights, v)
        if hidden == "identity":
            yield whole, parts
        else:
            require(np.max(np.abs(whole - parts)) > 0.01, "tanh is linear too")


# II. Non-linear, one node a layer


@full.identity(18, "forward p_i+1 = w_i,i+1 q_i, q_j = sigma_j(p_j)", "explain, forward")
def _() -> Pairs:
    found = sequences(CHAIN, w, X0, Y)
    p = X0
    for j in range(4):
        q = VALUES[j](p)
        yield [found[f"p_{j}"], found[f"q_{j}"]], [p, q]
        p = WEIGHTS[j] * q if j < 3 else p


@full.identity(19, "identity activations give back section I", "Network(hidden=)")
def _() -> Pairs:
    yield gradient(LINE, w), line_slopes(w)
    p, q = LINE.forward(w, np.array([[X0]]))
    for j in range(4):
        yield p[j].item(), q[j].item()


def chain_derivative(i: int) -> Pairs:
    """The article's product of all factors but w_i,i+1, and complex step."""
    p, q = [X0], [VALUES[0](X0)]
    for j in range(3):
        p.append(WEIGHTS[j] * q[j])
        q.append(VALUES[j + 1](p[j + 1]))
    by_hand = (q[3] - Y) * SLOPES[3](p[3])
    for j in range(2, i, -1):
        by_hand = by_hand * WEIGHTS[j] * SLOPES[j](p[j])
    ours = gradient(CHAIN, w)[i]
    yield ours, by_hand * q[i]
    yield ours, chain_slopes()[i]


@full.identity(20, "dC/dw_23 = (q_3 - y) sigma_3' q_2", "net.gradient")
def _() -> Pairs:
    return chain_derivative(2)


@full.identity(21, "dC/dw_12 = (q_3 - y) sigma_3' w_23 sigma_2' q_1", "net.gradient")
def _() -> Pairs:
    return chain_derivative(1)


@full.identity(22, "dC/dw_01 = ... sigma_3' w_23 sigma_2' w_12 sigma_1' q_0", "net.gradient")
def _() -> Pairs:
    return chain_derivative(0)


@full.identity(23, "all vanish at q_3 = y", "net.gradient")
def _() -> Pairs:
    q_3 = sequences(CHAIN, w, X0, Y)["q_3"]
    yield gradient(CHAIN, w, y=q_3), np.zeros(3)
    require(np.all(np.abs(gradient(CHAIN, w, y=q_3 + 0.5)) > 1e-3), "they vanish elsewhere too")


@full.identity(24, "eight forward terms, from p_0 to q_3 as nested functions", "explain, forward")
def _() -> Pairs:
    found = sequences(CHAIN, w, X0, Y)
    s0, s1, s2, s3 = VALUES
    nested = {
        "p_0": X0,
        "q_0": s0(X0),
        "p_1": W01 * s0(X0),
        "q_1": s1(W01 * s0(X0)),
        "p_2": W12 * s1(W01 * s0(X0)),
        "q_2": s2(W12 * s1(W01 * s0(X0))),
        "p_3": W23 * s2(W12 * s1(W01 * s0(X0))),
        "q_3": s3(W23 * s2(W12 * s1(W01 * s0(X0)))),
    }
    for name, number in nested.items():
        yield found[name], number


@full.identity(25, "eight backward terms, dC/dq and dC/dp in turn", "explain, backward")
def _() -> Pairs:
    found = sequences(CHAIN, w, X0, Y)
    for j in (3, 2, 1, 0):
        p, q = found[f"p_{j}"], found[f"q_{j}"]
        yield found[f"dC/dq_{j}"], slopes(lambda q, j: chain_cost(q, j, WEIGHTS), q, j).item()
        yield found[f"dC/dp_{j}"], slopes(lambda p, j: chain_cost(VALUES[j](p), j, WEIGHTS), p, j).item()


@full.identity(26, "dC/dw_i,i+1 = delta_2-i q_i", "explain, deltas")
def _() -> Pairs:
    found = sequences(CHAIN, w, X0, Y)
    yield [found[f"delta_{2 - i}"] * found[f"q_{i}"] for i in range(3)], chain_slopes()


class Counting(Generic):
    """The plain engine, counting the multiplications of its matrix products, forward and backward."""

    def __init__(self) -> None:
        super().__init__(np)
        self.forward = self.backward = 0

    def affine(self, q: Array, W: Array, b: Array | None, out: Array | None = None) -> Array:
        self.forward += q.shape[0] * W.size
        return super().affine(q, W, b, out)

    def propagate(self, Delta: Array, W: Array, out: Array | None = None) -> Array:
        self.backward += Delta.shape[0] * W.size
        return super().propagate(Delta, W, out)

    def contract(self, Delta: Array, q: Array, out: Array | None = None) -> Array:
        self.backward += Delta.size * q.shape[1]
        return super().contract(Delta, q, out)


@full.behaviour(27, "backward costs about as much as forward, at most 2x", "engines.Generic, counted")
def _() -> Seen:
    ratios = []
    for net, B in ((CHAIN, 1), (gpubp.Network((64, 32, 10)), 7), (gpubp.Network((9,) * 12), 5)):
        count = Counting()
        x, y = np.ones((B, net.sizes[0])), np.zeros((B, net.sizes[-1]))
        backprop.cost_and_gradient(net, count, net.init(dtype="float64"), x, y)
        ratios.append(count.backward / count.forward)
    return min(ratios) > 0 and max(ratios) <= 2, "products: " + ", ".join(f"{ratio:.2f}x" for ratio in ratios)


CLAIMS = (*overview.claims, *linear.claims, *full.claims)
