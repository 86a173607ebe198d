"""The threads of matrix products: as many as asked for, and put back."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import gpubp
from gpubp import _descent
from gpubp._threads import limited, team, team_size


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


def test_small_recorded_steps_take_one(before: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_descent, "_WORTH_RECORDING", 0.0)
    seen = Seen()
    train(seen)
    assert seen.threads == {1}
    with limited(None, 1e9):
        assert blas_threads() == before


def test_a_team_leaves_nothing_behind(before: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    running = threading.active_count()
    seen: list[tuple[set[int], int]] = []

    class Each:
        def on_epoch_end(self, state: Any) -> None:
            seen.append((blas_threads(), threading.active_count()))
            if state.epoch == 2:
                raise RuntimeError("enough")

    X = np.zeros((40, 3))
    with pytest.raises(RuntimeError, match="enough"):
        gpubp.train(
            gpubp.Network((3, 1)), X, X[:, 0], device="cpu", progress=False, callbacks=[Each()], threads=2
        )
    # between the epochs products of a validation are BLAS's to share
    assert seen == [(before, running + 1)] * 2
    assert (blas_threads(), threading.active_count()) == (before, running)


def test_nobody_waits_for_who_wont_come(before: set[int]) -> None:
    class Steps:
        def share(self, team: Any, parts: int) -> None:
            self.team, self.parts = team, parts

    def interrupted(part: int, parts: int, meeting: Any) -> None:
        if part == 0:
            raise KeyboardInterrupt
        while meeting[0, 0] < parts:
            time.sleep(0.001)

    steps: Any = Steps()
    with team(2, [steps]):
        with pytest.raises(KeyboardInterrupt):
            steps.team(interrupted)
        assert blas_threads() == before
    assert steps.parts == 2


def test_who_makes_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(cores: int) -> list[int]:
        pools = [{"user_api": "blas", "num_threads": cores}, {"user_api": "openmp", "num_threads": 1}]
        monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: pools)
        return [team_size(*of) for of in ((None, 1e9), (None, 1e4), (1, 1e9), (3, 1e4), (64, 1e9))]

    assert sizes(2) == [2, 1, 1, 3, 1]
    assert sizes(1) == [1, 1, 1, 3, 1]
    assert sizes(64) == [1, 1, 1, 3, 1]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", list)
    assert team_size(2, 1e9) == 1


def test_refusals() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        train(Seen(), threads=0)
