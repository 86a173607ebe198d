"""JAX: the same numbers under ``jax.jit``, chains as a pytree, and no values read while it traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpubp import Adam, Chains, Network

NETS = [
    Network((3, 5, 4), hidden="gelu", cost="cross_entropy"),
    Network((3, 4, 2), hidden="relu", output="softplus", cost="poisson", bias=False),
]


def problem(jnp: Any, net: Network, labels: bool = False) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    n = net.sizes[-1]
    y = rng.integers(0, n, 6) if labels else rng.random((6, n))
    w = net.init(0, dtype="float64")
    return tuple(jnp.asarray(a) for a in (w, rng.standard_normal((6, 3)), y, rng.random(6)))


def same(ours: Any, right: Any, jax: Any) -> None:
    ours, right = jax.tree.leaves(ours), jax.tree.leaves(right)
    assert len(ours) == len(right) > 0
    for a, b in zip(ours, right, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("labels", [False, True], ids=["rows", "classes"])
@pytest.mark.parametrize("net", NETS, ids=str)
def test_jit_changes_nothing(jax: Any, net: Network, labels: bool) -> None:
    if labels and not net.cost_function.labels:
        pytest.skip("this cost has no classes")
    w, x, y, s = problem(jax.numpy, net, labels)
    chains = jax.jit(net.backward)(w, x, y, sample_weight=s)
    assert isinstance(chains, Chains)
    assert (chains.db is None) == (not net.bias)
    same(chains, net.backward(w, x, y, sample_weight=s), jax)
    right = net.backward(*(np.asarray(a) for a in (w, x, y)), sample_weight=np.asarray(s))
    same(chains, jax.tree.map(np.asarray, right), jax)
    methods: list[Callable[..., Any]] = [net.cost, net.gradient, net.cost_and_gradient]
    for method in methods:
        same(jax.jit(method)(w, x, y), method(w, x, y), jax)
    for method in (net.forward, net.predict):
        same(jax.jit(method)(w, x), method(w, x), jax)


def test_reductions_are_static_under_jit(jax: Any) -> None:
    net = NETS[0]
    w, x, y, _ = problem(jax.numpy, net)
    total = jax.jit(lambda w, x, y: net.gradient(w, x, y, reduction="sum"))
    same(total(w, x, y), 6 * net.gradient(w, x, y), jax)


def test_the_gradient_of_the_cost_is_the_gradient(jax: Any) -> None:
    net = NETS[0]
    w, x, y, s = problem(jax.numpy, net, labels=True)
    by = jax.jit(jax.grad(net.cost))(w, x, y, sample_weight=s)
    np.testing.assert_allclose(net.gradient(w, x, y, sample_weight=s), by, rtol=1e-12, atol=1e-16)


def test_vmap_gives_single_examples(jax: Any) -> None:
    """What a batch's "sum" promises, by mapping over batches of one."""
    net = NETS[0]
    w, x, y, _ = problem(jax.numpy, net)
    alone = jax.vmap(net.backward, in_axes=(None, 0, 0))(w, x[:, None], y[:, None])
    total: Any = net.backward(w, x, y, reduction="sum")
    for a, b in zip(alone.Delta, total.Delta, strict=True):
        np.testing.assert_allclose(a[:, 0], b, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(alone.gradient.sum(0), total.gradient, rtol=1e-12, atol=1e-15)


def test_a_whole_step_under_jit(jax: Any) -> None:
    net, optimizer = NETS[0], Adam(0.01)
    w, x, y, _ = problem(jax.numpy, net, labels=True)

    def step(w: Any, state: Any) -> Any:
        return optimizer.step(w, net.gradient(w, x, y), state)

    jitted, plain = (w, optimizer.init(w)), (w, optimizer.init(w))
    compiled = jax.jit(step)
    for _ in range(3):
        jitted, plain = compiled(*jitted), step(*plain)
    np.testing.assert_allclose(jitted[0], plain[0], rtol=1e-12)


def test_refusals_come_while_tracing(jax: Any) -> None:
    net = NETS[0]
    w, x, y, _ = problem(jax.numpy, net)
    with pytest.raises(ValueError, match=r"x must have shape \(B, n_0\) with n_0 = 3, got \(6, 2\)"):
        jax.jit(net.cost)(w, x[:, :2], y)
    with pytest.raises(TypeError, match=r"x must be float64 like w, got float32"):
        jax.jit(net.cost)(w, x.astype("float32"), y)
    with pytest.raises(TypeError, match=r"y must be an array of jax.numpy like w, got one of numpy"):
        jax.jit(lambda w: net.cost(w, x, np.asarray(y)))(w)


def test_half_precision_is_refused(jax: Any) -> None:
    w, x, y, _ = (a.astype("bfloat16") for a in problem(jax.numpy, NETS[0]))
    with pytest.raises(TypeError, match="w must be float32 or float64, got bfloat16: convert it with astype"):
        NETS[0].gradient(w, x, y)
