"""Make the CuPy of this Python's environment compute on the CPU:  python build.py CUPY_SDIST.tar.gz KEY

Of CuPy's wheel one module, its door to CUDA's runtime, is built anew from CuPy's own source, against a library that
isn't NVIDIA's; three that hold code for a card only are taken out. The rest stays as it was released.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SITE = Path(sysconfig.get_path("purelib"))
OURS = SITE / "cupy_on_cpu"  # where the libraries go
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
CXX = os.environ.get("EMULATOR_CXX") or "g++"
RUNTIME = "cupy_backends/cuda/api/runtime"

# as CuPy's own build has them
DIRECTIVES = {
    "embedsignature": True,
    "c_api_binop_methods": True,
    "binding": False,
    "freethreading_compatible": True,
    "warn.deprecated.IF": False,
}
CUDA_VERSION = 13020

# for kernels; the precompiled header must be made with the same
KERNEL_FLAGS = (
    "-O1 -fPIC -shared -w -fno-strict-aliasing -ffp-contract=off -fvisibility=hidden -fpermissive"
    " -fsanitize=alignment -fsanitize-undefined-trap-on-error"  # a card stops there, this CPU would go on
)
# what the libraries by NVIDIA's names answer where a call is missing: their "not supported"
NOT_SUPPORTED = {
    "libcudart.so.13": 801,
    "libcuda.so.1": 801,
    "libcufft.so.12": 16,
    "libcublas.so.13": 15,
    "libcublasLt.so.13": 15,
    "libcusparse.so.12": 10,
    "libcusolver.so.12": 9,
    "libnvrtc.so.13": 11,
}
STAND_INS = {
    "cupy/cuda/thrust": "thrust.py",
    "cupy/random/_generator_api": "_generator_api.py",
    "cupy/cuda/jitify": None,
}


def main() -> None:
    """Build everything into this environment."""
    sdist, key = Path(sys.argv[1]), sys.argv[2]
    shutil.rmtree(OURS, ignore_errors=True)
    OURS.mkdir()
    include = cuda_headers()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        runtime = runtime_object(sdist, include, work)
        move_nvrtc(include)
        emulated = device_library(include, key, work)
        kernel_headers(include)
        missing = libraries_by_name(runtime, emulated, work)
        link_runtime(runtime)
    replace_modules()
    # the kernels that CuPy takes from CUB are for a card only
    (SITE / "cupy_on_cpu.pth").write_text("import os; os.environ.setdefault('CUPY_ACCELERATORS', '')\n")
    size = sum(file.stat().st_size for file in OURS.rglob("*")) / 2**20
    print(
        f"CuPy computes on the CPU: {len(emulated)} calls are emulated, {missing} refuse; {size:.0f} MiB in {OURS}"
    )


def run(*command: object) -> None:
    """Run a tool; it must succeed."""
    subprocess.run([str(part) for part in command], check=True)


def symbols(files: list[Path], *options: str) -> set[str]:
    """The names that nm gives of these files, with their libraries where they have them."""
    command = ["nm", *options, *map(str, files)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[-1] for line in lines if line and not line.endswith(":")}


def cuda_headers() -> Path:
    """CUDA's own headers, from NVIDIA's wheels."""
    from cuda.pathfinder import find_nvidia_header_directory

    return Path(find_nvidia_header_directory("cudart"))


def move_nvrtc(include: Path) -> None:
    """Put NVIDIA's NVRTC where the emulated one asks it, and CuPy doesn't find it."""
    (OURS / "nvrtc").mkdir()
    for library in (include.parent / "lib").glob("libnvrtc*.so.*"):
        if ".alt." in library.name:  # a second build of it
            library.unlink()
        else:
            library.rename(OURS / "nvrtc" / f"{library.name.partition('.so')[0]}.so")


def runtime_object(sdist: Path, include: Path, work: Path) -> Path:
    """CuPy's door to the runtime, compiled from its source."""
    import Cython
    from Cython.Build import cythonize
    from setuptools import Extension

    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    (source,) = (path for path in work.iterdir() if path.is_dir())
    constants = {
        "CUPY_USE_CUDA_PYTHON": False,
        "CUPY_CUFFT_STATIC": False,
        "CUPY_CYTHON_VERSION": Cython.__version__,
        "CUPY_CUDA_VERSION": CUDA_VERSION,
        "CUPY_HIP_VERSION": 0,
    }
    before = Path.cwd()
    os.chdir(source)
    try:
        module = Extension(RUNTIME.replace("/", "."), [f"{RUNTIME}.pyx"], language="c++")
        cythonize(
            [module],
            language_level=3,
            quiet=True,
            compiler_directives=DIRECTIVES,
            compile_time_env=constants,
        )
    finally:
        os.chdir(before)
    flags = ["-O1", "-fPIC", "-std=c++17", "-fwrapv", "-DNDEBUG", "-w", '-DCYTHON_EXTERN_C=extern "C"']
    headers = [f"-I{include}", f"-I{sysconfig.get_path('include')}"]
    made = work / "runtime.o"
    run(CXX, *flags, *headers, "-c", source / f"{RUNTIME}.cpp", "-o", made)
    return made


def device_library(include: Path, key: str, work: Path) -> set[str]:
    """The emulated device; the calls that it has."""
    flags = ["-O2", "-g1", "-fPIC", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wno-parentheses"]
    macros = [f'-DEMULATOR_KEY="{key}"', f'-DKERNEL_FLAGS="{KERNEL_FLAGS}"']
    objects = []
    for source in sorted((HERE / "device").glob("*.cpp")):
        objects.append(work / f"{source.stem}.o")
        more = ["-O3", "-w"] if source.stem == "blas" else []
        run(CXX, *flags, *more, *macros, f"-I{include}", "-c", source, "-o", objects[-1])
    library = OURS / "libemulated.so"
    run(CXX, "-shared", *objects, "-o", library, "-Wl,-soname,libemulated.so", "-ldl", "-lpthread")
    return {name for name in symbols([library], "-D", "--defined-only") if re.match("cu|nvrtc", name)}


def kernel_headers(include: Path) -> None:
    """What kernels are compiled behind, and precompiled what CuPy puts before most of them."""
    for header in sorted((HERE / "kernel").glob("*.h")):
        shutil.copy(header, OURS)
    core = SITE / "cupy/_core/include"
    own = [f"-I{core}/cupy/_cccl/{part}" for part in ("cub", "thrust", "libcudacxx")] + [f"-I{core}"]
    header = OURS / "cupy.h"
    compiler = [CXX, "-x", "c++-header", *KERNEL_FLAGS.split(), "-std=gnu++17"]
    run(*compiler, *own, f"-I{include}", header, "-o", f"{header}.gch")


def libraries_by_name(runtime: Path, emulated: set[str], work: Path) -> int:
    """Libraries by NVIDIA's names; a call that is missing says its name and fails. How many are missing."""
    asked: dict[str, set[str]] = {name: set() for name in NOT_SUPPORTED}
    asked["libnvJitLink.so.13"] = set()
    for module in SITE.glob("cupy*/**/*.so"):
        for name in symbols([module], "-D", "--undefined-only"):
            known = re.fullmatch(r"(\w+)@(lib(?:cublas|cusolver|cusparse|curand|cufft|nvrtc)\.so\.\d+)", name)
            if known:
                asked.setdefault(known[2], set()).add(known[1])
    undefined = symbols([runtime], "--undefined-only")
    asked["libcudart.so.13"] = {name for name in undefined if re.match("cuda[A-Z]", name)}
    missing = {library: sorted(names - emulated) for library, names in asked.items()}
    for library, names in missing.items():
        status = NOT_SUPPORTED.get(library, 1)
        refusals = [
            f'int {name}() {{ fprintf(stderr, "CuPy on the CPU: {name} is not emulated\\n"); return {status}; }}'
            for name in names
        ]
        mark = f"int {re.sub('[^A-Za-z0-9]', '_', library)}_on_cpu;"  # a library must hold something
        text, versions = work / "refusals.c", work / "versions"
        text.write_text("\n".join(["#include <stdio.h>", *refusals, mark, ""]))
        versions.write_text(f"{library} {{ global: *; }};\n")  # CuPy's modules ask for this version
        names_it = [f"-Wl,-soname,{library}", f"-Wl,--version-script,{versions}"]
        needs = ["-Wl,--no-as-needed", f"-L{OURS}", "-l:libemulated.so", "-Wl,-rpath,$ORIGIN"]
        run(
            CXX,
            "-x",
            "c",
            "-w",
            "-fPIC",
            "-shared",
            text,
            "-o",
            OURS / library,
            *names_it,
            "-x",
            "none",
            *needs,
        )
    return sum(map(len, missing.values()))


def link_runtime(runtime: Path) -> None:
    """Put the runtime module in its place; it brings every library, so that CuPy finds them by name."""
    libraries = [f"-l:{file.name}" for file in sorted(OURS.glob("lib*.so*"))]
    target = SITE / f"{RUNTIME}{SUFFIX}"
    path = "-Wl,-rpath,$ORIGIN/../../../cupy_on_cpu"
    run(CXX, "-shared", runtime, "-o", target, "-Wl,--no-as-needed", f"-L{OURS}", *libraries, path)


def replace_modules() -> None:
    """Take out the modules that hold code for a card, and put ours in for what CuPy can't do without."""
    for name, ours in STAND_INS.items():
        (SITE / f"{name}{SUFFIX}").unlink()
        if ours:
            shutil.copy(HERE / "stand_ins" / ours, SITE / f"{name}.py")


if __name__ == "__main__":
    main()
