"""What must hold for every network, shape, dtype and name that Hypothesis can think of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="Hypothesis is not installed: ci/test adds it")
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpubp import Network, activations, costs, device, initializers, optimizers

settings.register_profile("gpubp", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("gpubp")

names = st.sampled_from([name for name in activations.names() if name != "exp"])
dtypes = st.sampled_from(["float32", "float64"])


@st.composite
def networks(draw: Callable[..., Any]) -> Network:
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=6))
    inner = len(sizes) - 2
    cost = draw(st.sampled_from(costs.names()))
    hidden = draw(st.lists(names, min_size=inner, max_size=inner))
    return Network(sizes, hidden=hidden, input=draw(names), cost=cost, bias=draw(st.booleans()))


def batch(net: Network, B: int, dtype: str) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(B)
    x, y = rng.standard_normal((B, net.sizes[0])), rng.random((B, net.sizes[-1]))
    return net.init(B, dtype=dtype, biases="normal(scale=0.1)"), x.astype(dtype), y.astype(dtype)


@given(networks(), st.integers(1, 9), dtypes)
def test_shapes_and_dtypes(net: Network, B: int, dtype: str) -> None:
    w, x, y = batch(net, B, dtype)
    c: Any = net.backward(w, x, y)
    for part in (c.p, c.q, c.Delta):
        assert [a.shape for a in part] == [(B, n) for n in net.sizes]
    assert [a.shape for a in c.dW] == [(n, m) for m, n in zip(net.sizes[:-1], net.sizes[1:], strict=True)]
    assert c.db is None or [a.shape for a in c.db] == [(n,) for n in net.sizes[1:]]
    assert (c.db is None) == (not net.bias)
    every = [*c.p, *c.q, *c.Delta, *c.dW, *(c.db or ()), c.gradient, c.cost]
    assert {str(a.dtype) for a in every} == {dtype}
    assert c.cost.shape == ()
    assert c.gradient.shape == (net.n_weights,) == net.gradient(w, x, y).shape


@given(networks(), st.integers(1, 5))
def test_the_gradient_is_the_slope(net: Network, B: int) -> None:
    """Along a random direction, by differences of two sizes: where they disagree, a kink lies between."""
    w, x, y = batch(net, B, "float64")
    v = np.random.default_rng(1).standard_normal(w.size)
    one, other = ((net.cost(w + h * v, x, y) - net.cost(w - h * v, x, y)) / (2 * h) for h in (1e-5, 2e-5))
    g = net.gradient(w, x, y)
    scale = np.abs(g) @ np.abs(v) + 1e-3
    assume(abs(one - other) <= 1e-8 * scale)
    assert abs(g @ v - one) <= 1e-7 * scale


@given(networks(), st.integers(1, 5), dtypes)
def test_layers_and_flatten_are_inverse(net: Network, B: int, dtype: str) -> None:
    w = net.init(B, dtype=dtype, biases="normal")
    np.testing.assert_array_equal(net.flatten(net.layers(w)), w)


@given(networks())
def test_a_network_is_its_repr(net: Network) -> None:
    assert eval(repr(net), {"Network": Network}) == net


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(st.sampled_from(["w", "x", "y", "sample_weight"]), shapes)
def test_every_other_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    net = Network((3, 2, 2))
    arrays = dict(zip(("w", "x", "y"), batch(net, 4, "float64"), strict=True), sample_weight=np.ones(4))
    assume(shape != arrays[name].shape)
    if name == "x":
        assume(not (len(shape) == 2 and shape[0] > 0 and shape[1] == 3))
    arrays[name] = np.zeros(shape)
    kept = {key: a.copy() for key, a in arrays.items()}
    for call in (net.backward, net.cost, net.gradient, net.cost_and_gradient):
        with pytest.raises(ValueError, match=rf"{name} must (have shape|hold at least one example)"):
            call(**arrays)
    for key, a in arrays.items():
        np.testing.assert_array_equal(a, kept[key])


any_dtype = st.sampled_from([*"?bBhHiIlLefdgFDGSUVO", "M8[s]", "m8[s]", ">f4", ">f8"])


@given(st.sampled_from(["w", "x", "y", "sample_weight"]), any_dtype)
def test_every_other_dtype_is_refused(name: str, dtype: str) -> None:
    net = Network((3, 2, 2))
    arrays = dict(zip(("w", "x", "y"), batch(net, 4, "float64"), strict=True), sample_weight=np.ones(4))
    assume(np.dtype(dtype).newbyteorder("=") != np.float64)  # in either order of bytes
    arrays[name] = np.zeros(arrays[name].shape, dtype)
    with pytest.raises(TypeError, match=r"(w|x|y|sample_weight) must be .*(float|complex).*, got .*: "):
        net.backward(**arrays)


@given(st.lists(st.integers(-3, 5), min_size=4, max_size=4), st.sampled_from(["int8", "uint8", "int64"]))
def test_classes_are_in_range_or_refused(labels: list[int], dtype: str) -> None:
    net = Network((3, 2, 3), cost="cross_entropy")
    w, x, _ = batch(net, 4, "float64")
    y = np.array(labels).astype(dtype)
    if ((y >= 0) & (y < 3)).all():
        right = net.cost(w, x, np.eye(3)[y])
        assert net.cost(w, x, y) == right
    else:
        with pytest.raises(
            ValueError, match=r"y must hold classes 0..2 for n_L = 3, got -?\d+..-?\d+: number them"
        ):
            net.cost(w, x, y)


def refusal(find: Callable[[str], object], name: str) -> str | None:
    """The words that refuse a name, None where it is found; any other error goes on."""
    try:
        find(name)
    except (ValueError, RuntimeError) as error:
        return str(error)
    return None


near_names = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}({})".format,
        st.sampled_from([*activations.names(), *costs.names()]),
        st.text("=,.0123e-+alphtu ", max_size=16),
    ),
)


@pytest.mark.parametrize("module", [activations, costs, initializers, optimizers])
@given(near_names)
def test_names_are_found_or_refused_in_words(module: Any, name: str) -> None:
    said = refusal(module.get, name)
    assert said is None or any(words in said for words in ("must be one of", "can't be read", "must lie in"))


@given(st.text(max_size=12) | st.from_regex(r"cuda:.{0,3}", fullmatch=True))
def test_device_names_are_found_or_refused_in_words(name: str) -> None:
    said = refusal(device, name)
    wanted = (
        "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got",
        "needs CuPy and an NVIDIA GPU that computes, but",
    )
    assert said is None or any(words in said for words in wanted)
