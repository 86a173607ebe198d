"""Every command on a machine with a GPU: what is trained there predicts, checks and draws as what NumPy trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import Device
from gpubp._cli.commands import main

SETTINGS = [
    "--hidden",
    "6",
    "--epochs",
    "4",
    "--dtype",
    "float64",
    "--quiet",
    "--seed",
    "3",
    "--batch-size",
    "16",
]
rng = np.random.default_rng(0)
TABLE = rng.standard_normal((60, 3)).round(3)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    path = tmp_path / "features.csv"
    path.write_text(
        "a,b,c\n" + "\n".join(",".join(map(str, row)) for row in TABLE[:7]) + "\n", encoding="utf-8"
    )
    return path


class Shell:
    """Runs commands."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, *command: Any) -> str:
        assert main(list(map(str, command))) == 0
        return self.capsys.readouterr().out

    def model(self, task: str, device: str) -> Path:
        """A model trained on the device."""
        a, b, _ = TABLE.T
        data, path = self.folder / f"{task}.npz", self.folder / f"{device.replace(':', '')}-{task}"
        np.savez(data, x=TABLE, y=(a > b).astype(int) if task == "classification" else a - b)
        out = self("train", data, "-o", path, "--task", task, "--device", device, *SETTINGS)
        where = {"cuda": "cuda:0", "auto": "cuda:0"}.get(device, device)
        assert re.search(rf"^device +{where}: ", out, re.M)
        return path


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], gpu: Device) -> Shell:
    return Shell(tmp_path, capsys)


def numbers(text: str) -> Any:
    return np.array([float(n) for n in re.findall(r"-?\d+\.?\d*(?:e[+-]\d+)?", text)])


TASKS = pytest.mark.parametrize("task", ["classification", "regression"])


@TASKS
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "auto"])
def test_gpubp_train_on_cupy(
    task: str,
    device: str,
    shell: Shell,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if device == "cuda:1":
        request.getfixturevalue("gpus")
    if device == "auto":
        monkeypatch.setenv("GPUBP_DEVICE", "cuda:0")
    there, here = (gpubp.load(shell.model(task, name)) for name in (device, "cpu"))
    assert isinstance(there.w, np.ndarray)
    assert there.w.dtype == np.float64
    np.testing.assert_allclose(there.w, here.w, rtol=1e-9, atol=1e-11)


COMMANDS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "predict": lambda model, file: ["predict", model, file],
    "check": lambda model, file: ["check", model],
    "explain": lambda model, file: ["explain", model],
    "plot": lambda model, file: ["plot", model, "-o", file.parent / "plot.svg"],
}


@TASKS
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_what_cupy_trained(
    command: str, task: str, features: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUBP_DEVICE", "cuda")  # nothing else than training may go there by itself
    there, here = (shell(*COMMANDS[command](shell.model(task, name), features)) for name in ("cuda", "cpu"))
    assert len(there) > 10
    if command == "check":
        assert "passed" in there
        assert "passed" in here
    else:
        assert re.sub(r"[-\d.e+]+", "", there) == re.sub(r"[-\d.e+]+", "", here)
        np.testing.assert_allclose(numbers(there), numbers(here), rtol=1e-4, atol=1e-6)


def test_gpubp_info_names_cupys_devices(shell: Shell) -> None:
    out = shell("info")
    for device in gpubp.devices():
        assert re.search(rf"^device +{re.escape(device.name)}: {re.escape(device.description)}$", out, re.M)
    assert not re.search("^no GPU", out, re.M)
    assert re.search(r"^cuda +\d+\.\d, the driver's is \d+\.\d$", out, re.M)
    assert re.search(r"^auto is +cuda:0$", out, re.M)


def test_every_command_is_tried_on_cupy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    known = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.M)
    assert set(known) == {*COMMANDS, "train", "info"}


def test_a_gpu_that_is_missing_is_one_sentence(shell: Shell) -> None:
    number = len(gpubp.devices()) - 1
    assert main(["train", "--device", f"cuda:{number}", "-o", str(shell.folder / "m")]) == 1
    err = shell.capsys.readouterr().err
    assert re.fullmatch(rf"gpubp train: device 'cuda:{number}' needs CuPy .*, but this machine has .*\n", err)
