"""The figures of derivation.md with the numbers they plot, and what its scripts print.

``make(folder)`` draws each figure into NAME.png and writes numbers.json: what stands on the axes, read off the drawn
figures themselves, so that a figure is known to be current when its numbers are, whatever the bytes of its picture.
``refreshed(text)`` puts anew what stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``: what that script
prints.
"""

import io
import json
import math
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from examples.article import boundary, full, global_view, linear, one_node, one_node_linear, slips

HERE = Path(__file__).parent / "figures"
DERIVATION = Path(__file__).parent.parent / "derivation.md"
SCRIPTS = {
    "global_view": global_view.main,
    "one_node_linear": one_node_linear.main,
    "one_node": one_node.main,
    "boundary": boundary.main,
    "linear": linear.main,
    "full": full.main,
    "slips": slips.main,
}
FIGURES: dict[str, Callable[[], Figure]] = {
    "descent": global_view.descent,
    "regression": global_view.regression,
    "chain_linear": one_node_linear.chain,
    "activations": one_node.activations,
    "chain": one_node.chain,
    "boundary": boundary.regions,
    "collapse": linear.collapse,
    "vanishing": full.vanishing,
    "training": full.training,
}
MOST = 12  # numbers kept of a curve, evenly spread
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def make(folder: Path = HERE) -> None:
    """Draw every figure into ``folder``, and write the numbers beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {}
    for name, draw in FIGURES.items():
        figure = draw()
        figure.savefig(folder / f"{name}.png", dpi=100, metadata={"Software": None})
        numbers[name] = plotted(figure)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in numbers.items())
    (folder / "numbers.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def refreshed(text: str) -> str:
    """The text of derivation.md with every script's output put anew."""

    def printed(match: re.Match[str]) -> str:
        name, out = match[1], io.StringIO()
        with redirect_stdout(out):
            SCRIPTS[name]()
        body = out.getvalue() if name == "slips" else f"```text\n{out.getvalue()}```\n"
        return f"<!-- {name}:begin -->\n{body}<!-- {name}:end -->"

    return re.sub(r"<!-- (\w+):begin -->\n.*?<!-- \1:end -->", printed, text, flags=re.DOTALL)


def plotted(figure: Figure) -> list[dict[str, Any]]:
    """What stands on each axes: lines, points, equal-cost and boundary lines by their extent, and words."""
    found = []
    for ax in figure.axes:
        lines = [np.asarray(line.get_data(), float) for line in ax.lines]
        points = [c for c in ax.collections if isinstance(c, PathCollection)]
        contours = [c for c in ax.collections if isinstance(c, ContourSet) and not c.filled]
        found.append(
            {
                "title": ax.get_title(loc="left"),
                "lines": [[_some(x), _some(y)] for x, y in lines if len(x)],
                "points": [[_some(x), _some(y)] for x, y in (np.asarray(c.get_offsets()).T for c in points)],
                "contours": [_some(_extents(contour)) for contour in contours],
                "texts": [text.get_text() for text in ax.texts],
            }
        )
    return found


def _some(values: Any) -> list[float]:
    kept = np.asarray(values)[np.linspace(0, len(values) - 1, min(len(values), MOST)).astype(int)]
    return [float(f"{value:.5g}") for value in kept]


def _extents(contour: Any) -> Any:
    boxes = [path.get_extents().extents for path in contour.get_paths() if len(path.vertices)]
    return np.concatenate(boxes) if boxes else np.zeros(1)


def alike(one: Any, other: Any, tolerance: float = 2e-3) -> bool:
    """Whether two such descriptions agree, numbers (those in words too) to ``tolerance`` of their size."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(alike(a, b, tolerance) for a, b in pairs)
    if isinstance(one, str):
        ours, theirs = ([float(number) for number in _NUMBER.findall(text)] for text in (one, other))
        return _NUMBER.sub("#", one) == _NUMBER.sub("#", other) and alike(ours, theirs, tolerance)
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance * 1e-2)
