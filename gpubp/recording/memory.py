"""Where what is computed is kept: in the states it replaces, in one vector it is joined to, or in a buffer.

A buffer is used again once its last reader is done, also within one nest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpubp._typing import Array
from gpubp.recording.schedule import COPIED, Copy, Nest, Plan, stages, stored_as
from gpubp.tracing.operations import Kind, Op, Untraceable
from gpubp.tracing.tracer import Promise

__all__ = ["Storage", "given_name"]


class Storage:
    """Names of arrays, and how to make those that aren't given.

    Attributes
    ----------
    place : by a promise's index, the array that it is read from
    made : by name: the array it is a view of (None: an array of its own), where it starts there, its shape and dtype

    Raises
    ------
    Untraceable : something would be in two places, or read after it was overwritten
    """

    def __init__(
        self, plan: Plan, states: Sequence[tuple[Promise, Promise]], results: Sequence[Promise]
    ) -> None:
        self.plan = plan
        self.place: dict[int, str] = {}
        self.made: dict[str, tuple[str | None, int, tuple[int, ...], Any]] = {}
        self._read_at: dict[int, set[int]] = {}
        self._find_readers()
        for old, new in states:
            readers = self._read_at.get(old.index, set())
            if new is not old and (new.op is Op.CONCAT or max(readers, default=0) > plan.where[new.index]):
                raise Untraceable("a state that is read after its successor is known")
            self._put(new, given_name(old))
        for k, node in enumerate(results):
            if node.shape:
                self._put(node, f"r{k}")
        for node in plan.order:
            if node.op is Op.INPUT:
                self.place[node.index] = given_name(node)
            elif node.op is Op.CONCAT:
                self._join(node)
            elif node.op is Op.SLICE or (node.op is Op.RESHAPE and node.ndim == 2):
                start = node.more[0] if node.op is Op.SLICE else 0
                self._put(node, self._make(node, self.place[node.args[0].index], start))
        self._share()
        for step in plan.steps:
            if isinstance(step, Copy):
                part, ahead = step.node.args[step.part], step.node.args[: step.part]
                start = sum(before.shape[0] for before in ahead)
                self.made[_copied(step)] = self.place[step.node.index], start, part.shape, part.dtype

    def where(self, node: Promise) -> str:
        """The array that it is read from.

        Raises
        ------
        Untraceable : there is none
        """
        if node.index not in self.place:
            raise Untraceable(f"{node.op} is in no array")
        return self.place[node.index]

    def copy(self, step: Copy) -> tuple[str, str]:
        """The part of a joined vector that is copied there, and what is."""
        return _copied(step), self.where(step.node.args[step.part])

    def root(self, name: str) -> str:
        """The array that one of that name is a view of."""
        base = self.made[name][0] if name in self.made else None
        return name if base is None else self.root(base)

    def region(self, name: str) -> tuple[str, float, float]:
        """The array that one of that name is a view of, and from where to where."""
        if name not in self.made or self.made[name][0] is None:
            return name, 0.0, math.inf
        base, start, shape, _ = self.made[name]
        assert base is not None
        root, before, _ = self.region(base)
        return root, before + start, before + start + math.prod(shape)

    def arrays(self, given: Mapping[str, Array], wanted: Sequence[str]) -> list[Array]:
        """The arrays of those names: given ones, new ones, and views of them."""
        found: dict[str, Any] = {f"in_{name}": array for name, array in given.items()}
        for name, (base, start, shape, dtype) in self.made.items():
            if base is None:
                found[name] = np.empty(shape, dtype=dtype)
            elif base in found:
                found[name] = found[base].reshape(-1)[start : start + int(np.prod(shape))].reshape(shape)
        return [found[name] for name in wanted]

    def _put(self, node: Promise, name: str) -> None:
        if self.place.setdefault(node.index, name) != name:
            raise Untraceable("an array in two places at once")

    def _make(self, node: Promise, base: str | None = None, start: int = 0) -> str:
        name = f"a{node.index}"
        self.made[name] = base, start, node.shape, node.dtype
        return name

    def _find_readers(self) -> None:
        """The steps that read each node from memory."""
        for number, step in enumerate(self.plan.steps):
            if isinstance(step, Copy):
                self._note(step.node.args[step.part], number)
            else:
                for node in step.nodes.values() if isinstance(step, Nest) else [step.node]:
                    for arg in node.args:
                        self._note(arg, number)
        for node in self.plan.order:
            if node.op is Op.CONCAT:
                for part in node.args:
                    self._note(part, self.plan.where[node.index] + 1)
            if node.index in self.plan.ends and node.shape:
                self._note(node, len(self.plan.steps))

    def _note(self, arg: Promise, number: int) -> None:
        self._read_at.setdefault(arg.index, set()).add(number)
        if self.plan.free(arg) or arg.op.kind is Kind.VIEW or arg.op in (Op.TRANSPOSE, Op.CONCAT):
            for below in arg.args:
                self._note(below, number)

    def _join(self, node: Promise) -> None:
        whole = self._make(node)
        self._put(node, whole)
        start = 0
        for part in node.args:
            made = stored_as(part)
            if made.op not in COPIED:
                if made.index in self.place:
                    raise Untraceable("an array in two places at once")
                self._put(made, self._make(made, whole, start))
            start += part.shape[0]

    def _share(self) -> None:
        """A buffer for each node that a later step reads; one for several whose times don't meet."""
        held: dict[str, Promise] = {}  # what each buffer holds
        for number, step in enumerate(self.plan.steps):
            for node in step.nodes.values() if isinstance(step, Nest) else [step.node]:
                last = max(self._read_at.get(node.index, (-1,)))
                if last <= number or node.index in self.place or not node.shape or self.plan.free(node):
                    continue
                free = (name for name, old in held.items() if self._may_replace(old, node, number))
                name = next(free, None) or self._make(node)
                if node.of_batch:
                    held[name] = node
                self.place[node.index] = name

    def _may_replace(self, old: Promise, new: Promise, number: int) -> bool:
        """Whether the step of that number may write ``new`` where ``old`` is."""
        if old.dtype != new.dtype or old.sizes != new.sizes:
            return False
        until, step = max(self._read_at[old.index]), self.plan.steps[number]
        if until == number and isinstance(step, Nest):
            when = stages(step)
            readers = [node for node in step.nodes.values() if any(arg is old for arg in node.args)]
            return max((when[node.index] for node in readers), default=0) <= when[new.index]
        return until < number


def _copied(step: Copy) -> str:
    return f"a{step.node.index}_{step.part}"


def given_name(node: Promise) -> str:
    """The name of an input, which no other name here can be."""
    return f"in_{node.more}"
