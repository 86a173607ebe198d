"""Compiled training: the same weights as step by step, for every formula; and when it is used at all."""

from __future__ import annotations

import itertools
import logging
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp
from benchmarks._cases import GRID, Case
from gpubp import _descent, activations, costs, optimizers
from gpubp._typing import Array
from gpubp.engines import Generic, lazy
from gpubp.engines.lazy import Batch, Graph, Untraceable
from gpubp.engines.program import Program

pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
pytest.importorskip("scipy", reason="SciPy is not installed: pip install 'gpubp[fast]'")
from gpubp.engines import compiled, elementary, plan

ROWS = 75  # four batches of 16 and one of 11


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_cache_folder", lambda: tmp_path_factory.getbasetemp() / "steps")


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


def both(
    net: gpubp.Network, monkeypatch: pytest.MonkeyPatch, caplog: Any, dtype: str = "float64", **more: Any
) -> None:
    """Train step by step and compiled, by threads alone and together; the same must come out, but for rounding."""
    X, Y = data(net, dtype)
    runs = []
    for choice, threads in (("never", None), ("always", None), ("always", 2), ("always", 3)):
        monkeypatch.setenv("GPUBP_COMPILE", choice)
        options = {"epochs": 3, "batch_size": 16, "device": "cpu", "progress": False, **more}
        with caplog.at_level(logging.INFO, "gpubp"):
            runs.append(gpubp.train(net, X, Y, threads=threads, **options))
    assert "aren't compiled" not in caplog.text
    assert [f"compiled steps take {n} threads" in caplog.text for n in (1, 2, 3)] == [False, True, True]
    plain = runs[0]
    rtol, atol = (1e-10, 1e-12) if dtype == "float64" else (1e-3, 1e-4)
    for fast in runs[1:]:
        np.testing.assert_allclose(fast.w, plain.w, rtol, atol)
        for name in ("cost", "metric", "learning_rate") if more.get("metric", "auto") else ("cost",):
            np.testing.assert_allclose(fast.history[name], plain.history[name], rtol, atol)


@pytest.mark.parametrize("name", activations.names())
def test_every_activation(name: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    both(gpubp.Network((5, 7, 4, 2), hidden=name), monkeypatch, caplog, clip_norm=1.0)


@pytest.mark.parametrize("name", costs.names())
def test_every_cost(name: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    both(gpubp.Network((6, 5, 3), hidden="tanh", cost=name), monkeypatch, caplog)


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer(name: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    both(gpubp.Network((6, 5, 1)), monkeypatch, caplog, optimizer=name)


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
def test_every_option(cost: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    if more.get("metric") == "accuracy" and cost == "squared_error":
        more = {"metric": "r2"}
    both(gpubp.Network((6, 8, 3), cost=cost), monkeypatch, caplog, **more)


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
def test_every_kind_of_network(net: gpubp.Network, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    both(net, monkeypatch, caplog)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", activations.names())
def test_wide_layers(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    net = gpubp.Network((5, 40, 3), hidden=name, cost="cross_entropy")
    both(net, monkeypatch, caplog, dtype, optimizer="sgd")


@pytest.mark.parametrize("case", GRID, ids=lambda case: str(case.name))
def test_every_network_that_is_timed(case: Case, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    hidden = tuple(min(n, 64) for n in case.hidden)  # the same program, in less time
    sizes = (min(case.inputs, 64), *hidden, case.outputs)
    both(gpubp.Network(sizes, hidden=case.activation, cost=case.cost), monkeypatch, caplog, "float32")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_runs_are_repeated_to_the_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    net = gpubp.Network((30, 70, 20, 3), hidden="tanh", cost="cross_entropy")
    X, Y = data(net, "float32", rows=500)
    first, *others = (
        gpubp.train(
            net, X, Y, epochs=4, batch_size=61, clip_norm=0.1, device="cpu", progress=False, threads=threads
        )
        for _ in range(4)
    )
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


@pytest.mark.parametrize("choice", ["never", "always"])
def test_a_steady_step_allocates_nothing_large(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", choice)
    net = gpubp.Network((300, 200, 200, 10), cost="cross_entropy")
    X, Y = data(net, "float32", rows=1600)
    seen = Allocations(batch=4)
    gpubp.train(
        net, X, Y, epochs=1, batch_size=160, device="cpu", progress=False, metric=None, callbacks=[seen]
    )
    assert seen.instructions > 100
    assert 100 < seen.most < 64_000  # x alone is 192,000 bytes, a layer 128,000, w 409,000


def test_every_batch_is_told_where_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    net = gpubp.Network((3, 4, 1))
    X, Y = data(net, "float64")
    seen: list[tuple[int, int, int, float]] = []

    class Listener:
        def on_batch_end(self, state: gpubp.callbacks.TrainingState) -> bool:
            assert state.cost is not None
            seen.append((state.epoch, state.batch, state.rows_done, float(state.cost)))
            return len(seen) == 7

    run = gpubp.train(
        net, X, Y, epochs=3, batch_size=16, device="cpu", progress=False, callbacks=[Listener()]
    )
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
    for choice in ("never", "always"):
        monkeypatch.setenv("GPUBP_COMPILE", choice)
        with pytest.raises(gpubp.DivergenceError) as raised:
            gpubp.train(
                net, X, Y, optimizer="sgd(learning_rate=5.0)", batch_size=8, device="cpu", progress=False
            )
        where.append((raised.value.epoch, raised.value.batch, raised.value.learning_rate))
    assert where[0] == where[1]


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


def program(formula: Any, dtype: str = "float32", columns: int = 40) -> Program:
    """A step whose only result is the sum of the formula over a batch."""
    graph = Graph(dtype)
    x, which = graph.input("x", (90, columns)), graph.input("which", (Batch(8),), np.int64)
    p = Generic(lazy.xp).gather(x, which)
    return Program(graph, [], [lazy.xp.sum(lazy.xp.sum(formula(lazy.xp, p), axis=1))], [which])


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
        lambda xp, p: xp.sin(p),
        lambda xp, p: float(p) * p,
        lambda xp, p: p + p.mT,
        lambda xp, p: xp.sum(p, axis=0, keepdims=True) * p,
    ],
)
def test_what_cant_be_written_down_is_refused(formula: Any) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 -- a formula may fail in any way on what is no array
        program(formula)


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
        X, Y = data(net, "float64")
        with caplog.at_level(logging.INFO, "gpubp"):
            gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
        assert said in caplog.text
        caplog.clear()


def test_a_cache_that_cant_be_written_costs_time_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(compiled, "_cache_folder", lambda: tmp_path / "file" / "folder")
    with caplog.at_level(logging.INFO, "gpubp"):
        module = compiled._module("def run():\n    return 3\n")
    assert "compiled steps aren't kept" in caplog.text
    assert module.run() == 3


def test_steps_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_cache_folder", lambda: tmp_path)
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    compiled._compiled.cache_clear()
    net = gpubp.Network((3, 1))
    X, Y = data(net, "float64")
    gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
    assert list(tmp_path.glob("gpubp_*.py"))
    assert list(tmp_path.rglob("*.nbi"))


def test_numba_is_loaded_only_where_a_run_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUBP_COMPILE", raising=False)
    net = gpubp.Network((3, 4, 1))
    X, Y = data(net, "float64")
    asked: list[str] = []

    class Asked(compiled.Recorded):
        def compile(self) -> None:
            asked.append(self.source)
            raise ImportError("as if numba weren't there")

    estimate = {"seconds": 0.0}
    monkeypatch.setattr(_descent, "_seconds", lambda *_: estimate["seconds"])
    monkeypatch.setattr(compiled, "Recorded", Asked)
    for seconds, kept in itertools.product((1.0, 5.0, 20.0), (False, True)):
        monkeypatch.setitem(estimate, "seconds", seconds)
        monkeypatch.setattr(Asked, "kept", kept)
        asked.clear()
        gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
        assert bool(asked) == (seconds == 20.0 or (seconds == 5.0 and kept)), (seconds, kept)


def test_without_numba_steps_are_numpys(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled._compiled.cache_clear()
    net = gpubp.Network((3, 4, 1))
    X, Y = data(net, "float64")
    with caplog.at_level(logging.INFO, "gpubp"):
        gpubp.train(net, X, Y, epochs=1, device="cpu", progress=False)
    assert "training steps aren't compiled" in caplog.text


def test_the_choice_is_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "yes")
    net = gpubp.Network((3, 1))
    with pytest.raises(
        ValueError, match="GPUBP_COMPILE must be 'auto', 'always' or 'never', got 'yes': unset it"
    ):
        gpubp.train(net, *data(net, "float64"), epochs=1, device="cpu", progress=False)


def test_what_numba_cant_compile_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    monkeypatch.setitem(plan.NEXT, "max", "{0} + 'a letter'")
    net = gpubp.Network((3, 4), cost="cross_entropy")
    with caplog.at_level(logging.INFO, "gpubp"):
        run = gpubp.train(net, *data(net, "float64"), epochs=1, device="cpu", progress=False)
    assert "aren't compiled: numba: " in caplog.text
    assert np.isfinite(run.w).all()


@pytest.mark.parametrize("kind", ["read-only", "strided", "memmap"])
def test_arrays_of_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = gpubp.Network((6, 8, 3), cost="cross_entropy")
    X, Y = data(net, "float32")
    runs = []
    for choice in ("never", "always"):
        monkeypatch.setenv("GPUBP_COMPILE", choice)
        given = X.copy()
        if kind == "strided":
            given = np.asfortranarray(X)
        elif kind == "read-only":
            given.flags.writeable = False
        else:
            np.save(tmp_path / "X.npy", X)
            given = np.load(tmp_path / "X.npy", mmap_mode="r")
        runs.append(gpubp.train(net, given, Y.astype("uint8"), epochs=2, device="cpu", progress=False))
    np.testing.assert_allclose(runs[0].w, runs[1].w, rtol=1e-3, atol=1e-5)
