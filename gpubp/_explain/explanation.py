"""``explain``: the recursion of section IV written out for one network and a few examples, as text, LaTeX or a page.

Formulas are written in letters of the article, rows for columns: W' is W transposed, "o" multiplies element by element,
and the article's Delta_k, counted from the output, is ``Delta[L-k]``. With one node a layer (sections I and II) they
are the article's own, w_01 q_0; where all activations are the identity (I and III), x_j stands for p_j and q_j.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from gpubp import activations, backprop, costs
from gpubp._devices import to_numpy
from gpubp._explain import page as _page
from gpubp._explain.notation import factor, latex_text, number, printable, products, with_numbers
from gpubp._explain.term import Term
from gpubp._network import Network, is_network
from gpubp._typing import Array
from gpubp._verify import central_gradient
from gpubp.activations import Activation
from gpubp.costs import Cost
from gpubp.engines import Generic, engine_for

__all__ = ["Explanation", "Term", "explain"]

MOST = 8
"""Examples, nodes of a layer, and layers: a 9th column of numbers is too many to read."""

_COSTS = {  # of one output: c and dc/dq
    "squared_error": ("(q - y)^2/2", "q - y"),
    "absolute_error": ("abs(q - y)", "sign(q - y)"),
    "cross_entropy": ("-y o log(q)", "-y/q"),
    "binary_cross_entropy": ("-y o log(q) - (1 - y) o log(1 - q)", "(1 - y)/(1 - q) - y/q"),
    "poisson": ("q - y o log(q)", "1 - y/q"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The chains and derivatives of one batch as named terms: ``str()`` is the text, ``latex()`` and ``html()`` the
    same as a LaTeX fragment and as a page; in a notebook it shows itself.

    ``forward`` holds p_0, q_0, ..., p_L, q_L; ``backward`` dC/dq_L, dC/dp_L, ..., dC/dq_0, dC/dp_0, of which every
    other is a Delta; of a linear network, x_0, ..., x_L and the Delta alone. ``weights`` are W_01, b_01, W_12, ...;
    ``cost`` is C; ``gradient`` dC/dW_01, dC/db_01, dC/dW_12, ..., each beside its central difference.
    """

    net: Network
    y: Any
    weights: tuple[Term, ...]
    forward: tuple[Term, ...]
    cost: Term
    backward: tuple[Term, ...]
    gradient: tuple[Term, ...]
    slopes: tuple[Any, ...]

    @property
    def deltas(self) -> tuple[Term, ...]:
        """The backward terms delta_0, ..., delta_L (Delta_0, ..., Delta_L where layers have several nodes)."""
        return tuple(term for term in self.backward if term.name.startswith("Delta"))

    @cached_property
    def parts(self) -> dict[str, tuple[Term, ...]]:
        """All terms in the order in which they are worked out, under a title for each direction."""
        forward: list[Term] = []
        weights = list(self.weights)
        for term in self.forward:
            made_of_weights = term.name.startswith("p[") and forward
            while made_of_weights and weights and weights[0].article in term.formula:
                forward.append(weights.pop(0))
            forward.append(term)
        return {
            "Forward": (*forward, Term("y", "y", "", "", self.y), self.cost),
            "Backward": self.backward,
            "Gradient": self.gradient,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the notation, a sentence each."""
        L, B = len(self.net.sizes) - 1, len(self.y)
        one = set(self.net.sizes) == {1}
        sigmas = ", ".join(f"sigma_{j} = {printable(sigma.name)}" for j, sigma in enumerate(self.net.sigma))
        delta = "delta" if one else "Delta"
        found = [
            f"B = {B} example{'s' * (B > 1)}, one a row; nodes j = 0..{L}; {self.net.n_weights} weights.",
            "All activations are the identity." if _linear(self.net) else f"{sigmas}.",
            f"The article counts from the output: {delta}_k is Delta[{L}-k], and dC/d{'w' if one else 'W'}_ij takes "
            f"the one with k = {L - 1}-i.",
        ]
        if not one or B > 1 or " o " in self.cost.formula:
            found.append("X' is X transposed, o multiplies element by element, rowsum and colsum add up.")
        if one and B == 1:
            found.append("A weight in brackets or a box is the one that its own derivative leaves out.")
        return tuple(found)

    def __repr__(self) -> str:
        return f"<explanation of {self.net!r}, B = {len(self.y)}>"

    def __str__(self) -> str:
        lines = [repr(self.net), *(f"  {note}" for note in self.notes)]
        for title, terms in self.parts.items():
            lines += ["", title.upper()]
            for term in terms:
                lines += ["", *term.text()]
        return "\n".join(lines)

    def latex(self) -> str:
        """A LaTeX fragment; it needs the packages amsmath and color."""
        lines = [r"% \usepackage{amsmath, color}"]
        lines += [rf"\noindent {latex_text(note)}\par" for note in self.notes]
        for title, terms in self.parts.items():
            lines.append(rf"\paragraph{{{title}}}")
            lines += [line for term in terms for line in term.latex()]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """One page that needs nothing else, not even a network: steps through the terms, shows each matrix as a heat
        map, and follows when an input or a weight is changed (where all activations and the cost are gpubp's own)."""
        return _page.page(self.net, self.y, self.parts, self.weights, self.slopes, self.notes, str(self))

    def _repr_html_(self) -> str:
        style = "width:100%;height:900px;border:1px solid #ccc"
        return f'<iframe title="{escape(repr(self.net))}" style="{style}" srcdoc="{escape(self.html())}"></iframe>'


def explain(net: Network, w: Array, x: Array, y: Array) -> Explanation:
    """The recursion of section IV, written out for these weights and examples: every link of the forward and backward
    chains with its shape, formula and numbers, then every derivative beside its central difference.

    The numbers are those of ``net.backward`` in float64 on the CPU, whatever the dtype and library of the arrays; C is
    the mean over the batch.

    Parameters
    ----------
    w : (n_weights,)
    x : (B, n_0), B at most 8
    y : as for ``net.backward``

    Raises
    ------
    ValueError : more than 8 examples, nodes in a layer, or layers; a value that is not finite; another shape
    TypeError : ``net`` is no Network, or another argument no array

    Examples
    --------
    >>> net = Network((1, 1, 1), bias=False, hidden="identity")
    >>> print(explain(net, np.array([2.0, 3.0]), np.array([[0.5]]), np.array([[1.0]])).gradient[0])
    dC/dw_01 = delta_1 x_0                                            dW[0]  (1, 1)
        = (x_2 - y) w_12 [w_01] x_0
        = 6 * 0.5 = 3; central difference 3, ... apart
    """
    is_network(net)
    w, x, y = (_host(name, array) for name, array in {"w": w, "x": x, "y": y}.items())
    L = len(net.sizes) - 1
    B = x.shape[0] if x.ndim else 1  # another shape is refused by net.backward
    if max(*net.sizes, L, B) > MOST:
        raise ValueError(
            f"explain writes out at most {MOST} examples, {MOST} nodes a layer and {MOST} layers, got {B}, "
            f"{max(net.sizes)} and {L}: take fewer rows of x, or a smaller network"
        )
    chains: Any = net.backward(w, x, y)
    engine = engine_for(w)
    y = backprop.targets(net, engine, y, chains.q[-1])
    differences = net.layers(central_gradient(net, w, x, y))
    W, b = zip(*net.layers(w), strict=True)
    with engine.quiet():
        dq_L = net.cost_function.derivative(engine.formulas, chains.q[-1], y)
        dq = [engine.propagate(chains.Delta[i + 1], W[i]) for i in range(L)]
        dq.append(engine.weigh(dq_L, backprop.row_weights(engine, B, None, "mean")))
        slopes = tuple(map(_slope, [engine] * (L + 1), net.sigma, chains.p, chains.q))
    say = _Letters(set(net.sizes) == {1}, _linear(net), L, B)
    weights = []
    for i in range(L):
        weights.append(Term(f"W[{i}]", say.W(i), "", "", W[i]))
        if net.bias:
            weights.append(Term(f"b[{i}]", say.b(i), "", "", b[i]))
    forward = tuple(_forward(net, say, chains, slopes, W, b))
    backward = tuple(_backward(net, say, chains, dq, slopes, W, y))
    return Explanation(
        net,
        y,
        tuple(weights),
        forward,
        _cost(net, say, chains, y),
        backward,
        tuple(_gradient(net, say, chains, differences, forward, backward)),
        slopes,
    )


def _host(name: str, array: Array) -> Any:
    engine_for(array)
    host = to_numpy(array)
    if not np.isfinite(host).all():
        raise ValueError(f"{name} must be finite, got a NaN or inf: remove or replace it")
    return host.astype(np.float64) if host.dtype.kind == "f" else host


def _plain(name: str, otherwise: str) -> str:
    """A name that can stand in a formula; a user's own may hold anything."""
    return name if re.fullmatch(r"[A-Za-z]\w*(\([\w=.,+ -]*\))?", name) else otherwise


def _linear(net: Network) -> bool:
    return all(_is(sigma, "identity") for sigma in net.sigma)


def _is(sigma: Activation, name: str) -> bool:
    """Whether it is the library's own of that name."""
    return sigma == activations.get(name)


def _of_output(cost: Cost) -> tuple[str, str]:
    """c and dc/dq in letters; empty where they are not known."""
    known = cost.name in _COSTS and costs.get(cost.name) == cost
    return _COSTS[cost.name] if known else ("", "")


def _slope(engine: Generic, sigma: Activation, p: Any, q: Any) -> Any:
    """sigma'(p), (B, n); None where sigma does not act element by element."""
    if sigma.derivative is None and not _is(sigma, "identity"):
        return None
    return engine.pull_back(sigma, p, q, np.ones_like(q))


@dataclass(frozen=True)
class _Letters:
    """What things are called: small letters with one node a layer, x for p and q in a linear network."""

    one: bool
    linear: bool
    L: int
    B: int

    def p(self, j: int) -> str:
        return f"{'x' if self.linear else 'p'}_{j}"

    def q(self, j: int) -> str:
        return f"{'x' if self.linear else 'q'}_{j}"

    def W(self, i: int) -> str:
        return f"{'w' if self.one else 'W'}_{i}{i + 1}"

    def b(self, i: int) -> str:
        return f"b_{i}{i + 1}"

    def Delta(self, j: int) -> str:
        return f"{'delta' if self.one else 'Delta'}_{self.L - j}"


def _forward(
    net: Network, say: _Letters, chains: Any, slopes: Sequence[Any], W: Sequence[Any], b: Sequence[Any]
) -> Iterator[Term]:
    chain = say.p(0)
    for j, (p, q, sigma) in enumerate(zip(chains.p, chains.q, net.sigma, strict=True)):
        formula, numbers = ("x", "") if j == 0 else ("", "")
        if j > 0:
            i = j - 1
            formula = f"{say.W(i)} {say.q(i)}" if say.one else f"{say.q(i)} {say.W(i)}'"
            numbers = products(W[i][0], chains.q[i][0]) if say.one else products(chains.q[i][0], W[i][0])
            chain = f"{say.W(i)} {f'({chain})' if ' + ' in chain and say.linear else chain}"
            if net.bias:
                formula, chain = f"{formula} + {say.b(i)}", f"{chain} + {say.b(i)}"
                numbers = f"{numbers} + {factor(b[i][0])}"
        yield Term(f"p[{j}]", say.p(j), formula, numbers, p, chain if say.one else "")
        if not say.linear:
            chain = f"sigma_{j}({chain})"
            row = p[0] if slopes[j] is None else p[0, :1]
            numbers = f"{_plain(sigma.name, f'sigma_{j}')}({', '.join(map(number, row))})"
            yield Term(f"q[{j}]", say.q(j), f"sigma_{j}({say.p(j)})", numbers, q, chain if say.one else "")


def _cost(net: Network, say: _Letters, chains: Any, y: Any) -> Term:
    name, q_L = net.cost_function.name, say.q(say.L)
    c, numbers = f"{_plain(name, 'c')}({q_L}, y)", ""
    if _of_output(net.cost_function)[0]:
        c = re.sub(r"\bq\b", q_L, _of_output(net.cost_function)[0])
        if y.size == 1:
            numbers = with_numbers(c, {q_L: chains.q[-1][0, 0], "y": y[0, 0]})
        elif net.sizes[-1] > 1:
            c = f"rowsum({c})"
    return Term("cost", "C", f"colsum({c})/B" if say.B > 1 else c, numbers, np.asarray(chains.cost))


def _backward(
    net: Network,
    say: _Letters,
    chains: Any,
    dq: Sequence[Any],
    slopes: Sequence[Any],
    W: Sequence[Any],
    y: Any,
) -> Iterator[Term]:
    L = say.L
    q_L, over_B = say.q(L), "/B" if say.B > 1 else ""
    dq_L = re.sub(r"\bq\b", q_L, _of_output(net.cost_function)[1])
    known = {q_L: chains.q[L][0, 0], "y": y[0, 0], "B": say.B}
    first = f"({dq_L}){over_B}" if over_B else dq_L
    chain = f"{'(1/B) ' if over_B else ''}({dq_L})" if dq_L else f"dC/d{q_L}"
    for j in reversed(range(L + 1)):
        if j == L:
            formula = first if dq_L else f"{_plain(net.cost_function.name, 'c')}'({q_L}, y){over_B}"
            numbers = with_numbers(formula, known) if dq_L else ""
        else:
            formula = f"{say.Delta(j + 1)} {say.W(j)}"
            numbers = products(chains.Delta[j + 1][0], W[j][:, 0])
            chain = f"{chain} {say.W(j)}"
        if not say.linear:
            g = f"dC/dq_{j}"
            yield Term(f"dC/dq[{j}]", g, formula, numbers, dq[j], chain if say.one else "")
            formula = _pulled_back(net.sigma[j], j, g, say)
            numbers = "" if slopes[j] is None else products(dq[j][0, :1], slopes[j][0, :1])
            chain = f"{chain} sigma_{j}'(p_{j})"
            if j == L and net.natural:
                whole = (
                    "" if net.sigma[L].name != "softmax" or np.allclose(y.sum(axis=1), 1) else "rowsum(y) o "
                )
                in_one = f"{whole}q_{L} - y"
                in_one = f"({in_one}){over_B}" if over_B else in_one
                formula = f"{formula} = {in_one}"
                numbers = "" if whole else with_numbers(in_one, known)
        yield Term(f"Delta[{j}]", say.Delta(j), formula, numbers, chains.Delta[j], chain if say.one else "")


def _pulled_back(sigma: Activation, j: int, g: str, say: _Letters) -> str:
    if sigma.derivative is not None or _is(sigma, "identity"):
        return f"{g} {'' if say.one else 'o '}sigma_{j}'(p_{j})"
    if _is(sigma, "softmax"):
        return f"q_{j} o ({g} - rowsum({g} o q_{j}))"
    return f"pullback_{j}({g})"


def _gradient(
    net: Network,
    say: _Letters,
    chains: Any,
    differences: Sequence[Any],
    forward: Sequence[Term],
    backward: Sequence[Term],
) -> Iterator[Term]:
    written_out = {term.name: term.chain for term in (*forward, *backward)}
    alone = say.one and say.B == 1
    for i, (by_W, by_b) in enumerate(differences):
        Delta, delta = chains.Delta[i + 1], say.Delta(i + 1)
        before = written_out[f"{'p' if say.linear else 'q'}[{i}]"]
        before = f"({before})" if " + " in before and say.linear else before
        yield Term(
            f"dW[{i}]",
            f"dC/d{say.W(i)}",
            f"{delta} {say.q(i)}" if alone else f"{delta}' {say.q(i)}",
            products(Delta[:, 0], chains.q[i][:, 0]),
            chains.dW[i],
            f"{written_out[f'Delta[{i + 1}]']} [{say.W(i)}] {before}" if alone else "",
            by_W,
        )
        if net.bias:
            formula = f"colsum({delta})" if say.B > 1 else delta
            numbers = " + ".join(map(factor, Delta[:, 0])) if say.B > 1 else ""
            yield Term(f"db[{i}]", f"dC/d{say.b(i)}", formula, numbers, chains.db[i], "", by_b)
