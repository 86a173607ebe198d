"""What was promised, as the text of a Python function: NumPy's functions one after another, on arrays made beforehand.

Nothing is allocated, sliced or looked up between two of them, which is most of the time of a narrow network's step. In
the text ``d7`` and ``t7`` are number 7 as Python's and as an array, ``c0`` is a constant, ``a7`` an array, ``s0``
scratch, ``b0`` and ``p0`` are what is seen of an array and the part of it that is being worked on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gpubp.recording.memory import given_name
from gpubp.recording.numpy_loops import Made, NestCalls
from gpubp.recording.schedule import Nest, Product, Scalar, Step
from gpubp.recording.text import Text, said
from gpubp.tracing.operations import Op
from gpubp.tracing.tracer import Promise

__all__ = ["Calls"]


class Calls(Text):
    """``source`` defines ``prepare(*arrays)``, which gives ``run(*given, *results)``."""

    def __init__(self, *promised: Any) -> None:
        self.made = Made()
        super().__init__(*promised)

    def write(self, results: Sequence[Promise], given: Sequence[Promise]) -> str:
        """The text: what is made once, and the calls of a step."""
        body = [f"t{node.index}[()] = d{node.index}" for node in given if not node.shape]
        body += [line for step in self.plan.steps for line in self._lines(step)]
        for k, node in enumerate(results):
            body.append(f"r{k}s[step] = {f'r{k}' if node.shape else _python(node)}")
            if node.shape:
                self.made.once.insert(0, f"r{k} = empty({node.shape}, '{node.dtype}')")
        # a number becomes an array where one is read, which its own line doesn't know
        unread = re.compile(r"t(\d+)\[\(\)\] = ")
        body = [line for line in body if not (m := unread.match(line)) or int(m[1]) in self.made.numbers]
        once = [*(f"t{index} = empty((), T)" for index in sorted(self.made.numbers)), *self.made.once]
        own = {given_name(node) for node in given}
        used = set(re.findall(r"\w+", " ".join([*once, *body]))) - own
        self.wanted = [name for name in (*self.inputs(), *self.storage.made) if name in used]
        each = [given_name(node) if node.shape else f"d{node.index}" for node in given]
        rows = [f"{given_name(node)}s{'' if node.shape else '.tolist()'}" for node in given]
        lines = [
            "from numpy import *",
            "from gpubp.recording.numpy_loops import blocks",
            f"from numpy import {self.dtype} as T",
            f"def prepare({', '.join(self.wanted)}):",
            *(f"    {line}" for line in once),
            f"    def run({', '.join(self.every_step)}):",
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
            return _assigned(step.node, said(step.node.op, *map(_python, step.node.args)))
        return [f"copyto({self.storage.copy(step)}, {self.storage.place[step.node.args[step.part].index]})"]


def _assigned(node: Promise, text: str) -> list[str]:
    return [f"d{node.index} = {text}", f"t{node.index}[()] = d{node.index}"]


def _python(node: Promise) -> str:
    return f"({float(node.more)!r})" if node.op is Op.NUMBER else f"d{node.index}"
