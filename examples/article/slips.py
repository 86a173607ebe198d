"""The article's slips, each with the right form and a number that decides between the two.

Run it from the repository root: python -m examples.article.slips

Prints the table of derivation.md: what the formula gives as it is written, what the right form gives, and what the
library, or a difference of its costs, measures.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import gpubp

SEED = 5


class Slip(NamedTuple):
    """A slip: where, the words of both forms, and three numbers; a text where there is no number to give."""

    section: str
    written: str
    right: str
    gives: float | str
    should: float
    measured: float


def library(rng: np.random.Generator, *sizes: int, **parts: Any) -> tuple[gpubp.Network, Any]:
    """A network without biases, and random weights for it."""
    net = gpubp.Network(sizes, bias=False, **parts)
    return net, rng.standard_normal(net.n_weights)


def slope(C: Callable[[Any], Any], A: Any, k: int = 0, m: int = 0) -> float:
    """dC/dA[k, m] by a complex step."""
    moved = A.astype(complex)
    moved[k, m] += 1e-30j
    return float(np.imag(np.squeeze(C(moved))) / 1e-30)


def undefined(formula: Callable[[], Any]) -> str:
    """What NumPy makes of a formula whose shapes don't fit."""
    try:
        formula()
    except ValueError:
        return "not defined"
    raise SystemExit("a formula that should not be defined is")


def dot(y: Any) -> gpubp.Cost:
    """The cost y'q, whatever the targets are; its y is fixed."""
    check = np.random.default_rng(SEED).standard_normal((4, len(y)))
    return gpubp.Cost(
        lambda xp, q, _: xp.sum(q * xp.asarray(y[:, 0], dtype=q.dtype), axis=1),
        lambda xp, q, _: xp.zeros_like(q) + xp.asarray(y[:, 0], dtype=q.dtype),
        name="dot",
        check_at=(check, check[::-1]),
    )


def global_view() -> list[Slip]:
    """The mean over the data set, and who calls what."""
    net = gpubp.Network((1, 1), bias=False)
    x = np.ones((4, 1))
    one = float(net.cost(np.array([1.0]), x, x + np.sqrt(2)))  # four errors of 1 each
    return [Slip("Global", "mean over i = 0..n", "over i = 1..n", 5 / 4, 4 / 4, one)]


def one_node() -> list[Slip]:
    """Sections I and II."""
    rng = np.random.default_rng(SEED)
    net, w = library(rng, 1, 1, input="tanh")
    x = np.array([[0.8]])
    found = net.forward(w, x)
    linear, _ = library(rng, 1, 1, 1, 1, hidden="identity")
    refused = undefined(lambda: linear.predict(np.ones(3), np.ones((1, 2))))
    return [
        Slip(
            "I",
            "$x_0$ a vector, of 2 say",
            "a number: 1 column",
            refused,
            1,
            linear.forward(np.ones(3), x).p[0].shape[1],
        ),
        Slip(
            "II",
            "no operation at the input node: $p_1 = w x_0$",
            "$p_1 = w\\,\\sigma_0(x_0)$",
            float(w[0] * x[0, 0]),
            float(w[0] * np.tanh(x[0, 0])),
            float(found.p[1][0, 0]),
        ),
    ]


def linear_layers() -> list[Slip]:
    """Section III's cost and derivatives, on a 3-4-4-3 network and one example."""
    rng = np.random.default_rng(SEED)
    net, w = library(rng, 3, 4, 4, 3, hidden="identity")
    W_01, W_12, W_23 = (W for W, _ in net.layers(w))
    x, y = rng.standard_normal((3, 1)), rng.standard_normal((3, 1))
    found = net.backward(w, x.T, y.T)
    C = float(net.cost(w, x.T, y.T))
    x_1, x_3 = W_01 @ x, W_23 @ W_12 @ W_01 @ x
    D, yy, e = W_12 @ W_01, float(np.sum(y * y)), x_3 - y
    kept = float(np.sum(x_3 * x_3)) / 2 - float(np.sum(y * x_3))
    formula = W_23.T @ e @ x_1.T
    sgd, rate = gpubp.SGD(learning_rate=0.1), 0.1
    bowl = gpubp.Network((1, 1), bias=False)  # C = 1/2 (2 w - 2)^2: dC/dw = 4 (w - 1)
    start = np.array([3.0])
    stepped, _ = sgd.step(start, bowl.gradient(start, np.array([[2.0]]), np.array([[2.0]])), sgd.init(start))
    A = rng.standard_normal((4, 3))
    right_form = W_23 @ D @ x @ x.T @ D.T - y @ x.T @ D.T
    W_D = W_23 @ W_12
    return [
        Slip(
            "III",
            "$C = \\frac{1}{n} \\sum (x_{3,k} - y_k)^2$, n = 3",
            "$\\frac{1}{2} \\sum$",
            float(np.sum(e * e)) / 3,
            float(np.sum(e * e)) / 2,
            C,
        ),
        Slip("III", "$A^T$ has n “dimensions”", "n columns (A is 4 by 3)", A.T.ndim, 4, A.T.shape[1]),
        Slip(
            "III",
            "$\\frac{1}{2} x_3^T y - y^T x_3$",
            "$\\frac{1}{2} x_3^T x_3 - y^T x_3$",
            -float(np.sum(y * x_3)) / 2,
            kept,
            C - yy / 2,
        ),
        Slip("III", "dropped: $y^T y$", "$\\frac{1}{2} y^T y$", yy, yy / 2, C - kept),
        Slip(
            "III",
            "$w^{t+1} = w^t - \\eta\\,\\partial C / \\partial w^{t+1}$",
            "$\\partial C / \\partial w^t$",
            (3.0 + rate * 4) / (1 + rate * 4),
            3.0 - rate * 4 * (3.0 - 1.0),
            float(stepped[0]),
        ),
        Slip(
            "III",
            "$y^T E\\,W_{01} x_0$",
            "$y^T D\\,W_{01} x_0$",
            "no E",
            float(np.squeeze(y.T @ W_D @ W_01 @ x)),
            float(np.sum(y * found.q[3].T)),
        ),
        Slip(
            "III",
            "$W_{23}^T (x_3 - y) x_1^T$ is $\\delta C / \\delta W_{01}$",
            "is $\\delta C / \\delta W_{12}$",
            float(found.dW[0][0, 0]),
            float(formula[0, 0]),
            float(found.dW[1][0, 0]),
        ),
        Slip(
            "III",
            "$- y^T x_0^T D^T$",
            "$- y\\,x_0^T D^T$",
            undefined(lambda: y.T @ x.T @ D.T),
            float(right_form[0, 0]),
            float(found.dW[2][0, 0]),
        ),
        Slip(
            "III",
            "$\\Delta_i$ a matrix",
            "one example's vector: 1 row here",
            "no number",
            1,
            found.Delta[1].shape[0],
        ),
    ]


def matrix_derivatives() -> list[Slip]:
    """The aside on matrix derivatives, measured by complex steps."""
    rng = np.random.default_rng(SEED)
    x, A = rng.standard_normal((3, 1)), rng.standard_normal((2, 3))
    halves = A @ x @ x.T
    product_rule = slope(lambda A: x.T @ A.T @ A @ x / 2, A)
    B = rng.standard_normal((3, 3))
    return [
        Slip(
            "III",
            "chain rule: one factor is differentiated",
            "product rule: both are, in turn",
            float(halves[0, 0]) / 2,
            float(halves[0, 0]),
            product_rule,
        ),
        Slip(
            "III",
            "$\\delta_{a,b} x_b = \\sum_{b=0}^n$, n = 3 terms and one",
            "$\\sum_{b=1}^n$",
            4,
            3,
            len(np.eye(3)[0] * x[:, 0]),
        ),
        Slip(
            "III",
            "$x x^T$ is the wrong choice in $\\delta C / \\delta B$",
            "$x^T x$ is",
            float((B * np.sum(x * x))[0, 0]),
            float((B @ x @ x.T)[0, 0]),
            slope(lambda B: x.T @ B.T @ B @ x / 2, B),
        ),
    ]


def full() -> list[Slip]:
    """Section IV."""
    rng = np.random.default_rng(SEED)
    m, k, n = 2, 4, 3
    x, y, A = rng.standard_normal((n, 1)), rng.standard_normal((m, 1)), rng.standard_normal((m, n))
    U = np.ones_like(A)
    squares, w = library(rng, n, m, output="tanh")
    q = np.tanh(squares.layers(w)[0][0] @ x)
    cost = float(np.sum((q - y) ** 2)) / 2
    mean = float(squares.cost(w, x.T, y.T))
    M, other = rng.standard_normal((2, m, n))
    one = gpubp.Network((n, m), output="tanh", cost=dot(y), bias=False)
    p = A @ x
    network_form = (y * (1 - np.tanh(p) ** 2)) @ x.T
    # y' sigma1(A sigma2(B)) x: the columns of B are a batch, and x holds their weights in the sum.
    H, B = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    batch = gpubp.Network((k, m), input="sigmoid", output="tanh", cost=dot(y), bias=False)
    any_y = np.zeros((n, m))
    found = batch.backward(H.ravel(), B.T.copy(), any_y, sample_weight=x[:, 0].copy(), reduction="sum")
    S = 1 / (1 + np.exp(-B))
    E = (y @ x.T) * (1 - np.tanh(H @ S) ** 2)
    two = gpubp.Network((n, k, m), hidden="sigmoid", output="tanh", cost=dot(y), bias=False)
    deep = two.backward(
        np.concatenate([H.ravel(), B.ravel()])[np.r_[m * k : m * k + k * n, : m * k]], x.T, np.zeros((1, m))
    )
    s = 1 / (1 + np.exp(-B @ x))
    d = y * (1 - np.tanh(H @ s) ** 2)
    return [
        Slip(
            "IV",
            "$\\frac{1}{2} (q_3^- y)^2$",
            "$\\frac{1}{2} (q_3 - y)^T (q_3 - y)$",
            "no number",
            cost,
            mean,
        ),
        Slip(
            "IV",
            "$M \\odot U = A$",
            "$M \\odot U = M$",
            float(other[0, 0]),
            float(M[0, 0]),
            float((M * U)[0, 0]),
        ),
        Slip("IV", "dim(M) = dim(U) = 1", "both (m, n): 6 entries", 1, m * n, (M * U).size),
        Slip(
            "IV", "if all $b_{ij} =$", "$b_{ij} = 1$", "no number", float(A[0, 0] * 1), float((A * U)[0, 0])
        ),
        Slip(
            "IV",
            "$C = y^T \\sigma(A) x$: $y x^T \\odot \\sigma'(A)$",
            "$C = y^T \\sigma(A x)$: $(y \\odot \\sigma'(A x)) x^T$",
            float(((y @ x.T) * (1 - np.tanh(A) ** 2))[0, 0]),
            float(network_form[0, 0]),
            float(one.gradient(A.ravel(), x.T, np.zeros((1, m)))[0]),
        ),
        Slip(
            "IV",
            "$y^T \\sigma_1(A\\,\\sigma_2(B)) x$: no $\\delta C / \\delta A$",
            "$E\\,\\sigma_2(B)^T$, $E = y x^T \\odot \\sigma_1'(A\\,\\sigma_2(B))$",
            "stops",
            float((E @ S.T)[0, 0]),
            float(found.dW[0][0, 0]),
        ),
        Slip(
            "IV",
            "the same: no $\\delta C / \\delta B$",
            "$(A^T E) \\odot \\sigma_2'(B)$",
            "stops",
            float(((H.T @ E) * S * (1 - S))[0, 0]),
            float(found.Delta[0][0, 0]),
        ),
        Slip(
            "IV",
            "$y^T \\sigma_1(A\\,\\sigma_2(B x))$: not reached",
            "$\\delta C / \\delta B = ((A^T d) \\odot \\sigma_2'(B x))\\,x^T$, $d = y \\odot \\sigma_1'$",
            "stops",
            float((((H.T @ d) * s * (1 - s)) @ x.T)[0, 0]),
            float(deep.dW[0][0, 0]),
        ),
    ]


def slips() -> list[Slip]:
    """All of them, section by section."""
    return [*global_view(), *one_node(), *linear_layers(), *matrix_derivatives(), *full()]


def table(rows: list[Slip]) -> str:
    """The Markdown table."""
    lines = [
        "| # | section | as written | right | written gives | right gives | measured |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, slip in enumerate(rows, 1):
        gives = slip.gives if isinstance(slip.gives, str) else f"{slip.gives:.6g}"
        numbers = f"{gives} | {slip.should:.6g} | {slip.measured:.6g}"
        lines.append(f"| {number} | {slip.section} | {slip.written} | {slip.right} | {numbers} |")
    return re.sub(
        r"\$(.+?)\$", r"$`\1`$", "\n".join(lines)
    )  # in backticks, Markdown leaves the formula alone


def main() -> None:
    """Print the table; leave with a sentence if a right form isn't what is measured."""
    rows = slips()
    print(table(rows))
    for slip in rows:
        if abs(slip.should - slip.measured) > 1e-12 * max(1.0, abs(slip.should)):
            raise SystemExit(f"{slip.right} gives {slip.should}, measured is {slip.measured}")


if __name__ == "__main__":
    main()
