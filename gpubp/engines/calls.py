"""What was promised, as the text of a Python function: NumPy's functions one after another, on arrays made beforehand.

Nothing is allocated, sliced or looked up between two of them, which is most of the time of a narrow network's step. In
the text ``d7`` and ``t7`` are number 7 as Python's and as an array, ``c0`` is a constant, ``a7`` an array, ``s0``
scratch, ``b0`` the part of an array that is being worked on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gpubp._typing import Array
from gpubp.engines.lazy import FUNCTIONS, Batch, Graph, Promise, Untraceable
from gpubp.engines.narrow import is_narrow
from gpubp.engines.plan import OVER_ROWS, Nest, Plan, Product, Scalar, Step, columns, row_level, same
from gpubp.engines.storage import Storage, given_name

__all__ = ["Calls"]

_BLOCK = 128_000  # bytes of an array that are worked on at once: more calls cost more than the cache gives

# the function that a template of Python text stands for
_CALLS = {
    "({} + {})": "add",
    "({} - {})": "subtract",
    "({} * {})": "multiply",
    "({} / {})": "divide",
    "({} ** {})": "power",
    "(-{})": "negative",
    "({} < {})": "less",
    "({} <= {})": "less_equal",
    "({} > {})": "greater",
    "({} >= {})": "greater_equal",
    "({} == {})": "equal",
    "({} != {})": "not_equal",
    "({1} if {0} < {1} else {0})": "maximum",
    "({0} if {0} >= {1} or {0} != {0} else {1})": "maximum",
    "({1} if {0} > {1} else {0})": "minimum",
    "({0} if {0} <= {1} or {0} != {0} else {1})": "minimum",
    "({1} if {0} else {2})": "where",
    **{f"{name}({{}})": {"abs": "absolute"}.get(name, name) for name in FUNCTIONS},
}
_PICKS = ("maximum", "minimum")
_REDUCTIONS = {"sum": "add", "max": "maximum", "min": "minimum", "all": "logical_and"}


class Calls:
    """``source`` defines ``prepare(*arrays)``, which gives ``run(steps, *given, *results)``.

    Parameters
    ----------
    states : (old, new): the input that a step overwrites, and what with
    results : numbers and vectors, one of each a step; their arrays have one more axis in front
    given : inputs of which every step has its own: the function gets arrays with one more axis in front

    Raises
    ------
    Untraceable : it can't be written as calls
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
        self.storage = Storage(self.plan, states, results)
        self.given = {node.index for node in given}
        self.once: list[str] = []  # lines that make what every step uses
        self._known: dict[str, str] = {}  # names by the text of what they hold
        self._spare: dict[str, list[str]] = {}  # scratch that waits, by the text that makes it
        self._lent: dict[str, str] = {}
        self._numbers: set[int] = set()  # that are needed as arrays
        self.source = self._write(results, given)

    def arguments(self, given: Mapping[str, Array]) -> list[Array]:
        """The arguments of ``prepare``: inputs by name, and new buffers."""
        return self.storage.arrays(given, self._arguments)

    def place(self, node: Promise) -> str:
        """The array that it is read from."""
        if node.index not in self.storage.place:
            raise Untraceable(f"{node.op} between calls")
        return self.storage.place[node.index]

    def root(self, name: str) -> str:
        """The array that one of that name is a view of."""
        base = self.storage.made[name][0] if name in self.storage.made else None
        return name if base is None else self.root(base)

    def number(self, node: Promise) -> str:
        """The name of an array without axes."""
        if node.op == "number":
            return self.name(f"array({float(node.more)!r}, T)", "c")
        self._numbers.add(node.index)
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
        made = f"empty({tuple(map(int, shape))}, '{dtype}')"
        if not self._spare.setdefault(made, []):
            self._spare[made].append(f"s{len(self.once)}")
            self.once.append(f"s{len(self.once)} = {made}")
        name = self._spare[made].pop()
        self._lent[name] = made
        return name

    def give_back(self, name: str) -> None:
        """Scratch that isn't needed any more."""
        self._spare[self._lent.pop(name)].append(name)

    def _write(self, results: Sequence[Promise], given: Sequence[Promise]) -> str:
        body = [f"t{node.index}[()] = d{node.index}" for node in given if not node.shape]
        body += [line for step in self.plan.steps for line in self._lines(step)]
        for k, node in enumerate(results):
            body.append(f"r{k}s[step] = {f'r{k}' if node.shape else _python(node)}")
            if node.shape:
                self.once.insert(0, f"r{k} = empty({tuple(map(int, node.shape))}, '{node.dtype}')")
        # a number becomes an array where one is read, which its own line doesn't know
        unread = re.compile(r"t(\d+)\[\(\)\] = ")
        body = [line for line in body if not (m := unread.match(line)) or int(m[1]) in self._numbers]
        self.once[:0] = [f"t{index} = empty((), T)" for index in sorted(self._numbers)]
        own = {given_name(node) for node in given}
        names = [given_name(node) for node in self.plan.order if node.op.startswith("input ")]
        used = set(re.findall(r"\w+", " ".join([*self.once, *body]))) - own
        self._arguments = [name for name in (*names, *self.storage.made) if name in used]
        parameters = [*(f"{given_name(node)}s" for node in given), *(f"r{k}s" for k in range(len(results)))]
        each = [given_name(node) if node.shape else f"d{node.index}" for node in given]
        rows = [f"{given_name(node)}s{'' if node.shape else '.tolist()'}" for node in given]
        lines = [
            "from numpy import *",
            "from gpubp.engines.calls import blocks",
            f"from numpy import {self.dtype} as T",
            f"def prepare({', '.join(self._arguments)}):",
            *(f"    {line}" for line in self.once),
            f"    def run({', '.join(parameters)}):",
            f"        for step, ({', '.join(each)},) in enumerate(zip({', '.join(rows)})):",
            *(f"            {line}" for line in body),
            "    return run",
        ]
        return "\n".join(lines) + "\n"

    def _lines(self, step: Step) -> list[str]:
        if isinstance(step, Nest):
            return _NestWriter(self, step).lines()
        if isinstance(step, Product):
            pairs = zip(step.node.args, step.node.more, strict=True)
            a, b = (self.name(self.place(arg) + (".T" if turned else "")) for arg, turned in pairs)
            return [f"dot({a}, {b}, {self.place(step.node)})"]
        if isinstance(step, Scalar):
            return _assigned(step.node, step.node.op.format(*map(_python, step.node.args)))
        return [f"copyto({self.storage.copy(step)}, {self.place(step.node.args[step.part])})"]


class _NestWriter:
    """The lines of a nest, in blocks of rows where it is large. A nest of few columns is turned: its arrays are
    (columns, rows), as NumPy is slow where it starts anew at every row. What has one number a row is (rows,) then,
    else (rows, 1)."""

    def __init__(self, calls: Calls, nest: Nest) -> None:
        self.calls, self.nest = calls, nest
        self.place = calls.storage.place
        self.turned = is_narrow(nest)
        self.nodes = self._nodes()
        self.rows = int(nest.size)
        wide = [node for node in nest.nodes.values() if nest.rows and not row_level(node)]
        width = max(map(columns, wide), default=1)
        many = -(-self.rows * width * calls.dtype.itemsize // _BLOCK)
        self.block = self.rows if len(nest.nodes) == 1 else -(-self.rows // max(many, 1))
        self.blocks = -(-self.rows // self.block) > 1
        self.whole = {self._origin(node.args[0]).index for node in self.nodes if node.op in OVER_ROWS}
        self.last = {self._origin(arg).index: at for at, node in enumerate(self.nodes) for arg in node.args}
        self.values: dict[
            int, tuple[str, str]
        ] = {}  # what is known: the array, and its rows: all, those of a block
        self.scratch: dict[int, str] = {}
        self.parts: dict[
            str, str
        ] = {}  # names by the text that makes them for the rows h, of which there are m
        self.body: list[str] = []
        self.ends: list[str] = []

    def lines(self) -> list[str]:
        after = []
        for at, node in enumerate(self.nodes):
            if node.op in OVER_ROWS:
                after += self._total(node)
            elif node.op != "{}" or node.index in self.place:
                self._compute(at, node)
        for name in self.scratch.values():
            self.calls.give_back(name)
        body = self.body + self.ends
        if not self.blocks:
            return body + after
        made = f"[(h, {', '.join(self.parts)}) for h, m in blocks({self.rows}, {self.block})]"
        loop = f"for h, {', '.join(self.parts.values())} in {self.calls.name(made, 'z')}:"
        return [loop, *(f"    {line}" for line in body), *after]

    def _nodes(self) -> list[Promise]:
        """The nest's nodes, and before them what is gathered for them alone."""
        found: dict[int, Promise] = {}

        def add(node: Promise) -> None:
            for arg in node.args:
                if arg.op == "take" and arg.index not in self.nest.nodes and self.calls.plan.free(arg):
                    add(arg)
            found.setdefault(node.index, node)

        for node in self.nest.nodes.values():
            add(node)
        return list(found.values())

    def _origin(self, node: Promise) -> Promise:
        """The node whose array it is."""
        while node.op == "{}" and node.index not in self.place:
            node = node.args[0]
        return node

    def _compute(self, at: int, node: Promise) -> None:
        if node.op == "take":
            self._take(at, node)
            return
        args = [self._read(arg, node) for arg in node.args]
        if node.op.startswith("rows "):
            self._reduce(node, args[0], self._out(at, node))
        elif node.op == "{}" or node.op == "T({})":
            self.body.append(f"copyto({self._out(at, node)}, {args[0]})")
        elif node.op in _CALLS:
            function = _CALLS[node.op]
            if function != "where":  # which writes before all is read
                self._release(at, node)
            out = self._out(at, node)
            if function == "where":
                self.body += [f"copyto({out}, {args[2]})", f"copyto({out}, {args[1]}, where={args[0]})"]
            else:
                given = "out=" if function in _PICKS else ""  # where NumPy wants it by name
                self.body.append(f"{function}({', '.join(args)}, {given}{out})")
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
        self.body.append(f"{self.calls.place(source)}.take({which}, 0, {out}, 'clip')")

    def _reduce(self, node: Promise, arg: str, out: str) -> None:
        kind = node.op.removeprefix("rows ")
        if kind == "argmax":
            self.body.append(f"argmax({arg}, {0 if self.turned else 1}, {self._flat(node)})")
        elif self.turned:
            self.body.append(f"{_REDUCTIONS[kind]}.reduce({arg}, 0, None, {out})")
        else:
            self.body.append(f"{_REDUCTIONS[kind]}.reduce({arg}, 1, None, {out}, True)")

    def _total(self, node: Promise) -> list[str]:
        """A reduction over all rows, when they are there."""
        arg = self._origin(node.args[0])
        text = self.values[arg.index][0] if arg.index in self.values else self._stored(arg)[0]
        whole, function = self.calls.name(text), _REDUCTIONS[node.op]
        if not node.shape:
            total = f"d{node.index} = float64({function}.reduce({whole}, None))"
            return [total, f"t{node.index}[()] = d{node.index}"]
        if node.index not in self.place:
            return []
        out = self.place[node.index]
        if self.turned and arg.rows_only:
            return [f"add.reduce({whole}, 0, None, {self.calls.name(f'{out}.reshape(())')})"]
        if self.turned or text != whole or arg.dtype != self.calls.dtype:
            return [f"add.reduce({whole}, {1 if self.turned else 0}, None, {out})"]
        return [f"dot({self.calls.name(f'ones({self.rows}, T)')}, {whole}, {out})"]

    def _read(self, arg: Promise, reader: Promise) -> str:
        arg = self._origin(arg)
        if arg.op == "number" and reader.op in _CALLS and _CALLS[reader.op] in _PICKS:
            # which are slow where one of them is a number
            made = f"full({self._shape(reader, self.block)}, {float(arg.more)!r}, T)"
            return self._part(made if self.blocks else self.calls.name(made), "m")
        if arg.op == "number" or not arg.shape:
            return self.calls.number(arg)
        return self._part(*(self.values[arg.index] if arg.index in self.values else self._stored(arg)))

    def _stored(self, node: Promise) -> tuple[str, str]:
        """The array in which it is, turned or not, and its rows."""
        name = self.calls.place(node)
        if node.index in self.calls.given or not (self.nest.rows or same(node.shape, (self.nest.size,))):
            raise Untraceable(f"{node.op} in a formula")
        if not self.nest.rows:
            return name, "h"
        if not isinstance(node.shape[0], Batch):
            return f"{name}[:, None]" if self.turned else name, ""
        if len(node.shape) == 1:
            return name if self.turned else f"{name}[:, None]", "h"
        turned = f"{name}[:, 0]" if node.rows_only else f"{name}.T"
        return turned if self.turned else name, "h"

    def _flat(self, node: Promise) -> str:
        """What has one number a row, as a vector."""
        if node.index in self.calls.given:
            return f"{self.calls.place(node)}[h]" if self.blocks else self.calls.place(node)
        node = self._origin(node)
        text, span = self.values[node.index] if node.index in self.values else self._stored(node)
        return self._part(text, span, "" if self.turned else "[:, 0]")

    def _part(self, text: str, span: str, suffix: str = "", turned: bool | None = None) -> str:
        """The name of those rows of an array."""
        if not self.blocks or not span:
            return self.calls.name(text + suffix)
        turned = self.turned if turned is None else turned
        text = f"{self.calls.name(text)}[{'..., ' if turned else ''}{span}]{suffix}"
        return self.parts.setdefault(text, f"p{len(self.parts)}")

    def _out(self, at: int, node: Promise) -> str:
        """Where it is computed: where it will be read from, or in scratch while something there is still needed."""
        if node.index in self.place:
            stored = self._stored(node)
            root, later = self._root(node), self.nodes[at + 1 :]
            superseded = self.place[node.index] in [self.place.get(other.index) for other in later]
            read = [self._origin(arg) for other in later for arg in other.args]
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
        return self.calls.root(self.place[node.index]) if node.index in self.place else None

    def _length(self, node: Promise) -> int:
        return self.rows if node.index in self.whole else self.block

    def _span(self, node: Promise) -> str:
        return "h" if node.index in self.whole else "m"

    def _shape(self, node: Promise, rows: int) -> tuple[int, ...]:
        if not self.nest.rows or (self.turned and node.rows_only):
            return (rows,)
        wide = 1 if node.rows_only else int(node.shape[1])
        return (wide, rows) if self.turned else (rows, wide)

    def _borrow(self, node: Promise, shape: Sequence[int]) -> str:
        self.scratch[node.index] = self.calls.borrow(shape, node.dtype)
        return self.scratch[node.index]

    def _release(self, at: int, node: Promise) -> None:
        """Scratch that this node read last."""
        for index in {self._origin(arg).index for arg in node.args} - self.whole:
            if index in self.scratch and self.last[index] == at:
                self.calls.give_back(self.scratch.pop(index))


def blocks(rows: int, size: int) -> list[tuple[slice, slice]]:
    """Slices of at most that size, and for each as many of the first rows."""
    starts = range(0, rows, size)
    return [(slice(i, min(i + size, rows)), slice(min(size, rows - i))) for i in starts]


def _assigned(node: Promise, text: str) -> list[str]:
    return [f"d{node.index} = {text}", f"t{node.index}[()] = d{node.index}"]


def _python(node: Promise) -> str:
    return f"({float(node.more)!r})" if node.op == "number" else f"d{node.index}"
