"""Faults planted where CuPy's arrays are computed on and moved, one at a time: tests on the emulated device see each.

Each is a mistake that NumPy's half of the suite lets pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from planting import Fault, copied, planted

emulator = pytest.importorskip(
    "cupy_on_cpu.emulator", reason="these faults show on the emulated device alone: ci/emulate runs this"
)

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


class Seen(NamedTuple):
    """A fault, a test that sees it, and what that says: a regular expression."""

    fault: Fault
    test: str
    said: str

    def __str__(self) -> str:
        return str(self.fault)


def faults_in(module: str, *faults: tuple[str, str, str, str, str]) -> list[Seen]:
    return [Seen(Fault(module, right, wrong, what), test, said) for right, wrong, what, test, said in faults]


FAULTS = [
    *faults_in(
        "engines/__init__.py",
        (
            'xp.__name__ == "array_api_compat.cupy"',
            'xp.__name__ == "cupy"',
            "CuPy's arrays are given the generic engine",
            "engines.py::test_which_engine",
            "Generic'> is <class 'gpubp.engines.cupy.Cupy'>",
        ),
    ),
    *faults_in(
        "engines/cupy.py",
        (
            "place = like.device, None if cuda is None else cuda.get_current_stream().ptr",
            "place = like.device",
            "a row of ones that another stream is still writing is read",
            "cupy_streams.py::test_cupy_streams_in_turn_share_nothing_unwritten",
            "Mismatched elements: 4 / 4",
        ),
        (
            "place = like.device, None if",
            "place = None, None if",
            "a row of ones is another GPU's",
            "cupy_two_gpus.py::test_cupy_computes_where_the_arrays_are",
            "cudaErrorIllegalAddress",
        ),
        (
            "if B <= _KEPT_ROWS:",
            "if B > _KEPT_ROWS:",
            "a row of ones is written anew in each step",
            "cupy_counts.py::test_steps_are_launches_alone_on_cupy[20-64-3-{}-30-7]",
            r"assert \(128, 28\) == \(120, 28\)",
        ),
        (
            "total = self.library.matmul(ones, Delta, out=None if out is None else out[None, :])\n"
            "        return total[0] if out is None else out",
            "return self.library.add.reduce(Delta, axis=0, out=out)",
            "columns are summed by CuPy's own kernel",
            "cupy_counts.py::test_steps_are_launches_alone_on_cupy[20-64-3-{}-30-7]",
            r"assert \(128, 20\) == \(120, 28\)",
        ),
        (
            " and formula.__closure__ is None",
            "",
            "the kernel of a formula with a state of its own is kept",
            "kernel.py::test_a_formula_with_a_state_of_its_own_is_no_kernel_on_cupy",
            r"4\.0 \(ACTUAL\), 10\.0 \(DESIRED\)",
        ),
        (
            "len(types) == 1 and",
            "len(arrays) == 1 and",
            "an optimizer is several launches",
            "cupy_counts.py::test_an_optimizer_is_one_launch_on_cupy[sgd]",
            r"assert 0 == \(5 - 1\)",
        ),
        (
            "kernel(*arrays, *numbers, *out)",
            "kernel(*arrays, *numbers, *out, stream=self.library.cuda.Stream.null)",
            "an optimizer's kernel goes to the default stream",
            "cupy_streams.py::test_cupy_trains_on_the_current_stream",
            "the cost must stay finite, got NaN",
        ),
        (
            "                    return tuple(out)",
            "                    return tuple(arrays[: len(out)])",
            "what was read is given back in place of what was written",
            "engines.py::test_updates_in_blocks",
            "assert False",
        ),
        (
            "are_floats = tuple(isinstance(number, float) for number in numbers)",
            "are_floats = (True,) * len(numbers)",
            "numbers on the GPU count as Python's",
            "cupy_counts.py::test_steps_are_launches_alone_on_cupy[784-64-64-64-64-10-{'clip_norm': 1.0}-56-19]",
            "Type is mismatched. i1 float32 float64",
        ),
        (
            "are_floats = tuple(isinstance(number, float) for number in numbers)",
            "are_floats = (False,) * len(numbers)",
            "Python's numbers are rounded to float32",
            "optimizers.py::test_a_step_is_pure_unless_told",
            "Arrays are not equal",
        ),
        (
            "    def gather(",
            "    def buffer(self, shape: tuple[int, ...], like: Array) -> Array | None:\n"
            "        buffer, cuda = super().buffer(shape, like), getattr(self.library, 'cuda', None)\n"
            "        if cuda is None:\n"
            "            return buffer\n"
            "        key = shape, like.dtype, cuda.get_current_stream().ptr\n"
            "        return self._kept.__dict__.setdefault(key, buffer)\n\n"
            "    def gather(",
            "buffers are kept by stream and shape: out is what is still read",
            "training.py::test_weight_0_removes_and_weight_2_repeats",
            "Not equal to tolerance",
        ),
        (
            "    asynchronous = True",
            "    asynchronous = False",
            "nothing is drawn while the GPU works",
            "cupy_streams.py::test_cupys_next_order_is_drawn_before_costs_are_waited_for",
            "At index 1 diff: 'costs' != 'order'",
        ),
    ),
    *faults_in(
        "tracing/kernel.py",
        (
            "for k, index in enumerate(ends)",
            "for k, index in enumerate(sorted(ends))",
            "outputs are in the order of computing",
            "engines.py::test_updates_in_blocks",
            "Mismatched elements",
        ),
    ),
    *faults_in(
        "tracing/operations.py",
        (
            'cuda="({0} ? {1} : {2})"',
            'cuda="({0} ? {2} : {1})"',
            "a choice is made the other way round",
            "kernel.py::test_kernels_have_the_bits_of_cupys_own_operations",
            "nan location mismatch",
        ),
        (
            '"absolute", "fabs")',
            '"absolute", "fabsf")',
            "sizes are rounded to float32",
            "kernel.py::test_kernels_have_the_bits_of_cupys_own_operations",
            "Mismatched elements",
        ),
    ),
    *faults_in(
        "_devices.py",
        (
            "return array.device if array_api_compat.is_cupy_array(array) else _ANYWHERE",
            "return _ANYWHERE",
            "the current GPU computes, wherever the arrays are",
            "cupy_two_gpus.py::test_cupy_computes_where_the_arrays_are",
            r"resides \(1\) is different from the current device \(0\)",
        ),
        (
            "return _cuda_device(int(array.device.id))",
            "return _cuda_device(_cupy().cuda.runtime.getDevice())",
            "an array's GPU is taken to be the current one",
            "cupy_two_gpus.py::test_cupy_trains_on_the_gpu_that_was_named",
            "name: 'cuda:0' != 'cuda:1'",
        ),
        (
            "    with cupy.cuda.Device(target.native):\n",
            "    with cupy.cuda.Device():\n",
            "arrays are moved to the current GPU",
            "cupy_two_gpus.py::test_cupy_arrays_go_from_gpu_to_gpu",
            "name: 'cuda:0' != 'cuda:1'",
        ),
        (
            "        with array.device:\n            array = array if",
            "        with cupy.cuda.Device():\n            array = array if",
            "a copy waits for its own stream, not the array's",
            "cupy_two_gpus.py::test_cupy_waits_from_gpu_to_gpu",
            r"resides \(0\) is different from the current device \(1\)",
        ),
        (
            "        cupy.cuda.get_current_stream().wait_event(written)\n",
            "",
            "a copy to another GPU waits for nothing",
            "cupy_two_gpus.py::test_cupy_waits_from_gpu_to_gpu",
            "nan location mismatch",
        ),
        (
            "            cupy.cuda.get_current_stream().wait_event(read)\n",
            "            pass\n",
            "an array is written to while another GPU still copies it",
            "cupy_two_gpus.py::test_cupy_waits_until_another_gpu_has_copied",
            r"\(ACTUAL\), \d+\.0 \(DESIRED\)",
        ),
        (
            "array = array if array.flags.forc else cupy.ascontiguousarray(array)",
            "pass",
            "arrays with gaps are copied to another GPU as they are",
            "cupy_two_gpus.py::test_cupy_arrays_go_from_gpu_to_gpu",
            "cannot copy non-contiguous array between devices",
        ),
        (
            "return cupy.asarray(to_numpy(array))",
            "return to_numpy(array)",
            "NumPy's arrays stay on the host",
            "devices.py::test_cupy_on_the_gpu",
            "name: 'cuda:0' != 'cpu'",
        ),
        (
            "return cupy.asarray(to_numpy(array))",
            "with cupy.cuda.Stream.null:\n                return cupy.asarray(to_numpy(array))",
            "arrays go there on the default stream",
            "cupy_streams.py::test_cupys_orders_are_there_before_they_are_read",
            "Not equal to tolerance",
        ),
        (
            "return cupy.asarray(to_numpy(array))",
            "with cupy.cuda.Stream(non_blocking=True):\n                return cupy.asarray(to_numpy(array))",
            "arrays go there on a stream that nobody waits for",
            "cupy_streams.py::test_cupys_orders_are_there_before_they_are_read",
            "Not equal to tolerance",
        ),
        (
            "            return cupy.asarray(to_numpy(array))",
            "            try:\n"
            "                return cupy.asarray(to_numpy(array))\n"
            "            except MemoryError:\n"
            "                return to_numpy(array)",
            "arrays stay on the host where memory runs out",
            "cupy_memory.py::test_cupy_arrays_that_find_no_memory",
            "DID NOT RAISE MemoryError",
        ),
        (
            "            return cupy.asarray(to_numpy(array))",
            "            host = np.ascontiguousarray(to_numpy(array))\n"
            "            pinned = cupy.cuda.alloc_pinned_memory(host.nbytes)\n"
            "            np.frombuffer(pinned, host.dtype, host.size)[...] = host.ravel()\n"
            "            there = cupy.empty(host.shape, host.dtype)\n"
            "            there.data.copy_from_host_async(pinned.ptr, host.nbytes)\n"
            "            return there",
            "pinned memory is freed before its copy is done",
            "training.py::test_penalties_and_clipping",
            "Not equal to tolerance",
        ),
        (
            "            return array.get()",
            "            pinned = importlib.import_module('cupyx').empty_pinned(array.shape, array.dtype)\n"
            "            return array.get(out=pinned, blocking=False)",
            "arrays come to the host's pinned memory without a wait",
            "devices.py::test_cupy_on_the_gpu",
            "Not equal to tolerance|Arrays are not equal",
        ),
        (
            "            return array.get()",
            "            return array.get(stream=_cupy().cuda.Stream.null)",
            "arrays come to the host by the default stream",
            "cupy_streams.py::test_put_copies_before_the_host_writes_again",
            "nan location mismatch",
        ),
        (
            "        with array.device:  # on its own device's current stream\n            return array.get()",
            "        return array.get()",
            "arrays come to the host by the current GPU's stream",
            "cupy_two_gpus.py::test_cupy_waits_for_the_stream_of_the_arrays_own_gpu",
            "nan location mismatch",
        ),
        (
            "return min(free, limit - int(pool.used_bytes())) if limit else free",
            "return free",
            "the limit of CuPy's pool isn't seen",
            "cupy_memory.py::test_cupys_pool_with_a_limit",
            r"assert \d+ == \(\d+ - \d+\)",
        ),
        (
            " + int(pool.free_bytes())",
            "",
            "what CuPy's pool has over doesn't count as free",
            "cupy_two_gpus.py::test_cupys_free_memory_is_each_gpus_own",
            r"where \d+ = free_bytes\(\)",
        ),
        (
            "with cupy.cuda.Device(self.native) as current:",
            "with cupy.cuda.Device() as current:",
            "the current GPU's free memory is told",
            "cupy_two_gpus.py::test_cupys_free_memory_is_each_gpus_own",
            "At index 1 diff",
        ),
        (
            "with cupy.cuda.Device(own):",
            "with cupy.cuda.Device():",
            "foreign arrays are taken by the current GPU",
            "cupy_exchange.py::test_foreign_arrays_of_another_gpu",
            "device=1",
        ),
        (
            "            return cupy.asarray(array)\n    return array",
            "            shared = cupy.asarray(array)\n"
            "            memory = cupy.cuda.UnownedMemory(shared.data.ptr, shared.nbytes, None)\n"
            "            start = cupy.cuda.MemoryPointer(memory, 0)\n"
            "            return cupy.ndarray(shared.shape, shared.dtype, start, shared.strides)\n"
            "    return array",
            "a foreign array's memory is freed before its last reader",
            "cupy_exchange.py::test_foreign_arrays_live_as_long_as_cupys_view",
            "weakref at .*; dead",
        ),
        (
            "_CUDA = (2, 13)",
            "_CUDA = (2,)",
            "managed memory counts as the host's",
            "cupy_exchange.py::test_managed_memory_is_cupys_too",
            "Unsupported dtype object",
        ),
        (
            'if library in ("numpy", "cupy"):',
            'if library == "numpy":',
            "a remedy that CuPy doesn't have",
            "cupy_two_gpus.py::test_cupy_arrays_of_two_gpus_are_refused",
            r"move it with cupy\.asarray\(x, device=w\.device\)",
        ),
        (
            "@cache\ndef _cuda_device",
            "def _cuda_device",
            "a GPU's properties are read in every epoch",
            "cupy_counts.py::test_an_epoch_moves_its_order_there_and_its_costs_back_on_cupy",
            "assert 1 == 0",
        ),
    ),
    *faults_in(
        "training/data.py",
        (
            "if isinstance(engine, Numpy) else array",
            "if type(engine) is Numpy else array",
            "rows on the GPU are read with strides",
            "data.py::test_rows_that_dont_follow_each_other_are_copied_once",
            "C_CONTIGUOUS : False",
        ),
        (
            "engine.library.ascontiguousarray(array)",
            "np.ascontiguousarray(array)",
            "NumPy's function is given CuPy's array",
            "data.py::test_rows_that_dont_follow_each_other_are_copied_once",
            "Implicit conversion to a NumPy array",
        ),
        (
            "    with at(array):\n        return engine.gather",
            "    with at(which):\n        return engine.gather",
            "rows are taken by the current GPU",
            "cupy_two_gpus.py::test_cupy_trains_on_the_gpu_that_was_named",
            r"resides \(1\) is different from the current device \(0\)",
        ),
        (
            "moved(y, target) if labels",
            "y if labels",
            "classes stay on their own GPU",
            "cupy_two_gpus.py::test_cupy_trains_on_the_gpu_that_was_named",
            "unexpected keyword argument 'mode'",
        ),
    ),
    *faults_in(
        "training/entry.py",
        (
            "    with target.current():\n",
            "    if True:\n",
            "training stays on the current GPU",
            "cupy_two_gpus.py::test_cupy_trains_on_the_gpu_that_was_named",
            r"resides \(1\) is different from the current device \(0\)",
        ),
    ),
    *faults_in(
        "_datasets.py",
        (
            "    with at(array):\n        bad = ~xp.isfinite(array)\n        found = bool(xp.any(bad))\n",
            "    bad = ~xp.isfinite(array)\n    found = bool(xp.any(bad))\n",
            "finite or not is found by the current GPU",
            "cupy_two_gpus.py::test_cupy_trains_on_arrays_of_both_gpus",
            r"resides \(0\) is different from the current device \(1\)",
        ),
    ),
    *faults_in(
        "training/loop.py",
        (
            "float(np.sum(self.on_host(costs))) / total",
            "sum(map(float, costs)) / total",
            "a validation waits for each of its parts",
            "cupy_counts.py::test_a_validation_in_parts_is_waited_for_once_on_cupy",
            "assert 6 == 3",
        ),
        (
            "if type(self.engine) is not Numpy and self.threads is None:",
            "if not isinstance(self.engine, Numpy) and self.threads is None:",
            "NumPy's threads are told of on CuPy",
            "cupy_streams.py::test_steps_on_cupy_are_neither_recorded_nor_told_of_numpys_threads",
            "products by 2 threads of BLAS",
        ),
    ),
    *faults_in(
        "training/descent.py",
        (
            "if type(self.engine) is not Numpy:",
            "if not isinstance(self.engine, Numpy):",
            "steps on CuPy are recorded as NumPy's",
            "cupy_streams.py::test_steps_on_cupy_are_neither_recorded_nor_told_of_numpys_threads",
            r"take\(\) takes at most 3 positional arguments",
        ),
    ),
    *faults_in(
        "_numerics.py",
        (
            "return xp.where(x > 0.0, 1.0, xp.where(x < 0.0, -1.0, x))",
            "return xp.sign(x)",
            "signs are waited for",
            "cupy_counts.py::test_an_absolute_errors_gradient_is_launches_alone_on_cupy",
            "'copy device to host'",
        ),
    ),
    *faults_in(
        "optimizers.py",
        (
            "        with at(w):\n            return State(0,",
            "        if True:\n            return State(0,",
            "an optimizer's state is on the current GPU",
            "cupy_two_gpus.py::test_cupy_keeps_an_optimizers_state_beside_the_weights",
            "name='cuda:0'",
        ),
    ),
]


def tried(package: Path, tests: set[str]) -> subprocess.CompletedProcess[str]:
    """Those tests' CuPy half up to the first failure, of the package there, on two GPUs whose work waits."""
    roots = [package.parent, TESTS.parent, TESTS.parent / "ci"]
    settings = {
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # half of the time
        "EMULATOR_DEFER": "1",
        "EMULATOR_DEVICES": "2",
    }
    options = [
        "-qx",
        "--tb=short",
        "-k",
        "cupy",
        "-p",
        "no:cacheprovider",
        "-c",
        str(TESTS.parent / "pyproject.toml"),
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *sorted(f"{TESTS}/test_{test}" for test in tests)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        cwd=package.parent,
        timeout=300,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not emulator.is_here():
        pytest.skip("these faults show on the emulated device alone: ci/emulate runs this")
    return copied(tmp_path_factory.mktemp("planted"))


def test_what_stands_is_right(copy: Path) -> None:
    tests = {seen.test for seen in FAULTS}
    done = tried(copy, tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= len(tests)
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("seen", FAULTS, ids=str)
def test_every_fault_is_seen(seen: Seen, copy: Path) -> None:
    with planted(seen.fault, copy):
        done = tried(copy, {seen.test})
    assert done.returncode == 1, done.stdout + done.stderr  # a test failed: none could not be collected
    assert "1 failed" in done.stdout
    told = [line for line in done.stdout.splitlines() if line.startswith("E ")]
    assert re.search(seen.said, "\n".join(told)), done.stdout
