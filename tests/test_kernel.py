"""Formulas as one CUDA kernel each: the text, what is left to CuPy's own kernels, and the same bits as these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Place

from gpubp import SGD, Adam
from gpubp._devices import why_no_gpu
from gpubp.engines import Generic
from gpubp.engines.cupy import Cupy
from gpubp.tracing.kernel import written
from gpubp.tracing.operations import Untraceable


def test_the_text_of_a_formula() -> None:
    kernel = written(SGD.formula, (5,), "float32", 2, (True,))
    assert kernel.inputs == "float32 i0, float32 i1, float64 i2"
    assert kernel.outputs == "float32 o0"
    assert kernel.operation.splitlines() == [
        "const float v0 = i0;",
        "const float v1 = i1;",
        "const double v2 = i2;",
        "const float v3 = (((float)v2) * ((float)v1));",
        "const float v4 = (((float)v0) - ((float)v3));",
        "o0 = v4;",
    ]


def test_numbers_alone_are_computed_in_double() -> None:
    """As Python does on the other engines: 1 - beta2 in float32 would be off by 5e-5."""
    lines = written(Adam.formula, (5,), "float32", 4, (True,) * 5).operation.splitlines()
    differences = [line for line in lines if " - " in line and "double" in line]
    assert len(differences) == 2  # of each beta from 1
    assert all(line.startswith("const double ") for line in differences)
    on_the_device = written(lambda xp, w, c: (c * c * w,), (5,), "float32", 1, (False,))
    assert "double" not in on_the_device.operation


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda xp, w: (w - xp.sum(w),), "sum is not done element by element"),
        (lambda xp, w: (w if w > 0 else -w,), "a branch on a value"),
        (lambda xp, w: (xp.sum(w),), "a result of another shape"),
        (lambda xp, w: (w * float("inf"),), "number is not done"),
        (lambda xp, w: (w + np.ones(5),), "a ndarray in a formula"),
        (lambda xp, w: (xp.arctan(w),), "arctan can't be written down"),
        (lambda xp, w: w, "a branch on a value"),
    ],
)
def test_what_is_no_arithmetic_on_elements_is_left(formula: Any, words: str) -> None:
    with pytest.raises(Untraceable, match=words):
        written(formula, (5,), "float64", 1, ())


def everything(xp: Any, a: Any, b: Any, c: float) -> tuple[Any, ...]:
    part = xp.where(a > b, xp.sqrt(xp.abs(a)), -b) ** 2 / (c + 2.0 * c)
    signs = xp.where(a > 0.0, 1.0, xp.where(a < 0.0, -1.0, a))
    return part * signs, xp.maximum(a, b) - xp.minimum(part, 0.5) + xp.maximum(part, 0.1) * xp.minimum(b, a)


def test_one_text_whatever_the_shape() -> None:
    """As another text is another second of compiling."""
    texts = {written(Adam.formula, (n,), "float32", 4, (True,) * 5) for n in (1, 2, 1000, 1_000_003)}
    assert len(texts) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_have_the_bits_of_cupys_own_operations(dtype: str) -> None:
    if (reason := why_no_gpu()) is not None:
        pytest.skip(reason)
    place = Place("cupy", "", dtype)
    special = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf]
    drawn = np.random.default_rng(0).standard_normal((2, 50))
    a, b = (np.concatenate([np.repeat(special, 7), drawn[0]]), np.concatenate([special * 7, drawn[1]]))
    arrays = [place.array(a), place.array(b)]
    right = Generic(place.xp).update(everything, arrays, (0.1,))
    ours = Cupy().update(everything, arrays, (0.1,), out=arrays)
    for one, other in zip(ours, right, strict=True):
        np.testing.assert_array_equal(place.host(one), place.host(other))
    with np.errstate(divide="ignore"):  # the larger of 0 and -0 may be either
        np.testing.assert_array_equal(1.0 / place.host(ours[0]), 1.0 / place.host(right[0]))
    assert all(one is array for one, array in zip(ours, arrays, strict=True))
