"""What the command line takes: options, their help, and the refusal of wrong usage (exit status 2)."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

MOST_CLASSES = 20
"""A target of whole numbers with at most so many distinct values holds class labels, unless the task is given."""
PATIENCE = 20
WITHOUT_DATA = ("architecture", "activations")
"""Kinds of pictures that need the model alone."""
WITH_DATA = ("histograms", "norms", "boundary", "confusion", "predicted", "line", "plane")

_EXAMPLES = """\
examples:
  gpubp train                                train on the bundled handwritten digits
  gpubp train iris.csv --target species      train on a table, save model.safetensors
  gpubp predict model.safetensors new.csv    class labels and probabilities as CSV
  gpubp check 4 8 3 --cost cross_entropy     backpropagation against differences
  gpubp explain 3 4 2 --html page.html       every step forward and backward, as a page
  gpubp plot model.safetensors               a picture of the network; --help lists more kinds
  gpubp info                                 versions, devices, and why no GPU is used

gpubp COMMAND --help tells more. Exit status: 0 done, 1 failed, 2 wrong usage.
"""
_TRAIN = f"""\
files:
  none                     the bundled digits: 1,797 images of 8x8, labels 0 to 9
  TABLE.csv                UTF-8 with a header line, separated by commas, semicolons or tabs
  ARRAYS.npz               arrays x and y (or X and Y; or x_train, y_train, x_test, y_test)
  FEATURES.npy TARGET.npy  two arrays; images (n, h, w) are flattened

task:
  Classification if the target is text, or whole numbers with at most {MOST_CLASSES} distinct values,
  else regression; --task overrides.

Features are standardised (uint8 ones, taken for pixels, by one common scale); mean and scale
are kept in the model file, and the names of a CSV file's columns. The test rows are the same
for every seed, so that runs compare.
Ctrl-C once ends the training and saves the best weights so far.

examples:
  gpubp train
  gpubp train houses.csv --target price --hidden 64,64 --activation tanh
  gpubp train mnist.npz --epochs 10 --device cuda -o mnist.safetensors
  gpubp train features.npy target.npy --task regression --learning-rate 0.003
"""
_PREDICT = """\
FILE holds the features that the model was trained on: CSV (if the target is among its columns,
name it with --target), .npz (array x, X or x_test) or .npy. Columns of a CSV file are found by
their names, in any order, where the model keeps names, else by their order. A classifier gives
each row's class and the probability of every class; other models give numbers.

examples:
  gpubp predict model.safetensors new.csv -o predictions.csv
  gpubp predict model.safetensors iris.csv --target species
"""
_INFO = """\
example:
  gpubp info
"""
_CHECK = """\
The network gets random rows, in float64, and the gradient by backpropagation is compared with
one made from costs alone. Exit status 1 if they disagree.

examples:
  gpubp check model.safetensors
  gpubp check 4 8 3 --hidden tanh --cost cross_entropy
"""
_EXPLAIN = """\
Every link of the forward and backward chains with shape, formula and numbers, and each derivative
beside its central difference; for a saved model, or for sizes with first weights by --seed.

FILE holds rows with their target, as for train, columns found as for predict; without it the
rows are random.

examples:
  gpubp explain 3 4 2 --hidden tanh
  gpubp explain 1 1 1 1 --no-bias --latex
  gpubp explain model.safetensors iris.csv --target species --html page.html
"""
_PLOT = """\
kinds:
  architecture  nodes, and weights as line widths (the default)
  activations   sigma(p) and its slope sigma'(p)
  histograms    how each layer's activations are spread
  norms         norms of Delta[j] and dW[i] over depth
  boundary      the classes over the plane of two features
  confusion     true classes against predicted ones
  predicted     predicted numbers against true ones
  line          the cost along the gradient
  plane         the cost over a plane of weights

All but the first two need data with a target: files as for gpubp train (of an .npz file with a
test part, that part; columns of a CSV file are found as for predict), or the bundled digits.
Needs matplotlib: pip install 'gpubp[plot]'.

examples:
  gpubp plot model.safetensors
  gpubp plot model.safetensors --kind confusion -o digits.png
  gpubp plot model.safetensors iris.csv --target species --kind norms -o norms.svg
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; ``command`` is the command's name. Wrong usage, --help and --version raise SystemExit."""
    parser = argparse.ArgumentParser(
        "gpubp",
        description="Train feedforward neural networks by explicit backpropagation, on CPU or GPU.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpubp {version()}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)

    def add(name: str, does: str, epilog: str, options: Callable[[argparse.ArgumentParser], None]) -> None:
        sub = commands.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        options(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(error=sub.error)

    add("train", "train a network on a table or arrays, and save it", _TRAIN, _train)
    add("predict", "predict with a saved model, as CSV", _PREDICT, _predict)
    add("info", "show versions and devices, and why a GPU is or isn't usable", _INFO, lambda sub: None)
    add("check", "check the gradient of a saved model, or of sizes given", _CHECK, _check)
    add("explain", "write out backpropagation step by step, for a small network", _EXPLAIN, _explain)
    add("plot", "draw a saved model, or what it makes of data, as PNG or SVG", _PLOT, _plot)
    args = parser.parse_args(argv)
    if args.command == "train":
        _refuse_train(args)
    if args.command == "plot":
        _refuse_files(args)
    if args.command == "check":
        _refuse_check(args)
    if args.command == "explain":
        _refuse_explain(args)
    return args


def version() -> str:
    """gpubp's own, also where it runs uninstalled; imports only go down, so it is not imported from the top."""
    return str(sys.modules["gpubp"].__version__)


def _train(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="see below (default: the bundled digits)")
    _output(sub, "model.safetensors", "the model file")
    _csv_options(sub, "the column of the target in a CSV file (default: the last)")
    add("--task", choices=("classification", "regression"), help="default: by the target, see below")
    add("--quiet", action="store_true", help="no progress bar")

    add = sub.add_argument_group("network").add_argument
    add(
        "--hidden", type=_sizes, default="256", metavar="N,N,...", help="hidden sizes, or none (default: 256)"
    )
    add(
        "--activation",
        type=_named("activations"),
        metavar="NAME",
        default="relu",
        help="of hidden layers (default: relu)",
    )

    add = sub.add_argument_group("training").add_argument
    add("--epochs", type=_whole(1), metavar="N", default=200, help="at most so many (default: 200)")
    add(
        "--batch-size",
        type=_whole(1),
        metavar="N",
        help="default: a 40th of the training rows, from 8 to 128",
    )
    names = "sgd, momentum, nesterov, rmsprop, adam, adamw"
    add(
        "--optimizer",
        type=_named("optimizers"),
        metavar="NAME",
        default="adam",
        help=f"{names} (default: adam)",
    )
    add("--learning-rate", type=_number(zero=False), metavar="X", help="default: the optimizer's own")
    add(
        "--l2",
        type=_number(),
        metavar="X",
        default=3e-4,
        help="penalty l2/2 sum W^2 on weights (default: %(default)s)",
    )
    add(
        "--validation",
        type=_number(below=1),
        metavar="X",
        default=0.1,
        help="fraction that picks the best epoch (default: 0.1)",
    )
    add(
        "--patience",
        type=_whole(0),
        metavar="N",
        help=f"stop after so many epochs no better, 0: never (default: {PATIENCE})",
    )
    add(
        "--test",
        type=_number(below=1),
        metavar="X",
        default=0.2,
        help="fraction held back for the score (default: 0.2)",
    )
    add("--seed", type=_whole(0), metavar="N", default=0, help="of first weights and shuffling (default: 0)")
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")


def _predict(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("model", type=Path, metavar="MODEL", help="a file saved by gpubp train or gpubp.save")
    add("file", type=Path, nargs="?", metavar="FILE", help="see below (default: the bundled digits)")
    add("-o", "--output", type=Path, metavar="FILE", help="the CSV file to write (default: stdout)")
    _csv_options(sub, "the column of a CSV file to leave out")


def _check(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("what", nargs="+", metavar="MODEL|SIZE", help="a saved model, or sizes from the input to the output")
    _network_options(sub)
    add("--rows", type=_whole(1), metavar="N", default=5, help="examples in the batch (default: 5)")
    add("--seed", type=_whole(0), metavar="N", default=0, help="of weights and rows (default: 0)")


def _explain(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("what", nargs="+", metavar="MODEL [FILE]|SIZE", help="a saved model and rows for it, or sizes")
    _network_options(sub)
    add("--no-bias", dest="bias", action="store_false", help="no biases, as in the article")
    add("--rows", type=_whole(1), metavar="N", default=1, help="examples, the first of FILE (default: 1)")
    add("--seed", type=_whole(0), metavar="N", default=0, help="of weights and rows (default: 0)")
    _csv_options(sub, "the column of the target in FILE (default: the last)")
    kind = sub.add_mutually_exclusive_group().add_argument
    kind("--latex", action="store_true", help="a LaTeX fragment in place of text")
    kind(
        "--html", type=Path, metavar="PAGE", help="write a page that steps through it, and can be played with"
    )


def _network_options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "--hidden",
        type=_named("activations"),
        metavar="NAME",
        help="activation of hidden layers (default: relu)",
    )
    add(
        "--output",
        type=_named("activations"),
        metavar="NAME",
        help="output activation (default: the cost's partner)",
    )
    add("--cost", type=_named("costs"), metavar="NAME", help="default: squared_error")


def _plot(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("model", type=Path, metavar="MODEL", help="a file saved by gpubp train or gpubp.save")
    add("files", nargs="*", type=Path, metavar="FILE", help="data, see below (default: the bundled digits)")
    add(
        "--kind",
        choices=WITHOUT_DATA + WITH_DATA,
        metavar="KIND",
        default="architecture",
        help="see below (default: architecture)",
    )
    _output(sub, "plot.png", "the image: .png, .svg or .pdf")
    _csv_options(sub, "the column of the target in a CSV file (default: the last)")


def _output(sub: argparse.ArgumentParser, default: str, what: str) -> None:
    what = f"{what} (default: %(default)s)"
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", default=default, help=what)


def _csv_options(sub: argparse.ArgumentParser, target: str) -> None:
    sub.add_argument("--target", metavar="NAME", help=target)
    sub.add_argument(
        "--no-header", dest="header", action="store_false", help="CSV without names: columns are 1, 2, ..."
    )


def _refuse_files(args: argparse.Namespace) -> None:
    kinds = [path.suffix.lower() for path in args.files]
    if len(kinds) > 2 or (len(kinds) == 2) != (".npy" in kinds) or kinds.count(".npy") == 1:
        args.error("give no file, one .csv or .npz file, or two .npy files: FEATURES.npy TARGET.npy")
    if args.target is not None and kinds in ([], [".npz"], [".npy", ".npy"]):
        args.error("--target names a column of a CSV file: give a CSV file, or leave it out")


def _refuse_train(args: argparse.Namespace) -> None:
    _refuse_files(args)
    if args.test + args.validation >= 1:
        args.error("--test and --validation must leave rows to train on: give fractions with a sum below 1")
    if args.patience and not args.validation:
        args.error("--patience needs validation rows: give --validation a fraction above 0")


def _refuse_check(args: argparse.Namespace) -> None:
    described = args.hidden or args.output or args.cost
    args.sizes = [int(part) for part in args.what] if all(part.isdecimal() for part in args.what) else None
    if args.sizes is None and len(args.what) > 1:
        args.error("give one MODEL, or sizes as whole numbers")
    if args.sizes is not None and (len(args.sizes) < 2 or 0 in args.sizes):
        args.error("give two sizes or more, each at least 1: those of the input, hidden layers and output")
    if args.sizes is None and described:
        args.error("--hidden, --output and --cost go with sizes: a MODEL brings its own")


def _refuse_explain(args: argparse.Namespace) -> None:
    args.file = None
    if len(args.what) == 2 and not args.what[0].isdecimal():
        args.file = Path(args.what.pop())
    _refuse_check(args)
    if args.sizes is None and not args.bias:
        args.error("--no-bias goes with sizes: a MODEL brings its own")
    if args.target is not None and args.file is None:
        args.error("--target names a column of FILE: give one, or leave it out")


def _sizes(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(_whole(1)(part) for part in text.split(","))


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number of at least {least} is needed, got {text!r}")
        return int(text)

    return read


def _number(below: float = math.inf, zero: bool = True) -> Callable[[str], float]:
    wanted = f"a number {'of at least' if zero else 'above'} 0{f' and below {below:g}' if below < math.inf else ''}"

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number < below or (number == 0 and not zero):
            raise argparse.ArgumentTypeError(f"{wanted} is needed, got {text!r}")
        return number

    return read


def _named(module: str) -> Callable[[str], str]:
    """The names that ``gpubp.<module>.get`` knows."""

    def read(text: str) -> str:
        try:
            importlib.import_module(f"gpubp.{module}").get(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return read
