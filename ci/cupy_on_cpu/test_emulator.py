"""The emulated device computes as CUDA's manual has it, and stops what a card might let pass.

These need the environment that ci/emulate makes, and run there alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import pytest

from cupy_on_cpu.emulator import allocations_fail, counting

BLOCK = 256
SEEDS = range(4)


def kernel(text: str, name: str = "k") -> Any:
    """The kernel of that name in this text, which needs no extern "C" of its own."""
    return cupy.RawKernel(f'extern "C" {{ {text} }}', name)


def after(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """What a new process said: a kernel that fails leaves its process without a device, as on a card."""
    head = "import cupy, numpy\nfrom cupy_on_cpu.test_emulator import *\n"
    if (
        "EMULATOR_DEFER" not in settings
    ):  # a pool's arrays aren't guarded, and without one all that is freed waits
        head += "cupy.cuda.set_allocator(None)\n"
    path = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, **settings}
    command = [sys.executable, "-c", head + code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


# kernels


def test_a_block_shares_memory_between_barriers() -> None:
    total = kernel(
        """__global__ void k(const double* x, double* sums, int n) {
            extern __shared__ double part[];
            int i = threadIdx.x, at = blockIdx.x * blockDim.x + i;
            part[i] = at < n ? x[at] : 0;
            for (int half = blockDim.x / 2; half; half /= 2) {
                __syncthreads();
                if (i < half) part[i] += part[i + half];
            }
            if (i == 0) sums[blockIdx.x] = part[0];
        }"""
    )
    x = np.random.default_rng(0).random(1000)
    sums = cupy.zeros(4)
    total((4,), (BLOCK,), (cupy.asarray(x), sums, np.int32(1000)), shared_mem=8 * BLOCK)
    parts = [x[start : start + BLOCK].sum() for start in range(0, 1000, BLOCK)]
    np.testing.assert_allclose(sums.get(), parts, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "source"),
    [
        ("__shfl_sync(~0u, v, 3)", lambda i: 3),
        ("__shfl_sync(~0u, v, 9, 8)", lambda i: i // 8 * 8 + 1),
        ("__shfl_up_sync(~0u, v, 2)", lambda i: i - 2 if i >= 2 else i),
        ("__shfl_down_sync(~0u, v, 5)", lambda i: i + 5 if i < 27 else i),
        ("__shfl_down_sync(~0u, v, 5, 16)", lambda i: i + 5 if i % 16 < 11 else i),
        ("__shfl_xor_sync(~0u, v, 7)", lambda i: i ^ 7),
    ],
)
def test_a_warp_exchanges_values(call: str, source: Any) -> None:
    exchange = kernel(
        f"__global__ void k(double* y) {{ double v = 10 * threadIdx.x; y[threadIdx.x] = {call}; }}"
    )
    y = cupy.zeros(64)
    exchange((1,), (64,), (y,))
    assert y.get().tolist() == [10 * (i // 32 * 32 + source(i % 32)) for i in range(64)]


def test_a_warp_votes() -> None:
    vote = kernel(
        """__global__ void k(unsigned* y) {
            unsigned i = threadIdx.x;
            unsigned odd = __ballot_sync(~0u, i % 2), any = __any_sync(~0u, i == 40), all = __all_sync(~0u, i < 32);
            if (i % 32 == 0) { y[i / 32 * 3] = odd; y[i / 32 * 3 + 1] = any; y[i / 32 * 3 + 2] = all; }
        }"""
    )
    y = cupy.zeros(6, "u4")
    vote((1,), (64,), (y,))
    assert y.get().tolist() == [0xAAAAAAAA, 0, 1, 0xAAAAAAAA, 1, 0]


def test_atomics_lose_nothing() -> None:
    count = kernel(
        """__global__ void k(int* n, double* sum, int* most, int* swapped) {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            atomicAdd(n, 1);
            atomicAdd(sum, 0.5);
            atomicMax(most, i);
            atomicCAS(swapped, i, i + 1);
        }"""
    )
    n, total, most, swapped = cupy.zeros(1, "i4"), cupy.zeros(1), cupy.zeros(1, "i4"), cupy.zeros(1, "i4")
    count((7,), (100,), (n, total, most, swapped))
    assert (int(n[0]), float(total[0]), int(most[0])) == (700, 350.0, 699)
    assert int(swapped[0]) >= 1


def test_templates_and_variables_of_a_module() -> None:
    module = cupy.RawModule(
        code="""__device__ int calls;
        template<class T> __global__ void twice(T* y) { y[threadIdx.x] *= 2; atomicAdd(&calls, 1); }
        extern "C" __global__ void count(int* n) { *n = calls; }""",
        name_expressions=["twice<float>", "twice<double>"],
    )
    for name, dtype in (("twice<float>", "f4"), ("twice<double>", "f8")):
        y = cupy.arange(5, dtype=dtype)
        module.get_function(name)((1,), (5,), (y,))
        assert y.get().tolist() == [0, 2, 4, 6, 8]
    n = cupy.zeros(1, "i4")
    module.get_function("count")((1,), (1,), (n,))
    assert int(n[0]) == 10


def test_text_that_does_not_compile_is_refused_by_the_compiler() -> None:
    with pytest.raises(cupy.cuda.compiler.CompileException, match="nowhere"):
        kernel("__global__ void k() { int x = nowhere; }")((1,), (1,), ())


@pytest.mark.parametrize(
    ("before", "statements", "complaint"),
    [
        ("#include <vector>", "std::vector<int> all(3); n[0] = all[0]", 'open source file "vector"'),
        ("", "int all[n[0]]; all[0] = 1; n[0] = all[0]", "expression must have a constant value"),
        ("", "if (n[0]) throw 1", "exception handling"),
        ("", "__shared__ int all[20000]; all[n[0]] = 1; n[0] = all[n[1]]", "uses too much shared data"),
    ],
)
def test_text_that_only_nvidias_compiler_refuses(before: str, statements: str, complaint: str) -> None:
    text = f'{before}\nextern "C" __global__ void k(int* n) {{ {statements}; }}'
    # left out, it is compiled, but no run with it takes that from the cache
    left_out = after(f"cupy.RawModule(code={text!r}).compile()", EMULATOR_NVRTC="0")
    assert left_out.returncode == 0, left_out.stderr
    with pytest.raises(cupy.cuda.compiler.CompileException) as refusal:
        cupy.RawModule(code=text).compile()
    assert "NVIDIA's NVRTC 13.0 refuses for sm_80 what the host's compiler takes" in str(refusal.value)
    assert complaint in str(refusal.value)


def test_nvidias_compiler_takes_the_step_of_every_optimizer(tmp_path: Path) -> None:
    done = after(
        """
from cupy.cuda import compiler, nvrtc
import gpubp

class Program(compiler._NVRTCProgram):
    def compile(self, *options):
        made = super().compile(*options)
        log = nvrtc.getProgramLog(self.ptr)
        if "gpubp_update" in self.src:
            print(*[f"takes it for {sm}" in log for sm in ("sm_80", "sm_90")])
        return made

compiler._NVRTCProgram = Program
w = cupy.zeros(8)
for optimizer in (gpubp.SGD, gpubp.Momentum, gpubp.Nesterov, gpubp.RMSprop, gpubp.Adam):
    optimizer().step(w, w, optimizer().init(w), overwrite=True)
""",
        CUPY_CACHE_DIR=str(tmp_path),
    )
    assert done.stdout == 5 * "True True\n", done.stderr


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((1,), (1025,), 0), ((1,), (32, 64), 0), ((1, 65536), (1,), 0), ((1,), (1,), 49153)],
)
def test_a_launch_that_no_card_takes_is_refused(grid: Any, block: Any, shared: int) -> None:
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="INVALID_VALUE"):
        kernel("__global__ void k() {}")(grid, block, (), shared_mem=shared)


def test_more_shared_memory_must_be_asked_for() -> None:
    found = kernel("__global__ void k(int* n) { extern __shared__ int a[]; a[19999] = 7; n[0] = a[19999]; }")
    n = cupy.zeros(1, "i4")
    found.max_dynamic_shared_size_bytes = 80_000
    found((1,), (1,), (n,), shared_mem=80_000)
    assert int(n[0]) == 7


# what is found

MISSING_BARRIER = """
reverse = kernel('''__global__ void k(double* x) {
    __shared__ double all[64];
    all[threadIdx.x] = x[threadIdx.x];
    %s
    x[threadIdx.x] = all[63 - threadIdx.x];
}''')
x = cupy.arange(64.0)
reverse((1,), (64,), (x,))
print(int((x == cupy.arange(63, -1, -1)).sum()))
"""


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffle"])
def test_a_missing_barrier_shows(order: str) -> None:
    right = after(MISSING_BARRIER % "__syncthreads();", EMULATOR_ORDER=order)
    assert right.stdout == "64\n", right.stderr
    wrong = after(MISSING_BARRIER % "", EMULATOR_ORDER=order)
    assert int(wrong.stdout) < 64


def test_the_order_finds_a_barrier_that_one_order_hides() -> None:
    code = """
    neighbour = kernel('''__global__ void k(double* x) {
        __shared__ double all[64];
        int i = threadIdx.x;
        all[i] = x[i];
        x[i] = i ? all[i - 1] : 0;
    }''')
    x = cupy.arange(1.0, 65)
    neighbour((1,), (64,), (x,))
    print(bool((x == cupy.arange(64)).all()))
    """.replace("\n    ", "\n")
    assert after(code, EMULATOR_ORDER="forward").stdout == "True\n"
    assert after(code, EMULATOR_ORDER="reverse").stdout == "False\n"


def test_threads_that_wait_at_different_places_end_the_kernel() -> None:
    done = after(
        "lost = kernel('__global__ void lost() { if (threadIdx.x) __syncthreads(); else __syncwarp(); }', 'lost')\n"
        "lost((1,), (64,), ())\n"
        "cupy.cuda.Device().synchronize()"
    )
    assert "kernel lost has threads of a block that wait at different places" in done.stderr
    assert "cudaErrorLaunchFailure" in done.stderr


def test_memory_that_nobody_wrote_is_nan() -> None:
    assert after("print(bool(cupy.isnan(cupy.empty(1000)).all()))").stdout == "True\n"


@pytest.mark.parametrize("shared", ["__shared__ float a[8]", "extern __shared__ float a[]"])
def test_shared_memory_that_nobody_wrote_is_nan_in_each_block(shared: str) -> None:
    spoil = kernel(f"__global__ void k(float* y) {{ {shared}; y[blockIdx.x] = a[3]; a[3] = 1; }}")
    y = cupy.zeros(3, "f4")
    spoil((3,), (1,), (y,), shared_mem=32)
    assert np.isnan(y.get()).all()


@pytest.mark.parametrize("access", ["x[n] = 1", "x[0] = x[n + 5]"])
def test_a_kernel_that_leaves_its_array_stops_with_its_name(access: str) -> None:
    done = after(
        f"stray = kernel('__global__ void stray(double* x, int n) {{ {access}; }}', 'stray')\n"
        "x = cupy.zeros(512)\n"
        "stray((1,), (1,), (x, numpy.int32(512)))\n"
        "try:\n    cupy.cuda.Device().synchronize()\nexcept cupy.cuda.runtime.CUDARuntimeError as error:\n"
        "    print(error)\n"
        "cupy.zeros(1)\n"
    )
    assert "kernel stray touches memory behind an allocation" in done.stderr
    assert "cudaErrorIllegalAddress: an illegal memory access was encountered" in done.stdout
    assert done.returncode != 0  # and nothing is computed any more
    assert done.stderr.rstrip().endswith("an illegal memory access was encountered")


def test_writing_into_what_the_alignment_leaves_shows_when_it_is_freed() -> None:
    done = after(
        "stray = kernel('__global__ void stray(double* x, int n) { x[n] = 1; }', 'stray')\n"
        "x = cupy.zeros(3)\n"
        "stray((1,), (1,), (x, numpy.int32(3)))\n"
        "del x\n"
        "cupy.cuda.Device().synchronize()\n"
    )
    assert "something wrote behind an allocation of 24 bytes" in done.stderr
    assert done.returncode != 0


def test_memory_that_was_freed_is_closed() -> None:
    done = after(
        "late = kernel('__global__ void late(double* x) { x[0] = 1; }', 'late')\n"
        "x = cupy.zeros(512)\n"
        "start = x.data.ptr\n"
        "del x\n"
        "late((1,), (1,), (numpy.uintp(start),))\n"
        "cupy.cuda.Device().synchronize()\n"
    )
    assert "kernel late touches memory that was freed" in done.stderr
    assert "cudaErrorIllegalAddress" in done.stderr


@pytest.mark.parametrize(
    "access", ["*(double*)(y + 4) = 1", "y[0] = ((float4*)(y + 8))->x", "*(int*)(y + 1) = 1"]
)
def test_a_misaligned_access_stops_the_kernel(access: str) -> None:
    done = after(
        f"odd = kernel('__global__ void odd(char* y) {{ {access}; }}', 'odd')\n"
        "y = cupy.zeros(64, 'i1')\n"
        "odd((1,), (1,), (y,))\n"
        "cupy.cuda.Device().synchronize()\n"
    )
    assert "kernel odd uses an address that isn't a multiple of its type's alignment" in done.stderr
    assert "cudaErrorMisalignedAddress" in done.stderr


def test_null_is_no_memory_of_the_device() -> None:
    done = after(
        "kernel('__global__ void k(double* x) { x[0] = 1; }')((1,), (1,), (numpy.uintp(0),))\n"
        "cupy.cuda.Device().synchronize()\n"
    )
    assert "kernel k touches memory that isn't the device's" in done.stderr


def test_a_call_that_is_missing_says_its_name_and_fails() -> None:
    done = after("cupy.linalg.solve(cupy.eye(3), cupy.ones(3))")
    assert done.returncode != 0
    assert "CuPy on the CPU: cusolverDnCreate is not emulated" in done.stderr
    with pytest.raises(NotImplementedError, match="are not emulated: draw with NumPy"):
        cupy.random.default_rng(0)


# memory, streams, graphs


def test_memory_runs_out() -> None:
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.empty(1 << 40)
    free, total = cupy.cuda.Device().mem_info
    assert 0 < free <= total == 4 << 30
    small = after(
        "cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)\n"
        "x = cupy.empty(200, 'u1')\n"
        "try:\n    cupy.empty(1000, 'u1')\nexcept MemoryError:\n    print('out')",
        EMULATOR_BYTES="1000",
    )
    assert small.stdout == "out\n"


def test_several_devices_keep_their_own_count() -> None:
    done = after(
        "with cupy.cuda.Device(1):\n    x = cupy.zeros(1 << 20)\n    one = cupy.cuda.Device().mem_info[0]\n"
        "print(x.device.id, cupy.cuda.Device(0).mem_info[0] - one)",
        EMULATOR_DEVICES="2",
    )
    assert done.stdout == f"1 {8 << 20}\n", done.stderr


def test_no_device_where_none_is_visible() -> None:
    done = after("print(cupy.cuda.is_available())", CUDA_VISIBLE_DEVICES="")
    assert "True" not in done.stdout


def test_a_copy_must_stay_in_its_array() -> None:
    x = cupy.zeros(1 << 20)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidValue"):
        cupy.cuda.runtime.memcpy(x.data.ptr, np.zeros(1 << 21).ctypes.data, 16 << 30, 1)


def test_a_graph_holds_work_until_it_is_launched() -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    x = cupy.zeros(8)
    x += 1
    x -= 1
    with stream:
        stream.begin_capture()
        x += 1
        graph = stream.end_capture()
    assert float(x[0]) == 0
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    assert x.get().tolist() == [3.0] * 8


def test_a_capture_that_synchronises_is_lost() -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            stream.synchronize()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
    stream.synchronize()


def test_events_tell_time() -> None:
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    cupy.zeros(100).sum()
    end.record()
    end.synchronize()
    assert cupy.cuda.get_elapsed_time(start, end) > 0


# work that waits


def deferred(code: str, seed: int) -> str:
    done = after(code, EMULATOR_DEFER=str(seed), EMULATOR_DEVICES="2")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PINNED = """
memory = cupy.cuda.alloc_pinned_memory(8000)
host = numpy.frombuffer(memory, numpy.float64, 1000)
host[:] = 5
x, stream = cupy.ones(1000), cupy.cuda.Stream(non_blocking=True)
cupy.cuda.Device().synchronize()
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_result_is_not_there_before_somebody_waits(seed: int) -> None:
    code = PINNED + (
        "x.data.copy_to_host_async(memory.ptr, 8000, stream)\n"
        "print(host[0], end=' ')\n"
        "stream.synchronize()\n"
        "print(host[0])"
    )
    assert deferred(code, seed) == "5.0 1.0"
    assert after(code).stdout == "1.0 1.0\n"  # where work is done at once


def test_a_pinned_buffer_that_is_written_too_early_shows() -> None:
    code = PINNED + (
        "x.data.copy_from_host_async(memory.ptr, 8000, stream)\n%s\n"
        "host[:] = 7\n"
        "stream.synchronize()\n"
        "print(float(x[0]))"
    )
    assert deferred(code % "", 0) == "7.0"
    assert deferred(code % "stream.synchronize()", 0) == "5.0"


def test_pageable_memory_may_be_written_at_once() -> None:
    code = PINNED + (
        "pageable = numpy.full(1000, 3.0)\n"
        "x.data.copy_from_host_async(pageable.ctypes.data, 8000, stream)\n"
        "pageable[:] = 4\n"
        "stream.synchronize()\n"
        "print(float(x[0]))"
    )
    assert deferred(code, 0) == "3.0"


@pytest.mark.parametrize("kind", ["non_blocking=True", "non_blocking=False"])
def test_a_stream_that_waits_for_no_other_shows(kind: str) -> None:
    code = (
        f"one, other = cupy.cuda.Stream({kind}), cupy.cuda.Stream({kind})\n"
        "with one:\n    x = cupy.ones(10)\n"
        "cupy.cuda.Device().synchronize()\n"
        "with one:\n    x += 1\n    made = one.record()\n"
        "%s\n"
        "with other:\n    y = x * 10\n"
        "other.synchronize()\n"
        "print(float(y[0]))"
    )
    assert {deferred(code % "other.wait_event(made)", seed) for seed in SEEDS} == {"20.0"}
    assert {deferred(code % "one.synchronize()", seed) for seed in SEEDS} == {"20.0"}
    assert {deferred(code % "", seed) for seed in SEEDS} == {"10.0", "20.0"}


@pytest.mark.parametrize(("kind", "seen"), [("False", {"2.0"}), ("True", {"1.0", "2.0"})])
def test_the_legacy_stream_waits_for_blocking_streams_alone(kind: str, seen: set[str]) -> None:
    code = (
        f"stream = cupy.cuda.Stream(non_blocking={kind})\n"
        "x = cupy.ones(10)\n"
        "cupy.cuda.Device().synchronize()\n"
        "with stream:\n    x += 1\n"
        "y = x.copy()\n"
        "cupy.cuda.Stream.null.synchronize()\n"
        "print(float(y[0]))"
    )
    assert {deferred(code, seed) for seed in SEEDS} == seen


def test_what_is_done_can_be_asked_for() -> None:
    code = (
        "stream = cupy.cuda.Stream(non_blocking=True)\n"
        "cupy.ones(10).sum()\n"
        "cupy.cuda.Device().synchronize()\n"
        "with stream:\n    x = cupy.ones(10)\n    for _ in range(9): x += 1\n    end = stream.record()\n"
        "asked = [end.done]\n"
        "while not end.done: asked.append(False)\n"
        "print(asked.count(False) > 3, stream.done)"
    )
    assert deferred(code, 3) == "True True"


def test_a_stream_that_is_destroyed_still_does_its_work() -> None:
    code = (
        "stream = cupy.cuda.Stream()\n"
        "x = cupy.ones(10)\n"
        "with stream:\n    x += 1\n"
        "del stream\n"
        "print(float(x[0]))"
    )
    assert deferred(code, 0) == "2.0"


def test_a_failed_kernel_shows_where_somebody_waits() -> None:
    code = (
        "kernel('__global__ void stray(double* x) { x[1 << 20] = 1; }', 'stray')((1,), (1,), (cupy.zeros(8),))\n"
        "print('launched')\n"
        "try:\n    cupy.cuda.Device().synchronize()\nexcept cupy.cuda.runtime.CUDARuntimeError as error:\n"
        "    print(type(error).__name__)"
    )
    done = after(code, EMULATOR_DEFER="1")
    assert done.stdout.split() == ["launched", "CUDARuntimeError"]


# several devices


def test_a_kernel_reaches_no_other_devices_memory() -> None:
    done = after(
        "with cupy.cuda.Device(1):\n    x = cupy.zeros(8)\n"
        "kernel('__global__ void far(double* x) { x[0] = 1; }', 'far')((1,), (1,), (x,))\n"
        "cupy.cuda.Device().synchronize()",
        EMULATOR_DEVICES="2",
    )
    assert "kernel far touches memory of device 1" in done.stderr
    assert "cudaErrorIllegalAddress" in done.stderr


def test_a_launch_in_another_devices_stream_is_refused() -> None:
    done = after(
        "with cupy.cuda.Device(1):\n    stream = cupy.cuda.Stream()\n"
        "kernel('__global__ void k() { }')((1,), (1,), (), stream=stream)",
        EMULATOR_DEVICES="2",
    )
    assert "CUDA_ERROR_INVALID_HANDLE" in done.stderr


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_between_devices_waits_for_its_stream(seed: int) -> None:
    code = (
        "with cupy.cuda.Device(1):\n    x = cupy.ones(8)\n    x += 1\n    cupy.cuda.Device().synchronize()\n"
        "y = cupy.asarray(x)\n"
        "y *= 2\n"
        "print(y.device.id, float(y[0]))"
    )
    assert deferred(code, seed) == "0 4.0"


def test_a_product_beyond_its_matrix_is_stopped() -> None:
    done = after(
        "from cupy_backends.cuda.libs import cublas\n"
        "x, one = cupy.zeros((8, 8)), numpy.ones(1).ctypes.data\n"
        "handle, at = cupy.cuda.device.get_cublas_handle(), x.data.ptr\n"
        "cublas.dgemm(handle, 0, 0, 8, 8, 9, one, at, 8, at, 9, one, at, 8)\n"
        "cupy.cuda.Device().synchronize()"
    )
    assert "a product touches memory beyond an allocation" in done.stderr
    assert "cudaErrorIllegalAddress" in done.stderr


# counts, and allocations that fail


def test_what_is_asked_for_is_counted() -> None:
    a = np.ones((16, 16))
    x = cupy.asarray(a)
    x @ x, x * 2, x.get()
    with counting() as (times, sizes):
        y = cupy.asarray(a)
        y @ y
        y *= 2
        y *= 2
        y.get()
    launches = {name: often for name, often in times.items() if name.startswith("launch")}
    assert launches == {"launch cupy_multiply__float64_float_float64": 2}
    assert times["product"] == 1
    assert (times["copy host to device"], sizes["copy host to device"]) == (1, 2048)
    assert (times["copy device to host"], sizes["copy device to host"]) == (1, 2048)
    assert times["synchronise copy"] == 1
    assert times["allocate"] == 0  # all from the pool


@pytest.mark.parametrize("many", [1, 2, None])
def test_allocations_fail_when_they_are_told_to(many: int | None) -> None:
    def fails() -> bool:
        try:
            cupy.cuda.runtime.free(cupy.cuda.runtime.malloc(512))
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return "out of memory" in str(error)
        return False

    with allocations_fail(3, many):
        failed = [k for k in range(6) if fails()]
    assert failed == [2, 3, 4, 5][: many or 4]
    assert not fails()


# products


@pytest.mark.parametrize(
    ("dtype", "rtol"), [("f2", 1e-2), ("f4", 1e-5), ("f8", 1e-13), ("c8", 1e-5), ("c16", 1e-13)]
)
def test_products_of_every_type(dtype: str, rtol: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((37, 53)).astype(dtype), rng.random((53, 29)).astype(dtype)
    if a.dtype.kind == "c":
        a = a + 1j * a[::-1]
    x, y = cupy.asarray(a), cupy.asarray(b)
    out = cupy.empty((37, 29), dtype)
    cupy.matmul(x, y, out=out)
    pairs = [(out, a @ b), (x @ y[:, 0], a @ b[:, 0]), (x.T @ x, a.T @ a), (x[0] @ x[1], a[0] @ a[1])]
    batch = np.stack([a, a + 1])
    pairs.append((cupy.asarray(batch) @ y, batch @ b))
    for found, expected in pairs:
        np.testing.assert_allclose(found.get(), expected, rtol=rtol)


def test_sums_and_sorting_agree_with_numpy() -> None:
    a = np.random.default_rng(2).standard_normal((37, 53))
    x = cupy.asarray(a)
    for axis in (None, 0, 1):
        for name in ("sum", "prod", "max", "argmin", "mean", "var", "cumsum"):
            found = getattr(cupy, name)(x, axis=axis).get()
            np.testing.assert_allclose(found, getattr(np, name)(a, axis=axis), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(cupy.argsort(x, axis=1).get(), np.argsort(a, axis=1))
    np.testing.assert_array_equal(cupy.sort(x).get(), np.sort(a))
