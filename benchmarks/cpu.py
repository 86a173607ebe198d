"""gpubp beside JAX, PyTorch and scikit-learn on the CPU, and beside the machine's own limit.

``pip install '.[bench]'``, then ``python -m benchmarks.cpu`` on an idle machine. Every library trains the same networks
in a process of its own: same data, first weights, order of rows, optimizer (Adam) and dtype (float32). Before anything
is timed, all must hold the same weights, to 1e-6, after 20 steps in float64; what doesn't is left out, and said so.

A sample is the time of a step, as the mean over an epoch that follows another one: from drawing the order of rows, over
gathering minibatches from data that is resident, to the last weights and the epoch's mean cost. The floor is the step's
matrix products alone, by NumPy into fixed buffers. Ratios are other / gpubp in the same round, then the median.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import _machine, _report, _sections
from benchmarks._cases import ALL, GRID, Case
from benchmarks._libraries import EVERY, LIBRARIES
from benchmarks._worker import steering

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("steps", "predict", "fit", "size")
ROUNDS, QUICK_ROUNDS = 5, 2
BUSY = 0.5  # load average
# calls a sample, by rows; after a pause threads may share a core for 30 ms, which few calls would be all of
PREDICTIONS = {1: 2000, 1000: 300, 100_000: 3}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write, draw; 1 if a library that is here had to be left out somewhere."""
    args = parse(argv)
    names, results = begun(args)
    if not names:
        return 1
    started = time.perf_counter()
    results.update(measured(args, names))
    results["seconds"] = round(time.perf_counter() - started)
    print(_report.text(results))
    if args.out is not None:
        write(results, args.out)
        draw(results, args.out.with_suffix(".png"))
    return 1 if _report.left_out(results) else 0


def begun(args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """The libraries that are here, none if there is nothing to measure; and what is known before the first sample."""
    names, absent = [], {}
    for name in args.libraries:
        reason = EVERY[name].absent()
        if reason is None:
            names.append(name)
        else:
            absent[name] = reason
            print(f"{EVERY[name].label} is left out: {reason}", file=sys.stderr)
    if not names:
        print("nothing is left to measure", file=sys.stderr)
    results: dict[str, Any] = {**_machine.about(), "rounds": args.rounds, "quick": args.quick}
    results.update(absent=absent, set_aside=steering())
    if results["set_aside"]:
        print(
            f"set aside, so that every library runs as it comes: {', '.join(results['set_aside'])}",
            file=sys.stderr,
        )
    if results["load"] is not None and results["load"] > BUSY:
        print(
            f"the machine is busy (load {results['load']}): these numbers are no benchmark", file=sys.stderr
        )
    return names, results


def write(results: dict[str, Any], path: Path) -> None:
    """As JSON, rounded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_report.rounded(results), indent=1) + "\n", encoding="utf-8")


def measured(args: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """The sections asked for."""
    complete = [name for name in names if LIBRARIES[name].complete]
    cases = [quicker(ALL[name]) if args.quick else ALL[name] for name in args.cases]
    plan = {rows: max(1, calls // 20) for rows, calls in PREDICTIONS.items()} if args.quick else PREDICTIONS
    found: dict[str, Any] = {}
    if "steps" in args.sections:
        found["steps"] = _sections.steps(cases, names, args.rounds)
    if "predict" in args.sections:
        found["predict"] = _sections.predictions(complete, args.rounds, plan)
    if "fit" in args.sections:
        found["fit"] = _sections.fits(complete, args.rounds)
    if "size" in args.sections:
        found["size"] = _sections.sizes(complete, args.rounds)
    return found


def quicker(case: Case) -> Case:
    """The same with a shorter epoch."""
    return replace(case, steps=max(4, case.steps // 20))


def draw(results: dict[str, Any], path: Path) -> None:
    """The figures, where there is one to draw and something to draw it with."""
    if not results.get("steps") and "crossover" not in results:
        return
    try:
        from benchmarks import figure
    except ModuleNotFoundError as missing:
        print(f"no figure: {missing}", file=sys.stderr)
        return
    if results.get("steps"):
        figure.draw(results, path)
    if "crossover" in results:
        figure.crossover(results, path.with_suffix(".crossover.png"))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=ALL,
        default=[case.name for case in GRID],
        metavar="CASE",
        help=str(list(ALL)),
    )
    add_common(parser, list(LIBRARIES), SECTIONS)
    parser.add_argument(
        "--out", type=Path, help="a .json file; a figure goes beside it (default: benchmarks/results/cpu.json for a "
        "full run, else nothing is written)",
    )  # fmt: skip
    return settled(parser, argv, ("quick", "cases", "libraries", "sections"), RESULTS / "cpu.json")


def add_common(parser: argparse.ArgumentParser, libraries: list[str], sections: Sequence[str]) -> None:
    """The options of every speed benchmark."""
    parser.add_argument("--quick", action="store_true", help="short epochs, two rounds: does it run?")
    parser.add_argument(
        "--libraries",
        nargs="+",
        choices=libraries,
        default=libraries,
        metavar="NAME",
        help=", ".join(libraries),
    )
    parser.add_argument("--sections", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--rounds", type=int, help=f"at least {ROUNDS}")


def settled(
    parser: argparse.ArgumentParser, argv: list[str] | None, deciding: Sequence[str], out: Path
) -> argparse.Namespace:
    """The arguments; the file is ``out`` where the ``deciding`` ones are as they come."""
    args = parser.parse_args(argv)
    if args.rounds is None:
        args.rounds = QUICK_ROUNDS if args.quick else ROUNDS
    if args.rounds < (1 if args.quick else ROUNDS):
        parser.error(f"--rounds must be at least {ROUNDS}, got {args.rounds}: medians of fewer mean little")
    if args.out is None and all(getattr(args, name) == parser.get_default(name) for name in deciding):
        args.out = out
    return args


if __name__ == "__main__":
    raise SystemExit(main())
