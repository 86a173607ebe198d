"""What was promised, as the text of a Python function: the plan's loops and products, on arrays made beforehand.

In the text ``d7`` and ``t7`` are number 7 in double precision and in the arrays' own, ``e0`` and ``c0`` constants in
both, ``a7`` is an array, ``x7`` an element read from one, ``v7`` a value just computed and ``w7`` one on the way to it.

Where the work is cut into parts, so that threads can share it (``gpubp.recording.team``), ``my_a7`` is one part's share
of an array, and ``of_each_a7`` what every part has one of. Each phase of a step is done part by part. A barrier stands
between two phases where one part reads or writes what another one wrote or reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gpubp._typing import Array
from gpubp.recording.memory import given_name
from gpubp.recording.narrow_loops import NarrowWriter, is_narrow
from gpubp.recording.schedule import (
    Nest,
    Product,
    Scalar,
    Step,
    over,
)
from gpubp.recording.text import Text, said
from gpubp.recording.wide_loops import WideWriter
from gpubp.tracing.operations import FUNCTIONS, Kind, Op, Size, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["Program"]

_NARROW = 16  # columns
_INSTRUCTIONS = {Op.ABS, Op.FLOOR, Op.SQRT}  # of the processor
_SERIES = {Op.EXP, Op.EXPM1, Op.LOG, Op.LOG1P, Op.TANH}  # of gpubp.recording.elementary
_MEET = "meet(meeting, thread, threads)"


class _Access(NamedTuple):
    """What one part reads or writes of an array: its own share ("rows", which elements of a vector are too, or
    "columns"), or any of it ("all")."""

    name: str
    share: str


@dataclass
class _Phase:
    """Lines that are done part by part, and what they read and write of arrays that other parts may touch.

    ``around`` is a barrier before and after them that only some sizes need.
    """

    lines: list[str]
    reads: set[_Access] = field(default_factory=set)
    writes: set[_Access] = field(default_factory=set)
    around: str | None = None


class Program(Text):
    """``source`` defines ``run(thread, threads, parts, meeting, steps, constants, *given, *results, *arrays)``.

    Parameters
    ----------
    promised : as of ``Text``
    in_parts : the work is cut into parts, else all of it is one
    """

    def __init__(self, *promised: Any, in_parts: bool = False) -> None:
        self._in_parts = in_parts
        self._constants: dict[str, int] = {}
        self._own: dict[
            str, str
        ] = {}  # a part's own arrays in the phase being written, and where they are found
        self._once: list[str] = []  # where there is one part, they are found once for all steps
        self._totals = 0
        super().__init__(*promised)

    @property
    def constants(self) -> Array:
        """(n,), float64: sizes and parameters, apart so that one text serves for all of them."""
        return np.array([float(value) for value in self._constants])

    def arguments(self, given: Mapping[str, Array], parts: int = 1) -> list[Array]:
        """The function's constants, and its last arguments for so many parts: inputs by name, and new buffers."""
        return [self.constants, *super().arguments(given, parts)]

    def place(self, node: Promise) -> str:
        """The array that it is read from."""
        if node.index not in self.storage.place:
            raise Untraceable(f"{node.op} in a loop")
        return self.storage.place[node.index]

    def mine(self, name: str) -> str:
        """The part of an array that is worked on."""
        if not self._in_parts:
            return name
        self._own[f"my_{name}"] = f"mine({name}, part, parts)"
        return f"my_{name}"

    def scratch(self, node: Promise, shape: tuple[int, ...], letter: str = "a") -> str:
        """A part's array for what of ``node`` is being worked on."""
        return self._of_each(f"{letter}{node.index}", shape, node.dtype)

    def sums(self, node: Promise) -> str:
        """A part's share of a sum over the rows of a batch."""
        if not self._in_parts:
            return self.place(node)
        return self._of_each(f"sum_{self.place(node)}", node.shape, node.dtype)

    def _of_each(self, name: str, shape: tuple[int, ...], dtype: Any) -> str:
        self.storage.of_each[f"of_each_{name}"] = shape, dtype
        self._own[name] = f"of_each_{name}[{'part' if self._in_parts else '0'}]"
        return name

    def number(self, node: Promise, kind: str) -> str:
        """The name of a number in double precision ("d") or in the arrays' ("t")."""
        if node.op is Op.NUMBER:
            k = self._constants.setdefault(node.more, len(self._constants))
            return f"{'e' if kind == 'd' else 'c'}{k}"
        return f"{kind}{node.index}"

    def size(self, nodes: Sequence[Promise], wanted: Size) -> str:
        """A size, as that of the first array that has it among these nodes and what they read."""
        name, axis = next(self._that_have(nodes, wanted))
        return f"{name}.shape[{axis}]"

    def extent(self, nodes: Sequence[Promise]) -> str:
        """How many of the rows or elements that a nest of these nodes runs over are a part's."""
        firsts = (name for name, axis in self._that_have(nodes, over(nodes[0])) if axis == 0)
        return f"{self.mine(next(firsts))}.shape[0]"

    def _that_have(self, nodes: Sequence[Promise], wanted: Size) -> Iterator[tuple[str, int]]:
        todo = list(nodes)
        for node in todo:
            if node.index in self.storage.place and node.op.kind is not Kind.ALL:
                for axis, size in enumerate(node.sizes):
                    if size == wanted:
                        yield self.place(node), axis
            todo += node.args
        raise Untraceable("a loop over no array")

    def _leave_to_numpy(self) -> None:
        """Refuse what NumPy does on many numbers at once and a compiled loop would do one by one."""
        functions = set(FUNCTIONS.values()) - _INSTRUCTIONS
        for node in self.plan.order:
            if node.op in functions - _SERIES and node.ndim == 2 and node.shape[1] > _NARROW:
                raise Untraceable(f"{node.op} of many numbers, which NumPy does sooner")
            if node.op in functions and node.ndim == 0:
                raise Untraceable(f"{node.op} of a number")

    def write(self, results: Sequence[Promise], given: Sequence[Promise]) -> str:
        """The text: the loops and products of a step, phase by phase."""
        self._leave_to_numpy()
        body: list[str] = []
        barriers: list[str] = []  # before the next phase
        done = _Phase([])  # since the last barrier
        for phase in (phase for step in self.plan.steps for phase in self._phases(step)):
            if self._in_parts and self._must_meet(done, phase):
                barriers, done = [_MEET], _Phase([])
            elif phase.around is not None and _MEET not in barriers:
                barriers.append(phase.around)
            body += [*barriers, *phase.lines]
            barriers = [] if phase.around is None else [phase.around]
            done.reads |= phase.reads
            done.writes |= phase.writes
        starts, ends = [], []
        for node in given:
            name = given_name(node)
            starts += [f"{name} = {name}s[step]"] if node.shape else _assigned(node, f"{name}s[step]")
        for k, node in enumerate(results):
            if node.shape:
                starts.append(f"r{k} = r{k}s[step]")
            else:
                ends.append(f"r{k}s[step] = {self.number(node, 'd')}")
        if self._in_parts:  # all write the same results
            ends.append(_MEET)
        of_step = {line.partition(" = ")[0] for line in starts}
        used = {*_words(" ".join([*self._once, *body]))} - of_step
        known = (*self.inputs(), *self.storage.made, *self.storage.of_each)
        self.wanted = [name for name in known if name in used]
        lines = [
            "from math import *",
            f"from numpy import {self.dtype} as T",
            "from gpubp.recording import elementary",
            "from gpubp.recording.team import combine, is_wide, meet, mine, product, product_of_rows",
            f"exp, expm1, log, log1p, tanh = elementary.{str(self.dtype).upper()}",
            "def run(thread, threads, parts, meeting, steps, constants, "
            f"{', '.join([*self.every_step, *self.wanted])}):",
            *(f"    e{k} = constants[{k}]; c{k} = T(e{k})" for k in self._constants.values()),
            *(f"    {line}" for line in dict.fromkeys(self._once)),
            "    begin, end = thread * parts // threads, (thread + 1) * parts // threads",
            "    for step in range(steps):",
            *(f"        {line}" for line in (*starts, *body, *ends)),
        ]
        return "\n".join(lines) + "\n"

    def _phases(self, step: Step) -> Iterator[_Phase]:
        """What a step of the plan does, one after another."""
        if isinstance(step, Nest):
            yield from self._nest(step)
        elif isinstance(step, Product):
            yield self._product(step)
        elif isinstance(step, Scalar):
            text = said(step.node.op, *(self.number(arg, "d") for arg in step.node.args))
            yield _Phase(_assigned(step.node, text))
        else:
            new, old = self.storage.copy(step), self.place(step.node.args[step.part])
            lines = self._part_by_part([f"{self.mine(new)}[:] = {self.mine(old)}"])
            yield _Phase(lines, {_Access(old, "rows")}, {_Access(new, "rows")})

    def _product(self, step: Product) -> _Phase:
        (a, b), (a_turned, b_turned) = map(self.place, step.node.args), step.node.more
        out = self.place(step.node)
        if not self._in_parts:
            return _Phase([f"product({a}, {a_turned}, {b}, {b_turned}, {out}, 0, 1)"])
        if _by_rows(step):  # each part reads no other rows, but where the longer side is cut
            lines = self._part_by_part([f"product_of_rows({a}, {b}, {b_turned}, {out}, part, parts)"])
            reads = {_Access(a, "rows"), _Access(b, "all")}
            return _Phase(lines, reads, {_Access(out, "rows")}, f"if is_wide({out}): {_MEET}")
        lines = self._part_by_part([f"product({a}, {a_turned}, {b}, {b_turned}, {out}, part, parts)"])
        return _Phase(lines, {_Access(a, "all"), _Access(b, "all")}, {_Access(out, "columns")})

    def _nest(self, nest: Nest) -> Iterator[_Phase]:
        """The loops of a nest, and what is made of the parts' sums over rows."""
        self._own = {}
        reads, writes = self._accesses(nest)
        lines = (NarrowWriter if is_narrow(nest) else WideWriter)(self, nest).lines()
        before: list[str] = []
        told: list[str] = []
        sums: list[Promise] = []
        totals: list[tuple[Promise, int]] = []
        for node in nest.nodes.values():
            if node.op.kind is not Kind.ALL:
                continue
            if node.shape:
                before.append(f"{self.sums(node)}[:] = T(0)")
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
            writes |= {_Access(f"of_each_{self.sums(node)}", "rows") for node in sums}
            writes |= {_Access(f"of_each_totals[{k}]", "rows") for _, k in totals}
        yield _Phase(self._part_by_part([*before, *lines, *told]), reads, writes)
        if self._in_parts:
            yield from self._put_together(sums, totals)

    def _put_together(
        self, sums: Sequence[Promise], totals: Sequence[tuple[Promise, int]]
    ) -> Iterator[_Phase]:
        """What all parts' sums and totals come to, always in the same order."""
        for node in sums:
            total, each = self.place(node), f"of_each_sum_{self.place(node)}"
            lines = self._part_by_part([f"combine({total}, {each}, part, parts)"])
            yield _Phase(lines, {_Access(each, "all")}, {_Access(total, "rows")})
        for node, k in totals:
            name = f"d{node.index}"
            lines = [
                f"{name} = of_each_totals[0, {k}]",
                "for other in range(1, parts):",
                f"    {name} = {said(node.op, name, f'of_each_totals[other, {k}]')}",
                f"t{node.index} = T({name})",
            ]
            yield _Phase(lines, {_Access(f"of_each_totals[{k}]", "all")})

    def _all_totals(self) -> str:
        """A part's totals of numbers."""
        return self._of_each("totals", (self._totals + 1,), np.float64)

    def _part_by_part(self, lines: list[str]) -> list[str]:
        """The lines for every part that the thread does, after where its shares are found."""
        shares = [f"{name} = {found}" for name, found in self._own.items()]
        self._own = {}
        if not self._in_parts:
            self._once += shares
            return lines
        return ["for part in range(begin, end):", *(f"    {line}" for line in (*shares, *lines))]

    def _accesses(self, nest: Nest) -> tuple[set[_Access], set[_Access]]:
        """What a nest reads and writes of arrays."""
        reads, writes = set[_Access](), set[_Access]()
        for node in nest.nodes.values():
            if node.op.kind is not Kind.ALL and node.index in self.storage.place:
                writes.add(_Access(self.place(node), "rows"))
            todo = list(node.args)
            while todo:
                arg = todo.pop()
                if arg.index in self.storage.place:
                    aligned = not nest.rows or arg.of_batch
                    gathered = any(n.op is Op.TAKE and n.args[0] is arg for n in (node, *node.args))
                    reads.add(_Access(self.place(arg), "rows" if aligned and not gathered else "all"))
                elif arg.index not in nest.nodes:
                    todo += arg.args
        return reads, writes

    def _must_meet(self, before: _Phase, after: _Phase) -> bool:
        """Whether a part may touch, afterwards, what another wrote before, or write what it read."""
        pairs = [(before.writes, after.reads | after.writes), (before.reads, after.writes)]
        return any(self._collide(a, b) for first, then in pairs for a in first for b in then)

    def _collide(self, a: _Access, b: _Access) -> bool:
        if a.name == b.name:
            return a.share != b.share or a.share == "all"
        (a_root, *a_span), (b_root, *b_span) = map(self.storage.region, (a.name, b.name))
        return a_root == b_root and a_span[0] < b_span[1] and b_span[0] < a_span[1]


def _by_rows(step: Product) -> bool:
    """Whether parts share it by the rows of a batch, and each reads no others."""
    a, b = step.node.args
    return not step.node.more[0] and a.of_batch and not b.of_batch


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _assigned(node: Promise, text: str) -> list[str]:
    if node.dtype == bool:
        return [f"d{node.index} = t{node.index} = {text}"]
    return [f"d{node.index} = {text}", f"t{node.index} = T(d{node.index})"]
