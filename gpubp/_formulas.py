"""Formulas of matrices as text, read in shapes and in numbers; ``matrix_calculus`` says how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

from gpubp import activations
from gpubp._devices import at
from gpubp._typing import Array
from gpubp.activations import Activation
from gpubp.engines import engine_for

__all__ = ["SCALAR", "Shape", "activation_names", "elementwise", "given", "shape", "shown", "value"]

Shape: TypeAlias = tuple[str, str]  # rows and columns, in letters

SCALAR: Shape = ("1", "1")

_TOKEN = re.compile(r"\s*(\d+(?:/\d+)?|[A-Za-z]\w*|\|\^2|[|()'+-])")


@cache
def _read(formula: str) -> Any:
    """The formula as nested tuples: (operation, operands...)."""
    return _Reader(formula).formula()


class _Reader:
    """Recursive descent: sums of element-wise products of products of factors."""

    def __init__(self, formula: str) -> None:
        self.text, self.at = formula, 0
        self.token = ""
        self.next()

    def next(self) -> str:
        token, match = self.token, _TOKEN.match(self.text, self.at)
        if match is None and self.text[self.at :].strip():
            raise self.refusal()
        self.token, self.at = (match[1], match.end()) if match else ("", len(self.text))
        return token

    def refusal(self) -> ValueError:
        return ValueError(
            f"a formula must be written like y' A x or (y o sigma'(A x)) x', got {self.text!r}: it can't be read from "
            f"{self.text[max(0, self.at - len(self.token)) :]!r} on"
        )

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise self.refusal()

    def formula(self) -> Any:
        tree = self.sum()
        if self.token:
            raise self.refusal()
        return tree

    def sum(self) -> Any:
        tree = self.circle()
        while self.token in ("+", "-"):
            tree = (self.next(), tree, self.circle())
        return tree

    def circle(self) -> Any:
        tree = self.product()
        while self.token == "o":
            tree = (self.next(), tree, self.product())
        return tree

    def product(self) -> Any:
        tree = self.factor()
        while re.fullmatch(r"[(|]|\w.*", self.token) and self.token != "o":
            tree = ("product", tree, self.factor())
        return tree

    def factor(self) -> Any:
        token = self.next()
        if token == "(":
            tree = self.sum()
            self.expect(")")
        elif token == "|":
            tree = ("square", self.sum())
            self.expect("|^2")
        elif token[:1].isdigit():
            top, _, bottom = token.partition("/")
            tree = ("number", int(top) / int(bottom or 1))
        elif token.startswith("sigma"):
            kind = "slope" if self.token == "'" and self.next() else "sigma"
            self.expect("(")
            tree = (kind, token, self.sum())
            self.expect(")")
        elif token[:1].isalpha() and token != "o":
            tree = ("name", token)
        else:
            raise self.refusal()
        while self.token == "'":
            tree = (self.next(), tree)
        return tree


def activation_names(formula: str) -> set[str]:
    """sigma, sigma1, ...: the activations that a formula applies."""

    def of(tree: Any) -> set[str]:
        own = {tree[1]} if tree[0] in ("sigma", "slope") else set()
        return own.union(*(of(part) for part in tree[1:] if isinstance(part, tuple)))

    return of(_read(formula))


def given(name: str, known: Mapping[str, Any], formula: str) -> Any:
    """``known[name]``, refused where it isn't there."""
    if name not in known:
        raise ValueError(f"{formula!r} needs {name}, got {', '.join(known) or 'nothing'}: give it too")
    return known[name]


def shape(formula: str, shapes: Mapping[str, Shape]) -> Shape:
    """(rows, columns) of a formula, from those of its matrices: ``shape("A x", {"A": ("m", "n"), "x": ("n", "1")})``.

    Raises
    ------
    ValueError : a product, sum or element-wise product that the shapes don't allow, or a formula that can't be read
    """

    def of(tree: Any) -> Shape:
        match tree:
            case ("name", name):
                rows, columns = given(name, shapes, formula)
                return rows, columns
            case ("number", _):
                return SCALAR
            case ("'", a):
                return of(a)[::-1]
            case ("sigma" | "slope", _, a):
                return of(a)
            case ("square", a):
                return of(("product", ("'", a), a))
        operation, left, right = tree[0], of(tree[1]), of(tree[2])
        if operation != "product":
            if left != right:
                raise ValueError(
                    f"{operation!r} in {formula!r} needs equal shapes, got {shown(left)} and {shown(right)}: "
                    "transpose or change a factor"
                )
            return left
        if SCALAR in (left, right):
            return right if left == SCALAR else left
        if left[1] != right[0]:
            raise ValueError(
                f"a product in {formula!r} needs as many columns on its left as rows on its right, got {shown(left)} "
                f"times {shown(right)}: transpose or change a factor"
            )
        return left[0], right[1]

    return of(_read(formula))


def shown(dimensions: Shape) -> str:
    """As the article writes a shape: (m, n)."""
    return f"({dimensions[0]}, {dimensions[1]})"


def value(formula: str, **parts: Array | Activation | str) -> Array:
    """A formula in numbers, (rows, columns): ``value("sigma(A x)", A=A, x=x, sigma="tanh")``, in any namespace.

    Raises
    ------
    ValueError : a name that isn't given, shapes that don't fit, an activation that isn't element-wise, or a formula
        that can't be read
    """
    sigma = {name: elementwise(name, part) for name, part in parts.items() if name.startswith("sigma")}
    arrays: dict[str, Array] = {name: array for name, array in parts.items() if name not in sigma}
    like = next(iter(arrays.values()))
    engine = engine_for(like)
    xp = engine.xp
    shape(formula, {name: (str(a.shape[0]), str(a.shape[1])) for name, a in arrays.items()})

    def of(tree: Any) -> Any:
        match tree:
            case ("name", name):
                return arrays[name]
            case ("number", number):
                return number
            case ("'", a):
                return of(a).T
            case ("+", a, b):
                return of(a) + of(b)
            case ("-", a, b):
                return of(a) - of(b)
            case ("o", a, b):
                return of(a) * of(b)
            case ("square", a):
                e = of(a)
                return e.T @ e
            case ("sigma", name, a):
                return given(name, sigma, formula).value(xp, of(a))
            case ("slope", name, a):
                part, p = given(name, sigma, formula), of(a)
                return engine.pull_back(part, p, part.value(xp, p), xp.ones_like(p))
        a, b = of(tree[1]), of(tree[2])
        scales = any(isinstance(factor, float) or factor.shape == (1, 1) for factor in (a, b))
        return a * b if scales else a @ b

    with at(like):
        return of(_read(formula))


def elementwise(name: str, part: Any) -> Activation:
    """The activation of that kind, refused unless it acts element by element."""
    sigma = activations.get(part)
    if sigma.derivative is None and sigma != activations.identity():
        raise ValueError(
            f"{name} must act element by element, got {sigma.name!r}: choose one that has a derivative"
        )
    return sigma
