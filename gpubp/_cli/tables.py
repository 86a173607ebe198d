"""Tables in and out: CSV, .npz and .npy files to NumPy arrays, predictions to CSV."""

from __future__ import annotations

import csv
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from gpubp._cli.options import MOST_CLASSES
from gpubp._numerics import native

_SEPARATORS = ",;\t"


class Table(NamedTuple):
    """What a network is trained on: features ``x`` (n, n_0) and target ``y`` (n,), numbers or text.

    ``features`` are the names of a CSV file's columns in ``x``; ``x_test`` and ``y_test`` are there where the file
    brings its own test part.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    target: str
    features: tuple[str, ...] | None = None
    x_test: NDArray[Any] | None = None
    y_test: NDArray[Any] | None = None


@dataclass(frozen=True)
class Csv:
    """The cells of a CSV file, as text; ``lines[i]`` is the line on which row i ends, ``header`` whether columns have
    names of their own, ``dtype`` what numbers must fit."""

    path: Path
    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    header: bool
    dtype: str

    def column(self, name: str | None) -> int:
        """The number of the column of that name; the last where ``name`` is None."""
        if name is None:
            return len(self.names) - 1
        if name not in self.names:
            raise ValueError(
                f"{self.path}, line 1: the target must be one of the {len(self.names)} columns "
                f"{some(self.names)}, got {name!r}: name one of them with --target"
            )
        return self.names.index(name)

    def numbers(self, j: int) -> NDArray[np.float64]:
        """Column j, every cell a finite number in the dtype's range, else a ValueError that names line and column."""
        cells = [row[j] for row in self.rows]
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            values = np.full(len(cells), math.nan)
        if np.isfinite(values).all() and "_" not in "".join(cells):  # float reads "1_0" as 10
            beyond = ~np.isfinite(_narrowed(values, self.dtype))
            if not beyond.any():
                return values
            i = int(beyond.argmax())
            raise self._refusal(i, j, f"a number within {self.dtype}'s range", cells[i])
        i = next(i for i, cell in enumerate(cells) if _fault(cell))
        raise self._refusal(i, j, "a finite number", _fault(cells[i]))

    def features(
        self, target: int | None, known: Sequence[str] | None = None
    ) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
        """Every column but ``target``, (n, n_0), and their names if they have some; in the order of the names
        ``known``, if both are there.

        Raises
        ------
        ValueError : columns missing or left over, by name; a cell that is no number
        """
        wanted = [j for j in range(len(self.names)) if j != target]
        if self.header and known is not None:
            own = {self.names[j]: j for j in wanted}
            missing = [name for name in known if name not in own]
            extra = [name for name in own if name not in set(known)]
            if missing or extra:
                came = [f"no {some(missing)}"] * bool(missing) + [f"{some(extra)} besides"] * bool(extra)
                remedy = "name the columns as they were when it was trained"
                if len(extra) == 1:
                    remedy = f"give --target {extra[0]!r} if that is the target, else leave it out"
                raise ValueError(
                    f"{self.path} must have the model's {len(known)} features {some(known)} as columns, got "
                    f"{' and '.join(came)}: {remedy}"
                )
            wanted = [own[name] for name in known]
        x = np.empty((len(self.rows), len(wanted)))
        for i, j in enumerate(wanted):
            x[:, i] = self.numbers(j)
        return x, tuple(self.names[j] for j in wanted) if self.header else None

    def labels(self, j: int, task: str | None) -> NDArray[Any]:
        """Column j as a target: numbers where every cell is one, else text; a mix only for classification."""
        faults = [_fault(row[j]) for row in self.rows]
        if not any(faults) or task == "regression":
            return self.numbers(j)
        for i, fault in enumerate(faults):
            if fault not in (None, "text"):
                raise self._refusal(i, j, "a target", fault)
        if None in faults and task is None:
            words, remedy = "a number like those in other lines", "mend it, give --task classification"
            raise self._refusal(faults.index("text"), j, words, "text", remedy)
        return np.array([row[j] for row in self.rows])

    def _refusal(self, i: int, j: int, wanted: str, came: str | None, remedy: str = "mend it") -> ValueError:
        where = f"{self.path}, line {self.lines[i]}, column {self.names[j]!r}"
        return ValueError(
            f"{where}: {wanted} was needed, got {came}: {remedy}, or leave out the line or the column"
        )


def read_csv(path: Path, header: bool = True, dtype: str = "float64") -> Csv:
    """Read UTF-8 text, separated by whichever of comma, semicolon and tab its first line has most of.

    Without a header the columns are named 1, 2, ... Blank lines are skipped. Numbers will have to fit ``dtype``.

    Raises
    ------
    OSError : the file can't be opened
    ValueError : not text, no rows, a ragged row, or a header that doesn't name every column once
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            first = file.readline()
            separator = max(_SEPARATORS, key=first.count)
            reader = csv.reader(chain([first], file), delimiter=separator, skipinitialspace=True, strict=True)
            for row in reader:
                if row and rows and len(row) != len(rows[0]):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(rows[0])} cells were needed, as in line {lines[0]}, "
                        f"got {len(row)}{_last_column(rows[0], row, header)}: mend the line or leave it out"
                    )
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
        except UnicodeDecodeError:
            raise ValueError(f"{path} must be UTF-8 text, got other bytes: save it as CSV in UTF-8") from None
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: the CSV can't be read, {error}: mend the line"
            ) from None
    names = rows.pop(0) if rows and header else [str(j + 1) for j in range(len(rows[0]) if rows else 0)]
    if names and header:
        _check_header(path, names, lines.pop(0))
    if not rows:
        raise ValueError(f"{path} must have {'a header line and ' * header}rows of data, got no rows")
    return Csv(path, names, rows, lines, header, dtype)


def _check_header(path: Path, names: list[str], line: int) -> None:
    for j, name in enumerate(names):
        where = f"{path}, line {line}, column {j + 1}"
        if "\0" in name:
            raise ValueError(f"{where}: a name was needed, got a NUL byte: save the file as plain text")
        if not name:
            raise ValueError(
                f"{where}: a name was needed, got an empty cell: name the column or leave it out"
            )
        if not name.isdigit() and _fault(name) is None:  # 0, 1, 2, ... are common names
            raise ValueError(
                f"{where}: a name was needed, got a number: add a header line, or give --no-header"
            )
        if name in names[:j]:
            raise ValueError(
                f"{where}: each column needs a name of its own, got {name!r} again (first in column "
                f"{names.index(name) + 1}): rename one, or give --no-header if line 1 is data"
            )


def read_table(
    paths: Sequence[Path],
    target: str | None,
    task: str | None,
    header: bool = True,
    dtype: str = "float64",
    features: Sequence[str] | None = None,
) -> Table:
    """Read examples to train on: a CSV file, an .npz file, or two .npy files (features, target).

    Numbers must fit ``dtype``. Where a model's ``features`` are named, a CSV file's columns are taken by name.

    Raises
    ------
    OSError, ValueError : a file can't be read, or isn't what is needed; the sentence says where
    MemoryError : its arrays don't fit the memory
    """
    if len(paths) == 2:
        x, y = (_load(path) for path in paths)
        return Table(_matrix(x, str(paths[0]), dtype), _vector(y, len(x), str(paths[1]), dtype), "y")
    (path,) = paths
    if path.suffix.lower() != ".npz":
        cells = read_csv(path, header, dtype)
        j = cells.column(target)
        if len(cells.names) == 1:
            raise ValueError(f"{path} must have a feature column besides the target, got 1 column")
        x, names = cells.features(j, features)
        return Table(x, cells.labels(j, task), cells.names[j], names)
    arrays = _load(path)
    x, y = _pick(path, arrays, "x", "X", "x_train"), _pick(path, arrays, "y", "Y", "y_train")
    table = Table(_matrix(x, f"{path}, x", dtype), _vector(y, len(x), f"{path}, y", dtype), "y")
    if "x_test" not in arrays:
        return table
    x, y = arrays["x_test"], _pick(path, arrays, "y_test")
    test = (
        _matrix(x, f"{path}, x_test", dtype, table.x.shape[1]),
        _vector(y, len(x), f"{path}, y_test", dtype),
    )
    return table._replace(x_test=test[0], y_test=test[1])


def read_features(
    path: Path,
    target: str | None,
    n_0: int,
    header: bool = True,
    dtype: str = "float64",
    features: Sequence[str] | None = None,
) -> NDArray[Any]:
    """Read rows to predict, (n, n_0), numbers that fit ``dtype``: CSV, .npz (x, X or x_test) or .npy.

    A CSV file has the model's ``features`` as columns, by name, or, where one of them has no names, n_0 columns in
    their order; and it may have the target column where it is named.

    Raises
    ------
    OSError, ValueError, MemoryError : as ``read_table``
    """
    if path.suffix.lower() == ".npy":
        return _matrix(_load(path), str(path), dtype, n_0)
    if path.suffix.lower() == ".npz":
        return _matrix(_pick(path, _load(path), "x", "X", "x_test"), str(path), dtype, n_0)
    cells = read_csv(path, header, dtype)
    # a target that is named may be missing, since rows to predict often come without
    left_out = cells.names.index(target) if target in cells.names else None
    n = len(cells.names) - (left_out is not None)
    if n != n_0 and (features is None or not header):
        remedy = "keep the columns it was trained on"
        if n == n_0 + 1 and left_out is None:
            remedy = "name the target among them with --target"
        raise ValueError(f"{path} must have the model's {n_0} features as columns, got {n}: {remedy}")
    return cells.features(left_out, features)[0]


def read_rows(
    path: Path,
    target: str | None,
    rows: int,
    n_0: int,
    labels: Sequence[str] | None,
    header: bool = True,
    features: Sequence[str] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first ``rows`` examples for a model: x (n, n_0) and y (n,), numbers, or each row's place among ``labels``.

    Raises
    ------
    OSError, ValueError : as ``read_table``, or another number of features, or a class that the model doesn't know
    """
    table = read_table(
        [path], target, "classification" if labels else "regression", header, features=features
    )
    if table.x.shape[1] != n_0:
        raise ValueError(
            f"{path} must have the model's {n_0} features as columns, and the target, got {table.x.shape[1]} besides "
            f"{table.target!r}: keep the columns it was trained on, and name the target with --target"
        )
    x, y = table.x[:rows], table.y[:rows]
    if labels is None:
        return x, y
    names = [str(v) if y.dtype.kind == "U" or v % 1 else str(int(v)) for v in y]
    for name in names:
        if name not in labels:
            raise ValueError(
                f"{path}: the target {table.target!r} must be one of {some(labels)}, got {name!r}: name the target "
                "with --target"
            )
    return x, np.array([labels.index(name) for name in names])


def is_classification(y: NDArray[Any]) -> bool:
    """Whether a target holds class labels: text, or whole numbers with at most ``MOST_CLASSES`` distinct values."""
    return y.dtype.kind == "U" or (bool((y == np.floor(y)).all()) and len(np.unique(y)) <= MOST_CLASSES)


def classes(y: NDArray[Any], where: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The class labels, sorted, as text; and each row's class, (n,) int64.

    Raises
    ------
    ValueError : fewer than two classes, or about as many as rows
    """
    values, index = np.unique(y, return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"{where}: classification needs two classes or more, got 1: give another --target")
    if len(values) > max(2, len(y) // 2):
        raise ValueError(
            f"{where}: classification needs several rows of each class, got {len(values)} classes in {len(y)} rows: "
            "give another --target, or --task regression if they are amounts"
        )
    return as_text(values), index.astype(np.int64)


def as_text(values: NDArray[Any]) -> tuple[str, ...]:
    """Targets as class labels are written: text as it is, whole numbers without a point."""
    whole = values.dtype.kind != "U" and bool((values == np.floor(values)).all())
    return tuple(str(int(value)) if whole else str(value) for value in values)


def write_predictions(
    file: TextIO, names: Sequence[str], columns: Iterable[Sequence[str] | NDArray[Any]]
) -> None:
    """Write CSV: ``names``, then a row for each entry of the columns, numbers as short as reads back the same."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*(np.asarray(column).astype(str).tolist() for column in columns), strict=True))


def _fault(cell: str) -> str | None:
    """What keeps a cell from being a finite number, in words."""
    if "\0" in cell:
        return "a NUL byte"
    if not cell or cell.isspace():
        return "an empty cell"
    try:
        value = float(cell)
    except ValueError:
        return "text"
    if "_" in cell:
        return "text"
    return None if math.isfinite(value) else "NaN" if math.isnan(value) else "infinity"


def _last_column(first: list[str], row: list[str], header: bool) -> str:
    """Where a ragged row stops or goes on."""
    if len(row) > len(first):
        return " (the cells after the last column)"
    return f" (nothing in column {first[len(row)]!r})" if header else f" (nothing in column {len(row) + 1})"


def some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])}, ..., {names[-1]}"


def _load(path: Path) -> Any:
    """The array of an .npy file, or the arrays of an .npz file by name; nothing is unpickled, and memory is taken only
    for what is there."""
    kind = path.suffix.lower()
    with path.open("rb") as file:
        try:
            _check_declared(path, file)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray) == (kind == ".npy"):
                return loaded if kind == ".npy" else dict(loaded)
        except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{path} must be an {kind} file of plain numbers or text, got one that can't be read: {error}"
            ) from error
    raise ValueError(f"{path} must be an {kind} file, got the other of NumPy's two kinds: rename it")


def _check_declared(path: Path, file: BinaryIO) -> None:
    """Refuse arrays that are larger than what is stored of them, or, all together, than the memory.

    An .npz file of kilobytes can declare terabytes; they are counted before any of it is expanded.
    """
    start = file.read(4)
    file.seek(0)
    if start not in (b"PK\3\4", b"PK\5\6"):  # as NumPy tells them apart
        _declared(file, os.fstat(file.fileno()).st_size)
        file.seek(0)
        return
    total = 0
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member.filename} is compressed as NumPy doesn't")
            with archive.open(member) as stored:
                total += _declared(stored, member.file_size)
    room = _memory()
    if room is not None and total > room:
        raise MemoryError(f"{path} holds arrays of {total} bytes, of memory {room} are free: take fewer rows")
    file.seek(0)


def _declared(file: IO[bytes], size: int) -> int:
    """The bytes of the array that an .npy file of that size declares, if they are there; reads the header alone."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # a later one is for names of fields, which numbers don't have
        raise ValueError(f"version {version} of NumPy's format isn't for plain numbers or text")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    needed = math.prod(shape) * dtype.itemsize
    if needed > size - file.tell():
        raise ValueError(f"shape {shape} of {dtype} takes {needed} bytes, {size - file.tell()} are there")
    return needed


def _memory() -> int | None:
    """Bytes of memory that are free, or, where the system doesn't say, that there are; None where it says neither."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _narrowed(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _pick(path: Path, arrays: dict[str, NDArray[Any]], *names: str) -> NDArray[Any]:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise ValueError(
        f"{path} must hold an array named {' or '.join(names)}, got {some(list(arrays)) or 'none'}"
    )


def _matrix(x: NDArray[Any], where: str, dtype: str, n_0: int | None = None) -> NDArray[Any]:
    """Features (n, n_0) as they came, in the machine's order of bytes, images flattened."""
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{where} must hold numbers, got dtype {x.dtype}")
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(
            f"{where} must have shape (n, n_0) or (n, h, w) with n >= 1, got {x.shape}: one example per row"
        )
    x = native(x.reshape(len(x), -1))
    if n_0 not in (None, x.shape[1]):
        raise ValueError(f"{where} must have {n_0} features, as the model was trained on, got {x.shape[1]}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        i, j = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"{where} must be finite, got NaN or infinity in row {i}, column {j} (both from 0)")
    _check_range(x, where, dtype)
    return x


def _vector(y: NDArray[Any], n: int, where: str, dtype: str) -> NDArray[Any]:
    """A target (n,): text as it is, numbers as float64."""
    if y.shape not in ((n,), (n, 1)):
        raise ValueError(f"{where} must have shape (n,) with n = {n}, one for each row of x, got {y.shape}")
    if y.dtype.kind not in "biufU":
        raise ValueError(f"{where} must hold numbers or text, got dtype {y.dtype}")
    y = native(y.reshape(n))
    if y.dtype.kind == "U":
        return y
    if not np.isfinite(y).all():
        raise ValueError(
            f"{where} must be finite, got NaN or infinity in row {np.argmin(np.isfinite(y))} (from 0)"
        )
    _check_range(y, where, dtype)
    return y.astype(np.float64)


def _check_range(x: NDArray[Any], where: str, dtype: str) -> None:
    """Refuse numbers that are infinite in ``dtype``."""
    ends = np.array([x.min(), x.max()])
    if x.dtype.kind == "f" and not np.isfinite(_narrowed(ends, dtype)).all():
        place = np.argwhere(~np.isfinite(_narrowed(x, dtype)))[0]
        spelled = ", ".join(f"{axis} {k}" for axis, k in zip(("row", "column"), place, strict=False))
        raise ValueError(
            f"{where} must be within {dtype}'s range, got {x[tuple(place)]:g} in {spelled} (from 0)"
        )
