"""What training asks of a GPU, counted on the emulated device: launches a step, and nothing that the host waits for.

``benchmarks/README.md`` has the same counts in a table.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp._devices import why_no_gpu
from gpubp.callbacks import TrainingState

emulator = pytest.importorskip(
    "cupy_on_cpu.emulator", reason="only the emulated device counts: ci/emulate runs this"
)

STEPS = 5
FOUR = (784, 64, 64, 64, 64, 10)
WIDE = (784, 256, 256, 256, 256, 10)


@pytest.fixture(autouse=True)
def on_the_emulated_device() -> None:
    if not emulator.is_here():
        pytest.skip("only the emulated device counts: ci/emulate runs this")
    assert why_no_gpu() is None


class Counting:
    """Counts from the end of the fourth epoch's first step to that of its last, and of the whole fifth epoch."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.epoch: Counter[str] = Counter()

    def on_batch_end(self, state: TrainingState) -> None:
        if state.epoch == 4 and state.batch == 1:
            self.open = emulator.counting()
            self.steps, _ = self.open.__enter__()
        elif state.epoch == 4 and state.batch == STEPS:
            self.open.__exit__(None, None, None)

    def on_epoch_end(self, state: TrainingState) -> None:
        if state.epoch == 4:
            self.open = emulator.counting()
            self.epoch, _ = self.open.__enter__()
        elif state.epoch == 5:
            self.open.__exit__(None, None, None)


def counted(sizes: tuple[int, ...], **more: Any) -> Counting:
    rng = np.random.default_rng(0)
    X = rng.random((32 * STEPS, sizes[0]), dtype=np.float32)
    one = sizes[-1] == 1
    net = gpubp.Network(sizes, hidden="tanh") if one else gpubp.Network(sizes, cost="cross_entropy")
    Y: Any = rng.random((len(X), 1), dtype=np.float32) if one else rng.integers(0, sizes[-1], len(X))
    counting = Counting()
    options = {"optimizer": "adam", "metric": None, "batch_size": 32, "validation": (X[:32], Y[:32])} | more
    if "sample_weight" in more:
        options["sample_weight"] = rng.random(len(X), dtype=np.float32) + 0.5
    gpubp.train(net, X, Y, epochs=6, device="cuda", progress=False, callbacks=[counting], **options)
    return counting


@pytest.mark.parametrize(
    ("sizes", "more", "kernels", "products"),
    [
        (FOUR, {}, 45, 19),
        (WIDE, {}, 45, 19),
        ((20, 64, 3), {}, 30, 7),
        ((13, 50, 1), {"optimizer": "sgd"}, 18, 6),
        (FOUR, {"l2": 0.01}, 46, 19),
        (FOUR, {"l1": 0.01}, 46, 19),
        (FOUR, {"clip_norm": 1.0}, 56, 19),
        (FOUR, {"metric": "accuracy"}, 51, 19),
        (FOUR, {"sample_weight": True}, 49, 19),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_steps_are_launches_alone_on_cupy(
    sizes: tuple[int, ...], more: dict[str, Any], kernels: int, products: int
) -> None:
    """Nothing is allocated, copied between host and device, or waited for."""
    steps = counted(sizes, **more).steps
    launched = {name: often for name, often in steps.items() if name.startswith("launch ")}
    assert (sum(launched.values()), steps["product"]) == ((STEPS - 1) * kernels, (STEPS - 1) * products)
    assert set(steps) - set(launched) == {"product"}


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"])
def test_an_optimizer_is_one_launch_on_cupy(optimizer: str) -> None:
    steps = counted((20, 64, 3), optimizer=optimizer).steps
    assert steps["launch gpubp_update"] == STEPS - 1
    plain = counted((20, 64, 3), optimizer="sgd").steps
    assert steps == plain


def test_an_epoch_moves_its_order_there_and_its_costs_back_on_cupy() -> None:
    epoch = counted((20, 64, 3)).epoch
    assert epoch["copy host to device"] == 1
    assert epoch["copy device to host"] == 3  # costs, whether all weights are finite, the validation cost
    assert epoch["properties"] == 0
    assert epoch["allocate"] == 0
