"""The same bits from a cold, a warm and a damaged cache, by one thread and two, on an idle machine and a busy one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.busy import busy

pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
pytest.importorskip("scipy", reason="SciPy is not installed: pip install 'gpubp[fast]'")
pytestmark = pytest.mark.slow

# argv: threads of train. The first two networks' steps are shared by threads, in the second by BLAS's where compile is
# not True; the third is too small to share.
SCRIPT = """
import hashlib, sys
import numpy as np
import gpubp

threads = int(sys.argv[1]) or None
rng = np.random.default_rng(0)
for sizes, cost, batch_size, ways in [
    ((784, 100, 10), "cross_entropy", 200, [True]),
    ((300, 60, 2), "squared_error", 150, [True]),
    ((20, 30, 2), "squared_error", 64, [True, "recorded", False]),
]:
    X = rng.standard_normal((3000, sizes[0]), dtype=np.float32)
    Y = rng.integers(0, 10, 3000) if cost == "cross_entropy" else X[:, :2] ** 2
    net = gpubp.Network(sizes, cost=cost, hidden="tanh")
    for way in ways:
        run = gpubp.train(net, X, Y, epochs=4, batch_size=batch_size, device="cpu", progress=False,
                          threads=threads, compile=way, validation=0.1)
        told = [run.history[name] for name in ("cost", "metric", "validation_cost", "validation_metric")]
        seal = hashlib.sha256(run.w.tobytes() + repr(told).encode()).hexdigest()
        print(sizes, run.computed.partition(",")[0], seal)
"""


def answers(cache: Path, threads: int) -> list[str]:
    """What the script prints, a line for each run."""
    env = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "LOCALAPPDATA": str(cache),
        "OPENBLAS_NUM_THREADS": "2",
    }
    command = [sys.executable, "-c", SCRIPT, str(threads)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=True)
    return done.stdout.splitlines()


def test_bits_depend_on_arguments_alone(tmp_path: Path) -> None:
    first = answers(tmp_path, 0)
    ways = ["compiled", "compiled", "compiled", "recorded", "step by step"]
    assert [line.partition(") ")[2].rpartition(" ")[0] for line in first] == ways
    for threads in (1, 2):
        assert answers(tmp_path, threads) == first, f"warm, {threads} threads"
    for kept in tmp_path.rglob("*.code"):
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
    assert answers(tmp_path, 2) == first, "damaged"
    with busy(2 * (os.cpu_count() or 1)):
        for threads in (0, 1, 2):
            assert answers(tmp_path, threads) == first, f"busy, {threads} threads"
