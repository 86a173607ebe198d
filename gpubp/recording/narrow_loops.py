"""A nest of few columns, as softmax and costs have it: worked through in blocks of rows, column by column.

Loops along ten columns are too short to be done on many numbers at once, and their sums wait for each other; loops down
the rows of a block, one small loop for each operation, have neither fault.
"""

from __future__ import annotations

from typing import Any

from gpubp.recording.memory import Storage
from gpubp.recording.schedule import Nest, columns, row_level
from gpubp.recording.text import said
from gpubp.tracing.operations import Kind, Op, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["NarrowWriter", "is_narrow"]

_MOST_COLUMNS = 16
_ROWS = 64  # of a block: its arrays stay in the first-level cache


def is_narrow(nest: Nest) -> bool:
    """Whether this nest reduces rows, and is nowhere wide."""
    nodes = list(nest.nodes.values())
    wide = [
        node for node in nodes if nest.rows and not row_level(node) and columns(node).number > _MOST_COLUMNS
    ]
    return not wide and any(node.op.kind is Kind.ROW for node in nodes)


class NarrowWriter:
    """The lines of such a nest. ``s7`` holds number 7 for a block, (columns, rows) or (rows,)."""

    def __init__(self, program: Any, nest: Nest) -> None:
        # a Program, which imports this module
        self.program, self.nodes = program, list(nest.nodes.values())
        self.storage: Storage = program.storage
        self.rows: str = program.extent(self.nodes)
        self.ready: dict[int, str] = {}
        self.slices: set[str] = set()
        self.out: list[str] = []

    def lines(self) -> list[str]:
        for node in self.nodes:
            self._compute(node)
        for node in self.nodes:  # at last: what is overwritten was read by now
            if node.index in self.storage.place and node.op.kind is not Kind.ALL:
                self._loop(node, f"{self._element(node)} = {self.ready[node.index]}[{_at(node)}]")
        slices = [
            f"b_{name} = {self.program.mine(name)}[first : first + {_ROWS}]" for name in sorted(self.slices)
        ]
        inside = [f"m = min({_ROWS}, {self.rows} - first)", *slices, *self.out]
        return [f"for first in range(0, {self.rows}, {_ROWS}):", *(f"    {line}" for line in inside)]

    def _compute(self, node: Promise) -> None:
        if node.op is Op.ROW_ARGMAX:
            arg, name = self._read(node.args[0]), self._array(node)
            best = self.program.scratch(node.args[0], (_ROWS,), "w")
            self._loop(node, f"{name}[i], {best}[i] = 0, T(-inf)")
            line = f"{name}[i], {best}[i] = (k, {arg}) if {arg} > {best}[i] else ({name}[i], {best}[i])"
            self._loop(node.args[0], line)
        elif node.op.kind is Kind.ROW:
            arg, name = self._read(node.args[0]), self._array(node)
            self._loop(node, f"{name}[i] = {node.op.start}")
            self._loop(node.args[0], f"{name}[i] = {said(node.op, f'{name}[i]', arg)}")
        elif node.op.kind is Kind.ALL and not node.shape:
            arg = self._read(node.args[0])
            self._loop(node.args[0], f"d{node.index} = {said(node.op, f'd{node.index}', arg)}")
        elif node.op.kind is Kind.ALL:
            column = "0" if node.args[0].rows_only else "k"
            arg = self._read(node.args[0])
            self._loop(node.args[0], f"{self.program.sums(node)}[{column}] += {arg}")
        elif node.op is Op.TAKE or node.op.kind is Kind.EACH:
            text = self._taken(node) if node.op is Op.TAKE else said(node.op, *map(self._read, node.args))
            self._loop(node, f"{self._array(node)}[{_at(node)}] = {text}")
        else:
            raise Untraceable(f"{node.op} in a loop")

    def _read(self, arg: Promise) -> str:
        if not arg.shape or arg.op is Op.NUMBER:
            return str(self.program.number(arg, "t"))
        if arg.ndim == 1 and not arg.of_batch:
            return f"{self.program.place(arg)}[k]"
        if arg.index not in self.ready:
            gathered = arg.op is Op.TAKE and arg.index not in self.storage.place
            text = self._taken(arg) if gathered else self._element(arg)
            self._loop(arg, f"{self._array(arg)}[{_at(arg)}] = {text}")
        return f"{self.ready[arg.index]}[{_at(arg)}]"

    def _taken(self, node: Promise) -> str:
        source, rows = node.args
        return f"{self.program.place(source)}[{self._read(rows)}{', k' if len(source.shape) == 2 else ''}]"

    def _element(self, node: Promise) -> str:
        name = self.program.place(node)
        self.slices.add(name)
        return f"b_{name}[i{'' if len(node.shape) == 1 else ', 0' if node.rows_only else ', k'}]"

    def _array(self, node: Promise) -> str:
        shape = (_ROWS,) if node.rows_only else (node.shape[1], _ROWS)
        self.ready[node.index] = self.program.scratch(node, shape, "s")
        return self.ready[node.index]

    def _loop(self, like: Promise, line: str) -> None:
        """The line for every element of a block of what is like that."""
        if like.rows_only or len(like.shape) == 1:
            self.out += ["for i in range(m):", f"    {line}"]
        else:
            width = self.program.size([like, *self.nodes], columns(like))
            self.out += [f"for k in range({width}):", "    for i in range(m):", f"        {line}"]


def _at(node: Promise) -> str:
    return "i" if node.rows_only or len(node.shape) == 1 else "k, i"
