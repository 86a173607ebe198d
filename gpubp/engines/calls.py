"""What was promised, as the text of a Python function: NumPy's functions one after another, on arrays made beforehand.

Nothing is allocated, sliced or looked up between two of them, which is most of the time of a narrow network's step. In
the text ``d7`` and ``t7`` are number 7 as Python's and as an array, ``c0`` is a constant, ``a7`` an array, ``s0``
scratch, ``b0`` and ``p0`` are what is seen of an array and the part of it that is being worked on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gpubp._typing import Array
from gpubp.engines.call_nests import Made, NestCalls
from gpubp.engines.lazy import Graph, Promise
from gpubp.engines.plan import Nest, Plan, Product, Scalar, Step
from gpubp.engines.storage import Storage, given_name

__all__ = ["Calls"]


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
        self.made = Made()
        self.source = self._write(results, given)

    def arguments(self, given: Mapping[str, Array]) -> list[Array]:
        """The arguments of ``prepare``: inputs by name, and new buffers."""
        return self.storage.arrays(given, self._arguments)

    def _write(self, results: Sequence[Promise], given: Sequence[Promise]) -> str:
        body = [f"t{node.index}[()] = d{node.index}" for node in given if not node.shape]
        body += [line for step in self.plan.steps for line in self._lines(step)]
        for k, node in enumerate(results):
            body.append(f"r{k}s[step] = {f'r{k}' if node.shape else _python(node)}")
            if node.shape:
                self.made.once.insert(0, f"r{k} = empty({tuple(map(int, node.shape))}, '{node.dtype}')")
        # a number becomes an array where one is read, which its own line doesn't know
        unread = re.compile(r"t(\d+)\[\(\)\] = ")
        body = [line for line in body if not (m := unread.match(line)) or int(m[1]) in self.made.numbers]
        once = [*(f"t{index} = empty((), T)" for index in sorted(self.made.numbers)), *self.made.once]
        own = {given_name(node) for node in given}
        names = [given_name(node) for node in self.plan.order if node.op.startswith("input ")]
        used = set(re.findall(r"\w+", " ".join([*once, *body]))) - own
        self._arguments = [name for name in (*names, *self.storage.made) if name in used]
        parameters = [*(f"{given_name(node)}s" for node in given), *(f"r{k}s" for k in range(len(results)))]
        each = [given_name(node) if node.shape else f"d{node.index}" for node in given]
        rows = [f"{given_name(node)}s{'' if node.shape else '.tolist()'}" for node in given]
        lines = [
            "from numpy import *",
            "from gpubp.engines.call_nests import blocks",
            f"from numpy import {self.dtype} as T",
            f"def prepare({', '.join(self._arguments)}):",
            *(f"    {line}" for line in once),
            f"    def run({', '.join(parameters)}):",
            f"        for step, ({', '.join(each)},) in enumerate(zip({', '.join(rows)})):",
            *(f"            {line}" for line in body),
            "    return run",
        ]
        return "\n".join(lines) + "\n"

    def _lines(self, step: Step) -> list[str]:
        if isinstance(step, Nest):
            return NestCalls(step, self.plan, self.storage, self.made).lines()
        if isinstance(step, Product):
            pairs = zip(step.node.args, step.node.more, strict=True)
            place = self.storage.place
            a, b = (self.made.name(place[arg.index] + (".T" if turned else "")) for arg, turned in pairs)
            return [f"dot({a}, {b}, {place[step.node.index]})"]
        if isinstance(step, Scalar):
            return _assigned(step.node, step.node.op.format(*map(_python, step.node.args)))
        return [f"copyto({self.storage.copy(step)}, {self.storage.place[step.node.args[step.part].index]})"]


def _assigned(node: Promise, text: str) -> list[str]:
    return [f"d{node.index} = {text}", f"t{node.index}[()] = d{node.index}"]


def _python(node: Promise) -> str:
    return f"({float(node.more)!r})" if node.op == "number" else f"d{node.index}"
