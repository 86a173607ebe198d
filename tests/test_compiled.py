"""What compiled steps are made of, where they are kept, and when they are used at all."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import gpubp
from gpubp._typing import Array
from gpubp.engines import Generic
from gpubp.recording.numba_writer import Program
from gpubp.tracing import tracer
from gpubp.tracing.operations import Op, Untraceable, batch
from gpubp.tracing.tracer import Graph
from gpubp.training import descent as _descent

pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
pytest.importorskip("scipy", reason="SciPy is not installed: pip install 'gpubp[fast]'")
from gpubp.recording import code_cache, compiled, elementary, memory, team
from gpubp.recording import numba_writer as program_text
from gpubp.training.data import Rows


def data(net: gpubp.Network) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((75, net.sizes[0]))
    return X, rng.integers(0, net.sizes[-1], 75) if net.cost_function.labels else X[:, :1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "folder", lambda: tmp_path_factory.getbasetemp() / "steps")


def numbers(low: float, high: float, *more: float) -> Array:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(low, high, 20_000), 1e-3 * rng.standard_normal(2_000), more])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("exp", numbers(-86, 88.7, 0.0, np.inf, -np.inf, np.nan, 710.0, -800.0)),
        ("tanh", numbers(-25, 25, 0.0, np.inf, -np.inf, np.nan)),
        ("log", np.abs(numbers(1e-30, 4, 1.0, 1e30, 0.0, np.inf, np.nan))),
        ("log", np.array([-1.0, -np.inf])),
        ("log1p", numbers(-0.9, 5, 0.0, 1e-12, 1e30, -1.0, np.inf, np.nan)),
        ("expm1", numbers(-80, 88, 0.0, -1e-12, np.inf, -np.inf, np.nan, 710.0, -800.0)),
    ],
)
def test_elementary_functions_are_right_to_four_roundings(name: str, x: Array, dtype: str) -> None:
    import numba

    function = getattr(elementary.FLOAT32 if dtype == "float32" else elementary.FLOAT64, name)

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def loop(x: Any, y: Any) -> None:
        for k in range(x.shape[0]):
            y[k] = function(x[k])

    x = x.astype(dtype)
    ours = np.empty_like(x)
    loop(x, ours)
    with np.errstate(all="ignore"):
        true = getattr(np, name)(x.astype(np.longdouble))
        rounded = true.astype(dtype)
    finite = np.isfinite(rounded) & (np.abs(rounded) > 1e-37)
    roundings = np.abs(ours[finite] - true[finite]) / np.spacing(np.abs(rounded[finite]))
    assert roundings.max(initial=0.0) < 4.0
    np.testing.assert_array_equal(ours[~np.isfinite(rounded)], rounded[~np.isfinite(rounded)])


def program(formula: Any, columns: int = 40) -> Program:
    """A step whose only result is the sum of the formula over a batch."""
    graph = Graph("float32")
    x, which = graph.input("x", (90, columns)), graph.input("which", (batch(8),), np.int64)
    p = Generic(tracer.xp).gather(x, which)
    return Program(graph, [], [tracer.xp.sum(tracer.xp.sum(formula(tracer.xp, p), axis=1))], [which])


def test_many_numbers_are_left_to_numpy_where_it_is_quicker() -> None:
    with pytest.raises(Untraceable, match="sin of many numbers, which NumPy does sooner"):
        program(lambda xp, p: xp.sin(p))
    assert "sin(" in program(lambda xp, p: xp.sin(p), columns=4).source
    assert "exp(" in program(lambda xp, p: xp.exp(p)).source


def test_one_text_for_all_sizes_and_numbers() -> None:
    def text(a: float, columns: int) -> str:
        return program(lambda xp, p: a * xp.maximum(p, 0.0), columns=columns).source

    texts = {text(a, columns) for a in (2.0, 3.0) for columns in (5, 9)}
    assert len(texts) == 1


def test_an_expression_said_twice_is_computed_once() -> None:
    assert program(lambda xp, p: xp.abs(p) * xp.abs(p)).source.count("abs(") == 1


def test_users_formulas_are_compiled_or_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    square = gpubp.Activation(lambda xp, p: p * p, lambda xp, p, q: 2.0 * p, name="square")
    sine = gpubp.Activation(lambda xp, p: xp.sin(p), lambda xp, p, q: xp.cos(p), name="sine")
    for sigma, said in ((square, "are compiled"), (sine, "aren't compiled: sin of many numbers")):
        net = gpubp.Network((4, 20, 1), hidden=sigma)
        X, Y = data(net)
        with caplog.at_level(logging.INFO, "gpubp"):
            gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
        assert said in caplog.text
        caplog.clear()


def test_steps_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "folder", lambda: tmp_path)
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    compiled._compiled.cache_clear()
    net = gpubp.Network((3, 1))
    X, Y = data(net)
    gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
    assert list(tmp_path.glob("gpubp_*.code"))


def test_numba_is_loaded_only_where_a_run_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUBP_COMPILE", raising=False)
    net = gpubp.Network((3, 4, 1))
    X, Y = data(net)
    asked: list[str] = []

    class Asked(compiled.Compiled):
        def get_ready(self) -> None:
            asked.append(self.source)
            raise ImportError("as if numba weren't there")

    monkeypatch.setattr(_descent, "Compiled", Asked)
    for seconds, wanted in ((1.0, False), (9.0, False), (20.0, True)):
        monkeypatch.setattr(_descent, "_seconds", lambda *_, seconds=seconds: seconds)
        asked.clear()
        run = gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
        assert bool(asked) == wanted
        assert run.computed == "recorded"


def test_without_numba_steps_are_numpys(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled._compiled.cache_clear()
    net = gpubp.Network((3, 4, 1))
    X, Y = data(net)
    with caplog.at_level(logging.INFO, "gpubp"):
        gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
    assert "training steps aren't compiled" in caplog.text


@pytest.mark.unchecked
def test_what_numba_cant_compile_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    monkeypatch.setattr(Op.ROW_MAX, "python", "{0} + 'a letter'")
    net = gpubp.Network((3, 4), cost="cross_entropy")
    with caplog.at_level(logging.INFO, "gpubp"):
        run = gpubp.train(net, *data(net), epochs=1, device="cpu", progress=False)
    assert "aren't compiled: numba: " in caplog.text
    assert np.isfinite(run.w).all()


class Turns:
    """Threads of which one runs at a time, from meeting to meeting, in the same order every time."""

    def __init__(self, order: tuple[int, ...]) -> None:
        self.order, self.turn, self.changed = order, 0, threading.Condition()

    def wait(self, part: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.order[self.turn] == part, timeout=60)

    def give(self) -> None:
        with self.changed:
            self.turn = (self.turn + 1) % len(self.order)
            self.changed.notify_all()

    def meet(self, meeting: Any, thread: int, threads: int) -> None:
        self.give()
        self.wait(thread)

    def product(
        self, a: Any, a_turned: bool, b: Any, b_turned: bool, out: Any, part: int, parts: int
    ) -> None:
        columns = slice(team._start(out.shape[1], part, parts), team._start(out.shape[1], part + 1, parts))
        out[:, columns] = (a.T if a_turned else a) @ (b.T if b_turned else b)[:, columns]

    def names(self) -> dict[str, Any]:
        """What a step's text calls, in Python."""
        found = {name: getattr(team, name).py_func for name in ("mine", "combine", "is_wide")}
        rows = cast("Any", team.product_of_rows).py_func
        in_turn = vars(team) | {"product": self.product, "_gemm": self._rows}
        found["product_of_rows"] = FunctionType(rows.__code__, in_turn)
        return found | {"meet": self.meet, "product": self.product}

    @staticmethod
    def _rows(a: Any, a_start: int, a_turned: bool, b: Any, b_start: int, b_turned: bool, *rest: Any) -> None:
        out, out_start, m, n, k = rest
        product = a.reshape(-1)[a_start:][: m * k].reshape(m, k) @ (b.T if b_turned else b)
        out.reshape(-1)[out_start : out_start + m * n] = product.reshape(-1)


def steps_in_turns(source: str, recorded: Any, order: tuple[int, ...]) -> Array:
    """Some steps of a text by threads that take turns: w. What isn't waited for isn't there."""
    turns, names = Turns(order), dict[str, Any]()
    exec(source, names)
    names.update(turns.names())
    constants, *arrays = recorded.arguments
    B, steps = recorded.batch_size, 3
    which = np.arange(steps * B).reshape(steps, B)
    results = [np.empty((steps, *shape)) for shape in recorded.shapes]
    numbers = np.full(steps, 0.1), np.arange(1.0, steps + 1.0)
    more = steps, constants, which, *numbers, *results, *arrays

    def run(thread: int) -> None:
        turns.wait(thread)
        with np.errstate(all="ignore"):
            names["run"](thread, len(order), recorded.parts, None, *more)
        turns.give()

    with ThreadPoolExecutor(len(order)) as pool:
        for done in [pool.submit(run, thread) for thread in range(len(order))]:
            done.result()
    return recorded.w.copy()


@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("sizes", [(5, 40, 9, 3), (5, 8, 20)])
def test_threads_meet_where_they_must(
    sizes: tuple[int, ...], clip_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:

    def unwritten(shape: tuple[int, ...], dtype: Any) -> Array:
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 0, dtype)

    # what nobody wrote is read as NaN
    monkeypatch.setattr(memory, "np", SimpleNamespace(prod=np.prod, empty=unwritten))
    net = gpubp.Network(sizes, cost="cross_entropy")
    X, Y = np.random.default_rng(0).standard_normal((60, 5)), np.arange(60) % sizes[-1]

    def trained(order: tuple[int, ...], without: int | None = None) -> Array:
        rows = Rows(X, Y, None)
        descent = _descent.Descent(
            net, rows, net.init(1, dtype="float64"), gpubp.Adam(), 20, (0.01, 0.0, clip_norm), None, 0, False
        )
        recorded: Any = descent._recorded(partial(compiled.Compiled, parts=4))[20]
        recorded.w = descent.w
        lines = recorded.source.split("\n")
        meetings = [k for k, line in enumerate(lines) if line.strip() == program_text._MEET]
        if without is not None:
            del lines[meetings[without]]
        count.append(len(meetings))
        return steps_in_turns("\n".join(lines), recorded, order)

    count: list[int] = []
    alone = trained((0,))
    orders = [(0, 1, 2), (2, 1, 0), (1, 2, 0)]
    for order in (*orders, (1, 0), (3, 1, 0, 2)):
        np.testing.assert_allclose(trained(order), alone, rtol=1e-11, atol=1e-13)
    unnoticed = [
        k
        for k in range(count[0])
        if all(np.allclose(trained(order, k), alone, rtol=1e-9, atol=1e-11) for order in orders)
    ]
    assert 2 * len(unnoticed) < count[0]  # of meetings left out; some are there for other shapes than these
