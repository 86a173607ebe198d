"""How many threads share a matrix product, or a whole compiled step, on the CPU; afterwards all is as before."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Choice", "Team", "limited", "parts_of", "products_take"]

logger = logging.getLogger("gpubp")

# Floating-point operations a step. Measured on two cores: below, two threads gain nothing, and lose threefold where the
# cores are busy.
_SHARED_FROM = 8e6
_MORE_FROM = 8e9  # from here on, to cut products in four costs little
_FAR = 2**62  # more than ever meet

_TRIAL = 0.01  # seconds of a trial at least
_FIRST = 0.001  # seconds before the first
_MEMORY = 0.3  # seconds after which a time counts for a third
_SPENT = 0.005  # the part of all time that trials may cost, once pauses are long enough
_PAUSES = 0.1, 1.0, 30.0  # seconds between trials: the least, the most at first, the most after many
_PAYS = 0.95  # of the time of fewer threads
_WORSE = 1.5  # times as slow: something else runs, so fewer threads are tried at once


def parts_of(operations: float) -> int:
    """Into how many parts the work of a compiled step of so many floating-point operations is cut."""
    if operations < _SHARED_FROM:
        return 1
    return 2 if operations < _MORE_FROM else 4


def products_take(threads: int | None, operations: float) -> int:
    """How many threads BLAS shares a product of NumPy's among, where ``train`` is given ``threads``; 0: nobody knows.
    The bits of a run depend on it where it isn't 1."""
    return threads or (1 if operations < _SHARED_FROM else _BLAS.threads())


def limited(threads: int | None, operations: float) -> AbstractContextManager[None]:
    """While it is open, NumPy's and SciPy's products take so many threads; None chooses for steps of so many
    floating-point operations: one where they are small, else as the machine is set."""
    if threads is None and operations >= _SHARED_FROM:
        return nullcontext()
    logger.info("matrix products take %d thread(s)", threads or 1)
    return _BLAS.limit(threads or 1)


class _Limit(NamedTuple):
    threads: int
    owner: int  # the Python thread that set it
    compiled: bool  # only what compiled steps call


class _Blas:
    """The only one to set how many threads BLAS takes: the least of all limits open, and as before after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._modules = 0
        self._libraries: list[Any] = []
        self._nothing: Any = None  # a controller of no library
        self._for_numpy: set[str] = set()
        self._open: list[_Limit] = []
        # by library, and by thread where each has a number of its own
        self._before: dict[tuple[str, int], int] = {}

    def threads(self) -> int:
        """How many a product may take, whatever other trainings have set; 0: nobody knows."""
        with self._lock:
            own = [limit.threads for limit in self._open if limit.owner == threading.get_ident()]
            pools = [self._before.get(_key(library), library.num_threads) for library in self._loaded()]
        return min([*pools, *own]) if pools else 0

    @contextmanager
    def limit(self, threads: int, compiled: bool = False) -> Iterator[None]:
        """While it is open, products take no more; ``compiled``: those of compiled steps, where NumPy has a BLAS of its
        own."""
        limit = _Limit(threads, threading.get_ident(), compiled)
        try:
            with self._lock:
                self._open.append(limit)
                self._apply()
            yield
        finally:
            with self._lock:
                if limit in self._open:
                    self._open.remove(limit)
                self._apply()

    def one_here(self) -> None:
        """One for this thread as long as it lives, where each thread has its own number."""
        with self._lock:
            for library in self._loaded():
                if _of_each_thread(library):
                    library.set_num_threads(1)

    def _loaded(self) -> list[Any]:
        from threadpoolctl import ThreadpoolController

        modules = len(sys.modules)
        if modules != self._modules:  # to look for libraries takes half a millisecond
            controller = ThreadpoolController()
            found = controller.select(user_api="blas").lib_controllers
            self._libraries = [library for library in found if library.num_threads]
            self._for_numpy = {library.filepath for library in found if _in_numpys_wheel(library.filepath)}
            self._nothing = controller.select(user_api="none")
            self._modules = modules
        return self._libraries

    def _apply(self) -> None:
        changes = []
        for library in self._loaded():
            key, before = _key(library), library.num_threads
            wanted = [
                limit.threads
                for limit in self._open
                if key[1] in (0, limit.owner) and not (limit.compiled and library.filepath in self._for_numpy)
            ]
            if wanted:
                self._before.setdefault(key, before)
                number = min(wanted)
            else:
                number = self._before.pop(key, before)
            if number != before:
                changes.append((library, number))
        if changes:
            # threadpoolctl lets a thread that set OpenBLAS's number keep the others from it: a limit of nothing gives
            # that right back
            with self._nothing.limit(limits=1, user_api="blas"):
                for library, number in changes:
                    library.set_num_threads(number)

    def hold(self) -> None:
        """Before a fork, so that the child finds nothing half done."""
        self._lock.acquire()

    def let_go(self) -> None:
        """After it."""
        self._lock.release()

    def forked(self) -> None:
        """In a child process: the other threads are gone, and with them their limits."""
        try:
            here = threading.get_ident()
            self._open = [limit for limit in self._open if limit.owner == here]
            if self._before:
                self._apply()
        finally:
            self._lock.release()


def _of_each_thread(library: Any) -> bool:
    kind: str = library.internal_api
    return kind == "mkl" or (kind == "openblas" and library.threading_layer == "openmp")


def _key(library: Any) -> tuple[str, int]:
    return library.filepath, threading.get_ident() if _of_each_thread(library) else 0


def _in_numpys_wheel(path: str) -> bool:
    """Whether nothing but NumPy calls it."""
    package = os.path.dirname(os.path.realpath(np.__file__))
    return os.path.dirname(path) in (f"{package}.libs", os.path.join(package, ".dylibs"))


_BLAS = _Blas()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_BLAS.hold, after_in_parent=_BLAS.let_go, after_in_child=_BLAS.forked)


class Choice:
    """How many threads pay, by the times of calls: one number is home, and from time to time a neighbour is tried.

    A trial that costs more than home would have is followed by a pause so long that trials cost a small part of all
    time; where home turns slow, fewer threads are tried at once.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = tuple(numbers)  # ascending
        self._home, self._away = 0, -1  # indices; -1: at home
        self._up = True  # the neighbour to try next
        self._wait, self._pause = _FIRST, _PAUSES[1]
        self._cold = True
        self._usual = math.inf  # seconds a step at home, when last decided
        self._recent = [(0.0, 0.0)] * len(numbers)  # steps and seconds, faded
        self._visit = self._trial = (0.0, 0.0)  # of home since it is home, of the trial
        self._short = (
            1  # steps of a trial's next call: beside busy processes one may take a hundred times as long
        )

    @property
    def threads(self) -> int:
        """For the next call."""
        return self._numbers[self._home if self._away < 0 else self._away]

    def at_once(self, steps: int) -> int:
        """How many of so many steps the next call should do."""
        return steps if self._away <= self._home else min(steps, self._short)

    def told(self, threads: int, steps: int, seconds: float) -> None:
        """So many steps by so many threads took so long."""
        if threads != self.threads or steps == 0 or len(self._numbers) == 1:
            return
        if self._cold:  # memory was touched for the first time
            self._cold = False
            return
        where = self._home if self._away < 0 else self._away
        self._recent[where] = _added(self._recent[where], steps, seconds, math.exp(-seconds / _MEMORY))
        if self._away >= 0:
            self._trial = _added(self._trial, steps, seconds)
            self._short *= 4
            if self._trial[1] >= _TRIAL:
                self._decide()
            return
        self._visit = _added(self._visit, steps, seconds)
        self._wait -= seconds
        slow = self._pace(self._home) > _WORSE * self._usual
        if slow and self._home > 0:
            self._try(self._home - 1)
        elif self._wait <= 0:
            up = self._home + 1 < len(self._numbers) and (self._up or self._home == 0)
            self._try(self._home + (1 if up else -1))

    def _pace(self, where: int) -> float:
        steps, seconds = self._recent[where]
        return seconds / steps

    def _try(self, where: int) -> None:
        self._away, self._short = where, 1
        self._recent[where] = self._trial = (0.0, 0.0)

    def _decide(self) -> None:
        tried, self._away = self._away, -1
        up = tried > self._home
        home, other = self._pace(self._home), self._pace(tried)
        least, at_first, most = _PAUSES
        if other < (_PAYS * home if up else home):
            # what so many threads cost if they had only seemed to pay
            cost = 0.0 if up else self._visit[1] - _WORSE * other * self._visit[0]
            self._home, self._visit, self._pause = tried, self._trial, at_first
            on = tried + (1 if up else -1)
            if 0 <= on < len(self._numbers):
                self._usual = other
                self._try(on)
                return
        else:
            cost = self._trial[1] - home * self._trial[0]
        self._wait = min(max(cost / _SPENT, least), self._pause)
        self._usual, self._up, self._pause = self._pace(self._home), not up, min(2 * self._pause, most)


def _added(sums: tuple[float, float], steps: int, seconds: float, kept: float = 1.0) -> tuple[float, float]:
    return sums[0] * kept + steps, sums[1] * kept + seconds


class _Worker(NamedTuple):
    thread: threading.Thread
    jobs: SimpleQueue[Any]


class Team:
    """Threads that share the parts of compiled steps, as many as pay; while it is open, calls run on them.

    ``team(function, parts, steps, *arguments)`` runs ``function(thread, threads, parts, meeting, steps, *arguments)``
    in every thread: in 1 up to ``parts``, as the times of earlier calls have it. Whatever a thread raises is raised
    when all have come back. Where no thread can be started, and in a forked child, the caller's does all parts.

    Parameters
    ----------
    threads : how many at most; None: as many as BLAS takes
    operations : of a step, by which it is cut

    Attributes
    ----------
    most : how many took part in a call at most
    """

    def __init__(self, threads: int | None, operations: float) -> None:
        parts = parts_of(operations)
        self.most, most = 1, min(threads or _BLAS.threads() or 1, parts)
        # only numbers with fewer parts for the busiest thread
        self._choice = Choice(
            [n for n in range(1, most + 1) if n == 1 or -(-parts // n) < -(-parts // (n - 1))]
        )
        self._process = os.getpid()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        workers, self._workers = self._workers, []
        if os.getpid() == self._process:
            for worker in workers:
                worker.jobs.put(None)
            for worker in workers:
                worker.thread.join()

    def __call__(self, function: Callable[..., None], parts: int, steps: int, *arguments: Any) -> None:
        with _BLAS.limit(1, compiled=True):
            start = time.perf_counter()
            threads = self._shared(min(self._choice.threads, parts), function, parts, (steps, *arguments))
            self._choice.told(threads, steps, time.perf_counter() - start)
        self.most = max(self.most, threads)

    def at_once(self, steps: int) -> int:
        """How many of so many steps the next call should do: few where it is a trial."""
        return self._choice.at_once(steps)

    def _shared(
        self, threads: int, function: Callable[..., None], parts: int, arguments: tuple[Any, ...]
    ) -> int:
        """Do the work, by no more than so many threads: by how many."""
        workers = self._get_workers(threads - 1)
        threads = len(workers) + 1
        meeting, sent = _meeting(threads), 0
        came: SimpleQueue[BaseException | None] = SimpleQueue()
        failures: list[BaseException | None] = []
        try:
            for thread, worker in enumerate(workers, 1):
                worker.jobs.put((function, thread, threads, parts, meeting, arguments, came))
                sent += 1
            function(0, threads, parts, meeting, *arguments)
        except BaseException:
            meeting[0] = _FAR
            raise
        finally:
            failures = [came.get() for _ in range(sent)]
        for failure in failures:
            if failure is not None:
                raise failure
        return threads

    def _get_workers(self, number: int) -> list[_Worker]:
        if os.getpid() != self._process:
            return []
        while len(self._workers) < number:
            jobs: SimpleQueue[Any] = SimpleQueue()
            thread = threading.Thread(target=_work, args=(jobs,), name="gpubp", daemon=True)
            try:
                thread.start()
            except RuntimeError as reason:  # the interpreter or the system gives no more
                logger.info("compiled steps take 1 thread: %s", reason)
                self._choice = Choice([1])
                return []
            self._workers.append(_Worker(thread, jobs))
            logger.info("compiled steps take up to %d threads", len(self._workers) + 1)
        return self._workers[:number]


def _meeting(threads: int) -> Any:
    return np.zeros((1 + threads, 8), np.int64)


def _work(jobs: SimpleQueue[Any]) -> None:
    """A worker's life."""
    _BLAS.one_here()
    while (job := jobs.get()) is not None:
        function, thread, threads, parts, meeting, arguments, came = job
        failure: BaseException | None = None
        try:
            function(thread, threads, parts, meeting, *arguments)
        except BaseException as error:
            meeting[0] = _FAR  # nobody is to wait for who won't come
            failure = error
        came.put(failure)
        del job, function, meeting, arguments, came, failure  # arrays aren't kept until the next call
