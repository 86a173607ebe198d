"""A short proof that recorded steps are right, run as a script on whatever gpubp is found first: it ends with 0 where
they are, with 3 where something was found, which it prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import checker
import numpy as np

import gpubp
from gpubp.recording import numpy_loops
from gpubp.recording.compiled import Compiled
from gpubp.recording.recorded import Recorded, Replayed, Untraceable
from gpubp.training import metrics
from gpubp.training.data import Rows
from gpubp.training.descent import Descent

FOUND = 3
# a kind of recorded steps, and the bytes of an array that NumPy works on at once
Way = tuple[Any, int]
WHOLE: Way = (Replayed, numpy_loops._BLOCK)
BLOCKS: Way = (Replayed, 200)
ALONE: Way = (Compiled, numpy_loops._BLOCK)
PARTS: Way = (partial(Compiled, parts=4), numpy_loops._BLOCK)


def recorded() -> Iterator[Recorded]:
    """Steps of few small networks that have all between them that a step can have."""
    rng = np.random.default_rng(0)
    net = gpubp.Network
    penalties = 0.01, 0.001, 1.0
    none = 0.0, 0.0, None
    every, few = (WHOLE, BLOCKS, PARTS), (BLOCKS, ALONE)
    fixed = {"x": rng.standard_normal((20, 17)), "m": rng.standard_normal((17, 17))}
    for step in (own_step, late_step):
        for kind, numpy_loops._BLOCK in every:
            with suppress(Untraceable):
                yield kind(step, fixed, {"a": np.ones(17), "b": np.ones(17)}, 9, 1)
    for network, optimizer, more, B, weighted, kinds in [
        (net((3, 8, 8, 2), hidden="leaky_relu", bias=False), gpubp.Adam(), penalties, 9, False, every),
        (net((3, 18, 3), hidden="elu", cost="cross_entropy"), gpubp.Momentum(), none, 11, True, every),
        (net((2, 6, 17), hidden="softmax", cost="cross_entropy"), gpubp.SGD(), penalties, 6, False, every),
        (net((2, 3), output="sigmoid", cost="binary_cross_entropy"), gpubp.SGD(), none, 66, True, few),
    ]:
        n, n_L, cost = 80, network.sizes[-1], network.cost_function
        y = rng.integers(0, n_L, n) if cost.labels else rng.standard_normal((n, n_L))
        s = rng.uniform(0.5, 1.5, n) if weighted else None
        rows = Rows(rng.standard_normal((n, network.sizes[0])), y, s)
        metric = metrics.metric_for("auto", cost.name)
        w = network.init(1, dtype="float64")
        descent = Descent(network, rows, w, optimizer, B, more, metric, 0, compile=False)
        for kind, numpy_loops._BLOCK in kinds:
            yield descent._recorded(kind)[B]


def own_step(engine: Any, fixed: Any, states: Any, which: Any, rate: Any) -> Any:
    """States that take each other's place, buffers that are read and replaced in one loop, reductions of every kind."""
    xp, (a, b) = engine.xp, states.values()
    x, m = engine.gather(fixed["x"], which), fixed["m"]
    factor = xp.where(a < b, b, 0.5 * b) * xp.where(a > b, a, 3.0 * a)
    z = x @ m
    t = z * factor
    t_sum = xp.sum(t, axis=0)
    z_sum = xp.sum(z, axis=0)
    u = z / xp.sum(z, axis=1, keepdims=True)
    u_sum = xp.sum(u, axis=0)
    low, high = xp.min(x, axis=1, keepdims=True), xp.max(x, axis=1, keepdims=True)
    y = (t @ m) * (x - low) - (u @ m) / high
    size, square = xp.sum(y, axis=1), xp.sum(y * y, axis=1)
    total, fourths = xp.sum(square), xp.sum(square * square)
    inside = xp.astype(xp.all(y > a, axis=1), size.dtype)
    g = xp.sum(y * size[:, None], axis=0) - z_sum * t_sum + u_sum
    new = b + rate * g
    highest = xp.sum(xp.max(x, axis=1))
    return [new, a * new - b], [xp.sum(a * b), total, fourths, xp.sum(inside * size), highest, g - xp.max(g)]


def late_step(engine: Any, fixed: Any, states: Any, which: Any, rate: Any) -> Any:
    """A state that is read when its successor is known, which can't be written down."""
    xp, (a, b) = engine.xp, states.values()
    g = xp.sum(engine.gather(fixed["x"], which), axis=0)
    new = a + rate * g
    return [new, b], [(g - xp.max(new)) * a]


def compare_trainings() -> None:
    """Recorded trainings give what those step by step do.

    Raises
    ------
    checker.Finding : they don't
    """
    rng = np.random.default_rng(1)
    X, s = rng.standard_normal((23, 3)), rng.uniform(0.5, 1.5, 23)
    for cost in ("squared_error", "cross_entropy"):
        net = gpubp.Network((3, 4, 2), hidden="tanh", cost=cost)
        Y = rng.integers(0, 2, 23) if cost == "cross_entropy" else rng.standard_normal((23, 2))
        for weights in (None, s):
            adam = gpubp.Adam(gpubp.schedules.Cosine(1e-1, steps=30))
            runs = []
            for way in (False, "recorded"):
                options: dict[str, Any] = {
                    "epochs": 4,
                    "batch_size": 4,
                    "sample_weight": weights,
                    "compile": way,
                }
                try:
                    run = gpubp.train(net, X, Y, optimizer=adam, device="cpu", progress=False, **options)
                except Exception as error:
                    raise checker.Finding(f"a {way or 'step by step'} training fails: {error}") from error
                runs.append([run.w, run.history["cost"], run.history["metric"], run.history["learning_rate"]])
            for one, other in zip(*runs, strict=True):
                if not np.allclose(one, other, rtol=1e-9, atol=1e-12):
                    raise checker.Finding("a recorded training differs from one step by step")


def main() -> int:
    checker.watch(setattr, lambda recorded: None)
    try:
        for each in recorded():
            checker.check(each)
        compare_trainings()
    except checker.Finding as finding:
        sys.stdout.write(f"found: {finding}\n")
        return FOUND
    return 0


if __name__ == "__main__":
    sys.exit(main())
