"""What training takes beside twice as many busy processes as there are cores, by default over ``threads=1``.

``python -m benchmarks.busy``. The two take turns; a row gives the median of their ratios, and of the seconds by one
thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import gpubp
from benchmarks._report import table

__all__ = ["main"]


class Row(NamedTuple):
    """A training, and what is asked of it."""

    sizes: tuple[int, ...]
    batch_size: int
    epochs: int
    way: str  # GPUBP_COMPILE
    threads: int | None


ROWS = {
    "64-128-10, batches of 256, compiled": Row((64, 128, 10), 256, 30, "always", None),
    "20-64-3, batches of 256, compiled, threads=2": Row((20, 64, 3), 256, 100, "always", 2),
    "64-128-10, batches of 256, recorded": Row((64, 128, 10), 256, 6, "recorded", None),
    "64-128-10, batches of 256, step by step": Row((64, 128, 10), 256, 6, "never", None),
}
EXAMPLES = 20_000


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """While it is open, so many processes compute without end."""
    running = []
    try:
        for _ in range(processes):
            running.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        time.sleep(0.5)
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def seconds(row: Row, threads: int | None) -> float:
    """Of one training."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((EXAMPLES, row.sizes[0]), dtype=np.float32)
    y = rng.integers(0, row.sizes[-1], EXAMPLES)
    net = gpubp.Network(row.sizes, cost="cross_entropy")
    options: Any = {"batch_size": row.batch_size, "epochs": row.epochs, "threads": threads}
    start = time.perf_counter()
    gpubp.train(net, X, y, device="cpu", progress=False, **options)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.busy", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--times", type=int, default=7, metavar="N", help="trainings of each kind (default: 7)"
    )
    parser.add_argument("--idle", action="store_true", help="without the busy processes")
    args = parser.parse_args(argv)
    lines = []
    for name, row in ROWS.items():
        os.environ["GPUBP_COMPILE"] = row.way
        for threads in (row.threads, 1):
            seconds(row._replace(epochs=2), threads)  # compiled, and loaded
        with busy(0 if args.idle else 2 * (os.cpu_count() or 1)):
            pairs = [(seconds(row, row.threads), seconds(row, 1)) for _ in range(args.times)]
        one = statistics.median(pair[1] for pair in pairs)
        lines.append([name, f"{one:.2f}", f"{statistics.median(many / one for many, one in pairs):.2f}"])
    print(table(["training", "seconds by one thread", "ratio"], lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
