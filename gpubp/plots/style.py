"""What the pictures share: colours, axes and how they are dressed, and arrays brought to the host to be drawn.

The colours are those of Okabe and Ito, which the colour-blind tell apart; nothing hangs on them alone: each goes with a
dash and a marker, so that a picture may lose its colours.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp._devices import to_numpy
from gpubp._typing import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BLUE",
    "COLOURS",
    "DASHES",
    "GREY",
    "INK",
    "MARKERS",
    "PALE",
    "TEXT",
    "VERMILLION",
    "axes",
    "chosen_classes",
    "dress",
    "host",
    "line_style",
    "sheet",
]

INK, GREY, PALE = "#1a1a1a", "#767676", "#d9d9d9"
BLUE, VERMILLION = "#0072B2", "#D55E00"
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 3)), (0, (8, 2)))
MARKERS = "osD^vPX*<>"
TEXT = 13  # points; at the figures' 6.4 inches it can be read at half their width

_PIP = "pip install 'gpubp[plot]'"


def axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.4)) -> Axes:
    """``ax``, or the axes of a new figure, which matplotlib's own ``show`` shows.

    Raises
    ------
    ModuleNotFoundError : matplotlib isn't there
    TypeError : ``ax`` isn't matplotlib's
    """
    if ax is None:
        return _matplotlib("pyplot").subplots(figsize=size, layout="constrained")[1]  # type: ignore[no-any-return]
    if not (hasattr(ax, "plot") and hasattr(ax, "transAxes")):
        raise TypeError(
            f"ax must be a matplotlib Axes, got {type(ax).__name__}: leave it out to have one made"
        )
    return ax


def sheet(across: int = 1, size: tuple[float, float] = (6.4, 4.4)) -> Any:
    """The axes, one or several side by side, of a new figure that no window knows of, to be saved.

    Raises
    ------
    ModuleNotFoundError : matplotlib isn't there
    """
    figure = _matplotlib("figure").Figure(figsize=size, layout="constrained")
    return figure.subplots(1, across)


def _matplotlib(part: str) -> Any:
    try:
        return import_module(f"matplotlib.{part}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"gpubp.plots needs matplotlib, which is not installed: {_PIP}") from error


def dress(ax: Axes, *, x: str = "", y: str = "", title: str = "", legend: bool = False) -> Axes:
    """Name the two directions and the picture, in letters that stay readable when it shrinks."""
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    if title:
        ax.set_title(title, fontsize=TEXT, color=INK, loc="left", fontweight="bold")
    ax.tick_params(which="both", labelsize=TEXT - 1, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=False, fontsize=TEXT - 1, handlelength=2.6)
    return ax


def line_style(k: int, n: int = 10) -> dict[str, Any]:
    """The look of line k: colour, dash and marker change together. ``n`` points carry about ten markers."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k % len(DASHES)],
        "marker": MARKERS[k % len(MARKERS)],
        "markevery": max(1, n // 10),
        "markersize": 6,
        "linewidth": 2,
    }


def host(array: Array, name: str) -> NDArray[Any]:
    """The array as finite NumPy numbers.

    Raises
    ------
    ValueError : a NaN or an infinity, which can't be drawn
    """
    found = np.asarray(to_numpy(array))
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got {found.dtype}: convert it")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite to be drawn, got a NaN or inf: remove or replace it")
    return found


def chosen_classes(q: NDArray[Any], name: str) -> NDArray[np.int64]:
    """The class of each row: whole numbers (n,) as they are, the largest of several columns, or whether one number is
    above a half.

    Raises
    ------
    ValueError : another shape, or classes below 0
    """
    if q.ndim not in (1, 2) or 0 in q.shape:
        raise ValueError(
            f"{name} must have shape (n,) or (n, n_L) with n >= 1, got {q.shape}: one example per row"
        )
    if q.ndim == 2 and q.shape[1] > 1:
        return np.asarray(q.argmax(axis=1), np.int64)
    flat = q.reshape(len(q))
    if flat.dtype.kind == "f":
        flat = flat > 0.5
    if flat.min() < 0:
        raise ValueError(f"{name} must hold classes from 0, got {flat.min()}: number them from 0")
    return np.asarray(flat, np.int64)
