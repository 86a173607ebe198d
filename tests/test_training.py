"""train: against a loop by hand, step by step; stopping, devices, Ctrl-C, divergence, refusals."""

from __future__ import annotations

import logging
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import PLACES, Place, library

import gpubp
from gpubp import SGD, Adam, DivergenceError, Network, Run, schedules
from gpubp._devices import Device, device_of

# JAX compiles every shape anew: it takes part in the tests of NET and batches of 5 alone
without_jax = pytest.mark.parametrize("place", [p for p in PLACES if p.name != "jax"], indirect=True, ids=str)
without_jax64 = pytest.mark.parametrize(
    "place64", [p for p in PLACES if p.name != "jax" and p.dtype == "float64"], indirect=True, ids=str
)

NET = Network((3, 4, 2), hidden="tanh")
COLUMNS = ["epoch", "cost", "metric", "validation_cost", "validation_metric", "learning_rate", "seconds"]


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_DEVICE", "cpu")


def problem(n: int = 23, seed: int = 0, noise: float = 0.5) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    return X, X @ rng.standard_normal((3, 2)) + noise * rng.standard_normal((n, 2))


X, Y = problem()
W = NET.init(5, dtype="float64")
W += 0.1 * np.random.default_rng(1).standard_normal(W.shape)  # biases too
for part in (X, Y, W):
    part.setflags(write=False)


def fit(X: Any = X, Y: Any = Y, *, net: Network = NET, **more: Any) -> Run:
    given = {"w": W, "optimizer": SGD(0.1), "batch_size": 5, "epochs": 3, "progress": False, **more}
    return gpubp.train(net, X, Y, **given)


def by_hand(
    w: Any,
    X: Any = X,
    Y: Any = Y,
    *,
    epochs: Any = (1, 2, 3),
    batch_size: int = 5,
    seed: int = 0,
    rate: float = 0.1,
    l2: float = 0.0,
    l1: float = 0.0,
    clip_norm: float = np.inf,
    s: Any = None,
) -> tuple[list[Any], list[float]]:
    """SGD on NET written out: w after every step, and the epochs' costs."""
    w = w.copy()
    W0, W1, b0, b1 = w[:12].reshape(4, 3), w[12:20].reshape(2, 4), w[20:24], w[24:]
    s = np.ones(len(X)) if s is None else s
    steps, costs = [], []
    for epoch in epochs:
        order = np.random.default_rng([seed, epoch]).permutation(len(X))
        total = 0.0
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            x, y, a = X[rows], Y[rows], s[rows] / s[rows].sum()
            q = np.tanh(x @ W0.T + b0)
            e = q @ W1.T + b1 - y
            total += s[rows] @ (e**2).sum(1) / 2
            D2 = a[:, None] * e
            D1 = D2 @ W1 * (1 - q**2)
            g = np.concatenate([(D1.T @ x).ravel(), (D2.T @ q).ravel(), D1.sum(0), D2.sum(0)])
            g[:20] += l2 * w[:20] + l1 * np.sign(w[:20])
            w -= rate * g * min(1.0, clip_norm / np.sqrt(g @ g))
            steps.append(w.copy())
        costs.append(total / s.sum())
    return steps, costs


def cost_by_hand(w: Any, X: Any, Y: Any, s: Any = None) -> float:
    return by_hand(w, X, Y, epochs=[1], batch_size=len(X), rate=0.0, s=s)[1][0]


def on_batch(watch: Callable[[Any], Any]) -> SimpleNamespace:
    return SimpleNamespace(on_batch_end=watch)


def on_epoch(watch: Callable[[Any], Any]) -> SimpleNamespace:
    return SimpleNamespace(on_epoch_end=watch)


def close(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


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
    return X, y, _hundred(X, y)


def _hundred(X: Any, y: Any) -> Run:
    net = Network((6, 8, 5, 3), hidden=("relu", "tanh"), cost="cross_entropy")
    return gpubp.train(net, X, y, epochs=25, batch_size=12, seed=11, l2=1e-3, clip_norm=1.0, progress=False)


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


# validation, early stopping, history


def test_validation_by_fraction() -> None:
    order = np.random.default_rng([4, 0, 1]).permutation(23)
    held, kept = np.sort(order[:6]), np.sort(order[6:])  # round(0.25 * 23)
    ends: list[Any] = []
    watch = on_epoch(lambda state: ends.append(state.w.copy()))
    run = fit(seed=4, validation=0.25, callbacks=[watch])
    close(ends[-1], by_hand(W, X[kept], Y[kept], seed=4)[0][-1])
    close(run.history["validation_cost"], [cost_by_hand(w, X[held], Y[held]) for w in ends])
    same = fit(X[kept], Y[kept], seed=4, validation=(X[held], Y[held]))
    np.testing.assert_array_equal(run.w, same.w)


@without_jax64
def test_validation_with_weights(place64: Place) -> None:
    held, s = problem(9, seed=3), np.arange(9.0)
    ends: list[Any] = []
    watch = on_epoch(lambda state: ends.append(place64.host(state.w).copy()))
    validation = tuple(map(place64.array, (*held, s)))
    run = fit(place64.array(X), place64.array(Y), validation=validation, callbacks=[watch])
    close(run.history["validation_cost"], [cost_by_hand(w, *held, s) for w in ends])
    close(ends[-1], by_hand(W)[0][-1])


def test_validation_of_more_rows_than_one_pass_holds() -> None:
    held = problem(9001, seed=3)
    run = fit(epochs=1, validation=held)
    assert run.history["validation_cost"][0] == pytest.approx(cost_by_hand(run.w, *held), rel=1e-12)
    q = (
        np.tanh(held[0] @ run.w[:12].reshape(4, 3).T + run.w[20:24]) @ run.w[12:20].reshape(2, 4).T
        + run.w[24:]
    )
    r2 = 1 - ((q - held[1]) ** 2).sum(0) / ((held[1] - held[1].mean(0)) ** 2).sum(0)
    assert run.history["validation_metric"][0] == pytest.approx(r2.mean(), rel=1e-12)


@without_jax64
def test_early_stopping_gives_back_the_best_weights(place64: Place) -> None:
    rows, held = problem(8, noise=2.0), problem(40, noise=0.0)
    ends: list[Any] = []
    run = fit(
        *map(place64.array, rows),
        optimizer=SGD(0.02),
        epochs=100,
        batch_size=6,
        validation=tuple(map(place64.array, held)),
        patience=4,
        callbacks=[on_epoch(lambda state: ends.append(place64.host(state.w).copy()))],
    )
    costs = run.history["validation_cost"]
    assert run.stopped == "patience"
    assert 1 < run.best_epoch == int(np.argmin(costs)) + 1 == len(costs) - 4
    np.testing.assert_array_equal(place64.host(run.w), ends[run.best_epoch - 1])
    assert cost_by_hand(place64.host(run.w), *held) == pytest.approx(min(costs), rel=1e-12)


def test_a_validated_run_gives_back_the_best_weights_without_patience() -> None:
    held = problem(40, seed=3, noise=2.0)
    run = fit(*problem(12, noise=2.0), optimizer=Adam(0.05), epochs=60, validation=held)
    costs = run.history["validation_cost"]
    assert (run.stopped, len(costs)) == ("epochs", 60)
    assert run.best_epoch == int(np.argmin(costs)) + 1 < 60
    assert cost_by_hand(run.w, *held) == pytest.approx(min(costs), rel=1e-12)


def test_of_equal_epochs_the_first_is_the_best() -> None:
    run = fit(optimizer=SGD(0.0), validation=0.2, patience=2, epochs=9)
    assert (run.best_epoch, run.stopped, len(run.history["epoch"])) == (1, "patience", 3)


def test_history() -> None:
    run = fit(metric=None)
    assert list(run.history) == COLUMNS
    assert [len(column) for column in run.history.values()] == [3] * 7
    assert run.history["epoch"] == [1, 2, 3]
    assert (
        run.history["metric"]
        == run.history["validation_cost"]
        == run.history["validation_metric"]
        == [None] * 3
    )
    assert run.history["learning_rate"] == [0.1] * 3
    assert all(type(v) is float and v > 0 for v in run.history["seconds"] + run.history["cost"])
    assert (run.best_epoch, run.stopped, run.interrupted) == (3, "epochs", False)
    validated = fit(validation=0.2)
    assert [len(column) for column in validated.history.values()] == [3] * 7
    assert all(type(v) is float for name in COLUMNS[1:] for v in validated.history[name])


def test_no_epochs() -> None:
    run = fit(epochs=0, validation=0.2, progress=True)
    np.testing.assert_array_equal(run.w, W)
    assert run.w is not W
    assert run.history == {name: [] for name in COLUMNS}
    assert (run.best_epoch, run.stopped) == (0, "epochs")


def test_schedules_are_recorded() -> None:
    schedule = schedules.StepDecay(0.1, every=7, factor=0.5)
    rates: list[float] = []
    run = fit(optimizer=SGD(schedule), callbacks=[on_batch(lambda state: rates.append(state.learning_rate))])
    assert rates == [0.1] * 7 + [0.05] * 7 + [0.025]
    assert run.history["learning_rate"] == [0.1, 0.05, 0.025]
    w = W
    for step, rate in enumerate(rates):
        w = _one_step(w, step // 5 + 1, step % 5, rate)
    close(run.w, w)


def _one_step(w: Any, epoch: int, batch: int, rate: float) -> Any:
    rows = np.random.default_rng([0, epoch]).permutation(23)[5 * batch : 5 * batch + 5]
    return by_hand(w, X[rows], Y[rows], epochs=[1], rate=rate)[0][0]


# metrics


def _metric(net: Network, w: Any, X: Any, Y: Any, *, place: Place, **more: Any) -> float:
    """Of weights that stay, in training and in validation."""
    x, y = place.array(np.asarray(X, float)), place.array(np.asarray(Y))
    s = more.pop("sample_weight", None)
    weights = {} if s is None else {"sample_weight": place.array(np.asarray(s, float))}
    run = fit(
        x,
        y,
        net=net,
        w=np.asarray(w, float),
        optimizer=SGD(0.0),
        epochs=1,
        batch_size=2,
        validation=(x, y, *weights.values()),
        **weights,
        **more,
    )
    (metric,), (same,) = run.history["metric"], run.history["validation_metric"]
    assert metric == pytest.approx(same, rel=10 * place.rtol)
    return float(metric)


@without_jax
def test_accuracy_of_classes(place: Place) -> None:
    if place.device == "no_x64":
        pytest.skip("array-api-strict's argmax gives int64 there, which its own device refuses")
    net = Network((3, 3), cost="cross_entropy", bias=False)
    X, w = np.eye(3)[[0, 1, 2, 0, 1]], 3.0 * np.eye(3).ravel()
    y = np.array([0, 1, 1, 2, 1], dtype="int32")
    assert _metric(net, w, X, y, place=place) == pytest.approx(3 / 5)
    assert _metric(net, w, X, np.eye(3)[y], place=place) == pytest.approx(3 / 5)
    weighted = _metric(net, w, X, y, place=place, sample_weight=[1, 2, 3, 4, 0])
    assert weighted == pytest.approx(3 / 10)
    assert _metric(
        Network((3, 3), bias=False), w, X, np.eye(3)[y], place=place, metric="accuracy"
    ) == pytest.approx(3 / 5)


@without_jax
def test_accuracy_of_yes_and_no(place: Place) -> None:
    one = Network((1, 1), cost="binary_cross_entropy", bias=False)
    X, y = [[-0.1], [0.1], [3.0], [-0.1]], [0.0, 1.0, 0.0, 1.0]
    assert _metric(one, [1.0], X, y, place=place) == pytest.approx(2 / 4)
    assert _metric(one, [1.0], X, y, place=place, sample_weight=[3, 1, 1, 1]) == pytest.approx(4 / 6)
    plain = Network((1, 1), bias=False)
    assert _metric(
        plain, [1.0], [[0.4], [0.6], [3.0]], y[:3], place=place, metric="accuracy"
    ) == pytest.approx(2 / 3)
    two = Network((2, 2), cost="binary_cross_entropy", bias=False)
    X, y2 = [[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert _metric(two, np.eye(2).ravel(), X, y2, place=place) == pytest.approx(2 / 3)  # every label of a row


@without_jax
def test_r2_by_hand(place: Place) -> None:
    net = Network((1, 2), bias=False)
    X, y = [[0.0], [1.0], [2.0]], [[0.0, 0.0], [1.0, 2.0], [3.0, 5.0]]  # q = [x, 2 x]
    assert _metric(net, [1.0, 2.0], X, y, place=place) == pytest.approx((11 / 14 + 35 / 38) / 2)
    # weights 1, 2, 1: means 5/4 and 9/4, spreads 19/4 and 51/4
    weighted = _metric(net, [1.0, 2.0], X, y, place=place, sample_weight=[1, 2, 1])
    assert weighted == pytest.approx((1 - 4 / 19 + 1 - 4 / 51) / 2)
    constant = [[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]]
    assert _metric(net, [1.0, 2.0], X, constant, place=place) == pytest.approx((1 + 0) / 2)
    assert _metric(Network((1, 1), bias=False), [0.0], X, [0.0] * 3, place=place) == 1.0
    assert _metric(Network((1, 1), bias=False), [1.0], X, [0.0, 1.0, 3.0], place=place) == pytest.approx(
        11 / 14
    )


def test_r2_of_many_float32_rows_far_from_0() -> None:
    rng = np.random.default_rng(0)
    x, *noise = rng.standard_normal((3, 400_000)).astype("float32")
    y = np.ascontiguousarray((1000.0 + x + noise).T)
    still: Any = {"net": Network((1, 2)), "w": np.array([1.0, 1.0, 1000.0, 1000.0]), "optimizer": SGD(0.0)}
    for s in (np.ones(400_000), rng.uniform(0.5, 1.5, 400_000)):
        run = fit(x[:, None], y, sample_weight=s, epochs=1, batch_size=4000, **still)
        wide = y.astype(float)
        spread = s @ (wide - np.average(wide, axis=0, weights=s)) ** 2
        r2 = 1 - s @ (wide - x[:, None].astype(float) - 1000.0) ** 2 / spread
        assert run.history["metric"][0] == pytest.approx(r2.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("cost", "metric"),
    [
        ("cross_entropy", "accuracy"),
        ("binary_cross_entropy", "accuracy"),
        ("squared_error", "r2"),
        ("poisson", "r2"),
    ],
)
def test_the_metric_chosen(cost: str, metric: str) -> None:
    y = (np.random.default_rng(0).random((23, 2)) < 0.5).astype(float)
    first, second = (
        fit(X, y, net=Network((3, 4, 2), hidden="tanh", cost=cost), metric=name).history
        for name in ("auto", metric)
    )
    assert first["metric"] == second["metric"]
    assert fit(X, y, metric=None).history["metric"] == [None] * 3


# callbacks and what they see


def test_what_a_callback_sees() -> None:
    seen: list[tuple[Any, ...]] = []

    def batch(state: Any) -> None:
        seen.append(
            (state.epoch, state.batch, state.rows_done, float(state.cost), len(state.history["epoch"]))
        )

    run = fit(
        epochs=2,
        batch_size=10,
        callbacks=[
            on_batch(batch),
            on_epoch(lambda state: seen.append((state.epoch, state.history["cost"][-1]))),
        ],
    )
    assert [row[:3] for row in seen if len(row) > 2] == [
        *((1, 1, 10), (1, 2, 20), (1, 3, 23)),
        *((2, 1, 33), (2, 2, 43), (2, 3, 46)),
    ]
    assert [row[0] for row in seen] == [1, 1, 1, 1, 2, 2, 2, 2]
    costs = [row[3] for row in seen if len(row) > 2]
    mean = (10 * costs[0] + 10 * costs[1] + 3 * costs[2]) / 23
    assert [row[1] for row in seen if len(row) == 2] == run.history["cost"]
    assert run.history["cost"][0] == pytest.approx(mean, rel=1e-14)


@pytest.mark.parametrize("yes", [True, np.True_])
def test_true_stops(yes: Any) -> None:
    told: list[int] = []
    others = on_batch(lambda state: told.append(state.batch))
    run = fit(callbacks=[on_batch(lambda state: yes if state.rows_done >= 30 else None), others])
    assert (run.stopped, run.interrupted) == ("callback", False)
    assert told == [1, 2, 3, 4, 5, 1, 2]  # the others hear of the last batch too
    close(run.w, by_hand(W)[0][6])
    run = fit(callbacks=[on_epoch(lambda state: state.epoch == 2 and yes)])
    assert (run.stopped, run.history["epoch"], run.best_epoch) == ("callback", [1, 2], 2)
    close(run.w, by_hand(W)[0][9])


def test_a_callback_goes_before_patience() -> None:
    stop = on_batch(lambda state: state.epoch == 2)
    run = fit(optimizer=SGD(0.0), validation=0.2, patience=1, callbacks=[stop])
    assert (run.stopped, run.best_epoch) == ("callback", 1)


@pytest.mark.parametrize("answer", [None, False, 1, "yes", 0.5])
def test_other_answers_do_not_stop(answer: Any) -> None:
    run = fit(callbacks=[on_batch(lambda state: answer), on_epoch(lambda state: answer)])
    assert (run.stopped, run.best_epoch) == ("epochs", 3)


def test_an_epoch_cut_short_counts_the_rows_it_had() -> None:
    rows = np.random.default_rng([0, 1]).permutation(23)[:5]
    run = fit(optimizer=SGD(0.0), callbacks=[on_batch(lambda state: True)])
    assert run.history["cost"] == [pytest.approx(cost_by_hand(W, X[rows], Y[rows]), rel=1e-12)]
    q = NET.predict(W, X[rows])
    r2 = 1 - ((q - Y[rows]) ** 2).sum(0) / ((Y[rows] - Y[rows].mean(0)) ** 2).sum(0)
    assert run.history["metric"] == [pytest.approx(r2.mean(), rel=1e-12)]
    net, labels = Network((3, 2), cost="cross_entropy"), (X[:, 0] > 0).astype(int)
    w = np.array([-5.0, 0, 0, 5.0, 0, 0, 0, 0])  # right everywhere
    cut = fit(X, labels, net=net, w=w, optimizer=SGD(0.0), callbacks=[on_batch(lambda state: True)])
    assert cut.history["metric"] == [1.0]


def test_a_callback_that_raises_ends_the_run() -> None:
    before = signal.getsignal(signal.SIGINT)

    def fail(state: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fit(callbacks=[on_batch(fail)])
    assert signal.getsignal(signal.SIGINT) is before


# optimizers


class Plain:
    """Not one of gpubp's: its state is a count."""

    learning_rate = 0.1

    def init(self, w: Any) -> int:
        return 0

    def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
        return w - self.learning_rate * g, state + 1


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


# dtypes, devices, what is left alone


@pytest.mark.parametrize(
    ("came", "given", "dtype"),
    [
        ("float32", None, "float32"),
        ("float64", None, "float64"),
        ("int64", None, "float32"),
        ("uint8", None, "float32"),
        ("bool", None, "float32"),
        ("float64", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float16", "float32", "float32"),
        ("int32", "float64", "float64"),
    ],
)
def test_dtypes(came: str, given: str | None, dtype: str) -> None:
    x = np.abs(X).round().astype(came)
    run = fit(x, Y, dtype=given)
    assert run.w.dtype == dtype
    close(run.w, by_hand(W, x.astype(float))[0][-1], 1e-12 if dtype == "float64" else 1e-5)
    assert run.predict(x).dtype == dtype


@without_jax
def test_integers_on_every_library(place: Place) -> None:
    kind = "int32" if place.device == "no_x64" else "int64"
    x, y = (np.abs(part).round().astype(kind) for part in (X, Y))
    run = fit(place.array(x), place.array(y))
    close(place.host(run.w), by_hand(W, x, y)[0][-1], 1e-5)
    assert str(run.w.dtype).endswith("float32")
    assert run.predict(place.array(x)).shape == (23, 2)


@without_jax
def test_nothing_of_the_callers_is_written(place: Place) -> None:
    s = np.full(23, 2.0)
    given = [place.array(part) for part in (X, Y, W, s)]
    copies = [place.host(part).copy() for part in given]
    x, y, w, weights = given
    run = fit(x, y, w=w, sample_weight=weights, optimizer="adam", l2=0.1, clip_norm=0.1, validation=(x, y))
    for part, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(place.host(part), copy)
    assert not np.array_equal(place.host(run.w), place.host(w))
    assert fit(x, y, w=w, epochs=0).w is not w


def test_auto_stays_and_cpu_moves(place: Place) -> None:
    x, y = place.array(X), place.array(Y)
    assert place.here(fit(x, y).w)
    moved = fit(x, y, device="cpu")
    assert isinstance(moved.w, np.ndarray)
    assert (moved.w.dtype, moved.device.name) == (place.dtype, "cpu")
    close(moved.w, by_hand(W)[0][-1], 20 * place.rtol)


@without_jax
def test_a_device_brings_everything_there(place: Place) -> None:
    there = device_of(place.array(X))
    x = X.astype(place.dtype)
    s = np.ones(23)
    run = fit(x, Y, device=there, sample_weight=s, validation=(x, Y, s))
    assert place.here(run.w)
    assert run.device == there
    q = run.predict(x)
    assert isinstance(q, np.ndarray)
    close(q, NET.predict(place.host(run.w), x), 10 * place.rtol)


def test_predict_answers_where_it_was_asked(place: Place) -> None:
    run = fit(X.astype(place.dtype))
    q = run.predict(place.array(X))
    assert place.here(q)
    close(place.host(q), NET.predict(run.w, X.astype(place.dtype)), 10 * place.rtol)
    with pytest.raises(ValueError, match=r"x must have shape \(B, n_0\) with n_0 = 3, got \(23, 2\)"):
        run.predict(place.array(Y))


def test_mixed_libraries_go_to_the_device_of_x(torch: Any) -> None:
    run = fit(torch.tensor(X), Y, sample_weight=np.ones(23), validation=(X, torch.tensor(Y)))
    assert isinstance(run.w, torch.Tensor)
    close(run.w.numpy(), fit(validation=(X, Y)).w)


def test_the_environment_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_DEVICE", "cuda:99")
    with pytest.raises(
        RuntimeError, match=r"device 'cuda:99' needs CuPy and an NVIDIA GPU that computes, but"
    ):
        fit()
    assert fit(device="cpu").device.name == "cpu"


def test_the_device_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gpubp"):
        fit()
    (device,) = (d for d in gpubp.devices() if d.name == "cpu")
    assert f"training {NET!r} on cpu ({device.description})" in caplog.messages
    assert {record.name for record in caplog.records} == {"gpubp"}


def test_the_device_is_not_waited_for_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many reads of an array's values in an epoch of 20 batches as in one of 1."""
    kind = type(library("array_api_strict").asarray(1.0))
    reads: list[str] = []

    def counted(name: str, method: Any) -> Any:
        def read(self: Any, *args: Any, **more: Any) -> Any:
            reads.append(name)
            return method(self, *args, **more)

        return read

    ways = ["bool", "float", "int", "index", "complex", "array", "buffer", "dlpack"]
    for name in [f"__{way}__" for way in ways if hasattr(kind, f"__{way}__")]:
        monkeypatch.setattr(kind, name, counted(name, getattr(kind, name)))
    x, y, s = (library("array_api_strict").asarray(part) for part in (*problem(40), np.ones(40)))

    def count(batch_size: int, epochs: int) -> int:
        reads.clear()
        more = {"l2": 0.1, "l1": 0.1, "clip_norm": 1.0, "validation": (x, y, s), "sample_weight": s}
        fit(x, y, optimizer="adam", batch_size=batch_size, epochs=epochs, **more)
        return len(reads)

    assert count(2, 1) == count(40, 1)
    assert count(2, 5) > count(2, 1)


# Ctrl-C


def _press(state: Any) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def handler() -> Iterator[Any]:
    """A handler that is not Python's own, to be found again."""

    def mine(signum: int, frame: Any) -> None:
        raise AssertionError("the run's own handler was not there")

    before = signal.signal(signal.SIGINT, mine)
    yield mine
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_lets_the_batch_finish(handler: Any) -> None:
    seen: list[int] = []

    def watch(state: Any) -> None:
        seen.append(state.rows_done)
        if len(seen) == 7:
            _press(state)

    run = fit(callbacks=[on_batch(watch)])
    assert len(seen) == 7
    assert (run.interrupted, run.stopped, run.history["epoch"]) == (True, "interrupted", [1])
    close(run.w, by_hand(W)[0][6])
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_gives_the_best_weights_back(handler: Any) -> None:
    ends: list[Any] = []
    keep = on_epoch(lambda state: ends.append(state.w.copy()))
    stop = on_batch(lambda state: _press(state) if state.epoch == 4 else None)
    run = fit(
        *problem(12, noise=2.0),
        optimizer=SGD(0.3),
        epochs=9,
        validation=problem(40, 3),
        callbacks=[keep, stop],
    )
    assert run.interrupted
    assert len(ends) == 3
    assert run.best_epoch == int(np.argmin(run.history["validation_cost"])) + 1
    np.testing.assert_array_equal(run.w, ends[run.best_epoch - 1])


@pytest.mark.parametrize("epoch", [1, 3])
def test_ctrl_c_between_epochs(handler: Any, epoch: int) -> None:
    run = fit(callbacks=[on_epoch(lambda state: _press(state) if state.epoch == epoch else None)])
    assert (run.stopped, run.history["epoch"][-1], run.best_epoch) == ("interrupted", epoch, epoch)
    close(run.w, by_hand(W)[0][5 * epoch - 1])


def test_ctrl_c_twice_is_at_once(handler: Any) -> None:
    seen: list[int] = []

    def twice(state: Any) -> None:
        seen.append(state.batch)
        _press(state)
        _press(state)
        seen.append(-1)

    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[on_batch(twice)])
    assert seen == [1]
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_stays_ignored_where_it_was() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert fit(callbacks=[on_batch(_press)]).stopped == "epochs"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_ctrl_c_alone(handler: Any) -> None:
    seen: list[Any] = []
    watch = on_batch(lambda state: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: seen.append(fit(callbacks=[watch])))
    thread.start()
    thread.join()
    assert seen[:-1] == [handler] * 15
    close(seen[-1].w, by_hand(W)[0][-1])


# divergence


class Blows(Plain):
    """Good until step 7, the second of the second epoch."""

    def learning_rate(self, step: int) -> float:  # type: ignore[override]
        return 0.1 / (step + 1)

    def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
        return w * (np.inf if state == 6 else 0.99), state + 1


@without_jax
@pytest.mark.parametrize("validation", [None, problem(9, 3)], ids=["", "validated"])
def test_divergence_says_where_and_carries_weights(place: Place, validation: Any) -> None:
    ends: list[Any] = []
    watch = on_epoch(lambda state: ends.append(place.host(state.w).copy()))
    x, y = place.array(X), place.array(Y)
    with pytest.raises(
        DivergenceError,
        match=r"the cost must stay finite, got NaN or inf at epoch 2, batch 3, learning rate 0.0125: lower the "
        "learning rate, scale the inputs, or give clip_norm",
    ) as caught:
        fit(x, y, optimizer=Blows(), validation=validation, callbacks=[watch])
    error = caught.value
    assert (error.epoch, error.batch, error.learning_rate) == (2, 3, 0.1 / 8)
    assert place.here(error.w)
    np.testing.assert_array_equal(place.host(error.w), ends[0])
    assert isinstance(error, ArithmeticError)


def test_divergence_carries_the_best_validated_weights() -> None:
    held, ends = problem(9, 3), []

    class Later(Plain):
        def step(self, w: Any, g: Any, state: int) -> tuple[Any, int]:
            return w - (0.3 if state < 15 else -0.3) * g * (np.inf if state == 25 else 1.0), state + 1

    with pytest.raises(DivergenceError) as caught:
        fit(
            optimizer=Later(),
            epochs=9,
            validation=held,
            callbacks=[on_epoch(lambda s: ends.append(s.w.copy()))],
        )
    best = int(np.argmin([cost_by_hand(w, *held) for w in ends]))
    assert best < len(ends) - 1
    np.testing.assert_array_equal(caught.value.w, ends[best])


def test_overflow_is_never_silent(place: Place) -> None:
    net = Network((3, 4, 2), hidden="exp")
    with pytest.raises(DivergenceError, match="the cost must stay finite") as caught:
        fit(place.array(100.0 * X), place.array(Y), net=net, w=100.0 * W)
    assert (caught.value.epoch, caught.value.batch) == (1, 1)
    np.testing.assert_allclose(place.host(caught.value.w), 100.0 * W, rtol=1e-6)


@without_jax
def test_overflow_in_the_last_step_alone(place: Place) -> None:
    huge = 1e30 if place.dtype == "float32" else 1e300
    with pytest.raises(
        DivergenceError, match=r"every weight must stay finite, .* at epoch 1, batch 1,"
    ) as caught:
        fit(
            place.array(1e5 * X),
            place.array(Y),
            optimizer=SGD(huge),
            epochs=1,
            batch_size=23,
            net=Network((3, 2)),
            w=None,
        )
    assert np.isfinite(place.host(caught.value.w)).all()


def test_a_validation_cost_that_overflows() -> None:
    x, y = X.astype("float32"), Y.astype("float32")
    with pytest.raises(
        DivergenceError, match=r"the validation cost must stay finite, .* at epoch 1, batch 5"
    ):
        fit(x, y, validation=(x, np.full_like(y, 1e30)))


def test_divergence_is_pickled() -> None:
    error = DivergenceError("the cost", 2, 3, 0.5, np.ones(2))
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert (twin.epoch, twin.batch, twin.learning_rate) == (2, 3, 0.5)
    np.testing.assert_array_equal(twin.w, error.w)


# refusals


def test_data_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1499)
    needed = 23 * (3 + 2) * 8 + 5 * 26 * 8
    with pytest.raises(
        MemoryError,
        match=rf"cpu needs {needed} bytes for the data and weights, and has 1499 free: "
        r"train on fewer rows, or with device='cpu'",
    ):
        fit()
    monkeypatch.setattr(Device, "free_bytes", lambda self: needed)
    close(fit().w, by_hand(W)[0][-1])


def spoiled(array: Any, *place: int, value: float = np.nan) -> Any:
    array = array.copy()
    array[place] = value
    return array


CLASSES = Network((3, 2), cost="cross_entropy")
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"net": "mlp"},
        TypeError,
        r"net must be a gpubp.Network, got str: make one with gpubp.Network\(sizes\)",
    ),
    (
        {"X": X.tolist()},
        TypeError,
        r"arrays of NumPy, CuPy or another Array API library are needed, got list",
    ),
    ({"X": X.tolist(), "dtype": "float32"}, TypeError, r"Array API library are needed, got list"),
    ({"X": None}, TypeError, r"Array API library are needed, got NoneType"),
    ({"Y": None}, TypeError, r"Array API library are needed, got NoneType"),
    ({"Y": Y.tolist()}, TypeError, r"Array API library are needed, got list"),
    (
        {"X": X[:, :2]},
        ValueError,
        r"X must have shape \(n, n_0\) with n >= 1 and n_0 = 3, got \(23, 2\): one example",
    ),
    ({"X": X[0]}, ValueError, r"X must have shape \(n, n_0\) .* got \(3,\): one example per row"),
    ({"X": X[:0], "Y": Y[:0]}, ValueError, r"X must have shape \(n, n_0\) with n >= 1 .* got \(0, 3\)"),
    (
        {"X": X.astype("float16")},
        TypeError,
        r"X must be float32, float64, integer or boolean, got float16: convert it",
    ),
    ({"X": X + 0j}, TypeError, r"X must be float32, float64, integer or boolean, got complex128"),
    ({"X": X + 0j, "dtype": "float64"}, TypeError, r"X must hold real numbers, got complex128: convert it"),
    ({"Y": Y + 0j}, TypeError, r"Y must hold real numbers, got complex128: convert it"),
    ({"X": np.full((23, 3), "a")}, TypeError, r"X must "),
    (
        {"X": spoiled(X, 4, 1)},
        ValueError,
        r"X must be finite, got a NaN or inf at row 4, column 1: remove or fill it",
    ),
    (
        {"X": spoiled(X, 4, 1, value=-np.inf)},
        ValueError,
        r"X must be finite, got a NaN or inf at row 4, column 1",
    ),
    ({"X": spoiled(X, 4, 1, value=1e300), "dtype": "float32"}, ValueError, r"X must .* float32"),
    ({"Y": spoiled(Y, 22, 0, value=1e300), "dtype": "float32"}, ValueError, r"Y must .* float32"),
    ({"Y": spoiled(Y, 22, 0)}, ValueError, r"Y must be finite, got a NaN or inf at row 22, column 0"),
    (
        {"Y": spoiled(Y[:, 0], 3), "net": Network((3, 1))},
        ValueError,
        r"Y must be finite, .* at row 3: remove or fill",
    ),
    (
        {"Y": Y[:, :1]},
        ValueError,
        r"Y must have shape \(n, n_L\) with n = 23, n_L = 2, got \(23, 1\): one row of",
    ),
    ({"Y": Y[:22]}, ValueError, r"Y must have shape \(n, n_L\) with n = 23, n_L = 2, got \(22, 2\)"),
    ({"Y": Y[:, 0]}, ValueError, r"Y must have shape \(n, n_L\) with n = 23, n_L = 2, got \(23,\)"),
    ({"Y": Y[:, 0], "net": CLASSES}, ValueError, r"n_L = 2, or integer classes \(n,\), got \(23,\)"),
    (
        {"Y": np.arange(23) % 3, "net": CLASSES},
        ValueError,
        r"Y must hold classes 0..1 for n_L = 2, got 0..2: number",
    ),
    (
        {"Y": np.arange(23) % 2 - 1, "net": CLASSES},
        ValueError,
        r"Y must hold classes 0..1 for n_L = 2, got -1..0",
    ),
    (
        {"sample_weight": np.ones((23, 1))},
        ValueError,
        r"sample_weight must have shape \(n,\) with n = 23, got \(23, 1\)",
    ),
    (
        {"sample_weight": -np.ones(23)},
        ValueError,
        r"sample_weight must hold weights of at least 0, got a negative one",
    ),
    (
        {"sample_weight": np.zeros(23)},
        ValueError,
        r"sample_weight must hold a weight above 0, got none: give some",
    ),
    (
        {"sample_weight": spoiled(np.ones(23), 6)},
        ValueError,
        r"sample_weight must be finite, .* at row 6: remove",
    ),
    (
        {"w": W[:-1]},
        ValueError,
        r"w must have shape \(n_weights,\) with n_weights = 26, got \(25,\): see net.init",
    ),
    ({"w": spoiled(W, 3)}, ValueError, r"w must be finite, got a NaN or inf: draw it with net.init"),
    ({"w": spoiled(W, 3, value=1e300), "dtype": "float32"}, ValueError, r"w must .* float32"),
    ({"w": W + 0j}, TypeError, r"w must hold real numbers, got complex128"),
    ({"w": W.tolist()}, TypeError, r"Array API library are needed, got list"),
    ({"optimizer": "adamm"}, ValueError, r"optimizer must be one of .*, got 'adamm': did you mean 'adam'\?"),
    (
        {"optimizer": SGD},
        TypeError,
        r"optimizer must be a name or have init\(w\) and step\(w, g, state\), got",
    ),
    (
        {"optimizer": 0.1},
        TypeError,
        r"optimizer must be a name or have init\(w\) and step\(w, g, state\), got 0.1",
    ),
    ({"epochs": -1}, ValueError, r"epochs must be at least 0, got -1"),
    ({"epochs": 2.0}, TypeError, r"epochs must be a whole number, got float"),
    ({"batch_size": 0}, ValueError, r"batch_size must be at least 1, got 0"),
    ({"batch_size": True}, TypeError, r"batch_size must be a whole number, got bool"),
    ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
    ({"seed": None}, TypeError, r"seed must be a whole number, got NoneType"),
    ({"device": "gpu"}, ValueError, r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    ({"device": None}, TypeError, r"device must be a name or a gpubp.Device, got NoneType"),
    (
        {"device": "cuda:99"},
        RuntimeError,
        r"device 'cuda:99' needs CuPy and an NVIDIA GPU that computes, but",
    ),
    (
        {"dtype": "float16"},
        ValueError,
        r"dtype must be 'float32', 'float64' or None, got 'float16': give one of these",
    ),
    (
        {"dtype": np.float32},
        ValueError,
        r"dtype must be 'float32', 'float64' or None, got <class 'numpy.float32'>",
    ),
    ({"l2": -0.1}, ValueError, r"l2 must lie in \[0, inf\), got -0.1"),
    ({"l1": np.inf}, ValueError, r"l1 must lie in \[0, inf\), got inf"),
    ({"l1": "0.1"}, TypeError, r"l1 must be a number, got str"),
    ({"clip_norm": 0}, ValueError, r"clip_norm must lie in \(0, inf\), got 0"),
    ({"clip_norm": "1"}, TypeError, r"clip_norm must be a number, got str"),
    ({"validation": 0.0}, ValueError, r"validation must lie in \(0, 1\), got 0"),
    ({"validation": 1}, ValueError, r"validation must lie in \(0, 1\), got 1"),
    (
        {"validation": 0.01},
        ValueError,
        r"validation must leave rows on both sides, got 0.01 of 23 rows: give a",
    ),
    ({"validation": 0.99}, ValueError, r"validation must leave rows on both sides, got 0.99 of 23 rows"),
    (
        {"validation": True},
        TypeError,
        r"validation must be None, a fraction, \(X, Y\) or .* got bool: give one",
    ),
    ({"validation": (X,)}, TypeError, r"validation must be None, a fraction, \(X, Y\) or .* got tuple"),
    ({"validation": X}, TypeError, r"validation must be None, a fraction, \(X, Y\) or .* got ndarray"),
    ({"validation": (X, None)}, TypeError, r"Array API library are needed, got NoneType"),
    ({"validation": (X[:, :2], Y)}, ValueError, r"validation X must have shape \(n, n_0\)"),
    ({"validation": (X, Y[:3])}, ValueError, r"validation Y must have shape \(n, n_L\) with n = 23"),
    (
        {"validation": (spoiled(X, 1, 2), Y)},
        ValueError,
        r"validation X must be finite, .* at row 1, column 2",
    ),
    (
        {"validation": (X, Y, -np.ones(23))},
        ValueError,
        r"validation sample_weight must hold weights of at least 0",
    ),
    ({"patience": 3}, ValueError, r"patience needs validation, got None: give validation=0.1 or \(X, Y\)"),
    ({"patience": 0, "validation": 0.2}, ValueError, r"patience must be at least 1, got 0"),
    (
        {"metric": "f1"},
        ValueError,
        r"metric must be 'auto', 'accuracy', 'r2' or None, got 'f1': choose one of these",
    ),
    ({"metric": 3}, ValueError, r"metric must be 'auto', 'accuracy', 'r2' or None, got 3"),
    (
        {"callbacks": [print]},
        TypeError,
        r"callbacks must have on_batch_end\(state\) or on_epoch_end\(state\), got",
    ),
    (
        {"callbacks": [gpubp.callbacks.ProgressBar]},
        TypeError,
        r"callbacks must have on_batch_end\(state\) or .* got",
    ),
    ({"callbacks": on_batch(print)}, TypeError, r"callbacks must be a sequence .* got SimpleNamespace"),
]


@pytest.mark.parametrize(
    ("wrong", "error", "words"), REFUSED, ids=lambda v: "-".join(v) if type(v) is dict else None
)
def test_refusals(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit(**wrong)


@without_jax
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"X": spoiled(X, 4, 1)}, r"X must be finite, got a NaN or inf at row 4, column 1"),
        (
            {"Y": np.arange(23, dtype="int32") % 3, "net": CLASSES},
            r"Y must hold classes 0..1 for n_L = 2, got 0..2",
        ),
        (
            {"sample_weight": -np.ones(23)},
            r"sample_weight must hold weights of at least 0, got a negative one",
        ),
        ({"w": spoiled(W, 3)}, r"w must be finite, got a NaN or inf"),
        (
            {"validation": (X, spoiled(Y, 2, 0, value=np.inf))},
            r"validation Y must be finite, .* at row 2, column 0",
        ),
    ],
)
def test_values_are_checked_on_every_library(place: Place, wrong: dict[str, Any], words: str) -> None:
    def there(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(there, value))
        return place.array(value) if isinstance(value, np.ndarray) else value

    with pytest.raises(ValueError, match=words):
        fit(
            **{
                name: there(value)
                for name, value in {"X": X, "Y": Y, "w": None if "net" in wrong else W, **wrong}.items()
            }
        )
