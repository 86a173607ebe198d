"""A nest as it is where rows are long, or there are none: row by row, and along each row stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.recording.loops import LoopWriter
from gpubp.recording.names import Names
from gpubp.recording.schedule import Nest, columns, row_level, stages
from gpubp.recording.text import said
from gpubp.tracing.operations import Kind, Op, Size, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["WideWriter"]


class WideWriter(LoopWriter):
    """The lines of a nest: for each row the work on it as a whole, then loops over its columns, stage by stage."""

    def __init__(self, names: Names, nest: Nest) -> None:
        super().__init__(names, nest)
        self.stages = stages(nest)

    def lines(self) -> list[str]:
        if self.nest.rows:
            inside = [line for stage in range(max(self.stages.values()) + 1) for line in self._stage(stage)]
        else:
            _, inside = self._body(self.nodes, by_column=False)
        return [
            f"for {'i' if self.nest.rows else 'k'} in range({self.names.extent(self.nodes)}):",
            *(f"    {line}" for line in inside),
        ]

    def _stage(self, stage: int) -> list[str]:
        here = [node for node in self.nodes if self.stages[node.index] == stage]
        _, lines = self._body([node for node in here if row_level(node)], by_column=False)
        widths: dict[Size, list[Promise]] = {}
        for node in here:
            if not row_level(node):
                widths.setdefault(columns(node), []).append(node)
        for width, nodes in widths.items():
            reductions = [node for node in nodes if node.op.kind is Kind.ROW]
            once, inside = self._body(nodes, by_column=True)
            lines += map(_reduction_first, reductions)
            lines += [
                *once,
                f"for k in range({self.names.size(nodes, width)}):",
                *(f"    {line}" for line in inside),
            ]
            for node in reductions:
                if node.op is Op.ROW_SUM:
                    lines.append(f"v{node.index} = T(w{node.index})")
                if node.index in self.names.storage.place:
                    lines.append(f"{self._element(node)} = v{node.index}")
        return lines

    def _body(self, nodes: Sequence[Promise], by_column: bool) -> tuple[list[str], list[str]]:
        """The lines before a loop, and those inside."""
        once: list[str] = []
        lines: list[str] = []
        ends: list[str] = []
        ready: dict[int, str] = {}

        def read(arg: Promise) -> str:
            if not arg.shape or arg.op is Op.NUMBER:
                return self.names.number(arg, "t")
            mine = arg.index in self.nest.nodes
            by_row = self.nest.rows and arg.rows_only
            if mine and by_row:
                return f"v{arg.index}"
            if arg.index not in ready:
                ready[arg.index] = f"x{arg.index}"
                (once if by_row and by_column else lines).append(f"x{arg.index} = {loaded(arg, mine)}")
            return ready[arg.index]

        def loaded(arg: Promise, mine: bool) -> str:
            if arg.index in self.names.storage.place:
                return self._element(arg)
            if mine:
                return f"{self.names.scratch(arg, arg.shape[1:])}[k]"
            if arg.op in (Op.TAKE, Op.COPY):
                return self.element(arg, read)
            raise Untraceable(f"{arg.op} in a loop")

        for node in nodes:
            if node.op.kind is Kind.ROW:
                lines += _reduction_next(node, read(node.args[0]))
            elif node.op.kind is Kind.ALL:
                ends.append(self.onward(node, read(node.args[0])))
            else:
                text = self.element(node, read)  # after the lines that read
                lines.append(f"v{node.index} = {text}")
                ready[node.index] = f"v{node.index}"
                if node.index in self.names.storage.place:
                    ends.append(f"{self._element(node)} = v{node.index}")
                elif by_column and self._read_later(node):
                    ends.append(f"{self.names.scratch(node, node.shape[1:])}[k] = v{node.index}")
        return once, lines + ends

    def _element(self, node: Promise) -> str:
        name = self.names.place(node)
        if not self.nest.rows:
            return f"{self.names.mine(name)}[k]"
        if node.of_batch:
            name = self.names.mine(name)
        if len(node.shape) == 1:
            return f"{name}[{'i' if node.of_batch else 'k'}]"
        return f"{name}[i, {'0' if node.rows_only else 'k'}]"

    def _read_later(self, node: Promise) -> bool:
        """Whether a later stage of the nest reads it."""
        mine = self.stages[node.index]
        return any(self.stages[n.index] > mine and any(a is node for a in n.args) for n in self.nodes)


def _reduction_first(node: Promise) -> str:
    if node.op is Op.ROW_ARGMAX:
        return f"v{node.index}, w{node.index} = 0, T(-inf)"
    return f"w{node.index} = 0.0" if node.op is Op.ROW_SUM else f"v{node.index} = {node.op.start}"


def _reduction_next(node: Promise, value: str) -> list[str]:
    if node.op is Op.ROW_ARGMAX:
        return [f"if {value} > w{node.index}:", f"    v{node.index}, w{node.index} = k, {value}"]
    # a long sum in double precision
    name = f"{'w' if node.op is Op.ROW_SUM else 'v'}{node.index}"
    return [f"{name} = {said(node.op, name, value)}"]
