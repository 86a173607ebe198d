"""Formulas in the letters of docstrings, ``Delta_0 W_12 o sigma_1'(p_1)``, and numbers: as text, LaTeX and HTML."""

from __future__ import annotations

import html as _html
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "factor",
    "html",
    "latex",
    "latex_left_out",
    "latex_matrix",
    "number",
    "products",
    "text_matrix",
    "tokens",
    "with_numbers",
]

_SPECIAL = re.compile(r"([_#$%&{}])|[\\^~]")
_LETTER = re.compile(r"(?<![A-Za-z])(sigma|[Dd]elta|pullback|[a-zA-Z])_(\w+)('?)")
_TRANSPOSED = re.compile(r"\bX'")
_IN_WORDS = re.compile(r"((?:dC/d|\b)(?:sigma|[Dd]elta|[A-Za-z])_\w+|\bX'|(?<=, )o(?= multiplies))")
_SLOPE = re.compile(r"dC/d(\w+)")
_WORDS = re.compile(r"(?<![A-Za-z_])(rowsum|colsum|sign|abs|log)\(")
_MISSING = re.compile(r" \[(\w+)\] ")
_GREEK = {"sigma": "&sigma;", "Delta": "&Delta;", "delta": "&delta;"}
_KEYED = re.compile(
    r"(?<![A-Za-z])(?:(?P<S>sigma)_(?P<S_>\d)'\(p_\d\)|(?P<g>dC/dq)_(?P<g_>\d)|(?P<D>[Dd]elta)_(?P<D_>\d)(?P<D_T>')?"
    r"|(?P<pq>[pqx])_(?P<pq_>\d)|(?P<W>[Wwb])_(?P<W_>\d)\d(?P<W_T>')?|(?P<y>y)(?![A-Za-z]))"
)


def number(value: Any) -> str:
    """Four digits, as short as they go."""
    return f"{float(value) + 0.0:.4g}"


def factor(value: Any) -> str:
    """A number in parentheses where it is negative."""
    text = number(value)
    return f"({text})" if text.startswith("-") else text


def products(a: Iterable[Any], b: Iterable[Any]) -> str:
    """``a_0 * b_0 + a_1 * b_1 + ...`` in numbers."""
    return " + ".join(f"{factor(one)} * {factor(other)}" for one, other in zip(a, b, strict=True))


def with_numbers(formula: str, known: Mapping[str, Any]) -> str:
    """The formula with a number for each letter that is known."""
    formula = formula.replace(" o ", " * ")
    return re.sub(r"[A-Za-z]+(_\d+)?", lambda m: factor(known[m[0]]) if m[0] in known else m[0], formula)


def text_matrix(value: Any) -> list[str]:
    """A line for each row of (B, n) or for the one of (n,), columns aligned."""
    rows = [[number(v) for v in row] for row in (value if value.ndim == 2 else value[None, :])]
    width = max(len(cell) for row in rows for cell in row)
    return [f"[ {'  '.join(cell.rjust(width) for cell in row)} ]" for row in rows]


def latex_matrix(value: Any) -> str:
    """A bmatrix of (B, n) or (n,); a lone number as it is."""
    if value.size == 1:
        return latex(number(value.flat[0]))
    rows = value if value.ndim == 2 else value[None, :]
    body = r" \\ ".join(" & ".join(latex(number(v)) for v in row) for row in rows)
    return rf"\begin{{bmatrix}} {body} \end{{bmatrix}}"


def printable(name: str) -> str:
    """A name whose control characters, marks of direction and lone surrogates are spelled out, as in ``repr``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def latex_text(words: str) -> str:
    """A sentence: letters as mathematics, all else with its special characters made safe."""
    pieces = _IN_WORDS.split(words)
    return "".join(f"${latex(piece)}$" if k % 2 else escaped(piece) for k, piece in enumerate(pieces))


def escaped(text: str) -> str:
    """As it is, for LaTeX outside mathematics."""
    return _SPECIAL.sub(lambda m: rf"\{m[0]}" if m[1] else rf"\char`\{m[0]}{{}}", text)


def latex(letters: str) -> str:
    """For mathematics."""
    found = re.sub(
        r"(\d)e([+-])0*(\d+)", lambda m: rf"{m[1]} \cdot 10^{{{m[2].replace('+', '')}{m[3]}}}", letters
    )
    found = _SLOPE.sub(r"\\frac{\\partial C}{\\partial \1}", found)
    found = _WORDS.sub(r"\\operatorname{\1}(", found)
    found = _LETTER.sub(_latex_letter, found)
    found = _TRANSPOSED.sub(r"X^{\\top}", found)
    found = re.sub(r"(?:^| )o(?: |$)", r" \\odot ", found).replace(" * ", r" \cdot ")
    return re.sub(r"\b([a-z]{2,}\w*(?:\([^()]*=[^()]*\))?)\(", _latex_name, found)


def latex_left_out(chain: str, formula: str) -> str:
    """The chain of a derivative with one node a layer, "back [w_12] forward": the weight left out is boxed, and the
    rest embraced over the two letters of the formula "delta_1 q_1"."""
    back, missing, forward = map(latex, _MISSING.split(chain))
    delta, q = map(latex, formula.split())
    box = rf"{{\color{{red}} \boxed{{{missing}}}}}"
    return rf"\underbrace{{{back}}}_{{{delta}}} \; {box} \; \underbrace{{{forward}}}_{{{q}}}"


def _latex_letter(match: re.Match[str]) -> str:
    name, index, prime = match.groups()
    symbol = {"pullback": r"\operatorname{pullback}"}.get(name, rf"\{name}" if name in _GREEK else name)
    mark = "'" if name == "sigma" else r"^{\top}"
    return f"{symbol}_{{{index}}}{mark if prime else ''}"


def _latex_name(match: re.Match[str]) -> str:
    return rf"\operatorname{{{escaped(match[1])}}}("


def html(letters: str) -> str:
    """With sub- and superscripts; a missing weight is marked."""
    found = _html.escape(letters, quote=False).replace("-", "&minus;")
    found = re.sub(r"(?<![\w&;])([xyBC])(?![\w;'])", r"<var>\1</var>", found)
    found = _SLOPE.sub(r"&part;C/&part;\1", found)
    found = _LETTER.sub(_html_letter, found)
    found = _TRANSPOSED.sub("X<sup>T</sup>", found)
    found = re.sub(r" \[(.+?)\] ", r' <mark title="the weight left out">\1</mark> ', found)
    return found.replace(" o ", " &compfn; ").replace(" * ", " &middot; ").replace("^2", "<sup>2</sup>")


def _html_letter(match: re.Match[str]) -> str:
    name, index, prime = match.groups()
    mark = "&prime;" if name == "sigma" else "<sup>T</sup>"
    return f"<var>{_GREEK.get(name, name)}</var><sub>{index}</sub>{mark if prime else ''}"


def tokens(formula: str, L: int) -> list[tuple[str, str]]:
    """The formula cut into (html, key): where the key is not empty, the letter names a matrix of the page: "p1", "W0",
    "W0'" (transposed), "g2" (dC/dq_2), "D2" (Delta[2]), "S1" (sigma_1'(p_1)), "y"."""
    found, end = [], 0
    for match in _KEYED.finditer(formula):
        if match.start() > end:
            found.append((html(formula[end : match.start()]), ""))
        groups = match.groupdict()
        kind = next(name for name in ("S", "g", "D", "pq", "W", "y") if groups[name])
        index = groups.get(f"{kind}_") or ""
        if kind == "D":
            index = str(L - int(index))
        letter = {"pq": groups["pq"], "W": (groups["W"] or "").replace("w", "W")}.get(kind, kind).replace(
            "x", "p"
        )
        found.append((html(match[0].rstrip("'")), f"{letter}{index}{groups.get(f'{kind}_T') or ''}"))
        end = match.end()
    if end < len(formula):
        found.append((html(formula[end:]), ""))
    return found
