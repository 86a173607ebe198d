"""The networks timed on a GPU, precision by precision; and the size from which a GPU is faster than the processor.

A library counts if it trains the same network: in float64, 20 steps on the narrowest give the same weights; and if it
computes in the precision that its row says: one step from the first weights is as far from float64's as rounding in
that precision makes it, neither more nor less. One, as the rounding of 20 steps of a wide network grows out of hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cases import EXACT, RATE, Case, flat
from benchmarks._libraries import EVERY, FLOOR
from benchmarks._sections import Entries, agreement, row, say, timed
from benchmarks._worker import Failed, Worker

__all__ = ["BANDS", "REFERENCE", "crossing", "crossover", "error", "judged", "rows"]

REFERENCE = "gpubp-gpu"
# lowest and highest errors; tf32 of a wide network and bfloat16 of a narrow one meet, but float32 is apart from both
BANDS = {"float32": (0.0, 1e-4), "tf32": (1e-4, 5e-2), "bfloat16": (1e-3, 0.3)}
FLAT = 1e3  # an epsilon that leaves Adam's first step proportional to the gradient


def parts(w: Any, case: Case) -> list[Any]:
    """Every W and b of a flat vector, each as a vector."""
    pairs = list(pairwise(case.sizes))
    lengths = [m * n for m, n in pairs] + [n for _, n in pairs]
    return np.split(w, np.cumsum(lengths)[:-1])


def error(w: Any, true: Any, case: Case) -> float:
    """The middle difference over the middle move from the first weights, those that stay left out; of the worst W or b.

    The middle one, as Adam's step is nearly the gradient's sign where that is large, and where it is small rounding may
    turn it around.
    """
    found = []
    first = flat(case.layers("float32"))
    for part, true_part, first_part in zip(
        parts(w, case), parts(true, case), parts(first, case), strict=True
    ):
        moved = true_part != first_part
        if moved.any():
            difference = np.abs(part[moved] - true_part[moved])
            found.append(np.median(difference) / np.median(np.abs(true_part[moved] - first_part[moved])))
    return float(np.max(found))  # NaN if there is one


def judged(found: float, precision: str) -> dict[str, Any]:
    """The error as an entry; with the reason where a library that has it can't count."""
    low, high = BANDS[precision]
    if low <= found <= high:
        return {"error": found}
    return {
        "left_out": f"its first step is {found:.1e} of the way from float64's, where {precision} gives {low:g} to "
        f"{high:g}: it computes in another precision, or another network"
    }


class Truth:
    """The first step of each network in float64, by gpubp on the same device, and Adam's epsilon in it: the middle size
    of the gradient, so that a step shows the gradient's error; kept in a folder."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.kept: dict[str, tuple[Path, float]] = {}

    def of(self, case: Case) -> tuple[Any, float]:
        if case.name in self.kept:
            path, epsilon = self.kept[case.name]
            return np.load(path), epsilon
        path = self.folder / f"true-{len(self.kept)}.npy"
        with Worker(REFERENCE, self.device) as worker:  # it ends at once, and its memory is free
            moves = np.abs(first_step(worker, case, EXACT, FLAT, path) - flat(case.layers("float32")))
            epsilon = float(np.median(moves[moves > 0])) * FLAT / RATE
            found = first_step(worker, case, EXACT, epsilon, path)
        self.kept[case.name] = path, epsilon
        return found, epsilon


def first_step(worker: Worker, case: Case, precision: str, epsilon: float, path: Path) -> Any:
    """The weights of a library after one step."""
    worker.prepare(replace(case, steps=1), precision, epsilon)
    worker.ask("weights", path=str(path))
    return np.load(path)


def rows(
    cases: Sequence[Case],
    names: Sequence[str],
    precisions: Sequence[str],
    rounds: int,
    device: str,
    folder: Path,
    known: Collection[tuple[str, str]] = (),
) -> Generator[dict[str, Any], None, None]:
    """Seconds a training step of each library, for each precision and in it for each network, but those ``known``."""
    truth = Truth(device, folder)
    narrowest = min(cases, key=lambda case: case.n_weights)
    learning = [REFERENCE, *(name for name in names if name not in (FLOOR, REFERENCE))]
    same = agreement([narrowest], learning, device)[narrowest.name]
    differing = {name: {"left_out": entry["left_out"]} for name, entry in same.items() if "left_out" in entry}
    for precision in precisions:
        lacking = {name: {"lacks": why} for name in names if (why := EVERY[name].lacks(precision, device))}
        without = {**differing, **lacking}
        workers: dict[str, Worker] = {}
        with ExitStack() as stack:
            for case in cases:
                if (precision, case.name) in known:
                    continue
                say(f"{precision}, {case.name}: {rounds} rounds of {case.steps} steps")
                entries: Entries = {name: dict(without.get(name, {})) for name in names}
                for name in names:
                    if name not in without and (name not in workers or not workers[name].alive):
                        workers[name] = stack.enter_context(Worker(name, device, precision))
                for name, worker in workers.items():
                    if name != FLOOR:
                        entries[name] = checked(worker, case, precision, truth)
                agreeing = {name: each for name, each in workers.items() if "left_out" not in entries[name]}
                timed(agreeing, case, precision, rounds, entries)
                yield {**row(case, entries), "precision": precision}


def checked(worker: Worker, case: Case, precision: str, truth: Truth) -> dict[str, Any]:
    """How far a library's weights are from float64's."""
    try:
        true, epsilon = truth.of(case)
    except Failed as reason:
        return {"left_out": f"float64 failed, and there is nothing to compare with: {reason}"}
    path = truth.folder / "weights.npy"
    try:
        w = first_step(worker, case, precision, epsilon, path)
        return judged(error(w, true, case), precision)
    except Failed as reason:
        return {"left_out": str(reason)}


def crossover(
    cases: Sequence[Case], rounds: int, device: str, late: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """gpubp's step on the device and on the processor, compiled where it can be, by size, of those begun before it is
    late; and where they cross."""
    names = {"gpubp-gpu": device, "gpubp" if EVERY["gpubp"].absent() is None else "gpubp-plain": "cpu"}
    found = []
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, where)) for name, where in names.items()}
        for case in cases:
            if late():
                break
            say(f"crossover, {case.name}: {rounds} rounds of {case.steps} steps")
            entries: Entries = {name: {} for name in names}
            timed(workers, case, "float32", rounds, entries)
            found.append({**row(case, entries), "weights": case.n_weights})
    return {"cases": found, "faster_from": crossing(found)}


def crossing(cases: Sequence[dict[str, Any]]) -> float | None:
    """The number of weights from which on the GPU is faster at every size measured, between two sizes on straight lines
    in logarithms; the smallest one's if it is faster everywhere, None if not at the largest."""
    points = [
        (each["weights"], next(iter(ratios.values())))
        for each in cases
        if (ratios := each["ratios"].get("gpubp-gpu"))
    ]
    if not points or points[-1][1] <= 1:
        return None
    slower = [k for k, (_, ratio) in enumerate(points) if ratio <= 1]
    if not slower:
        return float(points[0][0])
    (n, low), (m, high) = points[slower[-1] : slower[-1] + 2]
    share = math.log(low) / (math.log(low) - math.log(high))
    return float(n * (m / n) ** share)
