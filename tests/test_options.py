"""What the command line takes, and wrong usage by its words."""

import re

import pytest

from gpubp._cli.commands import main
from gpubp._cli.options import parse


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["learn"], "invalid choice: 'learn'"),
        (["train", "--epochs", "0"], "argument --epochs: a whole number of at least 1 is needed, got '0'"),
        (["train", "--seed", "x"], "argument --seed: a whole number of at least 0 is needed, got 'x'"),
        (["train", "--hidden", "10,x"], "argument --hidden: a whole number of at least 1 is needed, got 'x'"),
        (["train", "--l2", "-1"], "argument --l2: a number of at least 0 is needed, got '-1'"),
        (["train", "--learning-rate", "0"], "argument --learning-rate: a number above 0 is needed, got '0'"),
        (["train", "--test", "1"], "argument --test: a number of at least 0 and below 1 is needed, got '1'"),
        (
            ["train", "--test", "nan"],
            "argument --test: a number of at least 0 and below 1 is needed, got 'nan'",
        ),
        (["train", "--l2", "much"], "argument --l2: a number of at least 0 is needed, got 'much'"),
        (["train", "--activation", "rleu"], "argument --activation: activation must be one of"),
        (["train", "--optimizer", "adm"], "argument --optimizer: optimizer must be one of"),
        (
            ["train", "x.npy"],
            "give no file, one .csv or .npz file, or two .npy files: FEATURES.npy TARGET.npy",
        ),
        (["train", "x.csv", "y.csv"], "give no file, one .csv or .npz file, or two .npy files"),
        (["train", "x.npy", "y.npy", "z.npy"], "give no file, one .csv or .npz file, or two .npy files"),
        (
            ["train", "x.npz", "--target", "y"],
            "--target names a column of a CSV file: give a CSV file, or leave it out",
        ),
        (
            ["train", "--test", ".5", "--validation", ".5"],
            "--test and --validation must leave rows to train on",
        ),
        (["train", "--patience", "3", "--validation", "0"], "--patience needs validation rows"),
        (["plot"], "the following arguments are required: MODEL"),
        (["plot", "m.safetensors", "--kind", "pie"], "argument --kind: invalid choice: 'pie'"),
        (["plot", "m.safetensors", "x.npy"], "give no file, one .csv or .npz file, or two .npy files"),
        (["predict"], "the following arguments are required: MODEL"),
        (["check", "4"], "give two sizes or more, each at least 1"),
        (["check", "4", "0"], "give two sizes or more, each at least 1"),
        (["check", "4", "x"], "give one MODEL, or sizes as whole numbers"),
        (
            ["check", "m.safetensors", "--cost", "huber"],
            "--hidden, --output and --cost go with sizes: a MODEL brings its",
        ),
        (["explain", "m.safetensors", "--no-bias"], "--no-bias goes with sizes: a MODEL brings its own"),
        (
            ["explain", "3", "2", "--target", "y"],
            "--target names a column of FILE: give one, or leave it out",
        ),
        (["explain", "a", "b", "c"], "give one MODEL, or sizes as whole numbers"),
        (["explain", "3", "2", "--latex", "--html", "p"], "not allowed with argument --latex"),
    ],
)
def test_wrong_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["info"], ["check"], ["plot"]])
def test_help_has_examples_that_parse(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    examples = re.findall(r"^  gpubp (\S.*?)(?:   .*)?$", out.partition("example")[2], re.MULTILINE)
    assert examples
    for example in examples:
        assert parse(example.split()).command == example.split()[0]
