"""The training loop: written once for every library and device, and the engine does the rest."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpubp import _metrics, backprop
from gpubp._data import Rows, index, permutation, take
from gpubp._descent import Descent, Done
from gpubp._devices import Device, device_of, to_numpy
from gpubp._network import Network
from gpubp._threads import Team, limited, products_take
from gpubp._typing import Array, Namespace
from gpubp.callbacks import ProgressBar, TrainingState
from gpubp.engines import Generic, Numpy, engine_for
from gpubp.engines.compiled import Compiled

__all__ = ["DivergenceError", "Loop", "Run"]

_COLUMNS = ("epoch", "cost", "metric", "validation_cost", "validation_metric", "learning_rate", "seconds")
_CHUNK = 4096  # rows of a validation pass at a time


class DivergenceError(ArithmeticError):
    """The cost or a weight became NaN or infinite.

    Attributes
    ----------
    epoch, batch : where, counted from 1
    learning_rate : of that step
    w : the best validated weights, else those at the start of the epoch
    """

    def __init__(self, what: str, epoch: int, batch: int, learning_rate: float, w: Array) -> None:
        super().__init__(
            f"{what} must stay finite, got NaN or inf at epoch {epoch}, batch {batch}, learning rate "
            f"{learning_rate:g}: lower the learning rate, scale the inputs, or give clip_norm"
        )
        self.epoch, self.batch, self.learning_rate, self.w = epoch, batch, learning_rate, w
        self._what = what

    def __reduce__(self) -> tuple[type[DivergenceError], tuple[Any, ...]]:
        return type(self), (self._what, self.epoch, self.batch, self.learning_rate, self.w)


@dataclass(frozen=True)
class Run:
    """What ``train`` gives back.

    Attributes
    ----------
    net : the network trained
    w : (n_weights,), on ``device``: the best by validation cost if validated, else the last
    history : equally long lists: epoch, cost, metric, validation_cost, validation_metric (None where there is none),
        learning_rate, seconds; costs without penalties, a training cost or metric taken while the weights moved
    device : where it ran
    best_epoch : the epoch that ``w`` is from, the last finished one if Ctrl-C or a callback came within the next; 0 for
        the first weights
    stopped : "epochs", "patience", "callback" or "interrupted"
    computed : how (``compile`` of ``train``): "step by step", "recorded", or "compiled, 2 threads", as many as took
        part at most; "recorded, products by 2 threads of BLAS" where these can change bits
    """

    net: Network
    w: Array = field(repr=False)
    history: dict[str, list[Any]] = field(repr=False)
    device: Device
    best_epoch: int
    stopped: str
    computed: str = "step by step"

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.stopped == "interrupted"

    def predict(self, X: Array) -> Array:
        """q_L (B, n_L) of X (B, n_0), in X's library and device, and w's dtype."""
        home = device_of(X)
        with self.device.current():
            x = self.device.put(X)
            xp = engine_for(x).xp
            return home.put(
                self.net.predict(self.w, x if x.dtype == self.w.dtype else xp.astype(x, self.w.dtype))
            )


class Loop:
    """The loop and what it holds on to."""

    def __init__(
        self,
        net: Network,
        rows: Rows,
        held: Rows | None,
        device: Device,
        optimizer: Any,
        seed: int,
        batch_size: int,
        penalties: tuple[float, float, float | None],
        metric: _metrics.Metric | None,
        threads: int | None,
        compile: bool | str | None = None,
    ) -> None:
        self.threads, self.compile = threads, compile
        self.net, self.rows, self.held, self.device = net, rows, held, device
        self.optimizer, self.seed, self.batch_size = optimizer, seed, batch_size
        self.penalties, self.metric = penalties, metric
        self.engine: Generic = engine_for(rows.x)
        self.xp: Namespace = self.engine.xp
        self.norms = [self.norm(part) for part in (rows, held)]
        self.ahead: dict[int, Array] = {}  # the next epoch's order, where it is there already

    def go(
        self, w: Array, epochs: int, patience: int | None, callbacks: Sequence[Any], progress: bool
    ) -> Run:
        state = TrainingState(
            self.net,
            self.device,
            epochs,
            self.rows.x.shape[0] * epochs,
            w,
            None if self.metric is None else self.metric.name,
            history={name: [] for name in _COLUMNS},
        )
        bar = ProgressBar() if progress else None
        everyone = [*callbacks, *([] if bar is None else [bar])]
        on_batch = [c.on_batch_end for c in everyone if hasattr(c, "on_batch_end")]
        on_epoch = [c.on_epoch_end for c in everyone if hasattr(c, "on_epoch_end")]
        self.descent = Descent(
            self.net,
            self.rows,
            w,
            self.optimizer,
            self.batch_size,
            self.penalties,
            self.metric,
            epochs,
            self.compile,
        )
        self.most = 1 if any(hasattr(c, "on_batch_end") for c in callbacks) else sys.maxsize
        best: tuple[float, int, Array] | None = None
        stopped = "epochs"
        try:
            with _CtrlC() as keys, self.engine.quiet(), self.few_threads():
                while stopped == "epochs" and state.epoch < epochs:
                    state.epoch += 1
                    started, start = time.perf_counter(), self.copy(state.w)
                    stopped, done = self.epoch(state, on_batch, keys)
                    kept = start if best is None else best[2]
                    costs = self.on_host([C for C, _, _, _ in done])  # here the device is waited for
                    self.refuse_divergence(state, done, costs, kept)
                    if stopped == "interrupted":
                        break
                    self.record(state, done, costs, started, kept)
                    validation_cost = state.history["validation_cost"][-1]
                    if validation_cost is not None and (best is None or validation_cost < best[0]):
                        best = validation_cost, state.epoch, self.copy(state.w)
                    if _told(on_epoch, state):
                        stopped = "callback"
                    elif keys.pressed:
                        stopped = "interrupted"
                    elif stopped == "epochs" and patience is not None and best is not None:
                        stopped = "patience" if state.epoch - best[1] >= patience else stopped
        finally:
            if bar is not None:
                bar.close()
        finished = len(state.history["epoch"])
        w, epoch = (state.w, finished) if best is None else (best[2], best[1])
        return Run(self.net, w, state.history, self.device, epoch, stopped, self.computed)

    @contextmanager
    def few_threads(self) -> Iterator[None]:
        """While it is open, as many threads compute as should; ``computed`` says which."""
        self.computed = self.descent.way
        if type(self.engine) is not Numpy and self.threads is None:  # another library's business
            yield
            return
        operations = 6.0 * self.batch_size * self.net.n_weights
        compiled = [each for each in self.descent.recorded.values() if isinstance(each, Compiled)]
        if not compiled:
            products = products_take(self.threads, operations)
            if products != 1:
                self.computed += f", products by {products or 'the'} threads of BLAS"
            with limited(self.threads, operations):
                yield
            return
        # NumPy's products, of a validation, take one, so that no bits depend on how many there are
        with Team(self.threads, operations) as team, limited(1, operations):
            for each in compiled:
                each.team = team
            yield
            self.computed += f", {team.most} thread{'s' * (team.most > 1)}"

    def epoch(self, state: TrainingState, on_batch: list[Any], keys: _CtrlC) -> tuple[str, list[Done]]:
        """One pass: why it stopped, and what came of its steps."""
        descent = self.descent
        order = self.ahead.pop(state.epoch, None)
        order = self.order(state.epoch) if order is None else order
        everything: list[Done] = []
        first = descent.steps
        for which in descent.portions(order, self.most):
            done = descent.go(which)
            everything.append(done)
            last = (-1,) if which.ndim == 2 else ()
            state.w, state.cost, state.learning_rate = (
                descent.w,
                done.C[last],
                float(np.asarray(done.rate)[last]),
            )
            state.batch, state.rows_done = descent.steps - first, state.rows_done + math.prod(which.shape)
            if _told(on_batch, state):
                return "callback", everything
            if keys.pressed:
                return "interrupted", everything
        if self.engine.asynchronous and state.epoch < state.epochs:  # while the device works
            self.ahead = {state.epoch + 1: self.order(state.epoch + 1)}
        return "epochs", everything

    def order(self, epoch: int) -> Array:
        """The rows in the order of that epoch, on the device."""
        return index(permutation(self.rows.x.shape[0], self.seed, epoch), self.rows.x)

    def refuse_divergence(self, state: TrainingState, done: list[Done], costs: Any, kept: Array) -> None:
        """Raise if a cost or weight of this epoch isn't finite."""
        bad = np.flatnonzero(~np.isfinite(costs))
        if bad.size:
            rates = np.concatenate([np.reshape(rate, -1) for _, _, rate, _ in done])
            raise DivergenceError("the cost", state.epoch, int(bad[0]) + 1, float(rates[bad[0]]), kept)
        if not bool(self.xp.all(self.xp.isfinite(state.w))):
            raise DivergenceError("every weight", state.epoch, state.batch, state.learning_rate, kept)

    def record(self, state: TrainingState, done: list[Done], costs: Any, started: float, kept: Array) -> None:
        """Add the epoch to the history."""
        weights = self.on_host([size for _, size, _, _ in done])
        cost = float(np.sum(costs * weights) / np.sum(weights))
        metric = None
        if self.metric is not None:
            # step by step, so that the sum doesn't depend on how many of them a call did
            hits = self.on_host([each.hits for each in done]).reshape(len(costs), -1)
            metric = self.metric.finish(np.sum(hits, axis=0), self.seen(state))
        validation_cost, validation_metric = self.validate(state.w)
        if validation_cost is not None and not math.isfinite(validation_cost):
            raise DivergenceError("the validation cost", state.epoch, state.batch, state.learning_rate, kept)
        seconds = time.perf_counter() - started
        row = (state.epoch, cost, metric, validation_cost, validation_metric, state.learning_rate, seconds)
        for name, value in zip(_COLUMNS, row, strict=True):
            state.history[name].append(value)

    def validate(self, w: Array) -> tuple[float | None, float | None]:
        """Cost and metric of the rows held out."""
        if self.held is None:
            return None, None
        costs, hits = [], []
        n = self.held.x.shape[0]
        for start in range(0, n, _CHUNK):
            x, y, s = (
                None if part is None else part[start : min(start + _CHUNK, n), ...] for part in self.held
            )
            C, q = backprop.batch_cost(self.net, self.engine, w, x, y, s, "sum")
            costs.append(C)
            if self.metric is not None:
                hits.append(self.metric.hits(self.xp, q, y, s))
        total = n if self.held.s is None else float(self.xp.sum(self.held.s))
        cost = float(np.sum(self.on_host(costs))) / total
        if self.metric is None:
            return cost, None
        return cost, self.metric.finish(np.sum([to_numpy(h) for h in hits], axis=0), self.norms[1])

    def norm(self, rows: Rows | None) -> Any:
        """What the metric's sums over these rows are measured by."""
        if self.metric is None or rows is None:
            return None
        with self.engine.quiet():
            return to_numpy(self.metric.norm(self.xp, rows.y, rows.s))

    def seen(self, state: TrainingState) -> Any:
        """The norm of the epoch's rows, also where a callback cut it short."""
        n = self.rows.x.shape[0]
        done = state.rows_done - n * (state.epoch - 1)
        if done == n:
            return self.norms[0]
        return self.norm(take(self.rows, permutation(n, self.seed, state.epoch)[:done]))

    def on_host(self, values: list[Any]) -> Any:
        """Numbers, or arrays of up to one axis, as one NumPy float64 array, in one transfer."""
        if isinstance(values[0], int):
            return np.asarray(values, dtype=np.float64)
        flat = [self.xp.reshape(value, (-1,)) for value in values]
        return to_numpy(self.xp.concat(flat)).astype(np.float64)

    def copy(self, w: Array) -> Array:
        return self.xp.asarray(w, copy=True)


class _CtrlC:
    """While it is open, the first Ctrl-C sets ``pressed`` and the second raises; in the main thread only."""

    def __enter__(self) -> _CtrlC:
        self.pressed = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            # None: set by another language, and not ours to replace; ignored, as in the background: so be it
            if self._before in (None, signal.SIG_IGN):
                self._before = None
            else:
                signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, signum: int, frame: object) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def _told(watchers: list[Any], state: TrainingState) -> bool:
    """Tell every watcher; whether one of them stops the run."""
    answers = [watch(state) for watch in watchers]
    return any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers)
