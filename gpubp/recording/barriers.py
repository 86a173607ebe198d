"""Where threads must wait for each other: what follows from what every phase of a step reads and writes.

Each phase is done part by part, by as many threads. Between two barriers threads run freely, so no part may touch there
what another part writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

__all__ = ["Access", "Phase", "Region", "Share", "waits"]

# the array that a name stands for a piece of, and from where to where
Region = tuple[str, float, float]


class Share(Enum):
    """What one part touches of an array."""

    ROWS = auto()  # its own rows, or elements of a vector
    COLUMNS = auto()  # its own columns
    ALL = auto()  # any of it


class Access(NamedTuple):
    """An array by name, and what one part touches of it."""

    name: str
    share: Share


@dataclass(frozen=True)
class Phase:
    """Lines that are done part by part, and what they read and write of arrays that other parts may touch.

    ``around`` is a barrier before and after them that only some sizes need.
    """

    lines: list[str] = field(default_factory=list)
    reads: Set[Access] = frozenset()
    writes: Set[Access] = frozenset()
    around: str | None = None


def waits(phases: Iterable[Phase], region: Callable[[str], Region]) -> Iterator[bool]:
    """For each phase, whether a barrier must stand before it."""
    done = Phase()  # since the last barrier
    for phase in phases:
        wait = _must_wait(done, phase, region)
        done = phase if wait else Phase([], done.reads | phase.reads, done.writes | phase.writes)
        yield wait


def _must_wait(before: Phase, after: Phase, region: Callable[[str], Region]) -> bool:
    """Whether a part may touch, afterwards, what another wrote before, or write what it read."""
    pairs = [(before.writes, after.reads | after.writes), (before.reads, after.writes)]
    return any(_collide(a, b, region) for first, then in pairs for a in first for b in then)


def _collide(a: Access, b: Access, region: Callable[[str], Region]) -> bool:
    if a.name == b.name:
        return a.share != b.share or a.share is Share.ALL
    (a_root, *a_span), (b_root, *b_span) = map(region, (a.name, b.name))
    return a_root == b_root and a_span[0] < b_span[1] and b_span[0] < a_span[1]
