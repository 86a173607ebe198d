"""Steps of gradient descent on minibatches: computed one by one, or recorded, and many in one call."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gpubp import backprop
from gpubp._network import Network
from gpubp._numerics import sign
from gpubp._typing import Array, Namespace
from gpubp.engines import Generic, Numpy, engine_for
from gpubp.optimizers import Optimizer, State
from gpubp.recording.compiled import Compiled
from gpubp.recording.recorded import Recorded, Replayed, Untraceable
from gpubp.schedules import rate_at
from gpubp.training import metrics
from gpubp.training.data import Rows, minibatches, unit_rows
from gpubp.training.threads import parts_of

__all__ = ["Descent", "Done"]

logger = logging.getLogger("gpubp")

_MOST_UNITS = 1024  # classes: a unit matrix of 4 MB
_MOMENT = 0.02  # seconds in one call before anyone is told
# seconds of a run by ``_seconds``: to record a step takes 0.02, to compile it about 5, once
_WORTH_RECORDING, _WORTH_COMPILING = 0.1, 10.0
_WAYS = ("compiled", "recorded", "step by step")  # of computing; each falls back to the next
_ASKED: dict[bool | str, str] = {True: "compiled", "recorded": "recorded", False: "step by step"}
_PREFERRED = {"always": "compiled", "recorded": "recorded", "never": "step by step"}


class Done(NamedTuple):
    """What came of one step, or of several: with one more axis in front then."""

    C: Array
    size: Array | int  # the batch's weight in the epoch's cost
    rate: Any
    hits: Array | None  # the metric's sums, (k,)


class Descent:
    """The weights, what the optimizer remembers, and how to move them.

    Attributes
    ----------
    w : (n_weights,), where every step writes
    steps : done so far
    way : "compiled", "recorded" or "step by step"

    Raises
    ------
    ImportError, ValueError : ``compile`` asks for a way that can't be had
    """

    def __init__(
        self,
        net: Network,
        rows: Rows,
        w: Array,
        optimizer: Any,
        batch_size: int,
        penalties: tuple[float, float, float | None],
        metric: metrics.Metric | None,
        epochs: int,
        compile: bool | str | None = None,
    ) -> None:
        self.net, self.rows, self.w, self.optimizer = net, rows, w, optimizer
        self.batch_size, self.metric = batch_size, metric
        self.l2, self.l1, self.clip_norm = penalties
        self.engine = engine_for(rows.x)
        self.steps = 0
        n_L = net.sizes[-1]
        # Rows of a unit matrix are what integer classes stand for: taking them is quicker than making them.
        self.units = unit_rows(rows.y, n_L, rows.x) if n_L <= _MOST_UNITS else None
        self.memory = optimizer.init(w)
        self.parts = parts_of(6.0 * batch_size * net.n_weights)
        self.way, self.recorded = self._record(epochs, compile)
        self._portion = 1  # steps of one call, where they are recorded
        self.room = backprop.Workspace(self.engine, w)
        self.flat = self.engine.buffer(w.shape, w)

    def portions(self, order: Array, most: int) -> Iterator[Array]:
        """The rows of one minibatch (B,) after the other; of as many as take a moment, (steps, B), where steps are
        recorded, but no more than ``most``."""
        if not self.recorded:
            yield from minibatches(order, self.batch_size)
            return
        n, B, done = order.shape[0], self.batch_size, 0
        while done < n:
            steps, start = min(self._portion, most, (n - done) // B), time.perf_counter()
            rows = max(steps, 1) * min(B, n - done)  # the last, smaller batch by itself
            yield order[done : done + rows].reshape(max(steps, 1), -1)
            done += rows
            late = time.perf_counter() - start > _MOMENT
            self._portion = max(1, steps // 2) if late else max(self._portion, 2 * steps)

    def go(self, which: Array) -> Done:
        """The steps of a portion."""
        return self._one(which) if which.ndim == 1 else self._many(which)

    def _one(self, which: Array) -> Done:
        rate = self._rate(self.steps)
        (self.w, self.memory), C, size, hits = self._step(
            self.engine, self.rows, self.units, which, self.w, self._descend, self.flat, self.room
        )
        self.steps += 1
        return Done(C, size, rate, hits)

    def _many(self, which: Array) -> Done:
        first, (steps, B) = self.steps, which.shape
        if callable(self.optimizer.learning_rate):
            rates = np.array([self._rate(step) for step in range(first, first + steps)])
        else:
            rates = np.full(steps, self.optimizer.learning_rate)
        C, *more = self.recorded[B].run(which, rates, np.arange(first + 1.0, first + steps + 1.0))
        size = np.full(steps, B) if self.rows.s is None else more.pop(0)
        self.steps += steps
        self.memory = State(self.steps, self.memory.slots)
        return Done(C, size, rates, more[0] if more else None)

    def _rate(self, step: int) -> float:
        return rate_at(getattr(self.optimizer, "learning_rate", math.nan), step)

    def _step(
        self,
        engine: Generic,
        rows: Rows,
        units: Array | None,
        which: Array,
        w: Array,
        descend: Callable[[Array, Array], Any],
        flat: Array | None = None,
        room: backprop.Room = backprop.no_room,
    ) -> tuple[Any, Array, Array | int, Array | None]:
        """On the rows ``which``: what ``descend(w, gradient)`` gives, the cost, its weight, and the metric's sums."""
        B = which.shape[0]
        x = engine.gather(rows.x, which, out=room("x", 0, B, rows.x.shape[1]))
        y = engine.gather(rows.y, which)
        target = y if units is None else engine.gather(units, y)
        s = None if rows.s is None else engine.gather(rows.s, which)
        C, g, q = backprop.cost_and_gradient(self.net, engine, w, x, target, s, "mean", flat, room)
        hits = None if self.metric is None else self.metric.hits(engine.xp, q, y, s)
        size = B if s is None else engine.xp.sum(s)
        return descend(w, self._penalised(engine, w, g)), C, size, hits

    def _penalised(self, engine: Generic, w: Array, g: Array) -> Array:
        """The gradient of the whole objective, clipped."""
        xp = engine.xp
        if self.l2 or self.l1:
            n = self.net.layout.n_matrix_weights
            W_part, W = g[:n], w[:n]
            for formula, factor in ((_l2_term, self.l2), (_l1_term, self.l1)):
                if factor:
                    (W_part,) = engine.update(formula, (W_part, W), (factor,), out=(W_part,))
            g = engine.join((W_part, g[n:]), out=g)
        if self.clip_norm is not None:
            size = xp.maximum(xp.max(xp.abs(g)), 1e-30)  # divided out, as a square may overflow
            shrink = xp.minimum(self.clip_norm / size / xp.sqrt(xp.sum((g / size) ** 2)), 1.0)
            (g,) = engine.update(_times, (g,), (shrink,), out=(g,))
        return g

    def _descend(self, w: Array, g: Array) -> tuple[Array, Any]:
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer.step(w, g, self.memory, overwrite=True, engine=self.engine)
        new: tuple[Array, Any] = self.optimizer.step(w, g, self.memory)
        return new

    def _record(self, epochs: int, compile: bool | str | None) -> tuple[str, dict[int, Recorded]]:
        """The way of computing, and the steps recorded, by the rows of their minibatch."""
        first = _chosen(compile, _seconds(self.net, self.rows.x.shape[0], epochs, self.batch_size))
        for way in _WAYS[_WAYS.index(first) :]:
            if way == "step by step":
                break
            kind = partial(Compiled, parts=self.parts) if way == "compiled" else Replayed
            try:
                return way, _ready(self._recorded(kind))
            except (ImportError, Untraceable) as reason:
                if compile is not None:
                    raise _refusal(compile, reason) from reason
                logger.info("training steps aren't %s: %s", way, reason)
        return "step by step", {}

    def _recorded(self, kind: Callable[..., Recorded]) -> dict[int, Recorded]:
        if type(self.engine) is not Numpy:
            raise Untraceable("steps are recorded on NumPy's arrays alone")
        if not isinstance(self.optimizer, Optimizer) or type(self.optimizer).step is not Optimizer.step:
            raise Untraceable("the optimizer has a step of its own")
        n, B = self.rows.x.shape[0], self.batch_size
        data = self.rows._asdict() | {"units": self.units}
        fixed = {name: array for name, array in data.items() if array is not None}
        states = {"w": self.w} | {f"slot{k}": slot for k, slot in enumerate(self.memory.slots)}
        sizes = {B if n >= B else 0, n % B} - {0}
        return {rows: kind(self._promised_step, fixed, states, rows, 2) for rows in sizes}

    def _promised_step(
        self,
        engine: Generic,
        fixed: Mapping[str, Array],
        states: Mapping[str, Array],
        which: Array,
        rate: Array,
        t: Array,
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        rows = Rows(fixed["x"], fixed["y"], fixed.get("s"))
        w, *slots = states.values()
        new, C, size, hits = self._step(
            engine,
            rows,
            fixed.get("units"),
            which,
            w,
            lambda w, g: self.optimizer.descend(engine, w, g, slots, rate, t),
        )
        return new, [C, *([] if rows.s is None else [size]), *([] if hits is None else [hits])]


def _ready(recorded: dict[int, Recorded]) -> dict[int, Recorded]:
    for each in recorded.values():
        each.get_ready()
    return recorded


def _chosen(compile: bool | str | None, seconds: float) -> str:
    """The way of computing that is tried first, for a run of about so many seconds."""
    if compile is not None:
        return _ASKED[compile]
    preference = os.environ.get("GPUBP_COMPILE", "auto")
    if preference in _PREFERRED:
        return _PREFERRED[preference]
    if preference != "auto":
        known = "', '".join(["auto", *_PREFERRED])
        logger.warning("GPUBP_COMPILE is one of '%s', not %r: it is as if unset", known, preference)
    if seconds >= _WORTH_COMPILING:
        return "compiled"
    return "recorded" if seconds >= _WORTH_RECORDING else "step by step"


def _refusal(compile: bool | str, reason: ImportError | Untraceable) -> ImportError | ValueError:
    if isinstance(reason, ImportError):
        remedy = "pip install 'gpubp[fast]', or give compile=None"
        return ImportError(f"compile=True needs numba and SciPy that compile, but {reason}: {remedy}")
    needed = f"compile={compile!r} needs steps that can be {_ASKED[compile]}"
    return ValueError(f"{needed}, got one that can't: {reason}: give compile=None")


def _seconds(net: Network, n: int, epochs: int, batch_size: int) -> float:
    """About what a run takes on one core."""
    steps = epochs * math.ceil(n / batch_size)
    return 6e-11 * epochs * n * net.n_weights + 1e-4 * steps


def _l2_term(xp: Namespace, g: Array, W: Array, l2: float) -> tuple[Array, ...]:
    return (g + l2 * W,)


def _l1_term(xp: Namespace, g: Array, W: Array, l1: float) -> tuple[Array, ...]:
    return (g + l1 * sign(xp, W),)


def _times(xp: Namespace, g: Array, factor: Array) -> tuple[Array, ...]:
    return (factor * g,)
