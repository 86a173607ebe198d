"""Machine code of compiled steps, kept in a folder of the user's from one process to the next.

An entry is one file: a digest, and what numba pickles of one compiled function. Its name and its digest cover all that
it depends on (the text, gpubp's own files, types, processor, versions), so that what is damaged or stale is compiled
anew. Python's texts aren't kept, as whoever may write a ``.py`` or ``.pyc`` there would run code of theirs.

Loading an entry runs it, and the digest is no secret. So the folder must belong to the user and be writable by nobody
else, and so must all folders above it (root's will do, and folders like /tmp, where nobody moves what is another's).
Windows has no such modes; there it is the user's own folder of local data, which Windows guards.

Whatever fails here costs time: code is compiled in memory, and the log says why.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import shutil
import stat
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["folder", "keep", "name_of"]

logger = logging.getLogger("gpubp")

_FORMAT = b"gpubp 1\n"
_ROOM = 256 << 20  # bytes of all entries; one takes 0.2 to 1 MB
_DEAD = 3600.0  # seconds; writing a file takes less
# settings of numba that change what it compiles to
_SETTINGS = ["BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE", "USING_SVML"]


def folder() -> Path:
    """Where entries are kept, whether it exists or not.

    Raises
    ------
    RuntimeError : the user has no home folder
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = base if base.is_absolute() else Path.home() / ".cache"  # as that standard has it
    return base / "gpubp"


def name_of(source: str) -> str:
    """The name of a text as a module, and of its entries' files up to a hyphen."""
    return f"gpubp_{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def keep(function: Any, source: str) -> None:
    """Have numba's dispatcher of a text's function look for machine code in the folder before it compiles, and keep
    there what it compiled."""
    try:
        function._cache = _Entries(source, _safe_folder())
    except (OSError, RuntimeError) as reason:
        logger.warning("compiled steps aren't kept: %s", _line(reason))


class _Entries:
    """The kept machine code of one text, in the place of numba's own cache of files."""

    def __init__(self, source: str, where: Path) -> None:
        self.name, self.where = name_of(source), where
        self.source = hashlib.sha256(source.encode()).digest()

    @property
    def cache_path(self) -> str:
        return str(self.where)

    def load_overload(self, signature: Any, target: Any) -> Any:
        """numba's result of compiling for these types; None where it isn't kept."""
        from numba.core.compiler import CompileResult

        target.refresh()
        path, key = self._path_and_key(signature, target.codegen())
        try:
            kept = _read(path, key)
            return None if kept is None else CompileResult._rebuild(target, *pickle.loads(kept))
        except Exception as error:  # of the system, pickle, numba or LLVM
            logger.info("kept machine code is made anew: %s: %s", path.name, _line(error))
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep numba's result of compiling for these types."""
        from numba.core.serialize import dumps

        try:
            if result.lifted or result.library.has_dynamic_globals:
                raise ValueError("it holds addresses of this process")
            if _OURS is None or _our_files() != _OURS:
                raise ValueError("gpubp's files can't be read, or have changed since it was loaded")
            path, key = self._path_and_key(signature, result.codegen)
            _write(path, key, dumps(result._reduce()))
            _sweep(path)
        except Exception as error:  # the code is there all the same
            logger.info("compiled steps aren't kept: %s", _line(error))

    def enable(self) -> None:
        """As numba asks; there is nothing to do."""

    disable = flush = enable

    def _path_and_key(self, signature: Any, codegen: Any) -> tuple[Path, bytes]:
        import llvmlite
        import numba
        import numpy as np

        settings = [getattr(numba.config, name, None) for name in _SETTINGS]
        versions = [
            sys.version,
            sys.implementation.cache_tag,
            numba.__version__,
            llvmlite.__version__,
            np.__version__,
        ]
        told = repr([self.source, _OURS, signature, codegen.magic_tuple(), versions, settings])
        key = hashlib.sha256(told.encode())
        return self.where / f"{self.name}-{key.hexdigest()[:16]}.code", key.digest()


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _our_files() -> str | None:
    """The digest of the files of what is compiled with every step; None where they can't be read."""
    try:
        files = sorted(Path(__file__).parent.glob("*.py"))
        texts = [file.read_bytes() for file in files]
    except OSError:
        return None
    return hashlib.sha256(b"\0".join(texts)).hexdigest() if texts else None


_OURS = _our_files()  # as they were loaded: another version may take their place while this process runs


def _safe_folder() -> Path:
    """The folder, made if need be, with no symlinks in its path.

    Raises
    ------
    OSError : it can't be made, or others could change what is in it
    RuntimeError : the user has no home folder
    """
    where = Path(os.path.realpath(folder()))
    for path in (*reversed(where.parents), where):
        path.mkdir(0o700, exist_ok=True)
        if sys.platform != "win32":
            _check(path.stat(), path, above=path != where)
    if sys.platform != "win32":
        with suppress(OSError):  # a folder that can't be changed may be read
            where.chmod(0o700)
    return where


def _check(found: os.stat_result, path: Path, above: bool = False) -> None:
    """Refuse what others could change. ``above``: a folder above that of the entries."""
    if sys.platform == "win32":
        return
    mode, user = found.st_mode, os.geteuid()
    shared = mode & 0o022 and not (above and mode & stat.S_ISVTX)
    if shared or (found.st_uid != user and not (above and found.st_uid == 0)):
        raise PermissionError(
            f"{path} must belong to user {user} and be writable by nobody else, as code is loaded from there, "
            f"got owner {found.st_uid} and mode {stat.S_IMODE(mode):o}: use chown or chmod, or remove it"
        )


def _read(path: Path, key: bytes) -> bytes | None:
    """What is kept under that key; None where there is no file.

    Raises
    ------
    OSError : the file can't be read, or others could change it
    ValueError : it isn't as it was written
    """
    # neither waits for a pipe's other end nor follows a symlink
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        _check(found, path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _ROOM:
            raise ValueError("it is no file, or too long to be one of gpubp's")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read()
    finally:
        os.close(descriptor)
    head, kept = content[: len(_FORMAT) + 32], content[len(_FORMAT) + 32 :]
    if head != _head(key, kept):
        raise ValueError("it isn't as it was written")
    with suppress(OSError):
        os.utime(path)  # those used last stay longest
    return kept


def _head(key: bytes, kept: bytes) -> bytes:
    return _FORMAT + hashlib.sha256(key + kept).digest()


def _write(path: Path, key: bytes, kept: bytes) -> None:
    """Keep it under that key, whole or not at all."""
    descriptor, part = tempfile.mkstemp(".part", f"{path.stem}-", path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_head(key, kept) + kept)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def _sweep(newest: Path) -> None:
    """Remove what gpubp wrote and needs no more: old files, those of dead writers, and entries beyond the room."""
    where = newest.parent
    for pattern in ("gpubp_*.py", "__pycache__/gpubp_*"):  # once modules, with numba's cache beside them
        for old in where.glob(pattern):
            _remove(old)
    with suppress(OSError):
        (where / "__pycache__").rmdir()
    for part in where.glob("gpubp_*.part"):
        with suppress(OSError):
            if part.lstat().st_mtime < time.time() - _DEAD:
                _remove(part)
    entries = []
    for entry in where.glob("gpubp_*.code"):
        with suppress(OSError):
            found = entry.lstat()
            entries.append((entry == newest, found.st_mtime, found.st_size, entry))
    room = _ROOM
    for _, _, size, entry in sorted(entries, reverse=True):
        room -= size
        if room < 0 and entry != newest:
            _remove(entry)


def _remove(path: Path) -> None:
    with suppress(OSError):  # another process was first, or uses it
        path.unlink()
