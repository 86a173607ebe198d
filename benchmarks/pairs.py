"""Two versions of gpubp on the networks of ``benchmarks.cpu``, in turn: the ratio of their times, with its interval.

``python -m benchmarks.pairs OLD``, where OLD is the root of another checkout. Each has a process of its own for each
network, warm and waiting; a pair is one training in each, first the one and next time the other. Above 1, the version
that runs this is slower.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 5  # of a training; the first isn't counted


class Version:
    """A process in which a checkout trains one network."""

    def __init__(self, root: Path, case: str, variant: str) -> None:
        steering = ("OPENBLAS_", "OMP_", "MKL_", "BLIS_", "VECLIB_", "GPUBP_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(root), case, variant],
            env=env | {"PYTHONPATH": str(root)},
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.train()  # compiled, and every array touched

    def train(self) -> float:
        """Milliseconds a step: the median of the epochs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("train\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def serve(root: str, name: str, variant: str) -> None:
    """Train whenever a line comes in, and print milliseconds a step."""
    sys.path[0] = root
    if variant == "plain":
        sys.modules["numba"] = None  # type: ignore[assignment]  # as if it weren't there
    import gpubp
    from benchmarks import _gpubp
    from benchmarks._cases import ALL, EPSILON

    if not str(gpubp.__file__).startswith(root):
        raise RuntimeError(f"gpubp must be of {root}, got {gpubp.__file__}")
    case = ALL[name]
    training: Any = _gpubp.trainer(variant, case, "float32", EPSILON)
    for _ in sys.stdin:
        training.run(EPOCHS)
        seconds = training.trained.history["seconds"][1:]
        print(1e3 * statistics.median(seconds) / case.steps, flush=True)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Where the median lies with 95 % or a little more, by order statistics: of nine, the second and the eighth."""
    n, ordered = len(ratios), sorted(ratios)
    outside, k = 0.0, 0
    while outside + math.comb(n, k) / 2**n <= 0.025:
        outside += math.comb(n, k) / 2**n
        k += 1
    k = max(k - 1, 0)
    return ordered[k], ordered[n - 1 - k]


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 where an interval lies above the bound as a whole."""
    from benchmarks._cases import GRID

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pairs", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("old", type=lambda path: Path(path).resolve(), help="the other checkout")
    parser.add_argument("--variant", default="fast", choices=["fast", "plain", "step by step"])
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in GRID], help="(default: all)"
    )
    parser.add_argument("--pairs", type=int, default=9, metavar="N", help="of each network (default: 9)")
    parser.add_argument("--bound", type=float, default=1.03, help="(default: 1.03)")
    args = parser.parse_args(argv)
    failed = []
    for name in args.case or [case.name for case in GRID]:
        old, new = (Version(root, name, args.variant) for root in (args.old, ROOT))
        times = []
        try:
            for turn in range(args.pairs):
                if turn % 2:
                    times.append((old.train(), new.train()))
                else:
                    times.append((new.train(), old.train())[::-1])
        finally:
            old.end()
            new.end()
        ratios = [b / a for a, b in times]
        low, high = interval(ratios)
        before, after = (statistics.median(each) for each in zip(*times, strict=True))
        said = f"{before:.4g} ms, now {after:.4g} ms, ratio {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]"
        print(f"{name:<22} {said}", flush=True)
        failed += [name] * (low > args.bound)
    print(f"slower: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        sys.exit(main())
