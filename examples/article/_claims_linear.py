"""Claims 28 to 57: linear networks of many nodes, and derivatives with respect to a matrix."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

import gpubp
from examples.article._catalogue import derivative, drawn, held, stepped
from examples.article._claim import Pairs, Section, Seen, require, slopes
from gpubp import matrix_calculus
from gpubp.matrix_calculus import contract, differentiate, index_sum, products, shape, value

section = Section("III")

NET = gpubp.Network((4, 3, 5, 2), hidden="identity", bias=False)
rng = np.random.default_rng(3)
W = [rng.standard_normal((n, m)) for m, n in pairwise(NET.sizes)]
W01, W12, W23 = W[0], W[1], W[2]
w = NET.flatten([(matrix, None) for matrix in W])
x0, y = rng.standard_normal((4, 1)), rng.standard_normal((2, 1))
x3 = W23 @ W12 @ W01 @ x0

A, B = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
u, v = rng.standard_normal((4, 1)), rng.standard_normal((4, 1))


def chains() -> gpubp.Chains:
    """Both chains of the example."""
    return NET.backward(w, x0.T, y.T)


def stepped_weights(i: int) -> Any:
    """dC/dW[i] by complex step through the cost by hand."""

    def C(changed: Any) -> Any:
        first, second, third = (changed if k == i else W[k] for k in range(3))
        return 0.5 * np.sum((third @ second @ first @ x0 - y) ** 2)

    return slopes(C, W[i])


@section.identity(28, "forward x_1 = W_01 x_0, x_2, x_3", "net.forward")
def _() -> Pairs:
    x = x0[:, 0].tolist()
    for j, q in enumerate(NET.forward(w, x0.T).q):
        yield q[0], x
        x = [sum(a * b for a, b in zip(row, x, strict=True)) for row in W[j]] if j < 3 else x


@section.identity(29, "one matrix W_c = W_23 W_12 W_01", "net.collapse")
def _() -> Pairs:
    W_c, _ = NET.collapse(w)
    yield W_c, W23 @ (W12 @ W01)
    yield NET.predict(w, x0.T), (W_c @ x0).T


@section.identity(30, "C = 1/2 (x_3 - y)'(x_3 - y), a sum over outputs", "net.cost")
def _() -> Pairs:
    yield NET.cost(w, x0.T, y.T), sum((a - b) ** 2 for a, b in zip(x3[:, 0], y[:, 0], strict=True)) / 2


@section.shape(31, "(A')_ij = a_ji; A' is (n, m)", "matrix_calculus.value, shape")
def _() -> Seen:
    turned = value("A'", A=A)
    flipped = all(turned[i, j] == A[j, i] for i, j in np.ndindex(4, 3))
    symbols = shape("A'", {"A": ("m", "n")})
    return flipped and turned.shape == (4, 3) and symbols == ("n", "m"), "exact"


@section.shape(32, "(n_1, k) times (k, m_2) is (n_1, m_2), else undefined", "matrix_calculus.shape")
def _() -> Seen:
    shapes = {"P": ("n_1", "k"), "Q": ("k", "m_2")}
    fits = shape("P Q", shapes) == ("n_1", "m_2") and value("A B", A=A, B=B).shape == (3, 2)
    try:
        shape("Q P", shapes)
    except ValueError:
        return fits, "Q P is refused"
    return False, "Q P is not refused"


@section.identity(33, "x'y = y'x", "matrix_calculus.value")
def _() -> Pairs:
    by_hand = np.full((1, 1), sum(a * b for a, b in zip(u[:, 0], v[:, 0], strict=True)))
    yield value("x' y", x=u, y=v), by_hand
    yield value("y' x", x=u, y=v), by_hand


@section.identity(34, "dropping 1/2 y'y changes no derivative", "gpubp.Cost")
def _() -> Pairs:
    dropped = gpubp.Cost(
        lambda xp, q, y: xp.sum(0.5 * q * q - y * q, axis=1), lambda xp, q, y: q - y, name="dropped"
    )
    shorter = gpubp.Network(NET.sizes, hidden="identity", bias=False, cost=dropped)
    yield shorter.gradient(w, x0.T, y.T), NET.gradient(w, x0.T, y.T)
    yield shorter.cost(w, x0.T, y.T) + 0.5 * np.sum(y * y), NET.cost(w, x0.T, y.T)
    for i in range(3):
        yield shorter.layers(shorter.gradient(w, x0.T, y.T))[i][0], stepped_weights(i)


@section.shape(35, "dC/dW is laid out like W: row a, column b", "net.backward, dW")
def _() -> Seen:
    dW = chains().dW
    same = [each.shape == matrix.shape for each, matrix in zip(dW, W, strict=True)]
    right = all(np.allclose(dW[i], stepped_weights(i), rtol=1e-10) for i in range(3))
    return all(same) and right, ", ".join(f"{each.shape}" for each in dW)


@section.identity(36, "elements updated one by one, or the whole matrix", "SGD.step")
def _() -> Pairs:
    optimizer = gpubp.SGD(learning_rate=0.1)
    after, _ = optimizer.step(w, NET.gradient(w, x0.T, y.T), optimizer.init(w))
    for i, (matrix, _) in enumerate(NET.layers(after)):
        one_by_one, slope = W[i].copy(), stepped_weights(i)
        for a, b in np.ndindex(one_by_one.shape):
            one_by_one[a, b] -= 0.1 * slope[a, b]
        yield matrix, one_by_one


@section.identity(37, "C = y'Ax: dC/dA = y x'", "identities")
def _() -> Pairs:
    return held("y' A x", "A")


@section.identity(38, "that does not depend on A", "identities")
def _() -> Pairs:
    arrays = drawn("y' A x")
    elsewhere = {**arrays, "A": arrays["A"] + 1.0}
    yield derivative("y' A x", "A", arrays), stepped("y' A x", "A", elsewhere)
    yield derivative("y' A x", "A", elsewhere), stepped("y' A x", "A", arrays)


@section.shape(39, "shapes leave only that product of x and y", "products")
def _() -> Seen:
    found = products(("m", "n"), {"x": (("n", "1"), 1), "y": (("m", "1"), 1)})
    return found == ["y x'"], " | ".join(found)


@section.identity(40, "y_i a_ij x_j is y'Ax, whatever the indices are called", "index_sum")
def _() -> Pairs:
    arrays = drawn("y' A x")
    a, x, y = arrays["A"], arrays["x"][:, 0], arrays["y"][:, 0]
    by_hand = sum(y[i] * a[i, j] * x[j] for i, j in np.ndindex(a.shape))
    for term in ("y_i a_ij x_j", "y_bob a_bob,nancy x_nancy"):
        yield index_sum(term, y=y, a=a, x=x), by_hand
    yield value("y' A x", **arrays)[0, 0], by_hand


@section.identity(41, "y_i x_j delta_ik delta_jl = y_k x_l", "contract, index_sum")
def _() -> Pairs:
    (term,) = differentiate("y_i a_ij x_j", "a_kl")
    require(contract(term) == "y_k x_l", f"{term} became {contract(term)}")
    x, y = u[:, 0], x3[:, 0]
    for each in (term, contract(term)):
        yield index_sum(each, "kl", x=x, y=y), [[a * b for b in x] for a in y]


@section.identity(42, "(AB)' = B'A'", "matrix_calculus.value")
def _() -> Pairs:
    by_hand = [[sum(A[j, k] * B[k, i] for k in range(4)) for j in range(3)] for i in range(2)]
    yield value("(A B)'", A=A, B=B), by_hand
    yield value("B' A'", A=A, B=B), by_hand


@section.identity(43, "C = y'ABx: dC/dA = y x'B'", "identities")
def _() -> Pairs:
    return held("y' A B x", "A")


@section.identity(44, "C = y'ABx: dC/dB = A'y x'", "identities")
def _() -> Pairs:
    return held("y' A B x", "B")


@section.identity(45, "C = 1/2 x'A'Ax: dC/dA = A x x'", "identities")
def _() -> Pairs:
    return held("1/2 x' A' A x", "A")


@section.identity(46, "that is linear in A", "identities")
def _() -> Pairs:
    arrays, cost = drawn("1/2 x' A' A x"), "1/2 x' A' A x"
    other = drawn(cost, 1)["A"]
    parts = [derivative(cost, "A", {**arrays, "A": matrix}) for matrix in (arrays["A"], other)]
    yield 2 * parts[0] - 3 * parts[1], stepped(cost, "A", {**arrays, "A": 2 * arrays["A"] - 3 * other})


@section.identity(47, "the product rule's two halves are equal", "differentiate, contract")
def _() -> Pairs:
    arrays = drawn("1/2 x' A' A x")
    a, x = arrays["A"], arrays["x"][:, 0]
    whole = stepped("1/2 x' A' A x", "A", arrays)
    terms = differentiate("x_i a_ji a_jk x_k", "a_cd")
    require(list(map(contract, terms)) == ["x_d a_ck x_k", "x_i a_ci x_d"], f"the terms are {terms}")
    for term in (*terms, *map(contract, terms)):
        yield index_sum(term, "cd", a=a, x=x), whole


@section.shape(48, "degree rules out (xx')^n, shape leaves two, a limit decides", "products")
def _() -> Seen:
    cost, quadratic = "1/2 x' B' A' A B x", "1/2 x' A' A x"
    one = products(("m", "n"), {"A": (("m", "n"), 1), "x": (("n", "1"), 2)})
    two = products(("m", "n"), {"A": (("l", "m"), 2), "B": (("m", "n"), 1), "x": (("n", "1"), 2)})
    listed = one == ["A x x'", "(x' x) A"] and two == ["A' A B x x'", "(x' x) A' A B"]
    higher = products(("m", "n"), {"A": (("m", "n"), 1), "x": (("n", "1"), 4)})
    arrays = drawn(cost)
    known = derivative(quadratic, "A", {"A": arrays["B"], "x": arrays["x"]})
    limit = {**arrays, "A": np.eye(3)}
    left = [formula for formula in two if np.allclose(value(formula, **limit), known, rtol=1e-12)]
    chosen = left == [matrix_calculus.identities[cost].derivatives["B"]]
    ruled_out = not set(one) & set(higher)
    return listed and chosen and ruled_out, f"of {len(two)}: {', '.join(left)}"


@section.identity(49, "C = 1/2 x'B'A'ABx: dC/dA = A B x x'B'", "identities")
def _() -> Pairs:
    return held("1/2 x' B' A' A B x", "A")


@section.identity(50, "C = 1/2 x'B'A'ABx: dC/dB = A'A B x x'", "identities")
def _() -> Pairs:
    return held("1/2 x' B' A' A B x", "B")


@section.identity(51, "D = A'A is symmetric, d_ij = d_ji", "matrix_calculus.value")
def _() -> Pairs:
    by_hand = [[sum(A[k, i] * A[k, j] for k in range(3)) for i in range(4)] for j in range(4)]
    yield value("A' A", A=A), by_hand
    yield value("(A' A)'", A=A), by_hand


@section.identity(52, "D = I gives back dC/dB = B x x'", "identities")
def _() -> Pairs:
    arrays = {**drawn("1/2 x' B' A' A B x"), "A": np.eye(3)}
    yield (
        derivative("1/2 x' B' A' A B x", "B", arrays),
        stepped("1/2 x' A' A x", "A", {"A": arrays["B"], "x": arrays["x"]}),
    )


def network_derivative(i: int, formula: str) -> Pairs:
    """One gradient of the three-layer network, by the article's formula and by complex step."""
    given = {"W01": W01, "W12": W12, "W23": W23, "x0": x0, "y": y, "x3": x3}
    given |= {"x1": W01 @ x0, "x2": W12 @ W01 @ x0}
    ours = chains().dW[i]
    yield ours, value(formula, **given)
    yield ours, stepped_weights(i)


@section.identity(53, "dC/dW_01 = W_12'W_23'(x_3 - y) x_0'", "net.backward, dW")
def _() -> Pairs:
    return network_derivative(0, "W12' W23' (x3 - y) x0'")


@section.identity(54, "dC/dW_12 = W_23'(x_3 - y) x_1'", "net.backward, dW")
def _() -> Pairs:
    return network_derivative(1, "W23' (x3 - y) x1'")


@section.identity(55, "dC/dW_23 = (x_3 - y) x_2'", "net.backward, dW")
def _() -> Pairs:
    return network_derivative(2, "(x3 - y) x2'")


@section.identity(56, "forward and backward chains, Delta_0 to Delta_3", "net.backward")
def _() -> Pairs:
    forward = [x0, W01 @ x0, W12 @ W01 @ x0, W23 @ W12 @ W01 @ x0]
    backward = [x3 - y, W23.T @ (x3 - y), W12.T @ W23.T @ (x3 - y), W01.T @ W12.T @ W23.T @ (x3 - y)]
    onwards = [np.eye(2), W23, W23 @ W12, W23 @ W12 @ W01]
    found = chains()
    for k in range(4):
        yield found.q[k].T, forward[k]
        Delta = found.Delta[3 - k].T
        yield Delta, backward[k]
        yield Delta, slopes(lambda x, on: 0.5 * np.sum((on @ x - y) ** 2), found.q[3 - k].T, onwards[k])


@section.identity(57, "dC/dW_i,i+1 = Delta_2-i x_i'", "net.backward")
def _() -> Pairs:
    found = chains()
    for i in range(3):
        yield found.Delta[i + 1].T @ found.q[i], stepped_weights(i)


CLAIMS = tuple(section.claims)
