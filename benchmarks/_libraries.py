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

__all__ = [
    "EVERY",
    "FLOOR",
    "GPU_LIBRARIES",
    "LIBRARIES",
    "OURS",
    "PRECISIONS",
    "ROOT",
    "Library",
    "Trainer",
    "fast_extra",
    "requirements",
]

ROOT = Path(__file__).parent.parent
FLOOR = "floor"
OURS = ("gpubp", "gpubp-plain", "gpubp-gpu")
PRECISIONS = ("float32", "tf32", "bfloat16")  # of products; weights and sums are float32 in all


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

    ``module`` has ``trainer(variant, case, precision, epsilon, device) -> Trainer``, and, where ``complete``,
    ``predictor(variant, case) -> (x -> q)`` and ``fit(x, labels)``. ``imports`` is what a user writes, ``installs``
    what a user installs, ``precisions`` what products can be computed in beside float64.
    """

    name: str
    label: str
    module: str
    variant: str
    needs: tuple[str, ...] = ()
    imports: str = ""
    installs: tuple[str, ...] = ()
    complete: bool = True
    precisions: tuple[str, ...] = PRECISIONS

    def absent(self) -> str | None:
        """Why it can't run here, in one sentence; None if it can."""
        missing = [name for name in self.needs if find_spec(name) is None]
        if missing:
            extra = "fast" if self.name == "gpubp" else "bench"
            return f"{' and '.join(missing)} not installed: pip install '.[{extra}]'"
        if self.variant in ("compile", "autotune") and not _cxx():
            return "torch.compile needs a C++ compiler, found none: install g++"
        return None

    def lacks(self, precision: str, device: str) -> str | None:
        """Why it can't compute in this precision there, in one sentence; None if it can."""
        if precision not in self.precisions:
            return f"it computes in {' and '.join(self.precisions)} alone"
        if precision == "tf32" and device == "cpu":
            return "the CPU has no tf32"
        if self.name == FLOOR and precision == "bfloat16" and find_spec("ml_dtypes") is None:
            return "ml_dtypes is not installed: pip install ml_dtypes"
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
EVERY = {
    library.name: library
    for library in (
        Library(FLOOR, "floor", "benchmarks._floor", "", complete=False),
        # those that gpubp.train can be told
        Library("gpubp-gpu", "gpubp (GPU)", "benchmarks._gpubp", "step by step", precisions=("float32",)),
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
        Library("torch-autotune", "PyTorch, max-autotune", "benchmarks._torch", "autotune", ("torch",)),
        Library("torch-graph", "PyTorch, CUDA graph", "benchmarks._torch", "graph", ("torch",)),
        Library(
            "sklearn", "scikit-learn", "benchmarks._sklearn", "", ("sklearn",), _SKLEARN, ("scikit-learn",)
        ),
    )
}
_GPU_ALONE = ("gpubp-gpu", "torch-autotune", "torch-graph")
_CPU_ALONE = ("gpubp", "gpubp-plain", "torch-compile", "sklearn")
LIBRARIES = {name: library for name, library in EVERY.items() if name not in _GPU_ALONE}
GPU_LIBRARIES = {name: library for name, library in EVERY.items() if name not in _CPU_ALONE}
