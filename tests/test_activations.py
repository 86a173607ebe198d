"""Activations: values, derivatives, both ends, complex numbers, and a user's own."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import Place
from reference import HIDDEN, SCALAR, SLOPE, bare

from gpubp import Activation, Network, activations

POINTS = np.array([0.0, *(sign * p for p in (1e-9, 0.1, 0.6, 1.0, 3.0, 7.5, 36.0, 1e4) for sign in (1, -1))])
BY_ELEMENT = [name for name in HIDDEN if name != "softmax"]
ANALYTIC = {"identity", "sigmoid", "tanh", "softplus", "gelu_tanh", "silu", "exp", "softmax"}


def value(name: str, p: Any) -> Any:
    return activations.get(name).value(np, p)


@pytest.mark.parametrize("name", BY_ELEMENT)
def test_values_from_end_to_end(place: Place, name: str) -> None:
    p = place.array(POINTS)
    with np.errstate(over="ignore"):
        q = activations.get(name).value(place.xp, p)
    assert place.here(q)
    right = np.array([SCALAR[bare(name)](float(p)) for p in place.host(p)])
    ours, eps = place.host(q), place.eps
    finite = np.isfinite(right) & (right <= np.finfo(place.dtype).max)
    np.testing.assert_allclose(ours[finite], right[finite], rtol=16 * eps, atol=4 * eps)
    np.testing.assert_array_equal(ours[~finite], math.inf)
    assert finite.all() or name == "exp"


def test_softmax_from_end_to_end(place: Place) -> None:
    p = np.array([[0.5, -1.0, 2.0], [1e4, 0.0, -1e4], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]])
    q = activations.get("softmax").value(place.xp, place.array(p))
    assert place.here(q)
    sum_e = math.exp(0.5) + math.exp(-1.0) + math.exp(2.0)
    first = [math.exp(0.5) / sum_e, math.exp(-1.0) / sum_e, math.exp(2.0) / sum_e]
    right: Any = [first, [1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(place.host(q), right, rtol=4 * place.eps)


def derivative(name: str, p: Any) -> Any:
    """sigma'(p), or row by row the full Jacobian's product with ones, by the activation's own formula."""
    sigma = activations.get(name)
    q = sigma.value(np, p)
    if sigma.derivative is not None:
        return sigma.derivative(np, p, q)
    assert sigma.pullback is not None
    return sigma.pullback(np, p, q, np.ones_like(p))


@pytest.mark.parametrize("name", BY_ELEMENT)
def test_derivatives(name: str) -> None:
    p = np.linspace(-9.0, 9.0, 361)[1::2][:, None]  # leaves out the kink at 0
    ours = derivative(name, p)
    if activations.get(name).analytic:
        np.testing.assert_allclose(ours, value(name, p + 1e-30j).imag / 1e-30, rtol=1e-12, atol=1e-14)
    else:
        h = 1e-3
        near = (value(name, p + h) - value(name, p - h)) / (2 * h)
        far = (value(name, p + 2 * h) - value(name, p - 2 * h)) / (4 * h)
        np.testing.assert_allclose(ours, (4 * near - far) / 3, rtol=1e-10, atol=1e-10)


def test_softmax_pulls_back_by_its_jacobian() -> None:
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal((2, 4, 3))
    sigma = activations.get("softmax")
    q = sigma.value(np, p)
    assert sigma.pullback is not None
    right = [(np.diag(row) - np.outer(row, row)) @ g_row for row, g_row in zip(q, g, strict=True)]
    np.testing.assert_allclose(sigma.pullback(np, p, q, g), right, rtol=1e-13, atol=1e-15)
    step = [value("softmax", p + 1e-30j * e).imag / 1e-30 for e in np.eye(3)]
    np.testing.assert_allclose(sigma.pullback(np, p, q, g), np.einsum("kbl,bl->bk", step, g), atol=1e-15)


ENDS = {
    **dict.fromkeys(["relu", "gelu", "gelu_tanh", "silu", "softplus", "elu"], (0.0, 1.0)),
    "identity": (1.0, 1.0),
    "leaky_relu": (SLOPE, 1.0),
    "selu": (0.0, 1.0507009873554805),
    "sigmoid": (0.0, 0.0),
    "tanh": (0.0, 0.0),
    "softsign": (1.0001e4**-2, 1.0001e4**-2),
    "exp": (0.0, math.inf),
}


@pytest.mark.parametrize("name", BY_ELEMENT)
def test_derivatives_at_both_ends(place: Place, name: str) -> None:
    left, right = ENDS[bare(name)]
    sigma, p = activations.get(name), place.array([[-1e4, 1e4]])
    with np.errstate(over="ignore"):
        q = sigma.value(place.xp, p)
    g = place.array([[1.0, 1.0]])
    if sigma.derivative is not None:
        ours = sigma.derivative(place.xp, p, q)
    else:
        assert sigma.pullback is not None
        ours = sigma.pullback(place.xp, p, q, g)
    assert place.here(ours)
    np.testing.assert_allclose(place.host(ours), [[left, right]], rtol=4 * place.eps)


def test_exp_overflows_to_inf_without_a_warning(place: Place) -> None:
    net = Network((1, 1, 1), hidden="exp", output="exp", cost="poisson", bias=False)
    w, x, y = (place.array(a) for a in ([1.0, 1.0], [[1e4]], [[1.0]]))
    p, q, *_ = net.forward(w, x)
    assert [float(a[0, 0]) for a in (*p, *q)] == [1e4, 1e4, math.inf, 1e4, math.inf, math.inf]
    chains = net.backward(w, x, y)
    assert not np.isfinite(place.host(chains.cost))
    assert not np.isfinite(place.host(chains.gradient)).any()


def test_gelu_by_erf_and_by_tanh_differ_as_published() -> None:
    p = np.linspace(-6.0, 6.0, 2401)
    assert np.max(np.abs(value("gelu", p) - value("gelu_tanh", p))) == pytest.approx(4.73e-4, rel=1e-2)


def test_which_are_analytic() -> None:
    assert {name for name in activations.names() if activations.get(name).analytic} == ANALYTIC


@pytest.mark.parametrize("name", sorted(ANALYTIC))
def test_analytic_formulas_hold_for_complex_numbers(name: str) -> None:
    """The derivative is the same along the real and the imaginary axis (Cauchy and Riemann), as it would not be if
    anything were conjugated."""
    rng = np.random.default_rng(3)
    p = rng.standard_normal((5, 3)) + 0.5j * rng.standard_normal((5, 3))
    np.testing.assert_allclose(value(name, p.real + 0j), value(name, p.real), rtol=1e-14, atol=1e-15)
    h = 1e-5
    for direction in rng.standard_normal((2, 5, 3)):
        along, across = (
            (value(name, p + h * turn * direction) - value(name, p - h * turn * direction)) / (2 * h * turn)
            for turn in (1, 1j)
        )
        np.testing.assert_allclose(along, across, rtol=1e-8, atol=1e-9)
    ends = value(name, np.array([[1e4, -1e4]]) + 1e-30j) if name != "exp" else np.zeros(1)
    assert np.isfinite(ends).all()


class Modest:
    """NumPy with only those functions of complex numbers that CuPy has too."""

    def __getattr__(self, name: str) -> Any:
        assert name not in ("log1p", "expm1", "log2", "logaddexp"), f"CuPy has no {name} of complex numbers"
        return getattr(np, name)


@pytest.mark.parametrize("name", sorted(ANALYTIC))
def test_analytic_formulas_need_no_rare_function_of_complex_numbers(name: str) -> None:
    p = np.array([[0.3 + 0.1j, -2.0 + 1e-30j]])
    np.testing.assert_array_equal(activations.get(name).value(Modest(), p), value(name, p))


READS = {
    "identity": "",
    **dict.fromkeys(["relu", "sigmoid", "tanh", "softmax", "exp"], "q"),
    **dict.fromkeys(["elu", "selu"], "pq"),
    **dict.fromkeys(["leaky_relu", "softplus", "softsign", "gelu", "gelu_tanh", "silu"], "p"),
}


@pytest.mark.parametrize("name", activations.names())
def test_what_going_back_reads(name: str) -> None:
    sigma = activations.get(name)
    assert "p" * sigma.reads_p + "q" * sigma.reads_q == READS[name]


def test_what_going_back_through_ones_own_reads() -> None:
    half_square = Activation(lambda xp, p: 0.5 * p * p, lambda xp, p, q: p, name="half_square")
    assert half_square.reads_p
    assert not half_square.reads_q
    net = Network((2, 3, 1), hidden=half_square)
    rng = np.random.default_rng(0)
    w, x, y = rng.standard_normal(net.n_weights), rng.standard_normal((4, 2)), rng.standard_normal((4, 1))
    chains: Any = net.backward(w, x, y)
    np.testing.assert_allclose(net.gradient(w, x, y), chains.gradient, rtol=1e-14)


@pytest.mark.parametrize("name", activations.names())
def test_values_lie_in_the_declared_range(name: str) -> None:
    sigma = activations.get(name)
    assert sigma.output_range is not None
    p = np.concatenate([np.linspace(-700.0, 700.0, 1401), np.linspace(-2.0, 0.0, 2001)])
    q = sigma.value(np, p[:, None])
    assert sigma.output_range.low <= q.min()
    assert q.max() <= sigma.output_range.high
    tight = {"gelu": -0.16997, "gelu_tanh": -0.17004, "silu": -0.27846}
    if name in tight:
        assert q.min() == pytest.approx(tight[name], abs=1e-5)


@pytest.mark.parametrize("name", [*activations.names(), "leaky_relu(slope=0.3)", "elu(2)"])
def test_built_ins_are_values(name: str) -> None:
    sigma = activations.get(name)
    made = getattr(activations, bare(name))()
    assert activations.get(sigma) is sigma
    assert activations.get(sigma.name) == sigma
    assert (made == sigma) == ("(" not in name)
    for twin in (pickle.loads(pickle.dumps(sigma)), copy.deepcopy(sigma)):
        assert twin == sigma
        assert hash(twin) == hash(sigma)
    assert sigma != activations.get("softsign" if name != "softsign" else "tanh")
    assert repr(sigma) == f"<activation {sigma.name}>"
    with pytest.raises(dataclasses.FrozenInstanceError):
        sigma.name = "other"  # type: ignore[misc]


def test_numbers_in_names() -> None:
    assert activations.leaky_relu() == activations.get("leaky_relu") == activations.get("leaky_relu(0.01)")
    assert activations.leaky_relu(0.2).name == "leaky_relu(slope=0.2)"
    assert activations.leaky_relu(0.2) != activations.leaky_relu(0.3)
    assert value("leaky_relu(slope=0.2)", np.array([-1.0])) == -0.2
    assert value("elu(alpha=2)", np.array([-np.inf])) == -2.0
    steep = activations.leaky_relu(slope=np.float64(0.1))
    assert steep.value(np, np.ones(2, "float32")).dtype == np.float32


@pytest.mark.parametrize("name", ["leaky_relu(0.1, slope=0.2)", "elu(alpha=1, alpha=2)"])
def test_a_number_is_given_once(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"can't be read: (leaky_relu takes the numbers s|elu takes the numbers a)"
    ):
        activations.get(name)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("rleu", ValueError, r"activation must be one of elu, .*, tanh, got 'rleu': did you mean 'relu'\?"),
        ("zzz", ValueError, r"got 'zzz': choose one of these or make your own"),
        ("", ValueError, r"got ''"),
        ("relu(3)", ValueError, r"activation 'relu\(3\)' can't be read: relu takes no numbers"),
        ("leaky_relu(slope=a)", ValueError, r"can't be read: leaky_relu takes the numbers slope"),
        ("leaky_relu(0.1, 0.2)", ValueError, r"can't be read: leaky_relu takes the numbers slope"),
        ("leaky_relu(alpha=0.2)", ValueError, r"can't be read: leaky_relu takes the numbers slope"),
        ("elu(alpha=nan)", ValueError, r"alpha must lie in \(-inf, inf\), got nan: give a number inside"),
        (
            np.tanh,
            TypeError,
            r"an activation must be a name or a gpubp.Activation, got ufunc: wrap it in one",
        ),
        (None, TypeError, r"got NoneType: wrap it in one"),
    ],
)
def test_names_that_are_refused(name: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        activations.get(name)


def test_ones_own_is_accepted() -> None:
    swish2 = Activation(
        lambda xp, p: p / (1.0 + xp.exp(-2.0 * p)),
        lambda xp, p, q: (1.0 + xp.exp(-2.0 * p) * (1.0 + 2.0 * p)) / (1.0 + xp.exp(-2.0 * p)) ** 2,
        name="swish2",
        analytic=True,
        output_range=(-0.2, math.inf),
    )
    assert swish2.output_range is not None
    assert swish2.output_range.low == -0.2
    assert Network((2, 3, 1), hidden=swish2).sigma[1] is swish2
    with pytest.raises(
        ValueError, match=r"the output of cost 'poisson' must lie in \(0, inf\), got 'swish2' with"
    ):
        Network((2, 1), output=swish2, cost="poisson")
    centre = Activation(
        lambda xp, p: p - xp.mean(p, axis=1, keepdims=True),
        pullback=lambda xp, p, q, g: g - xp.mean(g, axis=1, keepdims=True),
        name="centre",
    )
    assert (centre.reads_p, centre.reads_q) == (False, False)
    Activation(lambda xp, p: xp.sqrt(p), lambda xp, p, q: 0.5 / q, name="sqrt", check_at=(0.5, 4.0))
    Activation(lambda xp, p: p, lambda xp, p, q: p, name="unchecked", check_at=None)


@pytest.mark.parametrize(
    ("formulas", "error", "words"),
    [
        (
            (),
            TypeError,
            r"activation 'own' needs exactly one of derivative and pullback, got neither: give one",
        ),
        (
            (lambda xp, p, q: 2.0 * p, lambda xp, p, q, g: 2.0 * p * g),
            TypeError,
            r"needs exactly one of derivative and pullback, got both: give one",
        ),
        (
            (lambda xp, p, q: p,),
            ValueError,
            r"the derivative of activation 'own' must agree with central differences between -3 and 3, got a "
            r"difference of \d\.\de.\d+: mend the derivative, or move check_at off a kink",
        ),
        (
            (lambda xp, p, q: 2.0 * p[:, :1],),
            ValueError,
            r"the derivative of activation 'own' must have the shape \(B, n\) of p, got \(7, 1\) for \(7, 3\): return",
        ),
        ((lambda xp, p, q: p * xp.nan,), ValueError, r"the derivative of activation 'own' must agree"),
        ((None, lambda xp, p, q, g: 2.0 * p), ValueError, r"the pullback of activation 'own' must agree"),
    ],
)
def test_ones_own_with_a_wrong_derivative_is_refused(
    formulas: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    named = dict(zip(("derivative", "pullback"), formulas, strict=False))
    with pytest.raises(error, match=words):
        Activation(lambda xp, p: p * p, **named, name="own")


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (
            lambda xp, p: p * np.float64(2.0),
            r"'own' must keep the dtype of p, got float64 from float32: use Python",
        ),
        (
            lambda xp, p: p[:, :1],
            r"'own' must keep the shape \(B, n\), got \(7, 1\) from \(7, 3\): return one q",
        ),
        (lambda xp, p: xp.sum(p, axis=1), r"'own' must keep the shape \(B, n\), got \(7,\) from \(7, 3\)"),
        (
            lambda xp, p: p - xp.mean(p, axis=0, keepdims=True),
            r"'own' must treat each row alone, got a row that changes with the others: use axis=1",
        ),
    ],
)
def test_ones_own_with_a_wrong_value_is_refused(formula: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Activation(formula, lambda xp, p, q: 2.0 * p, name="own")
