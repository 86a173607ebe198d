"""The GPU benchmark's machinery turns with the CPU standing in; its checks tell precisions and networks apart."""

import copy
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import library

from benchmarks import _floor, _gpubp, _grid, _report, cpu, gpu
from benchmarks._cases import CROSSOVER, EXACT, GPU_GRID, GPU_SMOKE, Case, flat
from benchmarks._libraries import EVERY, FLOOR, GPU_LIBRARIES, LIBRARIES, PRECISIONS
from benchmarks._worker import environment, steering
from gpubp._devices import EMULATED, why_no_gpu
from gpubp.engines.numpy import Numpy

SMALL = GPU_SMOKE[0]
PEERS = [name for name in GPU_LIBRARIES if name not in (FLOOR, _grid.REFERENCE)]
STAND_IN = [
    "--device",
    "cpu",
    "--quick",
    "--libraries",
    FLOOR,
    _grid.REFERENCE,
    "--precisions",
    "float32",
    "tf32",
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a quick run."""
    out = tmp_path_factory.mktemp("results") / "gpu.json"
    assert gpu.main([*STAND_IN, "--out", str(out)]) == 0
    return out


@pytest.fixture
def results(measured: Path) -> Any:
    return json.loads(measured.read_text())


def test_a_run_measures_writes_and_draws(measured: Path, results: Any) -> None:
    rows = {(row["case"], row["precision"]): row["libraries"] for row in results["steps"]}
    assert set(rows) == {(case.name, precision) for case in GPU_SMOKE for precision in ("float32", "tf32")}
    for case in GPU_SMOKE:
        ours = rows[case.name, "float32"]["gpubp-gpu"]
        assert len(ours["samples"]) == cpu.QUICK_ROUNDS
        assert 0 < ours["error"] < 1e-4
        assert rows[case.name, "tf32"]["gpubp-gpu"] == {"lacks": "it computes in float32 alone"}
        assert rows[case.name, "tf32"][FLOOR] == {"lacks": "the CPU has no tf32"}
    for row in results["crossover"]["cases"]:
        gpu_s, cpu_s = (row["libraries"][name]["median"] for name in row["libraries"])
        assert min(gpu_s, cpu_s) > 0
    assert results["card"] == "NumPy on the CPU"
    assert results["not_reached"] == []
    said = _report.text(results)
    assert f"| {SMALL.name}, float32 |" in said
    assert said.count("gpubp (GPU), tf32: it computes in float32 alone") == 1
    assert "The GPU " in said
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: ci/test adds it")
    for picture in ("gpu.png", "gpu.crossover.png"):
        assert measured.with_name(picture).stat().st_size > 10_000


def test_what_a_file_holds_is_not_measured_again(measured: Path, results: Any, tmp_path: Path) -> None:
    partly = copy.deepcopy(results)
    gone = partly["steps"].pop(0)
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps(partly))
    assert gpu.main([*STAND_IN, "--out", str(out), "--keep"]) == 0
    after = json.loads(out.read_text())
    assert after["steps"][:-1] == partly["steps"]
    assert (after["steps"][-1]["case"], after["steps"][-1]["precision"]) == (gone["case"], gone["precision"])
    assert after["crossover"] == results["crossover"]
    with pytest.raises(
        ValueError, match=r"--keep needs a file measured alike, got another card and rounds: give"
    ):
        gpu.keep({**results, "card": "another", "rounds": 9}, results)


def test_it_ends_in_time_and_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    steps = ["--sections", "steps", "--precisions", "float32", "--out", str(out)]
    assert gpu.main([*STAND_IN, *steps, "--seconds", "0"]) == 0
    found = json.loads(out.read_text())
    assert found["steps"] == []
    assert found["not_reached"] == [f"{case.name}, float32" for case in GPU_SMOKE]
    assert f"{SMALL.name}, float32: the time given was over" in capsys.readouterr().out
    assert gpu.main([*STAND_IN, "--sections", "crossover", "--out", str(out), "--seconds", "0"]) == 0
    found = json.loads(out.read_text())
    assert "crossover" not in found
    assert found["not_reached"] == [f"crossover, {case.name}" for case in CROSSOVER[:2]]


def test_an_emulated_device_is_given_small_networks_and_no_card_s_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: None)
    for description, cases in (
        (f"{EMULATED}, 4 GiB, CuPy", GPU_SMOKE),
        ("NVIDIA H100, 80 GiB, CuPy", GPU_GRID),
    ):
        found = SimpleNamespace(description=description)
        monkeypatch.setattr("gpubp.device", lambda name, found=found: found)
        args = gpu.parse(["--out", "other.json"])
        assert args.emulated == (cases is GPU_SMOKE)
        assert args.cases == [case.name for case in cases]
    assert gpu.parse([]).out == gpu.CARD_RESULTS
    monkeypatch.setattr(gpu, "is_emulated", lambda device: True)
    with pytest.raises(SystemExit):
        gpu.parse([])
    assert "gpu.json is for what a card measures, and the device is emulated" in capsys.readouterr().err


def test_the_floor_says_what_it_needs_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks._libraries.find_spec", lambda name: None)
    assert EVERY[FLOOR].lacks("bfloat16", "cuda") == "ml_dtypes is not installed: pip install ml_dtypes"
    assert EVERY[FLOOR].lacks("float32", "cuda") is None
    monkeypatch.setattr("benchmarks._libraries.find_spec", lambda name: name)
    assert EVERY[FLOOR].lacks("bfloat16", "cuda") is None


def test_without_a_gpu_it_refuses_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    if why_no_gpu() is None:
        pytest.skip("there is a GPU here")
    assert gpu.main([]) == 3
    said = capsys.readouterr().err
    assert said.startswith("benchmarks.gpu needs an NVIDIA GPU, or --device cpu: device 'cuda' needs CuPy")
    assert said.count("\n") == 1


def test_only_a_whole_run_on_a_gpu_overwrites_the_results() -> None:
    assert gpu.parse([]).out == cpu.RESULTS / "gpu.json"
    assert gpu.parse([]).cases == [case.name for case in GPU_GRID]
    partly = [["--quick"], ["--device", "cpu"], ["--cases", SMALL.name], ["--precisions", "tf32"]]
    for arguments in (*partly, ["--libraries", FLOOR], ["--sections", "crossover"]):
        assert gpu.parse(arguments).out is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "4"], "--rounds must be at least 5, got 4: medians of fewer mean little"),
        (["--quick", "--keep"], "--keep needs --out, the file that holds what is kept"),
        (["--libraries", "sklearn"], "invalid choice: 'sklearn'"),
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.parse(arguments)
    assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_peers_train_the_same_network_in_the_same_precision(name: str, tmp_path: Path) -> None:
    if reason := EVERY[name].absent():
        pytest.skip(reason)
    for row in _grid.rows([SMALL], [name], ["float32", "bfloat16"], 1, "cpu", tmp_path):
        found = row["libraries"][name]
        if "BackendCompilerFailed" in found.get("left_out", ""):
            pytest.skip(
                "torch.compile can't build its code here; it can't in a folder with a space in its name"
            )
        assert "samples" in found, found
        low, high = _grid.BANDS[row["precision"]]
        assert low <= found["error"] <= high


def rounded(bits: int) -> Callable[[Any], Any]:
    """Round the significands of a float32 matrix to so many bits behind the point, to even."""
    drop = 23 - bits

    def rounding(a: Any) -> Any:
        if a is None or a.ndim < 2:
            return a
        u = np.ascontiguousarray(a).view(np.uint32)
        half = np.uint32((1 << (drop - 1)) - 1) + ((u >> np.uint32(drop)) & np.uint32(1))
        return ((u + half) & np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))).view(np.float32)

    return rounding


@contextmanager
def low_precision(bits: int) -> Iterator[None]:
    """gpubp's products on NumPy with the factors rounded first, as tf32 (10 bits) and bfloat16 (7) do."""
    rounding = rounded(bits)
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("affine", "propagate", "contract"):
            true = getattr(Numpy, verb)

            def rough(self: Any, *arrays: Any, true: Any = true, **out: Any) -> Any:
                return true(self, *map(rounding, arrays), **out)

            patch.setattr(Numpy, verb, rough)
        yield


def one_step(case: Case, precision: str, epsilon: float) -> Any:
    training = _gpubp.trainer("step by step", case, precision, epsilon)
    training.run(1)
    return training.result()[0]


@pytest.mark.parametrize(
    "case", [*GPU_SMOKE, Case("4 layers of 64, 256", (64,) * 4, 256, 1)], ids=lambda case: case.name
)
def test_each_precision_keeps_to_its_band(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "never")
    case = replace(case, steps=1)
    first = flat(case.layers("float32"))
    moves = np.abs(one_step(case, EXACT, _grid.FLAT) - first)
    epsilon = float(np.median(moves[moves > 0])) * _grid.FLAT / 1e-3
    true = one_step(case, EXACT, epsilon)
    assert "error" in _grid.judged(_grid.error(one_step(case, "float32", epsilon), true, case), "float32")
    for precision, bits in (("tf32", 10), ("bfloat16", 7)):
        with low_precision(bits):
            found = _grid.error(one_step(case, "float32", epsilon), true, case)
        assert "error" in _grid.judged(found, precision), found
        assert "computes in another precision" in _grid.judged(found, "float32")["left_out"]
    exact = _grid.error(one_step(case, "float32", epsilon), true, case)
    for precision in ("tf32", "bfloat16"):  # who stays with float32 is found too
        assert "left_out" in _grid.judged(exact, precision)


def test_one_wrong_bias_is_found() -> None:
    first = flat(SMALL.layers("float32")).astype(np.float64)
    true = first + 1e-3
    assert _grid.error(true, true, SMALL) == 0
    wrong = true.copy()
    wrong[-SMALL.outputs :] = first[-SMALL.outputs :]  # the last b stays where it was
    assert _grid.error(wrong, true, SMALL) == pytest.approx(1)
    assert math.isnan(_grid.error(np.full_like(true, np.nan), true, SMALL))
    assert "left_out" in _grid.judged(math.nan, "bfloat16")


def test_the_crossing_is_between_the_sizes_where_it_happens() -> None:
    def rows(*ratios: float | None) -> list[dict[str, Any]]:
        return [
            {"weights": 100.0 * 4**k, "ratios": {"gpubp-gpu": {"gpubp": ratio}} if ratio else {}}
            for k, ratio in enumerate(ratios)
        ]

    assert _grid.crossing(rows(0.5, 2.0)) == pytest.approx(200)  # half way, in logarithms
    assert _grid.crossing(rows(0.5, 8.0)) == pytest.approx(100 * 4**0.25)
    assert _grid.crossing(rows(0.5, 2.0, 0.5, 2.0)) == pytest.approx(3200)  # the last time
    assert _grid.crossing(rows(1.5, 2.0)) == 100
    assert _grid.crossing(rows(0.5, None, 2.0)) == pytest.approx(400)
    assert _grid.crossing(rows(2.0, 0.9)) is None
    assert _grid.crossing(rows(None)) is None


def test_a_library_process_on_a_gpu_is_told_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_TF32", "1")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert {"CUPY_TF32", "NVIDIA_TF32_OVERRIDE"} <= set(steering())
    for precision in PRECISIONS:
        found = environment("cuda", precision)
        assert found["CUPY_TF32"] == str(int(precision == "tf32"))
        assert found["JAX_PLATFORMS"] == "cuda"
        assert found["CUDA_VISIBLE_DEVICES"] == "1"
        assert "NVIDIA_TF32_OVERRIDE" not in found
    assert environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_the_floor_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(1))
    cuda = SimpleNamespace(get_current_stream=lambda: stream)
    fake = SimpleNamespace(asarray=np.asarray, empty_like=np.empty_like, matmul=np.matmul, cuda=cuda)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    floor = _floor.trainer("", SMALL, "float32", 1e-8, "cuda")
    assert floor.run(3) > 0
    assert len(waits) == 3
    assert len(floor.products) == 3 * len(SMALL.sizes) - 4


@pytest.mark.slow
def test_a_captured_step_is_warmed_up_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the calls of torch.cuda replaced by a note of them; the graph runs what was captured."""
    torch = library("torch")
    notes: list[str] = []

    class Graph:
        def replay(self) -> None:
            notes.append("replay")

    @contextmanager
    def noted(name: str, _: Any) -> Iterator[None]:
        notes.append(name)
        yield
        notes.append(f"end of {name}")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "CUDAGraph": Graph,
        "stream": lambda side: noted("side", side),
        "graph": lambda graph: noted("capture", graph),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    replay = import_module("benchmarks._torch").captured(lambda: notes.append("step"))
    assert notes == ["side", "step", "step", "step", "end of side", "capture", "step", "end of capture"]
    replay()
    assert notes[-1] == "replay"


def test_cpu_and_gpu_have_their_own_libraries() -> None:
    assert {"gpubp", "sklearn", "torch-compile"} <= set(LIBRARIES) - set(GPU_LIBRARIES)
    assert {"gpubp-gpu", "torch-autotune", "torch-graph"} == set(GPU_LIBRARIES) - set(LIBRARIES)


def test_ci_gpu_takes_the_benchmark_into_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    ci = Path(__file__).parent.parent / "ci"
    monkeypatch.syspath_prepend(ci)
    loader = SourceFileLoader("ci_gpu", str(ci / "gpu"))
    spec = spec_from_loader("ci_gpu", loader)
    assert spec is not None
    command = module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(command)
    found, whole = command.benchmark(60.0, *STAND_IN, "--sections", "crossover")
    assert whole
    assert len(found["crossover"]["cases"]) == 2
    assert command.benchmark(60.0, "--device", "none") == (None, False)
