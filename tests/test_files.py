"""Files on disk: what ``save`` writes through, keeps and sweeps, and what ``load`` refuses to open."""

from __future__ import annotations

import errno
import os
import platform
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp import CheckpointError, Network, _checkpoint, _files
from gpubp._files import _part, _sweep, _system

pytestmark = pytest.mark.skipif(os.name == "nt", reason="FIFOs, devices, links and modes are POSIX's")

NET = Network((3, 4, 2))
W = NET.init(1)
KILLED = """
import os, random, signal, sys, time
import numpy as np
import gpubp

path, kills = sys.argv[1], int(sys.argv[2])
net = gpubp.Network((200, 400, 10))
w = np.zeros(net.n_weights, "float32")
gpubp.save(path, net, w)
random.seed(0)
torn = parts = left = 0
for k in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            w += 1
            gpubp.save(path, net, w)
    time.sleep(random.uniform(0.002, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    parts += len(os.listdir(os.path.dirname(path))) - 1
    try:
        torn += np.unique(gpubp.load(path).w).size != 1
    except gpubp.CheckpointError:
        torn += 1
    gpubp.save(path, net, w)
    left += len(os.listdir(os.path.dirname(path))) - 1
print(kills, "kills:", parts, "parts,", torn, "torn,", left, "left over")
"""


def loads(path: Path, w: Any = W) -> bool:
    return bool((gpubp.load(path).w == w).all())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def read() -> Any:
    """What comes out of a FIFO, read by a thread meanwhile."""

    def start(path: Path) -> tuple[threading.Thread, list[bytes]]:
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
        thread.start()
        return thread, found

    return start


# what is written to


def test_a_fifo_is_written_to(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    thread, found = read(tmp_path / "fifo")
    gpubp.save(tmp_path / "fifo", NET, W)
    thread.join(10)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert os.listdir(tmp_path) == ["fifo"]
    (tmp_path / "copy").write_bytes(found[0])
    assert loads(tmp_path / "copy")


def test_a_device_stays_one(tmp_path: Path) -> None:
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.write_bytes(b"")
    except OSError:
        pytest.skip("only root may make a device, and not everywhere")
    (tmp_path / "link").symlink_to(null)
    for path in (null, tmp_path / "link"):
        gpubp.save(path, NET, W)
        assert stat.S_ISCHR(null.stat().st_mode)
        assert sorted(os.listdir(tmp_path)) == ["link", "null"]


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout on this system")
def test_standard_output_is_written_to(tmp_path: Path) -> None:
    code = "import gpubp; net = gpubp.Network((3, 4, 2)); gpubp.save('/dev/stdout', net, net.init(1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    (tmp_path / "copy").write_bytes(done.stdout)
    assert loads(tmp_path / "copy")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc on this system")
def test_a_file_without_a_name_is_written_to(tmp_path: Path) -> None:
    with (tmp_path / "gone").open("w+b") as file:
        (tmp_path / "gone").unlink()
        gpubp.save(f"/proc/self/fd/{file.fileno()}", NET, W)
        assert os.listdir(tmp_path) == []
        (tmp_path / "copy").write_bytes(file.read())
    assert loads(tmp_path / "copy")


def test_links_are_followed_as_by_open(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("there/file")  # which isn't there yet
    for w in (W, -W):
        gpubp.save(tmp_path / "one", NET, w)
        assert loads(tmp_path / "there" / "file", w)
    assert (tmp_path / "one").is_symlink()
    assert os.listdir(tmp_path / "there") == ["file"]
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        gpubp.save(tmp_path / "circle", NET, W)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(IsADirectoryError):
        gpubp.save(tmp_path / "there", NET, W)
    assert sorted(os.listdir(tmp_path)) == ["circle", "one", "there", "two"]


# mode and owner


def test_a_new_file_has_the_mode_that_open_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        gpubp.save(tmp_path / "a", NET, W)
        (tmp_path / "b").write_bytes(b"")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == mode(tmp_path / "b") == 0o640


@pytest.mark.parametrize("kept", [0o600, 0o666, 0o640, 0o444])
def test_the_mode_is_kept(tmp_path: Path, kept: int) -> None:
    gpubp.save(tmp_path / "a", NET, W)
    (tmp_path / "a").chmod(kept)
    gpubp.save(tmp_path / "a", NET, -W)
    assert mode(tmp_path / "a") == kept
    assert loads(tmp_path / "a", -W)


def test_the_owner_is_kept_where_that_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "a", []
    gpubp.save(path, NET, W)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
        path.chmod(0o4750)
        gpubp.save(path, NET, W)
        assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (12345, 23456, 0o4750)

    class Other:
        st_uid, st_gid, st_mode = 12345, 23456, stat.S_IFREG | 0o4640

    def refuse(number: int, user: int, group: int) -> None:
        asked.append((user, group))
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    with (tmp_path / "b").open("wb") as file:
        _files._make_alike(file.fileno(), Other())  # type: ignore[arg-type]
    assert asked == [(12345, 23456), (-1, 23456)]
    assert mode(tmp_path / "b") == 0o640  # without the right to run as its owner


# what a killed process leaves


def part(folder: Path, system: str = "", name: str = "model", age: float = 0.0) -> Path:
    path = folder / f".{name}.{system or _system()}00c0ffee.part"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_parts_of_the_dead_are_swept(tmp_path: Path) -> None:
    dead = part(tmp_path)
    kept = [
        part(tmp_path, "0123abcd", age=23 * 3600),
        part(tmp_path, name="model2"),
        tmp_path / ".model.part",
    ]
    kept[2].write_bytes(b"")
    elsewhere = tmp_path / f".model.{_system()}00000000.part"
    elsewhere.symlink_to(kept[1])
    living, path = _part(tmp_path / "model")
    gpubp.save(tmp_path / "model", NET, W)
    assert loads(tmp_path / "model")
    assert not dead.exists()
    assert all(each.exists() for each in (*kept, path, elsewhere))
    living.close()
    gpubp.save(tmp_path / "model", NET, W)
    assert not path.exists()


def test_old_parts_of_other_systems_are_swept(tmp_path: Path) -> None:
    """Also those from before a restart."""
    old = part(tmp_path, "0123abcd", age=25 * 3600)
    gpubp.save(tmp_path / "model", NET, W)
    assert os.listdir(tmp_path) == ["model"]
    assert not old.exists()


def test_without_locks_only_old_parts_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    for change in ("fcntl", "flock"):
        with monkeypatch.context() as patch:
            if change == "fcntl":
                patch.setattr(_files, "fcntl", None)
            else:
                patch.setattr(_files.fcntl, "flock", none)
            fresh = part(tmp_path)
            gpubp.save(tmp_path / "model", NET, W)
            assert fresh.exists()
            part(tmp_path, age=25 * 3600)
            gpubp.save(tmp_path / "model", NET, W)
            assert os.listdir(tmp_path) == ["model"]


def test_a_part_taken_for_dead_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []
    locked = _files._locked

    def slow(number: int) -> bool | None:
        if not sweeps:
            sweeps.append(number)
            _sweep(tmp_path / "model")
        return locked(number)

    monkeypatch.setattr(_files, "_locked", slow)
    gpubp.save(tmp_path / "model", NET, W)
    assert os.listdir(tmp_path) == ["model"]
    assert loads(tmp_path / "model")


def test_a_system_has_a_name_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", none)
    found = []
    for name in ("here", "there"):
        _system.cache_clear()
        monkeypatch.setattr(platform, "node", lambda name=name: name)
        found.append(_system())
    _system.cache_clear()
    assert found[0] != found[1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or _files.fcntl is None, reason="needs fork and locks")
def test_a_killed_save_tears_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model"), "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" 0 torn, 0 left over\n"), done.stdout


# what is read


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a device", "a socket"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """And nothing is waited for."""
    path = tmp_path / "a"
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path = Path("/dev/zero")
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    with pytest.raises(
        CheckpointError, match=rf"{path} must be a regular file, got {kind}: copy the contents"
    ):
        gpubp.load(path)


def test_a_file_that_becomes_a_fifo_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpubp.save(tmp_path / "a", NET, W)
    os.mkfifo(tmp_path / "fifo")
    look = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: look(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="must be a regular file, got a FIFO"):
        gpubp.load(tmp_path / "fifo")


def test_reading_takes_the_memory_of_the_arrays(tmp_path: Path) -> None:
    net = Network((1000, 1000, 10))
    gpubp.save(tmp_path / "a", net, net.init(0))
    gpubp.load(tmp_path / "a")  # what is imported and kept isn't counted
    tracemalloc.start()
    try:
        w = gpubp.load(tmp_path / "a").w
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert w.nbytes <= peak < 1.02 * w.nbytes


def test_a_file_too_short_for_its_header_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Network((1000, 1000))
    gpubp.save(tmp_path / "a", net, net.init(0))
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-1])
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="must be a whole model file"):
            gpubp.load(tmp_path / "a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000
    (tmp_path / "a").write_bytes(whole)
    check = _checkpoint._check_kinds

    def cut(*given: Any) -> None:
        os.truncate(tmp_path / "a", len(whole) - 1)
        check(*given)

    monkeypatch.setattr(_checkpoint, "_check_kinds", cut)
    with pytest.raises(CheckpointError, match="must be a whole model file, got one that is cut off"):
        gpubp.load(tmp_path / "a")
