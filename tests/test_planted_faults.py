"""Faults planted in planner and writers, one at a time: the proof in exact arithmetic finds each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import proof
import pytest
from planting import Fault, copied, planted

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


def in_module(module: str, *faults: tuple[str, str, str]) -> list[Fault]:
    return [Fault(module, *fault) for fault in faults]


FAULTS = [
    *in_module(
        "tracing/tracer.py",
        (
            "key = (op, tuple(id(a) for a in args), sizes, more)",
            "key = (op, tuple(id(a) for a in args), sizes)",
            "numbers and columns that differ are taken for one",
        ),
        (
            "_each(Op.SUBTRACT, other, self)",
            "_each(Op.SUBTRACT, self, other)",
            "operands of 1 - x change places",
        ),
        (
            "Op.MINIMUM if isinstance(b, Promise) else Op.AT_MOST",
            "Op.MINIMUM if isinstance(b, Promise) else Op.AT_LEAST",
            "the smaller is the larger",
        ),
        (
            "_each(Op.WHERE, condition, a, b)",
            "_each(Op.WHERE, condition, b, a)",
            "a sign is chosen the other way round",
        ),
    ),
    *in_module(
        "recording/schedule.py",
        (
            "found[a.index] + (a.op.kind is Kind.ROW)",
            "found[a.index]",
            "sums of rows are read in the stage that makes them",
        ),
        (
            "made == at and arg.op.kind is not Kind.ALL and arg.op is not Op.CONCAT",
            "made == at",
            "a total is read in the loop that makes it",
        ),
        (
            "if stored_as(part).op in COPIED:",
            "if stored_as(part).op in COPIED - {Op.SLICE}:",
            "a part of a joined vector isn't copied there",
        ),
    ),
    *in_module(
        "tracing/operations.py",
        (
            'Call("copyto", frozenset({2}))',
            'Call("copyto", frozenset({0, 1, 2}))',
            "where writes over what it reads later",
        ),
        ('_comparison("less", "<")', '_comparison("less_equal", "<")', "another comparison is called"),
        ('_comparison("greater", ">")', '_comparison("greater_equal", ">")', "0 counts as positive"),
        (
            '"{1} if {1} > {0} or {1} != {1} else {0}"',
            '"{1} if {1} > {0} else {0}"',
            "NaN isn't the largest",
        ),
        ('"T(-inf)"', '"T(0)"', "the largest of a row starts from 0"),
    ),
    *in_module(
        "recording/memory.py",
        (
            "return until < number",
            "return until <= number",
            "a buffer is freed before its last reader is done",
        ),
        ("<= when[new.index]", "<= when[new.index] + 1", "a buffer is freed a stage too early"),
        ("held[name] = node", "held.setdefault(name, node)", "only the first holder of a buffer counts"),
        (
            "old.sizes != new.sizes",
            "len(old.shape) != len(new.shape)",
            "a buffer of another shape is taken",
        ),
        ("if old.dtype != new.dtype or", "if", "a buffer of another dtype is taken"),
        (
            "[start : start + int(np.prod(shape))]",
            "[: int(np.prod(shape))]",
            "views start where the whole starts",
        ),
        (
            "self._put(made, self._make(made, whole, start))\n            start +=",
            "self._put(made, self._make(made, whole, start))\n            start =",
            "the parts of a joined vector overlap",
        ),
        (
            "self.place[step.node.index], start, part.shape",
            "self.place[step.node.index], 0, part.shape",
            "a copied part goes to the start of the whole",
        ),
        (
            "max(readers, default=0) > plan.where[new.index]",
            "False",
            "a state is written before it was last read",
        ),
    ),
    *in_module(
        "recording/numba_writer.py",
        (
            "(a, b), (a_turned, b_turned) = map",
            "(a, b), (b_turned, a_turned) = map",
            "the other factor is transposed",
        ),
        ("ends.append(_MEET)", 'ends.append("pass")', "no barrier between steps"),
        ('f"if is_wide({out}): {_MEET}"', "None", "no barrier around products cut the other way"),
        (
            'before.append(f"{self._names.sums(node)}[:] = T(0)")',
            'before.append("pass")',
            "sums aren't reset",
        ),
        (
            "aligned = not nest.rows or arg.of_batch",
            "aligned = True",
            "what all rows share counts as each part's own",
        ),
        (
            '"for other in range(1, parts):"',
            '"for other in range(2, parts):"',
            "one part's total is left out",
        ),
        (
            "{Access(a, Share.ALL), Access(b, Share.ALL)}",
            "{Access(a, Share.ROWS), Access(b, Share.ROWS)}",
            "a product counts as reading each part's rows alone",
        ),
    ),
    *in_module(
        "recording/barriers.py",
        (
            "[(before.writes, after.reads | after.writes), (before.reads, after.writes)]",
            "[(before.writes, after.reads | after.writes)]",
            "no barrier before what others read is written",
        ),
        (
            "[(before.writes, after.reads | after.writes), (before.reads, after.writes)]",
            "[(before.writes, after.writes), (before.reads, after.writes)]",
            "no barrier before what others wrote is read",
        ),
        (
            "a.share != b.share or a.share is Share.ALL",
            "a.share is Share.ALL",
            "a part may read all that others write",
        ),
        (
            "a_span[0] < b_span[1] and b_span[0] < a_span[1]",
            "False",
            "views of one array count as apart",
        ),
    ),
    *in_module(
        "recording/wide_loops.py",
        (
            "self.stages[n.index] > mine",
            "self.stages[n.index] > mine + 1",
            "the next stage isn't left what it reads",
        ),
        (
            'ends.append(f"{self._element(node)} = v{node.index}")',
            'lines.append(f"{self._element(node)} = v{node.index}")',
            "what is read later in a loop is written over",
        ),
        (
            'f"if {value} > w{node.index}:"',
            'f"if {value} >= w{node.index}:"',
            "the last of equal numbers is the largest",
        ),
        (
            "range({self.names.size(nodes, width)})",
            "range(1, {self.names.size(nodes, width)})",
            "the first column is left out",
        ),
    ),
    *in_module(
        "recording/narrow_loops.py",
        (
            "if {arg} > {best}[i] else",
            "if {arg} >= {best}[i] else",
            "the last of equal numbers is the largest",
        ),
        (
            'f"for first in range(0, {self.rows}, {_ROWS}):"',
            'f"for first in range(0, {self.rows} // {_ROWS} * {_ROWS}, {_ROWS}):"',
            "rows after the last whole block are left out",
        ),
        (
            'self._loop(node, f"{name}[i] = {node.op.start}")',
            'self._loop(node, "pass")',
            "sums of rows aren't reset",
        ),
        (
            'self.ready[node.index] = self.names.scratch(node, shape, "s")',
            'self.ready[node.index] = self.names.scratch(self.nodes[0], shape, "s")',
            "all numbers share one scratch array",
        ),
    ),
    *in_module(
        "recording/numpy_loops.py",
        (
            "starts = range(0, rows, size)",
            "starts = range(0, rows - size + 1, size)",
            "a block's last rows are left out",
        ),
        ("self.last[index] == at", "self.last[index] >= at", "scratch is given back before it was last read"),
        ("- self.whole - kept", "- kept", "scratch is given back before it is summed"),
        (
            "self._root(arg) == root and arg is not node and arg.index not in self.scratch for arg in read",
            "False for arg in read",
            "a state is overwritten while it is still read",
        ),
        ("self.last[node.index] = len(self.nodes)", "pass", "scratch is given back before it is copied"),
        (
            "(after if self._origin(node.args[0]).index in self.values else before)",
            "after",
            "what a nest overwrites is summed after it",
        ),
        (
            "{0 if self.turned else 1}, {self._flat(node)}",
            "{1 if self.turned else 0}, {self._flat(node)}",
            "the largest of columns, not of rows",
        ),
        (
            'return "h" if node.index in self.whole else "m"',
            'return "m"',
            "every block is written to the first one's rows",
        ),
        (
            "return self.rows if node.index in self.whole else self.block",
            "return self.block",
            "room for one block alone",
        ),
    ),
    *in_module(
        "recording/numpy_writer.py",
        (
            '(".T" if turned else "")',
            '(".T" if not turned else "")',
            "factors are transposed that shouldn't be",
        ),
        ('f"r{k}s[step] = ', 'f"r{k}s[0] = ', "every step's results are the first one's"),
        (
            "[AsArray(node.index) for node in self.given if not node.shape]",
            "[]",
            "a step doesn't get its numbers as arrays",
        ),
    ),
    *in_module(
        "recording/team.py",
        (
            "if part < parts else size",
            "if part < parts else size // _UNIT * _UNIT",
            "the last rows are no part's",
        ),
        ("for other in range(1, parts):", "for other in range(2, parts):", "one part's sums are left out"),
        (
            "first * b.shape[1] if b_turned else first",
            "first if b_turned else first * b.shape[1]",
            "a part's columns start elsewhere",
        ),
        ("_gemm(a, first * k,", "_gemm(a, first * n,", "a part's rows start elsewhere"),
    ),
    *in_module(
        "recording/recorded.py",
        (
            "zip(states, new, strict=True)]",
            "zip(states, reversed(list(new)), strict=True)]",
            "states change places",
        ),
    ),
    Fault(
        "training/descent.py",
        "for step in range(first, first + steps)]",
        "for step in range(first + 1, first + steps + 1)]",
        "learning rates of the next step",
    ),
    Fault(
        "training/descent.py",
        "np.arange(first + 1.0, first + steps + 1.0)",
        "np.arange(first + 2.0, first + steps + 2.0)",
        "steps are counted from 2",
    ),
    Fault(
        "training/descent.py",
        "            done += rows\n",
        "            done += rows + 1\n",
        "a row between portions is left out",
    ),
    Fault(
        "training/descent.py",
        "        self.steps += steps\n",
        "        self.steps += 1\n",
        "a call counts as one step",
    ),
    Fault(
        "training/descent.py",
        "size = np.full(steps, B) if",
        "size = np.full(steps, self.batch_size) if",
        "the last, smaller batch counts like the others",
    ),
]


def prove(package: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(package.parent), str(TESTS)])
    return subprocess.run(
        [sys.executable, str(TESTS / "proof.py")],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        cwd=package.parent,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("planted"))


def test_what_stands_is_right(copy: Path) -> None:
    done = prove(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_fault_is_found(fault: Fault, copy: Path) -> None:
    with planted(fault, copy):
        done = prove(copy)
    assert done.returncode == proof.FOUND, done.stdout + done.stderr
    assert done.stdout.startswith("found: ")
