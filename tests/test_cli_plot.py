"""``gpubp plot``: each kind of picture from a saved model into a file, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp._cli import picture
from gpubp._cli.commands import main
from gpubp._cli.options import WITH_DATA, WITHOUT_DATA

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[plot]'")

ROWS = "a,b,kind\n0,1,wet\n2,0.5,dry\n1,1,wet\n0,3,dry\n"
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(path: str = "m.safetensors", labels: Any = ("dry", "wet"), **parts: Any) -> gpubp.Network:
    net = gpubp.Network((2, 4, 2), hidden="tanh", **{"cost": "cross_entropy", **parts})
    scaler = gpubp.Standardizer.fit(np.array([[0.0, 0.0], [2.0, 4.0]]))
    gpubp.save(path, net, net.init(1), scaler=scaler, labels=labels)
    return net


@pytest.mark.parametrize("kind", sorted({*WITHOUT_DATA, *WITH_DATA} - {"predicted"}))
def test_each_kind_becomes_a_file(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    saved()
    Path("rows.csv").write_text(ROWS)
    data = [] if kind in WITHOUT_DATA else ["rows.csv", "--target", "kind"]
    assert main(["plot", "m.safetensors", *data, "--kind", kind, "-o", f"{kind}.png"]) == 0
    assert capsys.readouterr() == (f"saved    {kind}.png\n", "")
    assert Path(f"{kind}.png").read_bytes().startswith(PNG)


def test_every_kind_has_its_picture_and_help() -> None:
    assert set(picture._KINDS) == {*WITHOUT_DATA, *WITH_DATA}


def test_the_data_reach_the_picture_as_the_network_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setitem(picture._KINDS, "norms", lambda subject, ax: seen.update(subject._asdict()))
    saved()
    Path("rows.csv").write_text(ROWS)
    assert main(["plot", "m.safetensors", "rows.csv", "--kind", "norms"]) == 0
    np.testing.assert_allclose(seen["x"], np.array([[-1, -0.5], [1, -0.75], [0, -0.5], [-1, 0.5]]))
    assert (seen["x"].dtype, seen["y"].tolist(), seen["y"].dtype) == (np.float32, [1, 0, 1, 0], np.int64)
    assert Path("plot.png").exists()

    np.savez("own.npz", x=np.zeros((3, 2)), y=[0, 1, 0], x_test=np.ones((2, 2)), y_test=[1, 0])
    saved(labels=(0, 1))
    assert main(["plot", "m.safetensors", "own.npz", "--kind", "norms"]) == 0
    assert seen["y"].tolist() == [1, 0]  # the test part

    net = gpubp.Network((64, 3, 1))
    gpubp.save("m.safetensors", net, net.init())
    assert main(["plot", "m.safetensors", "--kind", "norms"]) == 0
    assert (seen["x"].shape, seen["y"].dtype) == ((1797, 64), np.float32)


def test_numbers_are_drawn_beside_predictions() -> None:
    Path("line.csv").write_text("a,b,c\n0,1,2\n1,1,3\n2,0,2.5\n")
    net = gpubp.Network((2, 1))
    gpubp.save("m.safetensors", net, net.init())
    assert main(["plot", "m.safetensors", "line.csv", "--kind", "predicted", "-o", "p.svg"]) == 0
    assert "<svg" in Path("p.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.safetensors"], "none.safetensors"),
        (
            ["m.safetensors", "--kind", "norms"],
            "m.safetensors takes 2 features, the bundled digits: 64: give a FILE",
        ),
        (
            ["m.safetensors", "other.csv", "--kind", "norms"],
            "other.csv, target 'kind' must hold the model's classes dry, wet, got 'icy': name another --target",
        ),
        (
            ["n.safetensors", "other.csv", "--kind", "norms"],
            "must hold numbers, as the model's targets, got text",
        ),
        (["m.safetensors", "rows.csv", "--kind", "predicted"], "q and y must have one shape"),
        (["m.safetensors", "-o", "picture.xyz"], "Format 'xyz' is not supported"),
        (["m.safetensors", "-o", "none/picture.png"], "none/picture.png: No such file or directory"),
    ],
)
def test_failures_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    saved()
    saved("n.safetensors", labels=None, cost="squared_error")
    Path("rows.csv").write_text(ROWS)
    Path("other.csv").write_text(ROWS + "1,2,icy\n")
    assert main(["plot", *arguments]) == 1
    err = capsys.readouterr().err
    assert re.match(r"gpubp plot: .*\n$", err), err
    assert words in err
