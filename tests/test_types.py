"""A user's script passes mypy --strict and pyright as it stands, and both find what is wrong in one."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp

SCRIPT = Path(__file__).parent / "data" / "typed_script.py"
ROOT = Path(gpubp.__file__).parent.parent
WRONG = {
    "net.forward(run.w, x).Delta": "Delta",
    "bare.layers(run.w)[0][1].shape": "None",
    "bare.backward(run.w, x, x).db[0]": "None",
    "run.weights": "weights",
    "gpubp.Network(3)": "int",
}


def mypy(file: Path) -> list[str]:
    # "silent" says nothing of the library itself, as if it were installed
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={file.parent}"]
    return ["mypy", *options, file.name]


def pyright(file: Path) -> list[str]:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "include": [file.name]}
    (file.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    return ["basedpyright", "--pythonpath", sys.executable]


def checked(command: list[str], folder: Path) -> str:
    """What a type checker says of what is wrong."""
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: ci/test adds it")
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_the_script_computes() -> None:
    found: dict[str, Any] = runpy.run_path(str(SCRIPT))
    assert found["apart"] < 1e-12
    assert (found["nothing"], found["none"], found["right"]) == ([None], None, True)
    assert len(found["fading"].sizes) == 3
    assert np.isfinite(found["fading"].sizes).all()


def test_the_script_is_as_a_user_would_write_it() -> None:
    text = SCRIPT.read_text()
    assert not any(word in text for word in ("assert ", "ignore[", "type: ignore", "pyright:", "cast("))
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_the_types_of_a_script(checker: Any, tmp_path: Path) -> None:
    """All that a checker finds is in the lines that are wrong, and it finds them all."""
    file = tmp_path / "script.py"
    script = SCRIPT.read_text()
    file.write_text(script + "".join(f"print({line})\n" for line in WRONG))
    errors = [
        line
        for line in checked(checker(file), tmp_path).splitlines()
        if "error:" in line or "- error" in line
    ]
    first = len(script.splitlines()) + 1
    wrong = dict(enumerate(WRONG.values(), first))
    places = [int(line.split(f"{file.name}:")[1].split(":")[0]) for line in errors]
    assert set(places) == set(wrong)
    for number, word in wrong.items():
        assert any(word in line for line, place in zip(errors, places, strict=True) if place == number)
