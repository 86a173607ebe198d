"""CuPy gives the same bits whatever the order of blocks and threads, and however late its work is done."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("hypothesis", reason="Hypothesis is not installed: ci/test adds it")

from gpubp._devices import why_no_gpu

COMMAND = "-m benchmarks.fuzz --device cuda --recorded 10 --compiled 0 --workers 1 --seed 6"


def test_random_trainings_have_the_same_bits() -> None:
    if (reason := why_no_gpu()) is not None:
        pytest.skip(reason)
    printed = {digest(order, defer) for order, defer in (("forward", ""), ("shuffle", "3"))}
    assert len(printed) == 1
    assert len(printed.pop()) == 64  # SHA-256


def digest(order: str, defer: str) -> str:
    set_here = {"PYTHONPATH": os.pathsep.join(sys.path), "EMULATOR_ORDER": order, "EMULATOR_DEFER": defer}
    command = [sys.executable, *COMMAND.split()]
    done = subprocess.run(command, env=os.environ | set_here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]
