"""The benchmarks' machinery turns, on a network too small to time: what it says is right, not how fast anything is."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _machine, _report, _sections, cpu, profile, readme_table
from benchmarks._cases import ALL, GRID, SEED, SMOKE
from benchmarks._libraries import FLOOR, LIBRARIES, fast_extra, requirements
from benchmarks._worker import Failed, Worker, environment, steering
from gpubp.engines import engine_for
from gpubp.training import data

PEERS = [name for name in LIBRARIES if name not in (FLOOR, "gpubp-plain")]
README = f"before\n{readme_table.BEGIN}\nold\n{readme_table.END}\nafter\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a quick run."""
    out = tmp_path_factory.mktemp("results") / "cpu.json"
    small = ["--cases", SMOKE.name, "--libraries", FLOOR, "gpubp-plain", "--sections", "steps", "size"]
    assert cpu.main(["--quick", *small, "--out", str(out)]) == 0
    return out


@pytest.fixture
def results(measured: Path) -> Any:
    return json.loads(measured.read_text())


def test_a_run_measures_writes_and_draws(measured: Path, results: Any) -> None:
    (step,) = results["steps"]
    assert step["case"] == SMOKE.name
    ours = step["libraries"]["gpubp-plain"]
    assert len(ours["samples"]) == results["rounds"] == cpu.QUICK_ROUNDS
    assert ours["minimum"] <= ours["median"]
    assert ours["difference"] == 0
    assert ours["peak_bytes"] is None or ours["peak_bytes"] > 1e6
    floor = step["libraries"][FLOOR]["samples"]
    expected = np.median(np.divide(floor, ours["samples"]))
    assert step["ratios"]["gpubp-plain"][FLOOR] == pytest.approx(expected, rel=1e-3)
    assert results["size"]["libraries"]["gpubp-plain"]["bytes"] > 1e6
    assert {"date", "processor", "cores", "versions", "load", "seconds"} <= set(results)
    said = _report.text(results)
    assert "| smoke |" in said
    assert "left out" not in said
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: ci/test adds it")
    assert measured.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("case", ["smoke", "13-50-1, 32", "tanh 100x100, 200"])
@pytest.mark.parametrize("name", PEERS)
def test_peers_train_the_same_network(name: str, case: str) -> None:
    if reason := LIBRARIES[name].absent():
        pytest.skip(reason)
    if name == "torch-compile" and case != "smoke":
        pytest.skip("compiling takes long, and says the same")
    found = _sections.agreement([ALL[case]], ["gpubp-plain", name])[case][name]
    if "BackendCompilerFailed" in found.get("left_out", ""):
        pytest.skip("torch.compile can't build its code here; it can't in a folder with a space in its name")
    assert "left_out" not in found, found
    assert found["difference"] <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PEERS if LIBRARIES[name].complete])
def test_peers_predict_the_same(name: str) -> None:
    if reason := LIBRARIES[name].absent():
        pytest.skip(reason)
    (found,) = _sections.predictions(["gpubp-plain", name], 1, {3: 1})
    assert "samples" in found["libraries"][name], found


def test_a_library_that_trains_another_network_is_left_out(tmp_path: Path) -> None:
    path, true_path = tmp_path / "w.npy", tmp_path / "true.npy"
    np.save(true_path, np.zeros(3))
    np.save(path, np.array([0.0, 2e-6, 0.0]))
    assert "its weights are 2.0e-06 from" in _sections._compared(path, 1.0, true_path, 1.0)["left_out"]
    np.save(path, np.array([0.0, np.nan, 0.0]))
    assert "left_out" in _sections._compared(path, 1.0, true_path, 1.0)
    np.save(path, np.zeros(3))
    assert "its cost is 2 where that has 1" in _sections._compared(path, 2.0, true_path, 1.0)["left_out"]
    assert _sections._compared(path, 1.0, true_path, 1.0) == {"difference": 0.0}


def test_a_library_that_fails_is_told_with_its_words() -> None:
    with Worker("gpubp-plain") as worker:
        with pytest.raises(Failed, match="sizes"):
            worker.prepare(replace(SMOKE, inputs=-1), "float32", 1e-8)
        worker.prepare(SMOKE, "float32", 1e-8)  # and goes on
        assert worker.ask("time") > 0
    with Worker("no such library") as worker, pytest.raises(Failed, match="no such library"):
        worker.ask("about")


def test_samples_that_fail_leave_the_others_alone() -> None:
    def failing() -> float:
        raise Failed("out of breath")

    entries: dict[str, dict[str, Any]] = {"gpubp": {}, "torch": {}, "sklearn": {}}
    ticks = iter([1.0, 3.0, 2.0])
    samplers = {"gpubp": lambda: next(ticks), "torch": failing, "sklearn": lambda: 6.0}
    _sections.rounds_of(samplers, 3, entries)
    assert entries["gpubp"] == {"samples": [1.0, 3.0, 2.0], "median": 2.0, "minimum": 1.0}
    assert entries["torch"] == {"left_out": "out of breath"}
    assert _sections.ratios(entries) == {"gpubp": {"sklearn": 3.0}}


def test_every_library_takes_the_rows_in_our_order() -> None:
    case = GRID[0]
    for epoch in (1, 2):
        ours = data.permutation(case.rows, SEED, epoch)
        assert np.array_equal(case.order(epoch).reshape(-1), ours)


def test_data_is_the_same_in_both_dtypes_and_aligned() -> None:
    for dtype in ("float32", "float64"):
        x, y = SMOKE.data(dtype)
        assert x.shape == (SMOKE.rows, SMOKE.inputs)
        assert x.dtype == dtype
        assert x.ctypes.data % 64 == 0
        assert 0 <= y.min() <= y.max() < SMOKE.outputs
        again = SMOKE.data(dtype)
        assert np.array_equal(x, again[0])
        assert np.array_equal(y, again[1])


def test_plain_runs_without_the_extra() -> None:
    assert set(fast_extra()) == {"numba", "scipy"}
    with Worker("gpubp-plain") as worker:
        worker.prepare(SMOKE, "float32", 1e-8)
    small, large = (_machine.installed_bytes(each, ours=True) for each in ((), requirements()))
    assert small < 1e6 < large


@pytest.mark.parametrize(
    "arguments",
    [["--rounds", "4"], ["--rounds", "0", "--quick"], ["--cases", "none"], ["--libraries", "none"]],
)
def test_wrong_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cpu.parse(arguments)
    assert "error: " in capsys.readouterr().err


def test_only_a_whole_run_overwrites_the_results() -> None:
    assert cpu.parse([]).out == cpu.RESULTS / "cpu.json"
    for partly in (["--quick"], ["--cases", "smoke"], ["--libraries", "floor"], ["--sections", "fit"]):
        assert cpu.parse(partly).out is None


def test_readme_gets_its_table(measured: Path, results: Any, tmp_path: Path) -> None:
    whole = copy.deepcopy(results)
    whole["quick"] = False
    source, readme = tmp_path / "cpu.json", tmp_path / "README.md"
    source.write_text(json.dumps(whole))
    readme.write_text(README)
    arguments = ["--json", str(source), "--readme", str(readme)]
    assert readme_table.main([*arguments, "--check"]) == 1
    assert readme.read_text() == README
    assert readme_table.main(arguments) == 0
    assert readme_table.main([*arguments, "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| smoke |" in text


def test_readme_is_left_alone_if_there_is_no_place_or_no_benchmark(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert readme_table.main(["--json", str(measured), "--readme", str(readme)]) == 1
    assert "is from a quick run" in capsys.readouterr().err
    assert readme_table.main(["--json", str(tmp_path / "none.json"), "--readme", str(readme)]) == 1
    assert readme.read_text() == README
    with pytest.raises(ValueError, match="must hold <!-- speed:begin --> and <!-- speed:end --> once"):
        readme_table.replaced("no comments", "table")


def test_the_best_peer_is_the_one_nearest_to_us() -> None:
    step = {"ratios": {"gpubp": {FLOOR: 0.5, "gpubp-plain": 0.9, "jax-scan": 1.2, "torch": 1.5}}}
    assert readme_table.best(step, ["gpubp", "gpubp-plain"]) == "1.20"


def test_the_profile_names_every_verb() -> None:
    engine = engine_for(np.zeros(0))
    said = profile.report(SMOKE, shapes=False)
    for verb in ("gather", "affine", "activate", "pull_back", "propagate", "contract", "update", "between"):
        assert f"| {verb}" in said
    assert not set(vars(engine)) & {"affine", "update"}  # the timers are gone
    assert "affine 4x8" in profile.report(SMOKE, shapes=True)


def test_every_library_runs_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert "OPENBLAS_CORETYPE" in steering()
    assert "OPENBLAS_CORETYPE" not in environment()
    assert environment()["JAX_PLATFORMS"] == "cpu"
    assert environment()["PATH"]
