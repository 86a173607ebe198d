"""What a GPU can do through CuPy, and what it costs the host: launches, products, sums, copies, memory, a step.

Units stand in the JSON's keys. A number is the median of samples. Those of the device lie between two CUDA events,
behind a kernel that keeps it busy until everything is queued, so that the host's cost isn't in them; where the host was
slower all the same, the measurement is listed under "host_bound". Those of the host are perf_counter's.

Each measurement has a share of the time given. It stops when that is used; what can't be done in it, as smaller sizes
show, is named under "left_out", and what raised an error under "failed", both with the reason.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from math import inf, prod
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

import gpubp
from benchmarks._cases import GPU_GRID
from benchmarks._sections import say
from gpubp.engines.cupy import Cupy
from gpubp.engines.numpy import Numpy

__all__ = ["Clock", "LeftOut", "Measurement", "everything", "measure"]

SAMPLES, SAMPLE_S, MOST_CALLS = 15, 2e-3, 200  # as many launches as a stream takes without waiting
LONGEST_SPIN_S = 0.02
SQUARES = (256, 1024, 4096, 8192)
COLUMNS = ((256, 64), (1024, 256), (4096, 1024), (8192, 4096))
COPIED_MIB = (1, 16, 256)
WEIGHTS = (1 << 16, 1 << 20, 1 << 24)
ADAM_BYTES = 28  # a weight: w, g, m, v are read, w, m, v written, in float32
NETWORKS, BATCHES = ((784, 100, 10), (784, 512, 512, 10)), (128, 1024)
STEPS, WARM_UP = 20, 3  # of an epoch of `train`; epochs before those that count


Sample = TypeVar("Sample")


class LeftOut(Exception):
    """The time doesn't suffice for a measurement, or the GPU has nothing to be measured."""


class Clock:
    """Times calls, until its share of the time is used."""

    def __init__(self) -> None:
        self.begin(inf)
        self._loops_a_second = 0.0
        self._busy: Callable[[int], Any]

    def begin(self, seconds: float) -> None:
        """A new share."""
        self.until = perf_counter() + seconds
        self.call_s, self.host_bound = 0.0, False  # of the last measurement

    def left(self) -> float:
        """Seconds of the share that are left; negative where it is used up."""
        return self.until - perf_counter()

    def host(self, call: Callable[[], Any]) -> float:
        """Seconds a call takes the host; what it leaves to the device is waited for outside."""
        calls = self._warm(call)

        def sample() -> float:
            start = perf_counter()
            for _ in range(calls):
                call()
            took = perf_counter() - start
            wait()
            return took / calls

        return statistics.median(self._samples(sample))

    def device(self, call: Callable[[], Any]) -> float:
        """Seconds a call takes the device."""
        import cupy

        calls = self._warm(call)
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        busy = 2 * min(self.call_s * calls, SAMPLE_S)

        def sample() -> tuple[float, bool]:
            nonlocal busy
            self._spin(busy)
            begin.record()
            for _ in range(calls):
                call()
            end.record()
            early = begin.done  # the device began before everything was queued
            end.synchronize()
            if early:
                busy = min(2 * busy, LONGEST_SPIN_S)
            return cupy.cuda.get_elapsed_time(begin, end) / 1e3 / calls, early

        samples = self._samples(sample)
        unhindered = [seconds for seconds, early in samples if not early]
        self.host_bound = not unhindered
        return statistics.median(unhindered or [seconds for seconds, _ in samples])

    def _warm(self, call: Callable[[], Any]) -> int:
        """Call it, so that everything is compiled and allocated, and tell how many calls make a sample."""
        call()
        wait()
        start = perf_counter()
        call()
        wait()
        self.call_s = perf_counter() - start
        return min(max(int(SAMPLE_S / self.call_s), 1), MOST_CALLS)

    def _samples(self, sample: Callable[[], Sample]) -> list[Sample]:
        taken = [sample()]
        while len(taken) < SAMPLES and self.left() > 0:
            taken.append(sample())
        return taken

    def _spin(self, seconds: float) -> None:
        """Keep the device busy, and don't wait for it."""
        import cupy

        if not self._loops_a_second:
            kernel = cupy.ElementwiseKernel(
                "int64 loops",
                "float32 x",
                "float s = 0; for (long long i = 0; i < loops; i++) s = s * 0.5f + 1.0f; x = s;",
                "gpubp_spin",
            )
            place = cupy.empty(1, dtype="float32")
            self._busy = lambda loops: kernel(loops, place)
            self._busy(1)
            wait()
            loops, took = 1000, 0.0
            while took < 1e-3:
                loops *= 4
                start = perf_counter()
                self._busy(loops)
                wait()
                took = perf_counter() - start
            self._loops_a_second = loops / took
        self._busy(int(seconds * self._loops_a_second))


def wait() -> None:
    """Until the device has done what the current stream holds."""
    import cupy

    cupy.cuda.get_current_stream().synchronize()


class Measurement(NamedTuple):
    """``take`` gives the number, in the unit that ``group`` ends with; ``work`` is what its time grows with among those
    of its group whose names begin alike, up to a comma."""

    group: str
    name: str
    take: Callable[[Clock], Any]
    work: float = 0.0
    weight: float = 1.0  # of its share of the time

    @property
    def series(self) -> tuple[str, str]:
        return self.group, self.name.partition(",")[0]


def measure(seconds: float, measurements: Sequence[Measurement] | None = None) -> dict[str, Any]:
    """What was measured in that time, by group and name."""
    import cupy

    measurements = list(everything() if measurements is None else measurements)
    start = perf_counter()
    clock, known = Clock(), dict[tuple[str, str], tuple[float, float]]()
    found: dict[str, Any] = {}
    left_out, failed, host_bound = dict[str, str](), dict[str, str](), list[str]()
    weight = sum(each.weight for each in measurements)
    for each in measurements:
        name = f"{each.group}: {each.name}"
        if each.group not in found:
            say(each.group)
            found[each.group] = {}
        share = (start + seconds - perf_counter()) * each.weight / weight
        weight -= each.weight
        clock.begin(share)
        try:
            foresee(each, known, share)
            cupy.get_default_memory_pool().free_all_blocks()
            found[each.group][each.name] = rounded(each.take(clock))
        except LeftOut as reason:
            left_out[name] = str(reason)
        except Exception as error:  # whatever CuPy raises: the rest can be measured all the same
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            if each.work:
                known[each.series] = each.work, clock.call_s
            if clock.host_bound:
                host_bound.append(name)
    outcome = {"left_out": left_out, "failed": failed, "host_bound": host_bound}
    return {"seconds": rounded(perf_counter() - start), **found, **outcome}


def foresee(each: Measurement, known: dict[tuple[str, str], tuple[float, float]], share: float) -> None:
    """Refuse what wouldn't come to an end in its share, going by the last one of its series."""
    if share <= 0:
        raise LeftOut("the time was over")
    work, call_s = known.get(each.series, (inf, 0.0))
    expected = 3 * call_s * each.work / work  # twice before a sample
    if expected > share:
        raise LeftOut(f"it would take some {expected:.2g} s, its share of the time was {share:.2g} s")


def rounded(value: Any) -> Any:
    """To four digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return float(f"{value:.4g}")


def everything() -> Iterator[Measurement]:
    """All measurements, in the order in which they are made."""
    yield from launches()
    yield from products()
    yield from column_sums()
    yield from copies()
    yield from allocations()
    yield from updates()
    yield from steps()
    yield from first_uses()


def launches() -> Iterator[Measurement]:
    """Of kernels too small to take time, and waiting for them."""
    for what, make in (("elementwise", elementwise), ("matmul of 32 x 32", small_product)):
        yield Measurement("launch_us", f"{what}, host", partial(host_us, make))
        yield Measurement("launch_us", f"{what}, device, back to back", partial(device_us, make))
    yield Measurement("synchronise_us", "nothing queued", partial(host_us, lambda: wait))
    yield Measurement("synchronise_us", "one launch", partial(host_us, launch_and_wait))


def host_us(make: Callable[[], Callable[[], Any]], clock: Clock) -> float:
    """Microseconds of the host in the call that ``make`` makes."""
    return 1e6 * clock.host(make())


def device_us(make: Callable[[], Callable[[], Any]], clock: Clock) -> float:
    """Microseconds of the device in the call that ``make`` makes."""
    return 1e6 * clock.device(make())


def elementwise() -> Callable[[], Any]:
    """A small kernel."""
    import cupy

    x = cupy.ones(32, dtype="float32")
    return lambda: cupy.add(x, x, out=x)


def small_product() -> Callable[[], Any]:
    """A small product."""
    import cupy

    x, out = cupy.ones((32, 32), dtype="float32"), cupy.empty((32, 32), dtype="float32")
    return lambda: cupy.matmul(x, x, out=out)


def launch_and_wait() -> Callable[[], Any]:
    """A small kernel, until it is done."""
    launch = elementwise()

    def call() -> None:
        launch()
        wait()

    return call


def products() -> Iterator[Measurement]:
    """Those of a layer, B rows from n_i to n_j nodes, as the library calls them: of the benchmark's networks, and
    square ones; written B x n_i x n_j."""
    pairs = dict.fromkeys((case.batch, *pair) for case in GPU_GRID[:-1] for pair in pairwise(case.sizes))
    layers = {
        "float32": list(pairs),
        "tf32": [sizes for sizes in pairs if sizes[1] == sizes[2]],
        "float64": [],
    }
    for precision, some in layers.items():
        wanted = [("q W'", (n, n, n)) for n in SQUARES]
        wanted += [(kind, sizes) for sizes in some for kind in ("q W'", "Delta W", "Delta' q")]
        for kind, sizes in sorted(wanted, key=lambda each: prod(each[1])):
            yield Measurement(
                "product_tflops",
                f"{precision}, {kind}, {' x '.join(map(str, sizes))}",
                partial(product_tflops, precision, kind, *sizes),
                prod(sizes),
            )


def product_tflops(precision: str, kind: str, B: int, n_i: int, n_j: int, clock: Clock) -> float:
    """10^12 floating-point operations a second in one product."""
    import cupy

    dtype = "float64" if precision == "float64" else "float32"
    # zeros would be multiplied faster, as they draw less power
    q, W, Delta = (cupy.random.random(shape, dtype=dtype) for shape in ((B, n_i), (n_j, n_i), (B, n_j)))
    left, right = {"q W'": (q, W.T), "Delta W": (Delta, W), "Delta' q": (Delta.T, q)}[kind]
    out = cupy.empty((left.shape[0], right.shape[1]), dtype=dtype)
    with computing("TF32" if precision == "tf32" else "DEFAULT"):
        return 2 * B * n_i * n_j / clock.device(lambda: cupy.matmul(left, right, out=out)) / 1e12


@contextmanager
def computing(compute_type: str) -> Iterator[None]:
    """Products of float32 in that one of CuPy's compute types, whatever CUPY_TF32 says."""
    import cupy
    from cupy._core import _routines_linalg as linalg

    dtype = cupy.dtype("float32")
    before, wanted = linalg.get_compute_type(dtype), getattr(linalg, f"COMPUTE_TYPE_{compute_type}")
    try:
        with warnings.catch_warnings(action="ignore"):  # it warns where the GPU has none, and takes another
            linalg.set_compute_type(dtype, wanted)
        if linalg.get_compute_type(dtype) != wanted:
            raise LeftOut(f"this GPU has no {compute_type}")
        yield
    finally:
        linalg.set_compute_type(dtype, before)


def column_sums() -> Iterator[Measurement]:
    """By CuPy's own sum, and by the engine's product with ones."""
    for name in ("sum(axis=0)", "ones @ Delta"):
        for shape in COLUMNS:
            sizes = " x ".join(map(str, shape))
            yield Measurement(
                "column_sums_us", f"{name}, {sizes}", partial(column_sums_us, name, shape), prod(shape)
            )


def column_sums_us(name: str, shape: tuple[int, int], clock: Clock) -> float:
    """Microseconds of the device."""
    import cupy

    Delta, out = cupy.random.random(shape, dtype="float32"), cupy.empty(shape[1], dtype="float32")
    if name == "ones @ Delta":
        return 1e6 * clock.device(partial(Cupy().sum_rows, Delta, out))
    return 1e6 * clock.device(lambda: Delta.sum(axis=0, out=out))


def copies() -> Iterator[Measurement]:
    """10^9 bytes copied a second, each to its end, and how long four bytes take to the host."""
    for kind in (
        "host to device, pageable",
        "host to device, pinned",
        "host to device, by cupy.asarray",
        "device to host, pageable",
        "device to host, pinned",
        "device to device",
    ):
        for mib in COPIED_MIB:
            name = f"{kind.replace(', ', ' ')}, {mib} MiB"
            yield Measurement("copy_gb_s", name, partial(copy_gb_s, kind, mib << 20), mib)
    yield Measurement("latency_us", "4 bytes, device to host", partial(host_us, four_bytes))


def copy_gb_s(kind: str, size: int, clock: Clock) -> float:
    """By the device's clock where the host has no part in it."""
    import cupy

    runtime, stream = cupy.cuda.runtime, cupy.cuda.get_current_stream().ptr
    direction, _, memory = kind.partition(", ")
    there = cupy.zeros(size, dtype="uint8")
    if direction == "device to device":
        other, device_to_device = cupy.zeros(size, dtype="uint8"), runtime.memcpyDeviceToDevice
        seconds = clock.device(
            lambda: runtime.memcpyAsync(other.data.ptr, there.data.ptr, size, device_to_device, stream)
        )
        return size / seconds / 1e9
    if memory == "pinned":
        host = np.frombuffer(cupy.cuda.alloc_pinned_memory(size), dtype="uint8", count=size)
    else:
        host = np.ones(size, dtype="uint8")

    def call() -> None:
        if memory == "by cupy.asarray":
            cupy.asarray(host)
        elif direction == "host to device":
            runtime.memcpyAsync(there.data.ptr, host.ctypes.data, size, runtime.memcpyHostToDevice, stream)
        else:
            runtime.memcpyAsync(host.ctypes.data, there.data.ptr, size, runtime.memcpyDeviceToHost, stream)
        wait()

    return size / clock.host(call) / 1e9


def four_bytes() -> Callable[[], Any]:
    """One number to the host."""
    import cupy

    item: Callable[[], Any] = cupy.ones(1, dtype="float32").item
    return item


def allocations() -> Iterator[Measurement]:
    """Of memory that is given back at once."""
    yield Measurement("allocation_us", "4 MiB from CuPy's pool", partial(host_us, from_pool))
    yield Measurement("allocation_us", "4 MiB by cudaMalloc and cudaFree", partial(host_us, from_cuda))


def from_pool() -> Callable[[], Any]:
    """An array as CuPy makes it."""
    import cupy

    return lambda: cupy.empty(1 << 20, dtype="float32")


def from_cuda() -> Callable[[], Any]:
    """The same memory without the pool."""
    import cupy

    runtime = cupy.cuda.runtime
    return lambda: runtime.free(runtime.malloc(4 << 20))


class Unfused(Cupy):
    """The engine as it would be without kernels of its own."""

    update = Numpy.update


def updates() -> Iterator[Measurement]:
    """Adam's steps as the engine computes them, and operation by operation."""
    for name, engine in (("one kernel", Cupy), ("operation by operation", Unfused)):
        for n in WEIGHTS:
            yield Measurement("adam_gb_s", f"{name}, {n} weights", partial(adam_gb_s, engine, n), n)


def adam_gb_s(engine: type[Cupy], n: int, clock: Clock) -> float:
    """10^9 bytes a second, of those that must be moved."""
    import cupy

    w, g, *slots = (cupy.ones(n, dtype="float32") for _ in range(4))
    descend = partial(gpubp.Adam().descend, engine(), w, g, slots, 1e-3, 1, overwrite=True)
    return ADAM_BYTES * n / clock.device(descend) / 1e9


def steps() -> Iterator[Measurement]:
    """A step of `train` on the GPU and on the CPU."""
    for device in ("cuda", "cpu"):
        for sizes in NETWORKS:
            for batch in BATCHES:
                yield Measurement(
                    "step_ms",
                    f"{device}, {'-'.join(map(str, sizes))}, batch {batch}",
                    partial(step_ms, device, sizes, batch),
                    batch * sum(m * n for m, n in pairwise(sizes)),
                    weight=2.0,
                )


def step_ms(device: str, sizes: tuple[int, ...], batch: int, clock: Clock) -> float:
    """In float32: gather the minibatch, gradient, Adam; the epoch ends synchronised. The median epoch's mean step."""

    def trained(steps: int, epochs: int) -> list[float]:
        random = np.random.default_rng(0)
        X = random.random((steps * batch, sizes[0]), dtype="float32")
        Y = random.integers(0, sizes[-1], len(X))
        run = gpubp.train(
            gpubp.Network(sizes, cost="cross_entropy"),
            X,
            Y,
            optimizer="adam",
            epochs=epochs,
            batch_size=batch,
            device=device,
            metric=None,
            progress=False,
        )
        return [seconds / steps for seconds in run.history["seconds"]]

    clock.call_s = trained(1, 2)[-1]
    epochs = min(int(clock.left() / (clock.call_s * STEPS)), WARM_UP + SAMPLES)
    if epochs <= WARM_UP:
        raise LeftOut(
            f"a step takes {clock.call_s:.2g} s, and {max(clock.left(), 0):.2g} s were left of its share"
        )
    return 1e3 * statistics.median(trained(STEPS, epochs)[WARM_UP:])


FIRST_USE = """
import sys
from time import perf_counter
start = perf_counter()
import cupy
imported = perf_counter()
x = cupy.empty(32, dtype="float32")
times = [perf_counter()]
for number in (1, 2):
    cupy.ElementwiseKernel("float32 x", "float32 y", f"y = x * {number}.0f + 1.0f", "gpubp_first_use")(x, x)
    cupy.cuda.get_current_stream().synchronize()
    times.append(perf_counter())
print(imported - start, times[0] - imported, times[1] - times[0], times[2] - times[1])
"""


def first_uses() -> Iterator[Measurement]:
    """What a process pays for CuPy and for its first two kernels; once each, as it is seconds."""
    for value in ("0", "1"):
        name = f"CUPY_NVRTC_USE_PCH={value}"
        yield Measurement("first_use_s", name, partial(first_use_s, value), weight=12.0)


def first_use_s(headers: str, clock: Clock) -> dict[str, dict[str, float]]:
    """Seconds of its parts, with an empty cache of kernels and with what the first process left there."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, "CUPY_CACHE_DIR": folder, "CUPY_NVRTC_USE_PCH": headers}
        for cache in ("empty cache", "filled cache"):
            command = [sys.executable, "-c", FIRST_USE]
            left = max(clock.left(), 0.0)
            try:
                done = subprocess.run(
                    command, env=settings, capture_output=True, text=True, timeout=left, check=False
                )
            except subprocess.TimeoutExpired:
                raise LeftOut(f"a process of two kernels took longer than {left:.2g} s") from None
            if done.returncode:
                raise RuntimeError((done.stderr.splitlines() or [f"it ended with {done.returncode}"])[-1])
            parts = ("import", "first array", "first kernel", "second kernel")
            found[cache] = dict(zip(parts, map(float, done.stdout.split()), strict=True))
    return found
