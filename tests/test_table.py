"""Reading tables: what is accepted, and each refusal by its words."""

import io
import os
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpubp._cli import tables
from gpubp._cli.tables import (
    classes,
    is_classification,
    read_csv,
    read_features,
    read_rows,
    read_table,
    some,
    write_predictions,
)

FLOWERS = "length,width,species\n5.1,3.5,setosa\n6.2,2.9,virginica\n"


def csv_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def npz_file(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "t.npz", **arrays)
    return folder / "t.npz"


@pytest.mark.parametrize(
    "text",
    [
        FLOWERS,
        FLOWERS.replace(",", ";"),
        FLOWERS.replace(",", "\t"),
        FLOWERS.replace(",", ", "),
        FLOWERS.replace("\n", "\r\n"),
        FLOWERS.replace("\n", "\n\n"),
        FLOWERS.replace("setosa", '"setosa"').rstrip("\n"),
        b"\xef\xbb\xbf" + FLOWERS.encode(),
    ],
    ids=[
        "comma",
        "semicolon",
        "tab",
        "spaces",
        "crlf",
        "blank lines",
        "quotes, no last newline",
        "byte order mark",
    ],
)
def test_csv_is_read_however_it_is_spelled(tmp_path: Path, text: str | bytes) -> None:
    table = read_table([csv_file(tmp_path, text)], None, None)
    assert_array_equal(table.x, [[5.1, 3.5], [6.2, 2.9]])
    assert_array_equal(table.y, ["setosa", "virginica"])
    assert table.target == "species"
    assert table.x.dtype == np.float64


def test_the_target_can_stand_anywhere(tmp_path: Path) -> None:
    table = read_table([csv_file(tmp_path, "a,y,b\n1,2,3\n4,5,6\n")], "y", None)
    assert_array_equal(table.x, [[1, 3], [4, 6]])
    assert_array_equal(table.y, [2, 5])


def test_without_a_header_columns_are_numbered(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "1,2,3\n4,5,6\n")
    assert_array_equal(read_table([path], "1", None, header=False).x, [[2, 3], [5, 6]])
    assert read_csv(path, header=False).names == ["1", "2", "3"]


def test_columns_may_be_named_by_whole_numbers(tmp_path: Path) -> None:
    assert read_csv(csv_file(tmp_path, "0,1,y\n.5,.5,.5\n")).names == ["0", "1", "y"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a,b,y\n1,2,3\n1,2\n",
            r"t\.csv, line 3: 3 cells were needed, as in line 1, got 2 \(nothing in column 'y'\)",
        ),
        ("a,b,y\n\n1,2,3,4\n", r"line 3: 3 cells were needed, .* got 4 \(the cells after the last column\)"),
        (
            "a,b,y\n1,2,3\n1,big,3\n",
            "line 3, column 'b': a finite number was needed, got text: mend it, or leave out the line or the column",
        ),
        ("a,b,y\n1_0,2,3\n", "line 2, column 'a': a finite number was needed, got text"),
        ("a,b,y\n1,2,3\n1,nan,3\n", "line 3, column 'b': a finite number was needed, got NaN: mend it"),
        ("a,b,y\n1,1e999,3\n", "line 2, column 'b': a finite number was needed, got infinity"),
        ("a,b,y\n1,,3\n", "line 2, column 'b': a finite number was needed, got an empty cell"),
        ("a,b,y\n1,2,\n", "line 2, column 'y': a target was needed, got an empty cell"),
        ("a,b,y\n1,2,red\n1,2, \n", "line 3, column 'y': a target was needed, got an empty cell"),
        ("a,b,y\n1,2,red\n1,2,NaN\n", "line 3, column 'y': a target was needed, got NaN"),
        (
            "a,b,y\n1,2,7\n1,2,7x\n",
            "line 3, column 'y': a number like those in other lines was needed, got text",
        ),
        ("a,b,y\n1,\0,3\n", "line 2, column 'b': a finite number was needed, got a NUL byte"),
        ("a,b,y\n1,2,r\0d\n", "line 2, column 'y': a target was needed, got a NUL byte"),
        ("a,\0,y\n1,2,3\n", "line 1, column 2: a name was needed, got a NUL byte"),
        ("a,,y\n1,2,3\n", "line 1, column 2: a name was needed, got an empty cell"),
        (
            "5.1,3.5,setosa\n",
            "line 1, column 1: a name was needed, got a number: add a header line, or give --no-head",
        ),
        (
            "a,y,a\n1,2,3\n",
            r"line 1, column 3: each column needs a name of its own, got 'a' again \(first in column 1",
        ),
        ("a,b,y\n", "must have a header line and rows of data, got no rows"),
        ("", "must have a header line and rows of data, got no rows"),
        ("\n\n", "must have a header line and rows of data, got no rows"),
        ("y\n1\n2\n", "must have a feature column besides the target, got 1 column"),
        ('a,y\n"1,2\n3,4\n', "the CSV can't be read, unexpected end of data"),
        (b"a,y\n\xff\xfe,2\n", "must be UTF-8 text, got other bytes: save it as CSV in UTF-8"),
    ],
)
def test_faults_of_a_csv_are_refused_with_their_place(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_table([csv_file(tmp_path, text)], None, None)


def test_a_line_number_counts_quoted_line_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 4, column 'a'"):
        read_table([csv_file(tmp_path, 'a,y\n1,"two\nlines"\nx,one\n')], None, None)


def test_a_missing_target_column_is_named_among_those_there(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="one of the 3 columns length, width, species, got 'kind': name one of them wi"
    ):
        read_table([csv_file(tmp_path, FLOWERS)], "kind", None)
    assert some([str(i) for i in range(99)]) == "0, 1, 2, 3, ..., 98"


def test_the_task_decides_what_a_mixed_target_is(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "a,y\n1,7\n1,7x\n")
    assert_array_equal(read_table([path], None, "classification").y, ["7", "7x"])
    with pytest.raises(ValueError, match="line 3, column 'y': a finite number was needed, got text"):
        read_table([path], None, "regression")


@pytest.mark.parametrize("names", [("x", "y"), ("X", "Y"), ("x_train", "y_train")])
def test_npz_arrays_are_found_by_name(tmp_path: Path, names: tuple[str, str]) -> None:
    x, y = np.arange(24, dtype=np.uint8).reshape(4, 3, 2), np.arange(4)[:, None]
    table = read_table([npz_file(tmp_path, **dict(zip(names, (x, y), strict=True)))], None, None)
    assert_array_equal(table.x, x.reshape(4, 6))
    assert table.x.dtype == np.uint8
    assert_array_equal(table.y, [0, 1, 2, 3])
    assert table.x_test is None


def test_npz_may_bring_its_own_test_part(tmp_path: Path) -> None:
    x, y = np.ones((4, 3)), np.array(["a", "b", "a", "b"])
    table = read_table([npz_file(tmp_path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])], None, None)
    assert_array_equal(table.y, y)
    assert table.x_test is not None
    assert table.y_test is not None
    assert (table.x_test.shape, table.y_test.shape) == ((1, 3), (1,))


X, Y = np.ones((4, 3)), np.ones(4)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": Y}, "must hold an array named x or X or x_train, got y"),
        ({}, "must hold an array named x or X or x_train, got none"),
        ({"x": X}, "must hold an array named y or Y or y_train, got x"),
        ({"x": X, "y": Y, "x_test": X}, "must hold an array named y_test, got x, y, x_test"),
        ({"x": Y, "y": Y}, r"x must have shape \(n, n_0\) or \(n, h, w\) with n >= 1, got \(4,\)"),
        ({"x": X[:0], "y": Y[:0]}, r"x must have shape .*, got \(0, 3\)"),
        ({"x": X, "y": Y[:2]}, r"y must have shape \(n,\) with n = 4, one for each row of x, got \(2,\)"),
        ({"x": X, "y": X}, r"y must have shape \(n,\) with n = 4, .* got \(4, 3\)"),
        ({"x": X.astype(str), "y": Y}, "x must hold numbers, got dtype <U"),
        ({"x": X, "y": Y + 1j}, "y must hold numbers or text, got dtype complex128"),
        (
            {"x": X * np.array([1, 1, np.nan]), "y": Y},
            "x must be finite, got NaN or infinity in row 0, column 2",
        ),
        ({"x": X, "y": Y * np.array([1, np.inf, 1, 1])}, "y must be finite, got NaN or infinity in row 1"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, "x_test must have 3 features, .* got 2"),
        (
            {"x": X.astype(object), "y": Y},
            "must be an .npz file of plain numbers or text, got one that can't be read",
        ),
    ],
)
def test_faults_of_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_table([npz_file(tmp_path, **arrays)], None, None)


def test_npy_pairs_are_read_and_their_kind_is_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    table = read_table([tmp_path / "x.npy", tmp_path / "y.npy"], None, None)
    assert_array_equal(table.x, X)
    assert_array_equal(table.y, Y)
    npz_file(tmp_path, x=X).rename(tmp_path / "z.npy")
    with pytest.raises(ValueError, match=r"z\.npy must be an \.npy file, got the other of NumPy's two kinds"):
        read_table([tmp_path / "z.npy", tmp_path / "y.npy"], None, None)
    (tmp_path / "e.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ValueError, match=r"e\.npz must be an \.npz file of plain numbers or text"):
        read_table([tmp_path / "e.npz"], None, None)
    with pytest.raises(FileNotFoundError):
        read_table([tmp_path / "none.npz"], None, None)


def test_features_to_predict_come_with_or_without_the_target(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "a,y,b\n1,2,3\n4,5,6\n")
    assert_array_equal(read_features(path, None, 3), [[1, 2, 3], [4, 5, 6]])
    assert_array_equal(read_features(path, "y", 2), [[1, 3], [4, 6]])
    assert_array_equal(read_features(path, "elsewhere", 3), [[1, 2, 3], [4, 5, 6]])


def test_features_to_predict_must_be_the_models(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "a,y,b\n1,2,3\n")
    with pytest.raises(
        ValueError, match=r"t\.csv must have the model's 5 features as columns, got 3: keep the columns"
    ):
        read_features(path, None, 5)
    with pytest.raises(ValueError, match="the model's 3 features as columns, got 2: keep the columns"):
        read_features(path, "y", 3)
    with pytest.raises(
        ValueError, match="the model's 2 features as columns, got 3: name the target among them with --t"
    ):
        read_features(path, None, 2)
    assert read_features(npz_file(tmp_path, x_test=X), None, 3).shape == (4, 3)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(ValueError, match="must have 5 features, as the model was trained on, got 3"):
        read_features(tmp_path / "x.npy", None, 5)


@pytest.mark.parametrize(
    ("y", "answer"),
    [
        (np.array(["a", "b"]), True),
        (np.arange(20.0), True),
        (np.arange(21.0), False),
        (np.array([0.0, 0.5]), False),
        (np.array([-1.0, 1.0]), True),
    ],
)
def test_the_target_decides_the_task(y: np.ndarray[Any, Any], answer: bool) -> None:
    assert is_classification(y) is answer


def test_classes_are_sorted_and_named() -> None:
    labels, index = classes(np.array([10.0, -1, 2, 10, 2, -1]), "t")
    assert labels == ("-1", "2", "10")
    assert_array_equal(index, [2, 0, 1, 2, 1, 0])
    assert classes(np.array([0.5, 1, 0.5, 1]), "t")[0] == ("0.5", "1.0")
    assert classes(np.array(["b", "a", "b", "a"]), "t")[0] == ("a", "b")


def test_too_few_and_too_many_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="t: classification needs two classes or more, got 1"):
        classes(np.ones(4), "t")
    with pytest.raises(
        ValueError, match="t: classification needs several rows of each class, got 3 classes in 4 rows"
    ):
        classes(np.array(["a", "b", "c", "a"]), "t")


def test_predictions_are_written_as_short_as_reads_back() -> None:
    file = io.StringIO()
    write_predictions(file, ["label", "a, b"], [["x", 'y"z'], np.array([0.1, 1e-9], np.float32)])
    assert file.getvalue() == 'label,"a, b"\nx,0.1\n"y""z",1e-09\n'


@pytest.mark.slow
def test_a_large_table_is_read_whole(tmp_path: Path) -> None:
    rows = [",".join(f"{value:.6f}" for value in row) for row in np.random.default_rng(0).random((1000, 50))]
    path = csv_file(tmp_path, ",".join(f"c{j}" for j in range(50)) + "\n" + "\n".join(rows * 100))
    assert read_table([path], None, None).x.shape == (100_000, 49)


# ranges, bounds and orders of bytes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a,b,y\n1,2,3\n1,1e39,3\n",
            r"line 3, column 'b': a number within float32's range was needed, got 1e39: mend",
        ),
        (
            "a,b,y\n1,2,3\n1,-3.5e38,3\n",
            r"line 3, column 'b': a number within float32's range was needed, got -3.5e38",
        ),
        (
            "a,b,y\n1,2,1e39\n1,1,3\n",
            r"line 2, column 'y': a number within float32's range was needed, got 1e39",
        ),
    ],
)
def test_cells_beyond_the_dtype_are_refused_with_their_place(tmp_path: Path, text: str, words: str) -> None:
    path = csv_file(tmp_path, text)
    assert_array_equal(read_table([path], None, None, dtype="float64").x[0], [1, 2])
    for read in (
        lambda: read_table([path], None, None, dtype="float32"),
        lambda: read_features(path, None, 3, dtype="float32"),
    ):
        with pytest.raises(ValueError, match=words):
            read()


def test_the_largest_numbers_of_a_dtype_are_taken(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "a,y\n3.4028235e38,1\n-3.4028235e38,2\n")  # float32's largest, as it is printed
    assert np.isfinite(read_table([path], None, None, dtype="float32").x.astype("float32")).all()


def test_arrays_beyond_the_dtype_are_refused_with_their_place(tmp_path: Path) -> None:
    x = np.ones((4, 3))
    x[2, 1] = 1e39
    path = npz_file(tmp_path, x=x, y=np.ones(4))
    with pytest.raises(
        ValueError, match=r"x must be within float32's range, got 1e\+39 in row 2, column 1 \(from 0"
    ):
        read_table([path], None, None, dtype="float32")
    assert_array_equal(read_table([path], None, None).x, x)
    path = npz_file(tmp_path, x=np.ones((4, 3)), y=x[:, 1])
    with pytest.raises(ValueError, match=r"y must be within float32's range, got 1e\+39 in row 2 \(from 0\)"):
        read_table([path], None, None, dtype="float32")


@pytest.mark.parametrize("kind", [">f8", ">f4", ">i4", ">u2", "<f8"])
def test_the_order_of_bytes_makes_no_difference(tmp_path: Path, kind: str) -> None:
    x = np.arange(12).reshape(4, 3)
    table = read_table([npz_file(tmp_path, x=x.astype(kind), y=np.arange(4).astype(kind))], None, None)
    np.save(tmp_path / "x.npy", x.astype(kind))
    for found in (table.x, read_features(tmp_path / "x.npy", None, 3)):
        assert_array_equal(found, x)
        assert found.dtype == np.dtype(kind).newbyteorder("=")
    assert_array_equal(table.y, np.arange(4.0))
    assert table.y.dtype.isnative


def npy(shape: tuple[int, ...], dtype: str, data: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file that says that of itself."""
    file = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = (
        np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    )
    write(file, about)
    return file.getvalue() + data


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((10**6, 10**6), "<f8"), ((2, 10**12), "|u1"), ((3,), "<U500000000")]
)
def test_arrays_larger_than_their_file_are_refused_unread(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, version: tuple[int, int]
) -> None:
    lie = npy(shape, dtype, bytes(64), version)
    (tmp_path / "x.npy").write_bytes(lie)
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", lie)
        archive.writestr("y.npy", npy((2,), "<f8", bytes(16)))
    tracemalloc.start()
    try:
        for read in (
            lambda: read_features(tmp_path / "x.npy", None, 3),
            lambda: read_features(tmp_path / "t.npz", None, 3),
            lambda: read_table([tmp_path / "t.npz"], None, None),
        ):
            with pytest.raises(
                ValueError, match=r"can't be read: shape \(.*\) of .* takes \d+ bytes, 64 are there"
            ):
                read()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_an_npz_that_would_fill_the_memory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((4_000_000, 1)), y=np.zeros(4_000_000))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(tables, "_memory", lambda: 60_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(
            MemoryError, match=r"bomb\.npz holds arrays of 64000000 bytes, of memory 60000000 are free"
        ):
            read_table([path], None, None)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(tables, "_memory", lambda: 70_000_000)
    assert read_table([path], None, None).x.shape == (4_000_000, 1)


def test_the_memory_is_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    free = tables._memory()

    def none(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", none)
    there = tables._memory()
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert tables._memory() is None
    if os.path.exists("/proc/meminfo"):
        assert free is not None
        assert there is not None
        assert 2**20 < free < there


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(npy((2, 2), "|O", bytes(64))),
        lambda path: path.write_bytes(b"\x93NUMPY\x03\x00" + npy((2, 2), "<f8", bytes(32))[8:]),
        lambda path: zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2).writestr(
            "x.npy", npy((1, 1), "<f8", bytes(8))
        ),
        lambda path: zipfile.ZipFile(path, "w").writestr("x", b"no array"),
        lambda path: zipfile.ZipFile(path, "w").writestr("x.npy", b""),
    ],
)
def test_what_numpy_would_not_write_is_refused(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "x.npz"
    spoil(path)
    with pytest.raises(
        ValueError, match=r"x\.npz must be an \.npz file of plain numbers or text, got one that can't be"
    ):
        read_features(path, None, 2)


def test_spoiled_npz_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez_compressed(path, x=np.arange(60.0).reshape(20, 3))
    whole = path.read_bytes()
    for k in range(0, len(whole), 3):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :])
        with suppress(ValueError):  # or what was changed doesn't matter
            read_features(path, None, 3)


# columns by name


NAMES = ("a", "b", "c")


def test_columns_are_taken_by_name(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "c,y,a,b\n3,0,1,2\n6,0,4,5\n")
    assert_array_equal(read_features(path, "y", 3, features=NAMES), [[1, 2, 3], [4, 5, 6]])
    table = read_table([path], "y", None, features=NAMES)
    assert_array_equal(table.x, [[1, 2, 3], [4, 5, 6]])
    assert table.features == NAMES
    assert read_table([path], "y", None).features == ("c", "a", "b")
    assert_array_equal(read_rows(path, "y", 1, 3, None, features=NAMES)[0], [[1, 2, 3]])
    # by their order where one side has no names
    assert_array_equal(read_features(path, "y", 3), [[3, 1, 2], [6, 4, 5]])
    bare = csv_file(tmp_path, "3,1,2\n6,4,5\n")
    assert_array_equal(read_features(bare, None, 3, header=False, features=NAMES), [[3, 1, 2], [6, 4, 5]])
    assert read_table([bare], None, None, header=False).features is None


@pytest.mark.parametrize(
    ("header", "target", "words"),
    [
        (
            "a,b",
            None,
            r"must have the model's 3 features a, b, c as columns, got no c: name the columns as they were",
        ),
        (
            "a,b,C",
            None,
            r"got no c and C besides: give --target 'C' if that is the target, else leave it out",
        ),
        (
            "a,b,c,y",
            None,
            r"as columns, got y besides: give --target 'y' if that is the target, else leave it out",
        ),
        (
            "a,b,c,y,z",
            None,
            r"as columns, got y, z besides: name the columns as they were when it was trained",
        ),
        ("a,b,c,y,z", "z", r"as columns, got y besides: give --target 'y'"),
        ("a,b,c", "c", r"as columns, got no c: name the columns as they were when it was trained"),
        ("1,2,u", None, r"as columns, got no a, b, c and 1, 2, u besides: name the columns"),
    ],
)
def test_columns_missing_and_left_over_are_named(
    tmp_path: Path, header: str, target: str | None, words: str
) -> None:
    path = csv_file(tmp_path, f"{header}\n{','.join('1' * (header.count(',') + 1))}\n")
    with pytest.raises(ValueError, match=words):
        read_features(path, target, 3, features=NAMES)
