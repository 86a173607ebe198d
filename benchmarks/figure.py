"""The figure: time of a training step over the time of its matrix products alone, by network and library.

``python -m benchmarks.figure`` draws ``benchmarks/results/cpu.png`` from ``cpu.json`` beside it. Bars are named and
numbered where they stand, so that nothing hangs on colour; each network has its own scale, and what is far slower
than the best peer runs out of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks._libraries import EVERY, FLOOR, OURS
from benchmarks._report import columns, where

__all__ = ["crossover", "draw"]

RESULTS = Path(__file__).parent / "results"
INK, GREY = "#1a1a1a", "#d4d4d4"
COLOURS = {
    "gpubp": "#0b3c5d",
    "gpubp-plain": "#3f7ca8",
    "jax": "#e0a030",
    "torch": "#d97b4f",
    "sklearn": "#b8a38f",
}
REACH = 1.9  # of the axis, times the best peer
BAR, TITLE = 0.24, 0.5  # inches


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw what ``benchmarks.cpu`` or ``benchmarks.gpu`` measured into an image file.

    Raises
    ------
    ValueError : no case has a floor to compare with
    """
    steps = [each for each in results["steps"] if "samples" in each["libraries"].get(FLOOR, {})]
    if not steps:
        raise ValueError(
            "the figure needs the floor of a case at least, got none: measure with --libraries floor"
        )
    names = [name for name in columns(steps) if name != FLOOR]
    panels = _arranged(steps)
    down, across = len(panels), len(panels[0])
    height = down * (BAR * len(names) + TITLE) + 0.9
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03)
    figure = Figure(figsize=(9 if across < 3 else 12.5, height), dpi=160, layout=layout)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for number, (axes, step) in enumerate(zip(grid.flat, (s for row in panels for s in row), strict=True)):
        if step is None:
            axes.set_visible(False)
            continue
        _panel(axes, step, names)
        if "precision" in step and number < across:
            _title(axes, f"{step['precision']}\n{axes.get_title(loc='left')}")
    figure.suptitle(
        "A training step as a multiple of its matrix products alone (grey)",
        fontsize=14.5,
        color=INK,
        x=0.02,
        ha="left",
    )
    precision = "" if "card" in results else "float32, "
    said = "{where}, {date}; {precision}Adam; medians of {rounds} rounds".format(
        where=where(results), precision=precision, **results
    )
    figure.supxlabel(said, fontsize=11, color="#555555", x=0.02, ha="left")
    figure.savefig(path)


def _arranged(steps: list[dict[str, Any]]) -> list[list[dict[str, Any] | None]]:
    """Rows of panels: two networks, or the precisions of one."""
    if "precision" not in steps[0]:
        across = min(2, len(steps))
        padded = [*steps, *[None] * (-len(steps) % across)]
        return [padded[k : k + across] for k in range(0, len(padded), across)]
    found = {(step["case"], step["precision"]): step for step in steps}
    cases, precisions = (list(dict.fromkeys(each)) for each in zip(*found, strict=True))
    return [[found.get((case, precision)) for precision in precisions] for case in cases]


def _panel(axes: Any, step: dict[str, Any], names: list[str]) -> None:
    over = _over_floor(step)
    peers = [times for name, times in over.items() if name not in OURS]
    end = max(1.6, REACH * min(peers or over.values(), default=1.0))
    for y, name in enumerate(names):
        if name not in over:
            lacks = "lacks" in step["libraries"].get(name, {})
            why = f"no {step['precision']}" if lacks else "left out"
            axes.text(0.03 * end, y, why, va="center", fontsize=12, color="#666666")
            continue
        times = over[name]
        bold = {"fontweight": "bold"} if name in OURS else {}
        shown = min(times, end)
        axes.barh(y, shown, height=0.74, color=COLOURS.get(name) or COLOURS[name.partition("-")[0]], lw=0)
        if times > 1.0:  # else it has better products than NumPy's, and keeps its colour
            axes.barh(y, 1.0, height=0.74, color=GREY, lw=0)
        if times > end:  # torn off
            axes.plot(
                [0.955 * end, 0.985 * end], [y + 0.5, y - 0.5], color="white", lw=3, solid_capstyle="butt"
            )
        axes.text(shown + 0.02 * end, y, _written(times), va="center", fontsize=12, color=INK, **bold)
    hidden, _, batch = step["case"].rpartition(", ")
    _title(axes, f"{hidden}, batch {batch}" if hidden else batch)
    axes.set_xlim(0, 1.17 * end)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [EVERY[name].label for name in names])
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=12.5, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, fontsize=13.5, loc="left", color=INK, fontweight="bold", pad=4)


def _written(times: float) -> str:
    return f"{times:.2f}" if times < 10 else f"{times:.0f}"


def _over_floor(step: dict[str, Any]) -> dict[str, float]:
    floor = step["libraries"][FLOOR]["samples"]
    return {
        name: median(time / least for time, least in zip(entry["samples"], floor, strict=True))
        for name, entry in step["libraries"].items()
        if name != FLOOR and "samples" in entry
    }


def crossover(results: dict[str, Any], path: Path) -> None:
    """Draw a step's time on the GPU and on the CPU over the network's size, and where the GPU is ahead."""
    found = results["crossover"]
    figure = Figure(figsize=(9, 4.6), dpi=160, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    axes = figure.subplots()
    for name, label, marker in (
        ("gpubp-gpu", "GPU", "o"),
        ("gpubp", "CPU", "s"),
        ("gpubp-plain", "CPU", "s"),
    ):
        points = [
            (each["weights"], 1e3 * entry["median"])
            for each in found["cases"]
            if "samples" in (entry := each["libraries"].get(name, {}))
        ]
        if points:
            sizes, times = zip(*points, strict=True)
            colour = COLOURS["gpubp"] if label == "GPU" else COLOURS["torch"]
            axes.plot(sizes, times, marker=marker, color=colour, lw=2.2, ms=7)
            axes.annotate(
                label, points[-1], xytext=(10, 0), textcoords="offset points", va="center", fontsize=13.5,
                color=colour, fontweight="bold",
            )  # fmt: skip
    if found["faster_from"] is not None:
        axes.axvspan(found["faster_from"], 1e99, color=GREY, alpha=0.45, lw=0)
    axes.set(xscale="log", yscale="log")
    weights = [each["weights"] for each in found["cases"]]
    axes.set_xlim(weights[0] / 1.4, weights[-1] * 2.2)
    axes.set_xlabel("weights", fontsize=12.5, color=INK)
    axes.set_ylabel("milliseconds a step", fontsize=12.5, color=INK)
    axes.tick_params(labelsize=12, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    ahead = "" if found["faster_from"] is None else ", the GPU ahead where it is grey"
    figure.suptitle(
        f"gpubp on GPU and CPU: two hidden layers, batch {found['cases'][0]['batch']}{ahead}",
        fontsize=14.5, color=INK, x=0.02, ha="left",
    )  # fmt: skip
    figure.supxlabel(
        "{where}, {date}; float32, Adam".format(where=where(results), **results),
        fontsize=11, color="#555555", x=0.02, ha="left",
    )  # fmt: skip
    figure.savefig(path)


def main() -> int:
    """Read the JSON, write the image beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figure", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("json", type=Path, nargs="?", default=RESULTS / "cpu.json")
    args = parser.parse_args()
    results = json.loads(args.json.read_text(encoding="utf-8"))
    draw(results, args.json.with_suffix(".png"))
    if "crossover" in results:
        crossover(results, args.json.with_suffix(".crossover.png"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
