"""train: against a loop by hand, step by step, on every library."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Place
from trainings import (
    NET,
    Plain,
    W,
    X,
    Y,
    by_hand,
    close,
    cost_by_hand,
    fit,
    on_batch,
    on_epoch,
    problem,
    without_jax,
    without_jax64,
)

import gpubp
from gpubp import SGD, Adam, Network, Run
from gpubp._devices import device_of
from gpubp.training import descent

pytestmark = pytest.mark.usefixtures("on_the_cpu")

# the loop


def test_every_step_is_the_one_by_hand() -> None:
    seen: list[Any] = []
    run = fit(callbacks=[on_batch(lambda state: seen.append(state.w.copy()))])
    steps, costs = by_hand(W)
    assert len(seen) == len(steps) == 3 * 5  # 23 rows: the last batch has 3
    close(seen, steps)
    close(run.w, steps[-1])
    close(run.history["cost"], costs)


def test_an_epochs_cost_is_weighted_by_rows() -> None:
    run = fit(epochs=1, optimizer=SGD(0.0), batch_size=20)
    assert run.history["cost"][0] == pytest.approx(cost_by_hand(W, X, Y), rel=1e-13)


@pytest.mark.parametrize("batch_size", [1, 23, 24, 1000])
def test_any_batch_size(batch_size: int) -> None:
    close(fit(batch_size=batch_size).w, by_hand(W, batch_size=batch_size)[0][-1])


def test_any_epoch_can_be_had_alone() -> None:
    ends: list[Any] = []
    run = fit(seed=7, callbacks=[on_epoch(lambda state: ends.append(state.w.copy()))])
    close(run.w, by_hand(ends[1], epochs=[3], seed=7)[0][-1])
    first, second = (np.random.default_rng([7, epoch]).permutation(23) for epoch in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    "penalties",
    [{"l2": 0.3}, {"l1": 0.2}, {"clip_norm": 0.05}, {"l2": 0.3, "l1": 0.2, "clip_norm": 0.4}],
    ids=lambda penalties: "-".join(penalties),
)
def test_penalties_and_clipping(place64: Place, penalties: dict[str, Any]) -> None:
    run = fit(place64.array(X), place64.array(Y), **penalties)
    steps, costs = by_hand(W, **penalties)
    close(place64.host(run.w), steps[-1])
    close(run.history["cost"], costs)  # without the penalties
    assert np.abs(steps[-1] - by_hand(W)[0][-1]).max() > 1e-2


def test_the_l1_term_is_the_sign_without_asking_for_it() -> None:
    """CuPy's sign by the standard waits for the device; NaN comes through, and the zeros are no trouble."""
    W = np.array([2.0, -3.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-300, -1e-300])
    for dtype in ("float32", "float64"):
        w = W.astype(dtype)
        g = np.linspace(-1.0, 1.0, w.size, dtype=dtype)
        only = SimpleNamespace(where=np.where)
        (ours,) = descent._l1_term(only, g, w, 0.25)
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, g + np.asarray(0.25, dtype) * np.sign(w))


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_biases_are_never_penalised(penalty: str) -> None:
    def one_step(**more: Any) -> Any:
        return fit(np.zeros((4, 3)), np.zeros((4, 2)), w=np.ones(26), optimizer=SGD(0.01), epochs=1, **more).w

    moved = one_step(**{penalty: 50.0}) - one_step()
    np.testing.assert_allclose(moved[:20], -0.01 * 50.0, rtol=1e-12)
    np.testing.assert_array_equal(moved[20:], 0.0)


def test_l2_is_pytorchs_weight_decay(torch: Any) -> None:
    net = Network((3, 4, 2), hidden="tanh", bias=False)
    w = W[:20]
    parts = [
        torch.tensor(part.copy(), requires_grad=True) for part in (w[:12].reshape(4, 3), w[12:].reshape(2, 4))
    ]
    adam = torch.optim.Adam(parts, lr=0.02, weight_decay=0.3)
    for epoch in (1, 2, 3):
        order = np.random.default_rng([0, epoch]).permutation(23)
        for start in range(0, 23, 5):
            rows = order[start : start + 5]
            q = torch.tanh(torch.tensor(X[rows]) @ parts[0].T) @ parts[1].T
            adam.zero_grad()
            (0.5 * ((q - torch.tensor(Y[rows])) ** 2).sum(1).mean()).backward()
            adam.step()
    run = fit(net=net, w=w, optimizer=Adam(0.02), l2=0.3)
    close(run.w, np.concatenate([part.detach().numpy().ravel() for part in parts]))


def test_clipping_a_gradient_whose_square_overflows() -> None:
    net = Network((1, 1), bias=False)
    x, y, w = np.full((1, 1), 3e10, "float32"), np.zeros((1, 1), "float32"), np.full(1, 1e-5, "float32")
    run = fit(x, y, net=net, w=w, epochs=1, optimizer=SGD(1e-7), clip_norm=2.0)
    assert run.w[0] == pytest.approx(1e-5 - 2e-7, rel=1e-6)
    still = fit(x, y, net=net, w=np.zeros(1, "float32"), epochs=1, clip_norm=2.0)
    assert still.w[0] == 0.0


def test_numbers_of_numpy_do_not_widen_the_weights(place: Place) -> None:
    run = fit(
        place.array(X),
        place.array(Y),
        w=None,
        l2=np.float64(0.1),
        l1=np.float64(0.1),
        clip_norm=np.float64(0.5),
        epochs=np.uint8(2),
        batch_size=np.uint8(5),
        seed=np.uint8(3),
    )
    assert place.here(run.w)
    assert run.history["epoch"] == [1, 2]


def test_small_integers_of_numpy_do_not_overflow() -> None:
    rows = problem(300)
    run = fit(*rows, batch_size=np.uint8(100), epochs=np.uint8(1))
    close(run.w, by_hand(W, *rows, epochs=[1], batch_size=100)[0][-1])


# the same everywhere


@pytest.fixture(scope="module")
def hundred_steps() -> tuple[Any, Any, Run]:
    """Integer classes, so that labels are tried too, and the run on NumPy."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((48, 6)), rng.integers(0, 3, 48)
    return X, y, _hundred(X, y, device="cpu")


def _hundred(X: Any, y: Any, device: str = "auto") -> Run:
    net = Network((6, 8, 5, 3), hidden=("relu", "tanh"), cost="cross_entropy")
    settings: dict[str, Any] = {"epochs": 25, "batch_size": 12, "seed": 11, "l2": 1e-3, "clip_norm": 1.0}
    return gpubp.train(net, X, y, **settings, device=device, progress=False)


def test_the_same_seed_gives_the_same_weights_after_100_steps(
    place64: Place, hundred_steps: tuple[Any, Any, Run]
) -> None:
    X, y, on_numpy = hundred_steps
    run = _hundred(place64.array(X), place64.array(y))
    assert place64.here(run.w)
    assert np.abs(place64.host(run.w) - on_numpy.w).max() <= 1e-10
    close(run.history["metric"], on_numpy.history["metric"])


@without_jax
def test_two_runs_are_bitwise_equal(place: Place) -> None:
    runs = [fit(place.array(X), place.array(Y), w=None, optimizer="adam", validation=0.2) for _ in range(2)]
    np.testing.assert_array_equal(*(place.host(run.w) for run in runs))
    a, b = ({**run.history, "seconds": None} for run in runs)
    assert a == b
    other = fit(place.array(X), place.array(Y), w=None, optimizer="adam", validation=0.2, seed=1)
    assert not np.array_equal(place.host(other.w), place.host(runs[0].w))


def test_every_place_trains_as_by_hand(place: Place) -> None:
    run = fit(place.array(X), place.array(Y), w=place.array(W))
    assert place.here(run.w)
    close(place.host(run.w), by_hand(W)[0][-1], 20 * place.rtol)
    assert run.device == device_of(place.array(X))


def test_weights_are_drawn_by_the_seed() -> None:
    run = fit(w=None, epochs=0, seed=9)
    np.testing.assert_array_equal(run.w, NET.init(9, dtype="float64"))


# sample weights


@without_jax64
def test_weight_0_removes_and_weight_2_repeats(place64: Place) -> None:
    s = np.ones(23)
    s[[2, 3, 11]], s[[0, 7]] = 0.0, 2.0
    rows = np.repeat(np.arange(23), s.astype(int))
    run = fit(*map(place64.array, (X, Y)), sample_weight=place64.array(s), batch_size=23)
    same = fit(X[rows], Y[rows], batch_size=23)
    close(place64.host(run.w), same.w)
    close(run.history["cost"], same.history["cost"])
    close(run.history["metric"], same.history["metric"])


def test_removed_rows_take_no_place_in_a_batch() -> None:
    s = np.where(np.arange(23) < 13, 1.0, 0.0)
    close(fit(sample_weight=s).w, by_hand(W, X[:13], Y[:13])[0][-1])


def test_weighted_minibatches() -> None:
    s = np.random.default_rng(2).uniform(0.1, 3.0, 23)
    run = fit(sample_weight=s)
    steps, costs = by_hand(W, s=s)
    close(run.w, steps[-1])
    close(run.history["cost"], costs)


@without_jax
@pytest.mark.parametrize("kind", ["int64", "bool"])
def test_weights_may_be_whole_numbers(place: Place, kind: str) -> None:
    s = (np.arange(23) % 3 > 0).astype(kind)
    if kind == "int64" and place.device == "no_x64":
        s = s.astype("int32")
    x, y = place.array(X), place.array(Y)
    runs = [fit(x, y, sample_weight=place.array(weights)) for weights in (s, s.astype(float))]
    np.testing.assert_array_equal(*(place.host(run.w) for run in runs))


# optimizers


@pytest.mark.parametrize(
    "optimizer", ["sgd(learning_rate=0.1)", SGD(0.1), Plain()], ids=["name", "object", "own"]
)
def test_optimizers_by_name_object_and_own(place64: Place, optimizer: Any) -> None:
    run = fit(place64.array(X), place64.array(Y), optimizer=optimizer)
    close(place64.host(run.w), by_hand(W)[0][-1])
    assert run.history["learning_rate"] == [0.1] * 3


def test_ones_own_optimizer_may_write_in_place_and_have_no_learning_rate() -> None:
    def step(w: Any, g: Any, state: Any) -> tuple[Any, Any]:
        w -= 0.1 * g
        return w, state

    run = fit(optimizer=SimpleNamespace(init=lambda w: None, step=step))
    close(run.w, by_hand(W)[0][-1])
    assert np.isnan(run.history["learning_rate"]).all()
