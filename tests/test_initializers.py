"""First weights: variances, limits, orthogonality, by their papers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpubp import activations, initializers

N_IN, N_OUT = 300, 200
VARIANCES = {"glorot": 2 / (N_IN + N_OUT), "he": 2 / N_IN, "lecun": 1 / N_IN}


def draw(name: str, shape: tuple[int, ...] = (N_OUT, N_IN), seed: int = 0) -> Any:
    return initializers.get(name)(np.random.default_rng(seed), shape, N_IN, N_OUT)


@pytest.mark.parametrize("family", VARIANCES)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_variances(family: str, kind: str) -> None:
    W = draw(f"{family}_{kind}")
    assert W.shape == (N_OUT, N_IN)
    assert W.dtype == np.float64
    deviation = math.sqrt(VARIANCES[family])
    assert abs(W.mean()) < 5 * deviation / math.sqrt(W.size)
    assert W.var() == pytest.approx(VARIANCES[family], rel=0.03)
    fourth = np.mean((W / deviation) ** 4)
    assert fourth == pytest.approx(1.8 if kind == "uniform" else 3.0, rel=0.05)
    if kind == "uniform":
        assert 0.999 * math.sqrt(3) * deviation < abs(W).max() <= math.sqrt(3) * deviation


def test_normal() -> None:
    assert draw("normal").std() == pytest.approx(1.0, rel=0.01)
    np.testing.assert_allclose(draw("normal(scale=0.1)"), 0.1 * draw("normal"), rtol=1e-15)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1), (1, 1)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    W = draw("orthogonal(gain=2)", shape)
    assert W.shape == shape
    product = W @ W.T if shape[0] <= shape[1] else W.T @ W
    np.testing.assert_allclose(product, 4.0 * np.eye(min(shape)), atol=1e-14)


def test_orthogonal_favours_no_direction() -> None:
    """Without the sign of R's diagonal, QR would give a first entry of one sign only."""
    first = np.array([draw("orthogonal", (2, 2), seed)[0, 0] for seed in range(400)])
    assert abs(first.mean()) < 4 * math.sqrt(0.5 / 400)
    assert first.var() == pytest.approx(0.5, rel=0.15)


def test_orthogonal_needs_a_matrix() -> None:
    with pytest.raises(
        ValueError, match=r"orthogonal needs a matrix, got shape \(4,\): use another initializer"
    ):
        draw("orthogonal", (4,))


def test_zeros() -> None:
    assert not draw("zeros").any()
    assert draw("zeros", (4,)).shape == (4,)


@pytest.mark.parametrize("name", initializers.names())
def test_a_seed_gives_the_same_numbers(name: str) -> None:
    np.testing.assert_array_equal(draw(name), draw(name))
    made = getattr(initializers, name)()
    np.testing.assert_array_equal(made(np.random.default_rng(0), (N_OUT, N_IN), N_IN, N_OUT), draw(name))
    if name != "zeros":
        assert not np.array_equal(draw(name), draw(name, seed=1))


def test_defaults() -> None:
    """Every built-in activation has one that exists; selu keeps LeCun's variance (Klambauer et al. 2017)."""
    by = {name: initializers.default_for(name) for name in activations.names()}
    assert set(by.values()) <= set(initializers.names())
    assert by["selu"] == "lecun_normal"
    assert {by[name] for name in ("relu", "leaky_relu", "gelu", "silu", "elu", "softplus")} == {"he_normal"}
    assert {by[name] for name in ("tanh", "sigmoid", "softmax", "identity", "exp")} == {"glorot_uniform"}
    assert initializers.default_for("leaky_relu(slope=0.2)") == "he_normal"
    assert initializers.default_for("a user's own") == "glorot_uniform"


def test_the_scale_is_kept_over_depth() -> None:
    """Ten layers of relu after he_normal: the mean square of p stays 2, where glorot's would halve at each."""
    rng = np.random.default_rng(0)
    q = p = rng.standard_normal((200, 300))
    for _ in range(10):
        p = q @ initializers.get("he_normal")(rng, (300, 300), 300, 300).T
        q = np.maximum(p, 0)
    assert np.mean(p**2) == pytest.approx(2.0, rel=0.6)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        (
            "he_norml",
            ValueError,
            r"initializer must be one of .*, got 'he_norml': did you mean 'he_normal'\?",
        ),
        ("normal(a)", ValueError, r"initializer 'normal\(a\)' can't be read: normal takes the numbers scale"),
        ("zeros(1)", ValueError, r"can't be read: zeros takes no numbers"),
        ("normal(scale=-1)", ValueError, r"scale must lie in \[0, inf\), got -1"),
        ("orthogonal(gain=nan)", ValueError, r"gain must lie in \(-inf, inf\), got nan"),
        (3, TypeError, r"an initializer must be a name or callable, got int: give a name"),
    ],
)
def test_what_is_refused(name: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        initializers.get(name)
