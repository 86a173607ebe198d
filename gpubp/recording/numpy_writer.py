"""What was promised, as the text of a Python function: NumPy's functions one after another, on arrays made beforehand.

Nothing is allocated, sliced or looked up between two of them, which is most of the time of a narrow network's step. In
the text ``d7`` and ``t7`` are number 7 as Python's and as an array, ``c0`` is a constant, ``a7`` an array, ``s0``
scratch, ``b0`` and ``p0`` are what is seen of an array and the part of it that is being worked on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpubp._typing import Array
from gpubp.recording.memory import given_name
from gpubp.recording.numpy_loops import AsArray, Line, Made, NestCalls
from gpubp.recording.schedule import Nest, Product, Scalar, Step
from gpubp.recording.text import Text, said
from gpubp.tracing.operations import Op
from gpubp.tracing.tracer import Promise

__all__ = ["Calls"]


class Calls(Text):
    """``source`` defines ``prepare(*arrays)``, which gives ``run(*given, *results)``."""

    def __init__(self, *promised: Any) -> None:
        super().__init__(*promised)
        self.made = Made()
        body: list[Line] = [AsArray(node.index) for node in self.given if not node.shape]
        body += [line for step in self.plan.steps for line in self._lines(step)]
        for k, node in enumerate(self.results):
            body.append(f"r{k}s[step] = {f'r{k}' if node.shape else _python(node)}")
            if node.shape:
                self.made.once.insert(0, f"r{k} = empty({node.shape}, '{node.dtype}')")
        self._wanted = self.known(self.made.used)
        # a number becomes an array only where one is read
        numbers = self.made.numbers
        self.source = self._text(
            [str(line) for line in body if isinstance(line, str) or line.number in numbers]
        )

    def arguments(self, given: Mapping[str, Array], parts: int = 1) -> list[Array]:
        """The arguments of ``prepare``: inputs by name, and new buffers."""
        return self.storage.arrays(given, self._wanted)

    def _text(self, body: Sequence[str]) -> str:
        once = [*(f"t{index} = empty((), T)" for index in sorted(self.made.numbers)), *self.made.once]
        each = [given_name(node) if node.shape else f"d{node.index}" for node in self.given]
        rows = [f"{given_name(node)}s{'' if node.shape else '.tolist()'}" for node in self.given]
        lines = [
            "from numpy import *",
            "from gpubp.recording.numpy_loops import blocks",
            f"from numpy import {self.dtype} as T",
            f"def prepare({', '.join(self._wanted)}):",
            *(f"    {line}" for line in once),
            f"    def run({', '.join(self.every_step)}):",
            f"        for step, ({', '.join(each)},) in enumerate(zip({', '.join(rows)})):",
            *(f"            {line}" for line in body),
            "    return run",
        ]
        return "\n".join(lines) + "\n"

    def _lines(self, step: Step) -> list[Line]:
        if isinstance(step, Nest):
            return NestCalls(step, self.plan, self.storage, self.made).lines()
        if isinstance(step, Product):
            a, b, out = (self.made.array(self.storage.where(node)) for node in (*step.node.args, step.node))
            transposed = zip((a, b), step.node.more, strict=True)
            a, b = (self.made.name(name + (".T" if turned else "")) for name, turned in transposed)
            return [f"dot({a}, {b}, {out})"]
        if isinstance(step, Scalar):
            text = said(step.node.op, *map(_python, step.node.args))
            return [f"d{step.node.index} = {text}", AsArray(step.node.index)]
        new, old = map(self.made.array, self.storage.copy(step))
        return [f"copyto({new}, {old})"]


def _python(node: Promise) -> str:
    return f"({float(node.more)!r})" if node.op is Op.NUMBER else f"d{node.index}"
