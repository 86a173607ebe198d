"""The house stands as designed: imports go down, names are declared, the import is light, the wheel small."""

import ast
import graphlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import gpubp

PACKAGE = Path(gpubp.__file__).parent
ROOT = PACKAGE.parent

# each module may import from its own floor and those above it in this table; a folder counts as one room
FLOORS = [
    {"_typing", "_checks", "_registry", "_files", "_numerics", "tracing"},
    {"_devices", "engines"},
    {"activations", "costs", "initializers", "optimizers", "schedules", "_layout", "_per_node"},
    {"backprop", "recording"},
    {"matrix_calculus", "_datasets", "_formulas", "_network", "_verify"},
    {"callbacks", "_checkpoint", "training"},
    {"plots", "_explain", "_ran"},
    {"_cli"},
    {"__init__", "__main__"},
]
# and so inside each folder, whose __init__ stands above them all
WITHIN = {
    "tracing": [{"operations"}, {"tracer"}, {"kernel"}],
    "engines": [{"generic"}, {"numpy"}, {"cupy"}],
    "recording": [
        {"schedule", "barriers", "code_cache", "elementary", "team"},
        {"memory"},
        {"text", "names"},
        {"loops"},
        {"narrow_loops", "wide_loops"},
        {"numpy_loops"},
        {"numpy_writer", "numba_writer"},
        {"recorded"},
        {"compiled"},
    ],
    "training": [{"data", "metrics", "threads"}, {"descent"}, {"loop"}, {"entry"}],
    "plots": [{"style"}, {"landscape", "networks", "predictions"}],
    "_explain": [{"notation"}, {"term"}, {"page"}, {"explanation"}],
    "_cli": [{"options"}, {"tables"}, {"picture"}, {"commands"}],
}
MOST_LINES = 350
LONG = {  # modules that may be longer, and why
    "_checkpoint": "what is written and what is believed of it are read side by side",
    "_devices": "one door for all questions of place, of which half are sentences on what is missing",
    "_cli.commands": "a command a function, all short",
    "_cli.options": "one table of what each command takes",
    "_cli.tables": "CSV is read in one pass, whose steps share its refusals",
    "_explain.explanation": "one recursion, written out term by term",
    "_network": "one class: its methods are the public ones, with what they refuse",
    "activations": "a table of functions, one after the other",
    "matrix_calculus": "the catalogue of identities is half of it",
    "training.threads": "the threads that share a step are started, watched and given back by one class",
}
CUPY_DOORS = {"_devices", "engines.cupy"}
PRINTER = "_cli.commands"
HEAVY = [
    "cupy",
    "torch",
    "jax",
    "sklearn",
    "scipy",
    "matplotlib",
    "numba",
    "safetensors",
    "threadpoolctl",
    "tqdm",
]
WHEEL_BYTES = 300_000
IMPORT_SECONDS = 0.1


def read(folder: Path) -> dict[str, str]:
    """Source by module name below gpubp: "_typing", "engines" (its __init__), "engines.numpy", "__init__"."""
    sources = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        sources[name] = file.read_text(encoding="utf-8")
    return sources


def floor(module: str) -> tuple[int, int] | None:
    """The floor of a module's room in the house, and the module's own in that room."""
    room, _, name = module.partition(".")
    house = next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)
    floors = WITHIN.get(room, [])
    inner = next((number for number, names in enumerate(floors) if name in names), None)
    if not name:
        inner = len(floors)
    return None if house is None or inner is None else (house, inner)


def not_there(sources: dict[str, str]) -> list[str]:
    """What the tables name and the package hasn't."""
    rooms = {module.partition(".")[0] for module in sources}
    named = {room for rooms in FLOORS for room in rooms} | set(WITHIN)
    inner = {f"{room}.{name}" for room, floors in WITHIN.items() for names in floors for name in names}
    return sorted((named - rooms) | ((inner | set(LONG)) - set(sources)))


def too_long(sources: dict[str, str]) -> list[str]:
    """Modules longer than they may be, and those listed as long that aren't."""
    long = {module for module, source in sources.items() if len(source.splitlines()) > MOST_LINES}
    return sorted(long ^ set(LONG))


def imported(source: str) -> Iterator[str]:
    """Every name imported, wherever the import stands, in full: from a import b -> a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # relative imports would make this reading longer than it is worth
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def inside(name: str, modules: set[str]) -> str | None:
    """The module of gpubp that an imported name comes from: gpubp.engines.numpy.Numpy -> engines.numpy."""
    package, _, rest = name.partition(".")
    if package != "gpubp":
        return None
    while rest and rest not in modules:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


def faults(sources: dict[str, str]) -> list[str]:
    """What is wrong with the imports and prints of these modules, one sentence each."""
    found = []
    graph = {}
    for module, source in sources.items():
        here = floor(module)
        if here is None:
            found.append(f"{module} must stand on a floor, FLOORS has none for it: add it")
            continue
        names = list(imported(source))
        graph[module] = {other for name in names if (other := inside(name, set(sources))) is not None}
        for other in graph[module]:
            if (there := floor(other)) is None:
                continue
            same_room = module.partition(".")[0] == other.partition(".")[0]
            low, high = (here[1], there[1]) if same_room else (here[0], there[0])
            if high > low:
                place = f" of {module.partition('.')[0]}" if same_room else ""
                found.append(
                    f"{module} on floor {low}{place} imports {other} on floor {high}: imports only go down"
                )
        if any(name.startswith(".") for name in names):
            found.append(f"{module} imports relatively: write gpubp in full")
        if module not in CUPY_DOORS and any(name.partition(".")[0] in {"cupy", "cupyx"} for name in names):
            found.append(f"{module} imports cupy: only {' and '.join(sorted(CUPY_DOORS))} may")
        calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
        if module != PRINTER and any(isinstance(call, ast.Name) and call.id == "print" for call in calls):
            found.append(f"{module} prints: only {PRINTER} may, the rest logs")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append(f"imports go in a circle: {' -> '.join(error.args[1])}")
    return found


def test_the_package_keeps_to_its_floors() -> None:
    assert faults(read(PACKAGE)) == []


def test_the_tables_name_what_is_there_and_no_module_is_too_long() -> None:
    sources = read(PACKAGE)
    assert not_there(sources) == []
    assert too_long(sources) == []
    del sources["_cli.tables"], sources["schedules"]
    assert not_there(sources) == ["_cli.tables", "schedules"]
    assert too_long({**sources, "costs": "pass\n" * (MOST_LINES + 1), "_network": "pass"}) == [
        "_cli.tables",
        "_network",
        "costs",
    ]


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        (
            {"backprop": "from gpubp._network import Network", "_network": ""},
            "backprop on floor 3 imports _network",
        ),
        (
            {"costs": "def f():\n    import gpubp.callbacks", "callbacks": ""},
            "costs on floor 2 imports callbacks",
        ),
        (
            {"_checks": "from gpubp import Network", "__init__": ""},
            "_checks on floor 0 imports __init__ on floor 8",
        ),
        ({"_devices": "from gpubp.costs import huber", "costs": ""}, "_devices on floor 1 imports costs"),
        (
            {"engines.numpy": "import gpubp.backprop", "backprop": ""},
            "engines.numpy on floor 1 imports backprop",
        ),
        (
            {"costs": "from gpubp import activations", "activations": "import gpubp.costs"},
            "circle: (costs -> activations|activations -> costs)",
        ),
        ({"costs": "from . import activations", "activations": ""}, "costs imports relatively"),
        ({"backprop": "import cupy"}, "backprop imports cupy"),
        ({"backprop": "from cupyx.scipy import special"}, "backprop imports cupy"),
        (
            {"engines.numpy": "import importlib\nimportlib.import_module('cupy')"},
            "engines.numpy imports cupy",
        ),
        ({"training.loop": "def f():\n    print('hello')"}, "training.loop prints"),
        ({"attic": ""}, "attic must stand on a floor"),
        ({"engines": "", "engines.attic": ""}, "engines.attic must stand on a floor"),
        (
            {"plots.style": "from gpubp.plots.networks import norms", "plots.networks": ""},
            "plots.style on floor 0 of plots imports plots.networks on floor 1",
        ),
    ],
)
def test_each_fault_is_found(sources: dict[str, str], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        assert not faults(sources), "\n".join(faults(sources))


def test_what_is_allowed_is_not_a_fault() -> None:
    allowed = {
        "_typing": "",
        "_devices": "import cupy\nfrom gpubp._typing import Array",
        "engines": "from gpubp.engines.cupy import Cupy\nfrom gpubp.engines.numpy import Numpy",
        "engines.cupy": "import cupy\nfrom gpubp.engines.numpy import Numpy",
        "engines.numpy": "import numpy",
        "_cli.commands": "import gpubp._devices\nprint('hello')",
        "__init__": "from gpubp import _devices",
    }
    assert faults(allowed) == []


def declared(source: str) -> set[str]:
    """The names in a module's __all__, which is written out as a list or tuple of strings."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def public(source: str) -> set[str]:
    """The functions and classes that a module defines for others."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {n.name for n in ast.parse(source).body if isinstance(n, kinds) and not n.name.startswith("_")}


def undeclared(sources: dict[str, str]) -> list[str]:
    """The public functions and classes of public modules that their module's __all__ leaves out."""
    rooms = {module: source for module, source in sources.items() if not module.startswith("_")}
    return [
        f"{module}.{name}" for module, source in rooms.items() for name in public(source) - declared(source)
    ]


def test_public_modules_declare_their_names() -> None:
    assert undeclared(read(PACKAGE)) == []
    left_out = {"costs": "__all__ = ['huber']\ndef huber(): ...\ndef quantile(): ...\ndef _helper(): ..."}
    assert undeclared(left_out) == ["costs.quantile"]


def test_the_top_declares_its_names() -> None:
    names = {
        name.rpartition(".")[2] for name in imported(read(PACKAGE)["__init__"]) if name.startswith("gpubp.")
    }
    assert names == set(gpubp.__all__)
    assert [name for name in gpubp.__all__ if not hasattr(gpubp, name)] == []
    assert len(gpubp.__all__) == len(set(gpubp.__all__))


PUBLIC = [gpubp, gpubp.backprop, gpubp.engines] + [
    module for name in gpubp.__all__ if isinstance(module := getattr(gpubp, name), ModuleType)
]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_dir_shows_what_is_public_and_no_more(module: ModuleType) -> None:
    assert {name for name in dir(module) if not name.startswith("__")} == set(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_pictures_of_activations_are_made_by_one_function() -> None:
    assert callable(gpubp.plots.activation)
    assert not hasattr(gpubp.plots, "activations")


def test_no_package_gives_a_function_named_like_one_of_its_modules() -> None:
    """The name would be the function or the module, depending on what was imported first."""
    sources = read(PACKAGE)
    for package in ("__init__", *{module.rpartition(".")[0] for module in sources} - {""}):
        parent = "" if package == "__init__" else package
        beside = {module.rpartition(".")[2] for module in sources if module.rpartition(".")[0] == parent}
        given = declared(sources[package])
        if package == "__init__":
            given = {name for name in given if not isinstance(getattr(gpubp, name), ModuleType)}
        assert given & beside == set(), package


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_importing_is_light() -> None:
    assert python(f"import gpubp, sys; print(set({HEAVY}) & set(sys.modules) or 'none')") == "none"


@pytest.mark.slow
def test_importing_is_quick() -> None:
    """Beyond what NumPy takes; processor time and the best of several, since other work on the machine only adds."""
    code = "import time, numpy; start = time.process_time(); import gpubp; print(time.process_time() - start)"
    assert min(float(python(code)) for _ in range(5)) <= IMPORT_SECONDS


@pytest.mark.slow
def test_the_wheel_is_small_and_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"gpubp-{gpubp.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < WHEEL_BYTES
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {"gpubp", f"gpubp-{gpubp.__version__}.dist-info"}
    assert {"gpubp/py.typed", "gpubp/data/digits.npz", "gpubp/data/digits.txt"} <= names
