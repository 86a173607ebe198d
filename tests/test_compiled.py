from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import _loop, activations, optimizers
from gpubp._typing import Array
from gpubp.engines import fastest
from gpubp.engines.numpy import Numpy
from gpubp.engines.trace import Untraceable, traced

pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
from gpubp.engines import compiled

PLAIN, FAST = Numpy(), compiled.Compiled()
DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_cache_folder", lambda: tmp_path_factory.getbasetemp() / "loops")


def values(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    drawn = 3.0 * rng.standard_normal(shape)
    drawn[0, :4] = [0.0, -0.0, np.nan, 1e4]
    return drawn.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", activations.names())
def test_activations_there_and_back_are_numpys_to_the_bit(name: str, dtype: str) -> None:
    sigma = activations.get(name)
    p, g = values((33, 7), dtype), values((33, 7), dtype, 1)
    with PLAIN.quiet():
        q = PLAIN.activate(sigma, p)
        there = FAST.activate(sigma, *([p.copy()] * 2))
        np.testing.assert_array_equal(there, q)
        back, same = g.copy(), g.copy()
        np.testing.assert_array_equal(
            FAST.pull_back(sigma, p, q, back, out=back), PLAIN.pull_back(sigma, p, q, same, out=same)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", optimizers.names())
def test_steps_are_numpys_to_the_bit(name: str, dtype: str) -> None:
    descent = optimizers.get(name)
    w, g = values((1, 40000), dtype)[0, 4:], values((1, 40000), dtype, 1)[0, 4:]
    states = {engine: (w.copy(), descent.init(w)) for engine in (PLAIN, FAST)}
    for _ in range(3):
        for engine, (at, state) in states.items():
            states[engine] = descent.step(at, g, state, overwrite=True, engine=engine)
    for ours, plain in zip(states[FAST][1].slots, states[PLAIN][1].slots, strict=True):
        np.testing.assert_array_equal(ours, plain)
    np.testing.assert_array_equal(states[FAST][0], states[PLAIN][0])


@pytest.mark.parametrize("hidden", ["relu", "tanh", "gelu", "leaky_relu(slope=0.1)", "softmax"])
def test_runs_are_numpys_to_the_bit(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = gpubp.Network((6, 8, 8, 3), hidden=hidden, cost="cross_entropy")
    rng = np.random.default_rng(0)
    X, labels = rng.standard_normal((70, 6)), rng.integers(0, 3, 70)

    def run() -> gpubp.Run:
        more: dict[str, Any] = {"l2": 1e-3, "l1": 1e-4, "clip_norm": 0.5, "validation": 0.2}
        return gpubp.train(net, X, labels, batch_size=16, epochs=3, progress=False, device="cpu", **more)

    assert isinstance(fastest(PLAIN), compiled.Compiled)
    fast = run()
    monkeypatch.setattr(_loop, "fastest", lambda engine: engine)
    plain = run()
    np.testing.assert_array_equal(fast.w, plain.w)
    assert fast.history["cost"] == plain.history["cost"]


def test_only_what_may_be_overwritten_is() -> None:
    sigma, p = activations.get("relu"), values((5, 7), "float64")
    before = p.copy()
    assert FAST.activate(sigma, p) is not p
    np.testing.assert_array_equal(p, before)
    view = values((5, 14), "float64")[:, ::2]
    np.testing.assert_array_equal(FAST.activate(sigma, view.copy(), None), np.maximum(view, 0.0))
    np.testing.assert_array_equal(FAST.activate(sigma, view, view), np.maximum(view, 0.0))


def test_numbers_are_worked_out_in_double_precision() -> None:
    (w,) = FAST.update(
        lambda xp, w, rate: ((1.0 - rate) * w,),
        [np.ones(4, np.float32)],
        [0.999],
        out=[np.ones(4, np.float32)],
    )
    assert w[0] == np.float32(1.0 - 0.999)


@pytest.mark.parametrize(
    "formula",
    [
        lambda xp, p: xp.exp(p),
        lambda xp, p: p if p > 0 else -p,
        lambda xp, p: p**3,
        lambda xp, p: xp.maximum(p, p + 1.0),
        lambda xp, p: p + np.ones(3),
        lambda xp, p: xp.sum(p),
        lambda xp, p: np.maximum(p, 0.0),
        lambda xp, p: p.shape[0] * p,
    ],
)
def test_what_isnt_arithmetic_is_left_to_numpy(formula: Any) -> None:
    with pytest.raises(Untraceable):
        traced(formula, 1, 0, (0,))


def test_one_spelling_for_a_line_said_twice() -> None:
    source = traced(lambda xp, p: xp.abs(p) * xp.abs(p), 1, 0, (0,))
    assert source.count("abs(") == 1


def test_a_cache_that_cant_be_written_costs_time_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(compiled, "_cache_folder", lambda: tmp_path / "file" / "folder")
    with caplog.at_level(logging.INFO, "gpubp"):
        module = compiled._module(traced(lambda xp, p: 2.0 * p + 0.125, 1, 0, (0,)))
    assert "compiled loops aren't kept" in caplog.text
    assert module.numbers() == (2.0, 0.125)


def test_loops_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_cache_folder", lambda: tmp_path)
    loop = compiled._loop.__wrapped__(lambda xp, p: 3.0 * p + 0.375, 1, 0, (0,))
    assert loop is not None
    p = np.ones(3)
    loop((), p)
    assert p[0] == 3.375
    assert list(tmp_path.glob("gpubp_*.py"))
    assert list(tmp_path.rglob("*.nbi"))


def test_numba_is_imported_only_where_a_run_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def asking(engine: Numpy) -> Numpy:
        asked.append(engine)
        return engine

    monkeypatch.setattr(_loop, "fastest", asking)
    monkeypatch.delitem(sys.modules, "numba")
    net, X = gpubp.Network((3, 4, 1)), np.zeros((50, 3))
    gpubp.train(net, X, X[:, 0], epochs=1, device="cpu", progress=False)
    assert not asked
    monkeypatch.setattr(_loop, "_pays", lambda *_: True)
    gpubp.train(net, X, X[:, 0], epochs=1, device="cpu", progress=False)
    assert asked


def test_without_numba_numpys_engine_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "gpubp.engines.compiled")
    with caplog.at_level(logging.INFO, "gpubp"):
        assert fastest.__wrapped__(PLAIN) is PLAIN
    assert "loops aren't compiled" in caplog.text
