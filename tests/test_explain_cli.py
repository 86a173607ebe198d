"""``gpubp explain``: rows of a file, saved models, sizes, and refusals in a sentence."""

from pathlib import Path

import numpy as np
import pytest

import gpubp
from gpubp import Network, explain
from gpubp._cli.commands import main


def write_model(cost: str, labels: tuple[str, ...] | None = None) -> Network:
    net = Network((2, 3, 2 if labels else 1), hidden="tanh", cost=cost)
    w = net.init(dtype="float64")
    scaler = gpubp.Standardizer.fit(np.array([[0.0, 10.0], [2.0, 30.0]]))
    gpubp.save("m.safetensors", net, w, labels=labels, scaler=scaler)
    return net


def test_the_command_line_explains_rows_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    net = write_model("cross_entropy", labels=("cat", "dog"))
    model = gpubp.load("m.safetensors")
    Path("rows.csv").write_text("a,kind,b\n1,dog,2\n3,cat,4\n", encoding="utf-8")
    assert main(["explain", "m.safetensors", "rows.csv", "--target", "kind", "--rows", "2"]) == 0
    assert model.scaler is not None
    x = model.scaler.apply(np.array([[1.0, 2.0], [3.0, 4.0]]))
    ours = explain(net, model.w, x, np.array([1, 0]))
    assert capsys.readouterr().out == f"{ours}\n"
    assert main(["explain", "m.safetensors", "rows.csv", "--target", "kind", "--html", "page.html"]) == 0
    assert capsys.readouterr().out == "saved    page.html\n"
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!doctype html>")

    Path("rows.csv").write_text("a,b,kind\n1,2,cow\n3,4,cat\n", encoding="utf-8")
    assert main(["explain", "m.safetensors", "rows.csv"]) == 1
    assert "the target 'kind' must be one of cat, dog, got 'cow': name the target" in capsys.readouterr().err
    assert main(["explain", "m.safetensors", "rows.csv", "--target", "b"]) == 1
    assert "column 'kind': a finite number was needed" in capsys.readouterr().err
    Path("rows.csv").write_text("a,kind\n1,cat\n", encoding="utf-8")
    assert main(["explain", "m.safetensors", "rows.csv"]) == 1
    assert (
        "the model's 2 features as columns, and the target, got 1 besides 'kind'" in capsys.readouterr().err
    )


def test_the_command_line_explains_sizes_and_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "1", "1", "1", "--no-bias", "--hidden", "tanh"]) == 0
    assert "dC/dw_12 = delta_0 q_1" in capsys.readouterr().out
    assert main(["explain", "3", "2", "--cost", "cross_entropy", "--latex"]) == 0
    assert r"\frac{\partial C}{\partial W_{01}} &= \Delta_{0}^{\top} q_{0}" in capsys.readouterr().out
    write_model("squared_error")
    assert main(["explain", "m.safetensors"]) == 0
    assert "dW[1]  (1, 3)" in capsys.readouterr().out
    Path("rows.csv").write_text("a,b,y\n1,2,0.5\n", encoding="utf-8")
    assert main(["explain", "m.safetensors", "rows.csv"]) == 0
    assert "    = 0.5\n" in capsys.readouterr().out
    assert main(["explain", "2", "9", "1"]) == 1
    assert "gpubp explain: explain writes out at most 8 examples" in capsys.readouterr().err
