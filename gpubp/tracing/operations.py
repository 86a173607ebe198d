"""What is done element by element: the operations by the template of Python text that stands for each, and what holds
for them as calls of NumPy's functions."""

from __future__ import annotations

from typing import NamedTuple

from gpubp.tracing.tracer import FUNCTIONS

__all__ = ["ELEMENTWISE", "Operation"]


class Operation(NamedTuple):
    """A function of NumPy's, element by element.

    Attributes
    ----------
    call : its name; "copyto" and "where" are written with more care
    in_place : the operands, by number, whose memory the result may take
    named : whether ``out`` is given by name
    """

    call: str
    in_place: frozenset[int]
    named: bool = False


def _ufunc(call: str, operands: int, named: bool = False) -> Operation:
    # NumPy reads every element of the operands before it writes that of the result
    return Operation(call, frozenset(range(operands)), named)


ELEMENTWISE = {
    **{
        f"({{}} {sign} {{}})": _ufunc(call, 2)
        for sign, call in {
            "+": "add",
            "-": "subtract",
            "*": "multiply",
            "/": "divide",
            "**": "power",
            "<": "less",
            "<=": "less_equal",
            ">": "greater",
            ">=": "greater_equal",
            "==": "equal",
            "!=": "not_equal",
        }.items()
    },
    # NumPy wants ``out`` by name here
    "({1} if {0} < {1} else {0})": _ufunc("maximum", 2, named=True),
    "({0} if {0} >= {1} or {0} != {0} else {1})": _ufunc("maximum", 2, named=True),
    "({1} if {0} > {1} else {0})": _ufunc("minimum", 2, named=True),
    "({0} if {0} <= {1} or {0} != {0} else {1})": _ufunc("minimum", 2, named=True),
    # two copies: all of the third operand, then what the first selects of the second
    "({1} if {0} else {2})": Operation("where", frozenset({2})),
    "{}": Operation("copyto", frozenset({0})),
    "T({})": Operation("copyto", frozenset({0})),
    **{f"{name}({{}})": _ufunc({"abs": "absolute"}.get(name, name), 1) for name in FUNCTIONS},
}
