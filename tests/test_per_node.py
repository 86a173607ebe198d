"""One layer, several activations: beside the same nodes alone, everywhere an activation goes."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place

import gpubp
from gpubp import activations
from gpubp._checkpoint import CheckpointError
from gpubp._checks import Interval
from gpubp.engines import engine_for

KINDS = ["tanh", "relu", "relu", "identity", "gelu", "leaky_relu(slope=0.1)"]
SINE = gpubp.Activation(
    lambda xp, p: xp.sin(p), lambda xp, p, q: xp.cos(p), name="sine, or (so)", analytic=True
)


def mixed(**more: Any) -> gpubp.Network:
    return gpubp.Network((3, 6, 2), hidden=gpubp.per_node(KINDS), output="tanh", **more)


def test_each_node_has_its_own(place: Place) -> None:
    sigma = gpubp.per_node(KINDS)
    rng = np.random.default_rng(0)
    p, g = (place.array(rng.standard_normal((5, 6))) for _ in range(2))
    engine = engine_for(p)
    q = engine.activate(sigma, p)
    Delta = engine.pull_back(sigma, p, q, g)
    assert place.here(q)
    assert place.here(Delta)
    for k, kind in enumerate(KINDS):
        one = activations.get(kind)
        column = slice(k, k + 1)
        alone = engine.activate(one, p[:, column])
        np.testing.assert_allclose(place.host(q)[:, column], place.host(alone), rtol=place.rtol)
        back = engine.pull_back(one, p[:, column], alone, g[:, column])
        np.testing.assert_allclose(place.host(Delta)[:, column], place.host(back), rtol=place.rtol)


@pytest.mark.parametrize("where", ["input", "hidden", "output"])
def test_its_gradient(where: str) -> None:
    sigma = gpubp.per_node(["tanh", "softplus", SINE])
    parts: dict[str, Any] = {"hidden": "sigmoid", where: sigma}
    net = gpubp.Network((3, 3, 3), **parts)
    rng = np.random.default_rng(1)
    w = net.init(dtype="float64") + 0.1 * rng.standard_normal(net.n_weights)
    report = gpubp.check_gradient(net, w, *rng.standard_normal((2, 5, 3)))
    assert report.method == "complex"
    assert report.passed, report


def test_a_layer_of_one_kind_is_that_kind() -> None:
    rng = np.random.default_rng(2)
    plain = gpubp.Network((3, 6, 2), hidden="tanh")
    each = gpubp.Network((3, 6, 2), hidden=gpubp.per_node(["tanh"] * 6))
    w, x, y = plain.init(dtype="float64"), rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    np.testing.assert_array_equal(plain.gradient(w, x, y), each.gradient(w, x, y))


def test_gradients_without_p_are_those_with_it() -> None:
    """Where no part reads p, it isn't kept."""
    light, heavy = gpubp.per_node(["tanh", "relu", "identity"]), gpubp.per_node(["tanh", "relu", "gelu"])
    assert (light.reads_p, heavy.reads_p) == (False, True)
    assert (light.reads_q, gpubp.per_node(["gelu", "identity"]).reads_q) == (True, False)
    rng = np.random.default_rng(3)
    for sigma in (light, heavy):
        net = gpubp.Network((2, 3, 1), hidden=sigma)
        w, x, y = net.init(dtype="float64"), rng.standard_normal((4, 2)), rng.standard_normal(4)
        chains = net.backward(w, x, y)
        np.testing.assert_allclose(net.gradient(w, x, y), chains.gradient, rtol=1e-14)


def test_it_runs_under_jit_and_by_autodiff(jax: Any) -> None:
    net = mixed()
    rng = np.random.default_rng(4)
    w = jax.numpy.asarray(net.init(dtype="float64"))
    x, y = (jax.numpy.asarray(rng.standard_normal((5, n))) for n in (3, 2))
    theirs = jax.grad(lambda w: net.cost(w, x, y))(w)
    np.testing.assert_allclose(jax.jit(net.gradient)(w, x, y), theirs, rtol=1e-10, atol=1e-14)


def test_where_steps_are_compiled_its_own_are_numpys(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("numba", reason="numba is not installed: the extra fast brings it")
    net = mixed()
    rng = np.random.default_rng(5)
    w, x, y = net.init(dtype="float64"), rng.standard_normal((40, 3)), rng.standard_normal((40, 2))
    runs = []
    for choice in ("never", "always"):
        monkeypatch.setenv("GPUBP_COMPILE", choice)
        with caplog.at_level(logging.INFO, "gpubp"):
            runs.append(gpubp.train(net, x, y, w=w, epochs=30, batch_size=8, device="cpu", progress=False))
    assert "training steps aren't compiled" in caplog.text
    np.testing.assert_array_equal(runs[0].w, runs[1].w)
    assert runs[0].history["cost"][-1] < runs[0].history["cost"][0]


def test_it_is_what_its_parts_are() -> None:
    one, two = gpubp.per_node(["tanh", "relu"]), gpubp.per_node(("tanh", activations.relu()))
    assert one == two
    assert hash(one) == hash(two)
    assert one != gpubp.per_node(["relu", "tanh"])
    assert one != activations.tanh()
    assert pickle.loads(pickle.dumps(one)) == one
    assert repr(one) == "<activation per_node(tanh, relu)>"
    net = gpubp.Network((3, 2, 1), hidden=one)
    assert repr(net) == "Network((3, 2, 1), hidden='per_node(tanh, relu)')"
    assert net == gpubp.Network((3, 2, 1), hidden=[two]) == pickle.loads(pickle.dumps(net))
    assert one.analytic is False
    assert gpubp.per_node(["tanh", "sigmoid"]).analytic is True


def test_its_range_is_around_its_parts() -> None:
    assert gpubp.per_node(["tanh", "sigmoid"]).output_range == Interval(-1.0, 1.0)
    assert gpubp.per_node(["sigmoid", "relu"]).output_range == Interval(0.0, float("inf"), low_closed=True)
    assert gpubp.per_node(["tanh", SINE]).output_range is None
    gpubp.Network((3, 2), output=gpubp.per_node(["sigmoid", "sigmoid"]), cost="binary_cross_entropy")
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got 'per_node\(sigmoid, tanh\)'"):
        gpubp.Network((3, 2), output=gpubp.per_node(["sigmoid", "tanh"]), cost="binary_cross_entropy")


def test_it_is_saved_by_its_parts_names(tmp_path: Path) -> None:
    path = tmp_path / "mixed.safetensors"
    net = gpubp.Network((2, 3, 1), hidden=gpubp.per_node(["tanh", SINE, "leaky_relu(slope=0.1)"]))
    w = net.init()
    gpubp.save(path, net, w)
    with pytest.raises(CheckpointError, match=r"'sine, or \(so\)' isn't built in: pass your own"):
        gpubp.load(path)
    for given in (SINE, net.sigma[1]):
        saved = gpubp.load(path, activations=[given])
        assert saved.net == net
        np.testing.assert_array_equal(saved.w, w)
    impostor = gpubp.Activation(lambda xp, p: 2.0 * p, lambda xp, p, q: 2.0 + 0.0 * p, name="tanh")
    with pytest.raises(ValueError, match="must have a name of its own, got 'tanh': rename it"):
        gpubp.save(path, gpubp.Network((2, 1, 1), hidden=gpubp.per_node([impostor])), np.ones(5))


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match=r"an activation for each node of layer j = 1, n_1 = 3, got 2: give as"
    ):
        gpubp.Network((2, 3, 1), hidden=gpubp.per_node(["tanh", "relu"]))
    with pytest.raises(ValueError, match="act on each node alone, got 'softmax': choose another"):
        gpubp.per_node(["tanh", "softmax"])
    with pytest.raises(ValueError, match=r"act on each node alone, got 'per_node\(tanh\)': choose another"):
        gpubp.per_node([gpubp.per_node(["tanh"])])
    with pytest.raises(ValueError, match="an activation for each node of its layer, got none: give names"):
        gpubp.per_node([])
    with pytest.raises(TypeError, match="a sequence of activations, one a node, got str: put it in a list"):
        gpubp.per_node("tanh")
    with pytest.raises(ValueError, match=r"needs p of shape \(B, n\) with n = 2, got \(4, 3\): give one"):
        gpubp.per_node(["tanh", "relu"]).value(np, np.ones((4, 3)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (3, 5, 4, 2)])
def test_a_linear_network_is_one_matrix(place: Place, sizes: tuple[int, ...], bias: bool) -> None:
    net = gpubp.Network(sizes, hidden="identity", bias=bias)
    rng = np.random.default_rng(6)
    w, x = place.array(rng.standard_normal(net.n_weights)), place.array(rng.standard_normal((5, 3)))
    W_c, b_c = net.collapse(w)
    assert place.here(W_c)
    assert (b_c is None) != bias
    q = place.host(x) @ place.host(W_c).T + (0.0 if b_c is None else place.host(b_c))
    np.testing.assert_allclose(q, place.host(net.predict(w, x)), rtol=100 * place.rtol, atol=100 * place.eps)


def test_the_one_matrix_is_the_callers_own() -> None:
    net = gpubp.Network((3, 2))
    w = net.init(dtype="float64")
    W_c, b_c = net.collapse(w)
    before = w.copy()
    W_c += 1.0
    assert b_c is not None
    b_c += 1.0
    np.testing.assert_array_equal(w, before)


def test_what_is_not_linear_does_not_collapse() -> None:
    net = gpubp.Network((3, 4, 2), hidden="tanh")
    with pytest.raises(ValueError, match="every sigma_j the identity, got 'tanh' at j = 1: only without"):
        net.collapse(net.init())
    each = gpubp.Network((3, 2), input=gpubp.per_node(["identity", "identity", "relu"]))
    with pytest.raises(ValueError, match=r"got 'per_node\(identity, identity, relu\)' at j = 0"):
        each.collapse(each.init())
    same = gpubp.Network((3, 2), input=gpubp.per_node(["identity"] * 3))
    np.testing.assert_array_equal(
        same.collapse(same.init())[0], gpubp.Network((3, 2)).layers(same.init())[0][0]
    )
    with pytest.raises(ValueError, match=r"w must have shape \(n_weights,\) with n_weights = 8, got \(3,\)"):
        same.collapse(np.ones(3))
