"""What lies in the folder of kept machine code costs time at most, and what others may change is never run."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import pickle
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp

pytest.importorskip("numba", reason="numba is not installed: pip install 'gpubp[fast]'")
pytest.importorskip("scipy", reason="SciPy is not installed: pip install 'gpubp[fast]'")
import llvmlite
import numba

from gpubp.recording import code_cache, compiled

DAMAGED = int(os.environ.get("GPUBP_DAMAGED", "20"))  # caches, for a longer look
TEXT = "def run(x):\n    return 3 * x + 1\n"
with_modes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, not made yet."""
    monkeypatch.setattr(code_cache, "folder", lambda: tmp_path / "cache" / "gpubp")
    return tmp_path / "cache" / "gpubp"


def anew(text: str = TEXT) -> Any:
    """The text's function, as a new process would get it."""
    compiled._compiled.cache_clear()
    return compiled._compiled(text)


def hits(text: str = TEXT) -> int:
    """Whether the function, which is right, was found in the folder."""
    run = anew(text)
    assert run(2) == 7
    return sum(run.stats.cache_hits.values())


def entry(where: Path) -> Path:
    (found,) = where.glob("*.code")
    return found


def test_code_is_kept_for_the_user_alone(where: Path) -> None:
    assert [hits(), hits(), hits()] == [0, 1, 1]
    if sys.platform != "win32":
        assert [path.stat().st_mode & 0o777 for path in (where.parent, where, entry(where))] == [
            0o700,
            0o700,
            0o600,
        ]
    assert [path.name for path in where.iterdir()] == [entry(where).name]


def test_every_type_has_its_own(where: Path) -> None:
    assert anew()(2) == 7
    assert anew()(0.5) == 2.5
    assert len(list(where.glob("*.code"))) == 2
    assert (anew()(2), anew()(0.5)) == (7, 2.5)


def test_kept_code_is_loaded_twice_and_by_two_threads(where: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: anew()(2), range(20))) == [7] * 20
    first, second = anew(), anew()
    assert (first(2), second(2)) == (7, 7)
    del first
    assert second(3) == 10


# damage: to the entry's file, or the folder


def flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def put(content: bytes) -> Callable[[Path, np.random.Generator], None]:
    return lambda path, rng: void(path.write_bytes(content))


def void(_: object) -> None:
    """Lambdas that damage something give nothing."""


def a_folder(path: Path, names: tuple[str, ...] = ()) -> None:
    path.mkdir()
    for name in names:
        (path / name).mkdir()


def empty_folder(path: Path, names: tuple[str, ...] = ()) -> None:
    for each in path.iterdir():
        each.unlink()
    for name in names:
        (path / name).mkdir()


def instead(make: Callable[[Path], object]) -> Callable[[Path, np.random.Generator], None]:
    """Something else in the place of a file or folder."""

    def damage(path: Path, rng: np.random.Generator) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return damage


def another_text(path: Path, rng: np.random.Generator) -> None:
    """The entry of another function, with its digest."""
    assert anew("def run(x):\n    return 5 * x\n")(2) == 10
    (other,) = set(path.parent.glob("*.code")) - {path}
    other.replace(path)


TO_FILES: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "flipped": flip,
    "flipped head": lambda path, rng: void(
        path.write_bytes(bytes([path.read_bytes()[0] ^ 16]) + path.read_bytes()[1:])
    ),
    "cut": lambda path, rng: os.truncate(path, int(rng.integers(path.stat().st_size))),
    "longer": lambda path, rng: void(path.write_bytes(path.read_bytes() + rng.bytes(7))),
    "zeros": lambda path, rng: void(path.write_bytes(bytes(path.stat().st_size))),
    "random": lambda path, rng: void(path.write_bytes(rng.bytes(int(rng.integers(1, 10_000))))),
    "empty": put(b""),
    "not UTF-8": put(b"\xff\xfe\x80"),
    "a pickle": put(pickle.dumps((1, 2))),
    "huge": lambda path, rng: os.truncate(path, 1 << 30),
    "a folder": instead(a_folder),
    "a full folder": instead(lambda path: a_folder(path, ("something",))),
    "another's": another_text,
}
if sys.platform != "win32":
    TO_FILES |= {
        "a pipe": instead(lambda path: os.mkfifo(path)),
        "a loop": instead(lambda path: path.symlink_to(path)),
        "a device": instead(lambda path: path.symlink_to("/dev/zero")),
        "for all": lambda path, rng: path.chmod(0o666),
    }
TO_FOLDERS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "no folder": instead(lambda path: path.touch()),
    "no folder above": lambda path, rng: instead(lambda path: path.touch())(path.parent, rng),
}
if sys.platform != "win32":
    TO_FOLDERS |= {
        "folder for all": lambda path, rng: path.chmod(0o777),
        "folder for the group": lambda path, rng: path.chmod(0o770),
        "folder for all, as /tmp": lambda path, rng: path.chmod(0o1777),
        "folder below one for all": lambda path, rng: path.parent.chmod(0o777),
        "folder that loops": instead(lambda path: path.symlink_to(path)),
    }
UNSEEN: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "gone": lambda path, rng: shutil.rmtree(path),
    "emptied": lambda path, rng: empty_folder(path),
    "with a folder for a file": lambda path, rng: empty_folder(path, ("gpubp_0123456789abcdef.py",)),
}
if sys.platform != "win32":
    UNSEEN["a link to nothing"] = instead(lambda path: path.symlink_to(path.with_name("nothing")))


DAMAGE = TO_FILES | TO_FOLDERS | UNSEEN
KINDS = list(DAMAGE)


def ends(kind: str) -> tuple[int, int, int, int]:
    """Whether it is found and lines of the log, at once and later."""
    if kind in TO_FILES:
        return 0, 1, 1, 0
    return (0, 1, 0, 1) if kind in TO_FOLDERS else (0, 0, 1, 0)


def damaged(where: Path, kind: str, rng: np.random.Generator, run: Callable[[], tuple[int, str]]) -> Any:
    """Damage a good cache and run twice: how it ends. ``run`` gives whether it was found, and what the log said."""
    if where.parent.is_dir():
        where.parent.chmod(0o700)
        shutil.rmtree(where.parent)
    else:
        where.parent.unlink(missing_ok=True)
    assert run()[0] == 0
    path = entry(where) if kind in TO_FILES else where
    DAMAGE[kind](path, rng)
    (found, said), (again, later) = run(), run()
    return found, said.count("kept"), again, later.count("kept")


def run_here(caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "gpubp"):
        return hits(), caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_damage_costs_a_compile_and_a_line(kind: str, where: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert damaged(where, kind, np.random.default_rng(0), lambda: run_here(caplog)) == ends(kind)


def test_many_damaged_caches(where: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(DAMAGED):
        rng = np.random.default_rng(seed)
        kind = KINDS[int(rng.integers(len(KINDS)))]
        assert damaged(where, kind, rng, lambda: run_here(caplog)) == ends(kind), (seed, kind)


def test_every_bit_is_checked(where: Path) -> None:
    path, key = where / "gpubp_a.code", b"key"
    where.mkdir(0o700, parents=True)
    code_cache._write(path, key, b"code")
    good = path.read_bytes()
    assert code_cache._read(path, key) == b"code"
    for k in range(8 * len(good)):
        content = bytearray(good)
        content[k // 8] ^= 1 << k % 8
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it isn't as it was written"):
            code_cache._read(path, key)


TRAINING = """
import hashlib, logging, sys
from pathlib import Path
import numpy as np
import gpubp
from gpubp.recording import code_cache
logging.basicConfig(level=logging.INFO)
code_cache.folder = lambda: Path(sys.argv[1])
found, load = [], code_cache._Entries.load_overload
code_cache._Entries.load_overload = lambda *of: found.append(load(*of)) or found[-1]
X = np.random.default_rng(0).standard_normal((64, 3))
net = gpubp.Network((3, 4, 1))
run = gpubp.train(net, X, X[:, :1], epochs=2, batch_size=32, device="cpu", progress=False, threads=1)
print(any(found), hashlib.sha256(run.w.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_trainings_end_well_and_alike(where: Path) -> None:
    trained = set()

    def run() -> tuple[int, str]:
        environment = os.environ | {"GPUBP_COMPILE": "always"}
        command = [sys.executable, "-c", TRAINING, str(where)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert "training steps are compiled" in ended.stderr
        found, digest = ended.stdout.split()
        trained.add(digest)
        return found == "True", ended.stderr

    rng = np.random.default_rng(0)
    for _ in range(1 + DAMAGED // 50):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        assert damaged(where, kind, rng, run) == ends(kind), kind
    assert len(trained) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("step", ["mkstemp", "write", "replace"])
def test_a_full_or_read_only_disk(
    step: str, number: int, where: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        if step == "mkstemp":
            patched.setattr(tempfile, "mkstemp", fail)
        elif step == "replace":
            patched.setattr(os, "replace", fail)
        else:
            patched.setattr(code_cache, "_head", fail)  # where writing begins
        found, said = run_here(caplog)
    assert (found, said.count("kept")) == (0, 1)
    assert os.strerror(number) in said
    assert list(where.iterdir()) == []
    assert run_here(caplog)[0] == 0
    monkeypatch.setattr(os, "utime", fail)
    assert hits() == 1  # what can be read is used, be it not marked as used


def test_no_home(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    found, said = run_here(caplog)
    assert (found, said.count("kept")) == (0, 1)
    assert "Could not determine home directory" in said


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="of the XDG standard")
@pytest.mark.parametrize("value", ["", "relative", None])
def test_a_relative_folder_is_ignored(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert code_cache.folder() == Path.home() / ".cache" / "gpubp"
    monkeypatch.setenv("XDG_CACHE_HOME", "/absolute")
    assert code_cache.folder() == Path("/absolute/gpubp")


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (numba, "__version__", "0.0.1"),
        (llvmlite, "__version__", "0.0.1"),
        (np, "__version__", "0.0.1"),
        (sys, "version", "3.99"),
        (numba.config, "CPU_NAME", "generic"),
        (numba.config, "BOUNDSCHECK", 1),
        (code_cache, "_OURS", "another gpubp"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_versions_have_their_own(
    owner: Any, name: str, value: Any, where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hits() == 0
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, value)
        assert hits() == 0
    assert hits() == 1


def test_code_isnt_kept_for_files_that_have_changed(
    where: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(code_cache, "_our_files", lambda: "those of an upgrade meanwhile")
    found, said = run_here(caplog)
    assert (found, said.count("kept")) == (0, 1)
    assert list(where.iterdir()) == []


class Runs:
    """Makes a folder when unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


def plant(where: Path, made: Path) -> None:
    """An entry with the right digest that makes a folder when loaded."""
    run = anew()
    assert run(2) == 7
    entries = run._cache
    path, key = entries._path_and_key((numba.int64,), run.targetctx.codegen())
    assert path == entry(where)
    code_cache._write(path, key, pickle.dumps(Runs(made)))


def test_what_is_planted_would_run(where: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(where, tmp_path / "made")
    found, said = run_here(caplog)
    assert (found, said.count("made anew")) == (0, 1)
    assert (tmp_path / "made").exists()  # else the tests below would show nothing


@with_modes
@pytest.mark.parametrize("kind", [each for each in TO_FOLDERS if "for" in each.split()])
def test_nothing_is_loaded_from_where_others_may_write(kind: str, where: Path, tmp_path: Path) -> None:
    plant(where, tmp_path / "made")
    TO_FOLDERS[kind](where, np.random.default_rng(0))
    mode = where.stat().st_mode
    assert hits() == 0
    assert not (tmp_path / "made").exists()
    assert where.stat().st_mode == mode  # whoever planted something there has done so before


@with_modes
def test_nothing_is_loaded_that_others_may_change(where: Path, tmp_path: Path) -> None:
    plant(where, tmp_path / "made")
    entry(where).chmod(0o622)
    assert hits() == 0
    assert not (tmp_path / "made").exists()


@with_modes
def test_nothing_is_loaded_that_is_anothers(
    where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(where, tmp_path / "made")
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: where.stat().st_uid + 1)
        found, said = run_here(caplog)
    assert (found, said.count("kept")) == (0, 1)
    assert "must belong to user" in said
    assert not (tmp_path / "made").exists()
    if os.geteuid() == 0:
        os.chown(entry(where), 12345, 12345)
        assert run_here(caplog)[0] == 0
        assert not (tmp_path / "made").exists()


@with_modes
def test_a_folder_that_only_others_may_read_is_closed(where: Path) -> None:
    assert hits() == 0
    where.chmod(0o755)
    assert hits() == 1
    assert where.stat().st_mode & 0o777 == 0o700


@with_modes
def test_a_folder_below_one_like_tmp_is_used(where: Path) -> None:
    assert hits() == 0
    where.parent.chmod(0o1777)
    assert hits() == 1


def test_files_of_the_old_kind_are_neither_run_nor_left(where: Path, tmp_path: Path) -> None:
    old = where / "__pycache__"
    old.mkdir(0o700, parents=True)
    where.chmod(0o700)
    text = f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n{TEXT}"
    names = [code_cache.name_of(TEXT)]
    names.append(f"gpubp_{hashlib.sha256((TEXT + beneath()).encode()).hexdigest()[:16]}")
    for name in names:
        (where / f"{name}.py").write_text(text)
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(where / f"{name}.py"), doraise=True, invalidation_mode=unchecked)
        (where / f"{name}.py").write_text(TEXT)
        (old / f"{name}.run-1.py311.nbi").write_bytes(pickle.dumps(Runs(tmp_path / "made")))
    assert hits() == 0
    assert not (tmp_path / "made").exists()
    assert list(where.iterdir()) == [entry(where)]


def beneath() -> str:
    """What names were once made of, beside the text."""
    folder = Path(code_cache.__file__).parent
    return "".join((folder / name).read_text(encoding="utf-8") for name in ("elementary.py", "team.py"))


def test_numbas_own_cache_has_no_part(
    where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    for elsewhere in (tmp_path / "elsewhere", tmp_path / "file" / "below"):
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(elsewhere))
        monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "none.such", raising=False)
        run_here(caplog)
    assert run_here(caplog)[0] == 1
    assert not (tmp_path / "elsewhere").exists()


def test_entries_that_were_not_used_for_long_make_room(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [TEXT + f"# {k}\n" for k in range(4)]
    for k, text in enumerate(texts[:3]):
        assert hits(text) == 0
        (path,) = where.glob(f"{code_cache.name_of(text)}-*.code")
        os.utime(path, (k, k))
    assert hits(texts[0]) == 1
    monkeypatch.setattr(code_cache, "_ROOM", 5 * path.stat().st_size // 2)
    assert hits(texts[3]) == 0
    kept = [any(where.glob(f"{code_cache.name_of(text)}-*.code")) for text in texts]
    assert kept == [True, False, False, True]
    monkeypatch.setattr(code_cache, "_ROOM", 1)
    code_cache._sweep(path := next(where.glob(f"{code_cache.name_of(texts[3])}-*")))
    assert list(where.iterdir()) == [path]  # not the newest, or it would never be kept


def test_files_of_dead_writers_are_swept(where: Path) -> None:
    where.mkdir(0o700, parents=True)
    parts = [where / f"gpubp_0123456789abcdef-{k}.part" for k in range(2)]
    for part in parts:
        part.touch()
    os.utime(parts[0], (1, time.time() - 7200))
    (where / "anything else").touch()
    assert hits() == 0
    assert [part.exists() for part in parts] == [False, True]
    assert (where / "anything else").exists()


def train() -> None:
    X = np.random.default_rng(0).standard_normal((64, 3))
    gpubp.train(gpubp.Network((3, 1)), X, X[:, :1], epochs=1, device="cpu", progress=False)


def test_numba_told_not_to_compile_is_as_if_it_werent_there(
    where: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    compiled._compiled.cache_clear()
    with caplog.at_level(logging.INFO, "gpubp"):
        train()
    assert "aren't compiled: NUMBA_DISABLE_JIT is set" in caplog.text
    assert "training steps are recorded" in caplog.text


def test_kept_code_knows_blas_by_name(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    compiled._compiled.cache_clear()
    train()
    content = entry(where).read_bytes()
    assert b"gpubp_dgemm" in content
    assert b"numba_xxgemm" not in content
    from gpubp.recording import team

    address = team._blas("dgemm")
    assert address.to_bytes(8, sys.byteorder) not in content
    assert str(address).encode() not in content


def test_matrices_too_long_for_blas_are_left_to_numpy(
    where: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPUBP_COMPILE", "always")
    monkeypatch.setattr(compiled, "_LONGEST", 63)
    with caplog.at_level(logging.INFO, "gpubp"):
        train()
    assert "aren't compiled: BLAS counts to 63, an array has a side of " in caplog.text
    assert "training steps are recorded" in caplog.text


def test_another_blas_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpubp.recording import team

    monkeypatch.setattr(team, "_GEMM", team._GEMM.replace("int *", "long *"))
    with pytest.raises(
        ImportError, match=r"SciPy's sgemm must be void .*long .*, got void .*: install another"
    ):
        team._blas("sgemm")
    with pytest.raises(ImportError, match="SciPy must have the BLAS function nogemm"):
        team._blas("nogemm")
