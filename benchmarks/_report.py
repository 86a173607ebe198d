"""Results as text: tables in Markdown, and what had to be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks._libraries import EVERY, FLOOR, OURS

__all__ = ["NOTHING", "columns", "left_out", "named", "rounded", "table", "text", "where"]

NOTHING = "-"  # in a cell without a number


def text(results: dict[str, Any]) -> str:
    """Everything, to be printed."""
    parts = [
        "{where}, {date}; {rounds} rounds".format(where=where(results), **results)
        + " (quick: no benchmark)" * results["quick"],
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    ]
    if results["set_aside"]:
        parts.append(f"set aside, so that every library ran as it comes: {', '.join(results['set_aside'])}")
    if steps := results.get("steps"):
        parts += ["\nThreads and kernels:\n", _pools(steps)]
        parts += ["\nA training step, milliseconds, median (minimum):\n", _steps(steps, _both, "")]
        parts += ["\nTheir time over gpubp's, median of the rounds' ratios:\n", _ratios(steps)]
        parts += ["\nPeak memory of the process, MiB:\n", _steps(steps, _memory, "")]
    if crossover := results.get("crossover"):
        cases = crossover["cases"]
        parts += ["\nA training step on the GPU and on the CPU, milliseconds, median (minimum):\n"]
        parts += [_steps(cases, _both, ""), _crossing(crossover["faster_from"])]
    if predictions := results.get("predict"):
        names = columns(predictions)
        rows = [
            [f"{each['rows']:,}", *(_cell(each, name, _microseconds) for name in names)]
            for each in predictions
        ]
        parts += ["\nA prediction, microseconds, median (minimum):\n", table(["rows", *labels(names)], rows)]
    for key, title in (
        ("fit", "A process that imports, builds and fits one epoch on the digits, seconds, median (minimum)"),
        ("size", "Import, seconds, median (minimum); installed, MB"),
    ):
        if part := results.get(key):
            names = columns([part])
            rows = [[_cell(part, name, _seconds) for name in names]]
            if key == "size":
                rows.append([_cell(part, name, lambda e: f"{e['bytes'] / 1e6:.0f} MB") for name in names])
            parts += [f"\n{title}:\n", table(labels(names), rows)]
    reasons = list(left_out(results))
    lacking = (
        f"{EVERY[name].label}, {each['precision']}: {entry['lacks']}"
        for each in results.get("steps", ())
        for name, entry in each["libraries"].items()
        if "lacks" in entry
    )
    reasons += dict.fromkeys(lacking)  # once for all networks
    reasons += [f"{EVERY[name].label}: {reason}" for name, reason in results["absent"].items()]
    reasons += [f"{each}: the time given was over" for each in results.get("not_reached", ())]
    parts += [f"\n{len(reasons)} left out:", *reasons] if reasons else []
    return "\n".join(parts)


def where(results: dict[str, Any]) -> str:
    """The card, if there is one, and the processor."""
    processor = "{processor}, {cores} core{s}".format(**results, s="" if results["cores"] == 1 else "s")
    return f"{results['card']}; {processor}" if "card" in results else processor


def named(step: dict[str, Any]) -> str:
    """A row's network, with the precision where there are several."""
    return f"{step['case']}, {step['precision']}" if "precision" in step else str(step["case"])


def _crossing(faster_from: float | None) -> str:
    if faster_from is None:
        return "\nThe GPU overtakes the CPU at none of these sizes."
    return f"\nThe GPU is faster from {faster_from:,.0f} weights on."


def columns(entries: Sequence[dict[str, Any]]) -> list[str]:
    """The libraries that have something to show, in their order."""
    return [name for name in EVERY if any("samples" in each["libraries"].get(name, {}) for each in entries)]


def labels(names: Sequence[str]) -> list[str]:
    """What they are called."""
    return [EVERY[name].label for name in names]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first column is text."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def left_out(results: dict[str, Any]) -> list[str]:
    """Every library that is here and failed somewhere, with the reason."""
    return [
        f"{EVERY[name].label}, {where}: {entry['left_out']}"
        for where, part in _parts(results)
        for name, entry in part["libraries"].items()
        if "left_out" in entry
    ]


def _parts(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((named(each), each) for each in results.get("steps", ()))
    yield from (
        (f"crossover, {each['case']}", each) for each in results.get("crossover", {}).get("cases", ())
    )
    yield from ((f"predict {each['rows']:,}", each) for each in results.get("predict", ()))
    yield from ((key, results[key]) for key in ("fit", "size") if key in results)


def rounded(value: Any) -> Any:
    """The same with five digits of every float: more are noise."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _pools(steps: Sequence[dict[str, Any]]) -> str:
    lines = []
    for name in columns(steps):
        pools = next(each["libraries"][name]["pools"] for each in steps if "pools" in each["libraries"][name])
        told = ", ".join(
            " ".join(
                str(pool[key])
                for key in ("internal_api", "version", "architecture", "num_threads")
                if key in pool
            )
            for pool in pools
        )
        lines.append(f"- {EVERY[name].label}: {told or 'nothing to be seen'}")
    return "\n".join(lines)


def _steps(steps: Sequence[dict[str, Any]], cell: Callable[[dict[str, Any]], str], missing: str) -> str:
    names = columns(steps)
    rows = [[named(each), *(_cell(each, name, cell) or missing for name in names)] for each in steps]
    return table(["hidden, batch", *labels(names)], rows)


def _ratios(steps: Sequence[dict[str, Any]]) -> str:
    names = columns(steps)
    rows = []
    for each in steps:
        for ours in OURS:
            ratios = each["ratios"].get(ours, {})
            if not ratios:
                continue
            peers = [ratio for name, ratio in ratios.items() if name != FLOOR and name not in OURS]
            cells = [f"{ratios[name]:.2f}" if name in ratios else "" for name in names]
            best = f"{min(peers):.2f}" if peers else ""
            rows.append([f"{named(each)}, {EVERY[ours].label}", *cells, best])
    return table(["hidden, batch", *labels(names), "best peer"], rows)


def _cell(part: dict[str, Any], name: str, write: Callable[[dict[str, Any]], str]) -> str:
    entry = part["libraries"].get(name, {})
    return write(entry) if "samples" in entry else NOTHING


def _both(entry: dict[str, Any]) -> str:
    return f"{1e3 * entry['median']:.3g} ({1e3 * entry['minimum']:.3g})"


def _microseconds(entry: dict[str, Any]) -> str:
    return f"{1e6 * entry['median']:.3g} ({1e6 * entry['minimum']:.3g})"


def _seconds(entry: dict[str, Any]) -> str:
    return f"{entry['median']:.2f} ({entry['minimum']:.2f})"


def _memory(entry: dict[str, Any]) -> str:
    return f"{entry['peak_bytes'] / 2**20:.0f}" if entry["peak_bytes"] else NOTHING
