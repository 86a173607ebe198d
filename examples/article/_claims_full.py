"""Claims 58 to 70: the full network, what the article leaves unfinished, and what a batch and biases add."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

import gpubp
from examples.article._catalogue import ACTIVATIONS, derivative, drawn, held, stepped
from examples.article._claim import SIGMA, SLOPES, VALUES, Pairs, Section, Seen, slopes
from gpubp.matrix_calculus import shape, value

section = Section("IV")
ours = Section("IV, ours")

SIZES, B = (4, 3, 5, 2), 6
PARTS: dict[str, Any] = {"input": SIGMA[0], "hidden": SIGMA[1:3], "output": SIGMA[3]}
NET = gpubp.Network(SIZES, **PARTS, bias=False)
rng = np.random.default_rng(4)
W = [rng.standard_normal((n, m)) for m, n in pairwise(SIZES)]
b = [rng.standard_normal((n, 1)) for n in SIZES[1:]]
w = NET.flatten([(matrix, None) for matrix in W])
X, Y = rng.standard_normal((B, 4)), rng.standard_normal((B, 2))
x, y = X[:1].T, Y[:1].T


def by_hand(W: Any, x: Any, b: Any = (0.0, 0.0, 0.0)) -> tuple[list[Any], list[Any]]:
    """p_0..p_3 and q_0..q_3 of examples that stand in columns, as the article has them."""
    p, q = [x], [VALUES[0](x)]
    for matrix, bias, sigma in zip(W, b, VALUES[1:], strict=True):
        p.append(matrix @ q[-1] + bias)
        q.append(sigma(p[-1]))
    return p, q


def mean_cost(W: Any, b: Any = (0.0, 0.0, 0.0)) -> Any:
    """C of the whole batch, by hand."""
    return 0.5 * np.sum((by_hand(W, X.T, b)[1][3] - Y.T) ** 2) / B


@section.identity(58, "forward p_j = W_ij q_i, q_j = sigma_j(p_j), vectors", "net.forward")
def _() -> Pairs:
    chains, (p, q) = NET.forward(w, x.T), by_hand(W, x)
    for j in range(4):
        yield chains.p[j].T, p[j]
        yield chains.q[j].T, q[j]


@section.refusal(59, "W_ij takes q_i to p_j: W p, or a skipped layer, is wrong", "net.flatten, shape")
def _() -> Seen:
    seen = []
    skipping = np.ones((5, 4))  # from layer 0 to layer 2
    try:
        NET.flatten([(skipping, None), (W[1], None), (W[2], None)])
    except ValueError as reason:
        seen.append(str(reason).partition(":")[0])
    # A matrix goes between spaces, and p_1 and q_1 lie in two although they are equally long.
    spaces = {"W12": ("p_2", "q_1"), "W01": ("p_1", "q_0"), "q1": ("q_1", "1"), "p1": ("p_1", "1")}
    fits = shape("W12 q1", spaces) == ("p_2", "1")
    for wrong in ("W12 p1", "W12 W01"):
        try:
            shape(wrong, spaces)
        except ValueError:
            seen.append(f"no {wrong}")
    p, _ = by_hand(W, x)
    differs = np.max(np.abs(W[1] @ p[1] - NET.forward(w, x.T).p[2].T)) > 0.01
    return fits and differs and len(seen) == 3, "; ".join(seen)


@section.identity(60, "C = y' sigma(A) x: dC/dA = y x' o sigma'(A)", "identities")
def _() -> Pairs:
    return held("y' sigma(A) x", "A")


@section.identity(61, "sigma = id: sigma'(A) is U, all ones", "matrix_calculus.value")
def _() -> Pairs:
    arrays = drawn("y' sigma(A) x")
    yield value("sigma'(A)", A=arrays["A"], sigma="identity"), [[1.0] * 4] * 3
    plain = value("y x' o sigma'(A)", **arrays, sigma="identity")
    yield plain, stepped("y' A x", "A", arrays)


@section.identity(62, "M o U = M, where (A o B)_ij = a_ij b_ij", "matrix_calculus.value")
def _() -> Pairs:
    M, other = np.random.default_rng(5).standard_normal((2, 3, 4))
    yield value("M o U", M=M, U=np.ones((3, 4))), M.tolist()
    yield value("A o B", A=M, B=other), [[M[i, j] * other[i, j] for j in range(4)] for i in range(3)]


@section.identity(63, "C = y' sigma1(A sigma2(B)) x: dC/dA", "identities")
def _() -> Pairs:
    return held("y' sigma1(A sigma2(B)) x", "A")


@section.identity(64, "C = y' sigma1(A sigma2(B)) x: dC/dB", "identities")
def _() -> Pairs:
    return held("y' sigma1(A sigma2(B)) x", "B")


@ours.identity(65, "C = y' sigma(Ax): dC/dA = (y o sigma'(Ax)) x'", "identities")
def _() -> Pairs:
    return held("y' sigma(A x)", "A")


@ours.identity(66, "C = y' sigma1(A sigma2(Bx)): dC/dA", "identities")
def _() -> Pairs:
    return held("y' sigma1(A sigma2(B x))", "A")


@ours.identity(67, "C = y' sigma1(A sigma2(Bx)): dC/dB", "identities")
def _() -> Pairs:
    return held("y' sigma1(A sigma2(B x))", "B")


@ours.identity(68, "Delta_i = (W' Delta_i+1) o sigma_i', dC/dW = Delta q'", "net.backward, identities")
def _() -> Pairs:
    # One layer is the catalogue's; the network without hidden layers is that layer.
    cost = "1/2 |sigma(A x) - y|^2"
    arrays = drawn(cost)
    single = gpubp.Network((4, 3), output=ACTIVATIONS["sigma"], bias=False)
    yield derivative(cost, "A", arrays), stepped(cost, "A", arrays)
    layer = single.backward(arrays["A"].ravel(), arrays["x"].T, arrays["y"].T)
    yield layer.dW[0], stepped(cost, "A", arrays)
    # All layers, by the recursion and by complex step through what follows a node.
    chains = NET.backward(w, x.T, y.T)
    Delta, dW = chains.Delta, chains.dW
    p, q = by_hand(W, x)
    link = (q[3] - y) * SLOPES[3](p[3])
    for j in (3, 2, 1, 0):
        yield Delta[j].T, link
        yield Delta[j].T, slopes(cost_from, p[j], j)
        if j:
            yield dW[j - 1], slopes(cost_with, W[j - 1], j - 1)
            link = (W[j - 1].T @ link) * SLOPES[j - 1](p[j - 1])


def cost_with(M: Any, i: int) -> Any:
    """C of the one example, by hand, with M for W[i]."""
    return 0.5 * np.sum((by_hand([*W[:i], M, *W[i + 1 :]], x)[1][3] - y) ** 2)


def cost_from(p_j: Any, j: int) -> Any:
    """The same from a value p_j on."""
    q = VALUES[j](p_j)
    for matrix, sigma in zip(W[j:], VALUES[j + 1 :], strict=True):
        q = sigma(matrix @ q)
    return 0.5 * np.sum((q - y) ** 2)


@ours.identity(69, "a batch: one product sums every example's Delta q'", "net.backward, dW")
def _() -> Pairs:
    chains = NET.backward(w, X, Y)
    q, Delta, dW = chains.q, chains.Delta, chains.dW
    for i in range(3):
        yield dW[i], sum(np.outer(Delta[i + 1][k], q[i][k]) for k in range(B))
        yield dW[i], slopes(lambda M, i: mean_cost([*W[:i], M, *W[i + 1 :]]), W[i], i)


@ours.identity(70, "biases: dC/db is the sum of Delta over the batch", "net.backward, db")
def _() -> Pairs:
    net = gpubp.Network(SIZES, **PARTS)
    weights = net.flatten([(matrix, bias[:, 0]) for matrix, bias in zip(W, b, strict=True)])
    chains = net.backward(weights, X, Y)
    Delta, db = chains.Delta, chains.db
    for i in range(3):
        yield db[i], sum(Delta[i + 1][k] for k in range(B))
        yield db[i], slopes(lambda v, i: mean_cost(W, [*b[:i], v, *b[i + 1 :]]), b[i], i)[:, 0]


CLAIMS = (*section.claims, *ours.claims)
