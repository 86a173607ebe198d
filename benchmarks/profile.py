"""Where a training step's time goes, verb by verb of the engine, beside the compiled step's.

``python -m benchmarks.profile "512x512, 128"``. A verb's time is its own: what it calls of other verbs is theirs. What
is left of the step is Python between the verbs, and what the loop computes without them (the cost, the targets).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks import _gpubp
from benchmarks._cases import ALL, EPSILON, Case
from benchmarks._libraries import ROOT
from benchmarks._report import table
from benchmarks._worker import environment, steering
from gpubp.engines import Generic, engine_for

__all__ = ["main", "report", "timed"]


class Clock:
    """Calls and seconds, by what was called."""

    def __init__(self, shapes: bool) -> None:
        self.shapes = shapes
        self.calls: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = [0.0]

    def around(self, verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            found = method(*args, **options)
            spent = time.perf_counter() - start
            own = spent - self._inner.pop()
            self._inner[-1] += spent
            key = f"{verb} {_shape(found)}" if self.shapes else verb
            self.calls[key] += 1
            self.seconds[key] += own
            return found

        return timed


def _shape(found: Any) -> str:
    first = found[0] if isinstance(found, tuple) and found else found
    return "x".join(map(str, getattr(first, "shape", ())))


@contextmanager
def timed(engine: Generic, shapes: bool = False) -> Iterator[Clock]:
    """While it is open, every verb of the engine is timed."""
    clock = Clock(shapes)
    verbs = [
        name
        for name in dir(type(engine))
        if not name.startswith("_") and name != "quiet" and callable(getattr(type(engine), name))
    ]
    for verb in verbs:
        setattr(engine, verb, clock.around(verb, getattr(engine, verb)))
    try:
        yield clock
    finally:
        for verb in verbs:
            delattr(engine, verb)


def main(argv: list[str] | None = None) -> int:
    """Print a case's table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("case", choices=ALL, metavar="CASE", help=", ".join(map(repr, ALL)))
    parser.add_argument("--shapes", action="store_true", help="a line for each shape that a verb gives")
    args = parser.parse_args(argv)
    if steering():  # in a process without them, as benchmarks.cpu has it
        command = [sys.executable, "-m", "benchmarks.profile", *(sys.argv[1:] if argv is None else argv)]
        return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode
    print(report(ALL[args.case], args.shapes))
    return 0


def report(case: Case, shapes: bool) -> str:
    """Train without and with timers; what they saw, as a table."""
    compiled = _gpubp.trainer("fast", case, "float32", EPSILON).run(2) / case.steps
    training = _gpubp.trainer("step by step", case, "float32", EPSILON)
    untimed = training.run(2) / case.steps
    with timed(engine_for(np.zeros(0)), shapes) as clock:
        step = training.run(1) / case.steps
    head = (
        f"{case.name}: {1e6 * compiled:.1f} us a compiled step, {1e6 * untimed:.1f} us step by step, "
        f"{1e6 * step:.1f} us with the timers\n"
    )
    rows = []
    for verb, seconds in sorted(clock.seconds.items(), key=lambda pair: -pair[1]):
        rows.append(_row(verb, f"{clock.calls[verb] / case.steps:.3g}", seconds / case.steps, step))
    rows.append(_row("between the verbs", "", step - sum(clock.seconds.values()) / case.steps, step))
    return "\n".join([head, table(["verb", "calls a step", "us a step", "share"], rows)])


def _row(name: str, calls: str, seconds: float, step: float) -> list[str]:
    return [name, calls, f"{1e6 * seconds:.1f}", f"{100 * seconds / step:.1f} %"]


if __name__ == "__main__":
    raise SystemExit(main())
