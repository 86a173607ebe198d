"""The measurements: training steps, predictions, a first fit in a fresh process, imports and sizes.

Each takes its samples round after round, one of every library a round, so that what the machine does besides falls on
all; ratios are taken pair by pair within a round. Times are seconds here and in the JSON.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._cases import EPSILON, PREDICT, Case
from benchmarks._libraries import EVERY, FLOOR, OURS, ROOT, fast_extra
from benchmarks._worker import LIMIT, Failed, Worker, environment

__all__ = ["agreement", "fits", "predictions", "row", "sizes", "steps", "timed"]

SAME, SAME_OUTPUT = 1e-6, 1e-5  # of weights after 20 steps in float64; of float32 predictions
CHECKED_STEPS, CHECKED_EPSILON = 20, 1e-30
PAUSE = 0.05  # seconds, for the thread pool of the library before to fall asleep

Entries = dict[str, dict[str, Any]]


_STARTED = time.perf_counter()


def say(text: str) -> None:
    """To the one who waits, with the seconds since the start."""
    print(f"[{time.perf_counter() - _STARTED:4.0f} s] {text}", file=sys.stderr, flush=True)


def rounds_of(samplers: dict[str, Callable[[], float]], rounds: int, entries: Entries) -> None:
    """Sample each library once a round, starting with another one each time, and enter what came."""
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    for number in range(rounds):
        names = list(taken)
        first = number % len(names) if names else 0
        for name in (*names[first:], *names[:first]):
            time.sleep(PAUSE)
            try:
                taken[name].append(samplers[name]())
            except Failed as reason:
                entries[name] = {"left_out": str(reason)}
                del taken[name]
    for name, samples in taken.items():
        entries[name].update(samples=samples, median=median(samples), minimum=min(samples))


def ratios(entries: Entries) -> dict[str, dict[str, float]]:
    """For gpubp, with and without the extra: every other's time over ours, the median over rounds."""
    samples = {name: entry["samples"] for name, entry in entries.items() if "samples" in entry}
    return {
        ours: {
            name: median(theirs / mine for theirs, mine in zip(others, samples[ours], strict=True))
            for name, others in samples.items()
            if name != ours
        }
        for ours in OURS
        if ours in samples
    }


def agreement(cases: Sequence[Case], names: Sequence[str], device: str = "cpu") -> dict[str, Entries]:
    """By case and library, how far its weights and mean cost are from the first library's after 20 steps in float64
    with Adam's epsilon at 1e-30; what is too far is left out."""
    found: dict[str, Entries] = {case.name: {} for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        kept: dict[str, tuple[Path, float]] = {}
        for name in names:
            say(f"the first {CHECKED_STEPS} steps: {EVERY[name].label}")
            with Worker(name, device) as worker:
                for number, case in enumerate(cases):
                    path = Path(folder) / f"{name}-{number}.npy"
                    try:
                        worker.prepare(replace(case, steps=CHECKED_STEPS), "float64", CHECKED_EPSILON)
                        cost = worker.ask("weights", path=str(path))
                    except Failed as reason:
                        found[case.name][name] = {"left_out": str(reason)}
                        continue
                    if case.name not in kept:
                        kept[case.name] = path, cost
                        found[case.name][name] = {"difference": 0.0}
                        continue
                    found[case.name][name] = _compared(path, cost, *kept[case.name])
                    path.unlink()
    return found


def _compared(path: Path, cost: float, true_path: Path, true_cost: float) -> dict[str, Any]:
    difference = float(np.max(np.abs(np.load(path) - np.load(true_path))))
    apart = max(difference, abs(cost - true_cost) / abs(true_cost))
    if apart <= SAME:
        return {"difference": difference}
    return {
        "left_out": f"after {CHECKED_STEPS} steps its weights are {difference:.1e} from the first library's, its cost "
        f"is {cost:.6g} where that has {true_cost:.6g}: it trains another network"
    }


def steps(cases: Sequence[Case], names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Seconds a training step, and peak memory, of each case and library."""
    agreed = agreement(cases, [name for name in names if name != FLOOR])
    results = []
    for case in cases:
        say(f"{case.name}: {rounds} rounds of {case.steps} steps")
        entries: Entries = {name: dict(agreed[case.name].get(name, {})) for name in names}
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(Worker(name))
                for name, entry in entries.items()
                if "left_out" not in entry
            }
            timed(workers, case, "float32", rounds, entries)
        results.append(row(case, entries))
    return results


def timed(workers: dict[str, Worker], case: Case, precision: str, rounds: int, entries: Entries) -> None:
    """Enter seconds a training step of each, and what else it tells of itself."""
    ready = {}
    for name, worker in workers.items():
        try:
            worker.prepare(case, precision, EPSILON)
            ready[name] = worker
        except Failed as reason:
            entries[name] = {"left_out": str(reason)}
    rounds_of({name: _asking(worker, "time") for name, worker in ready.items()}, rounds, entries)
    for name, worker in ready.items():
        if "samples" in entries[name]:
            entries[name].update(worker.ask("about"))


def row(case: Case, entries: Entries) -> dict[str, Any]:
    """What was measured of a network."""
    described = {key: value for key, value in asdict(case).items() if key != "name"}
    return {"case": case.name, **described, "libraries": entries, "ratios": ratios(entries)}


def predictions(names: Sequence[str], rounds: int, plan: dict[int, int]) -> list[dict[str, Any]]:
    """Seconds of a prediction of so many rows, each round the mean of so many calls; NumPy in, NumPy out."""
    results = []
    for rows, calls in plan.items():
        say(f"predict: {rows} rows")
        entries: Entries = {name: {} for name in names}
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            workers, true_q = {}, None
            for name in names:
                worker = stack.enter_context(Worker(name))
                try:
                    path = folder / f"{name}.npy"
                    worker.ask("prepare_predict", case=asdict(PREDICT), rows=rows, path=str(path))
                except Failed as reason:
                    entries[name] = {"left_out": str(reason)}
                    continue
                q = np.load(path)
                true_q = q if true_q is None else true_q
                if q.shape == true_q.shape and np.max(np.abs(q - true_q)) <= SAME_OUTPUT:
                    workers[name] = worker
                else:
                    entries[name] = {"left_out": "its predictions differ from the first library's"}
            samplers = {
                name: _asking(worker, "time_predict", calls=calls) for name, worker in workers.items()
            }
            rounds_of(samplers, rounds, entries)
        results.append({"rows": rows, "calls": calls, "libraries": entries, "ratios": ratios(entries)})
    return results


def _asking(worker: Worker, request: str, **details: Any) -> Callable[[], float]:
    return lambda: float(worker.ask(request, **details))


def fits(names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds from the start of a process to its end: import, build, one epoch on the digits; caches are warm."""
    say("a first fit in a fresh process")
    with tempfile.TemporaryDirectory() as cache:
        # what JAX compiled is kept between processes, which it doesn't do by itself
        caching = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        env = {**environment(), **caching}

        def sampler(name: str) -> Callable[[], float]:
            command = [sys.executable, "-m", "benchmarks._worker", name, "fit"]
            return lambda: _run(command, env)[0]

        return _fresh_processes({name: sampler(name) for name in names}, rounds)


def sizes(names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds of the import a user writes, in a fresh process, and bytes installed with all that is required."""
    say("imports and sizes")

    def sampler(name: str) -> Callable[[], float]:
        hidden = "".join(f"sys.modules[{each!r}] = None; " for each in fast_extra() if name == "gpubp-plain")
        clock = f"start = time.perf_counter(); {EVERY[name].imports}; print(time.perf_counter() - start)"
        command = [sys.executable, "-c", f"import sys, time; {hidden}{clock}"]
        return lambda: float(_run(command, environment())[1])

    result = _fresh_processes({name: sampler(name) for name in names}, rounds)
    for name, entry in result["libraries"].items():
        if "samples" in entry:
            entry["bytes"] = _machine.installed_bytes(EVERY[name].installs, name in OURS)
    return result


def _fresh_processes(samplers: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    entries: Entries = {name: {} for name in samplers}
    rounds_of(samplers, 1, entries)  # what is read or compiled for the first time
    rounds_of({name: samplers[name] for name in samplers if "samples" in entries[name]}, rounds, entries)
    return {"libraries": entries, "ratios": ratios(entries)}


def _run(command: list[str], env: dict[str, str]) -> tuple[float, str]:
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"it took more than {LIMIT:g} s") from None
    seconds = time.perf_counter() - start
    if done.returncode:
        raise Failed((done.stderr.splitlines() or [f"it ended with {done.returncode}"])[-1])
    return seconds, done.stdout
