"""What was promised, as the text of a Python function: the plan's loops and products, on arrays made beforehand.

In the text ``d7`` and ``t7`` are number 7 in double precision and in the arrays' own, ``e0`` and ``c0`` constants in
both, ``a7`` is an array, ``x7`` an element read from one, ``v7`` a value just computed and ``w7`` one on the way to it.
Several threads may run it at once (``gpubp.engines.team``): ``my_a7`` is one thread's part, ``of_each_a7`` what every
thread has one of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpubp._typing import Array
from gpubp.engines.lazy import FUNCTIONS, Batch, Promise, Untraceable
from gpubp.engines.narrow import NarrowWriter, is_narrow
from gpubp.engines.plan import (
    NEXT,
    OVER_ROWS,
    Nest,
    Product,
    Scalar,
    Step,
    over,
    same,
)
from gpubp.engines.storage import given_name
from gpubp.engines.text import Text
from gpubp.engines.wide import WideWriter

__all__ = ["Program"]

_NARROW = 16  # columns
_MEET = "if parts > 1: meet(meeting, part, parts)"


class Program(Text):
    """``source`` defines ``run(part, parts, meeting, steps, constants, *given, *results, *arrays)``."""

    def __init__(self, *promised: Any) -> None:
        self._constants: dict[str, int] = {}
        self._own: dict[str, str] = {}  # a thread's own arrays, and where they are found
        self._totals = 0
        super().__init__(*promised)

    @property
    def constants(self) -> Array:
        """(n,), float64: sizes and parameters, apart so that one text serves for all of them."""
        return np.array([float(value) for value in self._constants])

    def arguments(self, given: Mapping[str, Array], parts: int = 1) -> list[Array]:
        """The function's constants, and its last arguments for so many threads: inputs by name, and new buffers."""
        return [self.constants, *super().arguments(given, parts)]

    def place(self, node: Promise) -> str:
        """The array that it is read from."""
        if node.index not in self.storage.place:
            raise Untraceable(f"{node.op} in a loop")
        return self.storage.place[node.index]

    def mine(self, name: str) -> str:
        """The part of an array that a thread works on."""
        self._own[f"my_{name}"] = f"mine({name}, part, parts)"
        return f"my_{name}"

    def scratch(self, node: Promise, shape: tuple[int, ...], letter: str = "a") -> str:
        """A thread's array for the part of ``node`` that is being worked on."""
        return self._of_each(f"{letter}{node.index}", shape, node.dtype)

    def sums(self, node: Promise) -> str:
        """A thread's part of a sum over the rows of a batch."""
        return self._of_each(f"sum_{self.place(node)}", node.shape, node.dtype)

    def _of_each(self, name: str, shape: tuple[int, ...], dtype: Any) -> str:
        self.storage.of_each[f"of_each_{name}"] = shape, dtype
        self._own[name] = f"of_each_{name}[part]"
        return name

    def number(self, node: Promise, kind: str) -> str:
        """The name of a number in double precision ("d") or in the arrays' ("t")."""
        if node.op == "number":
            k = self._constants.setdefault(node.more, len(self._constants))
            return f"{'e' if kind == 'd' else 'c'}{k}"
        return f"{kind}{node.index}"

    def size(self, nodes: Sequence[Promise], wanted: int) -> str:
        """A size, as that of the first array that has it among these nodes and what they read."""
        name, axis = next(self._that_have(nodes, wanted))
        return f"{name}.shape[{axis}]"

    def extent(self, nodes: Sequence[Promise]) -> str:
        """How many of the rows or elements that a nest of these nodes runs over are a thread's."""
        firsts = (name for name, axis in self._that_have(nodes, over(nodes[0])) if axis == 0)
        return f"{self.mine(next(firsts))}.shape[0]"

    def _that_have(self, nodes: Sequence[Promise], wanted: int) -> Iterator[tuple[str, int]]:
        todo = list(nodes)
        for node in todo:
            if node.index in self.storage.place and node.op not in OVER_ROWS:
                for axis, size in enumerate(node.shape):
                    if same((size,), (wanted,)):
                        yield self.place(node), axis
            todo += node.args
        raise Untraceable("a loop over no array")

    def _leave_to_numpy(self) -> None:
        """Refuse what NumPy does on many numbers at once and a compiled loop would do one by one."""
        one_by_one = FUNCTIONS - {"abs", "floor", "sqrt", "exp", "expm1", "log", "log1p", "tanh"}
        for node in self.plan.order:
            function = node.op.partition("(")[0]
            if function in one_by_one and len(node.shape) == 2 and node.shape[1] > _NARROW:
                raise Untraceable(f"{function} of many numbers, which NumPy does sooner")
            if function in FUNCTIONS and node.shape == () and function not in ("abs", "floor", "sqrt"):
                raise Untraceable(f"{function} of a number")

    def write(self, results: Sequence[Promise], given: Sequence[Promise]) -> str:
        """The text: shares of arrays, and the loops and products of a step."""
        self._leave_to_numpy()
        body, before = [], None
        for step in self.plan.steps:
            if not isinstance(step, Scalar):
                body += [_MEET] * (before is not None and _must_meet(before, step))
                before = step
            body += self._lines(step)
        starts, ends = [], []
        for node in given:
            name = given_name(node)
            starts += [f"{name} = {name}s[step]"] if node.shape else _assigned(node, f"{name}s[step]")
        for k, node in enumerate(results):
            if node.shape:
                starts.append(f"r{k} = r{k}s[step]")
            else:
                ends.append(f"r{k}s[step] = {self.number(node, 'd')}")
        of_step = {line.partition(" = ")[0] for line in starts}
        shares = [f"{name} = {found}" for name, found in self._own.items()]
        starts += [line for line in shares if set(_words(line)) & of_step]
        shares = [line for line in shares if line not in starts]
        used = {*_words(" ".join([*shares, *body]))} - of_step
        known = (*self.inputs(), *self.storage.made, *self.storage.of_each)
        self.wanted = [name for name in known if name in used]
        lines = [
            "from math import *",
            f"from numpy import {self.dtype} as T",
            "from gpubp.engines import elementary",
            "from gpubp.engines.team import combine, meet, mine, product, product_of_rows",
            f"exp, expm1, log, log1p, tanh = elementary.{str(self.dtype).upper()}",
            f"def run(part, parts, meeting, steps, constants, {', '.join([*self.every_step, *self.wanted])}):",
            *(f"    e{k} = constants[{k}]; c{k} = T(e{k})" for k in self._constants.values()),
            *(f"    {line}" for line in shares),
            "    for step in range(steps):",
            *(f"        {line}" for line in (*starts, *body, *ends, _MEET)),  # all write the same results
        ]
        return "\n".join(lines) + "\n"

    def _lines(self, step: Step) -> list[str]:
        if isinstance(step, Nest):
            return _nest(self, step)
        if isinstance(step, Product):
            (a, b), (a_turned, b_turned) = map(self.place, step.node.args), step.node.more
            more = f"{b}, {b_turned}, {self.place(step.node)}"
            if _by_rows(step):
                return [f"product_of_rows({a}, {more}, meeting, part, parts)"]
            return [f"product({a}, {a_turned}, {more}, part, parts)"]
        if isinstance(step, Scalar):
            return _assigned(
                step.node, step.node.op.format(*(self.number(arg, "d") for arg in step.node.args))
            )
        new, old = self.storage.copy(step), self.place(step.node.args[step.part])
        return [f"{self.mine(new)}[:] = {self.mine(old)}"]

    def total(self, node: Promise) -> tuple[list[str], list[str]]:
        """The lines that let other threads know a thread's part of a number, and those that put the parts together."""
        name, k = f"d{node.index}", self._totals
        self._totals += 1
        totals = self._of_each("totals", (self._totals,), np.float64)
        return [f"{totals}[{k}] = {name}"], [
            f"{name} = of_each_{totals}[0, {k}]",
            "for other in range(1, parts):",
            f"    {name} = {NEXT[node.op].format(name, f'of_each_{totals}[other, {k}]')}",
            f"t{node.index} = T({name})",
        ]


def _by_rows(step: Step) -> bool:
    """Whether threads share it by the rows of a batch, and each reads no others."""
    if isinstance(step, Nest):
        return step.rows
    if not isinstance(step, Product) or step.node.more[0]:
        return False
    return isinstance(step.node.shape[0], Batch) and not isinstance(step.node.args[1].shape[0], Batch)


def _must_meet(before: Step, after: Step) -> bool:
    """Whether threads wait for each other between these two. They did so at the end of sums, and have only put those
    over rows together since: nothing that a product of two batches reads or writes."""
    nodes = before.nodes.values() if isinstance(before, Nest) else ()
    sums = [node for node in nodes if node.op in OVER_ROWS]
    if any(node.shape for node in sums):
        factors = after.node.args if isinstance(after, Product) else ()
        return not factors or not all(isinstance(factor.shape[0], Batch) for factor in factors)
    return not sums and not (_by_rows(before) and _by_rows(after))


def _nest(program: Program, nest: Nest) -> list[str]:
    if is_narrow(nest):
        lines = NarrowWriter(program, nest).lines()
    else:
        lines = WideWriter(program, nest).lines()
    before, told, after = [], [], []
    for node in nest.nodes.values():
        if node.op in OVER_ROWS and node.shape:
            name = program.sums(node)
            before.append(f"{name}[:] = T(0)")
            after.append(f"combine({program.place(node)}, of_each_{name}, part, parts)")
        elif node.op in OVER_ROWS:
            before.append(f"d{node.index} = {'0.0' if node.op == 'sum' else '-inf'}")
            tell, put_together = program.total(node)
            told += tell
            after += put_together
    return [*before, *lines, *told, *[_MEET][: len(after)], *after]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _assigned(node: Promise, text: str) -> list[str]:
    if node.dtype == bool:
        return [f"d{node.index} = t{node.index} = {text}"]
    return [f"d{node.index} = {text}", f"t{node.index} = T(d{node.index})"]
