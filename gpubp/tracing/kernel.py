"""A formula, element by element, as the text of one CUDA kernel: traced, so that it stays the only spelling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gpubp._typing import Formula
from gpubp.tracing import tracer
from gpubp.tracing.operations import Kind, Op, Untraceable
from gpubp.tracing.tracer import Graph, Promise

__all__ = ["Kernel", "written"]


class Kernel(NamedTuple):
    """``cupy.ElementwiseKernel``'s parameters, the outputs named o0, o1, ..., and its operation."""

    inputs: str
    outputs: str
    operation: str


def written(
    formula: Formula, shape: tuple[int, ...], dtype: str, arrays: int, are_floats: Sequence[bool]
) -> Kernel:
    """``formula(xp, *arrays, *numbers)`` on so many arrays of that shape, and numbers that are Python's floats or
    0-d arrays.

    Raises
    ------
    Untraceable : it does more than arithmetic on elements
    """
    graph = Graph(dtype)
    given = [graph.input(f"a{k}", shape) for k in range(arrays)]
    given += [graph.input(f"n{k}", ()) for k in range(len(are_floats))]
    try:
        results = formula(tracer.xp, *given)
        ends = [node.index for node in results if node.shape == shape and node.graph is graph]
    except Untraceable:
        raise
    except Exception as error:  # a user's formula may fail in any way on what isn't an array
        raise Untraceable(f"{type(error).__name__}: {error}") from error
    if len(ends) != len(results):
        raise Untraceable("a result of another shape")
    # Python computes with its own floats in double, also where the arrays are float32
    exact = {node.index for node, is_float in zip(given[arrays:], are_floats, strict=True) if is_float}
    lines, number = [], {"float32": "float", "float64": "double"}[dtype]
    for node in graph.known.values():
        if node.op is not Op.INPUT and not node.shape and all(a.index in exact for a in node.args):
            exact.add(node.index)
        kind = "double" if node.index in exact else number
        lines.append(
            f"const {'bool' if node.dtype == bool else kind} v{node.index} = {_text(node, shape, kind)};"
        )
    return Kernel(
        ", ".join(f"{'float64' if node.index in exact else dtype} i{node.index}" for node in given),
        ", ".join(f"{dtype} o{k}" for k in range(len(ends))),
        "\n".join([*lines, *(f"o{k} = v{index};" for k, index in enumerate(ends))]),
    )


def _text(node: Promise, shape: tuple[int, ...], kind: str) -> str:
    if node.shape not in ((), shape):
        raise Untraceable(f"the shape {node.shape}")
    if node.op is Op.INPUT:
        return f"i{node.index}"
    if node.op is Op.NUMBER and math.isfinite(float(node.more)):
        return f"({kind}){node.more}"
    if node.op.kind is not Kind.EACH or node.op.cuda is None:
        raise Untraceable(f"{node.op} is not done element by element")
    return node.op.cuda.format(*(f"(({_kind(a, kind)})v{a.index})" for a in node.args))


def _kind(node: Promise, kind: str) -> str:
    return "bool" if node.dtype == bool else kind
