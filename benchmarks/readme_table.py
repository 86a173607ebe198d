"""README's speed table, written from ``benchmarks/results/cpu.json`` between two comments.

``python -m benchmarks.readme_table`` replaces what stands between ``<!-- speed:begin -->`` and ``<!-- speed:end -->``;
with ``--check`` nothing is written, and the exit status is 1 where README says something else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._libraries import FLOOR, LIBRARIES, OURS, ROOT
from benchmarks._report import NOTHING, columns, table

__all__ = ["main", "replaced", "section"]

BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
# JAX and PyTorch are shown at their faster setting
GROUPS = {
    "JAX": ("jax-step", "jax-scan"),
    "PyTorch": ("torch", "torch-compile"),
    "scikit-learn": ("sklearn",),
}
DISTRIBUTIONS = {"JAX": "jax", "PyTorch": "torch", "scikit-learn": "scikit-learn"}


def section(results: dict[str, Any]) -> str:
    """The table and the lines around it."""
    steps = results["steps"]
    ours = [name for name in OURS if name in columns(steps)]
    peers = [peer for peer, names in GROUPS.items() if any(name in columns(steps) for name in names)]
    head = [
        "hidden, batch",
        "floor",
        *(LIBRARIES[name].label for name in ours),
        *peers,
        "best of them / gpubp",
    ]
    rows = []
    for each in steps:
        entries = each["libraries"]
        cells = [_milliseconds(entries, (name,)) for name in (FLOOR, *ours)]
        cells += [_milliseconds(entries, GROUPS[peer]) for peer in peers]
        rows.append([each["case"], *cells, best(each, ours)])
    versions = results["versions"]
    measured = ", ".join(f"{peer} {versions[DISTRIBUTIONS[peer]]}" for peer in peers)
    lines = [
        f"Milliseconds a training step (float32, Adam; 784 inputs and 10 classes but in the last row), medians of "
        f"{results['rounds']} interleaved rounds; {results['processor']}, {results['cores']} cores, "
        f"{results['date']}; {measured}, NumPy {versions['numpy']}. The floor is the step's matrix products alone.",
        "",
        table(head, rows),
    ]
    return "\n".join(lines)


def best(step: dict[str, Any], ours: Sequence[str]) -> str:
    """The smallest of the peers' ratios to gpubp, with the ``fast`` extra where that ran."""
    ratios = step["ratios"].get(ours[0], {}) if ours else {}
    peers = [ratios[name] for names in GROUPS.values() for name in names if name in ratios]
    return f"{min(peers):.2f}" if peers else NOTHING


def _milliseconds(entries: dict[str, Any], names: Sequence[str]) -> str:
    times = [entries[name]["median"] for name in names if "median" in entries.get(name, {})]
    return f"{1e3 * min(times):.3g}" if times else NOTHING


def replaced(readme: str, text: str) -> str:
    """The README with ``text`` between the comments.

    Raises
    ------
    ValueError : it doesn't hold each of them once, in order
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(
            f"README.md must hold {BEGIN} and {END} once, in this order: put them where the table goes"
        )
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


def main(argv: list[str] | None = None) -> int:
    """Write or check; 1 if the check fails, or there is nothing to write from or into."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme_table", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "cpu.json")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; 1 if README isn't as it should be"
    )
    args = parser.parse_args(argv)
    try:
        results = json.loads(args.json.read_text(encoding="utf-8"))
        before = args.readme.read_text(encoding="utf-8")
        if results["quick"]:
            raise ValueError(f"{args.json.name} is from a quick run: measure with python -m benchmarks.cpu")
        after = replaced(before, section(results))
    except (OSError, ValueError) as reason:
        print(reason, file=sys.stderr)
        return 1
    if args.check:
        return int(after != before)
    args.readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
