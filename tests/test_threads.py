"""The threads of matrix products: as many as asked for, and put back."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp._threads import limited

threadpoolctl = pytest.importorskip(
    "threadpoolctl", reason="threadpoolctl is not installed: pip install 'gpubp[fast]'"
)

pytest.importorskip(
    "scipy.linalg", reason="SciPy is not installed: pip install 'gpubp[fast]'"
)  # its own pool


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


class Seen:
    def __init__(self, stop: bool = False) -> None:
        self.threads: set[int] = set()
        self.stop = stop

    def on_batch_end(self, state: Any) -> None:
        self.threads |= blas_threads()
        if self.stop:
            raise RuntimeError("enough")


@pytest.fixture
def before() -> Any:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        yield blas_threads()


def train(seen: Seen, **more: Any) -> None:
    X = np.zeros((40, 3))
    gpubp.train(
        gpubp.Network((3, 1)), X, X[:, 0], epochs=1, device="cpu", progress=False, callbacks=[seen], **more
    )


def test_as_many_as_asked_for_and_put_back(before: set[int]) -> None:
    seen = Seen()
    train(seen, threads=1)
    assert seen.threads == {1}
    assert blas_threads() == before
    with pytest.raises(RuntimeError, match="enough"):
        train(Seen(stop=True), threads=1)
    assert blas_threads() == before


def test_a_short_run_leaves_them_alone(before: set[int]) -> None:
    seen = Seen()
    train(seen)
    assert seen.threads == before


def test_small_compiled_steps_take_one(before: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    seen = Seen()
    train(seen)
    assert seen.threads == {1}
    with limited(None, 1e9):
        assert blas_threads() == before


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        train(Seen(), threads=0)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(RuntimeError, match=r"threads needs threadpoolctl, .* pip install 'gpubp\[fast\]'"):
        train(Seen(), threads=2)
    with limited(None, 1.0):
        pass
