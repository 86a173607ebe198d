"""What was promised, as the text of a Python function that does many steps: what its writers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from gpubp._typing import Array
from gpubp.recording.memory import Storage, given_name
from gpubp.recording.schedule import Plan
from gpubp.tracing.operations import Op, Untraceable
from gpubp.tracing.tracer import Graph, Promise

__all__ = ["Text", "said"]


def said(op: Op, *operands: str) -> str:
    """What Python says for an operation.

    Raises
    ------
    Untraceable : nothing
    """
    if op.python is None:
        raise Untraceable(f"{op} of numbers")
    return op.python.format(*operands)


class Text(ABC):
    """A plan, where it keeps what it computes, and ``source``, the text.

    Parameters
    ----------
    states : (old, new): the input that a step overwrites, and what with
    results : numbers and vectors, one of each a step; their arrays have one more axis in front
    given : inputs of which every step has its own: the function gets arrays with one more axis in front

    Raises
    ------
    Untraceable : it can't be written down so
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
        self.every_step = [
            *(f"{given_name(node)}s" for node in given),
            *(f"r{k}s" for k in range(len(results))),
        ]
        self.wanted: list[str] = []
        self.source = self.write(results, given)

    def arguments(self, given: Mapping[str, Array], parts: int = 1) -> list[Array]:
        """What the text is given beside ``every_step``, for so many parts: inputs by name, and new buffers."""
        return self.storage.arrays(given, self.wanted, parts)

    @abstractmethod
    def write(self, results: Sequence[Promise], given: Sequence[Promise]) -> str:
        """The text, with ``every_step`` among the function's parameters; sets ``wanted``, the names of its arrays."""

    def inputs(self) -> list[str]:
        """The names of the inputs that are needed."""
        return [given_name(node) for node in self.plan.order if node.op is Op.INPUT]
