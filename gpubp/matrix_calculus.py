"""Derivatives with respect to a matrix, as formulas to read, to type and to prove (article, sections III and IV).

A formula is text. ``A B`` is a product, ``A'`` a transpose, ``A o B`` the product element by element, which binds less
than the other; ``sigma(A)`` and ``sigma'(A)`` are an activation and its derivative, element by element, for any name
that begins with sigma; ``|x|^2`` is x' x, and ``1/2`` a number. Vectors are columns, (n, 1); a (1, 1) scales anything.
What is read here is also what is computed: ``shape`` and ``value`` take the text itself.

>>> identities["1/2 x' A' A x"].derivatives
{'A': "A x x'"}
>>> identities["1/2 x' A' A x"].check() < 1e-12
True
>>> products(("m", "n"), {"A": (("m", "n"), 1), "x": (("n", "1"), 2)})  # what the shapes alone allow
["A x x'", "(x' x) A"]

With indices, as the article proves them: an index that stands twice is summed over, and delta_ij is 1 where i = j.

>>> differentiate("x_i a_ji a_jk x_k", "a_cd")
['x_i delta_jc delta_id a_jk x_k', 'x_i a_ji delta_jc delta_kd x_k']
>>> [contract(term) for term in differentiate("x_i a_ji a_jk x_k", "a_cd")]
['x_d a_ck x_k', 'x_i a_ci x_d']
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from gpubp._devices import at, native_device, place, to_numpy
from gpubp._formulas import SCALAR, Shape, activation_names, elementwise, given, shape, shown, value
from gpubp._numerics import central_differences, complex_step
from gpubp._typing import Array, Namespace, NativeDevice
from gpubp.activations import Activation
from gpubp.engines import engine_for

__all__ = [
    "Identity",
    "contract",
    "differentiate",
    "identities",
    "index_sum",
    "products",
    "shape",
    "value",
]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Identity:
    """A cost C, a formula of shape (1, 1), and its derivatives dC/dA, one formula for each variable A, shaped like A.

    Parameters
    ----------
    cost : such as ``"y' A x"``
    derivatives : such as ``{"A": "y x'"}``
    shapes : of all matrices and vectors, in letters: ``{"A": ("m", "n"), "x": ("n", "1"), "y": ("m", "1")}``
    section : where the article has it

    Raises
    ------
    ValueError : a formula that can't be read, or that its shapes don't allow
    """

    cost: str
    derivatives: Mapping[str, str]
    shapes: Mapping[str, Shape]
    section: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _has_shape("the cost", self.cost, self.shapes, SCALAR)
        for name, formula in self.derivatives.items():
            _has_shape(f"dC/d{name}", formula, self.shapes, given(name, self.shapes, self.cost))

    def __str__(self) -> str:
        return f"C = {self.cost}: " + ", ".join(f"dC/d{name} = {d}" for name, d in self.derivatives.items())

    def check(
        self,
        xp: Namespace = np,
        *,
        seed: int = 0,
        dtype: str = "float64",
        device: NativeDevice = None,
        **sigma: Activation | str,
    ) -> float:
        """The worst error of a derivative at random matrices, over the largest of its elements.

        The second way is a complex step through the cost alone, good to 1e-12, or central differences, good to 1e-8,
        where an activation isn't analytic. Activations that aren't given are tanh, sigmoid, softplus and silu in turn.

        Raises
        ------
        ValueError : an activation that isn't element-wise, or that the formulas don't name
        """
        functions = sorted(set().union(*map(activation_names, (self.cost, *self.derivatives.values()))))
        for name in sigma:
            if name not in functions:
                raise ValueError(
                    f"check takes the activations of {self.cost!r}, {', '.join(functions) or 'none'}, got {name}: "
                    "name one of them"
                )
        usual = dict(zip(functions, ("tanh", "sigmoid", "softplus", "silu") * len(functions), strict=False))
        parts = {name: elementwise(name, part) for name, part in {**usual, **sigma}.items()}
        slopes = complex_step if all(part.analytic for part in parts.values()) else central_differences
        host = self._drawn(seed)

        def at(formula: str, **changed: Any) -> Any:
            arrays = {**host, **changed}
            kind = np.result_type(dtype, *(np.complex64 for a in changed.values() if a.dtype.kind == "c"))
            placed = {name: place(array.astype(kind), xp, device) for name, array in arrays.items()}
            return to_numpy(value(formula, **placed, **parts))

        worst = 0.0
        for name, formula in self.derivatives.items():

            def cost(A: Any, name: str = name) -> Any:
                return at(self.cost, **{name: A})

            theirs = slopes(cost, host[name])
            error = np.max(np.abs(at(formula) - theirs)) / (np.max(np.abs(theirs)) or 1.0)
            worst = max(worst, float(error)) if np.isfinite(error) else math.inf
        return worst

    def _drawn(self, seed: int) -> dict[str, Any]:
        """A random matrix for each name; no two letters are the same number, so that no shape fits by chance."""
        rng = np.random.default_rng(seed)
        letters = sorted({letter for pair in self.shapes.values() for letter in pair} - {"1"})
        n = {"1": 1, **dict(zip(letters, rng.permutation(len(letters)) + 2, strict=True))}
        return {
            name: rng.standard_normal((n[rows], n[columns])) for name, (rows, columns) in self.shapes.items()
        }


def _has_shape(name: str, formula: str, shapes: Mapping[str, Shape], wanted: Shape) -> None:
    came = shape(formula, shapes)
    if came != wanted:
        raise ValueError(f"{name} must have shape {shown(wanted)}, got {shown(came)}: mend {formula!r}")


def _catalogue() -> Iterator[Identity]:
    m1, n1, l1, mn, lm = ("m", "1"), ("n", "1"), ("l", "1"), ("m", "n"), ("l", "m")
    one = {"A": mn, "x": n1, "y": m1}
    two = {"A": lm, "B": mn, "x": n1, "y": l1}
    yield Identity("y' A x", {"A": "y x'"}, one, "III")
    yield Identity("y' A B x", {"A": "y x' B'", "B": "A' y x'"}, two, "III")
    yield Identity("1/2 x' A' A x", {"A": "A x x'"}, {"A": mn, "x": n1}, "III")
    quadratic = {"A": "A B x x' B'", "B": "A' A B x x'"}
    yield Identity("1/2 x' B' A' A B x", quadratic, {"A": lm, "B": mn, "x": n1}, "III")
    yield Identity("y' sigma(A) x", {"A": "y x' o sigma'(A)"}, one, "IV")
    yield Identity("y' sigma(A x)", {"A": "(y o sigma'(A x)) x'"}, one, "IV, as a network needs it")
    inside = {
        "A": "(y x' o sigma1'(A sigma2(B))) sigma2(B)'",
        "B": "A' (y x' o sigma1'(A sigma2(B))) o sigma2'(B)",
    }
    yield Identity("y' sigma1(A sigma2(B)) x", inside, two, "IV, unfinished there")
    chain = {
        "A": "(y o sigma1'(A sigma2(B x))) sigma2(B x)'",
        "B": "(A' (y o sigma1'(A sigma2(B x))) o sigma2'(B x)) x'",
    }
    yield Identity("y' sigma1(A sigma2(B x))", chain, two, "IV, as a network needs it")
    yield Identity(
        "1/2 |sigma(A x) - y|^2", {"A": "((sigma(A x) - y) o sigma'(A x)) x'"}, one, "IV, one whole layer"
    )


identities: Mapping[str, Identity] = MappingProxyType({identity.cost: identity for identity in _catalogue()})
"""The catalogue of the article's section III and what section IV adds, by cost."""


def products(target: Shape, factors: Mapping[str, tuple[Shape, int]]) -> list[str]:
    """Every product of that shape, from the shape and the degree of each factor, transposed or not.

    A factor of degree 2 stands there twice. Numbers such as x' x may be split off, and are written in front. This is
    what the article guesses from before it proves: shapes and degrees often leave one product or two.
    """
    found: set[tuple[Any, ...]] = set()
    for chain, left in _chains(target, factors, {name: degree for name, (_, degree) in factors.items()}):
        for scalars, rest in _scalars(factors, left):
            if not any(rest.values()) and (chain or scalars):
                found.add((len(scalars), *(f"({' '.join(s)})" for s in scalars), " ".join(chain)))
    return [" ".join(filter(None, parts)) for _, *parts in sorted(found)]


_Walk: TypeAlias = tuple[tuple[str, ...], dict[str, int]]


def _chains(target: Shape, factors: Mapping[str, tuple[Shape, int]], left: dict[str, int]) -> Iterator[_Walk]:
    rows, columns = target
    if target == SCALAR:
        yield (), left
        return
    yield from _walks(rows, columns, factors, left)
    if "1" not in target:
        for first, then in _walks(rows, "1", factors, left):
            for last, rest in _walks("1", columns, factors, then):
                yield first + last, rest


def _walks(
    start: str, end: str, factors: Mapping[str, tuple[Shape, int]], left: dict[str, int]
) -> Iterator[_Walk]:
    """Products of at least one factor that lead from one dimension to another, and touch "1" only at their ends."""
    for name, ((rows, columns), _) in factors.items():
        if not left[name]:
            continue
        for step, (here, there) in {name: (rows, columns), f"{name}'": (columns, rows)}.items():
            if here != start or (step == f"{name}'" and rows == columns == "1"):
                continue
            rest = {**left, name: left[name] - 1}
            if there == end:
                yield (step,), rest
            if there != "1":
                for more, remaining in _walks(there, end, factors, rest):
                    yield (step, *more), remaining


def _scalars(
    factors: Mapping[str, tuple[Shape, int]], left: dict[str, int]
) -> Iterator[tuple[tuple[tuple[str, ...], ...], dict[str, int]]]:
    """Every multiset of numbers made of the factors that are left; a number and its transpose are the same."""
    yield (), left
    for walk, rest in _walks("1", "1", factors, left):
        turned = tuple(step[:-1] if step.endswith("'") else f"{step}'" for step in reversed(walk))
        if ("".join(turned).count("'"), turned) < ("".join(walk).count("'"), walk):
            continue
        for more, remaining in _scalars(factors, rest):
            yield tuple(sorted((walk, *more))), remaining


_FACTOR = re.compile(r"([A-Za-z]+)_([A-Za-z]+(?:,[A-Za-z]+)*)")


def _factors(term: str) -> list[tuple[str, tuple[str, ...]]]:
    """[("a", ("i", "j")), ...]; indices are letters, or words where the term has commas."""
    words = "," in term
    found = []
    for text in term.split():
        match = _FACTOR.fullmatch(text)
        if match is None:
            raise ValueError(
                f"a term must be written like y_i a_ij x_j or y_bob a_bob,nancy x_nancy, got {text!r} in {term!r}: "
                "name every index"
            )
        found.append((match[1], tuple(match[2].split(",") if words else match[2])))
    return found


def _written(factors: list[tuple[str, tuple[str, ...]]]) -> str:
    between = "," if any(len(index) > 1 for _, indices in factors for index in indices) else ""
    return " ".join(f"{name}_{between.join(indices)}" for name, indices in factors)


def differentiate(term: str, by: str) -> list[str]:
    """The derivative of a term by one element, as in ``differentiate("y_i a_ij x_j", "a_kl")``: the terms of a sum.

    The product rule: each a_ij in turn becomes delta_ik delta_jl (article, section III).

    Raises
    ------
    ValueError : indices of ``by`` that stand in the term already, or another number of them
    """
    factors, ((variable, at), *more) = _factors(term), _factors(by)
    used = {index for _, indices in factors for index in indices}
    if more or used & set(at):
        raise ValueError(
            f"a term is differentiated by one element with indices of its own, got {by!r} for {term!r}: rename them"
        )
    terms = []
    for k, (name, indices) in enumerate(factors):
        if name == variable:
            if len(indices) != len(at):
                raise ValueError(
                    f"{variable} must have as many indices in {by!r} as in {term!r}, {len(indices)}, got {len(at)}: "
                    "name as many"
                )
            deltas = [("delta", pair) for pair in zip(indices, at, strict=True)]
            terms.append(_written(factors[:k] + deltas + factors[k + 1 :]))
    return terms


def contract(term: str) -> str:
    """The term without its Kronecker deltas: for a delta_jc whose j stands elsewhere, every j there becomes c."""
    factors = _factors(term)
    k = 0
    while k < len(factors):
        name, indices = factors[k]
        others = factors[:k] + factors[k + 1 :]
        repeated = [index for index in indices if any(index in other for _, other in others)]
        if name != "delta" or not repeated or indices[0] == indices[1]:
            k += 1
            continue
        old = repeated[0]
        new = indices[1] if old == indices[0] else indices[0]
        factors = [(n, tuple(new if index == old else index for index in own)) for n, own in others]
        k = 0
    return _written(factors)


def index_sum(term: str, free: str = "", **arrays: Array) -> Array:
    """A term in numbers: ``index_sum("y_i a_ij x_j", y=y, a=a, x=x)``; vectors here are (n,).

    Every index that stands twice is summed over, except those of ``free``, which number the axes of what comes back in
    that order ("kl", or "bob,nancy").

    Raises
    ------
    ValueError : an index that stands once or more than twice, and isn't free, or whose range no array gives; ranges or
        numbers of axes that differ
    """
    factors = _factors(term)
    kept = tuple(filter(None, free.split(",") if "," in term else free))
    counts = Counter(index for _, indices in factors for index in indices)
    for index, count in counts.items():
        if index not in kept and count != 2:
            raise ValueError(
                f"an index must stand twice or be free, got {index} {count} times in {term!r}: rename it or free it"
            )
    sizes = _ranges(term, factors, arrays)
    for index in (*kept, *counts):
        if index not in sizes:
            raise ValueError(
                f"the range of {index} in {term!r} must be an array's, got none: let it stand at one"
            )
    like = next(iter(arrays.values()))
    with at(like):
        return _summed(factors, kept, arrays, sizes)


def _ranges(
    term: str, factors: list[tuple[str, tuple[str, ...]]], arrays: Mapping[str, Array]
) -> dict[str, int]:
    """How far each index runs."""
    n: dict[str, int] = {}
    deltas = [indices for name, indices in factors if name == "delta"]
    for name, indices in factors:
        if name == "delta":
            continue
        axes = given(name, arrays, term).shape
        if len(axes) != len(indices):
            raise ValueError(
                f"{name} in {term!r} must have {len(indices)} axes, got {len(axes)}: name every index"
            )
        for index, size in zip(indices, axes, strict=True):
            if n.setdefault(index, size) != size:
                raise ValueError(
                    f"{index} in {term!r} must have one range, got {n[index]} and {size}: mend it"
                )
    for i, j in deltas * len(deltas):  # a chain of them passes a range on, link by link
        if i in n or j in n:
            n[i] = n[j] = n[i] if i in n else n[j]
    return n


def _summed(
    factors: list[tuple[str, tuple[str, ...]]],
    free: tuple[str, ...],
    arrays: Mapping[str, Array],
    sizes: dict[str, int],
) -> Array:
    like = next(iter(arrays.values()))
    xp = engine_for(like).xp
    order = [*free, *sorted({index for _, indices in factors for index in indices} - set(free))]

    def unit(index: str) -> Array:
        return xp.eye(sizes[index], dtype=like.dtype, device=native_device(like))

    total: Any = 1.0
    for name, indices in factors:
        a = unit(indices[0]) if name == "delta" else arrays[name]
        if len(indices) == 2 and indices[0] == indices[1]:  # the diagonal
            a, indices = xp.sum(a * unit(indices[0]), axis=1), indices[:1]
        a = xp.permute_dims(a, tuple(indices.index(i) for i in order if i in indices))
        total = total * xp.reshape(a, tuple(sizes[i] if i in indices else 1 for i in order))
    summed = tuple(range(len(free), len(order)))
    return xp.sum(total, axis=summed) if summed else total
