"""Files written whole or not at all, and read only where they are regular files."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import stat
import time
from contextlib import suppress
from functools import cache
from io import BufferedReader
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, where a file that is open can't be removed anyway
    fcntl = None

_FORGOTTEN = 24 * 3600  # seconds; no save takes so long


def open_regular(path: str | os.PathLike[str], refusal: type[ValueError] = ValueError) -> BufferedReader:
    """The regular file at ``path``, to be read; nothing is waited for, and no device is touched.

    Raises
    ------
    refusal : a folder, a FIFO, a device or a socket
    OSError : the file can't be opened
    """
    _check_regular(path, os.stat(path).st_mode, refusal)
    nonblock = getattr(os, "O_NONBLOCK", 0)  # should a FIFO have taken its place meanwhile
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblock))  # noqa: SIM115
    try:
        _check_regular(path, os.fstat(file.fileno()).st_mode, refusal)
    except ValueError:
        file.close()
        raise
    return file


def _check_regular(path: object, mode: int, refusal: type[ValueError]) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise refusal(f"{path} must be a regular file, got {kind}: copy the contents to a file first")


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, which is there whole or not at all: it is written beside ``path``, flushed to disk, and put in its
    place, with the mode and owner of the file that was there. Links are followed; what is no regular file, such as a
    FIFO or a device, is opened and written to. Parts that a killed process left beside it are removed.

    Raises
    ------
    OSError : the file can't be written
    """
    target = Path(os.path.realpath(path))
    before, replaceable = _before(path, target)
    if not replaceable:
        with open(path, "wb") as file:
            file.write(data)
        return
    _sweep(target)
    part, beside = _part(target)
    try:
        with part:
            if before is not None:
                _make_alike(part.fileno(), before)
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
            if fcntl is not None:  # under its lock, which tells others that it isn't a dead one's
                os.replace(beside, target)
        if fcntl is None:
            os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _before(path: str | os.PathLike[str], target: Path) -> tuple[os.stat_result | None, bool]:
    """What is there, and whether it can be replaced by name. What was opened and then deleted can't: it has a name
    under /proc that leads nowhere. What another save replaces between two looks can."""
    before = _there(path)
    while before is not None and stat.S_ISREG(before.st_mode):
        named, again = _there(target), _there(path)
        if _are_one(named, again):
            return named, True
        if _are_one(before, again):
            return before, False
        before = again
    return before, before is None


def _there(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _are_one(a: os.stat_result | None, b: os.stat_result | None) -> bool:
    # an inode's number is soon another file's
    return a is not None and b is not None and os.path.samestat(a, b) and a.st_ctime_ns == b.st_ctime_ns


def _make_alike(number: int, other: os.stat_result) -> None:
    """Give an open file the owner, group and mode of another, as far as this process may."""
    if not hasattr(os, "fchown"):
        return
    mode, now = stat.S_IMODE(other.st_mode), os.fstat(number)
    if (now.st_uid, now.st_gid) != (other.st_uid, other.st_gid):
        try:
            os.fchown(number, other.st_uid, other.st_gid)
        except OSError:
            mode &= 0o777  # another's right to run as its owner isn't ours to give
            with suppress(OSError):
                os.fchown(number, -1, other.st_gid)
    with suppress(OSError):
        os.fchmod(number, mode)


def _part(target: Path) -> tuple[BinaryIO, Path]:
    """A new file beside ``target``, open and locked, and its path."""
    while True:
        beside = target.with_name(f".{target.name}.{_system()}{secrets.token_hex(4)}.part")
        try:
            file = beside.open("xb")
        except FileExistsError:
            continue
        # another save may take it for a dead one's before it is locked, and remove it
        if _locked(file.fileno()) is not False and beside.exists():
            return file, beside
        file.close()
        beside.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove the parts of saves to ``target`` whose process is gone."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.([0-9a-f]{{8}})[0-9a-f]{{8}}\.part")
    with suppress(OSError):
        for name in os.listdir(target.parent):
            found = ours.fullmatch(name)
            if found is not None:
                with suppress(OSError):  # another save was quicker, or it isn't ours to remove
                    _remove_dead(target.with_name(name), found[1] == _system())


def _remove_dead(part: Path, of_this_system: bool) -> None:
    """Remove a part that nobody holds a lock on. Locks of other systems may not show here, or there may be none: then
    it must be a day old."""
    about = os.lstat(part)
    old = time.time() - about.st_mtime > _FORGOTTEN
    if fcntl is None and old:
        part.unlink()
    if fcntl is None or not stat.S_ISREG(about.st_mode):
        return
    number = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        free = _locked(number)
        if (old and free is not False) or (of_this_system and free):
            part.unlink()
    finally:
        os.close(number)


def _locked(number: int) -> bool | None:
    """Lock an open file; False where another has, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return None
    return True


@cache
def _system() -> str:
    """Eight digits for the running system, between whose processes locks hold."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]
