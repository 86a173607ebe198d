"""The command line: ``gpubp train | predict | info | check | explain | plot``.

Results go to stdout, progress and errors to stderr. What a command needs is imported when it runs.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp._cli.options import PATIENCE, WITHOUT_DATA, parse, version

if TYPE_CHECKING:
    from gpubp._cli.tables import Table
    from gpubp._datasets import Standardizer
    from gpubp._network import Network
    from gpubp.training.entry import Run

_ROWS_AT_ONCE = 8192  # bounds the memory of passes that no gradient follows
_MOST_NAMES = 2**19  # bytes of columns' names: half of a model file's header


class _Parts(NamedTuple):
    """Row numbers of the training, validation and test part."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit status: 0 done, 1 failed.

    Raises
    ------
    SystemExit : with 2 for wrong usage, with 0 after --help and --version
    """
    args = parse(argv)
    try:
        commands = {
            "train": _train,
            "predict": _predict,
            "info": _info,
            "check": _check,
            "explain": _explain,
            "plot": _plot,
        }
        status = commands[args.command](args)
        sys.stdout.flush()
        return status
    except (
        BrokenPipeError
    ):  # whoever read our output has gone: the interpreter's own last flush must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(f"gpubp {args.command}: interrupted", file=sys.stderr)
    except Exception as error:
        if args.debug:
            raise
        print(f"gpubp {args.command}: {_sentence(error)}", file=sys.stderr)
    return 1


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _say(word: str, text: str, width: int = 8) -> None:
    print(f"{word:<{width}} {text}", flush=True)


def _train(args: Namespace) -> int:
    from gpubp import optimizers
    from gpubp._checkpoint import save
    from gpubp._cli.tables import classes, is_classification, read_table, some
    from gpubp._devices import device, to_numpy
    from gpubp._network import Network
    from gpubp._numerics import largest_to_square
    from gpubp.training.entry import train

    # refused before anything takes long
    if not args.output.parent.is_dir():
        raise ValueError(
            f"--output must name a file in a folder that exists, got {args.output}: make the folder"
        )
    home = device(args.device)
    optimizer = optimizers.get(args.optimizer)
    if args.learning_rate is not None:
        optimizer = replace(optimizer, learning_rate=args.learning_rate)

    source = " and ".join(map(str, args.files)) or "the bundled digits"
    if args.files:
        table = read_table(args.files, args.target, args.task, args.header, args.dtype)
    else:
        table = _digits()
    x, y, parts = _split(table, args.test, args.validation, source)
    classify = is_classification(y) if args.task is None else args.task == "classification"
    _say("data", f"{source}: {len(x):,} rows, {x.shape[1]:,} features")
    if classify:
        labels, y = classes(y, f"{source}, target {table.target!r}")
        _say("task", f"classification of {table.target!r}: {some(labels)}")
        center, scale = 0.0, 1.0
        targets = y
    else:
        if y.dtype.kind == "U":
            raise ValueError(
                f"{source}: regression needs numbers as its target, got text: give --task classification"
            )
        labels = None
        _say("task", f"regression of {table.target!r}")
        largest, most = float(np.abs(y).max()), largest_to_square(args.dtype)
        if 2 * largest > most:  # twice, as its distance from the mean is squared
            raise ValueError(
                f"{source}, target {table.target!r}: numbers of at most {most / 2:.1e} are needed to be squared in "
                f"{args.dtype}, got {largest:.1e}: scale them{', or give --dtype float64' * (args.dtype == 'float32')}"
            )
        center, scale = float(y[parts.train].mean()), float(y[parts.train].std()) or 1.0
        targets = ((y - center) / scale).astype(args.dtype)
    scaler = _scaler(x[parts.train])
    z = _standard(x, scaler, args.dtype)

    sizes = (x.shape[1], *args.hidden, len(labels) if labels else 1)
    net = Network(sizes, hidden=args.activation, cost="cross_entropy" if classify else "squared_error")
    validated = parts.validation.size > 0
    patience = PATIENCE if args.patience is None else args.patience
    _say("rows", ", ".join(f"{len(rows):,} {part}" for part, rows in parts._asdict().items()))
    nodes = "-".join(map(str, sizes)) + f", {args.activation}" * bool(args.hidden)
    _say("network", f"{nodes}: {net.n_weights:,} weights")
    run = train(
        net,
        z[parts.train],
        targets[parts.train],
        optimizer=optimizer,
        epochs=args.epochs,
        batch_size=args.batch_size or min(max(len(parts.train) // 40, 8), 128),
        device=home,
        seed=args.seed,
        l2=args.l2,
        validation=(z[parts.validation], targets[parts.validation]) if validated else None,
        patience=patience if patience and validated else None,
        progress=not args.quiet,
    )
    w = to_numpy(run.w)
    if not classify:
        w = _in_units(net, w, center, scale)
    save(args.output, net, w, scaler=scaler, labels=labels, features=_kept(table.features))
    _say_run(run, len(parts.train), validated)
    if parts.test.size:
        _say("test", _score(_forward(net, w, z[parts.test]), y[parts.test], classify))
    _say("saved", str(args.output))
    return 0


def _kept(features: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names of columns, where a model file has room for them."""
    if features is not None and len(json.dumps(json.dumps(features))) > _MOST_NAMES:
        _say("note", "the names of columns are too long to be kept: predict will go by their order")
        return None
    return features


def _digits() -> Table:
    from gpubp._cli.tables import Table
    from gpubp._datasets import load_digits

    x, y = load_digits()
    return Table(x.astype(np.uint8), y.astype(np.float64), "digit")


def _split(
    table: Table, test: float, validation: float, source: str
) -> tuple[NDArray[Any], NDArray[Any], _Parts]:
    """All rows of x and y, and which are in which part: by chance, but the same at every call."""
    n, own_test = len(table.x), table.x_test is not None
    order = np.random.default_rng(0).permutation(n)
    n_test, n_validation = 0 if own_test else round(n * test), round(n * validation)
    if n <= n_test + n_validation or (validation and not n_validation) or (test and not (n_test or own_test)):
        remedy = "add rows, or give --test 0 --validation 0"
        raise ValueError(f"{source} must have rows enough for all parts, got {n}: {remedy}")
    parts = _Parts(order[n_test + n_validation :], order[n_test : n_test + n_validation], order[:n_test])
    if table.x_test is None or table.y_test is None:
        return table.x, table.y, parts
    x, y = np.concatenate([table.x, table.x_test]), np.concatenate([table.y, table.y_test])
    return x, y, parts._replace(test=np.arange(n, len(x)))


def _scaler(x: NDArray[Any]) -> Standardizer:
    from gpubp._datasets import Standardizer

    scaler = Standardizer.fit(x.astype(np.float64))
    if x.dtype != np.uint8:
        return scaler
    # Pixels share a unit; with a scale of its own, a pixel that is nearly always 0 would be blown up.
    return Standardizer(scaler.mean, np.full_like(scaler.scale, x.std() or 1.0))


def _standard(x: NDArray[Any], scaler: Standardizer, dtype: Any) -> NDArray[Any]:
    """Standardised in the scaler's dtype (float64 here, so that large offsets cancel), then rounded to ``dtype``."""
    z = np.empty(x.shape, dtype)
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        with np.errstate(over="ignore"):
            z[rows] = scaler.apply(x[rows].astype(scaler.mean.dtype))
        bad = np.argwhere(~np.isfinite(z[rows]))
        if len(bad):
            i, j = bad[0] + (start, 0)
            raise ValueError(
                f"features must be within {np.dtype(dtype)}'s range once standardised, got {x[i, j]:g} in row {i}, "
                f"column {j} (both from 0), of mean {scaler.mean[j]:g} and scale {scaler.scale[j]:g}: mend it, or "
                "leave out the row"
            )
    return z


def _in_units(net: Network, w: NDArray[Any], center: float, scale: float) -> NDArray[Any]:
    """The weights that predict y, from those that predict (y - center) / scale: exact, as the output is linear."""
    layers = net.layers(w)
    W, b = layers.pop()
    return np.asarray(net.flatten([*layers, (W * scale, b * scale + center)]))


def _forward(net: Network, w: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    starts = range(0, len(z), _ROWS_AT_ONCE)
    return np.concatenate([net.predict(w, z[start : start + _ROWS_AT_ONCE]) for start in starts])


def _score(q: NDArray[Any], y: NDArray[Any], classify: bool) -> str:
    from gpubp.training.metrics import accuracy, r2

    metric = accuracy if classify else r2
    norm = metric.norm(np, y, None)
    if not np.all(norm):
        return "R2 undefined, the target is constant"
    found = metric.finish(metric.hits(np, q, y, None), norm)
    return f"accuracy {100 * found:.2f} %" if classify else f"R2 {found:.4f}"


def _say_run(run: Run, n: int, validated: bool) -> None:
    seconds, epochs = sum(run.history["seconds"]), len(run.history["epoch"])
    why = {"patience": ", stopped early", "interrupted": ", interrupted"}.get(run.stopped, "")
    best = f", best epoch {run.best_epoch}" if validated else ""
    _say("device", f"{run.device.name}: {run.device.description}")
    _say("time", f"{seconds:.2f} s for {epochs} epoch{'s' * (epochs != 1)}{why}{best}")
    _say("speed", f"{n * epochs / max(seconds, 1e-9):,.0f} rows a second")


def _predict(args: Namespace) -> int:
    from gpubp._checkpoint import load
    from gpubp._cli.tables import read_features, write_predictions

    saved = load(args.model)
    net, w, scaler, labels = saved
    n_0 = net.sizes[0]
    if args.file is not None:
        x = read_features(args.file, args.target, n_0, args.header, str(w.dtype), saved.features)
    else:
        x = _digits().x
    if x.shape[1] != n_0:
        raise ValueError(
            f"{args.model} takes {n_0} features, the bundled digits have {x.shape[1]}: give a FILE"
        )
    q = _forward(net, w, x.astype(w.dtype) if scaler is None else _standard(x, scaler, w.dtype))
    if saved.chooses and q.shape[1] == 1:  # two classes, and the probability of the second
        q = np.concatenate([1 - q, q], axis=1)
    names = np.asarray(labels or [str(k) for k in range(q.shape[1])])
    if saved.chooses:
        header = ["prediction", *(f"probability_{name}" for name in names)]
        columns = [names[q.argmax(axis=1)], *q.T]
    else:
        header = ["prediction"] if q.shape[1] == 1 else [f"prediction_{name}" for name in names]
        columns = list(q.T)
    with _opened(args.output) as file:
        write_predictions(file, header, columns)
    return 0


@contextmanager
def _opened(path: Path | None) -> Iterator[Any]:
    """A text file for CSV; stdout where ``path`` is None."""
    if path is None:
        yield sys.stdout
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file


def _plot(args: Namespace) -> int:
    from gpubp._checkpoint import load
    from gpubp._cli.picture import targets, write
    from gpubp._cli.tables import read_table

    saved = load(args.model)
    if args.kind in WITHOUT_DATA:
        write(args.output, args.kind, saved)
    else:
        source = " and ".join(map(str, args.files)) or "the bundled digits"
        if args.files:
            dtype = str(saved.w.dtype)
            table = read_table(args.files, args.target, None, args.header, dtype, saved.features)
        else:
            table = _digits()
        x, y = (
            (table.x, table.y)
            if table.x_test is None or table.y_test is None
            else (table.x_test, table.y_test)
        )
        n_0 = saved.net.sizes[0]
        if x.shape[1] != n_0:
            raise ValueError(
                f"{args.model} takes {n_0} features, {source}: {x.shape[1]}: give a FILE that fits"
            )
        z = x.astype(saved.w.dtype) if saved.scaler is None else _standard(x, saved.scaler, saved.w.dtype)
        write(args.output, args.kind, saved, z, targets(saved, y, f"{source}, target {table.target!r}"))
    _say("saved", str(args.output))
    return 0


def _info(args: Namespace) -> int:
    from gpubp._devices import cuda_versions, device, devices, is_emulated, why_no_gpu
    from gpubp._ran import LIBRARIES

    say = partial(_say, width=17)
    say("gpubp", version())
    say("python", f"{sys.version.split()[0]} on {sys.platform}")
    for name in ("numpy", "array-api-compat", "safetensors"):
        say(name, metadata.version(name))
    cupy = [_version(name) for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy")]
    say("cupy", next(filter(None, cupy), "not installed"))
    for found in devices():
        say("device", f"{found.name}: {found.description}")
        if is_emulated(found):
            say(
                "emulated",
                f"{found.name} is no GPU: CuPy's own code, on the CPU; its times say nothing of a GPU",
            )
    reason = why_no_gpu()
    if reason is not None:
        say("no GPU", reason)
    else:
        for what, found_version in cuda_versions().items():
            say(what, found_version)
    say("auto is", f"{device('auto').name}{', by GPUBP_DEVICE' if 'GPUBP_DEVICE' in os.environ else ''}")
    for library in LIBRARIES:
        if library.on_gpus:
            say(f"{library.name} on a GPU", library.on_a_gpu)
    say(
        "your GPU",
        "ci/gpu REPORT.json, in a checkout of gpubp, shows whether it computes right, and how fast",
    )
    return 0


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _check(args: Namespace) -> int:
    from gpubp._checkpoint import load
    from gpubp._verify import check_gradient

    rng = np.random.default_rng(args.seed)
    if args.sizes is None:
        net, w, _, _ = load(args.what[0])
        w = w.astype(np.float64)
    else:
        net, w = _drawn(args, rng)
    x = rng.standard_normal((args.rows, net.sizes[0]))
    report = check_gradient(net, w, x, _targets(net, rng, args.rows), seed=args.seed)
    print(net)
    print(report)
    return 0 if report.passed else 1


def _drawn(args: Namespace, rng: np.random.Generator, **more: Any) -> tuple[Network, NDArray[Any]]:
    """The network of the sizes given, and random weights."""
    from gpubp._network import Network

    net = Network(
        args.sizes,
        hidden=args.hidden or "relu",
        output=args.output,
        cost=args.cost or "squared_error",
        **more,
    )
    w = net.init(args.seed, dtype="float64")
    return net, w + 0.1 * rng.standard_normal(w.shape)  # biases too, which start at 0


def _explain(args: Namespace) -> int:
    from gpubp._checkpoint import load
    from gpubp._cli.tables import read_rows
    from gpubp._explain.explanation import explain

    rng = np.random.default_rng(args.seed)
    scaler, labels, features = None, None, None
    if args.sizes is None:
        saved = load(args.what[0])
        (net, w, scaler, labels), features = saved, saved.features
    else:
        net, w = _drawn(args, rng, bias=args.bias)
    if args.file is None:
        x, y = rng.standard_normal((args.rows, net.sizes[0])), _targets(net, rng, args.rows)
    else:
        x, y = read_rows(args.file, args.target, args.rows, net.sizes[0], labels, args.header, features)
        y = y.astype(np.int64 if net.cost_function.labels else np.float64)
        x = x.astype(np.float64) if scaler is None else _standard(x, scaler, np.float64)
    found = explain(net, w.astype(np.float64), x, y)
    if args.html is None:
        print(found.latex() if args.latex else found)
    else:
        args.html.write_text(found.html(), encoding="utf-8")
        _say("saved", str(args.html))
    return 0


def _targets(net: Network, rng: np.random.Generator, rows: int) -> NDArray[Any]:
    """Random targets of the kind the cost is made for: labels (rows,), or (rows, n_L)."""
    shape = (rows, net.sizes[-1])
    cost = net.cost_function.name
    if cost == "cross_entropy":
        return rng.integers(0, net.sizes[-1], rows)
    if cost == "binary_cross_entropy":
        return rng.integers(0, 2, shape).astype(np.float64)
    return rng.poisson(3.0, shape).astype(np.float64) if cost == "poisson" else rng.standard_normal(shape)
