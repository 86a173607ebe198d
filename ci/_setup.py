"""What the commands of this folder share: the virtual environment and the running of steps.

Standard library only, and readable by a Python too old for gpubp: it gets a sentence instead of a traceback.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def require_python() -> None:
    """Leave, with one sentence, when the Python that runs the command is too old."""
    if sys.version_info < OLDEST:
        sys.exit(
            "gpubp needs Python {}.{} or newer, this is {}.{}: run the command with a newer one, "
            "such as python3.12 {}".format(*OLDEST, *sys.version_info[:2], sys.argv[0])
        )


def say(text: str) -> None:
    """Print a line of the command's own; flushed, so that it stands before what its steps print."""
    print(f"== {text}", flush=True)


def run(
    title: str,
    command: list[str],
    *,
    timeout: float | None = None,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
) -> bool:
    """Run one step, say its name and seconds, and tell whether it exited with 0 within `timeout` seconds."""
    say(title)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout, check=False
        )
        outcome = "done" if done.returncode == 0 else f"FAILED with exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        outcome = "FAILED: stopped"
    say(f"{title}: {outcome} after {time.perf_counter() - start:.1f} s")
    return outcome == "done"


def environment(venv: Path, extras: str) -> str:
    """Make `venv` hold gpubp (editable) with `extras`, at once if it does already, and return its Python."""
    version = platform.python_version()
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = "\n".join([(ROOT / "pyproject.toml").read_text(encoding="utf-8"), str(ROOT), version, extras])
    stamp = venv / f"gpubp-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if stamp.exists() and python.exists():
        say(f"{venv.name} is up to date")
        return str(python)

    if venv.exists() and not (venv / "pyvenv.cfg").exists():
        sys.exit(
            f"{venv} must be a virtual environment or not exist, it is something else: choose another folder"
        )
    if not _runs(python, version):
        command = [sys.executable, "-m", "venv", "--clear", str(venv)]
        if not run(f"make {venv.name} with Python {version}", command):
            sys.exit(f"a virtual environment could not be made: give {sys.executable} its venv and ensurepip")
    target = f".[{extras}]" if extras else "."
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if not run(f"install {target}, which can take minutes", [*pip, "install", "--editable", target]):
        sys.exit("the installation failed: its last lines above say why; mend that and run the command again")
    stamp.touch()
    return str(python)


def _runs(python: Path, version: str) -> bool:
    """Whether `python` is whole and of `version`: an environment outlives the Python it was made with."""
    if not python.exists():
        return False
    command = [str(python), "-c", "import pip, platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == version
