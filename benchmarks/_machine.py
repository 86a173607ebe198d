"""What was measured, and where: processor, versions, and the bytes a library takes on disk."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks._libraries import ROOT

__all__ = ["about", "installed_bytes"]

_DISTRIBUTIONS = (
    "numpy",
    "numba",
    "scipy",
    "jax",
    "jaxlib",
    "torch",
    "triton",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "scikit-learn",
    "threadpoolctl",
)


def about() -> dict[str, Any]:
    """Date, processor, cores, versions, and how busy the machine is before the start."""
    import gpubp

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {
            "python": platform.python_version(),
            "gpubp": gpubp.__version__,
            **{name: found for name in _DISTRIBUTIONS if (found := _version(name)) is not None},
        },
    }


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Its name as the system gives it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        name = re.search(r"^model name\s*:\s*(.+)$", listing.read_text(encoding="utf-8"), re.MULTILINE)
        if name:
            return name[1]
    return platform.processor() or platform.machine()


def installed_bytes(requirements: Iterable[str], ours: bool) -> int:
    """The files of the distributions required and of all that they require, compiled ones left out; with the package
    folder of gpubp if it is ``ours``."""
    from packaging.requirements import Requirement

    waiting, seen, total = [Requirement(each) for each in requirements], set(), 0
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        files = [Path(str(file.locate())) for file in distribution.files or ()]
        total += _size(files)
        for line in distribution.requires or ():
            inner = Requirement(line)
            extras = {"", *requirement.extras}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(inner)
    return total + (_size((ROOT / "gpubp").rglob("*")) if ours else 0)


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
