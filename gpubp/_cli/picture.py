"""What ``gpubp plot`` draws: one picture of a saved network and, for most kinds, of what it makes of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp import plots
from gpubp._checkpoint import Saved
from gpubp._cli.tables import as_text, some
from gpubp._network import Network
from gpubp.activations import Activation
from gpubp.plots.style import sheet

__all__ = ["targets", "write"]


class _Subject(NamedTuple):
    """What is drawn: ``x`` (n, n_0) as the network takes it, ``y`` as its cost does."""

    saved: Saved
    x: Any
    y: Any

    @property
    def q(self) -> Any:
        """The predictions, (n, n_L)."""
        return self.saved.net.predict(self.saved.w, self.x)

    @property
    def all(self) -> tuple[Any, Any, Any, Any]:
        """What most pictures take."""
        return self.saved.net, self.saved.w, self.x, self.y


_KINDS: dict[str, Callable[[_Subject, Any], object]] = {
    "architecture": lambda s, ax: plots.architecture(*s.all[:2], ax=ax),
    "activations": lambda s, ax: plots.activation(*_curves(s.saved.net), ax=ax),
    "histograms": lambda s, ax: plots.activation_histograms(*s.all[:3], ax=ax),
    "norms": lambda s, ax: plots.norms(*s.all, ax=ax),
    "boundary": lambda s, ax: plots.decision_boundary(*s.all, labels=s.saved.labels, ax=ax),
    "confusion": lambda s, ax: plots.confusion_matrix(s.q, s.y, labels=s.saved.labels, ax=ax),
    "predicted": lambda s, ax: plots.predicted_against_true(s.q, s.y, ax=ax),
    "line": lambda s, ax: plots.cost_along_gradient(*s.all, ax=ax),
    "plane": lambda s, ax: plots.cost_plane(*s.all, ax=ax),
}
_SIZES = {"activations": (9.6, 4.0), "confusion": (5.4, 5.0), "predicted": (5.0, 4.8), "plane": (5.6, 4.8)}


def _curves(net: Network) -> list[Activation]:
    """Its activations, once each; softmax has no curve, as it takes a whole layer."""
    each = {sigma.name: sigma for sigma in net.sigma if sigma.name != "softmax"}
    return list(each.values()) or [net.sigma[-1]]


def write(path: Path, kind: str, saved: Saved, x: Any = None, y: Any = None) -> None:
    """Draw ``kind`` into an image file, whose suffix says which kind of file it is.

    Raises
    ------
    ValueError : a suffix that matplotlib doesn't write, or what the picture refuses
    ModuleNotFoundError : matplotlib isn't there
    """
    axes = sheet(2 if kind == "activations" else 1, _SIZES.get(kind, (6.4, 4.4)))
    _KINDS[kind](_Subject(saved, x, y), axes)
    figure = axes[0].figure if kind == "activations" else axes.figure
    figure.savefig(path, dpi=150)


def targets(saved: Saved, y: NDArray[Any], where: str) -> NDArray[Any]:
    """A column of targets (n,) as the network's cost takes it: classes by the model's labels, else numbers.

    Raises
    ------
    ValueError : a class that the model doesn't know, or text where it takes numbers
    """
    net, w, _, labels = saved
    if labels is None:
        if y.dtype.kind == "U":
            raise ValueError(
                f"{where} must hold numbers, as the model's targets, got text: name another --target"
            )
        found = y
    else:
        numbers = {str(label): k for k, label in enumerate(labels)}
        names = as_text(y)
        unknown = sorted(set(names) - set(numbers))
        if unknown:
            raise ValueError(
                f"{where} must hold the model's classes {some(list(numbers))}, got {unknown[0]!r}: "
                "name another --target, or leave those rows out"
            )
        found = np.array([numbers[name] for name in names])
    whole = net.cost_function.labels and net.sizes[-1] > 1
    return found.astype(np.int64 if whole else w.dtype)
