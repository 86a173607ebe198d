"""A checker of recorded steps: their text itself is run in exact arithmetic, beside the formulas it was written from.

``check`` runs what planner and writers made of a step, a text for numba or one of calls of NumPy's functions, in plain
Python on arrays of field elements (``exact``), and the step itself on the same numbers. States and results must be
equal. What nobody wrote can't be read, and between two barriers no part may touch what another one writes. It takes
milliseconds to seconds, so it is for tests alone.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import itertools
import math
import operator
import random
import re
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import exact
import numpy as np
from exact import Field, ReadBeforeWritten, Unwritten, Values, field, unwritten

import gpubp
from gpubp._typing import Array
from gpubp.engines.generic import Generic
from gpubp.recording.numpy_loops import blocks
from gpubp.recording.recorded import Recorded, Step

__all__ = ["Asked", "Finding", "asked", "check", "watch", "work"]

_TEXT = "<a training step>"
_ROWS = 256  # of data: those after them aren't read
_STEPS = (1, 2)  # of one call after the other
_ANY = -1  # several parts
_KINDS = {"random": "", "ties": ", where all weights are equal", "nan": ", where a number is NaN"}


class Finding(AssertionError):
    """What is wrong with a recorded step."""


class Asked(NamedTuple):
    """What was recorded."""

    step: Step
    fixed: Mapping[str, Array]
    states: Mapping[str, Array]


asked: WeakKeyDictionary[Recorded, Asked] = WeakKeyDictionary()
"""By recorded step, for all that were made while ``watch`` was on."""


def watch(put: Callable[[object, str, object], None], then: Callable[[Recorded], object]) -> None:
    """From now on remember what is recorded, and do ``then`` with every recorded step; ``put`` is ``setattr``, or one
    that is undone some time."""
    made = Recorded.__init__

    def init(self: Recorded, step: Step, fixed: Any, states: Any, *more: Any, **named: Any) -> None:
        made(self, step, fixed, states, *more, **named)
        asked[self] = Asked(step, fixed, states)
        then(self)

    put(Recorded, "__init__", init)


def work(recorded: Recorded) -> int:
    """About how many operations a check of it takes."""
    _, fixed, states = asked[recorded]
    words = re.findall(r"\w+", recorded.source.partition("):")[0])
    names = words[len(words) - len(recorded.arguments) :]
    own: int = sum(
        a.size for name, a in zip(names, recorded.arguments, strict=True) if re.match(r"a\d", name)
    )
    weights: int = sum(array.size for array in states.values())
    data: int = sum(
        array.size if name == "units" else min(array.size, 10_000) for name, array in fixed.items()
    )
    return recorded.batch_size * weights // 4 + 8 * (own + weights) + data


def check(recorded: Recorded) -> None:
    """Prove that a recorded step does what was asked for.

    Raises
    ------
    Finding : it does something else, reads what nobody wrote, or races
    """
    with np.errstate(invalid="ignore"):
        for kind in _KINDS:
            _Trial(recorded, kind).run()


class _Trial:
    """One run of a recorded step, on numbers of one kind."""

    def __init__(self, recorded: Recorded, kind: str) -> None:
        self.recorded, self.kind, self.rng = recorded, kind, random.Random(0)
        step, fixed, states = asked[recorded]
        self.step = step
        self.fixed = {name: self._data(name, array) for name, array in fixed.items()}
        self.states = {
            name: exact.drawn(self.rng, array.shape) if kind != "ties" else _full(array.shape, field(1))
            for name, array in states.items()
        }
        if kind != "random":
            x = next(a for name, a in self.fixed.items() if name != "units" and isinstance(a.flat[0], Field))
            x[0] = field(0)
            x[0, ..., 0] = Field(0 if kind == "ties" else math.nan)
        self.rows = min(_ROWS, *(a.shape[0] for name, a in fixed.items() if name != "units"))

    def _data(self, name: str, array: Array) -> Array:
        if array.dtype.kind in "iub":
            found = np.empty(array.shape, object)
            found[...] = array.tolist()
            return found
        found = _full(array.shape, Unwritten(f"a row of {name} after those that steps were given"))
        found[:_ROWS] = exact.drawn(self.rng, found[:_ROWS].shape, zeros=0.15)
        return found

    def run(self) -> None:
        kind = _Calls if "def prepare(" in self.recorded.source else _Compiled
        crowds = kind.crowds(self.recorded)[: None if self.kind == "random" else 1]
        steps = [kind(self.recorded, {**self.fixed, **self.states}, crowd) for crowd in crowds]
        w, done = dict(self.states), 0
        for count in _STEPS if self.kind == "random" else _STEPS[:1]:
            B, R = self.recorded.batch_size, self.rows
            which = np.array([[self.rng.randrange(R) for _ in range(B)] for _ in range(count)])
            if self.kind != "random":
                which[0, 0] = 0
            numbers = [exact.drawn(self.rng, (count,)) for _ in range(self.recorded.numbers)]
            wanted, clear = [], True
            for k in range(count):
                exact.xp.unclear = False
                w, results = self._meant(w, which[k], [number[k] for number in numbers])
                clear = clear and not exact.xp.unclear
                wanted.append(results)
            done += count
            for step in steps:
                found = step.run(which, numbers)
                note = _KINDS[self.kind]
                for name, array in w.items():
                    _compare(f"state {name}", f"after step {done}{note}", step.given(name), array)
                for j, k in itertools.product(
                    range(len(self.recorded.shapes)), range(count) if clear else ()
                ):
                    when = f"after step {done - count + k + 1}{note}"
                    _compare(f"result {j}", when, found[j][k : k + 1], wanted[k][j][None])

    def _meant(
        self, states: Mapping[str, Array], which: Array, numbers: Sequence[Field]
    ) -> tuple[dict[str, Array], list[Array]]:
        """New states and results, by the step itself."""
        dtypes = {name: array.dtype for part in asked[self.recorded][1:] for name, array in part.items()}

        def values(arrays: Mapping[str, Array]) -> dict[str, Values]:
            return {name: Values(array, dtypes[name]) for name, array in arrays.items()}

        given = [Values(which, np.int64), *(Values(n, self.recorded.dtype) for n in numbers)]
        step: Any = self.step  # its arrays are promises elsewhere
        new, results = step(Generic(exact.xp), values(self.fixed), values(states), *given)
        named = zip(states, new, strict=True)
        return {name: value.array for name, value in named}, [value.array for value in results]


def _compare(what: str, when: str, found: Array, wanted: Array) -> None:
    for place in np.ndindex(wanted.shape):
        a, b = found[place], field(wanted[place])
        if isinstance(a, Unwritten):
            raise Finding(f"{what} was never written at element {_spelled(place)} {when}")
        if not _same(a, b):
            raise Finding(f"{what} differs from what was promised at element {_spelled(place)} {when}")


def _same(a: Any, b: Any) -> bool:
    a, b = field(a), field(b)
    return bool(a == b or (a != a and b != b))


def _spelled(place: tuple[int, ...]) -> str:
    return ", ".join(map(str, place)) or "0"


def _full(shape: tuple[int, ...], value: Any) -> Array:
    found = np.empty(shape, object)
    found.fill(value)
    return found


class _Memory:
    """Copies of arrays, of field elements: what shares memory shares it here."""

    def __init__(
        self, arrays: Mapping[str, Array], given: Mapping[str, Array], fill: Callable[[str, Array], Array]
    ) -> None:
        self.cells: dict[int, Array] = {}  # by the address of an array that isn't a view
        self.kinds: dict[int, str] = {}  # "f", "i" or "b"
        self.views: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...]]] = {}
        for name, array in arrays.items():
            root = array
            while isinstance(root.base, np.ndarray):
                root = root.base
            low, high = np.lib.array_utils.byte_bounds(root)
            size = array.dtype.itemsize
            start = (array.__array_interface__["data"][0] - low) // size
            self.views[name] = low, start, array.shape, tuple(step // size for step in array.strides)
            self.kinds[low] = array.dtype.kind
            self.cells.setdefault(low, np.empty((high - low) // size, object))
        for name in sorted(arrays, key=lambda name: -arrays[name].size):
            fill(name, self.array(name))
        here = {name: values for name, values in given.items() if f"in_{name}" in self.views}
        known = {self.views[f"in_{name}"][0] for name in here}
        self.blank = {low: cells.copy() for low, cells in self.cells.items() if low not in known}
        for name, values in here.items():
            self.array(f"in_{name}")[...] = values

    def array(self, name: str) -> Array:
        low, start, shape, strides = self.views[name]
        cells = self.cells[low]
        steps = tuple(step * cells.itemsize for step in strides)
        return np.lib.stride_tricks.as_strided(cells[start:], shape, steps)

    def forget(self) -> None:
        """Nobody has written what isn't given."""
        for low, cells in self.blank.items():
            self.cells[low][...] = cells


class _Text:
    """A text and its memory, to be run step by step."""

    def __init__(self, recorded: Recorded, given: Mapping[str, Array], crowd: tuple[int, int]) -> None:
        self.recorded, self.values = recorded, given
        self.threads, self.parts = crowd

    @staticmethod
    def crowds(recorded: Recorded) -> list[tuple[int, int]]:
        """How many threads it is run by, and into how many parts its work is cut."""
        raise NotImplementedError

    def given(self, name: str) -> Array:
        """A fixed array or state, as it is now."""
        known = f"in_{name}" in self.memory.views
        return self.memory.array(f"in_{name}") if known else self.values[name]

    memory: _Memory

    def run(self, which: Array, numbers: Sequence[Array]) -> list[Array]:
        """Some steps: their results."""
        self.memory.forget()
        shapes = [(len(which), *shape) for shape in self.recorded.shapes]
        results = [unwritten(f"r{k}s", np.empty(shape, object)) for k, shape in enumerate(shapes)]
        try:
            self.steps(which, numbers, results)
        except Finding:
            raise
        except ReadBeforeWritten as error:
            raise Finding(f"{error} ({self._line(error)})") from error
        except Exception as error:
            raise Finding(f"{type(error).__name__}: {error} ({self._line(error)})") from error
        return results

    def steps(self, which: Array, numbers: Sequence[Array], results: Sequence[Array]) -> None:
        raise NotImplementedError

    def _line(self, error: Exception) -> str:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _TEXT
        ]
        return self.line(lines[-1] or 0) if lines else "outside of the text"

    def line(self, number: int) -> str:
        return f"line {number}: {self.recorded.source.splitlines()[number - 1].strip()}"


def _importing(modules: Mapping[str, Any]) -> dict[str, Any]:
    """Names in which ``import`` finds these modules instead."""

    def find(name: str, *_: Any) -> Any:
        return modules[name]

    return {"__builtins__": {**vars(builtins), "__import__": find}, "exactly": field}


class _Rewritten(ast.NodeTransformer):
    """Makes numbers exact; and a thread pause where it meets the others, so that a thread is a generator."""

    def __init__(self, pausing: Collection[str] = ()) -> None:
        self.pausing = pausing  # functions in which it meets

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        exactly = ast.Call(ast.Name("exactly", ast.Load()), [node], [])
        return ast.copy_location(exactly, node) if isinstance(node.value, float) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name == "meet":
            return ast.copy_location(ast.Yield(None), node)
        return ast.copy_location(ast.YieldFrom(node), node) if name in self.pausing else node


def _compiled(source: str, pausing: Collection[str] = ()) -> Any:
    tree = _Rewritten(pausing).visit(ast.parse(source))
    return compile(ast.fix_missing_locations(tree), _TEXT, "exec")


# ----------------------------------------------------------------------------------------------------------------------
# calls of NumPy's functions


class _Array(np.ndarray):
    """An array of objects that takes rows by numbers of any kind."""

    def take(self, rows: Any, axis: int, out: Any, mode: str) -> None:  # type: ignore[override]
        assert (axis, mode) == (0, "clip")
        which = [operator.index(row) for row in rows]
        if any(not 0 <= row < self.shape[0] for row in which):
            raise Finding(f"row {which} of {self.shape[0]} was taken")
        out[...] = np.asarray(self)[which]


class _Function:
    """A function of NumPy's, element by element."""

    def __init__(self, act: Callable[..., Any], operands: int) -> None:
        self.each, self.operands = np.frompyfunc(act, operands, 1), operands

    def __call__(self, *args: Any, out: Any = None) -> Any:
        target = args[self.operands] if len(args) > self.operands else out
        found = self.each(*args[: self.operands])
        if target is None:
            return found.item() if isinstance(found, np.ndarray) and not found.ndim else found
        target[...] = found
        return None

    def reduce(
        self, x: Array, axis: int | None = 0, dtype: None = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
        found = self.each.reduce(x, axis=axis, keepdims=keepdims)
        if out is None:
            return found.item() if isinstance(found, np.ndarray) and not found.ndim else found
        assert out.shape == np.shape(found), (out.shape, np.shape(found))
        out[...] = found
        return None


def _all(a: Any, b: Any) -> bool:
    return bool(a) & bool(b)


def _copyto(target: Array, source: Any, where: Any = True) -> None:
    if where is True:
        target[...] = source
    else:
        np.copyto(np.asarray(target), source, where=np.frompyfunc(bool, 1, 1)(where).astype(bool))


def _dot(a: Array, b: Array, out: Array) -> None:
    if np.may_share_memory(a, out) or np.may_share_memory(b, out):
        raise Finding("a product writes over its factor")
    out[...] = exact.dot(np.asarray(a), np.asarray(b))


def _argmax(x: Array, axis: int, out: Array) -> None:
    out[...] = exact.xp.argmax(Values(x if axis else x.T, float), axis=1).array


_NUMPY = {
    "add": _Function(operator.add, 2),
    "subtract": _Function(operator.sub, 2),
    "multiply": _Function(operator.mul, 2),
    "divide": _Function(lambda a, b: field(a) / b, 2),
    "power": _Function(lambda a, b: field(a) ** b, 2),
    "negative": _Function(operator.neg, 1),
    "absolute": _Function(abs, 1),
    **{
        name: _Function(getattr(operator, short), 2)
        for name, short in {
            "less": "lt",
            "less_equal": "le",
            "greater": "gt",
            "greater_equal": "ge",
            "equal": "eq",
            "not_equal": "ne",
        }.items()
    },
    "maximum": _Function(exact.maximum, 2),
    "minimum": _Function(exact.minimum, 2),
    "logical_and": _Function(_all, 2),
    **{name: _Function(act, 1) for name, act in exact.functions.items()},
    "copyto": _copyto,
    "dot": _dot,
    "argmax": _argmax,
    "float64": field,
    "float32": field,
    "inf": field(math.inf),
    "nan": field(math.nan),
}


class _Calls(_Text):
    def __init__(self, recorded: Recorded, given: Mapping[str, Array], crowd: tuple[int, int]) -> None:
        super().__init__(recorded, given, crowd)
        self.made: list[tuple[str, Array]] = []
        self._lines = recorded.source.splitlines()
        own = {"empty": self._empty, "full": self._full, "ones": self._ones, "array": self._array}
        names = _importing(
            {
                "numpy": SimpleNamespace(**_NUMPY, **own),
                "gpubp.recording.numpy_loops": SimpleNamespace(blocks=blocks),
            }
        )
        exec(_compiled(recorded.source), names)
        wanted = list(inspect.signature(names["prepare"]).parameters)
        self.memory = _Memory(dict(zip(wanted, recorded.arguments, strict=True)), given, unwritten)
        self.function = names["prepare"](*(self.memory.array(name).view(_Array) for name in wanted))

    @staticmethod
    def crowds(recorded: Recorded) -> list[tuple[int, int]]:
        return [(1, 1)]

    def steps(self, which: Array, numbers: Sequence[Array], results: Sequence[Array]) -> None:
        for name, array in self.made:
            unwritten(name, array)
        self.function(which, *numbers, *results)

    def _empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        frame = inspect.currentframe()
        assert frame is not None
        assert frame.f_back is not None
        name = self._lines[frame.f_back.f_lineno - 1].split("=")[0].strip()
        made = np.empty(shape, object).view(_Array)
        self.made.append((name, made))
        return made

    @staticmethod
    def _full(shape: tuple[int, ...], value: float, dtype: Any) -> Array:
        return _full(shape, field(value)).view(_Array)

    @staticmethod
    def _ones(size: int, dtype: Any) -> Array:
        return _full((size,), field(1)).view(_Array)

    @staticmethod
    def _array(value: float, dtype: Any) -> Array:
        return _full((), field(value)).view(_Array)


# ----------------------------------------------------------------------------------------------------------------------
# loops and products, by several parts


class _Watched:
    """An array whose elements are watched: who reads and who writes them."""

    __slots__ = ("low", "shape", "start", "strides", "threads")

    def __init__(
        self, threads: _Threads, low: int, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.threads, self.low, self.start, self.shape, self.strides = threads, low, start, shape, strides

    def _find(self, key: Any) -> int | _Watched:
        """The place of an element, or what is seen of several."""
        if type(key) is int and len(self.shape) == 1:
            if not 0 <= key < self.shape[0]:
                raise IndexError(f"element {key} of {self.shape}")
            return self.start + key * self.strides[0]
        keys = key if isinstance(key, tuple) else (key,)
        start, shape, strides = self.start, list[int](), list[int]()
        for axis, size in enumerate(self.shape):
            here = keys[axis] if axis < len(keys) else slice(None)
            if isinstance(here, slice):
                first, end, step = here.indices(size)
                assert step == 1
                start += first * self.strides[axis]
                shape.append(max(end - first, 0))
                strides.append(self.strides[axis])
            else:
                here = operator.index(here)
                if not 0 <= here < size:
                    raise IndexError(f"element {key} of {self.shape}")
                start += here * self.strides[axis]
        assert len(keys) <= len(self.shape)
        return _Watched(self.threads, self.low, start, tuple(shape), tuple(strides)) if shape else start

    def __getitem__(self, key: Any) -> Any:
        found = self._find(key)
        return found if isinstance(found, _Watched) else self.threads.read(self.low, found)

    def __setitem__(self, key: Any, value: Any) -> None:
        found = self._find(key)
        if not isinstance(found, _Watched):
            self.threads.write(self.low, found, value)
            return
        if isinstance(value, _Watched) and value.shape != found.shape:
            raise Finding(f"{value.shape} was written where {found.shape} belongs")
        for place in np.ndindex(found.shape):
            self.threads.write(
                found.low,
                found.start + sum(map(operator.mul, place, found.strides)),
                value[place if len(place) > 1 else place[0]] if isinstance(value, _Watched) else value,
            )

    def flat(self, start: int, rows: tuple[int, int], columns: tuple[int, int]) -> list[list[int]]:
        """Places in memory from that element on: so many rows and columns, each so far apart."""
        first = self.start + start
        return [[first + i * rows[1] + k * columns[1] for k in range(columns[0])] for i in range(rows[0])]


_HELD: dict[str, tuple[type, ...]] = {"f": (Field,), "b": (bool,), "i": (int,), "": (Field, int, bool)}


class _Threads:
    """Who reads and writes what between two barriers: threads of which each does one part, or one that does all."""

    def __init__(self, memory: Any) -> None:
        self.memory, self.cells, self.kinds = memory, memory.cells, memory.kinds
        self.part = 0
        self.next_phase()

    def next_phase(self) -> None:
        self.written: dict[tuple[int, int], tuple[int, int]] = {}
        self.seen: dict[tuple[int, int], tuple[int, int]] = {}

    def read(self, low: int, at: int) -> Any:
        here = low, at
        other = self.written.get(here)
        if other is not None and other[0] != self.part:
            self._race(low, at, "written", other, "read")
        other = self.seen.get(here)
        if other is None:
            self.seen[here] = self.part, _line()
        elif other[0] != self.part and other[0] != _ANY:
            self.seen[here] = _ANY, other[1]
        value = self.cells[low][at]
        if value is None:
            name, place = self._name(low, at)
            raise ReadBeforeWritten(f"{name}[{_spelled(place)}] was read before it was written")
        return value

    def write(self, low: int, at: int, value: Any) -> None:
        here, cells = (low, at), self.cells[low]
        if type(value) not in _HELD[self.kinds.get(low, "")]:
            name, place = self._name(low, at)
            raise Finding(f"{name}[{_spelled(place)}] can't hold {value!r} of type {type(value).__name__}")
        other = self.written.get(here)
        if other is not None and other[0] != self.part:
            known = self._name(low, at)[0].startswith("r") and _same(cells[at], value)  # all write the same
            if not known:
                self._race(low, at, "written", other, "written")
        other = self.seen.get(here)
        if other is not None and other[0] != self.part:
            self._race(low, at, "read", other, "written")
        self.written[here] = self.part, _line()
        cells[at] = value

    def _race(self, low: int, at: int, done: str, other: tuple[int, int], doing: str) -> None:
        name, place = self._name(low, at)
        first = "several parts" if other[0] == _ANY else f"part {other[0]}"
        raise _Race(
            f"{name}[{_spelled(place)}] is {done} by {first} and {doing} by part {self.part} with no barrier between",
            (other[1], _line()),
        )

    def _name(self, low: int, at: int) -> tuple[str, tuple[int, ...]]:
        """The smallest array that has the element, and where."""
        found = []
        for name, (root, start, shape, strides) in self.memory.views.items():
            if root == low and math.prod(shape):
                rest, place = at - start, []
                for step in strides:
                    place.append(rest // step if step else 0)
                    rest -= place[-1] * step
                if rest == 0 and all(0 <= k < size for k, size in zip(place, shape, strict=True)):
                    found.append((math.prod(shape), name, tuple(place)))
        return min(found)[1:]


class _Race(Finding):
    def __init__(self, said: str, lines: tuple[int, int]) -> None:
        super().__init__(said)
        self.said, self.lines = said, lines


def _line() -> int:
    """Of the text, that is being run."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename != _TEXT:
        frame = frame.f_back
    return 0 if frame is None else frame.f_lineno


@functools.cache
def _team() -> tuple[dict[str, Any], set[str]]:
    """What a step's text calls, in Python: as gpubp.recording.team has it, but for BLAS and for the barrier. And in
    which of the functions threads meet."""
    source = Path(gpubp.__file__).with_name("recording") / "team.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    kept: list[ast.stmt] = []
    pausing: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(each, ast.Name) and each.id in ("_compiled", "_inlined")
            for each in node.decorator_list
        ):
            if node.name == "meet":
                continue
            if "meet(" in ast.unparse(node):
                pausing.add(node.name)
            node.decorator_list, node.returns = [], None
            kept.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            kept.append(node)
    module = ast.Module([_Rewritten(pausing).visit(node) for node in kept], [])
    names: dict[str, Any] = {"Any": Any, "_gemm": _gemm}
    exec(compile(ast.fix_missing_locations(module), str(source), "exec"), names)
    return names, pausing


def _gemm(
    a: _Watched,
    a_start: int,
    a_turned: bool,
    b: _Watched,
    b_start: int,
    b_turned: bool,
    out: _Watched,
    out_start: int,
    m: int,
    n: int,
    k: int,
) -> None:
    """BLAS's product of arrays that are contiguous, each from an element of its own on."""
    threads, (a_wide, b_wide, out_wide) = out.threads, (x.shape[1] for x in (a, b, out))
    for x in (a, b, out):
        if x.strides != (x.shape[1], 1):
            raise Finding("a product of what isn't contiguous")
    of_a = a.flat(a_start, *(((m, 1), (k, a_wide)) if a_turned else ((m, a_wide), (k, 1))))
    of_b = b.flat(b_start, *(((n, b_wide), (k, 1)) if b_turned else ((n, 1), (k, b_wide))))
    into = out.flat(out_start, (m, out_wide), (n, 1))
    for x, places in ((a, of_a), (b, of_b)):
        if x.low == out.low and {at for row in places for at in row} & {at for row in into for at in row}:
            raise Finding("a product writes over its factor")
    left, right = (
        [[field(threads.read(x.low, at)).n for at in row] for row in places]
        for x, places in ((a, of_a), (b, of_b))
    )
    for i, j in itertools.product(range(m), range(n)):
        total = sum(map(operator.mul, left[i], right[j]))
        threads.write(out.low, into[i][j], exact.made(total))


@functools.lru_cache(maxsize=8)
def _function(source: str) -> Callable[..., Any]:
    """The ``run`` of a text for numba, in Python."""
    team, pausing = _team()
    names = ("exp", "expm1", "log", "log1p", "tanh")
    elementary = {kind: [exact.functions[name] for name in names] for kind in ("FLOAT32", "FLOAT64")}
    modules = {
        "math": SimpleNamespace(inf=field(math.inf), nan=field(math.nan), **exact.functions),
        "numpy": SimpleNamespace(float32=field, float64=field),
        "gpubp.recording": SimpleNamespace(elementary=SimpleNamespace(**elementary)),
        "gpubp.recording.team": SimpleNamespace(meet=None, **team),
    }
    found = _importing(modules)
    exec(_compiled(source, pausing), found)
    return found["run"]  # type: ignore[no-any-return]


def _nothing(name: str, array: Array) -> Array:
    array[...] = None
    return array


class _Compiled(_Text):
    def __init__(self, recorded: Recorded, given: Mapping[str, Array], crowd: tuple[int, int]) -> None:
        super().__init__(recorded, given, crowd)
        self.function = _function(recorded.source)
        arguments = recorded.arguments
        wanted = list(inspect.signature(self.function).parameters)
        self.constants = [field(value) for value in arguments[0]]
        self.wanted = wanted[len(wanted) - len(arguments) + 1 :]
        self.memory = _Memory(dict(zip(self.wanted, arguments[1:], strict=True)), given, _nothing)

    @staticmethod
    def crowds(recorded: Recorded) -> list[tuple[int, int]]:
        return [(recorded.parts, recorded.parts), (1, recorded.parts)][: 2 if recorded.parts > 1 else 1]

    def steps(self, which: Array, numbers: Sequence[Array], results: Sequence[Array]) -> None:
        each = [which, *numbers, *results]
        memory = SimpleNamespace(
            cells=dict(self.memory.cells), views=dict(self.memory.views), kinds=self.memory.kinds
        )
        threads = _Threads(memory)
        watched = []
        for k, array in enumerate(each):
            flat = array.reshape(-1).astype(object)
            name = (
                f"r{k - len(numbers) - 1}s" if k > len(numbers) else "which" if k == 0 else f"number{k - 1}s"
            )
            strides = tuple(step // array.itemsize for step in array.strides)
            low = -1 - k
            memory.cells[low], memory.views[name] = flat, (low, 0, array.shape, strides)
            watched.append(_Watched(threads, low, 0, array.shape, strides))
        arrays = [_Watched(threads, *self.memory.views[name]) for name in self.wanted]
        arguments = (None, len(which), self.constants, *watched, *arrays)
        self._in_turns(threads, [self._thread(thread, *arguments) for thread in range(self.threads)])
        for k, array in enumerate(results):
            array[...] = memory.cells[-2 - len(numbers) - k].reshape(array.shape)

    def _thread(self, thread: int, *arguments: Any) -> Iterator[None]:
        run = self.function(thread, self.threads, self.parts, *arguments)
        if run is not None:  # else it meets nobody, and is done
            yield from run

    def _in_turns(self, threads: _Threads, runs: Sequence[Iterator[None]]) -> None:
        """Every thread up to a barrier, then every one up to the next."""
        try:
            while True:
                ended = []
                for threads.part, run in enumerate(runs):
                    try:
                        next(run)
                    except StopIteration:
                        ended.append(threads.part)
                if ended:
                    break
                threads.next_phase()
        except _Race as race:
            first, then = race.lines
            raise Finding(f"{race.said} ({self.line(first)}; {self.line(then)})") from race
        if len(ended) < len(runs):
            raise Finding(f"threads {ended} end while others wait for them")
