"""What was promised, as the text of a Python function: the plan's loops and products, on arrays made beforehand.

In the text ``d7`` and ``t7`` are number 7 in double precision and in the arrays' own, ``e0`` and ``c0`` constants in
both, ``a7`` is an array, ``x7`` an element read from one, ``v7`` a value just computed and ``w7`` one on the way to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from gpubp._typing import Array
from gpubp.engines.lazy import FUNCTIONS, Batch, Graph, Promise, Untraceable
from gpubp.engines.narrow import NarrowWriter, is_narrow
from gpubp.engines.plan import (
    FIRST,
    NEXT,
    OVER_ROWS,
    Nest,
    Plan,
    Product,
    Scalar,
    Step,
    columns,
    over,
    row_level,
    same,
    stages,
)
from gpubp.engines.storage import Storage, given_name

__all__ = ["Program"]


_NARROW = 16  # columns


class Program:
    """``source`` defines ``run(steps, constants, *given, *results, *arrays)``.

    Parameters
    ----------
    states : (old, new): the input that a step overwrites, and what with
    results : numbers and vectors, one of each a step; their arrays have one more axis in front
    given : inputs of which every step has its own: the function gets arrays with one more axis in front

    Raises
    ------
    Untraceable : it can't be written as loops
    """

    def __init__(
        self,
        graph: Graph,
        states: Sequence[tuple[Promise, Promise]],
        results: Sequence[Promise],
        given: Sequence[Promise],
    ) -> None:
        self.dtype = graph.dtype
        self.plan = Plan([*(new for _, new in states), *results])
        self._leave_to_numpy()
        self.storage = Storage(self.plan, states, results)
        self._constants: dict[str, int] = {}
        self.source = self._write(results, given)

    @property
    def constants(self) -> Array:
        """(n,), float64: sizes and parameters, apart so that one text serves for all of them."""
        return np.array([float(value) for value in self._constants])

    def arguments(self, given: Mapping[str, Array]) -> tuple[Array, list[Array]]:
        """The function's constants, and its last arguments: inputs by name, and new buffers."""
        return self.constants, self.storage.arrays(given, self._arguments)

    def place(self, node: Promise) -> str:
        """The array that it is read from."""
        if node.index not in self.storage.place:
            raise Untraceable(f"{node.op} in a loop")
        return self.storage.place[node.index]

    def number(self, node: Promise, kind: str) -> str:
        """The name of a number in double precision ("d") or in the arrays' ("t")."""
        if node.op == "number":
            k = self._constants.setdefault(node.more, len(self._constants))
            return f"{'e' if kind == 'd' else 'c'}{k}"
        return f"{kind}{node.index}"

    def size(self, nodes: Sequence[Promise], wanted: int) -> str:
        """A size, as that of the first array that has it among these nodes and what they read."""
        todo = list(nodes)
        for node in todo:
            if node.index in self.storage.place and node.op not in OVER_ROWS:
                for axis, size in enumerate(node.shape):
                    if same((size,), (wanted,)):
                        return f"{self.place(node)}.shape[{axis}]"
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

    def _write(self, results: Sequence[Promise], given: Sequence[Promise]) -> str:
        body = [line for step in self.plan.steps for line in self._lines(step)]
        starts, ends = [], []
        for node in given:
            name = given_name(node)
            starts += [f"{name} = {name}s[step]"] if node.shape else _assigned(node, f"{name}s[step]")
        for k, node in enumerate(results):
            if node.shape:
                starts.append(f"r{k} = r{k}s[step]")
            else:
                ends.append(f"r{k}s[step] = {self.number(node, 'd')}")
        names = [given_name(node) for node in self.plan.order if node.op.startswith("input ")]
        own = {given_name(node) for node in given}
        used = set(re.findall(r"\w+", " ".join(body)))
        self._arguments = [name for name in (*names, *self.storage.made) if name in used - own]
        every_step = [*(f"{given_name(node)}s" for node in given), *(f"r{k}s" for k in range(len(results)))]
        lines = [
            "from math import *",
            f"from numpy import dot, {self.dtype} as T",
            "from gpubp.engines import elementary",
            f"exp, expm1, log, log1p, tanh = elementary.{str(self.dtype).upper()}",
            f"def run(steps, constants, {', '.join([*every_step, *self._arguments])}):",
            *(f"    e{k} = constants[{k}]; c{k} = T(e{k})" for k in self._constants.values()),
            "    for step in range(steps):",
            *(f"        {line}" for line in (*starts, *body, *ends)),
        ]
        return "\n".join(lines) + "\n"

    def _lines(self, step: Step) -> list[str]:
        if isinstance(step, Nest):
            return _nest(self, step)
        if isinstance(step, Product):
            pairs = zip(step.node.args, step.node.more, strict=True)
            a, b = (self.place(arg) + (".T" if turned else "") for arg, turned in pairs)
            return [f"dot({a}, {b}, {self.place(step.node)})"]
        if isinstance(step, Scalar):
            return _assigned(
                step.node, step.node.op.format(*(self.number(arg, "d") for arg in step.node.args))
            )
        return [f"{self.storage.copy(step)}[:] = {self.place(step.node.args[step.part])}"]


def _nest(program: Program, nest: Nest) -> list[str]:
    before, after = [], []
    for node in nest.nodes.values():
        if node.op in OVER_ROWS and node.shape:
            before.append(f"{program.place(node)}[:] = T(0)")
        elif node.op in OVER_ROWS:
            before.append(f"d{node.index} = {'0.0' if node.op == 'sum' else '-inf'}")
            after.append(f"t{node.index} = T(d{node.index})")
    if is_narrow(nest):
        lines = NarrowWriter(program, nest).lines()
    else:
        lines = _NestWriter(program, nest).lines()
    return [*before, *lines, *after]


class _NestWriter:
    """The lines of a nest: for each row the work on it as a whole, then loops over its columns, stage by stage."""

    def __init__(self, program: Program, nest: Nest) -> None:
        self.program, self.nest, self.nodes = program, nest, list(nest.nodes.values())
        self.stages = stages(nest)

    def lines(self) -> list[str]:
        if self.nest.rows:
            inside = [line for stage in range(max(self.stages.values()) + 1) for line in self._stage(stage)]
        else:
            _, inside = self._body(self.nodes, by_column=False)
        size = self.program.size(self.nodes, over(self.nodes[0]))
        return [
            f"for {'i' if self.nest.rows else 'k'} in range({size}):",
            *(f"    {line}" for line in inside),
        ]

    def _stage(self, stage: int) -> list[str]:
        here = [node for node in self.nodes if self.stages[node.index] == stage]
        _, lines = self._body([node for node in here if row_level(node)], by_column=False)
        widths: dict[int, list[Promise]] = {}
        for node in here:
            if not row_level(node):
                widths.setdefault(columns(node), []).append(node)
        for width, nodes in widths.items():
            reductions = [node for node in nodes if node.op.startswith("rows ")]
            once, inside = self._body(nodes, by_column=True)
            lines += map(_reduction_first, reductions)
            lines += [
                *once,
                f"for k in range({self.program.size(nodes, width)}):",
                *(f"    {line}" for line in inside),
            ]
            for node in reductions:
                if node.op == "rows sum":
                    lines.append(f"v{node.index} = T(w{node.index})")
                if node.index in self.program.storage.place:
                    lines.append(f"{self._element(node)} = v{node.index}")
        return lines

    def _body(self, nodes: Sequence[Promise], by_column: bool) -> tuple[list[str], list[str]]:
        """The lines before a loop, and those inside."""
        once: list[str] = []
        lines: list[str] = []
        ends: list[str] = []
        ready: dict[int, str] = {}

        def read(arg: Promise) -> str:
            if not arg.shape or arg.op == "number":
                return self.program.number(arg, "t")
            mine = arg.index in self.nest.nodes
            by_row = self.nest.rows and arg.rows_only
            if mine and by_row:
                return f"v{arg.index}"
            if arg.index not in ready:
                ready[arg.index] = f"x{arg.index}"
                (once if by_row and by_column else lines).append(f"x{arg.index} = {loaded(arg, mine)}")
            return ready[arg.index]

        def loaded(arg: Promise, mine: bool) -> str:
            if arg.index in self.program.storage.place:
                return self._element(arg)
            if mine:
                return f"{self.program.storage.scratch(arg, arg.shape[1:])}[k]"
            if arg.op == "take":
                return taken(arg)
            if arg.op == "{}":
                return read(arg.args[0])
            raise Untraceable(f"{arg.op} in a loop")

        def taken(node: Promise) -> str:
            source, rows = node.args
            return f"{self.program.place(source)}[{read(rows)}{', k' if len(source.shape) == 2 else ''}]"

        for node in nodes:
            if node.op.startswith("rows "):
                lines += _reduction_next(node, read(node.args[0]))
            elif node.op in OVER_ROWS and not node.shape:
                total = f"d{node.index}"
                ends.append(f"{total} = {NEXT[node.op].format(total, read(node.args[0]))}")
            elif node.op in OVER_ROWS:
                column = "0" if node.args[0].rows_only else "k"
                ends.append(f"{self.program.place(node)}[{column}] += {read(node.args[0])}")
            elif node.op == "take" or "{" in node.op:
                text = taken(node) if node.op == "take" else node.op.format(*map(read, node.args))
                lines.append(f"v{node.index} = {text}")
                ready[node.index] = f"v{node.index}"
                if node.index in self.program.storage.place:
                    ends.append(f"{self._element(node)} = v{node.index}")
                elif by_column and self._read_later(node):
                    ends.append(f"{self.program.storage.scratch(node, node.shape[1:])}[k] = v{node.index}")
            else:
                raise Untraceable(f"{node.op} in a loop")
        return once, lines + ends

    def _element(self, node: Promise) -> str:
        name = self.program.place(node)
        if not self.nest.rows:
            return f"{name}[k]"
        if len(node.shape) == 1:
            return f"{name}[{'i' if isinstance(node.shape[0], Batch) else 'k'}]"
        return f"{name}[i, {'0' if node.rows_only else 'k'}]"

    def _read_later(self, node: Promise) -> bool:
        """Whether a later stage of the nest reads it."""
        mine = self.stages[node.index]
        return any(self.stages[n.index] > mine and any(a is node for a in n.args) for n in self.nodes)


def _reduction_first(node: Promise) -> str:
    kind = node.op.removeprefix("rows ")
    if kind == "argmax":
        return f"v{node.index}, w{node.index} = 0, T(-inf)"
    return f"w{node.index} = 0.0" if kind == "sum" else f"v{node.index} = {FIRST[kind]}"


def _reduction_next(node: Promise, value: str) -> list[str]:
    kind = node.op.removeprefix("rows ")
    if kind == "argmax":
        return [f"if {value} > w{node.index}:", f"    v{node.index}, w{node.index} = k, {value}"]
    name = f"{'w' if kind == 'sum' else 'v'}{node.index}"  # a long sum in double precision
    return [f"{name} = {NEXT[kind].format(name, value)}"]


def _assigned(node: Promise, text: str) -> list[str]:
    if node.dtype == bool:
        return [f"d{node.index} = t{node.index} = {text}"]
    return [f"d{node.index} = {text}", f"t{node.index} = T(d{node.index})"]
