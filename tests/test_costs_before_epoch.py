"""With all rows in one batch, an epoch's cost is that of the weights before it, in every way of computing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="Hypothesis is not installed: ci/test adds it")

import gpubp
from benchmarks.fuzz import IN_PARTS, RECORDED, STEP_BY_STEP, WHOLE, Way
from gpubp.callbacks import TrainingState
from gpubp.recording import code_cache

N = 33
WAYS = [STEP_BY_STEP, *RECORDED]
if find_spec("numba") and find_spec("scipy"):  # of the extra fast
    WAYS += [*IN_PARTS, *WHOLE]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "folder", lambda: tmp_path_factory.getbasetemp() / "steps")


class Kept:
    """The weights after every epoch."""

    def __init__(self) -> None:
        self.w: list[Any] = []

    def on_epoch_end(self, state: TrainingState) -> None:
        self.w.append(state.w.copy())


@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.name))
@pytest.mark.parametrize(
    ("cost", "batch_size", "weighted"), [("squared_error", N, False), ("cross_entropy", 1000, True)]
)
def test_an_epochs_cost_is_that_of_the_weights_before_it(
    way: Way, cost: str, batch_size: int, weighted: bool
) -> None:
    net = gpubp.Network((4, 20, 3), hidden="tanh", cost=cost)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 4))
    Y = rng.integers(0, 3, N) if cost == "cross_entropy" else rng.standard_normal((N, 3))
    s = np.where(rng.random(N) < 0.2, 0.0, rng.uniform(0.5, 2.0, N)) if weighted else None
    w, kept = net.init(0, dtype="float64"), Kept()
    with way.chosen() as how:
        run = gpubp.train(
            net,
            X,
            Y,
            sample_weight=s,
            w=w,
            epochs=6,
            batch_size=batch_size,
            optimizer="adam(learning_rate=0.05)",
            l2=0.1,  # which the history leaves out
            callbacks=[kept],
            progress=False,
            **how,
        )
    assert run.computed.startswith(way.computed)
    costs = [float(net.cost(before, X, Y, sample_weight=s)) for before in [w, *kept.w[:-1]]]
    assert len(set(costs)) == 6
    np.testing.assert_allclose(run.history["cost"], costs, rtol=1e-12)
