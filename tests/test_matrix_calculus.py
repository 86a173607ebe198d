"""The article's matrix derivatives: true in every namespace, and found out where they are not."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import Place

from gpubp import activations
from gpubp.matrix_calculus import (
    Identity,
    contract,
    differentiate,
    identities,
    index_sum,
    products,
    shape,
    value,
)

KINKED = {"sigma": "relu", "sigma1": "elu", "sigma2": "softsign"}
VECTORS = {"A": ("m", "n"), "x": ("n", "1"), "y": ("m", "1")}


@pytest.mark.parametrize("cost", identities)
def test_identities_hold_everywhere(place: Place, cost: str) -> None:
    gate = 1e-12 if place.dtype == "float64" else 1e-4
    identity = identities[cost]
    assert identity.check(place.xp, seed=3, dtype=place.dtype, device=place.native) <= gate


@pytest.mark.parametrize("cost", identities)
def test_identities_hold_for_any_activation(cost: str) -> None:
    for seed in range(5):
        assert identities[cost].check(seed=seed) <= 1e-12
    kinked: Any = {name: kind for name, kind in KINKED.items() if f"{name}(" in cost}
    assert identities[cost].check(**kinked) <= (1e-7 if kinked else 1e-12)


@pytest.mark.parametrize("cost", [cost for cost in identities if "sigma" in cost])
def test_identities_agree_with_autodiff(cost: str, jax: Any) -> None:
    identity, rng = identities[cost], np.random.default_rng(1)
    size = {"1": 1, "l": 2, "m": 3, "n": 4}
    given = {
        name: jax.numpy.asarray(rng.standard_normal((size[m], size[n])))
        for name, (m, n) in identity.shapes.items()
    }
    sigma: dict[str, Any] = {"sigma": "tanh", "sigma1": "sigmoid", "sigma2": "gelu"}
    for name, formula in identity.derivatives.items():
        slope = jax.grad(lambda A, name=name: value(cost, **{**given, name: A}, **sigma)[0, 0])
        theirs = slope(given[name])
        np.testing.assert_allclose(value(formula, **given, **sigma), theirs, rtol=1e-12, atol=1e-14)


def planted(identity: Identity) -> Iterator[Identity]:
    """The identity with one formula changed into what a slip of the pen makes of it; shapes still fit."""
    for name, formula in identity.derivatives.items():
        slips = [f"2 ({formula})", f"1/2 ({formula})", f"({formula}) - {name}"]
        slips += [formula.replace(f"{sigma}'", sigma) for sigma in ("sigma", "sigma1", "sigma2")]
        slips += ["(x' x) A"] * (formula == "A x x'") + ["(x' x) A' A B"] * (formula == "A' A B x x'")
        for slip in slips:
            if slip != formula:
                yield replace(identity, derivatives={**identity.derivatives, name: slip})


@pytest.mark.parametrize("cost", identities)
def test_a_wrong_formula_is_found_out(cost: str) -> None:
    wrong = list(planted(identities[cost]))
    assert len(wrong) >= 3 * len(identities[cost].derivatives)
    for identity in wrong:
        assert identity.check() > 1e-3, identity


def test_the_catalogue_is_whole_and_stays_as_it_is() -> None:
    assert sum(len(identity.derivatives) for identity in identities.values()) == 13
    assert all(cost == identity.cost and identity.section for cost, identity in identities.items())
    assert str(identities["y' A x"]) == "C = y' A x: dC/dA = y x'"
    with pytest.raises(TypeError):
        identities["y' A x"] = identities["y' A B x"]  # type: ignore[index]


def test_the_shape_of_a_derivative_is_its_variables() -> None:
    with pytest.raises(ValueError, match=r"dC/dA must have shape \(m, n\), got \(n, m\): mend \"x y'\""):
        Identity("y' A x", {"A": "x y'"}, VECTORS)
    with pytest.raises(ValueError, match=r"the cost must have shape \(1, 1\), got \(m, 1\): mend 'A x'"):
        Identity("A x", {}, VECTORS)
    with pytest.raises(ValueError, match=r"\"y' A x\" needs B, got A, x, y: give it too"):
        Identity("y' A x", {"B": "y x'"}, VECTORS)


def test_shapes_of_formulas() -> None:
    assert shape("A x", VECTORS) == ("m", "1")
    assert shape("A'", VECTORS) == ("n", "m")
    assert shape("(x' x) A", VECTORS) == shape("2 A (x' x)", VECTORS) == ("m", "n")
    assert shape("1/2 |sigma(A x) - y|^2", VECTORS) == ("1", "1")
    with pytest.raises(
        ValueError, match=r"'x A' needs as many columns .* \(n, 1\) times \(m, n\): transpose"
    ):
        shape("x A", VECTORS)
    with pytest.raises(ValueError, match=r"'o' in 'A o x' needs equal shapes, got \(m, n\) and \(n, 1\)"):
        shape("A o x", VECTORS)
    with pytest.raises(ValueError, match="'Z x' needs Z, got A, x, y: give it too"):
        shape("Z x", VECTORS)


@pytest.mark.parametrize("formula", ["", "A (x", "A + ", "A * x", "|x|", "sigma A", "A o", "x ')", "o"])
def test_what_is_no_formula_is_refused(formula: str) -> None:
    with pytest.raises(ValueError, match=r"a formula must be written like y' A x .* it can't be read from"):
        shape(formula, VECTORS)


def test_values_of_formulas(place: Place) -> None:
    rng = np.random.default_rng(2)
    host = {
        "A": rng.standard_normal((3, 4)),
        "B": rng.standard_normal((3, 4)),
        "x": rng.standard_normal((4, 1)),
    }
    A, B, x = host.values()
    arrays = {name: place.array(array) for name, array in host.items()}
    for formula, by_hand in {
        "A x": A @ x,
        "A o B + 2 B - A": A * B + B + B - A,
        "(A' B)' ": B.T @ A,
        "A x o B x": (A @ x) * (B @ x),
        "1/2 |A x|^2": 0.5 * (A @ x).T @ (A @ x),
        "(x' x) A": float(np.sum(x * x)) * A,
        "sigma(A)": np.tanh(A),
        "sigma'(A)": 1 / np.cosh(A) ** 2,
        "sigma1'(A)": np.ones((3, 4)),
    }.items():
        found = value(formula, **arrays, sigma="tanh", sigma1="identity")
        assert place.here(found)
        np.testing.assert_allclose(place.host(found), by_hand, rtol=20 * place.rtol, atol=place.rtol)


def test_activations_of_formulas_are_element_wise() -> None:
    with pytest.raises(ValueError, match="sigma must act element by element, got 'softmax': choose one"):
        value("sigma(A)", A=np.ones((2, 3)), sigma="softmax")
    with pytest.raises(ValueError, match=r"'sigma\(A\)' needs sigma, got nothing: give it too"):
        value("sigma(A)", A=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 3\) times \(2, 3\)"):
        value("A A", A=np.ones((2, 3)))


def test_products_are_what_the_article_guesses() -> None:
    m, n, l = "m", "n", "l"  # noqa: E741  the article's own letters
    x, y, A = (n, "1"), (m, "1"), (m, n)
    assert products(A, {"x": (x, 1), "y": (y, 1)}) == ["y x'"]
    assert products(A, {"A": (A, 1), "x": (x, 2)}) == ["A x x'", "(x' x) A"]
    assert products(A, {"A": ((l, m), 2), "B": (A, 1), "x": (x, 2)}) == ["A' A B x x'", "(x' x) A' A B"]
    assert products(A, {"x": (x, 2), "y": (y, 1)}) == []
    assert products(("1", "1"), {"A": (A, 1), "x": (x, 1), "y": (y, 1)}) == ["(y' A x)"]
    assert products(("1", "1"), {"u": (x, 2), "v": (x, 2)}) == ["(u' u) (v' v)", "(u' v) (u' v)"]
    assert products(A, {"c": (("1", "1"), 2), "A": (A, 1)}) == ["(c) (c) A"]


def test_products_are_all_there_are() -> None:
    """Beside every arrangement of the factors, transposed or not, that has the shape: as numbers the sets are equal."""
    rng = np.random.default_rng(4)
    A, D, x = rng.standard_normal((2, 3)), rng.standard_normal((3, 3)), rng.standard_normal((3, 1))
    shapes = {"A": ("m", "n"), "D": ("n", "n"), "x": ("n", "1")}
    listed = products(("m", "n"), {"A": (shapes["A"], 1), "D": (shapes["D"], 1), "x": (shapes["x"], 2)})
    assert len(listed) == len(set(listed))
    numbers = {np.round(value(formula, A=A, D=D, x=x), 9).tobytes() for formula in listed}
    every = set()
    for order in set(itertools.permutations("ADxx")):
        for marks in itertools.product(["", "'"], repeat=4):
            names = [name + mark for name, mark in zip(order, marks, strict=True)]
            # brackets around a part that may be a number, which then stands anywhere
            for start, stop in itertools.combinations(range(5), 2):
                parts = [*names[:start], "(", *names[start:stop], ")", *names[stop:]]
                try:
                    if shape(" ".join(parts), shapes) == ("m", "n"):
                        every.add(np.round(value(" ".join(parts), A=A, D=D, x=x), 9).tobytes())
                except ValueError:
                    continue
    assert numbers == every


def test_indices_beside_products(place: Place) -> None:
    rng = np.random.default_rng(5)
    host = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal((4, 3)), "x": rng.standard_normal(4)}
    a, b, x = host.values()
    host["c"] = a @ b
    arrays = {name: place.array(array) for name, array in host.items()}
    for term, free, by_hand in [
        ("a_ij x_j", "i", a @ x),
        ("a_bob,nancy x_nancy", "bob", a @ x),
        ("a_ij b_jk", "ik", a @ b),
        ("a_ij b_jk", "ki", (a @ b).T),
        ("a_ij b_ji", "", np.trace(a @ b)),
        ("x_i x_i", "", x @ x),
        ("x_k a_jk", "jk", a * x),
        ("delta_ji a_jk", "ik", a),
        ("a_ij", "ji", a.T),
        ("c_ii", "", np.trace(a @ b)),
        ("c_ii x_j", "j", np.trace(a @ b) * x),
        ("x_j delta_ij delta_ki", "k", x),
        ("delta_ii x_i", "i", x),
    ]:
        used = {name: array for name, array in arrays.items() if f"{name}_" in term}
        found = index_sum(term, free, **used)
        assert place.here(found)
        np.testing.assert_allclose(place.host(found), by_hand, rtol=20 * place.rtol, atol=place.rtol)


def test_the_product_rule_in_indices() -> None:
    rng = np.random.default_rng(6)
    a, x = rng.standard_normal((3, 4)), rng.standard_normal(4)
    terms = differentiate("x_i a_ji a_jk x_k", "a_cd")
    halves = [contract(term) for term in terms]
    assert halves == ["x_d a_ck x_k", "x_i a_ci x_d"]
    by_hand = a @ np.outer(x, x)
    for term in (*terms, *halves):
        np.testing.assert_allclose(index_sum(term, "cd", a=a, x=x), by_hand, rtol=1e-12)
    assert differentiate("y_i x_i", "a_cd") == []


def test_contraction() -> None:
    assert contract("delta_ab x_b") == "x_a"
    assert contract("delta_ab delta_cd x_b y_d") == "x_a y_c"
    assert contract("delta_ab delta_bc x_c") == "x_a"
    assert contract("delta_bob,kim a_bob,nancy x_nancy") == "a_kim,nancy x_nancy"
    assert contract("delta_ab") == "delta_ab"
    assert contract("y_i a_ij x_j") == "y_i a_ij x_j"


def test_terms_that_mean_nothing_are_refused() -> None:
    a, x = np.ones((2, 3)), np.ones(3)
    with pytest.raises(ValueError, match="must stand twice or be free, got i 1 times in 'a_ij x_j'"):
        index_sum("a_ij x_j", a=a, x=x)
    with pytest.raises(ValueError, match="must stand twice or be free, got j 3 times"):
        index_sum("x_j x_j x_j", x=x)
    with pytest.raises(ValueError, match="a in 'a_i' must have 1 axes, got 2: name every index"):
        index_sum("a_i", "i", a=a)
    with pytest.raises(ValueError, match="i in 'a_ij x_i' must have one range, got 2 and 3"):
        index_sum("a_ij x_i", "j", a=a, x=x)
    with pytest.raises(ValueError, match="'a_ij b_jk' needs b, got a: give it too"):
        index_sum("a_ij b_jk", "ik", a=a)
    with pytest.raises(ValueError, match="the range of k in 'delta_kl x_j x_j' must be an array's, got none"):
        index_sum("delta_kl x_j x_j", "kl", x=x)
    with pytest.raises(ValueError, match="the range of k in 'x_j' must be an array's, got none"):
        index_sum("x_j", "jk", x=x)
    with pytest.raises(ValueError, match="indices of its own, got 'a_ij' for 'y_i a_ij x_j': rename them"):
        differentiate("y_i a_ij x_j", "a_ij")
    with pytest.raises(ValueError, match="indices of its own, got 'a_kl b_m'"):
        differentiate("y_i a_ij x_j", "a_kl b_m")
    with pytest.raises(
        ValueError, match="a must have as many indices in 'a_k' as in 'y_i a_ij x_j', 2, got 1"
    ):
        differentiate("y_i a_ij x_j", "a_k")
    with pytest.raises(ValueError, match=r"a term must be written like y_i a_ij x_j .* got 'a' in 'a x_j'"):
        contract("a x_j")


def test_an_activation_of_ones_own_in_an_identity() -> None:
    cube = activations.Activation(lambda xp, p: p**3, lambda xp, p, q: 3.0 * p**2, name="cube", analytic=True)
    assert identities["y' sigma(A x)"].check(sigma=cube) <= 1e-12
    with pytest.raises(
        ValueError, match='takes the activations of "y\' sigma\\(A x\\)", sigma, got sigma1: name'
    ):
        identities["y' sigma(A x)"].check(sigma1=cube)
    with pytest.raises(ValueError, match="sigma must act element by element, got 'softmax'"):
        identities["y' sigma(A x)"].check(sigma="softmax")
