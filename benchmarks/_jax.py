"""JAX: a step jitted with its state donated, called from Python; or a whole epoch under ``lax.scan``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._cases import BETA1, BETA2, EPSILON, RATE, Case, flat, stored

__all__ = ["fit", "predictor", "trainer"]

PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32"}  # JAX's own choice on a GPU is tf32 for both


def outputs(layers: Any, x: Any, activation: str) -> Any:
    """p_L of the rows of x."""
    sigma = {"relu": jax.nn.relu, "tanh": jnp.tanh}[activation]
    for W, b in layers[:-1]:
        x = sigma(x @ W.T + b)
    W, b = layers[-1]
    return x @ W.T + b


def mean_cost(layers: Any, x: Any, y: Any, activation: str, precision: str = "float32") -> Any:
    """The mean over rows: of the cross-entropy where y holds classes, else of half the squared error.

    Of the spellings tried (W or W', picking each row's logarithm or weighing all by the unit vector) the fastest.
    """
    if precision == "bfloat16":
        low_layers, low_x = jax.tree.map(lambda part: part.astype(jnp.bfloat16), (layers, x))
        p = outputs(low_layers, low_x, activation).astype(x.dtype)
    else:
        p = outputs(layers, x, activation)
    if jnp.issubdtype(y.dtype, jnp.integer):
        hot = jax.nn.one_hot(y, p.shape[1], dtype=p.dtype)
        return -jnp.sum(hot * jax.nn.log_softmax(p)) / y.shape[0]
    return 0.5 * jnp.mean(jnp.square(p[:, 0] - y))


def step(
    state: Any, x: Any, y: Any, which: Any, activation: str, epsilon: float, precision: str = "float32"
) -> tuple[Any, Any]:
    """Gather, gradient and Adam; the new (layers, m, v, t), and the cost."""
    layers, m, v, t = state
    C, g = jax.value_and_grad(mean_cost)(layers, x[which], y[which], activation, precision)
    t = t + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * (g * g), v, g)
    rate, root = RATE / (1 - BETA1 ** t.astype(C.dtype)), (1 - BETA2 ** t.astype(C.dtype)) ** -0.5
    layers = jax.tree.map(lambda w, m, v: w - rate * m / (root * jnp.sqrt(v) + epsilon), layers, m, v)
    return (layers, m, v, t), C


class Training:
    """A network of the grid on JAX's first device, the only kind its process may use."""

    def __init__(self, variant: str, case: Case, precision: str, epsilon: float, device: str) -> None:
        jax.config.update("jax_enable_x64", precision == "float64")
        jax.config.update(
            "jax_default_matmul_precision", None if device == "cpu" else PRODUCTS.get(precision)
        )
        self.case, dtype = case, stored(precision)
        self.first = case.layers(dtype)
        x, y = case.data(dtype)
        self.x, self.y = jnp.asarray(x), jnp.asarray(y if case.regression else y.astype(np.int32))
        once = partial(step, activation=case.activation, epsilon=epsilon, precision=precision)
        self.epoch = {"step": self._stepwise(once), "scan": self._scanned(once)}[variant]

    def _stepwise(self, once: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
        # the row of ``order`` follows from the count of steps: nothing has to be handed in from Python
        def numbered(state: Any, costs: Any, x: Any, y: Any, order: Any) -> tuple[Any, Any]:
            number = state[3] % order.shape[0]
            state, C = once(state, x, y, order[number])
            return state, costs.at[number].set(C)

        jitted = jax.jit(numbered, donate_argnums=(0, 1))

        def epoch(state: Any, order: Any) -> tuple[Any, Any]:
            costs = jnp.zeros(self.case.steps, dtype=self.x.dtype)
            for _ in range(self.case.steps):
                state, costs = jitted(state, costs, self.x, self.y, order)
            return state, costs

        return epoch

    def _scanned(self, once: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
        def scanned(state: Any, x: Any, y: Any, order: Any) -> Any:
            return jax.lax.scan(lambda state, which: once(state, x, y, which), state, order)

        jitted = jax.jit(scanned, donate_argnums=0)
        return lambda state, order: jitted(state, self.x, self.y, order)

    def run(self, epochs: int) -> float:
        state = jax.block_until_ready(fresh(self.first))
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            order = jnp.asarray(self.case.order(number).astype(np.int32))
            state, costs = self.epoch(state, order)
            self.layers = jax.block_until_ready(state)[0]
            self.cost = float(np.mean(costs))
        return time.perf_counter() - start

    def result(self) -> tuple[Any, float]:
        return flat([(np.asarray(W), np.asarray(b)) for W, b in self.layers]), self.cost


def fresh(layers: Any) -> Any:
    """The state before the first step, in memory of its own: it will be donated."""
    first = jax.tree.map(lambda part: jnp.array(part, copy=True), layers)
    zeros = (jax.tree.map(jnp.zeros_like, first) for _ in "mv")
    return (first, *zeros, jnp.asarray(0, dtype=jnp.int32))


def trainer(variant: str, case: Case, precision: str, epsilon: float, device: str = "cpu") -> Training:
    """A training of this case."""
    return Training(variant, case, precision, epsilon, device)


def predictor(variant: str, case: Case) -> Callable[[Any], Any]:
    """Probabilities of the rows of a NumPy array, in NumPy."""
    layers = jax.tree.map(jnp.asarray, case.layers("float32"))
    jitted = jax.jit(lambda layers, x: jax.nn.softmax(outputs(layers, x, case.activation)))
    return lambda x: np.asarray(jitted(layers, x))


def fit(x: Any, labels: Any, batch: int) -> None:
    """One epoch, as MLPClassifier would."""
    rng = np.random.default_rng(0)
    sizes = ((x.shape[1], 100), (100, 10))
    first = [(rng.normal(0, m**-0.5, (n, m)).astype(np.float32), np.zeros(n, np.float32)) for m, n in sizes]
    state, x, y = fresh(first), jnp.asarray(x), jnp.asarray(labels.astype(np.int32))
    jitted = jax.jit(partial(step, activation="relu", epsilon=EPSILON), donate_argnums=0)
    order = rng.permutation(x.shape[0]).astype(np.int32)
    for start in range(0, x.shape[0], batch):
        state, _ = jitted(state, x, y, order[start : start + batch])
    jax.block_until_ready(state)
