"""A copy of gpubp, and faults planted there one at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gpubp


class Fault(NamedTuple):
    """A text that occurs once in a module of gpubp, and what is put in its place."""

    module: str
    right: str
    wrong: str
    what: str

    def __str__(self) -> str:
        return f"{self.module}: {self.what}"


def copied(folder: Path) -> Path:
    """The package, copied into that folder."""
    package = Path(gpubp.__file__).parent
    return shutil.copytree(package, folder / "gpubp", ignore=shutil.ignore_patterns("__pycache__"))


@contextmanager
def planted(fault: Fault, package: Path) -> Iterator[None]:
    """While it is open, the copy has the fault."""
    file = package / fault.module
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.right) == 1
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")
