"""The command line, from arguments to exit status, stdout and stderr."""

import csv
import io
import os
import re
import runpy
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import _devices
from gpubp._cli import commands
from gpubp._cli.commands import main
from gpubp.training import entry

SPECIES = np.array(["setosa", "versicolor", "virginica"])
FAST = ["--quiet", "--hidden", "16", "--epochs", "20", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUBP_DEVICE", raising=False)


def flowers(n: int = 150) -> tuple[Any, Any]:
    """Three far clusters of four features, in turn, and each row's class."""
    rng = np.random.default_rng(1)
    index = np.arange(n) % 3
    return 100 + rng.standard_normal((n, 4)) + 6 * np.eye(3, 4)[index], index


def write(path: str, header: str, *columns: Any) -> None:
    rows = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def write_flowers(path: str = "iris.csv", labels: Any = SPECIES) -> None:
    x, index = flowers()
    write(path, "a,b,species,c,d", x[:, 0], x[:, 1], labels[index], x[:, 2], x[:, 3])


def number(pattern: str, text: str) -> float:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, text
    return float(match[1].replace(",", ""))


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_a_classifier_of_named_classes_from_csv_to_csv(capsys: pytest.CaptureFixture[str]) -> None:
    write_flowers()
    assert main(["train", "iris.csv", "--target", "species", *FAST]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in (
        r"^data +iris\.csv: 150 rows, 4 features$",
        r"^task +classification of 'species': setosa, versicolor, virginica$",
        r"^rows +105 train, 15 validation, 30 test$",
        r"^network +4-16-3, relu: 131 weights$",
        r"^device +cpu: ",
        r"^time +[\d.]+ s for 20 epochs, best epoch \d+$",
        r"^speed +[\d,]+ rows a second$",
        r"^saved +model\.safetensors$",
    ):
        assert re.search(words, out, re.MULTILINE), words
    assert number(r"^test +accuracy ([\d.]+) %$", out) >= 95

    assert main(["predict", "model.safetensors", "iris.csv", "--target", "species"]) == 0
    rows = table(capsys.readouterr().out)
    assert rows[0] == ["prediction", "probability_setosa", "probability_versicolor", "probability_virginica"]
    _, index = flowers()
    assert np.mean([row[0] for row in rows[1:]] == SPECIES[index]) >= 0.95
    q = np.array([row[1:] for row in rows[1:]], float)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)
    assert (SPECIES[q.argmax(axis=1)] == [row[0] for row in rows[1:]]).all()

    # the same without the target column, into a file
    write("new.csv", "a,b,c,d", *flowers()[0].T)
    assert main(["predict", "model.safetensors", "new.csv", "-o", "out.csv"]) == 0
    assert capsys.readouterr().out == ""
    assert table(Path("out.csv").read_text()) == rows


def test_a_regression_predicts_in_the_targets_own_unit(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(2).standard_normal((400, 3))
    y = 5e4 + 1e4 * x[:, 0] - 3e3 * x[:, 1]
    write("houses.csv", "price,a,b,c", y, *x.T)
    arguments = ["--target", "price", "-o", "m.safetensors", "--dtype", "float64", *FAST]
    assert main(["train", "houses.csv", *arguments, "--epochs", "60"]) == 0
    out = capsys.readouterr().out
    assert "regression of 'price'" in out
    assert number(r"^test +R2 ([\d.]+)$", out) > 0.98
    assert main(["predict", "m.safetensors", "houses.csv", "--target", "price"]) == 0
    header, *rows = table(capsys.readouterr().out)
    assert header == ["prediction"]
    assert np.corrcoef(np.array(rows, float)[:, 0], y)[0, 1] > 0.99


def test_integer_classes_in_npz_and_its_own_test_part(capsys: pytest.CaptureFixture[str]) -> None:
    x, index = flowers()
    pixels = (20 * (x - 90)).clip(0, 255).astype(np.uint8).reshape(-1, 2, 2)
    np.savez("m.npz", x_train=pixels[:100], y_train=index[:100], x_test=pixels[100:], y_test=index[100:])
    assert main(["train", "m.npz", *FAST, "--optimizer", "adamw", "--learning-rate", "0.003"]) == 0
    out = capsys.readouterr().out
    assert "classification of 'y': 0, 1, 2" in out
    assert "90 train, 10 validation, 50 test" in out
    assert number(r"accuracy ([\d.]+) %", out) >= 90
    scaler = gpubp.load("model.safetensors").scaler
    assert scaler is not None
    assert len(set(np.asarray(scaler.scale))) == 1
    assert main(["predict", "model.safetensors", "m.npz"]) == 0
    assert len(table(capsys.readouterr().out)) == 51


def test_npy_pair_without_validation_or_test(capsys: pytest.CaptureFixture[str]) -> None:
    x, index = flowers()
    np.save("x.npy", x)
    np.save("y.npy", SPECIES[index])
    assert (
        main(["train", "x.npy", "y.npy", "--validation", "0", "--test", "0", *FAST, "--hidden", "none"]) == 0
    )
    out = capsys.readouterr().out
    assert "150 train, 0 validation, 0 test" in out
    assert "network  4-3: " in out
    assert not re.search("^test ", out, re.MULTILINE)
    assert main(["predict", "model.safetensors", "x.npy"]) == 0
    assert len(table(capsys.readouterr().out)) == 151


def test_the_task_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    write_flowers(labels=np.array([0, 1, 2]))
    assert main(["train", "iris.csv", "--target", "species", "--task", "regression", *FAST]) == 0
    assert "regression of 'species'" in capsys.readouterr().out
    write_flowers(labels=np.array([0.5, 1, 2]))
    assert main(["train", "iris.csv", "--target", "species", "--task", "classification", *FAST]) == 0
    assert "classification of 'species': 0.5, 1.0, 2.0" in capsys.readouterr().out


def test_a_constant_target_has_no_r2(capsys: pytest.CaptureFixture[str]) -> None:
    write("t.csv", "a,y", np.arange(40.0), np.full(40, 0.5))
    assert main(["train", "t.csv", *FAST]) == 0
    assert "test     R2 undefined, the target is constant" in capsys.readouterr().out


def test_the_digits_are_learned_and_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "the bundled digits: 1,797 rows, 64 features" in out
    assert number(r"accuracy ([\d.]+) %", out) >= 97
    assert number(r"^time +([\d.]+) s", out) < 10
    assert "cpu" in err  # the progress bar names the device
    assert main(["predict", "model.safetensors"]) == 0
    rows = table(capsys.readouterr().out)
    assert np.mean(np.array([row[0] for row in rows[1:]], int) == gpubp.load_digits()[1]) > 0.97


def test_the_seed_gives_the_same_model(capsys: pytest.CaptureFixture[str]) -> None:
    write_flowers()
    weights = []
    for seed in ("1", "1", "2"):
        assert main(["train", "iris.csv", "--target", "species", *FAST, "--seed", seed]) == 0
        weights.append(gpubp.load("model.safetensors").w)
    capsys.readouterr()
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


def test_an_interrupted_training_is_saved(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class CtrlC:
        def on_epoch_end(self, _: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    train = entry.train
    monkeypatch.setattr(entry, "train", lambda *a, **k: train(*a, **k, callbacks=[CtrlC()]))
    write_flowers()
    assert main(["train", "iris.csv", "--target", "species", *FAST]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^time +[\d.]+ s for 1 epoch, interrupted, best epoch 1$", out, re.MULTILINE)
    assert gpubp.load("model.safetensors").labels == tuple(SPECIES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["check", "4", "8", "3", "--hidden", "tanh", "--cost", "cross_entropy"],
            "Network((4, 8, 3), hidden='tanh'",
        ),
        (["check", "3", "2", "--cost", "binary_cross_entropy"], "binary_cross_entropy"),
        (["check", "3", "4", "2", "--cost", "poisson"], "poisson"),
        (["check", "2", "2", "1", "--output", "sigmoid", "--rows", "2", "--seed", "3"], "sigmoid"),
    ],
)
def test_check_of_sizes(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(arguments) == 0
    assert words in capsys.readouterr().out


def test_check_of_a_model_and_of_one_that_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = gpubp.Network((3, 4, 2), hidden="sigmoid", cost="huber")
    gpubp.save("m.safetensors", net, net.init())
    assert main(["check", "m.safetensors"]) == 0
    assert repr(net) in capsys.readouterr().out
    monkeypatch.setattr(gpubp.Network, "cost_and_gradient", lambda *_, **__: (0.0, np.ones(net.n_weights)))
    monkeypatch.setattr(gpubp.Network, "gradient", lambda *_, **__: np.ones(net.n_weights))
    assert main(["check", "m.safetensors"]) == 1


@pytest.mark.parametrize(
    ("sizes", "cost", "labels", "header", "row"),
    [
        ((3, 2), "squared_error", None, "prediction_0,prediction_1", "0.0,0.0"),
        ((3, 1), "squared_error", None, "prediction", "0.0"),
        ((3, 2), "binary_cross_entropy", ("wet", "cold"), "prediction_wet,prediction_cold", "0.5,0.5"),
        (
            (3, 1),
            "binary_cross_entropy",
            ("dry", "wet"),
            "prediction,probability_dry,probability_wet",
            "dry,0.5,0.5",
        ),
        ((3, 2), "cross_entropy", None, "prediction,probability_0,probability_1", "0,0.5,0.5"),
    ],
)
def test_predictions_of_models_saved_by_the_library(
    capsys: pytest.CaptureFixture[str], sizes: Any, cost: str, labels: Any, header: str, row: str
) -> None:
    np.save("x.npy", np.ones((1, 3)))
    net = gpubp.Network(sizes, cost=cost)
    gpubp.save("m.safetensors", net, net.init(weights="zeros"), labels=labels)
    assert main(["predict", "m.safetensors", "x.npy"]) == 0
    assert capsys.readouterr().out == f"{header}\n{row}\n"


def test_info_tells_versions_and_why_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"gpubp             {gpubp.__version__}" in out
    assert f"numpy             {np.__version__}" in out
    assert "device            cpu: NumPy on the CPU" in out
    if find_spec("cupy") is None:
        assert "cupy              not installed" in out
        assert re.search("^no GPU +CuPy is not installed: pip install", out, re.MULTILINE)


def test_info_tells_card_memory_driver_and_cuda(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = gpubp.Device("cuda:0", np, "Card 9000, 80 GiB, CuPy")
    for name, answer in {
        "why_no_gpu": None,
        "device": card,
        "devices": (gpubp.device("cpu"), card),
        "cuda_versions": {"driver": "580.65", "cuda": "13.0, the driver's is 13.1"},
    }.items():
        monkeypatch.setattr(_devices, name, lambda *_, answer=answer: answer)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "device            cuda:0: Card 9000, 80 GiB, CuPy" in out
    assert "driver            580.65" in out
    assert "cuda              13.0, the driver's is 13.1" in out
    assert "auto is           cuda:0" in out
    assert "no GPU" not in out


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert main(["predict", "model.safetensors", *arguments]) == 0
    return table(capsys.readouterr().out)


def test_columns_are_matched_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    write_flowers()
    assert main(["train", "iris.csv", "--target", "species", *FAST]) == 0
    assert gpubp.load("model.safetensors").features == ("a", "b", "c", "d")
    capsys.readouterr()
    x, index = flowers()
    right = predicted(capsys, "iris.csv", "--target", "species")
    write("other.csv", "d,b,species,a,c", x[:, 3], x[:, 1], SPECIES[index], x[:, 0], x[:, 2])
    assert predicted(capsys, "other.csv", "--target", "species") == right
    write("other.csv", "d,b,a,c", x[:, 3], x[:, 1], x[:, 0], x[:, 2])
    assert predicted(capsys, "other.csv") == right
    np.save("x.npy", x)
    assert predicted(capsys, "x.npy") == right
    Path("bare.csv").write_text("".join(f"{','.join(map(str, row))}\n" for row in x.tolist()))
    assert predicted(capsys, "bare.csv", "--no-header") == right
    write("other.csv", "d,b,A,c,e", x[:, 3], x[:, 1], x[:, 0], x[:, 2], index)
    assert main(["predict", "model.safetensors", "other.csv"]) == 1
    words = "other.csv must have the model's 4 features a, b, c, d as columns, got no a and A, e besides: name the col"
    assert words in capsys.readouterr().err


def test_explain_and_plot_match_columns_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = gpubp.Network((2, 3, 2), hidden="tanh", cost="cross_entropy")
    gpubp.save("m.safetensors", net, net.init(1, dtype="float64"), labels=("no", "yes"), features=("a", "b"))
    Path("rows.csv").write_text("a,b,kind\n1,2,yes\n")
    Path("other.csv").write_text("kind,b,a\nyes,2,1\n")
    for command in (["explain"], ["explain", "--latex"]):
        outs = []
        for path in ("rows.csv", "other.csv"):
            assert main([*command, "m.safetensors", path, "--target", "kind"]) == 0
            outs.append(capsys.readouterr().out)
        assert outs[0] == outs[1]
    assert main(["explain", "m.safetensors", "other.csv"]) == 1  # whose last column is taken for the target
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[plot]'")
    from gpubp._cli import picture

    seen: dict[str, Any] = {}
    monkeypatch.setitem(picture._KINDS, "norms", lambda subject, ax: seen.update(subject._asdict()))
    assert main(["plot", "m.safetensors", "other.csv", "--target", "kind", "--kind", "norms"]) == 0
    assert seen["x"].tolist() == [[1, 2]]
    assert main(["plot", "m.safetensors", "other.csv", "--kind", "norms"]) == 1
    assert "got no a and kind besides: give --target 'kind' if that" in capsys.readouterr().err


def test_names_too_long_to_be_kept_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).standard_normal((40, 6))
    names = [letter * 100_000 for letter in "abcdef"]
    write("t.csv", ",".join([*names, "y"]), *x.T, np.arange(40) % 2)
    assert main(["train", "t.csv", *FAST]) == 0
    assert (
        "note     the names of columns are too long to be kept: predict will go by" in capsys.readouterr().out
    )
    assert gpubp.load("model.safetensors").features is None


def test_numbers_that_can_not_be_computed_with(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).standard_normal((40, 2))
    for column, large, dtype, words in (
        (0, 1e39, "float32", "line 8, column 'a': a number within float32's range was needed, got 1e+39"),
        (2, 1e39, "float32", "line 8, column 'y': a number within float32's range was needed, got 1e+39"),
        (
            2,
            1e19,
            "float32",
            "target 'y': numbers of at most 9.2e+18 are needed to be squared in float32, got 1.0e+19",
        ),
        (
            2,
            1e200,
            "float64",
            "numbers of at most 6.7e+153 are needed to be squared in float64, got 1.0e+200",
        ),
        (0, 1e200, "float64", "X must differ from its mean by less than 1.3e+154 to be squared in float64"),
    ):
        columns = [*x.T.tolist(), x[:, 0].tolist()]
        columns[column][6] = large
        write("t.csv", "a,b,y", *columns)
        assert main(["train", "t.csv", *FAST, "--dtype", dtype]) == 1
        assert words in capsys.readouterr().err
        assert not Path("model.safetensors").exists()
    write("t.csv", "a,b,y", *x.T, x[:, 0])
    assert main(["train", "t.csv", *FAST]) == 0
    capsys.readouterr()
    for large, words in (
        (1e39, "line 3, column 'b': a number within float32's range was needed, got 1e+39"),
        (
            3e38,
            "features must be within float32's range once standardised, got 3e+38 in row 1, column 1 (both from 0)",
        ),
    ):
        write("t.csv", "a,b", [0.0, 0.0], [1.0, large])
        if large < 1e39:
            net, w, scaler, _ = gpubp.load("model.safetensors")
            small = gpubp.Standardizer(scaler.mean, 0.01 * scaler.scale)
            gpubp.save("model.safetensors", net, w, scaler=small)
        assert main(["predict", "model.safetensors", "t.csv"]) == 1
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("kind", [">f8", ">f4", ">i2"])
def test_the_order_of_bytes_makes_no_difference(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    x, index = flowers()
    found = []
    for dtype in (kind, kind.replace(">", "<")):
        np.savez("t.npz", x=(100 * x).astype(dtype), y=index.astype(dtype))
        assert main(["train", "t.npz", *FAST]) == 0
        capsys.readouterr()
        found.append((gpubp.load("model.safetensors").w, predicted(capsys, "t.npz")))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


@pytest.mark.skipif(os.name == "nt", reason="FIFOs are POSIX's")
def test_the_model_may_go_to_a_fifo() -> None:
    write_flowers()
    os.mkfifo("fifo")
    with subprocess.Popen(["cat", "fifo"], stdout=subprocess.PIPE) as reader:
        assert main(["train", "iris.csv", "--target", "species", *FAST, "-o", "fifo"]) == 0
        if not Path("fifo").is_fifo():  # else it would wait for ever
            reader.kill()
        assert reader.stdout is not None
        Path("copy").write_bytes(reader.stdout.read())
    assert gpubp.load("copy").labels == tuple(SPECIES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "none.csv"], "none.csv: No such file or directory"),
        (
            ["train", "iris.csv", "--target", "kind"],
            "the target must be one of the 5 columns a, b, species, c, d, got 'k",
        ),
        (["train", "iris.csv"], "line 2, column 'species': a finite number was needed, got text"),
        (
            ["train", "iris.csv", "--target", "species", "--task", "regression"],
            "column 'species': a finite number was n",
        ),
        (
            ["train", "text.npz", "--task", "regression"],
            "regression needs numbers as its target, got text: give --task c",
        ),
        (["train", "one.csv"], "one.csv, target 'y': classification needs two classes or more, got 1"),
        (
            ["train", "three.csv"],
            "three.csv must have rows enough for all parts, got 3: add rows, or give --test 0 --va",
        ),
        (
            ["train", "-o", "no/m"],
            "--output must name a file in a folder that exists, got no/m: make the folder",
        ),
        (["train", "--device", "gpu"], "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        (["train", "--quiet", "--optimizer", "sgd", "--learning-rate", "1e30"], "learning"),
        (["predict", "none.safetensors", "iris.csv"], "none.safetensors"),
        (["predict", "iris.csv", "iris.csv"], "iris.csv"),
        (
            ["predict", ".", "iris.csv"],
            ". must be a regular file, got a folder: copy the contents to a file first",
        ),
        (
            ["predict", "m.safetensors"],
            "m.safetensors takes 3 features, the bundled digits have 64: give a FILE",
        ),
        (
            ["predict", "m.safetensors", "one.csv"],
            "one.csv must have the model's 3 features as columns, got 2: keep the",
        ),
        (
            ["predict", "m.safetensors", "rows.csv"],
            "columns, got 4: name the target among them with --target",
        ),
        (["check", "iris.csv"], "iris.csv"),
        (
            ["check", "3", "2", "--cost", "poisson", "--output", "identity"],
            "the output of cost 'poisson' must lie in",
        ),
    ],
)
def test_failures_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    write_flowers()
    write("one.csv", "a,y", np.arange(40), np.ones(40, int))
    write("three.csv", "a,y", [1, 2, 3], [0.1, 0.2, 0.3])
    write("rows.csv", "a,b,c,d", *np.ones((4, 2)))
    np.savez("text.npz", x=np.ones((9, 2)), y=SPECIES[np.arange(9) % 3])
    net = gpubp.Network((3, 2))
    gpubp.save("m.safetensors", net, net.init())
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"gpubp {arguments[0]}: ")
    assert words in err
    assert err.count("\n") == 1
    with pytest.raises((ValueError, OSError, ArithmeticError)):
        main([*arguments, "--debug"])


def test_memory_and_interrupts_end_in_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, words in ((MemoryError(), "MemoryError"), (KeyboardInterrupt(), "interrupted")):

        def fail(_: Any, error: BaseException = error) -> int:
            raise error

        monkeypatch.setattr(commands, "_info", fail)
        assert main(["info"]) == 1
        assert capsys.readouterr().err == f"gpubp info: {words}\n"


def gpubp_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpubp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_the_module_runs_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpubp", "info"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("gpubp", run_name="__main__")
    assert stop.value.code == 0


def test_exit_codes_of_the_process() -> None:
    assert gpubp_process("--version").stdout == f"gpubp {gpubp.__version__}\n"
    failed = gpubp_process("train", "none.csv")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "gpubp train: none.csv: No such file or directory\n"
    assert gpubp_process("train", "--epochs", "none").returncode == 2
    debugged = gpubp_process("train", "none.csv", "--debug")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes break in another way on Windows")
def test_a_reader_that_stops_early_is_no_trouble() -> None:
    np.save("x.npy", np.ones((50_000, 3)))
    net = gpubp.Network((3, 2))
    gpubp.save("m.safetensors", net, net.init())
    command = [sys.executable, "-m", "gpubp", "predict", "m.safetensors", "x.npy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
