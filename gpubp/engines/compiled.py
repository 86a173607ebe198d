"""Training steps compiled by numba, many in one call (the extra ``fast``).

The step is run once on promises, by the generic engine, and written down as loops: the formulas stay the only spelling.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpubp._typing import Array
from gpubp.engines import lazy
from gpubp.engines.generic import Generic
from gpubp.engines.lazy import Batch, Graph, Promise, Untraceable
from gpubp.engines.program import Program

__all__ = ["Recorded", "Step", "Team", "Untraceable", "alone"]

logger = logging.getLogger("gpubp")

# step(engine, fixed, states, which, *numbers) -> (new states, results)
Step = Callable[..., tuple[Sequence[Promise], Sequence[Promise]]]
# team(function, *arguments) runs function(part, parts, meeting, *arguments) for every part at once
Team = Callable[..., None]

_NOBODY = np.zeros((1, 8), np.int64)


class Recorded:
    """Steps over minibatches of B rows, as one compiled function.

    Parameters
    ----------
    step : ``step(engine, fixed, states, which, *numbers)`` gives the new states, in order, and results: numbers or
        vectors; ``fixed`` and ``states`` are arrays by name, ``which`` (B,) the rows of the minibatch
    fixed, states : NumPy arrays; the states are overwritten
    numbers : how many numbers each step is given

    Raises
    ------
    Untraceable : the step does something that can't be written down
    """

    def __init__(
        self, step: Step, fixed: Mapping[str, Array], states: Mapping[str, Array], B: int, numbers: int
    ) -> None:
        dtype = next(iter(states.values())).dtype
        graph = Graph(dtype)
        promised = {
            name: graph.input(name, array.shape, array.dtype) for name, array in {**fixed, **states}.items()
        }
        given = [graph.input("which", (Batch(B),), np.int64)]
        given += [graph.input(f"number{k}", ()) for k in range(numbers)]
        try:
            new, results = step(
                Generic(lazy.xp),
                {name: promised[name] for name in fixed},
                {name: promised[name] for name in states},
                *given,
            )
            program = Program(
                graph, [(promised[name], end) for name, end in zip(states, new, strict=True)], results, given
            )
        except Untraceable:
            raise
        except Exception as error:  # a user's formula may fail in any way on what isn't an array
            raise Untraceable(f"{type(error).__name__}: {error}") from error
        self.batch_size, self.numbers = B, numbers
        self.dtype, self.shapes, self.source = dtype, [result.shape for result in results], program.source
        self.constants = program.constants
        self._arrays = partial(program.arrays, {**fixed, **states})
        self.share(alone, 1)

    @property
    def kept(self) -> bool:
        """Whether this was compiled on this machine before, for whatever sizes."""
        return (_cache_folder() / f"{_title(self.source)}.py").exists()

    def compile(self) -> None:
        """Get ready to run.

        Raises
        ------
        ImportError : numba or SciPy isn't there, or refuses this NumPy
        Untraceable : numba can't compile it
        """
        _compiled(self.source)
        from numba.core.errors import NumbaError

        try:
            self.run(np.empty((0, self.batch_size), np.int64), *[np.empty(0)] * self.numbers)
        except NumbaError as error:
            raise Untraceable(f"numba: {str(error).strip().splitlines()[-1]}") from error

    def share(self, team: Team, parts: int) -> None:
        """From now on each step is done by the parts of a team together."""
        self.team, self.arrays = team, self._arrays(parts)

    def run(self, which: Array, *numbers: Array) -> list[Array]:
        """Steps one after another, on the rows ``which`` (steps, B), with their numbers, (steps,) each: the results,
        with one more axis in front."""
        steps = which.shape[0]
        results = [np.empty((steps, *shape), self.dtype) for shape in self.shapes]
        arguments = (steps, self.constants, which, *numbers, *results, *self.arrays)
        self.team(_compiled(self.source), *arguments)
        return results


def alone(function: Callable[..., None], *arguments: Any) -> None:
    """A team of one."""
    function(0, 1, _NOBODY, *arguments)


@lru_cache(maxsize=64)
def _compiled(source: str) -> Any:
    import numba
    import scipy.linalg  # noqa: F401 -- numba's products are SciPy's

    module = _module(source)
    logger.info("training steps are compiled: %s", module.__name__)
    return numba.njit(error_model="numpy", cache=hasattr(module, "__file__"), nogil=True)(module.run)


@cache
def _beneath() -> str:
    """The text of what is compiled with every step."""
    names = ("elementary.py", "team.py")
    return "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)


def _title(source: str) -> str:
    return f"gpubp_{hashlib.sha256((source + _beneath()).encode()).hexdigest()[:16]}"


def _module(source: str) -> ModuleType:
    """The source as a module: of a file in the user's cache, as numba keeps machine code beside files; where none can
    be written, of memory, and compiled anew by every process."""
    name = _title(source)
    try:
        path = _cache_folder() / f"{name}.py"
        if not path.exists() or path.read_text(encoding="utf-8") != source:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{os.getpid()}.part")
            beside.write_text(source, encoding="utf-8")
            beside.replace(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.info("compiled steps aren't kept: %s", error)
        module = ModuleType(name)
        exec(compile(source, name, "exec"), module.__dict__)
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba asks for it by name
    spec.loader.exec_module(module)
    return module


def _cache_folder() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gpubp"
