"""What a claim is, how it is judged, and the second way to get a derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

GATE = 1e-12

# What an identity is shown by: pairs of our number or array and what another way gives for it.
Pairs = Iterable[tuple[Any, Any]]
# What anything else is shown by: whether it holds, and what was seen.
Seen = tuple[bool, str]


@dataclass(frozen=True)
class Claim:
    """One claim of the article; ``measure()`` gives pairs for an identity, (holds, what was seen) for the rest."""

    number: int
    section: str
    says: str
    ours: str
    kind: str
    measure: Callable[[], Any]

    def judge(self) -> Seen:
        """Whether it holds, and what was measured; an identity's worst error may be 1e-12."""
        try:
            found = self.measure()
            if self.kind != "identity":
                holds, seen = found
                return bool(holds), seen
            errors = [error(ours, other) for ours, other in found]
        except Exception as reason:  # whatever breaks a claim, the others are still judged
            return False, f"{type(reason).__name__}: {reason}"
        worst = max(errors, default=np.inf)
        return bool(worst <= GATE), f"{worst:.1e}"


def error(ours: Any, other: Any) -> float:
    """The largest difference over the largest number of the other way, or of both where that one is 0."""
    a, b = np.asarray(ours), np.asarray(other)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape}")
    found = float(np.max(np.abs(a - b)) / (np.max(np.abs(b)) or 1.0))
    return found if np.isfinite(found) else np.inf


def require(condition: Any, what: str) -> None:
    """Fail the claim unless the condition holds."""
    if not condition:
        raise AssertionError(what)


@dataclass(frozen=True)
class Section:
    """The claims of one section; each method is a decorator of what measures one."""

    name: str
    claims: list[Claim] = field(default_factory=list)

    def identity(self, number: int, says: str, ours: str) -> Callable[[Callable[[], Pairs]], Any]:
        """Two ways to one number."""
        return self._add(number, says, ours, "identity")

    def shape(self, number: int, says: str, ours: str) -> Callable[[Callable[[], Seen]], Any]:
        """About shapes and symbols, exact."""
        return self._add(number, says, ours, "shape")

    def behaviour(self, number: int, says: str, ours: str) -> Callable[[Callable[[], Seen]], Any]:
        """An inequality."""
        return self._add(number, says, ours, "behaviour")

    def refusal(self, number: int, says: str, ours: str) -> Callable[[Callable[[], Seen]], Any]:
        """What must not be possible."""
        return self._add(number, says, ours, "refusal")

    def _add(self, number: int, says: str, ours: str, kind: str) -> Callable[[Callable[[], Any]], Any]:
        def add(measure: Callable[[], Any]) -> Callable[[], Any]:
            self.claims.append(Claim(number, self.name, says, ours, kind, measure))
            return measure

        return add


def slopes(C: Callable[..., Any], at: Any, *fixed: Any) -> Any:
    """The derivative of C(at, *fixed) by each element of ``at``: Im C(at + ih) / h, right to the last digits (Squire &
    Trapp 1998)."""
    at, h = np.asarray(at, dtype=float), 1e-30
    found = np.empty(at.shape)
    for k in np.ndindex(at.shape):
        z = at.astype(complex)
        z[k] += 1j * h
        found[k] = np.imag(np.asarray(C(z, *fixed))).item() / h
    return found


# The activations of sections II and IV, by name and by hand: value and derivative, also of complex numbers.
SIGMA = ("tanh", "sigmoid", "softplus", "tanh")
VALUES: tuple[Callable[[Any], Any], ...] = (
    np.tanh,
    lambda p: 1 / (1 + np.exp(-p)),
    lambda p: np.log(1 + np.exp(p)),
    np.tanh,
)
SLOPES: tuple[Callable[[Any], Any], ...] = (
    lambda p: 1 / np.cosh(p) ** 2,
    lambda p: np.exp(-p) / (1 + np.exp(-p)) ** 2,
    lambda p: 1 / (1 + np.exp(-p)),
    lambda p: 1 / np.cosh(p) ** 2,
)
