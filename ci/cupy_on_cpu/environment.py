"""The environment in which CuPy computes on the CPU: made once for each version, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import _setup

HERE = Path(__file__).resolve().parent
CUPY = "14.2.0"
BUILD = ["setuptools>=77", "Cython==3.2.*"]
CUDA = [f"nvidia-cuda-{part}==13.0.*" for part in ("runtime", "crt", "profiler-api", "nvrtc")]
KEPT_DAYS = 14  # after which an environment that nobody used is deleted


def prepare() -> tuple[str, str]:
    """The environment's Python and "", or "" and why there is none, in a sentence."""
    reason = unfit()
    if reason:
        return "", reason
    try:
        return kept_or_made(cache() / f"cupy-{CUPY}-python-{platform.python_version()}-{key()}")
    except OSError as error:
        return "", f"CuPy on the CPU needs a folder that it can write to, and {cache()} isn't: {error}"


def kept_or_made(place: Path) -> tuple[str, str]:
    """The Python of the environment there, made if need be, and ""; or "" and why it couldn't be made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    import fcntl  # not on Windows

    with (place.parent / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be making it
        python, stamp = place / "bin" / "python", place / "whole"
        if not (stamp.exists() and python.exists()):
            reason = make(place)
            if reason:
                return "", reason
        stamp.touch()
    sweep(place)
    return str(python), ""


def unfit() -> str:
    """Why this machine can't have it; empty if it can."""
    system = f"{platform.system()} on {platform.machine()}"
    if system != "Linux on x86_64":
        return f"CuPy on the CPU needs Linux on x86_64, this is {system}"
    for tool in (os.environ.get("EMULATOR_CXX") or "g++", "nm"):
        if shutil.which(tool) is None:
            return f"CuPy on the CPU needs a C++ compiler, {tool} was not found: install g++ and binutils"
    return ""


def key() -> str:
    """What the environment is made from, in twelve digits."""
    files = [HERE / "build.py", HERE / "environment.py"]
    files += [file for part in ("device", "kernel", "stand_ins") for file in (HERE / part).glob("*.*")]
    found = hashlib.sha256(repr([CUPY, platform.python_version(), *packages()]).encode())
    for file in sorted(files):
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:12]


def packages() -> list[str]:
    """What the suite's CuPy half needs, as pyproject.toml has it; gpubp itself comes from the checkout."""
    import tomllib

    project = tomllib.loads((_setup.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["plot"], *extras["test-quick"], "pytest-xdist"]


def cache() -> Path:
    """The folder of all such environments."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpubp-ci"


def make(place: Path) -> str:
    """Make the environment; why it couldn't be made, or empty."""
    _setup.say(f"make {place}, which takes about a minute")
    start = time.perf_counter()
    shutil.rmtree(place, ignore_errors=True)
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    stub = {
        "CUPY_INSTALL_NO_CUDA": "1",
        "CUPY_INSTALL_USE_STUB": "1",
    }  # CuPy's sources are wanted, not its build
    sources = ["--no-deps", "--no-build-isolation", "--no-binary", "cupy", f"cupy=={CUPY}"]
    wheels = [*BUILD, *CUDA, f"cupy-cuda13x=={CUPY}", *packages()]
    steps = [
        ("a virtual environment", [sys.executable, "-m", "venv", str(place)], {}),
        ("packages from the package index", [*pip, "install", *wheels], {}),
        ("CuPy's sources from the package index", [*pip, "download", *sources, "--dest", str(place)], stub),
        ("its build", [python, str(HERE / "build.py"), str(place / f"cupy-{CUPY}.tar.gz"), place.name], {}),
    ]
    for title, command, more in steps:
        env = {**os.environ, **more}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            last = lines[-1] if lines else f"exit code {done.returncode}"
            return f"CuPy on the CPU needs {title}, which failed: {last.strip()}"
    size = sum(file.lstat().st_size for file in place.rglob("*")) / 2**20
    (place / "whole").touch()
    _setup.say(f"made in {time.perf_counter() - start:.0f} s, {size:.0f} MiB")
    return ""


def sweep(place: Path) -> None:
    """Delete the environments that were not used for long, and what was left half made."""
    for other in place.parent.glob("cupy-*"):
        if other == place or not other.is_dir():
            continue
        stamp = other / "whole"
        used = (stamp if stamp.exists() else other).stat().st_mtime
        if time.time() - used > KEPT_DAYS * 24 * 3600:
            shutil.rmtree(other, ignore_errors=True)
            (other.parent / f"{other.name}.lock").unlink(missing_ok=True)
