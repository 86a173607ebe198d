"""``Network``: what it is, how it starts, its flat vector, and everything its methods refuse."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Place, library

from gpubp import Activation, Network, activations, costs

NETS = [
    Network((2, 1)),
    Network((1, 1), bias=False),
    Network((2, 3, 1), hidden="tanh"),
    Network([4, 3, 3, 2], hidden=["tanh", "leaky_relu(0.2)"], cost="cross_entropy"),
    Network((4, 3, 3, 2), hidden="elu", output="softplus", input="softsign", cost="poisson", bias=False),
    Network((3, 3, 2), output="sigmoid", cost="cross_entropy"),
    Network((3, 3, 2), hidden="identity", cost="huber(2.5)"),
    Network((3, 2, 2, 2), hidden=("relu", "tanh"), cost=costs.quantile(tau=0.9)),
]
REPRS = [
    "Network((2, 1))",
    "Network((1, 1), bias=False)",
    "Network((2, 3, 1), hidden='tanh')",
    "Network((4, 3, 3, 2), hidden=('tanh', 'leaky_relu(slope=0.2)'), cost='cross_entropy')",
    "Network((4, 3, 3, 2), hidden='elu(alpha=1.0)', output='softplus', input='softsign', cost='poisson', bias=False)",
    "Network((3, 3, 2), output='sigmoid', cost='cross_entropy')",
    "Network((3, 3, 2), hidden='identity', cost='huber(delta=2.5)')",
    "Network((3, 2, 2, 2), hidden=('relu', 'tanh'), cost='quantile(tau=0.9)')",
]


@pytest.mark.parametrize(("net", "text"), list(zip(NETS, REPRS, strict=True)), ids=REPRS)
def test_a_network_is_a_value(net: Network, text: str) -> None:
    assert repr(net) == text
    net.init()  # what it keeps for itself on the way must not change what it is
    for twin in (eval(text), pickle.loads(pickle.dumps(net)), copy.deepcopy(net), copy.copy(net)):
        assert twin == net
        assert hash(twin) == hash(net)
        assert twin.natural == net.natural
        np.testing.assert_array_equal(twin.init(3), net.init(3))
    assert {net: 1}[eval(text)] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.sizes = (1, 2)  # type: ignore[misc]


def test_networks_that_differ_are_not_equal() -> None:
    assert len(set(NETS)) == len(NETS)
    assert len({Network((2, 2, 1), hidden=hidden) for hidden in activations.names()}) == len(
        activations.names()
    )
    assert Network((2, 2, 1)) != Network((2, 2, 1), bias=False)


def test_names_and_objects_are_one() -> None:
    assert Network((2, 2, 2, 1), hidden="relu") == Network((2, 2, 2, 1), hidden=[activations.relu(), "relu"])
    assert Network((2, 1), cost="huber") == Network((2, 1), cost=costs.huber(delta=1.0), output="identity")
    mine = Activation(lambda xp, p: 2.0 * p, lambda xp, p, q: 2.0 + 0.0 * p, name="double")
    assert Network((2, 2, 1), hidden=mine) == Network((2, 2, 1), hidden=mine)
    assert repr(Network((2, 2, 1), hidden=mine)) == "Network((2, 2, 1), hidden='double')"


def test_counts() -> None:
    net = Network((4, 3, 2))
    assert net.sizes == (4, 3, 2)
    assert net.n_weights == 4 * 3 + 3 * 2 + 3 + 2
    assert Network((4, 3, 2), bias=False).n_weights == 4 * 3 + 3 * 2
    assert Network(np.array([4, 3, 2])).sizes == (4, 3, 2)  # type: ignore[call-overload]
    assert all(type(n) is int for n in Network(np.array([4, 3])).sizes)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"sizes": "784"},
            TypeError,
            r"sizes must be a sequence such as \(784, 100, 10\), got str: give a tuple",
        ),
        ({"sizes": 3}, TypeError, r"sizes must be a sequence such as .*, got int: give a tuple"),
        (
            {"sizes": (3,)},
            ValueError,
            r"sizes must name at least an input and an output, got 1 of them: add layers",
        ),
        ({"sizes": ()}, ValueError, r"sizes must name at least an input and an output, got 0"),
        ({"sizes": (3, 0, 1)}, ValueError, r"sizes\[1\] must be at least 1, got 0: give a larger one"),
        ({"sizes": (3, 2.0)}, TypeError, r"sizes\[1\] must be a whole number, got float: give an int"),
        ({"sizes": (True, 2)}, TypeError, r"sizes\[0\] must be a whole number, got bool: give an int"),
        (
            {"hidden": "rellu"},
            ValueError,
            r"activation must be one of .*, got 'rellu': did you mean 'relu'\?",
        ),
        (
            {"hidden": ("relu", "relu")},
            ValueError,
            r"one for each of the 1 hidden layers, got 2: give as many as",
        ),
        (
            {"hidden": 3},
            TypeError,
            r"hidden must be one activation, or one for each .*, got int: give a name",
        ),
        ({"hidden": None}, TypeError, r"hidden must be one activation, or one for each .*, got NoneType"),
        ({"output": "sofmax"}, ValueError, r"got 'sofmax': did you mean 'softmax'\?"),
        ({"input": "tan"}, ValueError, r"got 'tan': did you mean 'tanh'\?"),
        ({"cost": "crossentropy"}, ValueError, r"cost must be one of .*: did you mean 'cross_entropy'\?"),
        ({"cost": None}, TypeError, r"a cost must be a name or a gpubp.Cost, got NoneType: wrap it in one"),
        (
            {"cost": "cross_entropy", "output": "identity"},
            ValueError,
            r"the output of cost 'cross_entropy' must lie in \(0, 1\], got 'identity' with values in \(-inf, inf\): "
            r"use output='softmax'",
        ),
        (
            {"cost": "poisson", "output": "relu"},
            ValueError,
            r"must lie in \(0, inf\), got 'relu' with .* \[0, inf\)",
        ),
    ],
)
def test_networks_that_are_refused(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Network(**{"sizes": (3, 2, 1), **arguments})


# First weights


def test_the_same_first_weights_everywhere(place: Place) -> None:
    net = Network((5, 4, 3), hidden="tanh", cost="cross_entropy")
    xp = library("torch") if place.name == "torch" else place.xp
    if place.name == "cupy":
        w = net.init(7, dtype=place.dtype, device="cuda")
    else:
        w = net.init(7, dtype=place.dtype, xp=xp, device=place.native or "cpu")
    assert place.here(w)
    right = net.init(7, dtype="float64").astype(place.dtype)
    np.testing.assert_array_equal(place.host(w), right)
    assert not np.array_equal(right, net.init(8, dtype="float64").astype(place.dtype))


def test_first_weights_by_default() -> None:
    """glorot_uniform before tanh, he_normal before relu; biases 0; float32 NumPy."""
    net = Network((200, 300, 100), hidden="relu", output="tanh")
    w = net.init()
    assert w.dtype == np.float32
    (W0, b0), (W1, b1) = net.layers(w)
    assert W0.std() == pytest.approx(math.sqrt(2 / 200), rel=0.02)
    limit = math.sqrt(6 / (300 + 100))
    assert 0.999 * limit < abs(W1).max() <= limit
    assert b0 is not None
    assert b1 is not None
    assert not b0.any()
    assert not b1.any()
    np.testing.assert_array_equal(w, net.init(0, weights=["he_normal", "glorot_uniform"]))
    seeded = [net.init(seed, weights="normal(scale=0.1)", biases="normal") for seed in (0, 1)]
    assert abs(net.layers(seeded[0])[0][1]).mean() == pytest.approx(math.sqrt(2 / math.pi), rel=0.1)
    assert not np.array_equal(*seeded)


def test_ones_own_first_weights() -> None:
    net = Network((3, 2, 1))
    asked = []

    def draw(rng: np.random.Generator, shape: tuple[int, ...], n_in: int, n_out: int) -> Any:
        asked.append((shape, n_in, n_out))
        return np.full(shape, float(len(asked)))

    w = net.init(weights=draw, biases=draw)
    assert asked == [((2, 3), 3, 2), ((1, 2), 2, 1), ((2,), 3, 2), ((1,), 2, 1)]
    np.testing.assert_array_equal(w, [1] * 6 + [2] * 2 + [3] * 2 + [4])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"dtype": "float16"},
            ValueError,
            r"dtype must be 'float32' or 'float64', got 'float16': give one of these",
        ),
        ({"dtype": "int64"}, ValueError, r"dtype must be 'float32' or 'float64', got 'int64'"),
        ({"device": "gpu"}, ValueError, r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"weights": "he"}, ValueError, r"initializer must be one of .*, got 'he'"),
        ({"weights": "zero"}, ValueError, r"got 'zero': did you mean 'zeros'\?"),
        (
            {"weights": ["zeros"]},
            ValueError,
            r"weights must be one initializer, or one for each of the 2 layers, got 1",
        ),
        (
            {"weights": 3.0},
            TypeError,
            r"weights must be one initializer, or one for each of the 2 layers, got float",
        ),
        ({"weights": [1, 2]}, TypeError, r"an initializer must be a name or callable, got int: give a name"),
        ({"biases": "orthogonal"}, ValueError, r"orthogonal needs a matrix, got shape \(2,\): use another"),
        (
            {"weights": lambda rng, shape, n_in, n_out: np.zeros(3)},
            ValueError,
            r"an initializer must give the shape it is asked for, \(2, 3\), got \(3,\): mend it",
        ),
    ],
)
def test_first_weights_that_are_refused(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Network((3, 2, 1)).init(**arguments)


# The flat vector


def test_layers_are_all_w_then_all_b(place: Place) -> None:
    net = Network((3, 2, 1))
    w = place.array(np.arange(11.0))
    (W0, b0), (W1, b1) = net.layers(w)
    for part, right in zip((W0, W1, b0, b1), ([[0, 1, 2], [3, 4, 5]], [[6, 7]], [8, 9], [10]), strict=True):
        assert place.here(part)
        assert place.host(part).tolist() == right
    np.testing.assert_array_equal(place.host(net.flatten([(W0, b0), (W1, b1)])), np.arange(11.0))
    bare = Network((3, 2, 1), bias=False)
    pairs = bare.layers(w[:8])
    assert [b for _, b in pairs] == [None, None]
    np.testing.assert_array_equal(place.host(bare.flatten(pairs)), np.arange(8.0))


def test_layers_are_writable_views(place: Place) -> None:
    if place.name not in ("numpy", "cupy", "torch"):
        pytest.skip("copies here")
    net = Network((3, 2, 1))
    w = place.array(np.zeros(11))
    for n, (W, b) in enumerate(net.layers(w), 1):
        W[0, 0] = n
        b[0] = -n
    assert place.host(w).tolist() == [1, 0, 0, 0, 0, 0, 2, 0, -1, 0, -2]
    flat = net.flatten(net.layers(w))
    flat[0] = 9
    assert place.host(w)[0] == 1  # flatten copies


def pairs(**changes: Any) -> list[tuple[Any, Any]]:
    parts = {"W0": np.zeros((2, 3)), "b0": np.zeros(2), "W1": np.zeros((1, 2)), "b1": np.zeros(1), **changes}
    return [(parts["W0"], parts["b0"]), (parts["W1"], parts["b1"])]


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        (pairs()[:1], ValueError, r"layers must hold 2 pairs \(W, b\), got 1: give one a layer"),
        (
            pairs(W0=np.zeros((3, 2))),
            ValueError,
            r"W\[0\] must have shape \(2, 3\), got \(3, 2\): rows are outputs",
        ),
        (
            pairs(b1=np.zeros((1, 1))),
            ValueError,
            r"b\[1\] must have shape \(1,\), got \(1, 1\): one an output",
        ),
        (pairs(b0=None), ValueError, r"b\[0\] must have shape \(2,\), got None: give an array"),
        (pairs(W1=[[0.0, 0.0]]), TypeError, r"are needed, got list: make it one with numpy.asarray"),
        (pairs(W0=None), TypeError, r"are needed, got NoneType"),
        (
            pairs(b0=np.zeros(2, "float32")),
            TypeError,
            r"b\[0\] must be float64 like W\[0\], got float32: convert it",
        ),
    ],
)
def test_layers_that_are_refused(layers: list[Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Network((3, 2, 1)).flatten(layers)


def test_biases_of_a_network_without_are_refused() -> None:
    with pytest.raises(
        ValueError, match="layers must hold None for every b of a network without biases, got an array"
    ):
        Network((3, 2, 1), bias=False).flatten(pairs())


# Refusals


B, SIZES = 4, (3, 2, 2)
NET, ONE, CLASSES = Network(SIZES), Network((3, 2, 1)), Network(SIZES, cost="cross_entropy")


def batch(net: Network, place: Place) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"w": (net.n_weights,), "x": (B, 3), "y": (B, net.sizes[-1]), "sample_weight": (B,)}
    return {name: place.array(rng.random(shape)) for name, shape in shapes.items()}


def refused(net: Network, place: Place, error: type[Exception], words: str, **changes: Any) -> None:
    """Each method that reads what is wrong says so in these words, and leaves every array as it was."""
    arrays = {**batch(net, place), **changes}
    kept = {name: copy.deepcopy(a) for name, a in arrays.items()}
    reduction = arrays.pop("reduction", "mean")
    w, x, y, s = arrays.values()
    calls: list[Callable[[], object]] = [
        lambda method=method: method(w, x, y, sample_weight=s, reduction=reduction)  # type: ignore[misc]
        for method in (net.backward, net.cost, net.gradient, net.cost_and_gradient)
    ]
    if {"w", "x"} & set(changes):
        calls += [lambda: net.forward(w, x), lambda: net.predict(w, x)]
    for call in calls:
        with pytest.raises(error, match=words):
            call()
    for name, a in arrays.items():
        if hasattr(a, "shape") and hasattr(kept[name], "shape"):
            assert a.shape == kept[name].shape
            np.testing.assert_array_equal(place.host(a), place.host(kept[name]))


SHAPES: list[tuple[Network, dict[str, tuple[int, ...]], str]] = [
    (NET, {"w": (15,)}, r"w must have shape \(n_weights,\) with n_weights = 14, got \(15,\): see net.init"),
    (NET, {"w": (14, 1)}, r"w must have shape \(n_weights,\) with n_weights = 14, got \(14, 1\)"),
    (NET, {"w": ()}, r"w must have shape \(n_weights,\) with n_weights = 14, got \(\)"),
    (NET, {"x": (3, 4)}, r"x must have shape \(B, n_0\) with n_0 = 3, got \(3, 4\): one example per row"),
    (NET, {"x": (3,)}, r"x must have shape \(B, n_0\) with n_0 = 3, got \(3,\): one example per row"),
    (NET, {"x": (2, 4, 3)}, r"x must have shape \(B, n_0\) with n_0 = 3, got \(2, 4, 3\)"),
    (NET, {"x": (0, 3)}, r"x must hold at least one example, got shape \(0, 3\): give it a row"),
    (
        NET,
        {"y": (4,)},
        r"y must have shape \(B, n_L\) with B = 4, n_L = 2, got \(4,\): one row of targets an example",
    ),
    (NET, {"y": (4, 1)}, r"y must have shape \(B, n_L\) with B = 4, n_L = 2, got \(4, 1\)"),
    (NET, {"y": (2, 4)}, r"y must have shape \(B, n_L\) with B = 4, n_L = 2, got \(2, 4\)"),
    (NET, {"y": (3, 2)}, r"y must have shape \(B, n_L\) with B = 4, n_L = 2, got \(3, 2\)"),
    (ONE, {"y": (3,)}, r"y must have shape \(B,\) with B = 4, got \(3,\): one target an example"),
    (ONE, {"y": (1, 4)}, r"y must have shape \(B, n_L\) with B = 4, n_L = 1, got \(1, 4\)"),
    (ONE, {"y": ()}, r"y must have shape \(B, n_L\) with B = 4, n_L = 1, got \(\)"),
    (
        CLASSES,
        {"y": (4,)},
        r"y must have shape \(B, n_L\) with B = 4, n_L = 2, or integer classes \(B,\), got \(4,\)",
    ),
    (
        NET,
        {"sample_weight": (4, 1)},
        r"sample_weight must have shape \(B,\) with B = 4, got \(4, 1\): one weight an",
    ),
    (NET, {"sample_weight": (3,)}, r"sample_weight must have shape \(B,\) with B = 4, got \(3,\)"),
]


@pytest.mark.parametrize(("net", "shape", "words"), SHAPES)
def test_shapes_that_are_refused(
    place64: Place, net: Network, shape: dict[str, tuple[int, ...]], words: str
) -> None:
    changes = {name: place64.array(np.ones(size)) for name, size in shape.items()}
    refused(net, place64, ValueError, words, **changes)


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "complex128"])
def test_other_dtypes_are_refused(place64: Place, name: str, dtype: str) -> None:
    array = batch(NET, place64)[name]
    changed = place64.array(place64.host(array), dtype)
    words = rf"{name} must be .*float64 like w, got .*{dtype}: convert it with astype"
    refused(NET, place64, TypeError, words, **{name: changed})


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_weights_of_other_dtypes_are_refused(place64: Place, dtype: str) -> None:
    w = place64.array(np.ones(14), dtype)
    words = rf"w must be float32 or float64, got .*{dtype}: convert it with astype"
    refused(NET, place64, TypeError, words, w=w)


def test_half_precision_is_refused() -> None:
    place = Place("numpy", "", "float16")
    for dtype in ("float16", "longdouble"):
        words = r"w must be float32 or float64, got float(16|128|64): convert"
        refused(NET, place, TypeError, words, w=np.ones(14, dtype))


NUMPY = Place("numpy", "", "float64")


@pytest.mark.parametrize("name", ["w", "x", "y", "sample_weight"])
@pytest.mark.parametrize("kind", ["list", "tuple", "MaskedArray", "matrix", "NoneType"])
def test_what_is_not_a_plain_array_is_refused(name: str, kind: str) -> None:
    array = np.ones((2, 2))
    changed = {
        "list": array.tolist(),
        "tuple": (1.0, 2.0),
        "MaskedArray": np.ma.masked_array(array),
        "matrix": array.view(np.matrix),
        "NoneType": None,
    }[kind]
    if (name, kind) == ("sample_weight", "NoneType"):
        return
    plain = kind in ("MaskedArray", "matrix")
    start = (
        "arrays must be plain, got"
        if plain
        else "arrays of NumPy, CuPy or another Array API library are needed, got"
    )
    words = rf"{start} {kind}: .*numpy.asarray"
    refused(NET, NUMPY, TypeError, words, **{name: changed})


@pytest.mark.parametrize("name", ["w", "x", "y", "sample_weight"])
def test_two_libraries_are_refused(place64: Place, name: str) -> None:
    if place64.name == "numpy":
        pytest.skip("NumPy is the other library here")
    host = batch(NET, NUMPY)[name]
    theirs = {"strict": "array_api_strict", "jax": "jax.numpy"}.get(place64.name, place64.name)
    ours, theirs, wrong = ("numpy", theirs, "x") if name == "w" else (theirs, "numpy", name)
    mover = {
        "numpy": rf"gpubp.device\('cpu'\).put\({wrong}\)",
        "cupy": rf"gpubp.device\('cuda:0'\).put\({wrong}\)",
    }
    move = mover.get(ours, rf"{ours}.asarray\({wrong}, device=w.device\)")
    words = rf"{wrong} must be an array of {ours} like w, got one of {theirs}: move it with {move}"
    refused(NET, place64, TypeError, words, **{name: host})


def test_labels_of_another_library_are_refused(place64: Place) -> None:
    if place64.name == "numpy":
        pytest.skip("NumPy is the other library here")
    refused(
        CLASSES,
        place64,
        TypeError,
        "y must be an array of .* like w, got one of numpy",
        y=np.array([0, 1, 0, 1]),
    )


@pytest.mark.parametrize("name", ["w", "x", "y", "sample_weight"])
def test_two_devices_are_refused(name: str) -> None:
    library("array_api_strict")
    here, there = Place("strict", "device1", "float64"), Place("strict", "CPU_DEVICE", "float64")
    changed = batch(NET, there)[name]
    one = "(device1|CPU)"
    words = rf"\w+ must be on .*{one}.* like w, got one on .*{one}.*: move it with array_api_strict.asarray"
    refused(NET, here, RuntimeError, words, **{name: changed})


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        ([0, 1, 2, 1], ValueError, r"y must hold classes 0..1 for n_L = 2, got 0..2: number them from 0"),
        ([0, -1, 1, 1], ValueError, r"y must hold classes 0..1 for n_L = 2, got -1..1: number them from 0"),
        ([0, 1, 1], ValueError, r"y must have shape \(B,\) with B = 4, got \(3,\): one class an example"),
        (
            [False, True, True, False],
            TypeError,
            r"y must hold integer classes or float64 probabilities, got bool",
        ),
        ([[0, 1]] * 4, TypeError, r"y must be float64 like w, got int64: convert it with astype"),
        (
            ["a", "b", "a", "b"],
            TypeError,
            r"y must hold integer classes or float64 probabilities, got <U1: convert",
        ),
    ],
)
def test_classes_that_are_refused(y: Any, error: type[Exception], words: str) -> None:
    refused(CLASSES, NUMPY, error, words, y=np.array(y))


def test_classes_need_a_cost_that_knows_them() -> None:
    for net, labels in ((NET, [0, 1, 1, 0]), (ONE, [0, 1, 1, 0])):
        refused(net, NUMPY, TypeError, "y must be float64 like w, got int64: convert it", y=np.array(labels))


def test_other_reductions_are_refused() -> None:
    words = r"reduction must be 'mean' or 'sum', got 'none': choose one"
    refused(NET, NUMPY, ValueError, words, reduction="none")


@pytest.mark.parametrize(
    ("weights", "total"),
    [([0.0] * 4, "0"), ([1.0, -1.0, 2.0, -2.0], "0"), ([1e308] * 4, "inf"), ([1.0, np.nan, 1.0, 1.0], "nan")],
)
def test_sample_weights_without_a_mean_are_refused(weights: list[float], total: str) -> None:
    words = rf"sample_weight must have a finite sum other than 0 for reduction 'mean', got {total}: give some"
    s = np.array(weights)
    refused(NET, NUMPY, ValueError, words, sample_weight=s)
    w, x, y, _ = batch(NET, NUMPY).values()
    each = NET.cost(w, x, y, reduction="sum") if total == "0" else None
    if each is not None:
        by_row = [float(NET.cost(w, x[i : i + 1], y[i : i + 1])) for i in range(4)]
        assert float(NET.cost(w, x, y, sample_weight=s, reduction="sum")) == pytest.approx(s @ by_row)


def test_elsewhere_weights_of_sum_0_give_nan(place64: Place) -> None:
    w, x, y, s = batch(NET, place64).values()
    if place64.name != "numpy":
        assert np.isnan(place64.host(NET.cost(w, x, y, sample_weight=0.0 * s)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", [NET, ONE, CLASSES], ids=str)
def test_the_order_of_bytes_makes_no_difference(net: Network, dtype: str) -> None:
    arrays = {name: array.astype(dtype) for name, array in batch(net, NUMPY).items()}
    if net is CLASSES:
        arrays["y"] = np.array([0, 1, 1, 0])
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    for mixed in (swapped, {**arrays, "w": swapped["w"]}, {**swapped, "w": arrays["w"]}):
        (w, x, y, s), (w0, x0, y0, s0) = mixed.values(), arrays.values()
        chains, right = net.backward(w, x, y, sample_weight=s), net.backward(w0, x0, y0, sample_weight=s0)
        assert chains.gradient.dtype.isnative
        np.testing.assert_array_equal(chains.gradient, right.gradient)
        np.testing.assert_array_equal(net.gradient(w, x, y, sample_weight=s), right.gradient)
        np.testing.assert_array_equal(net.cost(w, x, y, sample_weight=s), right.cost)
        np.testing.assert_array_equal(net.forward(w, x).p[-1], right.p[-1])
        np.testing.assert_array_equal(net.predict(w, x), right.q[-1])
    linear = Network(SIZES, hidden="identity")
    np.testing.assert_array_equal(
        linear.collapse(batch(linear, NUMPY)["w"].astype(">f8"))[0],
        linear.collapse(batch(linear, NUMPY)["w"])[0],
    )


def test_layers_of_the_wrong_w_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"w must have shape \(n_weights,\) with n_weights = 14, got \(13,\)"
    ):
        NET.layers(np.zeros(13))
    with pytest.raises(TypeError, match="are needed, got list"):
        NET.layers([0.0] * 14)


def test_memory_maps_and_strided_arrays_are_welcome(tmp_path: Any) -> None:
    arrays = batch(NET, NUMPY)
    np.save(tmp_path / "x.npy", arrays["x"])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    spread = np.zeros((2 * B, 6))
    spread[::2, ::2] = arrays["x"]
    right = NET.gradient(arrays["w"], arrays["x"], arrays["y"])
    for x in (mapped, spread[::2, ::2], np.asfortranarray(arrays["x"])):
        np.testing.assert_allclose(NET.gradient(arrays["w"], x, arrays["y"]), right, rtol=1e-14)
