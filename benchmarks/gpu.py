"""gpubp beside PyTorch and JAX on an NVIDIA GPU, and beside its matrix products alone; and the GPU beside the CPU.

``python -m benchmarks.gpu`` on a machine with CuPy, and with PyTorch and JAX built for CUDA: what isn't there is left
out, and said so. Every library trains the same networks in a process of its own, data and all on the card: same first
weights, order of rows and optimizer (Adam), products in float32, tf32 or bfloat16, everything else in float32. Before
anything is timed, 20 steps must give the weights of float64 to within what that precision does to them.

A sample is the time of a step, as the mean over an epoch that follows another one and ends when the device has ended.
The floor is the step's products alone, by ``cupy.matmul``, launches included. Ratios are other / gpubp in the same
round, then the median. It takes some ten minutes, ``--seconds`` sets an end, and ``--keep`` goes on where it was.

``--device cpu`` lets the CPU stand in for the GPU, on small networks: whether the machinery turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gpubp
from benchmarks import _grid, _report
from benchmarks._cases import CROSSOVER, GPU_GRID, GPU_SMOKE
from benchmarks._libraries import GPU_LIBRARIES, PRECISIONS
from benchmarks.cpu import RESULTS, add_common, begun, draw, quicker, settled, write
from gpubp._devices import is_emulated, why_no_gpu

CARD_RESULTS = RESULTS / "gpu.json"
SECTIONS = ("steps", "crossover")
CASES = {case.name: case for case in (*GPU_GRID, *GPU_SMOKE)}
SAME = (
    "card",
    "emulated",
    "versions",
    "rounds",
    "quick",
    "processor",
    "cores",
)  # for rows to stand in one file


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write, draw; 1 if a library that is here had to be left out somewhere, 3 without the device."""
    args = parse(argv)
    try:
        device = gpubp.device(args.device)
    except RuntimeError as reason:
        print(f"benchmarks.gpu needs an NVIDIA GPU, or --device cpu: {reason}", file=sys.stderr)
        return 3
    if args.emulated:
        print("the device is emulated: these numbers are no benchmark", file=sys.stderr)
    names, results = begun(args)
    if not names:
        return 1
    results.update(card=device.description, emulated=args.emulated, steps=[], not_reached=[])
    if args.keep and args.out is not None and args.out.exists():
        keep(json.loads(args.out.read_text(encoding="utf-8")), results)
    measure(args, names, results)
    print(_report.text(results))
    if args.out is not None:
        draw(results, args.out.with_suffix(".png"))
    return 1 if _report.left_out(results) else 0


def keep(before: dict[str, Any], results: dict[str, Any]) -> None:
    """Take over what an earlier run has measured.

    Raises
    ------
    ValueError : it was measured otherwise
    """
    ours = _report.rounded(results)
    if other := [key for key in SAME if before[key] != ours[key]]:
        raise ValueError(
            f"--keep needs a file measured alike, got another {' and '.join(other)}: give another --out"
        )
    results.update({key: before[key] for key in ("steps", "crossover") if key in before})


def measure(args: argparse.Namespace, names: list[str], results: dict[str, Any]) -> None:
    """Row by row, each written as soon as it is there, as long as there is time."""
    started = time.perf_counter()

    def late() -> bool:
        results["seconds"] = round(time.perf_counter() - started)
        if args.out is not None:
            write(results, args.out)
        return args.seconds is not None and results["seconds"] >= args.seconds

    sweep = CROSSOVER[:2] if args.device == "cpu" or args.emulated else CROSSOVER
    known_sizes = {each["case"] for each in results.get("crossover", {"cases": []})["cases"]}
    if "crossover" in args.sections and len(known_sizes) < len(sweep):
        some = [quicker(case) if args.quick else case for case in sweep]
        found = _grid.crossover(some, args.rounds, args.device, late)
        if len(found["cases"]) > len(known_sizes):
            results["crossover"] = found
            known_sizes = {each["case"] for each in found["cases"]}
    sizes_not_reached = [
        f"crossover, {case.name}"
        for case in sweep
        if "crossover" in args.sections and case.name not in known_sizes
    ]
    if "steps" not in args.sections:
        results["not_reached"] = sizes_not_reached
        late()
        return
    known = {(step["precision"], step["case"]) for step in results["steps"]}
    wanted = [(precision, name) for precision in args.precisions for name in args.cases]
    cases = [quicker(CASES[name]) if args.quick else CASES[name] for name in args.cases]
    with tempfile.TemporaryDirectory() as folder:
        rows = _grid.rows(cases, names, args.precisions, args.rounds, args.device, Path(folder), known)
        while not late() and (row := next(rows, None)) is not None:
            results["steps"].append(row)
            known.add((row["precision"], row["case"]))
        rows.close()
    results["not_reached"] = sizes_not_reached + [
        f"{name}, {precision}" for precision, name in wanted if (precision, name) not in known
    ]
    late()


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, metavar="CASE", help=f"{list(CASES)} (default: all, or the small "
        "ones where the CPU stands in or the device is emulated)",
    )  # fmt: skip
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add_common(parser, list(GPU_LIBRARIES), SECTIONS)
    parser.add_argument("--seconds", type=float, help="start no network after so many")
    parser.add_argument(
        "--keep", action="store_true", help="what the file holds already is not measured again"
    )
    parser.add_argument(
        "--out", type=Path, help="a .json file; a figure goes beside it (default: benchmarks/results/gpu.json for a "
        "full run on a GPU, else nothing is written)",
    )  # fmt: skip
    deciding = ("device", "quick", "cases", "precisions", "libraries", "sections")
    args = settled(parser, argv, deciding, CARD_RESULTS)
    args.emulated = args.device == "cuda" and why_no_gpu() is None and is_emulated(gpubp.device("cuda"))
    if args.cases is None:
        small = args.device == "cpu" or args.emulated
        args.cases = [case.name for case in (GPU_SMOKE if small else GPU_GRID)]
    if args.emulated and args.out == CARD_RESULTS:
        parser.error(
            f"{CARD_RESULTS.name} is for what a card measures, and the device is emulated: give --out"
        )
    if args.keep and args.out is None:
        parser.error("--keep needs --out, the file that holds what is kept")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
