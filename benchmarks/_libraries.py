"""What is measured, by name: where its program stands, what it needs, and why it is left out where it is."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

__all__ = ["FLOOR", "LIBRARIES", "OURS", "ROOT", "Library", "Trainer", "fast_extra", "requirements"]

ROOT = Path(__file__).parent.parent
FLOOR = "floor"
OURS = ("gpubp", "gpubp-plain")


class Trainer(Protocol):
    """A network in training, in one library, its data resident there."""

    def run(self, epochs: int) -> float:
        """From the first weights through so many epochs; the seconds of the last, from drawing its order of rows to
        its last weights and its mean cost."""

    def result(self) -> tuple[Any, float]:
        """The weights as gpubp lays them out, and the mean cost of the last epoch."""


@dataclass(frozen=True)
class Library:
    """One way to train, run in a process of its own.

    ``module`` has ``trainer(variant, case, dtype, epsilon) -> Trainer``, and, where ``complete``, ``predictor(variant,
    case) -> (x -> q)`` and ``fit(x, labels)``. ``imports`` is what a user writes, ``installs`` what a user installs.
    """

    name: str
    label: str
    module: str
    variant: str
    needs: tuple[str, ...] = ()
    imports: str = ""
    installs: tuple[str, ...] = ()
    complete: bool = True

    def absent(self) -> str | None:
        """Why it can't run here, in one sentence; None if it can."""
        missing = [name for name in self.needs if find_spec(name) is None]
        if missing:
            extra = "fast" if self.name == "gpubp" else "bench"
            return f"{' and '.join(missing)} not installed: pip install '.[{extra}]'"
        if self.variant == "compile" and not _cxx():
            return "torch.compile needs a C++ compiler, found none: install g++"
        return None


def _cxx() -> bool:
    names = ("cl",) if os.name == "nt" else ("g++", "clang++", "c++")
    return any(map(shutil.which, filter(None, (os.environ.get("CXX"), *names))))


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def requirements() -> tuple[str, ...]:
    """What gpubp itself depends on."""
    return tuple(_project()["dependencies"])


def fast_extra() -> tuple[str, ...]:
    """The names of what the ``fast`` extra adds, which are its modules' names too."""
    return tuple(re.split(r"[^\w.-]", each)[0] for each in _project()["optional-dependencies"]["fast"])


_SKLEARN = "from sklearn.neural_network import MLPClassifier"
LIBRARIES = {
    library.name: library
    for library in (
        Library(FLOOR, "floor", "benchmarks._floor", "", complete=False),
        Library(
            "gpubp",
            "gpubp",
            "benchmarks._gpubp",
            "fast",
            fast_extra(),
            "from gpubp import Network, train",
            (*requirements(), *fast_extra()),
        ),
        Library(
            "gpubp-plain",
            "gpubp (plain)",
            "benchmarks._gpubp",
            "plain",
            (),
            "from gpubp import Network, train",
            requirements(),
        ),
        Library("jax-step", "JAX, jitted step", "benchmarks._jax", "step", ("jax",), "import jax", ("jax",)),
        Library("jax-scan", "JAX, scanned epoch", "benchmarks._jax", "scan", ("jax",), complete=False),
        Library(
            "torch", "PyTorch, eager", "benchmarks._torch", "eager", ("torch",), "import torch", ("torch",)
        ),
        Library(
            "torch-compile", "PyTorch, compiled", "benchmarks._torch", "compile", ("torch",), complete=False
        ),
        Library(
            "sklearn", "scikit-learn", "benchmarks._sklearn", "", ("sklearn",), _SKLEARN, ("scikit-learn",)
        ),
    )
}
