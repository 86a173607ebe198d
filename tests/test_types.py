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


def mypy(file: Path) -> str:
    # "silent" says nothing of the library itself, as if it were installed
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={file.parent}"]
    return checked([sys.executable, "-m", "mypy", *options, str(file)], file.parent)


def pyright(file: Path) -> str:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "include": [file.name]}
    (file.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    return checked([sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable], file.parent)


def checked(command: list[str], folder: Path) -> str:
    """What the checker says; its last line is "Success" or "0 errors" where it finds nothing."""
    name = command[2]
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: ci/test adds it")
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == any(
        good in said for good in ("Success: no issues", "0 errors, 0 warnings")
    )
    return "" if done.returncode == 0 else said


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
    file = tmp_path / "script.py"
    script = SCRIPT.read_text()
    file.write_text(script)
    assert checker(file) == ""
    file.write_text(script + "".join(f"print({line})\n" for line in WRONG))
    said = checker(file).splitlines()
    first = len(script.splitlines()) + 1
    for number, word in enumerate(WRONG.values(), first):
        assert any(f":{number}:" in line and word in line for line in said), (number, said)
