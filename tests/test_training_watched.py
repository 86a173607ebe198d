"""train: validation, early stopping, history, metrics, and what callbacks see."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest
from conftest import Place
from trainings import (
    COLUMNS,
    NET,
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

from gpubp import SGD, Adam, Network, schedules
from gpubp.engines import Numpy
from gpubp.training import data, loop

pytestmark = pytest.mark.usefixtures("on_the_cpu")

# validation, early stopping, history


@pytest.mark.parametrize("stop", [None, 2])
def test_the_next_order_is_drawn_while_a_device_works(
    monkeypatch: pytest.MonkeyPatch, stop: int | None
) -> None:
    """With the same weights as where each is drawn in its turn, and none after the last epoch."""
    plain = fit(epochs=stop or 4, seed=3, w=W)
    drawn: list[int] = []
    seen: list[list[int]] = []
    true = data.permutation

    def permutation(n: int, seed: int, epoch: int) -> Any:
        drawn.append(epoch)
        return true(n, seed, epoch)

    def watch(state: Any) -> bool:
        seen.append([*drawn])
        return bool(state.epoch == stop)

    monkeypatch.setattr(loop, "permutation", permutation)
    monkeypatch.setattr(Numpy, "asynchronous", True)
    run = fit(epochs=4, seed=3, w=W, callbacks=[on_epoch(watch)])
    np.testing.assert_array_equal(run.w, plain.w)
    assert run.history["cost"] == plain.history["cost"]
    assert seen == [[1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]][:stop]
    assert drawn == seen[-1]


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
