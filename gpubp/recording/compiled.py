"""Recorded training steps compiled by numba, many in one call (the extra ``fast``)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from gpubp._typing import Array
from gpubp.recording import code_cache
from gpubp.recording.numba_writer import Program
from gpubp.recording.recorded import Recorded, Untraceable
from gpubp.recording.text import Text

__all__ = ["Alone", "Compiled", "Team"]

logger = logging.getLogger("gpubp")

_LONGEST = 2**31 - 1  # of a matrix's sides, as SciPy's BLAS is given 32-bit integers
_NOBODY = np.zeros((2, 8), np.int64)


class Team(Protocol):
    """Threads that run compiled steps."""

    def __call__(self, function: Callable[..., None], parts: int, steps: int, *arguments: Any) -> None:
        """Run ``function(thread, threads, parts, meeting, steps, *arguments)`` in each."""

    def at_once(self, steps: int) -> int:
        """How many of so many steps the next call should do."""


class Alone:
    """A team of one."""

    def __call__(self, function: Callable[..., None], parts: int, steps: int, *arguments: Any) -> None:
        """Run it in the caller's thread."""
        function(0, 1, parts, _NOBODY, steps, *arguments)

    def at_once(self, steps: int) -> int:
        """All."""
        return steps


class Compiled(Recorded):
    """As loops and products, many steps in one call of machine code.

    Parameters
    ----------
    parts : into how many the work is cut, for as many threads at most: 1 or more; results depend on it
    team : runs the machine code, by as many threads as it likes
    """

    team: Team = Alone()

    def __init__(self, *recorded: Any, parts: int = 1) -> None:
        self.parts = parts
        super().__init__(*recorded)

    def text(self, *promised: Any) -> Text:
        return Program(*promised, in_parts=self.parts > 1)

    def get_ready(self) -> None:
        """Compile.

        Raises
        ------
        ImportError : numba or SciPy isn't there, refuses this NumPy, or is told not to compile
        Untraceable : numba can't compile it, or arrays are too long for BLAS
        """
        longest = max((max(array.shape) for array in self.arguments if array.ndim > 1), default=0)
        if longest > _LONGEST:
            raise Untraceable(f"BLAS counts to {_LONGEST}, an array has a side of {longest}")
        _compiled(self.source)
        from numba.core.errors import NumbaError

        try:
            self.run(np.empty((0, self.batch_size), np.int64), *[np.empty(0)] * self.numbers)
        except NumbaError as error:
            raise Untraceable(f"numba: {str(error).strip().splitlines()[-1]}") from error

    def _run(self, which: Array, *numbers_and_results: Array) -> None:
        constants, *arrays = self.arguments
        function, steps, done = _compiled(self.source), which.shape[0], 0
        while True:
            now = slice(done, done + self.team.at_once(steps - done))
            which_now, *more = (array[now] for array in (which, *numbers_and_results))
            self.team(function, self.parts, which_now.shape[0], constants, which_now, *more, *arrays)
            done = now.stop
            if done >= steps:
                break


@lru_cache(maxsize=64)
def _compiled(source: str) -> Any:
    import numba

    if numba.config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT is set")
    module = ModuleType(code_cache.name_of(source))
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    sys.modules[module.__name__] = module  # numba asks for it by name
    run = numba.njit(error_model="numpy", nogil=True)(module.run)
    code_cache.keep(run, source)
    logger.info("training steps are compiled: %s", module.__name__)
    return run
