"""What was promised, as the text of a Python function: the plan's loops and products, on arrays made beforehand.

In the text ``d7`` and ``t7`` are number 7 in double precision and in the arrays' own, ``e0`` and ``c0`` constants in
both, ``a7`` is an array, ``x7`` an element read from one, ``v7`` a value just computed and ``w7`` one on the way to it.

Where the work is cut into parts, so that threads can share it (``gpubp.recording.team``), ``my_a7`` is one part's share
of an array, and ``of_each_a7`` what every part has one of. Each phase of a step is done part by part. A barrier stands
between two phases where one part reads or writes what another one wrote or reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpubp._typing import Array
from gpubp.recording.barriers import Access, Phase, Share, waits
from gpubp.recording.memory import given_name
from gpubp.recording.names import Names
from gpubp.recording.narrow_loops import NarrowWriter, is_narrow
from gpubp.recording.schedule import (
    Nest,
    Product,
    Scalar,
    Step,
)
from gpubp.recording.text import Text, said
from gpubp.recording.wide_loops import WideWriter
from gpubp.tracing.operations import FUNCTIONS, Kind, Op, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["Program"]

_NARROW = 16  # columns
_APART = 16  # what several threads write shouldn't share a cache line
_INSTRUCTIONS = {Op.ABS, Op.FLOOR, Op.SQRT}  # of the processor
_SERIES = {Op.EXP, Op.EXPM1, Op.LOG, Op.LOG1P, Op.TANH}  # of gpubp.recording.elementary
_MEET = "meet(meeting, thread, threads)"


class Program(Text):
    """``source`` defines ``run(thread, threads, parts, meeting, steps, constants, *given, *results, *arrays)``.

    Parameters
    ----------
    promised : as of ``Text``
    in_parts : the work is cut into parts, else all of it is one
    """

    def __init__(self, *promised: Any, in_parts: bool = False) -> None:
        super().__init__(*promised)
        self._in_parts = in_parts
        self._names = Names(self.storage, in_parts)
        self._once: list[str] = []  # where there is one part, its arrays are found once for all steps
        self._totals = 0
        self._leave_to_numpy()
        self._body = self._with_barriers([phase for step in self.plan.steps for phase in self._phases(step)])
        self._wanted = self.known(self._names.used)
        self.source = self._text()

    def arguments(self, given: Mapping[str, Array], parts: int = 1) -> list[Array]:
        """The function's constants, and its last arguments for so many parts: inputs by name, and new buffers.

        Sizes and parameters are constants, (n,), float64, so that one text serves for all of them.
        """
        constants = np.array([float(value) for value in self._names.constants])
        each = [
            np.empty((parts, length + _APART, *rest), dtype=dtype)
            for (length, *rest), dtype in self._names.of_each.values()
        ]
        return [constants, *self.storage.arrays(given, self._wanted), *each]

    def _leave_to_numpy(self) -> None:
        """Refuse what NumPy does on many numbers at once and a compiled loop would do one by one."""
        functions = set(FUNCTIONS.values()) - _INSTRUCTIONS
        for node in self.plan.order:
            if node.op in functions - _SERIES and node.ndim == 2 and node.shape[1] > _NARROW:
                raise Untraceable(f"{node.op} of many numbers, which NumPy does sooner")
            if node.op in functions and node.ndim == 0:
                raise Untraceable(f"{node.op} of a number")

    def _with_barriers(self, phases: Sequence[Phase]) -> list[str]:
        """The lines of all phases, and barriers between them where threads must wait for each other."""
        body: list[str] = []
        barriers: list[str] = []  # before the next phase
        for phase, wait in zip(phases, waits(phases, self.storage.region), strict=True):
            if self._in_parts and wait:
                barriers = [_MEET]
            elif phase.around is not None and _MEET not in barriers:
                barriers.append(phase.around)
            body += [*barriers, *phase.lines]
            barriers = [] if phase.around is None else [phase.around]
        return body

    def _text(self) -> str:
        """The text: the loops and products of a step, phase by phase."""
        starts, ends = [], []
        for node in self.given:
            name = given_name(node)
            starts += [f"{name} = {name}s[step]"] if node.shape else _assigned(node, f"{name}s[step]")
        for k, node in enumerate(self.results):
            if node.shape:
                starts.append(f"r{k} = r{k}s[step]")
            else:
                ends.append(f"r{k}s[step] = {self._names.number(node, 'd')}")
        if self._in_parts:  # all write the same results
            ends.append(_MEET)
        arrays = [*self.every_step, *self._wanted, *self._names.of_each]
        lines = [
            "from math import *",
            f"from numpy import {self.dtype} as T",
            "from gpubp.recording import elementary",
            "from gpubp.recording.team import combine, is_wide, meet, mine, product, product_of_rows",
            f"exp, expm1, log, log1p, tanh = elementary.{str(self.dtype).upper()}",
            f"def run(thread, threads, parts, meeting, steps, constants, {', '.join(arrays)}):",
            *(f"    e{k} = constants[{k}]; c{k} = T(e{k})" for k in self._names.constants.values()),
            *(f"    {line}" for line in dict.fromkeys(self._once)),
            "    begin, end = thread * parts // threads, (thread + 1) * parts // threads",
            "    for step in range(steps):",
            *(f"        {line}" for line in (*starts, *self._body, *ends)),
        ]
        return "\n".join(lines) + "\n"

    def _phases(self, step: Step) -> Iterator[Phase]:
        """What a step of the plan does, one after another."""
        if isinstance(step, Nest):
            yield from self._nest(step)
        elif isinstance(step, Product):
            yield self._product(step)
        elif isinstance(step, Scalar):
            text = said(step.node.op, *(self._names.number(arg, "d") for arg in step.node.args))
            yield Phase(_assigned(step.node, text))
        else:
            new, old = map(self._names.array, self.storage.copy(step))
            lines = self._part_by_part([f"{self._names.mine(new)}[:] = {self._names.mine(old)}"])
            yield Phase(lines, {Access(old, Share.ROWS)}, {Access(new, Share.ROWS)})

    def _product(self, step: Product) -> Phase:
        (a, b), (a_turned, b_turned) = map(self._names.place, step.node.args), step.node.more
        out = self._names.place(step.node)
        if not self._in_parts:
            return Phase([f"product({a}, {a_turned}, {b}, {b_turned}, {out}, 0, 1)"])
        if _by_rows(step):  # each part reads no other rows, but where the longer side is cut
            lines = self._part_by_part([f"product_of_rows({a}, {b}, {b_turned}, {out}, part, parts)"])
            reads = {Access(a, Share.ROWS), Access(b, Share.ALL)}
            return Phase(lines, reads, {Access(out, Share.ROWS)}, f"if is_wide({out}): {_MEET}")
        lines = self._part_by_part([f"product({a}, {a_turned}, {b}, {b_turned}, {out}, part, parts)"])
        return Phase(lines, {Access(a, Share.ALL), Access(b, Share.ALL)}, {Access(out, Share.COLUMNS)})

    def _nest(self, nest: Nest) -> Iterator[Phase]:
        """The loops of a nest, and what is made of the parts' sums over rows."""
        reads, writes = self._accesses(nest)
        lines = (NarrowWriter if is_narrow(nest) else WideWriter)(self._names, nest).lines()
        before: list[str] = []
        told: list[str] = []
        sums: list[Promise] = []
        totals: list[tuple[Promise, int]] = []
        for node in nest.nodes.values():
            if node.op.kind is not Kind.ALL:
                continue
            if node.shape:
                before.append(f"{self._names.sums(node)}[:] = T(0)")
                sums.append(node)
                continue
            before.append(f"d{node.index} = {'0.0' if node.op is Op.SUM else '-inf'}")
            if self._in_parts:
                told.append(f"{self._all_totals()}[{self._totals}] = d{node.index}")
                totals.append((node, self._totals))
                self._totals += 1
            else:
                told.append(f"t{node.index} = T(d{node.index})")
        if self._in_parts:
            writes |= {Access(f"of_each_{self._names.sums(node)}", Share.ROWS) for node in sums}
            writes |= {Access(f"of_each_totals[{k}]", Share.ROWS) for _, k in totals}
        yield Phase(self._part_by_part([*before, *lines, *told]), reads, writes)
        if self._in_parts:
            yield from self._put_together(sums, totals)

    def _put_together(
        self, sums: Sequence[Promise], totals: Sequence[tuple[Promise, int]]
    ) -> Iterator[Phase]:
        """What all parts' sums and totals come to, always in the same order."""
        for node in sums:
            total, each = self._names.place(node), f"of_each_sum_{self._names.place(node)}"
            lines = self._part_by_part([f"combine({total}, {each}, part, parts)"])
            yield Phase(lines, {Access(each, Share.ALL)}, {Access(total, Share.ROWS)})
        for node, k in totals:
            name = f"d{node.index}"
            lines = [
                f"{name} = of_each_totals[0, {k}]",
                "for other in range(1, parts):",
                f"    {name} = {said(node.op, name, f'of_each_totals[other, {k}]')}",
                f"t{node.index} = T({name})",
            ]
            yield Phase(lines, {Access(f"of_each_totals[{k}]", Share.ALL)})

    def _all_totals(self) -> str:
        """A part's totals of numbers."""
        return self._names.each("totals", (self._totals + 1,), np.float64)

    def _part_by_part(self, lines: list[str]) -> list[str]:
        """The lines for every part that the thread does, after where its shares are found."""
        shares = self._names.own()
        if not self._in_parts:
            self._once += shares
            return lines
        return ["for part in range(begin, end):", *(f"    {line}" for line in (*shares, *lines))]

    def _accesses(self, nest: Nest) -> tuple[set[Access], set[Access]]:
        """What a nest reads and writes of arrays."""
        reads, writes = set[Access](), set[Access]()
        for node in nest.nodes.values():
            if node.op.kind is not Kind.ALL and node.index in self.storage.place:
                writes.add(Access(self.storage.place[node.index], Share.ROWS))
            todo = list(node.args)
            while todo:
                arg = todo.pop()
                if arg.index in self.storage.place:
                    aligned = not nest.rows or arg.of_batch
                    gathered = any(n.op is Op.TAKE and n.args[0] is arg for n in (node, *node.args))
                    reads.add(
                        Access(
                            self.storage.place[arg.index],
                            Share.ROWS if aligned and not gathered else Share.ALL,
                        )
                    )
                elif arg.index not in nest.nodes:
                    todo += arg.args
        return reads, writes


def _by_rows(step: Product) -> bool:
    """Whether parts share it by the rows of a batch, and each reads no others."""
    a, b = step.node.args
    return not step.node.more[0] and a.of_batch and not b.of_batch


def _assigned(node: Promise, text: str) -> list[str]:
    if node.dtype == bool:
        return [f"d{node.index} = t{node.index} = {text}"]
    return [f"d{node.index} = {text}", f"t{node.index} = T(d{node.index})"]
