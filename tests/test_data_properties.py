"""What must hold for any data, split, order and file that Hypothesis can think of."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="Hypothesis is not installed: ci/test adds it")
from hypothesis import given, settings
from hypothesis import strategies as st

import gpubp
from gpubp import CheckpointError, Standardizer
from gpubp.training.data import Rows, minibatches, permutation, split


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.sampled_from(["float32", "float64"]), st.integers(0, 2**32))
def test_inverting_undoes(rows: int, columns: int, dtype: str, seed: int) -> None:
    drawn = np.random.default_rng(seed)
    x = (drawn.normal(scale=10.0 ** drawn.integers(-3, 4), size=(rows, columns))).astype(dtype)
    scaler = Standardizer.fit(x)
    size = np.abs(x).max(axis=0)
    assert (np.abs(scaler.invert(scaler.apply(x)) - x) <= 8 * np.finfo(dtype).eps * size).all()
    assert scaler.apply(x).dtype == dtype


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_splits(n: int, fraction: float, seed: int) -> None:
    rows = Rows(np.arange(n)[:, None], 10 * np.arange(n), None)
    wanted = round(n * fraction)
    if wanted in (0, n):
        with pytest.raises(ValueError, match=rf"must leave rows on both sides, got {fraction:g} of {n} rows"):
            split(rows, fraction, seed)
        return
    kept, held = split(rows, fraction, seed)
    assert (held.x.shape[0], held.s) == (wanted, None)
    both = np.concatenate([kept.x[:, 0], held.x[:, 0]])
    assert sorted(both) == list(range(n))
    for part in (kept, held):
        np.testing.assert_array_equal(part.y, 10 * part.x[:, 0])
        assert (np.diff(part.x[:, 0]) > 0).all()
    np.testing.assert_array_equal(split(rows, fraction, seed)[1].x, held.x)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**70), st.integers(1, 10**6))
def test_an_order_depends_on_seed_and_epoch_alone(n: int, seed: int, epoch: int) -> None:
    order = permutation(n, seed, epoch)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order, np.random.default_rng([seed, epoch]).permutation(n))


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 120))
def test_minibatches(n: int, batch_size: int) -> None:
    order = np.random.default_rng(n).permutation(n)
    parts = list(minibatches(order, batch_size))
    np.testing.assert_array_equal(np.concatenate(parts), order)
    assert [len(part) for part in parts[:-1]] == [batch_size] * (len(parts) - 1)
    assert len(parts[-1]) == n - batch_size * (len(parts) - 1) > 0


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, framed: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(len(data).to_bytes(8, "little") + data if framed else data)
    with pytest.raises(CheckpointError):
        gpubp.load(path)
