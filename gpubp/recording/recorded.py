"""Training steps recorded: run once on promises, by the generic engine, and written down. The formulas stay the only
spelling of what is done."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpubp._typing import Array
from gpubp.engines.generic import Generic
from gpubp.recording.numpy_writer import Calls
from gpubp.recording.text import Text
from gpubp.tracing import tracer
from gpubp.tracing.operations import Untraceable, batch
from gpubp.tracing.tracer import Graph, Promise

__all__ = ["Recorded", "Replayed", "Step", "Untraceable"]

logger = logging.getLogger("gpubp")

# step(engine, fixed, states, which, *numbers) -> (new states, results)
Step = Callable[..., tuple[Sequence[Promise], Sequence[Promise]]]


class Recorded(ABC):
    """Steps over minibatches of B rows, many in one call.

    Parameters
    ----------
    step : ``step(engine, fixed, states, which, *numbers)`` gives the new states, in order, and results: numbers or
        vectors; ``fixed`` and ``states`` are arrays by name, ``which`` (B,) the rows of the minibatch
    fixed, states : NumPy arrays; the states are overwritten
    numbers : how many numbers each step is given

    Raises
    ------
    Untraceable : the step does something that can't be written down
    """

    parts = 1  # into which the work of a step is cut

    def __init__(
        self, step: Step, fixed: Mapping[str, Array], states: Mapping[str, Array], B: int, numbers: int
    ) -> None:
        dtype = next(iter(states.values())).dtype
        graph = Graph(dtype)
        promised = {
            name: graph.input(name, array.shape, array.dtype) for name, array in {**fixed, **states}.items()
        }
        given = [graph.input("which", (batch(B),), np.int64)]
        given += [graph.input(f"number{k}", ()) for k in range(numbers)]
        try:
            new, results = step(
                Generic(tracer.xp),
                {name: promised[name] for name in fixed},
                {name: promised[name] for name in states},
                *given,
            )
            ends = [(promised[name], end) for name, end in zip(states, new, strict=True)]
            text = self.text(graph, ends, results, given)
        except Untraceable:
            raise
        except Exception as error:  # a user's formula may fail in any way on what isn't an array
            raise Untraceable(f"{type(error).__name__}: {error}") from error
        self.batch_size, self.numbers = B, numbers
        self.dtype, self.shapes, self.source = dtype, [result.shape for result in results], text.source
        self.arguments = text.arguments({**fixed, **states}, self.parts)

    def run(self, which: Array, *numbers: Array) -> list[Array]:
        """Steps one after another, on the rows ``which`` (steps, B), with their numbers, (steps,) each: the results,
        with one more axis in front."""
        results = [np.empty((which.shape[0], *shape), self.dtype) for shape in self.shapes]
        self._run(which, *numbers, *results)
        return results

    @abstractmethod
    def text(self, *promised: Any) -> Text:
        """How it is written down."""

    @abstractmethod
    def get_ready(self) -> None:
        """Make what ``run`` needs."""

    @abstractmethod
    def _run(self, which: Array, *numbers_and_results: Array) -> None:
        """Do the steps, and write their results."""


class Replayed(Recorded):
    """As NumPy's functions one after another."""

    def text(self, *promised: Any) -> Text:
        return Calls(*promised)

    def get_ready(self) -> None:
        """Make the arrays that every step uses."""
        names: dict[str, Any] = {}
        exec(compile(self.source, "a training step", "exec"), names)
        self._calls = names["prepare"](*self.arguments)
        logger.info("training steps are recorded")

    def _run(self, which: Array, *numbers_and_results: Array) -> None:
        self._calls(which, *numbers_and_results)
