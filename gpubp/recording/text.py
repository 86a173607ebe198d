"""What was promised, as the text of a Python function that does many steps: what its writers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

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

    source: str

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
        self.given, self.results = given, results
        self.of_step = [*map(given_name, given), *(f"r{k}" for k in range(len(results)))]
        self.every_step = [f"{name}s" for name in self.of_step]

    @abstractmethod
    def arguments(self, given: Mapping[str, Array], parts: int = 1) -> list[Array]:
        """What the text is given beside ``every_step``, for so many parts: inputs by name, and new buffers."""

    def known(self, used: Collection[str]) -> list[str]:
        """Those of the used names that are arrays: inputs that are needed, and what is made."""
        inputs = (given_name(node) for node in self.plan.order if node.op is Op.INPUT)
        return [name for name in (*inputs, *self.storage.made) if name in used and name not in self.of_step]
