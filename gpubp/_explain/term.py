"""A link of the chains, with its name, formula and numbers, as text and as LaTeX."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpubp._explain.notation import escaped, latex, latex_left_out, latex_matrix, number, text_matrix

__all__ = ["Term"]


class Term(NamedTuple):
    """One link of a chain, or one derivative.

    ``name`` is the library's, "p[1]"; ``article`` the article's, "p_1" or "delta_0". ``formula`` makes it from the
    terms before it, in letters; ``numbers`` makes its first element from theirs; ``chain``, with one node a layer, is
    the formula carried back to the input or the cost, a missing weight in brackets. ``value`` is NumPy float64;
    ``difference`` the same derivative by central differences.
    """

    name: str
    article: str
    formula: str
    numbers: str
    value: Any
    chain: str = ""
    difference: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def apart(self) -> float:
        """The largest distance between ``value`` and ``difference``."""
        return float(np.max(np.abs(self.value - self.difference)))

    @property
    def longer(self) -> str:
        """``chain`` where it says more than ``formula``."""
        return "" if self.chain in (self.article, self.formula, f"({self.formula})") else self.chain

    def __str__(self) -> str:
        return "\n".join(self.text())

    def text(self) -> list[str]:
        """Lines for the terminal."""
        shape = str(self.shape) if self.shape else ""
        left = f"{self.article} = {self.formula}" if self.formula else self.article
        lines = [f"{left:<64}  {self.name}  {shape}".rstrip()]
        if self.longer:
            lines.append(f"    = {self.longer}")
        if self.value.size == 1:
            made_of = f"{self.numbers} = " if " " in self.numbers or "(" in self.numbers else ""
            beside = ""
            if self.difference is not None:
                beside = f"; central difference {number(self.difference.item())}, {self.apart:.0e} apart"
            return [*lines, f"    = {made_of}{number(self.value.item())}{beside}"]
        rows = text_matrix(self.value)
        if self.difference is not None:
            others = text_matrix(self.difference)
            width = max(len(rows[0]), len("backward"))
            lines.append(f"    {'backward':<{width}}    central differences")
            rows = [f"{row:<{width}}    {other}" for row, other in zip(rows, others, strict=True)]
        lines += [f"    {row}" for row in rows]
        if " " in self.numbers or "(" in self.numbers:
            lines.append(f"    first: {self.numbers} = {number(self.value.flat[0])}")
        if self.difference is not None:
            lines.append(f"    at most {self.apart:.0e} apart")
        return lines

    def latex(self) -> list[str]:
        """Lines of a display."""
        sides = [latex(self.formula)] if self.formula else []
        if "[" in self.longer:
            sides.append(latex_left_out(self.chain, self.formula))
        elif self.longer:
            sides.append(latex(self.longer))
        if self.value.size == 1 and self.numbers:
            sides.append(latex(self.numbers))
        sides.append(latex_matrix(self.value))
        lines = [f"{latex(self.article)} &= {sides[0]}", *(f"&= {side}" for side in sides[1:])]
        if self.difference is not None:
            lines.append(f"&\\approx {latex_matrix(self.difference)} \\quad \\text{{(central differences)}}")
        inner = " \\\\\n".join(lines)
        return [
            "\\[ \\begin{aligned}",
            inner,
            f"\\end{{aligned}} \\tag*{{\\texttt{{{escaped(self.name)}}}}} \\]",
        ]
