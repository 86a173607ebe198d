"""Random trainings, computed in every way there is: the weights and costs must be those of step by step.

``python -m benchmarks.fuzz`` draws 20,000 that are recorded and 500 that are compiled, and exits with 1 where one of
them isn't as step by step, printing the smallest like it that Hypothesis finds. It needs the extra ``test``.
``--device cuda`` compares with NumPy what is computed there, from NumPy's arrays and from arrays that are there
already: both must have the same bits. The last line printed is a SHA-256 of all weights, costs and metrics but those of
step by step on NumPy: where another run of the same trainings, in another environment, prints the same, it had the same
bits.

When two ways agree. In float64, at most 5 steps: every weight to 1e-9 of the largest, costs and metrics to 1e-9 of
themselves or of 1, the larger of both. In float32, one step of SGD: the same with 1e-4. A step that ends in NaN or inf
must do so in both, at the same batch. Where a training is over these bounds, rounding alone may have been amplified (a
kink that a value happens to lie on, Adam's division by what rounding left of a sum that cancels): step by step is then
repeated 20 times with X and the first weights moved by up to two units in the last place, and every W's and b's
gradient by up to four of its largest element's; 100 times the largest change that this makes is allowed on top. Such
trainings are counted as amplified. Planted in one weight of 232 random trainings, a fault of 1e-8 of the largest (in
float32 1e-3) was seen in all of them, one of 2e-9 (2e-4) in 227; of 39 others, most of them alike, in all but two.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

import gpubp
from benchmarks._random_trainings import Data, Training, read, trainings
from gpubp._devices import device, to_numpy
from gpubp._network import Network
from gpubp._typing import Array
from gpubp.callbacks import TrainingState
from gpubp.recording import code_cache, numpy_loops
from gpubp.training import threads as _threads

__all__ = [
    "IN_PARTS",
    "RECORDED",
    "STEP_BY_STEP",
    "WHOLE",
    "Mismatch",
    "Tally",
    "Way",
    "agree",
    "main",
    "on_device",
    "search",
]

BOUNDS = {"float64": 1e-9, "float32": 1e-4}
REPEATS = 20  # of step by step, moved a little, where a bound is passed
ALLOWED = 100.0  # times the largest change that these make
CHUNK = {"recorded": 200, "compiled": 10}  # trainings of one seed


class Way(NamedTuple):
    """How steps are computed: ``compile`` and ``threads`` of ``train``, how much is worked on at once, whether steps
    are cut into parts, which small ones aren't, where, and whether ``train`` is given arrays that are there already."""

    name: str
    compile: bool | str = False
    threads: int | None = None
    block: int = numpy_loops._BLOCK
    in_parts: bool = False
    device: str = "cpu"
    there: bool = False

    @contextmanager
    def chosen(self) -> Iterator[dict[str, Any]]:
        """While it is open, these options of ``train`` compute in this way."""
        bound = 0.0 if self.in_parts else math.inf
        shared = mock.patch.multiple(_threads, _SHARED_FROM=bound, _MORE_FROM=bound)
        with mock.patch.object(numpy_loops, "_BLOCK", self.block), shared:
            where = "auto" if self.there else self.device  # "auto" stays where the arrays are
            yield {"compile": self.compile, "threads": self.threads, "device": where}

    @property
    def computed(self) -> str:
        """How the attribute of that name of a run begins."""
        return {"recorded": "recorded", True: "compiled"}.get(self.compile, "step by step")


STEP_BY_STEP = Way("step by step")
RECORDED = (Way("recorded", "recorded"), Way("recorded in tiny blocks", "recorded", block=300))
IN_PARTS = tuple(Way(f"compiled in parts, {n} thread(s)", True, n, in_parts=True) for n in (1, 2, 3))
WHOLE = (Way("compiled", True, 1),)


def on_device(name: str) -> tuple[Way, ...]:
    """Step by step on that device."""
    one = f"step by step on {name}"
    return Way(one, device=name), Way(f"{one}, arrays there already", device=name, there=True)


class Mismatch(AssertionError):
    """A training that isn't as step by step."""


class Outcome(NamedTuple):
    """What came of a training. ``values`` are arrays by name; where it diverged, ``where`` says so."""

    where: tuple[Any, ...] | None
    values: dict[str, Array]

    @property
    def bits(self) -> bytes:
        """Everything in it."""
        return b"".join([repr(self.where).encode(), *(a.tobytes() for a in self.values.values())])


@dataclass
class Tally:
    """What was seen so far."""

    trainings: int = 0
    diverged: int = 0
    amplified: int = 0
    not_recorded: int = 0
    largest: float = 0.0  # difference over what is allowed, of those that agreed
    digest: bytes = b""  # SHA-256 of the one before and of what came then

    def saw(self, bits: bytes) -> None:
        self.digest = hashlib.sha256(self.digest + bits).digest()

    def add(self, other: Tally) -> None:
        self.trainings += other.trainings
        self.diverged += other.diverged
        self.amplified += other.amplified
        self.not_recorded += other.not_recorded
        self.largest = max(self.largest, other.largest)
        self.saw(other.digest)


class _Watcher:
    """Keeps the weights before every epoch."""

    def __init__(self, w: Array) -> None:
        self.before = [w]

    def on_epoch_end(self, state: TrainingState) -> None:
        self.before.append(to_numpy(state.w).copy())


class _Listener(_Watcher):
    """And is told of every batch."""

    def on_batch_end(self, state: TrainingState) -> None:
        assert state.batch > 0


class _Moved:
    """An optimizer whose gradients are moved: each W's and b's by up to four units in the last place of its largest
    element. What is 0 stays so, as nodes that are off have no rounding."""

    def __init__(self, optimizer: Any, net: Network, rng: Any) -> None:
        self.optimizer, self.net, self.rng = optimizer, net, rng
        self.learning_rate, self.init = optimizer.learning_rate, optimizer.init

    def step(self, w: Array, g: Array, state: Any) -> tuple[Array, Any]:
        g = g.copy()
        for part in [part for layer in self.net.layers(g) for part in layer if part is not None]:
            unit = 4.0 * float(np.finfo(g.dtype).eps * np.max(np.abs(part)))
            part += np.where(part != 0, unit * self.rng.uniform(-1.0, 1.0, part.shape), 0.0).astype(g.dtype)
        return self.optimizer.step(w, g, state)  # type: ignore[no-any-return]


def outcome(training: Training, net: Network, data: Data, way: Way, moved: Any = None) -> Outcome:
    """Train in that way; ``moved`` is a random generator that moves what goes in."""
    X, w, options = data.X, data.w, training.options()
    if moved is not None:
        unit = 2.0 * float(np.finfo(X.dtype).eps)
        X, w = ((a * (1.0 + unit * moved.uniform(-1.0, 1.0, a.shape))).astype(a.dtype) for a in (X, w))
        options["optimizer"] = _Moved(training.optimizer, net, moved)
    kept, home = Data(X, data.Y, data.s, w), device(way.device)
    with home.current():
        given = training.laid_out(home.xp if way.there else np, kept)
    watcher = (_Listener if training.watched else _Watcher)(w)
    with way.chosen() as how:
        try:
            run = gpubp.train(
                net,
                given.X,
                given.Y,
                sample_weight=given.s,
                w=given.w,
                callbacks=[watcher],
                progress=False,
                **how,
                **options,
            )
            if not run.computed.startswith(way.computed):
                raise Mismatch(f"steps were computed otherwise: {run.computed}")
            if run.device != home:
                raise Mismatch(f"steps were computed elsewhere: {run.device.name}")
            where, last, history = None, run.w, run.history
        except gpubp.DivergenceError as error:
            where = (error.epoch, error.batch, error.learning_rate, str(error))
            last, history = error.w, {}
    for a, b in zip(vars(given).values(), vars(kept).values(), strict=True):
        if b is not None and not np.array_equal(to_numpy(a), b):
            raise Mismatch("what was given has been changed")
    values = {"weights": to_numpy(last)}
    for name in ("cost", "metric"):
        if history and history[name] and history[name][0] is not None:
            values[name] = np.asarray(history[name])
    if history and training.batch_size >= training.rows:
        Y = data.Y if training.targets == "labels" else data.Y.astype(X.dtype)
        costs = [net.cost(w, X, Y, sample_weight=data.s) for w in watcher.before[:-1]]
        values["cost before"] = np.asarray(costs)
    return Outcome(where, values)


def agree(training: Training, ways: Sequence[Way], tally: Tally | None = None) -> None:
    """Train step by step and in these ways.

    Raises
    ------
    Mismatch : one of them differs, or raises something
    """
    tally = Tally() if tally is None else tally
    net = training.net()
    data = training.data(net)
    judge = None
    found: list[Outcome] = []
    way, refused, amplified = STEP_BY_STEP, False, False
    try:
        wanted = outcome(training, net, data, way)
        for way in ways:
            try:
                found.append(outcome(training, net, data, way))
            except ValueError as error:
                if not training.per_node or "got one that can't" not in str(error):
                    raise
                refused = True  # as per_node is
                continue
            tally.saw(found[-1].bits)
            worst, what = _apart(found[-1], wanted, BOUNDS[training.dtype])
            if worst > 1.0:
                judge = judge or _Judge(training, net, data, wanted)
                worst, what = judge.apart(found[-1])
                amplified = True
            if not worst <= 1.0:
                raise Mismatch(what)
            tally.largest = max(tally.largest, worst)
            if (way.in_parts or way.there) and not _same_bits(found[0], found[-1]):
                raise Mismatch(f"other bits than {ways[0].name}")
    except Exception as error:
        told = (
            str(error)
            if isinstance(error, Mismatch)
            else "".join(traceback.format_exception(error, limit=-2, chain=False))
        )
        raise Mismatch(f"{way.name}: {told}\n{_again(training, way)}") from error
    tally.trainings += 1
    tally.diverged += wanted.where is not None
    tally.amplified += amplified
    tally.not_recorded += refused


def _same_bits(one: Outcome, other: Outcome) -> bool:
    values = zip(one.values.values(), other.values.values(), strict=True)
    return one.where == other.where and all(np.array_equal(a, b, equal_nan=True) for a, b in values)


def _again(training: Training, way: Way) -> str:
    device = "" if way.device == "cpu" else f" --device {way.device}"
    return f'once more: python -m benchmarks.fuzz{device} --case "{training!r}"'


def _apart(found: Outcome, wanted: Outcome, bound: float) -> tuple[float, str]:
    """The largest difference over what is allowed, and what it is of; inf where one diverged otherwise."""
    if found.where != wanted.where:
        return math.inf, f"diverged: {found.where}, step by step: {wanted.where}"
    return max(_differences(found, wanted, bound, {}))


def _differences(
    found: Outcome, wanted: Outcome, bound: float, changes: dict[str, Array]
) -> list[tuple[float, str]]:
    pairs = {name: (value, wanted.values[name]) for name, value in found.values.items()}
    if "cost before" in pairs:  # of this way's own weights
        pairs["cost before"] = found.values["cost"], found.values["cost before"]
    everything = []
    for name, (a, b) in pairs.items():
        size = np.max(np.abs(b)) if name == "weights" else np.maximum(np.abs(b), 1.0)
        more = changes.get("cost" if name == "cost before" else name, 0.0)
        with np.errstate(all="ignore"):
            apart = np.abs(a - b) / (bound * size + more)
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, apart)
        k = int(np.argmax(np.where(np.isnan(apart), math.inf, apart)))
        worst = float(np.where(np.isnan(apart[k]), math.inf, apart[k]))
        said = f"{name}[{k}] is {a[k]:.17g}, not {b[k]:.17g}: {worst:.3g} times what is allowed"
        everything.append((worst, said))
    return everything


class _Judge:
    """Step by step moved by rounding: how far, and how it ends."""

    def __init__(self, training: Training, net: Network, data: Data, wanted: Outcome) -> None:
        self.bound, self.wanted = BOUNDS[training.dtype], wanted
        rng = np.random.default_rng(0)
        self.moved = [outcome(training, net, data, STEP_BY_STEP, rng) for _ in range(REPEATS)]

    def apart(self, found: Outcome) -> tuple[float, str]:
        """As ``_apart``, with what rounding does allowed."""
        alike = [each for each in self.moved if each.where == found.where]
        if found.where != self.wanted.where:
            # what rounding alone brings about is no fault
            return (0.0, "") if alike else _apart(found, self.wanted, self.bound)
        changes = {
            name: ALLOWED * np.max([np.abs(each.values[name] - value) for each in alike], axis=0, initial=0.0)
            if alike
            else 0.0
            for name, value in self.wanted.values.items()
        }
        changes["weights"] = np.max(changes["weights"])
        return max(_differences(found, self.wanted, self.bound, changes))


def search(
    strategy: SearchStrategy[Training],
    ways: Sequence[Way],
    seed: int,
    examples: int,
    tally: Tally | None = None,
    tell: Callable[[], Any] = bool,
) -> None:
    """Compare so many random trainings, of that seed; ``tell`` is called after each.

    Raises
    ------
    Mismatch : of the smallest training that Hypothesis finds; its notes say how to have the same again
    """

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def compare(training: Training) -> None:
        agree(training, ways, tally)
        tell()

    try:
        compare()
    except Mismatch as error:
        again = [note for note in error.__notes__ if "@reproduce_failure" in note]
        error.__notes__ = [f"drawn with seed {seed}, {examples} trainings", *again]
        raise


class Chunk(NamedTuple):
    """Trainings of one seed."""

    ways: tuple[Way, ...]
    dtype: str
    seed: int
    examples: int


def _chunks(ways: Sequence[tuple[Way, ...]], total: int, size: int, seed: int) -> list[Chunk]:
    """Every third is of float32. Seeds are chunks' numbers, far from those of another ``seed``."""
    counts = [min(size, total - start) for start in range(0, total, size)]
    return [
        Chunk(ways[k % len(ways)], "float32" if k % 3 == 2 else "float64", 1_000_000 * seed + k, n)
        for k, n in enumerate(counts)
    ]


_done: Any = None  # in a worker: how many trainings all of them have compared


def _start(done: Any) -> None:
    global _done
    _done = done


def _count() -> None:
    with _done.get_lock():
        _done.value += 1


def _work(chunk: Chunk) -> tuple[Tally, str | None]:
    """Compare a chunk; what is wrong, in words."""
    tally = Tally()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(code_cache, "folder", return_value=Path(folder)),
    ):
        try:
            search(trainings(chunk.dtype), chunk.ways, chunk.seed, chunk.examples, tally, _count)
        except Mismatch as error:
            return tally, "\n".join([str(error), *getattr(error, "__notes__", [])])
    return tally, None


def run(chunks: Sequence[Chunk], workers: int) -> int:
    """Compare all chunks, with a progress bar; how many had a mismatch."""
    from tqdm import tqdm

    total, start = Tally(), time.perf_counter()
    context = multiprocessing.get_context("spawn")
    done, wrong = context.Value("q", 0), 0
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with (
        mock.patch.dict(os.environ, one_thread),  # the workers' NumPy starts with it
        context.Pool(workers, _start, (done,)) as pool,
        tqdm(
            total=sum(chunk.examples for chunk in chunks), unit="training", file=sys.stderr, mininterval=0.5
        ) as bar,
    ):
        results = pool.imap(_work, chunks)  # in order, for the digest
        left = len(chunks)
        while left:
            try:
                tally, said = results.next(timeout=0.5)
            except multiprocessing.TimeoutError:
                bar.update(min(done.value, bar.total) - bar.n)
                continue
            left -= 1
            total.add(tally)
            if said is not None:
                wrong += 1
                bar.write(f"mismatch: {said}\n", file=sys.stdout)
        bar.update(min(done.value, bar.total) - bar.n)
    print(
        f"{total.trainings} trainings, {wrong} chunks with a mismatch, {time.perf_counter() - start:.0f} s; "
        f"largest error {total.largest:.2g} of what is allowed; {total.amplified} amplified by rounding, "
        f"{total.diverged} diverged, {total.not_recorded} can't be recorded\n{total.digest.hex()}"
    )
    return wrong


def main(given: Sequence[str] | None = None) -> int:
    """0 where all agree, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--recorded", type=int, default=20_000, metavar="N", help="(default: 20000)")
    parser.add_argument("--compiled", type=int, default=500, metavar="N", help="(default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--device",
        default="cpu",
        help="another one is compared step by step alone, with NumPy (default: cpu)",
    )
    parser.add_argument("--case", metavar="TRAINING", help="compare this one alone")
    options = parser.parse_args(given)
    recorded: tuple[Way, ...] = RECORDED
    parts, whole = (IN_PARTS, WHOLE) if find_spec("numba") and find_spec("scipy") else ((), ())
    if options.device != "cpu":
        recorded = on_device(options.device)
        parts, whole = (), ()
    if options.case is not None:
        try:
            for ways in (recorded, parts, whole):
                agree(read(options.case), ways)
        except Mismatch as error:
            print(f"mismatch: {error}")
            return 1
        print("no mismatch")
        return 0
    if options.compiled and not parts:
        print("nothing is compiled: that needs the extra fast, and the CPU", file=sys.stderr)
        options.compiled = 0
    chunks = _chunks([parts, parts, parts, whole], options.compiled, CHUNK["compiled"], options.seed)
    chunks += _chunks([recorded], options.recorded, CHUNK["recorded"], options.seed)
    return 1 if run(chunks, options.workers) else 0


if __name__ == "__main__":
    sys.exit(main())
