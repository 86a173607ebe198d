"""In which order what was promised is computed: products, and between them loops that do all the work on the same rows.

Neighbouring work goes into one loop (a nest), so that a batch is read and written as seldom as can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpubp.tracing.operations import Kind, Means, Op, Size, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = [
    "COPIED",
    "Copy",
    "Nest",
    "Plan",
    "Product",
    "Scalar",
    "Step",
    "columns",
    "over",
    "row_level",
    "stages",
    "stored_as",
]


@dataclass
class Nest:
    """Element-wise work on the rows of a batch, or on the elements of a vector, in one pass."""

    size: Size  # of the batch, or of the vectors
    nodes: dict[int, Promise] = field(default_factory=dict)

    @property
    def rows(self) -> bool:
        return self.size.means is Means.BATCH


@dataclass
class Product:
    """A product of two matrices."""

    node: Promise


@dataclass
class Scalar:
    """A number."""

    node: Promise


@dataclass
class Copy:
    """A part of a joined vector that could not be computed in its place."""

    node: Promise
    part: int


Step = Nest | Product | Scalar | Copy

COPIED = {Op.INPUT, Op.SLICE}  # to where they are joined: they are in memory already


class Plan:
    """The steps towards ``ends``.

    Attributes
    ----------
    order : everything that is needed, as it was promised
    steps : nests, products, numbers, and copies, in the order in which they are done
    where : the step that makes each promise, by its index

    Raises
    ------
    Untraceable : it can't be done in loops
    """

    def __init__(self, ends: Sequence[Promise]) -> None:
        self.steps: list[Step] = []
        self.where: dict[int, int] = {}
        self.ends = {node.index for node in ends}
        self.order = _needed(ends)
        self._operands = {arg.index for node in self.order if node.op is Op.MATMUL for arg in node.args}
        self._schedule()

    def _schedule(self) -> None:
        for node in self.order:  # numbers that wait for nothing, so that they part no loops
            if node.shape == () and node.args and all(a.shape == () and self._known(a) for a in node.args):
                self._append(Scalar(node))
        for node in self.order:
            if node.op is Op.MATMUL:
                for arg in node.args:
                    self._make(arg)
                self._append(Product(node))
            elif node.op.kind is Kind.ALL:
                self._absorb(node)
            elif node.op is Op.CONCAT:
                for part in node.args:
                    self._make(part)
                self.where[node.index] = len(self.steps) - 1
                for number, part in enumerate(node.args):
                    if stored_as(part).op in COPIED:
                        self._append(Copy(node, number))
            elif node.index in self.ends:
                self._make(node)

    def _known(self, node: Promise) -> bool:
        return self.free(node) or node.index in self.where

    def _append(self, step: Product | Scalar | Copy) -> None:
        self.where[step.node.index] = len(self.steps)
        self.steps.append(step)

    def _waiting(self, node: Promise) -> list[Promise]:
        """What must be computed before ``node`` is there, and it itself, in order."""
        found: dict[int, Promise] = {}
        todo = [node]
        while todo:
            here = todo.pop()
            if here.index in found or self._known(here):
                continue
            if here.op.kind is not Kind.VIEW and here.op is not Op.TRANSPOSE:
                found[here.index] = here
            todo += here.args
        return [found[index] for index in sorted(found)]

    def _make(self, node: Promise) -> None:
        for part in self._waiting(node):
            if part.op is Op.MATMUL:
                self._append(Product(part))
            elif part.shape == () and part.op.kind is not Kind.ALL:
                self._append(Scalar(part))
            else:
                self._into_nest(part, self._last_nest(part))

    def _last_nest(self, node: Promise) -> int:
        """The place of the last nest, where no product came after it and the node fits in, else of a new one."""
        at = len(self.steps) - 1
        while at >= 0 and isinstance(self.steps[at], Scalar):
            at -= 1
        if at < 0 or not self._fits(node, at):
            self.steps.append(Nest(over(node)))
            at = len(self.steps) - 1
        return at

    def _into_nest(self, node: Promise, at: int) -> None:
        nest = self.steps[at]
        assert isinstance(nest, Nest)
        nest.nodes[node.index] = node
        self.where[node.index] = at

    def _fits(self, node: Promise, at: int) -> bool:
        nest = self.steps[at]
        return (
            isinstance(nest, Nest)
            and nest.size == over(node)
            and all(self._at_hand(arg, at) for arg in node.args)
        )

    def _at_hand(self, arg: Promise, at: int) -> bool:
        """Whether ``arg`` can be read inside the nest at that place."""
        arg = _base(arg)
        if self.free(arg):
            return all(self._at_hand(below, at) for below in arg.args)
        made = self.where.get(arg.index, len(self.steps))
        return made < at or (made == at and arg.op.kind is not Kind.ALL and arg.op is not Op.CONCAT)

    def _absorb(self, node: Promise) -> None:
        """A reduction over rows: into the nest that makes what it reduces, where all it needs is at hand there."""
        waiting = self._waiting(node)
        args = [_base(arg).index for part in waiting for arg in part.args]
        at = max((self.where[index] for index in args if index in self.where), default=-1)
        taken = []
        for part in waiting:
            if at < 0 or (part.shape == () and part is not node) or not self._fits(part, at):
                break
            self._into_nest(part, at)
            taken.append(part)
        else:
            return
        for part in taken:  # all or nothing
            nest = self.steps[at]
            assert isinstance(nest, Nest)
            del nest.nodes[part.index], self.where[part.index]
        self._make(node)

    def free(self, node: Promise) -> bool:
        """Read where it is needed, never computed beforehand."""
        gathered = node.op is Op.TAKE and node.index not in self._operands
        return gathered or node.op.kind is Kind.SOURCE


def _needed(ends: Sequence[Promise]) -> list[Promise]:
    found: dict[int, Promise] = {}
    todo = list(ends)
    while todo:
        node = todo.pop()
        if node.index not in found:
            found[node.index] = node
            todo += node.args
    return [found[index] for index in sorted(found)]


def _base(node: Promise) -> Promise:
    """The node that it is a view of."""
    while node.op.kind is Kind.VIEW:
        node = node.args[0]
    return node


def stored_as(node: Promise) -> Promise:
    """The node in whose memory it stands."""
    while node.op is Op.RESHAPE and len(node.shape) == 1:
        node = node.args[0]
    return node


def over(node: Promise) -> Size:
    """What a loop for this node runs over."""
    through = node.args[0] if node.op.kind is Kind.ALL else node
    if not through.shape or (through.ndim == 2 and not through.of_batch):
        raise Untraceable(f"{node.op} of the shape {through.shape}")
    return through.sizes[0]


def row_level(node: Promise) -> bool:
    """One value for each row, known where all columns have been seen."""
    if node.op.kind is Kind.ALL:
        return node.args[0].rows_only
    return node.rows_only and node.op.kind is not Kind.ROW


def columns(node: Promise) -> Size:
    """How many columns the loop runs over that computes it."""
    wide = node.args[0] if node.op.kind in (Kind.ALL, Kind.ROW) else node
    return wide.sizes[1]


def stages(nest: Nest) -> dict[int, int]:
    """How many reductions over its columns must be finished before each node of a nest."""
    found: dict[int, int] = {}
    for node in nest.nodes.values():
        before = [found[a.index] + (a.op.kind is Kind.ROW) for a in node.args if a.index in found]
        found[node.index] = max(before, default=0)
    return found
