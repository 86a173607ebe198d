"""Recorded training, replayed and compiled: the same weights as step by step, for every formula."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import gpubp
from benchmarks._cases import GRID, Case
from gpubp import activations, costs, optimizers
from gpubp._typing import Array
from gpubp.engines import Generic
from gpubp.recording import code_cache, numpy_loops
from gpubp.recording.numba_writer import Program
from gpubp.recording.numpy_loops import blocks
from gpubp.recording.numpy_writer import Calls
from gpubp.recording.recorded import Recorded
from gpubp.recording.schedule import Nest, Step
from gpubp.recording.text import Text
from gpubp.tracing import tracer
from gpubp.tracing.operations import FUNCTIONS, Op, batch
from gpubp.tracing.tracer import Graph, Promise
from gpubp.training import descent
from gpubp.training import threads as _threads

ROWS = 75  # four batches of 16 and one of 11


class Way(NamedTuple):
    """How steps are computed: ``compile`` and ``threads`` of train, and how much is worked on at once."""

    compile: bool | str
    threads: int | None = None
    block: int = numpy_loops._BLOCK
    in_parts: bool = False

    def choose(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The options of train."""
        monkeypatch.setattr(numpy_loops, "_BLOCK", self.block)
        for bound in ("_SHARED_FROM", "_MORE_FROM"):
            monkeypatch.setattr(_threads, bound, 0.0 if self.in_parts else math.inf)
        return {"compile": self.compile, "threads": self.threads, "device": "cpu", "progress": False}


STEP_BY_STEP, WHOLE = Way(False), Way(True)
WAYS = [Way("recorded"), Way("recorded", block=300)]
if importlib.util.find_spec("numba") and importlib.util.find_spec("scipy"):  # of the extra fast
    WAYS += [Way(True, threads, in_parts=True) for threads in (1, 2, 3)]  # from one compile
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "folder", lambda: tmp_path_factory.getbasetemp() / "steps")


def data(net: gpubp.Network, dtype: str, rows: int = ROWS) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    n_L, cost = net.sizes[-1], net.cost_function.name
    X = rng.standard_normal((rows, net.sizes[0])).astype(dtype)
    if cost == "cross_entropy":
        return X, rng.integers(0, n_L, rows)
    if cost == "binary_cross_entropy":
        return X, rng.integers(0, 2, (rows, n_L)).astype(dtype)
    if cost == "poisson":
        return X, rng.poisson(2.0, (rows, n_L)).astype(dtype)
    return X, rng.standard_normal((rows, n_L)).astype(dtype)


def same_by_every_way(
    net: gpubp.Network,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str = "float64",
    ways: Sequence[Way] = WAYS,
    **more: Any,
) -> None:
    """Train step by step, and by every other way; the same must come out, but for rounding."""
    X, Y = data(net, dtype)
    runs = []
    for way in (STEP_BY_STEP, *ways):
        options = {"epochs": 3, "batch_size": 16, **way.choose(monkeypatch), **more}
        runs.append(gpubp.train(net, X, Y, **options))
        assert runs[-1].computed.partition(",")[0] == descent._ASKED[way.compile]
    first, *others = runs
    rtol, atol = (1e-10, 1e-12) if dtype == "float64" else (1e-3, 1e-4)
    for other in others:
        np.testing.assert_allclose(other.w, first.w, rtol, atol)
        for name in ("cost", "metric", "learning_rate") if more.get("metric", "auto") else ("cost",):
            np.testing.assert_allclose(other.history[name], first.history[name], rtol, atol)
    in_parts = [run for run, way in zip(others, ways, strict=True) if way.in_parts]
    for run in in_parts[1:]:  # bits don't depend on the number of threads
        np.testing.assert_array_equal(run.w, in_parts[0].w)
        assert run.history["cost"] == in_parts[0].history["cost"]


@pytest.mark.parametrize("name", activations.names())
def test_every_activation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    same_by_every_way(gpubp.Network((5, 7, 4, 2), hidden=name), monkeypatch, clip_norm=1.0)


@pytest.mark.parametrize("name", costs.names())
def test_every_cost(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    same_by_every_way(gpubp.Network((6, 5, 3), hidden="tanh", cost=name), monkeypatch)


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    same_by_every_way(gpubp.Network((6, 5, 1)), monkeypatch, optimizer=name)


@pytest.mark.parametrize(
    "more",
    [
        {"l2": 1e-2, "l1": 1e-3},
        {"clip_norm": 0.05},
        {"l2": 1e-2, "clip_norm": 0.05, "validation": 0.2, "patience": 2},
        {"sample_weight": np.linspace(0.0, 3.0, ROWS)},
        {"metric": None},
        {"metric": "accuracy"},
        {"optimizer": gpubp.Adam(gpubp.schedules.Cosine(1e-2, steps=12))},
        {"batch_size": 200},
        {"batch_size": 1, "epochs": 1},
        {"batch_size": 75},
    ],
    ids=lambda more: ", ".join(more),
)
@pytest.mark.parametrize("cost", ["cross_entropy", "squared_error"])
def test_every_option(cost: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if more.get("metric") == "accuracy" and cost == "squared_error":
        more = {"metric": "r2"}
    same_by_every_way(gpubp.Network((6, 8, 3), cost=cost), monkeypatch, **more)


@pytest.mark.parametrize(
    "net",
    [
        gpubp.Network((6, 3), cost="cross_entropy"),
        gpubp.Network((4, 4, 4), bias=False),
        gpubp.Network((5, 6, 3), cost="cross_entropy", input="tanh"),
        gpubp.Network((5, 6, 3), hidden="softmax", output="softmax"),
        gpubp.Network((3, 5, 1), output="sigmoid"),
        gpubp.Network((16, 16, 16), hidden="tanh"),  # a batch as long as a layer is wide
        gpubp.Network((3, 5, 1), cost="binary_cross_entropy"),
        gpubp.Network((3, 5, 20), cost="cross_entropy"),  # as many outputs as a narrow nest hasn't
    ],
    ids=repr,
)
def test_every_kind_of_network(net: gpubp.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    same_by_every_way(net, monkeypatch, ways=[*WAYS, *[WHOLE][: len(WAYS) - 2]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", activations.names())
def test_wide_layers(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = gpubp.Network((5, 40, 3), hidden=name, cost="cross_entropy")
    same_by_every_way(net, monkeypatch, dtype, optimizer="sgd")


@pytest.mark.parametrize("case", GRID, ids=lambda case: str(case.name))
def test_every_network_that_is_timed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tuple(min(n, 64) for n in case.hidden)  # the same program, in less time
    sizes = (min(case.inputs, 64), *hidden, case.outputs)
    same_by_every_way(gpubp.Network(sizes, hidden=case.activation, cost=case.cost), monkeypatch, "float32")


@every_way
def test_runs_are_repeated_to_the_bit(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"epochs": 4, "batch_size": 61, "clip_norm": 0.1, **way.choose(monkeypatch)}
    net = gpubp.Network((30, 70, 20, 3), hidden="tanh", cost="cross_entropy")
    X, Y = data(net, "float32", rows=500)
    first, *others = (gpubp.train(net, X, Y, **options) for _ in range(4))
    for other in others:
        np.testing.assert_array_equal(first.w, other.w)
        assert first.history["cost"] == other.history["cost"]


class Allocations:
    """The most that one instruction of Python allocated, in a batch that is watched."""

    def __init__(self, batch: int) -> None:
        self.batch, self.most, self.instructions, self.held = batch, 0, 0, 0

    def on_batch_end(self, state: gpubp.callbacks.TrainingState) -> None:
        if state.batch == self.batch - 1:
            tracemalloc.start()
            self.before = sys.gettrace()  # of the measurement of coverage
            self.frames = []
            frame: Any = sys._getframe().f_back
            while frame is not None:
                self.frames.append((frame, frame.f_trace))
                frame.f_trace, frame.f_trace_opcodes = self.trace, True
                frame = frame.f_back
            sys.settrace(self.trace)
        elif state.batch == self.batch:
            for frame, trace in self.frames:
                frame.f_trace, frame.f_trace_opcodes = trace, False
            sys.settrace(self.before)
            tracemalloc.stop()

    def trace(self, frame: Any, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        now, peak = tracemalloc.get_traced_memory()
        self.most, self.instructions = max(self.most, peak - self.held), self.instructions + 1
        self.held = now
        tracemalloc.reset_peak()
        return self.trace


@pytest.mark.parametrize("way", [STEP_BY_STEP, *WAYS], ids=str)
def test_a_steady_step_allocates_nothing_large(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    options = way.choose(monkeypatch)
    net = gpubp.Network((300, 200, 200, 10), cost="cross_entropy")
    X, Y = data(net, "float32", rows=1600)
    seen = Allocations(batch=4)
    gpubp.train(net, X, Y, epochs=1, batch_size=160, metric=None, callbacks=[seen], **options)
    assert seen.instructions > 100
    assert 100 < seen.most < 64_000  # x alone is 192,000 bytes, a layer 128,000, w 409,000


@every_way
def test_every_batch_is_told_where_somebody_listens(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    options = way.choose(monkeypatch)
    net = gpubp.Network((3, 4, 1))
    X, Y = data(net, "float64")
    seen: list[tuple[int, int, int, float]] = []

    class Listener:
        def on_batch_end(self, state: gpubp.callbacks.TrainingState) -> bool:
            assert state.cost is not None
            seen.append((state.epoch, state.batch, state.rows_done, float(state.cost)))
            return len(seen) == 7

    run = gpubp.train(net, X, Y, epochs=3, batch_size=16, callbacks=[Listener()], **options)
    assert [s[:3] for s in seen] == [
        *((1, k, min(16 * k, 75)) for k in range(1, 6)),
        (2, 1, 91),
        (2, 2, 107),
    ]
    assert run.stopped == "callback"
    assert len({cost for *_, cost in seen}) == 7


def test_divergence_is_found_at_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gpubp.Network((3, 4, 1), hidden="exp")
    X, Y = data(net, "float64")
    where = []
    for way in (STEP_BY_STEP, *WAYS):
        options = way.choose(monkeypatch)
        with pytest.raises(gpubp.DivergenceError) as raised:
            gpubp.train(net, X, Y, optimizer="sgd(learning_rate=5.0)", batch_size=8, **options)
        where.append((raised.value.epoch, raised.value.batch, raised.value.learning_rate))
    assert len(set(where)) == 1


def written(text: Any, formula: Any, dtype: str = "float32", columns: int = 40) -> Any:
    """A step whose only result is the sum of the formula over a batch."""
    graph = Graph(dtype)
    x, which = graph.input("x", (90, columns)), graph.input("which", (batch(8),), np.int64)
    p = Generic(tracer.xp).gather(x, which)
    return text(graph, [], [tracer.xp.sum(tracer.xp.sum(formula(tracer.xp, p), axis=1))], [which])


@pytest.mark.parametrize(
    "formula",
    [
        lambda xp, p: p if p > 0 else -p,
        lambda xp, p: p + np.ones(3),
        lambda xp, p: np.maximum(p, 0.0),
        lambda xp, p: xp.cumulative_sum(p),
        lambda xp, p: p[0:3, :],
        lambda xp, p: xp.astype(p, np.int32),
        lambda xp, p: p @ p,
        lambda xp, p: float(p) * p,
        lambda xp, p: p + p.mT,
        lambda xp, p: xp.sum(p, axis=0, keepdims=True) * p,
    ],
)
@pytest.mark.parametrize("text", [Program, Calls])
def test_what_cant_be_written_down_is_refused(text: Any, formula: Any) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 -- a formula may fail in any way on what is no array
        written(text, formula)


def test_every_operation_has_its_call() -> None:
    graph = Graph("float64")
    x, y = (graph.input(name, (7,)) for name in "xy")
    xp = tracer.xp
    both = [x + y, x - y, x * y, x / y, x**y, x < y, x <= y, x > y, x >= y, x == y, x != y]
    both += [f(x, b) for f in (xp.maximum, xp.minimum) for b in (y, 0.5)] + [xp.where(x > 0.0, x, y)]
    one = [-x, xp.astype(x > y, np.float64), *(getattr(xp, name)(x) for name in sorted(FUNCTIONS))]
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.1, 2.0, (2, 7))
    for node in (*both, *one):
        result = xp.sum(xp.where(node, 2.0, 1.0) if node.dtype == bool else node)
        calls = Calls(graph, [], [result], [graph.input("step", ())])
        names: dict[str, Any] = {}
        exec(calls.source, names)
        found = np.empty(1)
        names["prepare"](*calls.arguments({"x": a, "y": b}))(np.zeros(1), found)
        assert found[0] == pytest.approx(float(by_numpy(result, a, b)), rel=1e-14), node.op


def by_numpy(node: Promise, x: Array, y: Array) -> Any:
    """What was promised, computed by Python's own reading of the table, number by number."""
    if node.op is Op.NUMBER:
        return float(node.more)
    if node.op is Op.INPUT:
        return x if node.more == "x" else y
    args = [by_numpy(arg, x, y) for arg in node.args]
    assert node.op.python is not None
    if node.op is Op.SUM:
        return np.sum(args[0])
    names = vars(math) | {"T": float, "abs": abs}
    each = np.broadcast_arrays(*args)
    return np.array(
        [eval(node.op.python.format(*map(repr, map(float, v))), names) for v in zip(*each, strict=True)]
    )


def test_what_is_written_over_is_read_before() -> None:
    # a state that later operations of its nest still need, and one that takes the other's place
    graph = Graph("float64")
    x, y, step = graph.input("x", (5,)), graph.input("y", (5,)), graph.input("step", ())
    new = x + y
    calls = Calls(graph, [(x, new), (y, x * new - y)], [tracer.xp.sum(x * y)], [step])
    names: dict[str, Any] = {}
    exec(calls.source, names)
    a, b = np.arange(5.0), np.arange(5.0)[::-1].copy()
    wanted = a + b, a * (a + b) - b, np.sum(a * b)
    found = np.empty(1)
    names["prepare"](*calls.arguments({"x": a, "y": b}))(np.zeros(1), found)
    np.testing.assert_array_equal(a, wanted[0])
    np.testing.assert_array_equal(b, wanted[1])
    assert found[0] == wanted[2]


def test_blocks_cover_all_rows() -> None:
    assert blocks(7, 3) == [(slice(0, 3), slice(3)), (slice(3, 6), slice(3)), (slice(6, 7), slice(1))]


@pytest.mark.parametrize(("preference", "computed"), [("never", "step by step"), ("recorded", "recorded")])
def test_the_environment_is_preferred_where_nothing_is_asked_for(
    preference: str, computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", preference)
    net = gpubp.Network((3, 1))
    X, Y = data(net, "float64")
    run = gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
    assert run.computed == computed
    for asked, other in ((False, "step by step"), ("recorded", "recorded")):
        run = gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False, compile=asked)
        assert run.computed == other


def test_an_unknown_preference_is_as_if_unset(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "yes")
    net = gpubp.Network((3, 1))
    run = gpubp.train(net, *data(net, "float64"), epochs=1, device="cpu", progress=False)
    assert run.computed == "step by step"
    assert "GPUBP_COMPILE is one of 'auto', 'always', 'recorded', 'never', not 'yes'" in caplog.text


@pytest.mark.parametrize("compile", ["always", 1, "step by step"])
def test_no_other_way_can_be_asked_for(compile: Any) -> None:
    net = gpubp.Network((3, 1))
    with pytest.raises(
        ValueError, match=r"compile must be None, True, False or 'recorded', got .*: give one"
    ):
        gpubp.train(net, *data(net, "float64"), compile=compile)


@pytest.mark.parametrize("compile", [True, "recorded"])
def test_what_cant_be_written_down_is_refused_where_it_was_asked_for(compile: Any) -> None:
    class Own:
        def init(self, w: Any) -> None: ...

        def step(self, w: Any, g: Any, state: None) -> tuple[Any, None]:
            return w - g, None

    net = gpubp.Network((3, 1))
    way = descent._ASKED[compile]
    said = f"needs steps that can be {way}, got one that can't: the optimizer has a step of its own: give"
    with pytest.raises(ValueError, match=f"compile={compile!r} {said} compile=None"):
        gpubp.train(net, *data(net, "float64"), optimizer=Own(), device="cpu", compile=compile)


def test_the_choice_goes_by_the_estimate_alone() -> None:
    estimates = {
        0.0: "step by step",
        0.09: "step by step",
        0.1: "recorded",
        9.9: "recorded",
        10.0: "compiled",
    }
    for seconds, way in estimates.items():
        assert descent._chosen(None, seconds) == way


@pytest.mark.parametrize("kind", ["read-only", "strided", "memmap"])
def test_arrays_of_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = gpubp.Network((6, 8, 3), cost="cross_entropy")
    X, Y = data(net, "float32")
    runs = []
    for way in (STEP_BY_STEP, *WAYS):
        options = way.choose(monkeypatch)
        given = X.copy()
        if kind == "strided":
            given = np.asfortranarray(X)
        elif kind == "read-only":
            given.flags.writeable = False
        else:
            np.save(tmp_path / "X.npy", X)
            given = np.load(tmp_path / "X.npy", mmap_mode="r")
        runs.append(gpubp.train(net, given, Y.astype("uint8"), epochs=2, **options))
    for run in runs[1:]:
        np.testing.assert_allclose(run.w, runs[0].w, rtol=1e-3, atol=1e-5)


def test_the_readme_shows_what_is_written() -> None:
    readme = Path(numpy_loops.__file__).with_name("README.md").read_text(encoding="utf-8")
    formulas, schedule, calls, program = re.findall(r"```\w+\n(.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    exec(formulas, names)
    texts: list[Text] = []

    class Shown(Recorded):
        def text(self, *promised: Any) -> Text:
            texts.extend([Calls(*promised), Program(*promised, in_parts=True)])
            return texts[-1]

        def get_ready(self) -> None: ...

        def _run(self, which: Array, *numbers_and_results: Array) -> None: ...

    Shown(names["step"], {"x": np.ones((20, 3))}, {"w": np.ones(3)}, 8, 1)
    assert schedule == "".join(f"{shown(step)}\n" for step in texts[0].plan.steps)
    assert [calls, program] == [text.source for text in texts]


def shown(step: Step) -> str:
    """A step of a plan, in words."""
    nodes = step.nodes.values() if isinstance(step, Nest) else [step.node]
    return f"{type(step).__name__.lower()}: {', '.join(str(node.op) for node in nodes)}"
