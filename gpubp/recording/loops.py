"""What the two ways to write a nest as loops share, row by row (wide) or down the rows (narrow)."""

from __future__ import annotations

from collections.abc import Callable

from gpubp.recording.names import Names
from gpubp.recording.schedule import Nest
from gpubp.recording.text import said
from gpubp.tracing.operations import Kind, Op, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["LoopWriter"]


class LoopWriter:
    """The lines of a nest, with the names of its arrays."""

    def __init__(self, names: Names, nest: Nest) -> None:
        self.names, self.nest, self.nodes = names, nest, list(nest.nodes.values())

    def stored(self, node: Promise) -> bool:
        """Whether it is written to an array, or read from one."""
        return node.op.kind is not Kind.ALL and node.index in self.names.storage.place

    def element(self, node: Promise, read: Callable[[Promise], str]) -> str:
        """An element of what is gathered, or done element by element, from elements that ``read`` names."""
        if node.op is Op.TAKE:
            source, rows = node.args
            return f"{self.names.place(source)}[{read(rows)}{', k' if source.ndim == 2 else ''}]"
        if node.op.kind is not Kind.EACH:
            raise Untraceable(f"{node.op} in a loop")
        return said(node.op, *map(read, node.args))

    def onward(self, node: Promise, value: str) -> str:
        """The line that takes one more element into a total, or into the sums of columns."""
        if not node.shape:
            total = f"d{node.index}"
            return f"{total} = {said(node.op, total, value)}"
        return f"{self.names.sums(node)}[{'0' if node.args[0].rows_only else 'k'}] += {value}"
