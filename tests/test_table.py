"""Reading tables: what is accepted, and each refusal by its words."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpubp._table import (
    classes,
    is_classification,
    read_csv,
    read_features,
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
