"""``train``: what goes in is checked here, and moved; then the loop runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from gpubp import optimizers
from gpubp._checks import Interval, real_number, whole_number
from gpubp._devices import Device, first_line, moved, out_of_memory
from gpubp._network import Network
from gpubp._typing import Array
from gpubp.optimizers import Optimizer
from gpubp.training import metrics
from gpubp.training.data import Rows, dtype_of, first_weights, held_out, home_for, split, validated, watchers
from gpubp.training.loop import DivergenceError, Loop, Run

__all__ = ["DivergenceError", "Run", "train"]

logger = logging.getLogger("gpubp")

_NOT_NEGATIVE = Interval(0.0, math.inf, low_closed=True)
_POSITIVE = Interval(0.0, math.inf)
_OPEN_UNIT = Interval(0.0, 1.0)


def train(
    net: Network,
    X: Array,
    Y: Array,
    *,
    sample_weight: Array | None = None,
    w: Array | None = None,
    optimizer: str | Optimizer | Any = "adam",
    epochs: int = 20,
    batch_size: int = 128,
    device: str | Device = "auto",
    dtype: str | None = None,
    seed: int = 0,
    l2: float = 0.0,
    l1: float = 0.0,
    clip_norm: float | None = None,
    validation: float | Sequence[Array] | None = None,
    metric: str | None = "auto",
    patience: int | None = None,
    callbacks: Sequence[Any] = (),
    progress: bool = True,
    threads: int | None = None,
    compile: bool | str | None = None,
) -> Run:
    """Train a network by minibatch gradient descent.

    Parameters
    ----------
    X : (n, n_0); integers and booleans are taken as float32; NumPy's is copied where its rows don't follow each other
        in memory
    Y : (n, n_L), (n,) where n_L = 1, or integer classes (n,) for "cross_entropy"
    sample_weight : (n,), at least 0: 2 is a repeated row in its batch's mean, rows of 0 are left out
    w : first weights (n_weights,), copied; None draws them by ``net.init(seed)``
    optimizer : a name, an ``Optimizer``, or anything with ``init(w) -> state`` and
        ``step(w, g, state) -> (w, state)``
    epochs, batch_size : passes over the rows, and rows a step; the last, smaller batch of a pass is kept
    device : "auto" stays where X is, and chooses for NumPy input alone; else a name of ``gpubp.device`` or a Device,
        to which everything is moved
    dtype : "float32" or "float64"; None is X's
    seed : of the first weights, the split, and, with the epoch's number, of each epoch's order
    l2, l1 : the objective is C + l2/2 sum W^2 + l1 sum abs(W), over W and never b; costs given back leave them out.
        scikit-learn's MLP divides its ``alpha`` by the batch size: l2 = alpha / batch_size. PyTorch's SGD and Adam add
        ``weight_decay`` w to the gradient, as l2 does, but for biases too; AdamW's is another thing (``AdamW``).
    clip_norm : the whole gradient, penalties included, is scaled down to at most this Euclidean norm
    validation : a fraction of the rows, drawn by the seed, or (X, Y) or (X, Y, sample_weight)
    metric : "accuracy", "r2", None, or "auto": accuracy for the cross-entropies, else R2
    patience : stop after so many epochs without a lower validation cost
    callbacks : objects with ``on_batch_end(state)`` and/or ``on_epoch_end(state)``; see ``gpubp.callbacks``
    progress : show a progress bar on stderr
    threads : how many share a matrix product of NumPy's or, where steps are compiled, a whole step, at most; None is as
        the machine is set, but one where steps are too small to share. Compiled steps are cut by their size into 1, 2
        or 4 parts, which as many threads at most can share, and give the same bits whatever their number: they take
        fewer where others keep the cores busy. NumPy's products may give other bits by another number of threads.
    compile : how steps are computed on NumPy's arrays, to equal results but for rounding. False: step by step.
        "recorded": written down once, as NumPy's functions on arrays made beforehand. True: compiled by numba (the
        extra ``fast``). None chooses by an estimate of the run, t = 6e-11 epochs n n_weights + 1e-4 steps: compiled
        where t >= 10 and numba and SciPy are there, else recorded where t >= 0.1, else step by step; what can't be
        written down comes one further. The environment's GPUBP_COMPILE, "always" (compiled), "recorded" or "never",
        is preferred to that choice. ``run.computed`` says which it was.

    Ctrl-C, in the main thread, lets the batch finish and gives the best weights so far back; twice stops at once.

    Raises
    ------
    ValueError, TypeError : an argument that isn't as above; nothing was changed
    ImportError, ValueError : steps can't be computed as ``compile`` asks
    RuntimeError : the device can't be used
    MemoryError : the data or a step doesn't fit the device; the caller's w is as it was
    DivergenceError : the cost or a weight became non-finite
    """
    if not isinstance(net, Network):
        raise TypeError(
            f"net must be a gpubp.Network, got {type(net).__name__}: make one with gpubp.Network(sizes)"
        )
    # Python numbers: NumPy's overflow where they are small, and widen float32 weights where they are float64.
    epochs, batch_size = whole_number("epochs", epochs, least=0), whole_number("batch_size", batch_size)
    seed = whole_number("seed", seed, least=0)
    l2, l1 = real_number("l2", l2, _NOT_NEGATIVE), real_number("l1", l1, _NOT_NEGATIVE)
    if clip_norm is not None:
        clip_norm = real_number("clip_norm", clip_norm, _POSITIVE)
    if patience is not None:
        patience = whole_number("patience", patience)
        if validation is None:
            raise ValueError("patience needs validation, got None: give validation=0.1 or (X, Y)")
    chosen_metric = metrics.metric_for(metric, net.cost_function.name)
    descent = optimizers.get(optimizer)
    told = watchers(callbacks)
    threads = None if threads is None else whole_number("threads", threads)
    if not (compile is None or isinstance(compile, bool) or compile == "recorded"):
        raise ValueError(
            f"compile must be None, True, False or 'recorded', got {compile!r}: give one of these"
        )
    dtype = dtype_of(X, dtype)
    target = device if isinstance(device, Device) else home_for(X, device)
    with target.current():
        rows = held = first = loop = None
        needed, remedy = "the data and weights", "train on fewer rows"
        try:
            rows = validated(net, Rows(X, Y, sample_weight), target, dtype, ("X", "Y", "sample_weight"))
            if isinstance(validation, int | float) and not isinstance(validation, bool):
                rows, held = split(rows, real_number("validation", validation, _OPEN_UNIT), seed)
            elif validation is not None:
                held = validated(
                    net,
                    held_out(validation),
                    target,
                    dtype,
                    ("validation X", "validation Y", "validation sample_weight"),
                )
            if w is None:
                first = moved(net.init(seed, dtype=dtype), target)
            else:
                first = first_weights(net, w, target, dtype)
            logger.info("training %r on %s (%s)", net, target.name, target.description)
            needed, remedy = f"a step with batch_size = {batch_size}", "give a smaller batch_size"
            loop = Loop(
                net,
                rows,
                held,
                target,
                descent,
                seed,
                batch_size,
                (l2, l1, clip_norm),
                chosen_metric,
                threads,
                compile,
            )
            return loop.go(first, epochs, patience, told, progress)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            reason = first_line(error)  # NumPy and CuPy both say how many bytes they were asked for
        finally:
            del loop, first, rows, held
            target.give_back()
        # raised here, where no traceback holds the step's buffers any more
        elsewhere = "" if target.name == "cpu" else ", or device='cpu'"
        raise MemoryError(f"{target.name} must have memory for {needed}, but: {reason}: {remedy}{elsewhere}")
