"""``explain`` beside hand-worked chains, subnetworks, differences, and its own formulas evaluated."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from math import exp, log, log1p, tanh
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from reference import COSTS, HIDDEN, targets

import gpubp
from gpubp import Network, explain
from gpubp._explain.explanation import MOST
from gpubp._explain.notation import printable, tokens

W = [1.5, -0.7, 2.0]


def drawn(net: Network, B: int = 1, seed: int = 0) -> tuple[Any, Any, Any]:
    """Weights, biases too, inputs, and targets that the cost is made for."""
    rng = np.random.default_rng(seed)
    w = net.init(seed, dtype="float64")
    x = rng.standard_normal((B, net.sizes[0]))
    return w + 0.2 * rng.standard_normal(w.shape), x, targets(net.cost_function.name, rng, B, net.sizes[-1])


def value(term: gpubp._explain.explanation.Term) -> float:
    assert term.shape == (1, 1)
    return float(term.value.item())


def test_one_node_a_layer_in_the_articles_numbering() -> None:
    x, y = 0.8, 0.3
    net = Network((1, 1, 1, 1), input="sigmoid", hidden="tanh", output="softplus", bias=False)
    found = explain(net, np.array(W), np.array([[x]]), np.array([[y]]))

    # section II by hand
    q0 = 1 / (1 + exp(-x))
    p1 = W[0] * q0
    q1 = tanh(p1)
    p2 = W[1] * q1
    q2 = tanh(p2)
    p3 = W[2] * q2
    q3 = log1p(exp(p3))
    forward = {"p_0": x, "q_0": q0, "p_1": p1, "q_1": q1, "p_2": p2, "q_2": q2, "p_3": p3, "q_3": q3}
    s3, s2, s1, s0 = 1 / (1 + exp(-p3)), 1 - q2**2, 1 - q1**2, q0 * (1 - q0)
    e = q3 - y
    backward = {
        "dC/dq_3": e,
        "delta_0": e * s3,
        "dC/dq_2": e * s3 * W[2],
        "delta_1": e * s3 * W[2] * s2,
        "dC/dq_1": e * s3 * W[2] * s2 * W[1],
        "delta_2": e * s3 * W[2] * s2 * W[1] * s1,
        "dC/dq_0": e * s3 * W[2] * s2 * W[1] * s1 * W[0],
        "delta_3": e * s3 * W[2] * s2 * W[1] * s1 * W[0] * s0,
    }
    for terms, by_hand in ((found.forward, forward), (found.backward, backward)):
        assert [term.article for term in terms] == list(by_hand)
        np.testing.assert_allclose([value(term) for term in terms], list(by_hand.values()), rtol=1e-13)
    assert [term.article for term in found.deltas] == ["delta_0", "delta_1", "delta_2", "delta_3"]
    assert [term.name for term in found.deltas] == ["Delta[3]", "Delta[2]", "Delta[1]", "Delta[0]"]
    assert value(found.weights[1]) == W[1]
    assert float(found.cost.value) == pytest.approx(e * e / 2)

    # dC/dw_{i,i+1} = delta_{2-i} q_i, with the weight itself left out of the chain
    assert [(term.article, term.formula) for term in found.gradient] == [
        ("dC/dw_01", "delta_2 q_0"),
        ("dC/dw_12", "delta_1 q_1"),
        ("dC/dw_23", "delta_0 q_2"),
    ]
    for i, term in enumerate(found.gradient):
        assert value(term) == pytest.approx(backward[f"delta_{2 - i}"] * forward[f"q_{i}"])
        assert value(term) == pytest.approx(term.difference.item(), rel=1e-8)
    assert (
        found.gradient[1].chain
        == "(q_3 - y) sigma_3'(p_3) w_23 sigma_2'(p_2) [w_12] sigma_1(w_01 sigma_0(p_0))"
    )


def test_a_linear_chain_is_section_one() -> None:
    net = Network((1, 1, 1, 1), hidden="identity", bias=False)
    found = explain(net, np.array(W), np.array([[0.8]]), np.array([0.3]))
    x = [0.8, 0.8 * 1.5, 0.8 * 1.5 * -0.7, 0.8 * 1.5 * -0.7 * 2]
    e = x[3] - 0.3
    assert [term.article for term in found.forward] == ["x_0", "x_1", "x_2", "x_3"]
    assert [term.article for term in found.backward] == ["delta_0", "delta_1", "delta_2", "delta_3"]
    np.testing.assert_allclose([value(term) for term in found.forward], x, rtol=1e-14)
    np.testing.assert_allclose(
        [value(term) for term in found.backward], [e, 2 * e, -1.4 * e, -2.1 * e], rtol=1e-14
    )
    assert found.forward[2].chain == "w_12 w_01 x_0"
    assert [term.chain for term in found.gradient] == [
        "(x_3 - y) w_23 w_12 [w_01] x_0",
        "(x_3 - y) w_23 [w_12] w_01 x_0",
        "(x_3 - y) [w_23] w_12 w_01 x_0",
    ]


NETS = [
    *(Network((3, 4, 2), hidden=sigma) for sigma in HIDDEN),
    *(Network((2, 3, 3), hidden="tanh", cost=cost) for cost in COSTS),
    Network((2, 3, 3), hidden="tanh", output="sigmoid", cost="cross_entropy"),
    Network((2, 3, 2), output="softplus", cost="poisson", input="tanh", bias=False),
    Network((1, 1, 1), output="sigmoid", cost="binary_cross_entropy"),
    Network((1, 1, 1), hidden="identity", cost="poisson"),
    Network((1, 1, 1), hidden="identity", cost="huber"),
]


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("net", NETS, ids=repr)
def test_the_numbers_are_those_of_backward_and_of_differences(net: Network, B: int) -> None:
    w, x, y = drawn(net, B)
    found, chains = explain(net, w, x, y), net.backward(w, x, y)
    terms = {term.name: term for part in found.parts.values() for term in part}
    for name, arrays in {
        "p": chains.p,
        "Delta": chains.Delta,
        "dW": chains.dW,
        "db": chains.db or (),
    }.items():
        for j, array in enumerate(arrays):
            np.testing.assert_array_equal(terms[f"{name}[{j}]"].value, array)
    assert float(terms["cost"].value) == chains.cost
    for term in found.gradient:
        assert term.apart < 1e-9 * max(1.0, np.max(np.abs(term.value)))
        assert term.difference is not term.value

    # dC/dq_j is dC/dx of the network that begins there
    if "q[0]" in terms:
        for j in range(len(net.sizes) - 1):
            rest = Network(
                net.sizes[j:], net.sigma[j + 1 : -1], net.sigma[-1], cost=net.cost_function, bias=net.bias
            )
            weights = rest.flatten(net.layers(w)[j:])
            Delta = rest.backward(weights, chains.q[j], y).Delta
            np.testing.assert_allclose(terms[f"dC/dq[{j}]"].value, Delta[0], rtol=1e-12, atol=1e-15)


FUNCTIONS: dict[str, Callable[..., float]] = {
    "tanh": tanh,
    "identity": lambda p: p,
    "sigmoid": lambda p: 1 / (1 + exp(-p)),
    "softplus": lambda p: log1p(exp(p)),
    "exp": exp,
    "log": log,
    "relu": lambda p: max(p, 0.0),
    "softmax": lambda *p: exp(p[0]) / sum(map(exp, p)),
}


@pytest.mark.parametrize(
    "net",
    [
        Network((3, 4, 2), hidden="tanh", cost="cross_entropy"),
        Network((3, 2, 2), hidden="softplus", bias=False),
        Network((1, 1, 1), hidden="tanh", cost="binary_cross_entropy"),
        Network((1, 1, 1), hidden="sigmoid", cost="poisson"),
        Network((1, 1, 1), hidden="identity"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("B", [1, 2])
def test_each_line_of_numbers_gives_what_stands_behind_it(net: Network, B: int) -> None:
    found = explain(net, *drawn(net, B))
    evaluated = 0
    for term in (*found.forward, found.cost, *found.backward, *found.gradient):
        if term.numbers:
            result = eval(term.numbers.replace("^", "**"), dict(FUNCTIONS))
            assert result == pytest.approx(float(term.value.flat[0]), rel=5e-3, abs=2e-3)
            evaluated += 1
    assert evaluated > 3 * (len(net.sizes) - 1)


def test_the_text() -> None:
    net = Network((3, 4, 2), hidden="tanh", cost="cross_entropy")
    w, x, _ = drawn(net)
    text = str(explain(net, w, x, np.array([1])))
    assert text.startswith(repr(net))
    for line in (
        r"p_1 = q_0 W_01' \+ b_01 +p\[1\]  \(1, 4\)",
        r"C = rowsum\(-y o log\(q_2\)\) +cost",
        r"Delta_0 = q_2 o \(dC/dq_2 - rowsum\(dC/dq_2 o q_2\)\) = q_2 - y +Delta\[2\]  \(1, 2\)",
        r"Delta_1 = dC/dq_1 o sigma_1'\(p_1\) +Delta\[1\]  \(1, 4\)",
        r"dC/dW_01 = Delta_1' q_0 +dW\[0\]  \(4, 3\)",
        r"    backward +central differences",
        r"  The article counts from the output: Delta_k is Delta\[2-k\], and dC/dW_ij takes the one with k = 1-i\.",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line
    order = [
        text.index(title) for title in ("FORWARD", "W_01  ", "p_1 =", "BACKWARD", "GRADIENT", "dC/dW_12 =")
    ]
    assert order == sorted(order)
    assert all(len(line) < 160 for line in text.splitlines())


def balanced(latex: str) -> bool:
    opened = re.findall(r"\\begin\{(\w+)\}", latex)
    closed = re.findall(r"\\end\{(\w+)\}", latex)
    depth, least = 0, 0
    for brace in re.findall(r"(?<!\\)[{}]", latex):
        depth += 1 if brace == "{" else -1
        least = min(least, depth)
    return (
        sorted(opened) == sorted(closed)
        and depth == least == 0
        and latex.count("\\[ ") == latex.count(" \\]")
    )


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_the_latex_is_balanced(net: Network) -> None:
    latex = explain(net, *drawn(net, 2)).latex()
    assert balanced(latex)
    assert not balanced(latex.replace("}", "", 1))
    assert not balanced(latex.replace(r"\end{bmatrix}", "", 1).replace(r"\end{aligned}", "", 1))
    displays = re.findall(r"\\\[.*?\\\]", latex, re.DOTALL)
    assert len(displays) == sum(map(len, explain(net, *drawn(net, 2)).parts.values()))
    outside = re.sub(r"\\\[.*?\\\]|(?<!\\)\$.*?(?<!\\)\$", "", latex, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[_^&#$]", outside)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_the_latex_compiles(tmp_path: Path) -> None:
    awkward = gpubp.Activation(lambda xp, p: xp.tanh(p), lambda xp, p, q: 1 - q * q, name="t&n_h% #1 $x{y^")
    nets = [*NETS, Network((8, 8, 8), hidden=awkward), Network((1, 1, 1, 1), hidden="identity", bias=False)]
    body = "\n\\newpage\n".join(explain(net, *drawn(net, B)).latex() for net in nets for B in (1, 3))
    head = r"\documentclass{article} \usepackage{amsmath, color}"
    text = f"{head}\n\\begin{{document}}\n{body}\\end{{document}}"
    (tmp_path / "a.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_latex_marks_the_missing_weight() -> None:
    net = Network((1, 1, 1), hidden="tanh", bias=False)
    latex = explain(net, *drawn(net)).latex()
    assert (
        r"&= \underbrace{(q_{2} - y) \sigma_{2}'(p_{2}) w_{12} \sigma_{1}'(p_{1})}_{\delta_{1}} \; "
        r"{\color{red} \boxed{w_{01}}} \; \underbrace{\sigma_{0}(p_{0})}_{q_{0}} \\" in latex
    )
    assert r"\frac{\partial C}{\partial w_{01}} &= \delta_{1} q_{0} \\" in latex


def test_the_page_stands_alone_and_no_name_breaks_it() -> None:
    name = '</script><b>"tan&h"</b>@@DATA@@'
    sigma = gpubp.Activation(lambda xp, p: xp.tanh(p), lambda xp, p, q: 1 - q * q, name=name)
    net = Network((2, 2, 1), hidden=sigma)
    found = explain(net, *drawn(net))
    page = found.html()
    assert "<b>" not in page.replace("<b>${part}</b>", "")
    assert page.count("</script>") == 2
    assert not re.search(r"https?://|@@TITLE|@@TEXT|@@NOTES|@@SCRIPT|src=|@import", page)
    assert balanced(found.latex())
    assert repr(found) == f"<explanation of {net!r}, B = 1>"
    assert found._repr_html_().startswith('<iframe title="Network((2, 2, 1)')
    assert "<script" not in found._repr_html_()


HOSTILE = [
    "</script><script>alert(1)</script>",
    "</pre></noscript><img src=x onerror=alert(1)>",
    "<!--",
    "\"'`${alert(1)}`'\"",
    "@@SCRIPT@@ @@DATA@@ @@NOTES@@ @@TEXT@@ @@TITLE@@",
    "nul \0 bell \a escape \x1b[2J line\nline\r\u2028\u2029",
    "right \u202e to \u2066 left \u200f",
    "__proto__",
    "constructor",
    "half a pair \ud800",
    "\\u003c \\",
    "&lt; &x;",
    "",
]


def tags(page: str) -> list[Any]:
    """The page as a browser takes it apart, without its text and what sets letters in it."""
    found: list[Any] = []
    letters = {"var", "sub", "sup", "mark"}
    reader: Any = HTMLParser()
    reader.handle_starttag = lambda tag, more: found.append((tag, more))
    reader.handle_endtag = lambda tag: found.append((tag, ()))
    reader.handle_comment = lambda data: found.append(("comment", data))
    reader.feed(page)
    return [(tag, more) for tag, more in found if tag not in letters]


def named(name: str) -> gpubp.Explanation:
    sigma = gpubp.Activation(lambda xp, p: xp.tanh(p), lambda xp, p, q: 1 - q * q, name=name)
    cost = gpubp.Cost(lambda xp, q, y: xp.sum((q - y) ** 2, axis=1), lambda xp, q, y: 2 * (q - y), name=name)
    net = Network((2, 2, 1), hidden=sigma, output=gpubp.per_node([sigma]), cost=cost)
    return explain(net, *drawn(Network((2, 2, 1))))


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_no_name_breaks_the_page(name: str, tmp_path: Path) -> None:
    found = named(name)
    page = found.html()
    assert tags(page) == tags(named("mine").html())
    for text in (page, str(found), found.latex()):
        text.encode()  # a lone half of a pair can't be written to a file
        assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", text)
    first, second = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (literal,) = re.findall(r"^const data = (.*);$", first, re.MULTILINE)
    data = json.loads(literal)
    assert (data["sigma"], data["cost"]) == (["identity", None, None], None)
    assert data["names"][1] == printable(name)
    if shutil.which("node"):
        (tmp_path / "page.js").write_text(first + second, encoding="utf-8")
        subprocess.run(["node", "--check", tmp_path / "page.js"], check=True)


@pytest.mark.parametrize(
    ("formula", "keys"),
    [
        ("q_0 W_01' + b_01", "q0 W0' b0"),
        ("dC/dq_1 o sigma_1'(p_1)", "g1 S1"),
        ("Delta_0' q_1", "D3' q1"),
        ("delta_2 x_0", "D1 p0"),
        ("sigma_1(w_12 p_1)", "W1 p1"),
        ("(q_3 - y)/B", "q3 y"),
        ("colsum(Delta_3)", "D0"),
        ("x", ""),
    ],
)
def test_the_page_finds_the_matrices_in_a_formula(formula: str, keys: str) -> None:
    found = tokens(formula, 3)
    assert " ".join(key for _, key in found if key) == keys
    without = re.sub(r"<.*?>|&\w+;", "", "".join(text for text, key in found if not key))
    assert not re.search(r"[pqgDWb]_", without)


def test_a_pullback_of_ones_own_is_named_and_not_spelled() -> None:
    double = gpubp.Activation(lambda xp, p: 2.0 * p, pullback=lambda xp, p, q, g: 2.0 * g, name="double")
    cost = gpubp.Cost(
        lambda xp, q, y: xp.sum((q - y) ** 2, axis=1), lambda xp, q, y: 2.0 * (q - y), name="twice"
    )
    net = Network((2, 2, 2), hidden=double, cost=cost)
    found = explain(net, *drawn(Network((2, 2, 2)), 2))
    terms = {term.name: term for term in found.backward}
    assert terms["Delta[1]"].formula == "pullback_1(dC/dq_1)"
    assert terms["dC/dq[2]"].formula == "twice'(q_2, y)/B"
    assert terms["Delta[1]"].numbers == ""
    assert found.cost.formula == "colsum(twice(q_2, y))/B"


def test_parts_that_only_share_a_name_are_not_taken_for_the_librarys() -> None:
    half = gpubp.Activation(lambda xp, p: 0.5 * p, pullback=lambda xp, p, q, g: 0.5 * g, name="identity")
    cost = gpubp.Cost(
        lambda xp, q, y: xp.sum((q - y) ** 2, axis=1), lambda xp, q, y: 2.0 * (q - y), name="squared_error"
    )
    net = Network((1, 1), input=half, output=half, cost=cost, bias=False)
    found = explain(net, *drawn(Network((1, 1), bias=False)))
    assert [term.article for term in found.forward] == ["p_0", "q_0", "p_1", "q_1"]
    assert found.cost.formula == "squared_error(q_1, y)"
    assert [term.formula for term in found.backward[:2]] == ["squared_error'(q_1, y)", "pullback_1(dC/dq_1)"]


def test_what_overflows_is_shown() -> None:
    net = Network((1, 2), cost="cross_entropy")
    found = explain(net, np.array([2000.0, 0.0, 0.0, 0.0]), np.array([[1.0]]), np.array([1]))
    assert found.backward[0].value[0, 1] == -math.inf
    assert found.deltas[0].value.tolist() == [[1.0, -1.0]]
    assert "[    0  -inf ]" in str(found)
    assert "-Infinity" in found.html()


def test_every_library_gives_the_same(place64: Place) -> None:
    net = Network((2, 3, 1), hidden="tanh")
    w, x, y = drawn(net, 2)
    theirs = explain(net, *map(place64.array, (w, x, y)))
    assert str(theirs) == str(explain(net, w, x, y))


@pytest.mark.parametrize(
    ("sizes", "B", "words"),
    [
        (
            (9, 2),
            1,
            "8 nodes a layer and 8 layers, got 1, 9 and 1: take fewer rows of x, or a smaller network",
        ),
        ((2, 2), 9, "explain writes out at most 8 examples, 8 nodes a layer and 8 layers, got 9, 2 and 1"),
        ((1,) * 10, 1, "and 8 layers, got 1, 1 and 9"),
    ],
)
def test_too_much_to_read_is_refused(sizes: tuple[int, ...], B: int, words: str) -> None:
    net = Network(sizes)
    with pytest.raises(ValueError, match=re.escape(words)):
        explain(net, *drawn(net, B))
    largest = Network((MOST,) * (MOST + 1))
    assert len(explain(largest, *drawn(largest, MOST)).gradient) == 2 * MOST


def test_what_it_can_not_explain_is_refused() -> None:
    net = Network((2, 1))
    w, x, y = drawn(net)
    with pytest.raises(TypeError, match="got str: make one with gpubp"):
        explain("net", w, x, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must be finite, got a NaN or inf: remove or replace it"):
        explain(net, w, x * math.inf, y)
    with pytest.raises(ValueError, match=re.escape("x must have shape (B, n_0) with n_0 = 2, got ()")):
        explain(net, w, x[0, 0], y)
    with pytest.raises(ValueError, match=re.escape("x must have shape (B, n_0) with n_0 = 2, got (1, 1)")):
        explain(net, w, x[:, :1], y)
