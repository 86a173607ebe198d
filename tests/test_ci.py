"""The commands of ci/ refuse in one sentence, tell failure from success, and do nothing twice."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest

from gpubp import _devices

CI = Path(__file__).parent.parent / "ci"


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(CI)
    return import_module("_setup")


@pytest.mark.parametrize(
    "name", ["_setup.py", "cupy_on_cpu/environment.py", "demo", "emulate", "gpu", "test"]
)
def test_the_commands_parse_on_an_old_python(name: str) -> None:
    ast.parse((CI / name).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_an_old_python_is_refused(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.require_python()
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    with pytest.raises(
        SystemExit, match=r"gpubp needs Python 3\.11 or newer, this is 3\.10: run the command with"
    ):
        setup.require_python()


def test_a_gpu_that_is_missing_is_told_in_one_sentence(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(CI / "gpu"), str(report)]
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("ci/gpu needs an NVIDIA GPU")
    assert done.stderr.count("\n") == 1
    assert not report.exists()


@pytest.fixture
def gpu(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """ci/gpu with a GPU that computes, as far as it knows, and without its timings."""
    loader = SourceFileLoader("ci_gpu", str(CI / "gpu"))
    module = module_from_spec(spec_from_loader("ci_gpu", loader) or pytest.fail("no spec"))
    loader.exec_module(module)
    monkeypatch.setattr("gpubp.device", str)
    monkeypatch.setenv("CUPY_NVRTC_USE_PCH", "1")  # which it sets itself
    monkeypatch.setattr(module, "versions", lambda: {"device": "a card", "emulated": False})
    monkeypatch.setattr(module, "benchmark", lambda *arguments: (None, True))
    monkeypatch.setattr("benchmarks.probe.measure", lambda seconds: {"failed": {}})
    return module


COMPUTED = '<testcase name="test_verbs[cupy-gather]"/>'
STOOD_IN = '<testcase name="test_verbs[cupy on numpy-gather]"/><testcase name="test_without_cupy"/>'
FAILED = '<testcase name="test_verbs[cupy-affine]"><failure/></testcase>'
SKIPPED = '<testcase name="test_verbs[cupy-affine]"><skipped message="{}"/></testcase>'


@pytest.mark.parametrize(
    ("cases", "code", "words"),
    [
        (COMPUTED + STOOD_IN, 0, "passed, 0 failed, 0 skipped on a card\n"),
        (
            COMPUTED + SKIPPED.format("PyTorch is not installed"),
            0,
            "1 passed, 0 failed, 1 skipped on a card\n",
        ),
        (COMPUTED + FAILED, 1, "1 passed, 1 failed, 0 skipped on a card\n"),
        (
            SKIPPED.format("PyTorch is not installed"),
            1,
            "FAILED: at least one test must run on CuPy's arrays",
        ),
        (STOOD_IN, 1, "FAILED: at least one test must run on CuPy's arrays, and none did"),
        ("", 1, "FAILED: at least one test must run on CuPy's arrays"),
    ],
)
def test_a_gpu_passes_where_tests_ran_on_it(
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cases: str,
    code: int,
    words: str,
) -> None:
    assert checked(gpu, monkeypatch, tmp_path, cases) == code
    assert words in capsys.readouterr().out


def test_a_gpu_fails_where_a_test_found_no_cupy(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With every reason that the probe of a GPU can give."""

    def cupy(count: int, value: float) -> Any:
        runtime = SimpleNamespace(getDeviceCount=lambda: count)
        return SimpleNamespace(
            cuda=SimpleNamespace(runtime=runtime, Device=lambda index: nullcontext()),
            float32=np.float32,
            arange=lambda n, dtype: value * np.arange(n, dtype=dtype),
        )

    def broken() -> Any:
        raise RuntimeWarning("CuPy is installed twice")

    for found, library in [(None, broken), (1, broken), (1, lambda: cupy(0, 1.0)), (1, lambda: cupy(1, 2.0))]:
        with monkeypatch.context() as machine:
            machine.setattr(importlib.util, "find_spec", lambda name, found=found: found)
            machine.setattr(_devices, "_cupy", library)
            reason = _devices.computes.__wrapped__(0)
        assert reason
        assert checked(gpu, monkeypatch, tmp_path, COMPUTED + SKIPPED.format(escape(reason, {'"': ""}))) == 1
        said = capsys.readouterr().out
        assert "FAILED: every test that needs CuPy must run, and one was skipped" in said


def checked(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cases: str) -> int:
    """What ci/gpu exits with, where pytest writes those results."""

    def run(title: str, command: list[str], **options: Any) -> bool:
        (results,) = (part.partition("=")[2] for part in command if part.startswith("--junitxml="))
        counts = {
            key: cases.count(f"<{tag}") for key, tag in [("tests", "testcase"), ("failures", "failure")]
        }
        sums = " ".join(f'{key}="{n}"' for key, n in {**counts, "skipped": cases.count("<skipped")}.items())
        Path(results).write_text(f'<testsuites><testsuite errors="0" {sums}>{cases}</testsuite></testsuites>')
        return True

    monkeypatch.setattr(gpu._setup, "run", run)
    monkeypatch.setattr(sys, "argv", ["ci/gpu", str(tmp_path / "report.json")])
    return int(gpu.main())


def test_a_step_tells_whether_it_passed(setup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    python = [sys.executable, "-c"]
    assert setup.run(
        "good", [*python, "import os; assert os.environ['COLOUR'] == 'red'"], env={"COLOUR": "red"}
    )
    assert not setup.run("bad", [*python, "raise SystemExit(4)"])
    assert not setup.run("slow", [*python, "import time; time.sleep(60)"], timeout=0.5)
    said = capsys.readouterr().out
    assert "good: done after" in said
    assert "bad: FAILED with exit code 4 after" in said
    assert "slow: FAILED: stopped after" in said


def test_an_environment_is_made_once(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With pip replaced by a note of what it was asked for; pyproject.toml and the extras each count."""
    installed = []
    true_run = setup.run

    def run(title: str, command: list[str], **options: Any) -> bool:
        if "pip" not in command:
            return bool(true_run(title, [*command, "--without-pip"], **options))
        installed.append(command[-1])
        return True

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "_runs", lambda python, version: python.exists())
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text("one")
    venv = tmp_path / "a venv"

    python = setup.environment(venv, "test")
    assert Path(python).exists()
    setup.environment(venv, "test")
    assert installed == [".[test]"]
    assert "a venv is up to date" in capsys.readouterr().out
    setup.environment(venv, "")
    setup.environment(venv, "test")
    project.write_text("two")
    setup.environment(venv, "test")
    assert installed == [".[test]", ".", ".[test]"]


def test_a_folder_of_something_else_is_left_alone(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SystemExit, match="must be a virtual environment or not exist"):
        setup.environment(tmp_path, "test")
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("arguments", "ci", "word", "status"),
    [([], "", "skipped", 0), ([], "true", "FAILED", 1), (["--required"], "", "FAILED", 1)],
)
def test_a_device_that_cannot_be_emulated_is_told_in_one_sentence(
    arguments: list[str], ci: str, word: str, status: int
) -> None:
    bare = {**os.environ, "PATH": "", "CI": ci}  # no compiler is found
    command = [sys.executable, str(CI / "emulate"), *arguments]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout.startswith(f"== ci/emulate: {word}: CuPy on the CPU needs ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_cache_that_cannot_be_written_is_told_in_one_sentence(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = import_module("cupy_on_cpu.environment")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(environment, "unfit", lambda: "")
    python, reason = environment.prepare()
    assert python == ""
    assert reason.startswith("CuPy on the CPU needs a folder that it can write to, and ")


@pytest.mark.skipif(sys.platform != "linux", reason="made on Linux alone")
@pytest.mark.slow
def test_packages_that_cannot_be_had_are_told_in_one_sentence(tmp_path: Path) -> None:
    offline = {**os.environ, "PIP_NO_INDEX": "1", "XDG_CACHE_HOME": str(tmp_path), "CI": ""}
    command = [sys.executable, str(CI / "emulate")]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"== ci/emulate: skipped: CuPy on the CPU needs .*", done.stdout.splitlines()[-1])
    assert list(tmp_path.rglob("whole")) == []
