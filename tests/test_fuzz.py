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
from benchmarks.fuzz import (
    IN_PARTS,
    RECORDED,
    WHOLE,
    Mismatch,
    Outcome,
    Tally,
    Way,
    agree,
    on_device,
    search,
)
from gpubp import activations, costs, optimizers
from gpubp._devices import why_no_gpu
from gpubp.recording import code_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "folder", lambda: tmp_path_factory.getbasetemp() / "steps")


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


@pytest.fixture
def card() -> None:
    if (reason := why_no_gpu()) is not None:
        pytest.skip(reason)


@pytest.mark.parametrize(("dtype", "examples"), [("float64", 40), ("float32", 20)])
@pytest.mark.usefixtures("card")
def test_random_trainings_on_cupy(dtype: str, examples: int) -> None:
    search(trainings(dtype), on_device("cuda"), seed=6, examples=examples)


@pytest.mark.parametrize("name", ["weights", "cost", "metric"])
def test_one_other_bit_is_another_digest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest() -> bytes:
        tally = Tally()
        agree(training, RECORDED[:1], tally)
        return tally.digest

    def wrong(*given: Any, **more: Any) -> Outcome:
        found = right(*given, **more)
        values = found.values[name] = found.values[name].copy()
        values[-1] = np.nextafter(values[-1], np.inf)
        return found

    training = Training((3, 8, 2), hidden=("tanh",), rows=20, batch_size=10, metric="auto")
    once = digest()
    assert digest() == once
    right = fuzz.outcome
    monkeypatch.setattr(fuzz, "outcome", wrong)
    assert digest() != once


@pytest.mark.usefixtures("card")
def test_cupy_arrays_that_are_changed_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(net: Any, X: Any, *more: Any, **options: Any) -> Any:
        run = right(net, X, *more, **options)
        if not isinstance(X, np.ndarray):
            X[...] = 0.0
        return run

    right = gpubp.train
    monkeypatch.setattr(gpubp, "train", writes)
    with pytest.raises(Mismatch, match="arrays there already: what was given has been changed"):
        agree(LEAKY, on_device("cuda"))


@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only"])
def test_layouts(layout: str) -> None:
    training = Training((3, 4), rows=5, layout=layout, weights="some")
    data = training.data(training.net())
    found = training.laid_out(np, data)
    for name, was in vars(data).items():
        a = getattr(found, name)
        np.testing.assert_array_equal(a, was)
        assert not np.shares_memory(a, was)
        assert a.flags.writeable == (layout != "read-only")
        assert a.flags.c_contiguous == (layout != "strided" and (layout != "F" or a.ndim == 1))
        assert a.flags.f_contiguous == (layout != "strided" and (layout == "F" or a.ndim == 1))


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


@pytest.mark.parametrize(("dtype", "size"), [("float64", 1e-8), ("float32", 1e-3)])
@pytest.mark.unchecked  # shrinking records hundreds of steps
@pytest.mark.parametrize("name", ["weights", "cost"])
def test_small_faults_are_seen(name: str, dtype: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted(monkeypatch, name, size)
    seen: list[str] = []

    @settings(max_examples=50, deadline=None, database=None)
    @seed(8)
    @given(trainings(dtype))
    def count(training: Training) -> None:
        try:
            agree(training, RECORDED[:1], tally)
        except Mismatch as error:
            seen.append(str(error))

    tally = Tally()
    count()
    left_out = tally.not_recorded + (tally.diverged if name == "cost" else 0)
    # but for those where rounding alone does as much
    assert tally.trainings - left_out <= 0.05 * 50
    assert len(seen) >= 20
    assert all(f"recorded: {name}" in said for said in seen)


@pytest.mark.unchecked
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


def test_the_command_counts_what_it_compared(capsys: Any) -> None:
    assert fuzz.main(["--recorded", "12", "--compiled", "0", "--workers", "1", "--seed", "3"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()[-1]) == 64  # SHA-256
    assert "12 trainings, 0 chunks with a mismatch" in printed.out
    assert "12/12" in printed.err


# a saturated output, and Adam's quotient of what is left of its gradients
CHAOTIC = Training(
    (15, 8, 15, 4, 34, 15),
    hidden=("softsign", "gelu", "exp", "exp"),
    input="sigmoid",
    cost="binary_cross_entropy",
    bias=False,
    optimizer=optimizers.AdamW(0.1, beta1=0.0, beta2=0.9, weight_decay=0.5),
    rows=5,
    batch_size=3,
    epochs=2,
    targets="bytes",
    zeros=True,
    w_scale=2.0,
    clip_norm=100.0,
    seed=629,
)


def test_what_rounding_alone_amplifies_is_no_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved_too(training: Training, net: gpubp.Network, data: Any, way: Way, moved: Any = None) -> Outcome:
        rng = np.random.default_rng(1) if way.compile == "recorded" else moved
        return right(training, net, data, fuzz.STEP_BY_STEP, rng)

    right = fuzz.outcome
    monkeypatch.setattr(fuzz, "outcome", moved_too)
    tally = Tally()
    agree(CHAOTIC, RECORDED, tally)
    assert tally.amplified == 1
    shifted(monkeypatch, "weights", 1e-2)
    with pytest.raises(Mismatch):
        agree(CHAOTIC, RECORDED)
