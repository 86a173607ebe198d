"""How many threads share a matrix product, or a whole compiled step, on the CPU; afterwards all is as before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gpubp.engines.compiled import Compiled

__all__ = ["limited", "team", "team_size"]

logger = logging.getLogger("gpubp")

# Measured on two cores: below, two threads gain nothing, and lose threefold where the cores are busy.
_SHARED_FROM = 8e6  # floating-point operations a step
# Teams were measured on two cores, and cut a product along one side only: more threads are BLAS's own.
_LARGEST_TEAM = 4
_FAR = 2**62  # more than ever meet


def parts_of(operations: float) -> int:
    """Into how many parts the work of a compiled step of so many floating-point operations is cut."""
    return 1 if operations < _SHARED_FROM else _LARGEST_TEAM


def limited(threads: int | None, operations: float) -> AbstractContextManager[Any]:
    """While it is open, NumPy's and SciPy's products take so many threads; None chooses for steps of so many
    floating-point operations: one where they are small, else as the machine is set."""
    if threads is None and operations >= _SHARED_FROM:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    logger.info("matrix products take %d thread(s)", threads or 1)
    return threadpool_limits(threads or 1, user_api="blas")  # type: ignore[no-any-return]


def team_size(threads: int | None, operations: float) -> int:
    """How many threads share whole compiled steps of so many operations; 1: none do, and ``limited`` says how many
    share a product."""
    if threads == 1 or (threads is None and operations < _SHARED_FROM):
        return 1
    from threadpoolctl import threadpool_info

    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    size = threads or min(pools, default=1)
    return size if pools and size <= _LARGEST_TEAM else 1


@contextmanager
def team(size: int, recorded: Iterable[Compiled]) -> Iterator[None]:
    """While it is open, so many threads share these steps, each with products of its own."""
    from threadpoolctl import ThreadpoolController

    logger.info("compiled steps take %d threads", size)
    blas, meeting = ThreadpoolController(), np.zeros((1 + size, 8), np.int64)

    def run(function: Callable[..., None], parts: int, steps: int, *arguments: Any) -> None:
        others = []
        meeting[:] = 0
        threads = min(size, parts)
        with blas.limit(limits=1, user_api="blas"):
            try:
                for thread in range(1, threads):
                    others.append(pool.submit(function, thread, threads, parts, meeting, steps, *arguments))
                function(0, threads, parts, meeting, steps, *arguments)
            except BaseException:  # as of a second Ctrl-C: nobody is to wait for who won't come
                meeting[0] = _FAR
                raise
            finally:
                wait(others)
            for other in others:
                other.result()

    with ThreadPoolExecutor(size - 1, "gpubp") as pool:
        for each in recorded:
            each.team = run
        yield
