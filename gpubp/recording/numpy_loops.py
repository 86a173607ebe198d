"""The calls of a nest of element-wise work: one for each operation, on blocks of rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from gpubp.recording.memory import Storage, given_name
from gpubp.recording.narrow_loops import is_narrow
from gpubp.recording.schedule import Nest, Plan, columns, row_level
from gpubp.tracing.operations import Call, Kind, Op, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["AsArray", "Line", "Made", "NestCalls", "blocks"]

_BLOCK = 128_000  # bytes of an array that are worked on at once: more calls cost more than the cache gives


class AsArray(NamedTuple):
    """The line that makes a number an array without axes, which is left out where no such array is read."""

    number: int

    def __str__(self) -> str:
        return f"t{self.number}[()] = d{self.number}"


Line = str | AsArray


class Made:
    """What is made once, before the first step: views, constants, and scratch.

    Attributes
    ----------
    once : the lines that make it
    numbers : the promises that are needed as arrays without axes
    used : the arrays named so far that the function is given
    """

    def __init__(self) -> None:
        self.once: list[str] = []
        self.numbers: set[int] = set()
        self.used: set[str] = set()
        self._known: dict[str, str] = {}  # names by the text of what they hold
        self._spare: dict[str, list[str]] = {}  # scratch that waits, by the text that makes it
        self._lent: dict[str, str] = {}

    def array(self, name: str) -> str:
        """An array that the function is given."""
        self.used.add(name)
        return name

    def number(self, node: Promise) -> str:
        """The name of an array without axes."""
        if node.op is Op.NUMBER:
            return self.name(f"array({float(node.more)!r}, T)", "c")
        self.numbers.add(node.index)
        return f"t{node.index}"

    def name(self, text: str, letter: str = "b") -> str:
        """The name of what that text makes, once and for all steps."""
        if text.isidentifier():
            return text
        if text not in self._known:
            self._known[text] = f"{letter}{len(self._known)}"
            self.once.append(f"{self._known[text]} = {text}")
        return self._known[text]

    def borrow(self, shape: Sequence[int], dtype: Any) -> str:
        """Scratch of that shape, until it is given back."""
        made = f"empty({tuple(shape)}, '{dtype}')"
        if not self._spare.setdefault(made, []):
            self._spare[made].append(f"s{len(self.once)}")
            self.once.append(f"s{len(self.once)} = {made}")
        name = self._spare[made].pop()
        self._lent[name] = made
        return name

    def give_back(self, name: str) -> None:
        """Scratch that isn't needed any more."""
        self._spare[self._lent.pop(name)].append(name)


class NestCalls:
    """The lines of a nest, in blocks of rows where it is large. A nest of few columns is turned: its arrays are
    (columns, rows), as NumPy is slow where it starts anew at every row. What has one number a row is (rows,) then,
    else (rows, 1)."""

    def __init__(self, nest: Nest, plan: Plan, storage: Storage, made: Made) -> None:
        self.nest, self.plan, self.storage, self.made = nest, plan, storage, made
        self.place = storage.place
        self.turned = is_narrow(nest)
        self.nodes = self._nodes()
        self.rows, self.dtype = nest.size.number, self.nodes[0].graph.dtype
        wide = [node for node in nest.nodes.values() if nest.rows and not row_level(node)]
        width = max((columns(node).number for node in wide), default=1)
        many = -(-self.rows * width * self.dtype.itemsize // _BLOCK)
        self.block = self.rows if len(nest.nodes) == 1 else -(-self.rows // max(many, 1))
        self.blocks = -(-self.rows // self.block) > 1
        self.whole = {self._origin(node.args[0]).index for node in self.nodes if node.op.kind is Kind.ALL}
        self.last = {self._origin(arg).index: at for at, node in enumerate(self.nodes) for arg in node.args}
        # what is known: the array, and whether it has all rows ("h"), those of a block ("m"), or none ("")
        self.values: dict[int, tuple[str, str]] = {}
        self.scratch: dict[int, str] = {}
        self.parts: dict[str, str] = {}  # names by the text that makes them, for a block's rows h, m of them
        self.body: list[str] = []
        self.ends: list[str] = []

    def lines(self) -> list[Line]:
        before: list[Line] = []
        after: list[Line] = []
        for at, node in enumerate(self.nodes):
            if node.op.kind is Kind.ALL:  # of what was there already: at once, as it may be written over
                (after if self._origin(node.args[0]).index in self.values else before).extend(
                    self._total(node)
                )
            elif node.op is not Op.COPY or node.index in self.place:
                self._compute(at, node)
        for name in self.scratch.values():
            self.made.give_back(name)
        body = self.body + self.ends
        if not self.blocks:
            return before + body + after
        made = f"[(h, {', '.join(self.parts)}) for h, m in blocks({self.rows}, {self.block})]"
        loop = f"for h, {', '.join(self.parts.values())} in {self.made.name(made, 'z')}:"
        return [*before, loop, *(f"    {line}" for line in body), *after]

    def _nodes(self) -> list[Promise]:
        """The nest's nodes, and before them what is gathered for them alone."""
        found: dict[int, Promise] = {}

        def add(node: Promise) -> None:
            for arg in node.args:
                if arg.op is Op.TAKE and arg.index not in self.nest.nodes and self.plan.free(arg):
                    add(arg)
            found.setdefault(node.index, node)

        for node in self.nest.nodes.values():
            add(node)
        return list(found.values())

    def _origin(self, node: Promise) -> Promise:
        """The node whose array it is."""
        while node.op is Op.COPY and node.index not in self.place:
            node = node.args[0]
        return node

    def _compute(self, at: int, node: Promise) -> None:
        if node.op is Op.TAKE:
            self._take(at, node)
            return
        args = [self._read(arg, node) for arg in node.args]
        if node.op.kind is Kind.ROW:
            self._reduce(node, args[0], self._out(at, node))
        elif node.op.kind is Kind.EACH:
            call = _call(node)
            self._release(at, node, call.in_place)
            out = self._out(at, node, call.in_place)
            if node.op is Op.WHERE:
                self.body += [f"copyto({out}, {args[2]})", f"copyto({out}, {args[1]}, where={args[0]})"]
            elif node.op in (Op.COPY, Op.CAST):
                self.body.append(f"copyto({out}, {args[0]})")
            else:
                self.body.append(f"{call.name}({', '.join(args)}, {'out=' * call.named}{out})")
        else:
            raise Untraceable(f"{node.op} between calls")
        self._release(at, node)

    def _take(self, at: int, node: Promise) -> None:
        source, rows = node.args
        if not self.nest.rows:
            raise Untraceable("rows gathered by another vector")
        which = self._flat(rows)
        if len(source.shape) == 1:
            self._out(at, node)
            out = self._flat(node)
        elif self.turned:
            name = self._borrow(node, (self._length(node), source.shape[1]))
            self.values[node.index] = f"{name}.T", self._span(node)
            out = self._part(name, self._span(node), turned=False)
            if node.index in self.place:
                raise Untraceable("gathered rows that are kept, in a narrow nest")
        else:
            out = self._out(at, node)
        self.body.append(f"{self._place(source)}.take({which}, 0, {out}, 'clip')")

    def _reduce(self, node: Promise, arg: str, out: str) -> None:
        if node.op is Op.ROW_ARGMAX:
            self.body.append(f"argmax({arg}, {0 if self.turned else 1}, {self._flat(node)})")
        elif self.turned:
            self.body.append(f"{_call(node).name}.reduce({arg}, 0, None, {out})")
        else:
            self.body.append(f"{_call(node).name}.reduce({arg}, 1, None, {out}, True)")

    def _total(self, node: Promise) -> list[Line]:
        """A reduction over all rows, when they are there."""
        arg = self._origin(node.args[0])
        text = self.values[arg.index][0] if arg.index in self.values else self._stored(arg)[0]
        whole, function = self.made.name(text), _call(node).name
        if not node.shape:
            return [f"d{node.index} = float64({function}.reduce({whole}, None))", AsArray(node.index)]
        if node.index not in self.place:
            return []
        out = self._place(node)
        if self.turned and arg.rows_only:
            return [f"add.reduce({whole}, 0, None, {self.made.name(f'{out}.reshape(())')})"]
        if self.turned or text != whole or arg.dtype != self.dtype:
            return [f"add.reduce({whole}, {1 if self.turned else 0}, None, {out})"]
        return [f"dot({self.made.name(f'ones({self.rows}, T)')}, {whole}, {out})"]

    def _read(self, arg: Promise, reader: Promise) -> str:
        arg = self._origin(arg)
        if arg.op is Op.NUMBER and reader.op.numpy is not None and reader.op.numpy.named:
            # which are slow where one of them is a number
            made = f"full({self._shape(reader, self.block)}, {float(arg.more)!r}, T)"
            return self._part(made if self.blocks else self.made.name(made), "m")
        if arg.op is Op.NUMBER or not arg.shape:
            return self.made.number(arg)
        return self._part(*(self.values[arg.index] if arg.index in self.values else self._stored(arg)))

    def _stored(self, node: Promise) -> tuple[str, str]:
        """The array in which it is, turned or not, and its rows."""
        name = self._place(node)
        if _is_given(node) or not (self.nest.rows or node.sizes == (self.nest.size,)):
            raise Untraceable(f"{node.op} in a formula")
        if not self.nest.rows:
            return name, "h"
        if not node.of_batch:
            return f"{name}[:, None]" if self.turned else name, ""
        if len(node.shape) == 1:
            return name if self.turned else f"{name}[:, None]", "h"
        turned = f"{name}[:, 0]" if node.rows_only else f"{name}.T"
        return turned if self.turned else name, "h"

    def _flat(self, node: Promise) -> str:
        """What has one number a row, as a vector."""
        if _is_given(node):
            return f"{given_name(node)}[h]" if self.blocks else given_name(node)
        node = self._origin(node)
        text, span = self.values[node.index] if node.index in self.values else self._stored(node)
        return self._part(text, span, "" if self.turned else "[:, 0]")

    def _place(self, node: Promise) -> str:
        return self.made.array(self.storage.where(node))

    def _part(self, text: str, span: str, suffix: str = "", turned: bool | None = None) -> str:
        """The name of those rows of an array."""
        if not self.blocks or not span:
            return self.made.name(text + suffix)
        turned = self.turned if turned is None else turned
        text = f"{self.made.name(text)}[{'..., ' if turned else ''}{span}]{suffix}"
        return self.parts.setdefault(text, f"p{len(self.parts)}")

    def _out(self, at: int, node: Promise, in_place: Collection[int] = ()) -> str:
        """Where it is computed: where it will be read from, or in scratch while something there is still needed, but
        for operands of its own, by number, that it may replace."""
        if node.index in self.place:
            stored = self._stored(node)
            root, later = self._root(node), self.nodes[at + 1 :]
            superseded = self.place[node.index] in [self.place.get(other.index) for other in later]
            read = [self._origin(arg) for other in later for arg in other.args]
            read += [self._origin(arg) for k, arg in enumerate(node.args) if k not in in_place]
            if not superseded and not any(
                self._root(arg) == root and arg is not node and arg.index not in self.scratch for arg in read
            ):
                self.values[node.index] = stored
                return self._part(*stored)
        name = self._borrow(node, self._shape(node, self._length(node)))
        self.values[node.index] = name, self._span(node)
        out = self._part(*self.values[node.index])
        if node.index in self.place and not superseded:
            self.ends.append(f"copyto({self._part(*stored)}, {out})")
            self.last[node.index] = len(self.nodes)
        return out

    def _root(self, node: Promise) -> str | None:
        """The array that it or the whole it belongs to is."""
        return self.storage.root(self.place[node.index]) if node.index in self.place else None

    def _length(self, node: Promise) -> int:
        return self.rows if node.index in self.whole else self.block

    def _span(self, node: Promise) -> str:
        return "h" if node.index in self.whole else "m"

    def _shape(self, node: Promise, rows: int) -> tuple[int, ...]:
        if not self.nest.rows or (self.turned and node.rows_only):
            return (rows,)
        wide = 1 if node.rows_only else node.shape[1]
        return (wide, rows) if self.turned else (rows, wide)

    def _borrow(self, node: Promise, shape: Sequence[int]) -> str:
        self.scratch[node.index] = self.made.borrow(shape, node.dtype)
        return self.scratch[node.index]

    def _release(self, at: int, node: Promise, operands: Collection[int] | None = None) -> None:
        """Scratch that this node read last, as those of its operands alone where numbers are given."""
        kept = {
            self._origin(a).index
            for k, a in enumerate(node.args)
            if None is not operands and k not in operands
        }
        for index in {self._origin(arg).index for arg in node.args} - self.whole - kept:
            if index in self.scratch and self.last[index] == at:
                self.made.give_back(self.scratch.pop(index))


def _call(node: Promise) -> Call:
    if node.op.numpy is None:
        raise Untraceable(f"{node.op} between calls")
    return node.op.numpy


def _is_given(node: Promise) -> bool:
    """Whether every step has its own."""
    return node.op is Op.INPUT and node.of_batch


def blocks(rows: int, size: int) -> list[tuple[slice, slice]]:
    """Slices of at most that size, and for each as many of the first rows."""
    starts = range(0, rows, size)
    return [(slice(i, min(i + size, rows)), slice(min(size, rows - i))) for i in starts]
