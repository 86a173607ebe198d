"""Recorded training steps compiled by numba, many in one call (the extra ``fast``)."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpubp._typing import Array
from gpubp.engines.program import Program
from gpubp.engines.recorded import Recorded, Untraceable
from gpubp.engines.text import Text

__all__ = ["Compiled", "Team", "alone"]

logger = logging.getLogger("gpubp")

# team(function, parts, steps, *arguments) runs function(thread, threads, parts, meeting, steps, *arguments) by threads
Team = Callable[..., None]

_NOBODY = np.zeros((1, 8), np.int64)


def alone(function: Callable[..., None], parts: int, steps: int, *arguments: Any) -> None:
    """A team of one."""
    function(0, 1, parts, _NOBODY, steps, *arguments)


class Compiled(Recorded):
    """As loops and products, many steps in one call of machine code.

    Parameters
    ----------
    parts : into how many the work is cut, for as many threads at most: 1 or more; results depend on it
    team : runs the machine code, by as many threads as it likes
    """

    team: Team = staticmethod(alone)

    def __init__(self, *recorded: Any, parts: int = 1) -> None:
        self.parts = parts
        super().__init__(*recorded)

    def text(self, *promised: Any) -> Text:
        return Program(*promised, in_parts=self.parts > 1)

    @property
    def kept(self) -> bool:
        """Whether this was compiled on this machine before, for whatever sizes."""
        return (_cache_folder() / f"{_title(self.source)}.py").exists()

    def get_ready(self) -> None:
        """Compile.

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

    def _run(self, which: Array, *numbers_and_results: Array) -> None:
        constants, *arrays = self.arguments
        steps = which.shape[0]
        function = _compiled(self.source)
        self.team(function, self.parts, steps, constants, which, *numbers_and_results, *arrays)


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
