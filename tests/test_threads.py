"""The threads of matrix products: as many as asked for, and put back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import threadpoolctl

import gpubp
from gpubp.training import descent
from gpubp.training import threads as _threads
from gpubp.training.threads import Choice, Team, limited, parts_of, products_take


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
def before() -> Iterator[set[int]]:
    """Two threads for every product, set as a user may: without keeping other Python threads from setting more."""
    pytest.importorskip("scipy.linalg")
    controller = threadpoolctl.ThreadpoolController()
    numbers = [library.num_threads for library in controller.lib_controllers]

    def put(numbers: list[int]) -> None:
        with controller.select(user_api="none").limit(limits=1):
            for library, number in zip(controller.lib_controllers, numbers, strict=True):
                library.set_num_threads(number)

    put([2] * len(numbers))
    yield blas_threads()
    put(numbers)


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


def test_a_short_run_takes_one_where_steps_are_small(before: set[int]) -> None:
    seen = Seen()
    train(seen)
    assert seen.threads == {1}
    assert blas_threads() == before


def test_small_recorded_steps_take_one(before: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "_WORTH_RECORDING", 0.0)
    seen = Seen()
    train(seen)
    assert seen.threads == {1}
    with limited(None, 1e9):
        assert blas_threads() == before


def test_a_team_leaves_nothing_behind(before: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
    monkeypatch.setattr(_threads, "_SHARED_FROM", 0.0)
    monkeypatch.setattr(Choice, "threads", property(lambda choice: choice._numbers[-1]))
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
            gpubp.Network((3, 1)),
            X,
            X[:, 0],
            device="cpu",
            progress=False,
            callbacks=[Each()],
            threads=2,
            compile=True,
        )
    # NumPy's products, of a validation, take one thread
    assert seen == [({1}, running + 1)] * 2
    assert (blas_threads(), threading.active_count()) == (before, running)


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_two_trainings_at_once_put_them_back(before: set[int], first_to_end: int) -> None:
    started, end = ([threading.Event(), threading.Event()] for _ in range(2))

    def one(k: int) -> None:
        class Wait:
            def on_epoch_end(self, state: Any) -> None:
                started[k].set()
                assert blas_threads() == {1}
                assert end[k].wait(30)

        X = np.zeros((40, 3))
        gpubp.train(
            gpubp.Network((3, 1)),
            X,
            X[:, 0],
            epochs=1,
            device="cpu",
            progress=False,
            threads=1,
            callbacks=[Wait()],
        )

    trainings = [threading.Thread(target=one, args=(k,)) for k in (0, 1)]
    for training, running in zip(trainings, started, strict=True):
        training.start()
        assert running.wait(30)
    for k in (first_to_end, 1 - first_to_end):
        assert blas_threads() == {1}
        end[k].set()
        trainings[k].join()
    assert blas_threads() == before


def test_the_least_of_nested_limits(before: set[int]) -> None:
    with limited(1, 1e9):
        with limited(2, 1e9):
            assert blas_threads() == {1}
        assert blas_threads() == {1}
        assert products_take(None, 1e9) == 1
    assert blas_threads() == before
    with pytest.raises(RuntimeError, match="enough"), limited(1, 1e9):
        raise RuntimeError("enough")
    assert blas_threads() == before


class Library:
    """Of OpenBLAS as threadpoolctl shows it; ``of_each_thread``: as MKL is."""

    def __init__(self, path: str, number: int, of_each_thread: bool = False) -> None:
        self.filepath, self.internal_api = path, "mkl" if of_each_thread else "openblas"
        self.threading_layer, self._number = "pthreads", number
        self._own = threading.local() if of_each_thread else SimpleNamespace()

    @property
    def num_threads(self) -> int:
        return int(getattr(self._own, "number", self._number))

    def set_num_threads(self, number: int) -> None:
        self._own.number = number


@contextmanager
def libraries(*found: Library) -> Iterator[_threads._Blas]:
    """While it is open, these are all that is loaded."""
    blas = _threads._Blas()
    with limited(1, 1.0):  # so that a real controller is there
        blas._nothing = _threads._BLAS._nothing
    blas._loaded = lambda: list(found)  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_threads, "_BLAS", blas)
        yield blas


def test_each_threads_own_number_is_set_there() -> None:
    mkl = Library("mkl", 2, of_each_thread=True)
    seen: list[int] = []

    def other() -> None:
        seen.append(mkl.num_threads)
        with limited(1, 1e9):
            seen.append(mkl.num_threads)
        seen.append(mkl.num_threads)

    def share(thread: int, *_: Any) -> None:
        if thread == 1:
            seen.append(mkl.num_threads)

    with libraries(mkl):
        with limited(1, 1e9):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert mkl.num_threads == 1
        assert mkl.num_threads == 2
        assert seen == [2, 1, 2]
        with most_threads(2) as team:
            team(share, 4, 1)
    assert seen[3:] == [1]


def test_compiled_calls_leave_numpys_own_library_alone() -> None:
    numpys, scipys = Library("numpy", 2), Library("scipy", 2)
    seen: list[tuple[int, int]] = []
    with libraries(numpys, scipys) as blas, Team(2, 1e9) as team:
        blas._for_numpy = {"numpy"}
        team(lambda *_: seen.append((numpys.num_threads, scipys.num_threads)), 4, 1)
        assert (seen, scipys.num_threads) == ([(2, 1)], 2)


def test_what_bits_depend_on() -> None:
    asked: list[tuple[int | None, float]] = [(None, 1e9), (None, 1e4), (1, 1e9), (3, 1e4), (64, 1e9)]
    for cores in (2, 64):
        with libraries(Library("a", cores), Library("b", 128)):
            assert [products_take(*of) for of in asked] == [cores, 1, 1, 3, 64]
    with libraries():
        assert products_take(None, 1e9) == 0
    assert [parts_of(operations) for operations in (7.9e6, 8e6, 7.9e9, 8e9)] == [1, 2, 2, 4]


def test_a_team_takes_what_pays_of_the_machine() -> None:
    def numbers(cores: int, threads: int | None, operations: float) -> tuple[int, ...]:
        with libraries(*[Library("a", cores)] * (cores > 0)):
            return Team(threads, operations)._choice._numbers

    assert [numbers(cores, None, 1e9) for cores in (0, 1, 2, 64)] == [(1,), (1,), (1, 2), (1, 2)]
    assert [numbers(cores, None, 1e10) for cores in (2, 3, 4, 64)] == [(1, 2), (1, 2), (1, 2, 4), (1, 2, 4)]
    assert [numbers(2, threads, 1e10) for threads in (1, 3, 4, 5)] == [(1,), (1, 2), (1, 2, 4), (1, 2, 4)]
    assert numbers(4, 4, 1e4) == (1,)


@contextmanager
def most_threads(number: int) -> Iterator[Team]:
    """A team that does not measure."""
    with Team(number, 1e9) as team:
        team._choice = cast("Any", SimpleNamespace(threads=number, told=lambda *_: None))
        yield team


def meet(meeting: Any, threads: int) -> None:
    """As compiled steps do, once."""
    with counting:
        meeting[0, 0] += 1
    while meeting[0, 0] < threads:
        time.sleep(0.001)


counting = threading.Lock()


def test_every_part_is_done_by_one_thread() -> None:
    done: list[tuple[int, int]] = []
    running = threading.active_count()

    def share(thread: int, threads: int, parts: int, meeting: Any, steps: int, more: str) -> None:
        assert (meeting.shape, steps, more) == ((1 + threads, 8), 7, "more")
        meet(meeting, threads)
        done.extend(
            (part, thread) for part in range(thread * parts // threads, (thread + 1) * parts // threads)
        )

    for number in (1, 2, 3, 4):
        with most_threads(number) as team:
            for _ in range(20):
                team(share, 4, 7, "more")
            assert threading.active_count() == running + number - 1
            assert sorted(part for part, _ in done) == sorted([0, 1, 2, 3] * 20)
            assert {thread for _, thread in done} == set(range(number))
            done.clear()
    assert threading.active_count() == running


@pytest.mark.parametrize("failing", [0, 2])
def test_nobody_waits_for_a_part_that_failed(before: set[int], failing: int) -> None:
    class Enough(BaseException):
        pass

    def share(thread: int, threads: int, parts: int, meeting: Any, steps: int) -> None:
        if thread == failing and steps == 1:
            raise Enough
        meet(meeting, threads)

    with most_threads(4) as team:
        for _ in range(3):
            with pytest.raises(Enough):
                team(share, 4, 1)
            assert blas_threads() == before
            team(share, 4, 2)


def test_a_team_without_threads_computes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def no(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with most_threads(2) as team:
        monkeypatch.setattr(threading.Thread, "start", no)
        for _ in range(2):
            team(lambda thread, threads, *_: seen.append(threads), 4, 1)
    assert seen == [1, 1]


def python(code: str) -> str:
    """What another Python prints; it must end."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


TEAM_OF_TWO = """
import os, threading, time
from types import SimpleNamespace
from gpubp.training import threads as _threads
team = _threads.Team(2, 1e9)
team._choice = SimpleNamespace(threads=2, told=lambda *_: None)
def share(thread, threads, parts, meeting, steps):
    if thread == 0:
        print(threads, flush=True)
"""


def test_a_team_outlives_the_main_thread() -> None:
    code = (
        TEAM_OF_TWO
        + """
def later():
    with team:
        threading.main_thread().join()
        time.sleep(0.2)  # the interpreter has begun to shut down
        team(share, 4, 1)
threading.Thread(target=later).start()
"""
    )
    assert python(code) in ("1", "2")  # 3.12 starts no thread any more by then: the caller's works alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_of_a_team_computes_alone() -> None:
    code = (
        TEAM_OF_TWO
        + """
with team:
    team(share, 4, 1)
    stop = threading.Event()
    def limiting():  # the lock is often held while the process forks
        while not stop.is_set():
            with _threads.limited(1, 1.0):
                pass
    limits = threading.Thread(target=limiting)
    limits.start()
    for _ in range(20):
        if (child := os.fork()) == 0:
            team(share, 4, 1)
            team.__exit__()
            with _threads.limited(1, 1.0), _threads.Team(2, 1e9) as own:
                own._choice = team._choice
                own(share, 4, 1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    limits.join()
    team(share, 4, 1)
"""
    )
    assert python(code).split() == ["2", *["1", "2"] * 20, "2"]


def seconds_of(
    pace: Callable[[int, float], float], steps: int, numbers: tuple[int, ...] = (1, 2), jitter: float = 0.0
) -> tuple[float, list[tuple[int, float]]]:
    """What so many steps take, by as many threads as are chosen, where one takes ``pace(threads, now)``; and every
    call's threads and seconds. Calls grow to 20 ms, as training's do."""
    choice, draw = Choice(numbers), random.Random(0)
    now, portion, calls = 0.0, 1, list[tuple[int, float]]()
    while steps > 0:
        left, start = min(portion, steps), now
        steps -= left
        while left:
            threads, some = choice.threads, choice.at_once(left)
            took = some * pace(threads, now) * (1 + jitter * draw.random())
            took += 5e-5 * (threads > 1) + 5e-3 * (not calls)
            choice.told(threads, some, took)
            now, left = now + took, left - some
            calls.append((threads, took))
        portion = max(1, portion // 2) if now - start > 0.02 else 2 * portion
    return now, calls


def idle(threads: int, now: float) -> float:
    return 2.5e-4 * {1: 1.4, 2: 1.0, 4: 0.8}[threads]


def busy(threads: int, now: float) -> float:
    return 8e-4 * {1: 1.0, 2: 20.0, 4: 40.0}[threads]


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_measuring_costs_little_on_an_idle_machine(jitter: float) -> None:
    for seconds, most in [(2, 1.02), (10, 1.01), (60, 1.01)]:
        steps = int(seconds / 2.5e-4)
        assert seconds_of(idle, steps, jitter=jitter)[0] < most * (1 + jitter / 2) * steps * 2.5e-4
    assert seconds_of(idle, 50_000, (1, 2, 4))[1][-1][0] == 4


@pytest.mark.parametrize("numbers", [(1, 2), (1, 2, 4)])
def test_on_a_busy_machine_one_thread_is_soon_left(numbers: tuple[int, ...]) -> None:
    for seconds, most in [(0.5, 1.3), (2, 1.15), (10, 1.05), (60, 1.03)]:
        steps = int(seconds / 8e-4)
        assert seconds_of(busy, steps, numbers)[0] < most * steps * 8e-4


def test_threads_come_and_go_with_the_load() -> None:
    def pace(threads: int, now: float) -> float:
        return busy(threads, now) if 5 < now < 15 else idle(threads, now)

    def used(first: float, last: float) -> float:
        """The share of time by one thread."""
        now, one = 0.0, 0.0
        for threads, took in calls:
            now += took
            one += took if threads == 1 and first < now < last else 0.0
        return one / (last - first)

    calls = seconds_of(pace, 150_000)[1]
    assert used(1, 5) < 0.05
    assert used(7, 15) > 0.9
    assert used(30, 40) < 0.05


def test_threads_that_bring_nothing_are_given_back() -> None:
    total, calls = seconds_of(lambda threads, now: 3e-4, 20_000, jitter=0.02)
    assert sum(took for threads, took in calls if threads == 1) > 0.7 * total


@pytest.mark.parametrize(("seconds_of_two", "chosen"), [(0.05, 1), (0.001, 2)])
def test_a_team_measures_its_calls(
    seconds_of_two: float, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_threads, clock = {1: 0, 2: 0}, [0.0]
    monkeypatch.setattr(_threads, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def share(thread: int, threads: int, parts: int, meeting: Any, steps: int) -> None:
        if thread == 0:
            clock[0] += steps * (0.002 if threads == 1 else seconds_of_two)
            by_threads[threads] += steps

    with Team(2, 1e9) as team:
        for _ in range(30):
            team(share, 2, team.at_once(8))
    assert by_threads[chosen] > 3 * by_threads[3 - chosen]


def test_times_that_tell_nothing_change_nothing() -> None:
    choice = Choice([1, 2])
    for told in [(1, 0, 5.0), (2, 10, 5.0), (1, 1, 0.0), (1, 1, 0.0)]:
        choice.told(*told)
    assert choice.threads == 1


def test_refusals() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        train(Seen(), threads=0)
