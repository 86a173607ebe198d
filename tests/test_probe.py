"""The probe's numbers are those of a simulated device; on CuPy every measurement is taken, and ci/gpu runs whole."""

import json
import math
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks import probe
from benchmarks.probe import Clock, LeftOut, Measurement
from gpubp._devices import EMULATED, why_no_gpu

CI = Path(__file__).parent.parent / "ci"


class Simulated:
    """A host, and a device that does what it is given in order; both with clocks of their own."""

    def __init__(self, host_s: float, device_s: float) -> None:
        self.now = self.free = 0.0
        self.host_s, self.device_s = host_s, device_s
        self.waits = False  # whether a call waits, as on a device that isn't asynchronous

    def queue(self, host_s: float, device_s: float) -> None:
        self.now += host_s
        self.free = max(self.free, self.now) + device_s

    def call(self) -> None:
        self.queue(self.host_s, self.device_s)
        if self.waits:
            self.wait()

    def wait(self) -> None:
        self.now = max(self.now, self.free) + 1e-7

    def clock(self) -> float:
        self.now += 1e-8
        return self.now

    def cupy(self) -> Any:
        device = self

        class Event:
            def record(self) -> None:
                self.when = max(device.now, device.free)

            @property
            def done(self) -> bool:
                return device.now >= self.when

            def synchronize(self) -> None:
                device.now = max(device.now, self.when)

        def spin(loops: int, place: Any) -> None:
            device.queue(1e-6, 1e-9 * loops)

        return SimpleNamespace(
            cuda=SimpleNamespace(
                Event=Event,
                get_current_stream=lambda: SimpleNamespace(synchronize=device.wait),
                get_elapsed_time=lambda a, b: 1e3 * (b.when - a.when),
            ),
            ElementwiseKernel=lambda *text: spin,
            empty=lambda *shape, dtype: None,
            get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
        )


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], Simulated]:
    def simulated(host_s: float, device_s: float) -> Simulated:
        device = Simulated(host_s, device_s)
        monkeypatch.setitem(sys.modules, "cupy", device.cupy())
        monkeypatch.setattr(probe, "perf_counter", device.clock)
        return device

    return simulated


@pytest.mark.parametrize(
    ("host_s", "device_s"), [(5e-6, 2e-6), (2e-6, 5e-6), (1e-5, 0.1), (1e-3, 1e-6), (1e-5, 1e-9)]
)
def test_host_and_device_are_timed_apart(
    simulate: Callable[[float, float], Simulated], host_s: float, device_s: float
) -> None:
    device = simulate(host_s, device_s)
    clock = Clock()
    assert clock.device(device.call) == pytest.approx(device_s, rel=1e-6)
    assert not clock.host_bound
    assert clock.host(device.call) == pytest.approx(host_s, rel=1e-2)


def test_where_the_host_holds_the_device_up_it_says_so(
    simulate: Callable[[float, float], Simulated],
) -> None:
    device = simulate(5e-6, 2e-6)
    clock = Clock()
    device.waits = True
    assert clock.device(device.call) > 5e-6
    assert clock.host_bound
    device.waits = False
    assert clock.device(device.call) == pytest.approx(2e-6)
    assert not clock.host_bound


def test_what_takes_too_long_is_left_out_and_what_fails_is_named(
    simulate: Callable[[float, float], Simulated],
) -> None:
    device = simulate(1e-6, 1e-6)
    taken: list[str] = []

    def sized(name: str, seconds: float, **more: Any) -> Measurement:
        def take(clock: Clock) -> float:
            taken.append(name)
            return clock.host(lambda: device.queue(seconds, 0.0))

        return Measurement("size_s", name, take, **more)

    def broken(clock: Clock) -> float:
        raise RuntimeError("cuBLAS\nis away")

    def refused(clock: Clock) -> float:
        raise LeftOut("there is no tf32")

    start = device.now
    found = probe.measure(
        10.0,
        [
            sized("a, 1", 0.01, work=1.0),
            sized("a, 10", 0.1, work=10.0),
            sized("a, 1000", 10.0, work=1000.0),
            sized("a, 5", 0.05, work=5.0),
            sized("b, 1000", 0.001, work=1000.0),  # of another series
            Measurement("other_s", "broken", broken),
            Measurement("other_s", "refused", refused),
            sized("late", 11.0),
            sized("after it", 0.001),
        ],
    )
    assert taken == ["a, 1", "a, 10", "a, 5", "b, 1000", "late"]
    times = {"a, 1": 0.01, "a, 10": 0.1, "a, 5": 0.05, "b, 1000": 0.001, "late": 11.0}
    assert found["size_s"] == pytest.approx(times, rel=1e-3)
    assert found["failed"] == {"other_s: broken": "RuntimeError: cuBLAS is away"}
    assert found["left_out"].keys() == {"size_s: a, 1000", "other_s: refused", "size_s: after it"}
    assert found["left_out"]["size_s: a, 1000"].startswith(
        "it would take some 30 s, its share of the time was 1."
    )
    assert found["left_out"]["other_s: refused"] == "there is no tf32"
    assert found["left_out"]["size_s: after it"] == "the time was over"
    assert found["seconds"] == pytest.approx(device.now - start, rel=1e-3)


def test_a_measurement_stops_when_its_share_is_used(simulate: Callable[[float, float], Simulated]) -> None:
    device = simulate(1.0, 0.0)
    start = device.now
    probe.measure(8.0, [Measurement("x_s", "long", lambda clock: clock.host(device.call), weight=1.0)])
    assert 8.0 <= device.now - start < 9.5


class Fixed(Clock):
    """Every call is made, and is said to take a second."""

    def host(self, call: Callable[[], Any]) -> float:
        call()
        return 1.0

    device = host


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No training that takes long, and few samples."""
    monkeypatch.setattr(probe, "NETWORKS", ((6, 4, 3),))
    monkeypatch.setattr(probe, "BATCHES", (8,))
    monkeypatch.setattr(probe, "SAMPLES", 2)


@pytest.fixture
def with_cupy() -> None:
    if (reason := why_no_gpu()) is not None:
        pytest.skip(reason)


@pytest.mark.usefixtures("small", "with_cupy")
def test_every_kind_of_measurement_is_taken_on_cupy() -> None:
    first: dict[Any, Measurement] = {}
    for each in probe.everything():
        kind = each.group, each.name.rpartition(",")[0] if each.work else each.name
        if kind not in first or each.work < first[kind].work:
            first[kind] = each
    assert {group for group, _ in first} == {each.group for each in probe.everything()}
    found = probe.measure(200.0, list(first.values()))
    assert found["failed"] == {}
    assert found["left_out"] == {}
    for each in first.values():
        value = found[each.group][each.name]
        parts = (
            [part for cache in value.values() for part in cache.values()]
            if isinstance(value, dict)
            else [value]
        )
        assert all(0 < part < math.inf for part in parts), each.name


@pytest.mark.usefixtures("with_cupy")
def test_rates_follow_from_the_time_of_a_call_on_cupy() -> None:
    taken = {(each.group, each.name): each.take for each in probe.everything()}
    for (group, name), value in {
        ("product_tflops", "float32, q W', 256 x 64 x 10"): 2 * 256 * 64 * 10 / 1e12,
        ("product_tflops", "tf32, Delta W, 256 x 64 x 64"): 2 * 256 * 64 * 64 / 1e12,
        ("product_tflops", "float64, q W', 256 x 256 x 256"): 2 * 256**3 / 1e12,
        ("column_sums_us", "ones @ Delta, 256 x 64"): 1e6,
        ("copy_gb_s", "host to device pinned, 16 MiB"): 16 * 2**20 / 1e9,
        ("copy_gb_s", "device to device, 1 MiB"): 2**20 / 1e9,
        ("adam_gb_s", "one kernel, 65536 weights"): 7 * 4 * 65536 / 1e9,
        ("latency_us", "4 bytes, device to host"): 1e6,
    }.items():
        assert taken[group, name](Fixed()) == pytest.approx(value), name


@pytest.mark.usefixtures("with_cupy")
def test_adam_in_one_kernel_is_fewer_launches_to_the_same_weights_on_cupy() -> None:
    import cupy

    import gpubp
    from gpubp.engines.cupy import Cupy

    answers = []
    for engine in (Cupy(), probe.Unfused()):
        w, g, *slots = (cupy.linspace(start, 1, 50, dtype="float32") for start in (-1, -2, 0, 0.5))
        gpubp.Adam().descend(engine, w, g, slots, 1e-3, 1, overwrite=True)
        answers.append(cupy.stack([w, *slots]))
    assert float(cupy.abs(answers[0] - answers[1]).max()) < 1e-6
    kernels: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpubp.engines.cupy._kernel", lambda *key: kernels.append("asked"))
        gpubp.Adam().descend(probe.Unfused(), w, g, slots, 1e-3, 1, overwrite=True)
    assert kernels == []


@pytest.mark.usefixtures("with_cupy")
def test_a_compute_type_is_set_for_a_while_on_cupy() -> None:
    import cupy
    from cupy._core import _routines_linalg as linalg

    before = linalg.get_compute_type(cupy.dtype("float32"))
    with probe.computing("TF32"):
        assert linalg.get_compute_type(cupy.dtype("float32")) == linalg.COMPUTE_TYPE_TF32
    assert linalg.get_compute_type(cupy.dtype("float32")) == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linalg, "set_compute_type", lambda dtype, compute_type: None)
        with pytest.raises(LeftOut, match="this GPU has no TF32"), probe.computing("TF32"):
            pass


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """ci/gpu as a module, with few tests to run."""
    monkeypatch.syspath_prepend(CI)
    monkeypatch.setenv("CUPY_NVRTC_USE_PCH", "1")  # which it sets itself
    loader = SourceFileLoader("ci_gpu", str(CI / "gpu"))
    module = module_from_spec(spec_from_loader("ci_gpu", loader) or pytest.fail("no spec"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "SUITE", ["-k", "cupy", "tests/test_kernel.py", "tests/test_special.py"])
    return module


@pytest.mark.usefixtures("small", "with_cupy")
def test_ci_gpu_runs_whole_on_cupy(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["ci/gpu", "--seconds", "2", str(path)])
    status = command.main()
    out, err = capfd.readouterr()
    assert status == 0, out + err
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["passed"] > 0
    assert report["failed"] == 0
    assert report["unproven"] is None
    found = report["probe"]
    for each in probe.everything():
        assert (each.name in found[each.group]) != (f"{each.group}: {each.name}" in found["left_out"])
    assert found["seconds"] < 10
    assert report["benchmark"]["card"].startswith(report["device"])
    assert report["emulated"] == report["benchmark"]["emulated"] == (report["device"] == EMULATED)
    assert ("no time here is a GPU's" in out) == report["emulated"]
    assert "passed, 0 failed" in out


@pytest.mark.usefixtures("small", "with_cupy")
@pytest.mark.parametrize("fails", [False, True])
def test_ci_gpu_prints_the_probe_alone_on_cupy(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fails: bool
) -> None:
    def take(clock: Clock) -> float:
        if fails:
            raise RuntimeError("the card fell out")
        return 12345.6

    monkeypatch.setattr(probe, "everything", lambda: [Measurement("x_us", "one", take)])
    monkeypatch.setattr(sys, "argv", ["ci/gpu", "--probe"])
    assert command.main() == int(fails)
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert "passed" not in report
    if fails:
        assert report["probe"]["failed"] == {"x_us: one": "RuntimeError: the card fell out"}
        assert "ci/gpu: FAILED: x_us: one: RuntimeError: the card fell out" in err
    else:
        assert report["probe"]["x_us"] == {"one": 12350.0}
        assert "FAILED" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "REPORT is needed, the JSON file to write"), (["no/such/report.json"], "in a folder that exists")],
)
def test_ci_gpu_refuses_before_anything_takes_long(
    command: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ci/gpu", *arguments])
    with pytest.raises(SystemExit):
        command.main()
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("usage: ci/gpu [--seconds S] REPORT | ci/gpu --probe [--seconds S] [REPORT]\n")
