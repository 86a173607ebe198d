"""A nest of few columns, as softmax and costs have it: worked through in blocks of rows, column by column.

Loops along ten columns are too short to be done on many numbers at once, and their sums wait for each other; loops down
the rows of a block, one small loop for each operation, have neither fault.
"""

from __future__ import annotations

from gpubp.recording.loops import LoopWriter
from gpubp.recording.names import Names
from gpubp.recording.schedule import Nest, columns, row_level
from gpubp.recording.text import said
from gpubp.tracing.operations import Kind, Op
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


class NarrowWriter(LoopWriter):
    """The lines of such a nest. ``s7`` holds number 7 for a block, (columns, rows) or (rows,)."""

    def __init__(self, names: Names, nest: Nest) -> None:
        super().__init__(names, nest)
        self.rows = names.extent(self.nodes)
        self.ready: dict[int, str] = {}
        self.slices: set[str] = set()
        self.out: list[str] = []

    def lines(self) -> list[str]:
        for node in self.nodes:
            self._compute(node)
        for node in self.nodes:  # at last: what is overwritten was read by now
            if self.stored(node):
                self._loop(node, f"{self._element(node)} = {self.ready[node.index]}[{_at(node)}]")
        slices = [
            f"b_{name} = {self.names.mine(name)}[first : first + {_ROWS}]" for name in sorted(self.slices)
        ]
        inside = [f"m = min({_ROWS}, {self.rows} - first)", *slices, *self.out]
        return [f"for first in range(0, {self.rows}, {_ROWS}):", *(f"    {line}" for line in inside)]

    def _compute(self, node: Promise) -> None:
        if node.op is Op.ROW_ARGMAX:
            arg, name = self._read(node.args[0]), self._array(node)
            best = self.names.scratch(node.args[0], (_ROWS,), "w")
            self._loop(node, f"{name}[i], {best}[i] = 0, T(-inf)")
            line = f"{name}[i], {best}[i] = (k, {arg}) if {arg} > {best}[i] else ({name}[i], {best}[i])"
            self._loop(node.args[0], line)
        elif node.op.kind is Kind.ROW:
            arg, name = self._read(node.args[0]), self._array(node)
            self._loop(node, f"{name}[i] = {node.op.start}")
            self._loop(node.args[0], f"{name}[i] = {said(node.op, f'{name}[i]', arg)}")
        elif node.op.kind is Kind.ALL:
            self._loop(node.args[0], self.onward(node, self._read(node.args[0])))
        else:
            text = self.element(node, self._read)
            self._loop(node, f"{self._array(node)}[{_at(node)}] = {text}")

    def _read(self, arg: Promise) -> str:
        if not arg.shape or arg.op is Op.NUMBER:
            return self.names.number(arg, "t")
        if arg.ndim == 1 and not arg.of_batch:
            return f"{self.names.place(arg)}[k]"
        if arg.index not in self.ready:
            gathered = arg.op is Op.TAKE and not self.stored(arg)
            text = self.element(arg, self._read) if gathered else self._element(arg)
            self._loop(arg, f"{self._array(arg)}[{_at(arg)}] = {text}")
        return f"{self.ready[arg.index]}[{_at(arg)}]"

    def _element(self, node: Promise) -> str:
        name = self.names.place(node)
        self.slices.add(name)
        return f"b_{name}[i{'' if len(node.shape) == 1 else ', 0' if node.rows_only else ', k'}]"

    def _array(self, node: Promise) -> str:
        shape = (_ROWS,) if node.rows_only else (node.shape[1], _ROWS)
        self.ready[node.index] = self.names.scratch(node, shape, "s")
        return self.ready[node.index]

    def _loop(self, like: Promise, line: str) -> None:
        """The line for every element of a block of what is like that."""
        if like.rows_only or len(like.shape) == 1:
            self.out += ["for i in range(m):", f"    {line}"]
        else:
            width = self.names.size([like, *self.nodes], columns(like))
            self.out += [f"for k in range({width}):", "    for i in range(m):", f"        {line}"]


def _at(node: Promise) -> str:
    return "i" if node.rows_only or len(node.shape) == 1 else "k, i"
