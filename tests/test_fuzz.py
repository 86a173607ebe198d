"""Random trainings in every way of computing are as step by step; ``python -m benchmarks.fuzz`` draws many more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="Hypothesis is not installed: ci/test adds it")
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import gpubp
from benchmarks import fuzz
from benchmarks._random_trainings import KNOWN, Own, PerNode, Training, read, trainings
from benchmarks.fuzz import IN_PARTS, RECORDED, WHOLE, Mismatch, Outcome, Tally, Way, agree, search
from gpubp import activations, costs, optimizers
from gpubp.engines import compiled


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_cache_folder", lambda: tmp_path_factory.getbasetemp() / "steps")


# 300 trainings recorded and 10 compiled, in parts that workers share
@pytest.mark.parametrize(
    ("dtype", "number"), [("float64", 1), ("float64", 2), ("float64", 3), ("float32", 4)]
)
def test_recorded_trainings(dtype: str, number: int) -> None:
    search(trainings(dtype), RECORDED, seed=number, examples=75)


@pytest.mark.parametrize(
    ("ways", "dtype", "examples"),
    [(IN_PARTS, "float64", 4), (IN_PARTS, "float32", 3), (WHOLE, "float64", 3)],
    ids=lambda value: value[0].name if isinstance(value, tuple) else str(value),
)
def test_compiled_trainings(ways: tuple[Way, ...], dtype: str, examples: int) -> None:
    pytest.importorskip("numba", reason="numba is not installed: ci/test adds it")
    search(trainings(dtype), ways, seed=5, examples=examples)


@pytest.mark.parametrize("own", KNOWN, ids=repr)
@pytest.mark.parametrize("bias", [True, False])
def test_known_activations(own: Own, bias: bool) -> None:
    more: dict[str, Any] = {"bias": bias, "rows": 40, "batch_size": 17, "optimizer": optimizers.Adam(0.01)}
    for layers in [(3, 5, 2), (3, 20, 17)]:
        agree(Training(layers, hidden=(own,), **more), RECORDED)
        agree(Training(layers, hidden=("tanh",), output=own, **more), RECORDED)


LEAKY = Training((3, 8, 2), hidden=("leaky_relu",), bias=False, rows=20, batch_size=10)


def test_leaky_relu_without_biases() -> None:
    agree(LEAKY, RECORDED)


@settings(max_examples=100, deadline=None, database=None)
@seed(7)
@given(st.sampled_from(["float32", "float64"]).flatmap(trainings))
def test_a_training_is_its_repr(training: Training) -> None:
    assert read(repr(training)) == training


def test_everything_is_drawn() -> None:
    seen: set[Any] = set()

    @settings(max_examples=400, deadline=None, database=None)
    @seed(8)
    @given(trainings())
    def collect(t: Training) -> None:
        for sigma in (t.input, *t.hidden, t.output):
            seen.add(sigma.partition("(")[0] if isinstance(sigma, str) else type(sigma))
            seen.add(isinstance(sigma, Own) and bool(sigma.pullback) and "own pullback")
        seen.update({t.cost.partition("(")[0], type(t.optimizer).__name__.lower(), t.layout, t.targets})
        seen.update({t.weights, t.metric, t.sizes[0] == 1 and "column", t.rows == 1 and "row", len(t.sizes)})
        seen.add(t.rows > t.batch_size and t.rows % t.batch_size > 0 and "rest")
        seen.add(t.batch_size > t.rows and "larger batch")
        seen.update(
            {name for name in ("l1", "l2", "clip_norm", "bias", "watched", "zeros") if getattr(t, name)}
        )
        assert t.epochs * -(-t.rows // t.batch_size) <= 5

    collect()
    wanted = {*activations.names(), *costs.names(), *optimizers.names(), Own, PerNode, "own pullback", "rest"}
    wanted |= {
        "C",
        "F",
        "strided",
        "read-only",
        "floats",
        "zeros and ones",
        "bytes",
        "labels",
        "column",
        "row",
    }
    wanted |= {"some", "some zero", "auto", "accuracy", "r2", None, "larger batch", *range(2, 7)}
    wanted |= {"l1", "l2", "clip_norm", "bias", "watched", "zeros"}
    assert wanted <= seen


def shifted(monkeypatch: pytest.MonkeyPatch, name: str, size: float) -> None:
    """Let recorded trainings come out with a fault in the middle element: of so many times the largest weight, or
    the cost."""

    def wrong(training: Training, net: gpubp.Network, data: Any, way: Way, moved: Any = None) -> Outcome:
        found = right(training, net, data, way, moved)
        if way.compile == "recorded" and name in found.values:
            values = found.values[name] = found.values[name].copy()
            values[values.size // 2] += size * max(np.max(np.abs(values)), 0.0 if name == "weights" else 1.0)
        return found

    right = fuzz.outcome
    monkeypatch.setattr(fuzz, "outcome", wrong)


@pytest.mark.parametrize(("dtype", "size"), [("float64", 2e-9), ("float32", 2e-4)])
@pytest.mark.parametrize("name", ["weights", "cost"])
def test_small_faults_are_seen(name: str, dtype: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted(monkeypatch, name, size)
    seen = []

    @settings(max_examples=50, deadline=None, database=None)
    @seed(8)
    @given(trainings(dtype))
    def count(training: Training) -> None:
        try:
            agree(training, RECORDED[:1], tally)
        except Mismatch as error:
            assert f"{name}[" in str(error)
            seen.append(training)

    tally = Tally()
    count()
    assert len(seen) >= 0.95 * (50 - tally.diverged)


def test_a_mismatch_says_how_to_have_it_again(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shifted(monkeypatch, "weights", 1e-3)
    with pytest.raises(Mismatch, match="recorded: weights") as raised:
        search(trainings(), RECORDED, seed=9, examples=10)
    told = str(raised.value)
    case = told.partition("--case ")[2].strip().strip('"')
    assert read(case).sizes == (1, 1)  # the smallest
    assert raised.value.__notes__[0] == "drawn with seed 9, 10 trainings"
    assert "@reproduce_failure" in raised.value.__notes__[1]
    assert fuzz.main(["--case", case]) == 1
    assert "mismatch: recorded: weights" in capsys.readouterr().out


def test_what_rounding_alone_amplifies_is_no_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    # two targets above and two below: their gradient is what rounding left of a sum that is 0
    def noisy(training: Training, net: gpubp.Network, data: Any, way: Way, moved: Any = None) -> Outcome:
        rng = np.random.default_rng(1) if way.compile == "recorded" else moved
        return right(training, net, data, fuzz.STEP_BY_STEP, rng)

    right = fuzz.outcome
    monkeypatch.setattr(fuzz, "outcome", noisy)
    tally = Tally()
    tiny = optimizers.RMSprop(0.5, epsilon=1e-15)
    for number in range(20):
        agree(
            Training((1, 1), cost="absolute_error", optimizer=tiny, rows=4, batch_size=4, seed=number),
            RECORDED,
            tally,
        )
    assert tally.trainings == 20
    assert 0 < tally.amplified < 20
