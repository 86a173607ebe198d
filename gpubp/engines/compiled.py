"""NumPy's verbs with their arithmetic compiled by numba into one pass each (the extra ``fast``).

Products and exp, log and tanh stay NumPy's, which are faster. A formula that can't be traced runs as it does there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numba
import numpy as np

from gpubp._typing import Array, Formula, Sigma
from gpubp.engines.generic import Generic
from gpubp.engines.numpy import Numpy
from gpubp.engines.trace import Untraceable, traced

__all__ = ["Compiled"]

logger = logging.getLogger("gpubp")


class Compiled(Numpy):
    """Where a result may overwrite one of its arguments, one compiled loop does it."""

    def activate(self, sigma: Sigma, p: Array, out: Array | None = None) -> Array:
        loop = _loop(sigma.value, 1, 0, (0,)) if out is not None and out is p and _flat(p) else None
        if loop is None:
            return super().activate(sigma, p, out)
        loop((), p.reshape(-1))
        return p

    def pull_back(self, sigma: Sigma, p: Array | None, q: Array, g: Array, out: Array | None = None) -> Array:
        loop = (
            _loop(_pulled(cast(Hashable, sigma)), 3, 0, (2,)) if out is g and _flat(g) and _flat(q) else None
        )
        if loop is None:
            return super().pull_back(sigma, p, q, g, out)
        loop((), (q if p is None else p).reshape(-1), q.reshape(-1), g.reshape(-1))
        return g

    def update(
        self,
        formula: Formula,
        arrays: Sequence[Array],
        numbers: Sequence[Array | float] = (),
        out: Sequence[Array] | None = None,
    ) -> tuple[Array, ...]:
        if out is None:
            return super().update(formula, arrays, numbers)
        places = {id(array): k for k, array in enumerate(arrays)}
        into = tuple(places.get(id(array), -1) for array in out)
        loop = _loop(formula, len(arrays), len(numbers), into) if -1 not in into else None
        if loop is None:
            return super().update(formula, arrays, numbers, out)
        loop(numbers, *arrays)
        return tuple(out)


def _flat(array: Array) -> bool:
    return bool(array.flags.c_contiguous)


@cache
def _pulled(sigma: Hashable) -> Formula:
    """``g o sigma'(p)``, as the generic engine has it."""

    def formula(xp: Any, p: Any, q: Any, g: Any) -> Any:
        return Generic(xp).pull_back(cast(Sigma, sigma), p, q, g)

    return formula


@cache
def _loop(formula: Formula, arrays: int, numbers: int, into: tuple[int, ...]) -> Callable[..., None] | None:
    """The formula compiled, or None where it can't be."""
    try:
        module = _module(traced(formula, arrays, numbers, into))
    except Untraceable:
        return None
    compiled = numba.njit(error_model="numpy", cache=hasattr(module, "__file__"), nogil=True)(module.loop)
    fixed = {
        dtype: np.array(module.numbers(), dtype=dtype) for dtype in (np.float32, np.float64) if not numbers
    }

    def run(given: Sequence[Any], *flat: Array) -> None:
        kind = flat[0].dtype.type
        compiled(fixed[kind] if fixed else np.array(module.numbers(*given), dtype=kind), *flat)

    return run


def _module(source: str) -> ModuleType:
    """The source as a module: of a file in the user's cache, as numba keeps machine code beside files; where none can
    be written, of memory, and compiled anew by every process."""
    name = f"gpubp_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    try:
        path = _cache_folder() / f"{name}.py"
        if not path.exists() or path.read_text(encoding="utf-8") != source:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{os.getpid()}.part")
            beside.write_text(source, encoding="utf-8")
            beside.replace(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.info("compiled loops aren't kept: %s", error)
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
