"""The page of ``explain``: numbers and formulas from Python, set into ``data/explain.html``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from gpubp import activations, costs
from gpubp._explain.notation import html, printable, tokens
from gpubp._explain.term import Term
from gpubp._network import Network

__all__ = ["key_of", "page"]


def page(
    net: Network,
    y: Any,
    parts: Mapping[str, Sequence[Term]],
    weights: Sequence[Term],
    slopes: Sequence[Any],
    notes: Sequence[str],
    text: str,
) -> str:
    """The whole document. ``parts`` are the terms to step through, ``text`` what is shown where no script runs."""
    L = len(net.sizes) - 1
    given = {term.name for term in weights} | {"y"}
    steps = [
        {
            "part": title,
            "key": key_of(term.name),
            "code": _code(term.name),
            "shape": str(term.shape) if term.shape else "",
            # where two ways are given, the last is how it is computed
            "tokens": tokens(term.formula.rpartition(" = ")[2], L),
            "formula": html(term.formula) if " = " in term.formula else "",
            "chain": html(term.longer),
        }
        for title, terms in parts.items()
        for term in terms
        if term.name not in given
    ]
    every = [term for terms in parts.values() for term in terms]
    matrices = {key_of(term.name): _rows(term.value) for term in (*weights, *every)}
    matrices |= {
        f"e{key_of(term.name)}": _rows(term.difference) for term in every if term.difference is not None
    }
    matrices |= {f"S{j}": _rows(slope) for j, slope in enumerate(slopes) if slope is not None}
    labels = {key_of(term.name): html(term.article) for term in (*weights, *every)}
    if f"q{L}" not in matrices:  # a linear network, whose q are its p and whose dC/dq its Delta
        matrices |= {f"q{j}": matrices[f"p{j}"] for j in range(L + 1)}
        labels |= {f"q{j}": labels[f"p{j}"] for j in range(L + 1)}
    data = {
        "sizes": net.sizes,
        "B": len(y),
        "bias": net.bias,
        "natural": net.natural,
        "linear": f"q[{L}]" not in {term.name for terms in parts.values() for term in terms},
        "sigma": [_own(sigma, activations.get) for sigma in net.sigma],
        "names": [printable(sigma.name) for sigma in net.sigma],
        "cost": _own(net.cost_function, costs.get),
        "steps": steps,
        "matrices": matrices,
        "labels": labels,
    }
    folder = files("gpubp") / "_explain"
    document, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("explain.html", "explain.js")
    )
    # NaN and Infinity are JavaScript, and no name may close the script
    literal = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    fill = {
        "TITLE": escape(repr(net)),
        "NOTES": "".join(f"<li>{html(note)}</li>" for note in notes),
        "TEXT": escape(text),
        "SCRIPT": script,
        "DATA": literal,
    }
    # at once, so that what is filled in is never taken for a place to fill
    return re.sub(r"@@(\w+)@@", lambda place: fill[place[1]], document)


def key_of(name: str) -> str:
    """ "p[1]" -> "p1", "Delta[0]" -> "D0", "dC/dq[2]" -> "g2", "cost" -> "C": what the page calls a matrix."""
    short = name.replace("Delta", "D").replace("dC/dq", "g").replace("cost", "C")
    return short.replace("[", "").replace("]", "")


def _code(name: str) -> str:
    return "" if name.startswith("dC/dq") else f"chains.{name}"


def _rows(value: Any) -> list[list[float]]:
    return [[float(v) for v in row] for row in value.reshape(value.shape[0] if value.ndim == 2 else 1, -1)]


def _own(part: Any, get: Any) -> str | None:
    """The name of a part that is the library's own, which the page can compute too."""
    try:
        return str(part.name) if get(part.name) == part else None
    except ValueError:
        return None
