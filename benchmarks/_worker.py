"""A library's own process, and the rope to it: one JSON object a line, a request in, an answer out.

``python -m benchmarks._worker NAME`` serves requests; ``Worker`` is the side that asks.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks._libraries import EVERY, ROOT, fast_extra

__all__ = ["Failed", "Worker", "environment", "steering"]

LIMIT = 300.0  # seconds for one answer
_OURS = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
_GPU_OURS = {  # JAX would take most of the card's memory at once
    "CUPY_TF32": "0",
    "JAX_PLATFORMS": "cuda",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
_STEERING = (
    "ATEN_",
    "BLIS_",
    "CUPY_ACCELERATORS",
    "CUPY_TF32",
    "DNNL_",
    "GOTO_",
    "JAX_",
    "KMP_",
    "MKL_",
    "NPY_",
    "NVIDIA_TF32_",
    "NVPL_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "TORCH_ALLOW_",
    "VECLIB_",
    "XLA_",
)


class Failed(Exception):
    """A library's process answered with an error, ended, or took too long."""


def steering() -> list[str]:
    """The variables of this environment that set threads or kernels of one library and not of another."""
    return sorted(name for name in os.environ if name.startswith(_STEERING) and name not in _OURS)


def environment(device: str = "cpu", precision: str = "float32") -> dict[str, str]:
    """That of a library's process: every library as it comes, without a GPU unless it is the device, and silent."""
    ours = _OURS if device == "cpu" else _GPU_OURS | {"CUPY_TF32": "1" if precision == "tf32" else "0"}
    return {name: value for name, value in os.environ.items() if name not in steering()} | ours


class Worker:
    """The process of one library, which computes on one device in one precision; a context manager that ends it."""

    def __init__(self, name: str, device: str = "cpu", precision: str = "float32") -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._worker", name, device],
            cwd=ROOT,
            env=environment(device, precision),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: str, **details: Any) -> Any:
        """The answer to ``request``.

        Raises
        ------
        Failed : with one line that says why
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(LIMIT, self._process.kill)
        watch.start()
        try:
            print(json.dumps({"request": request, **details}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            raise Failed(f"its process ended with {self._process.wait()}: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["answer"]

    def prepare(self, case: Any, precision: str, epsilon: float) -> None:
        """Load the data and run an epoch, so that everything is compiled and warm."""
        self.ask("prepare", case=asdict(case), precision=precision, epsilon=epsilon)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


class Server:
    """What a library's process can be asked for; each method is a request."""

    def __init__(self, name: str, device: str) -> None:
        self.library, self.device = EVERY[name], device
        hide(name)
        self.module: Any = import_module(self.library.module)
        self.trainer: Any = None

    def prepare(self, case: dict[str, Any], precision: str, epsilon: float) -> None:
        from benchmarks._cases import Case

        self.case = Case(**{**case, "hidden": tuple(case["hidden"])})
        self.trainer = None  # two don't fit on a card
        gc.collect()
        self.trainer = self.module.trainer(self.library.variant, self.case, precision, epsilon, self.device)
        self.trainer.run(1)

    def time(self) -> float:
        """Seconds a step, of an epoch that follows another one."""
        return float(self.trainer.run(2)) / self.case.steps

    def weights(self, path: str) -> float:
        """Save the weights after one epoch from the first ones; its mean cost."""
        import numpy as np

        w, cost = self.trainer.result()
        np.save(path, w)
        return float(cost)

    def about(self) -> dict[str, Any]:
        """Peak memory in bytes, and what can be seen of thread pools: threads, version, and the kernels chosen."""
        peak, pools = peak_bytes(), []
        try:
            from threadpoolctl import threadpool_info
        except ModuleNotFoundError:
            pass
        else:
            told = ("internal_api", "num_threads", "version", "architecture")
            pools = [{key: pool[key] for key in told if pool.get(key)} for pool in threadpool_info()]
        if hasattr(self.module, "threads"):
            pools.append({"internal_api": "torch", "num_threads": self.module.threads()})
        return {"peak_bytes": peak, "pools": pools}

    def prepare_predict(self, case: dict[str, Any], rows: int, path: str | None) -> None:
        import numpy as np

        from benchmarks._cases import Case

        case = {**case, "hidden": tuple(case["hidden"])}
        self.x = np.random.default_rng(2).random((rows, case["inputs"]), dtype=np.float32)
        self.predict = self.module.predictor(self.library.variant, Case(**case))
        for _ in range(3):
            q = self.predict(self.x)
        if path is not None:
            np.save(path, q[:1000])

    def time_predict(self, calls: int) -> float:
        """Seconds a call."""
        predict, x = self.predict, self.x
        start = time.perf_counter()
        for _ in range(calls):
            predict(x)
        return (time.perf_counter() - start) / calls


def hide(name: str) -> None:
    """Make what the ``fast`` extra brings impossible to import, as where it isn't installed."""
    if name == "gpubp-plain":
        for module in fast_extra():
            sys.modules[module] = None  # type: ignore[assignment]


def peak_bytes() -> int | None:
    """The most memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it started this process
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def serve(name: str, device: str) -> None:
    """Answer until the other side hangs up."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the library prints goes elsewhere
    server: Server | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            server = server or Server(name, device)
            answer = {"answer": getattr(server, request.pop("request"))(**request)}
        except Exception as error:  # a library that fails is left out, with its words
            first = (str(error).strip() or "no message").splitlines()[0]
            answer = {"error": f"{type(error).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)


def fit(name: str) -> None:
    """Import, build, and one epoch on the digits: the whole life of a process."""
    hide(name)
    module: Any = import_module(EVERY[name].module)
    import numpy as np

    with np.load(ROOT / "gpubp" / "data" / "digits.npz") as digits:
        # a multiple of the batch: no library meets a second shape to compile for
        x, labels = digits["images"][:1792].astype(np.float32), digits["labels"][:1792].astype(np.int64)
    module.fit(x / 16, labels, 128)


if __name__ == "__main__":
    if sys.argv[2:] == ["fit"]:
        fit(sys.argv[1])
    else:
        serve(*sys.argv[1:])
