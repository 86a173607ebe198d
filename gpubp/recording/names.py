"""The names in a compiled text, each noted where it is handed out: arrays, parts' shares of them, and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gpubp.recording.memory import Storage
from gpubp.recording.schedule import over
from gpubp.tracing.operations import Kind, Op, Size, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["Names"]


class Names:
    """Names for loops and products, whose work is cut into parts or not.

    Attributes
    ----------
    used : the arrays named so far
    constants : numbers by what they are written as, and their places
    of_each : by name: the shape and dtype of what every part has one of
    """

    def __init__(self, storage: Storage, in_parts: bool) -> None:
        self.storage, self.in_parts = storage, in_parts
        self.used: set[str] = set()
        self.constants: dict[str, int] = {}
        self.of_each: dict[str, tuple[tuple[int, ...], Any]] = {}
        # a part's own arrays since they were last asked for, and where they are found
        self._own: dict[str, str] = {}

    def own(self) -> list[str]:
        """The lines that find a part's own arrays, of those named since the last call."""
        lines = [f"{name} = {found}" for name, found in self._own.items()]
        self._own = {}
        return lines

    def array(self, name: str) -> str:
        """An array of that name."""
        self.used.add(name)
        return name

    def place(self, node: Promise) -> str:
        """The array that it is read from."""
        return self.array(self.storage.where(node))

    def mine(self, name: str) -> str:
        """The part of an array that is worked on."""
        self.array(name)
        if not self.in_parts:
            return name
        self._own[f"my_{name}"] = f"mine({name}, part, parts)"
        return f"my_{name}"

    def scratch(self, node: Promise, shape: Sequence[int], letter: str = "a") -> str:
        """A part's array for what of ``node`` is being worked on."""
        return self.each(f"{letter}{node.index}", tuple(shape), node.dtype)

    def sums(self, node: Promise) -> str:
        """A part's share of a sum over the rows of a batch."""
        if not self.in_parts:
            return self.place(node)
        return self.each(f"sum_{self.storage.where(node)}", node.shape, node.dtype)

    def each(self, name: str, shape: tuple[int, ...], dtype: Any) -> str:
        """An array of which every part has one."""
        self.of_each[f"of_each_{name}"] = shape, dtype
        self._own[name] = f"of_each_{name}[{'part' if self.in_parts else '0'}]"
        return name

    def number(self, node: Promise, kind: str) -> str:
        """The name of a number in double precision ("d") or in the arrays' ("t")."""
        if node.op is Op.NUMBER:
            k = self.constants.setdefault(node.more, len(self.constants))
            return f"{'e' if kind == 'd' else 'c'}{k}"
        return f"{kind}{node.index}"

    def size(self, nodes: Sequence[Promise], wanted: Size) -> str:
        """A size, as that of the first array that has it among these nodes and what they read."""
        name, axis = next(self._that_have(nodes, wanted))
        return f"{self.array(name)}.shape[{axis}]"

    def extent(self, nodes: Sequence[Promise]) -> str:
        """How many of the rows or elements that a nest of these nodes runs over are a part's."""
        firsts = (name for name, axis in self._that_have(nodes, over(nodes[0])) if axis == 0)
        return f"{self.mine(next(firsts))}.shape[0]"

    def _that_have(self, nodes: Sequence[Promise], wanted: Size) -> Iterator[tuple[str, int]]:
        todo = list(nodes)
        for node in todo:
            if node.index in self.storage.place and node.op.kind is not Kind.ALL:
                name = self.storage.place[node.index]
                yield from ((name, axis) for axis, size in enumerate(node.sizes) if size == wanted)
            todo += node.args
        raise Untraceable("a loop over no array")
