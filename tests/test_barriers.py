"""Where threads wait: the rule of reads and writes, beside what comes out in every order that threads may run in."""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Sequence

import pytest

from gpubp.recording.barriers import Access, Phase, Region, Share, waits

Memory = tuple[Hashable, ...]
Order = tuple[int, ...]

# m and n are (2, 2); top and low are the rows of m as vectors, whose elements are the parts' own
REGIONS: dict[str, Region] = {"m": ("m", 0, 4), "top": ("m", 0, 2), "low": ("m", 2, 4), "n": ("n", 0, 4)}
OWN = {Share.ROWS: ((0, 1), (2, 3)), Share.COLUMNS: ((0, 2), (1, 3)), Share.ALL: ((0, 1, 2, 3),) * 2}
READS = [Access("m", share) for share in Share] + [
    *(Access(name, share) for name in ("top", "low") for share in (Share.ROWS, Share.ALL)),
    Access("n", Share.ALL),
]
WRITES = [access for access in READS if access.share is not Share.ALL] + [Access("n", Share.ROWS)]
PHASES = [
    Phase([], set(reads), set(writes))
    for reads in ((), *((access,) for access in READS))
    for writes in ((), *((access,) for access in WRITES))
]


def cells(access: Access, part: int) -> tuple[int, ...]:
    """The cells of the memory, m and then n, that a part touches."""
    start = {"m": 0, "top": 0, "low": 2, "n": 4}[access.name]
    if access.name in ("top", "low"):
        return (start, start + 1) if access.share is Share.ALL else (start + part,)
    return tuple(start + cell for cell in OWN[access.share][part])


def outcome(phases: Sequence[Phase], order: Order) -> tuple[Memory, Memory]:
    """What is in memory, and what both parts have seen, where they read and write, phase by phase, in that order."""
    memory: list[Hashable] = list(range(8))
    seen: list[list[Hashable]] = [[], []]
    done = [0, 0]
    for part in order:
        at, writing = divmod(done[part], 2)
        done[part] += 1
        if not writing:
            seen[part] += [memory[cell] for access in phases[at].reads for cell in cells(access, part)]
            continue
        for access in phases[at].writes:
            for cell in cells(access, part):
                memory[cell] = (at, part, cell, tuple(seen[part]))
    return tuple(memory), (tuple(seen[0]), tuple(seen[1]))


def orders(steps: int, fixed: Sequence[int] = ()) -> list[Order]:
    """Every order of so many steps of two parts, where at those steps each waits for the other."""
    bounds = [0, *fixed, steps]
    pieces = []
    for begin, end in itertools.pairwise(bounds):
        length = end - begin
        chosen = itertools.combinations(range(2 * length), length)
        pieces.append([tuple(int(k not in of_first) for k in range(2 * length)) for of_first in chosen])
    return [tuple(itertools.chain.from_iterable(each)) for each in itertools.product(*pieces)]


def outcomes(phases: Sequence[Phase], barriers: Sequence[bool]) -> int:
    """How many outcomes there are, with those barriers before the phases."""
    fixed = [2 * at for at, barrier in enumerate(barriers) if barrier and at > 0]
    return len({outcome(phases, order) for order in orders(2 * len(phases), fixed)})


ALONE = [phase for phase in PHASES if outcomes([phase], [False]) == 1]  # others are no work to share


def test_threads_wait_where_it_matters() -> None:
    waiting = 0
    assert len(ALONE) > 30
    for phases in itertools.product(ALONE, repeat=2):
        barriers = list(waits(phases, REGIONS.__getitem__))
        matters = outcomes(phases, [False, False]) > 1
        named = {access.name for phase in phases for access in phase.reads | phase.writes}
        if not matters and "m" in named and named & {"top", "low"}:
            continue  # two names of one memory may count as touched by all
        assert barriers[1] == matters, phases
        assert outcomes(phases, [False, True]) == 1
        waiting += barriers[1]
    assert 0.1 < waiting / len(ALONE) ** 2 < 0.9


@pytest.mark.parametrize("seed", range(8))
def test_what_was_done_since_the_last_barrier_counts(seed: int) -> None:
    """Also where the phases just before and after have nothing in common."""
    drawn = random.Random(seed)
    for _ in range(12):
        phases = drawn.choices(ALONE, k=3)
        barriers = list(waits(phases, REGIONS.__getitem__))
        assert outcomes(phases, barriers) == 1, (phases, barriers)
