"""scikit-learn's MLP, driven through its own step, so that first weights and the order of rows can be given.

The loop is that of its ``_fit_stochastic`` without what stands around it: its gather, its ``_backprop``, its Adam.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer
from sklearn.utils import _safe_indexing

from benchmarks._cases import BETA1, BETA2, EPSILON, RATE, Case, flat

__all__ = ["fit", "predictor", "trainer"]


def estimator(case: Case, x: Any, y: Any, epsilon: float) -> Any:
    """An estimator that has seen some rows, and so holds all its attributes, with the case's first weights."""
    kind = MLPRegressor if case.regression else MLPClassifier
    found = kind(
        hidden_layer_sizes=case.hidden,
        activation=case.activation,
        alpha=0.0,
        batch_size=case.batch,
        learning_rate_init=RATE,
        beta_1=BETA1,
        beta_2=BETA2,
        epsilon=epsilon,
    )
    some = {} if case.regression else {"classes": np.arange(case.outputs)}
    found.partial_fit(x[: case.batch], y[: case.batch], **some)
    load(found, case, x.dtype)
    return found


def load(found: Any, case: Case, dtype: Any) -> None:
    """Set the first weights; W is (n_in, n_out) here."""
    layers = case.layers(dtype)
    found.coefs_ = [np.ascontiguousarray(W.T) for W, _ in layers]
    found.intercepts_ = [b for _, b in layers]


class Training:
    """A network of the grid in scikit-learn."""

    def __init__(self, case: Case, dtype: str, epsilon: float) -> None:
        self.case, self.dtype, self.epsilon = case, dtype, epsilon
        x, y = case.data(dtype)
        self.estimator = estimator(case, x, y, epsilon)
        self.x, y = self.estimator._validate_input(x, y, incremental=True, reset=False)
        self.y = y.reshape(-1, 1) if y.ndim == 1 else y

    def run(self, epochs: int) -> float:
        found, case = self.estimator, self.case
        load(found, case, self.dtype)
        weights = found.coefs_ + found.intercepts_
        adam = AdamOptimizer(weights, RATE, BETA1, BETA2, self.epsilon)
        n = len(found.coefs_)
        activations: list[Any] = [None] * (n + 1)
        deltas: list[Any] = [None] * n
        dW, db = ([np.empty_like(part) for part in parts] for parts in (found.coefs_, found.intercepts_))
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            total = 0.0
            for which in case.order(number):
                x, y = _safe_indexing(self.x, which), self.y[which]
                activations[0] = x
                C, dW, db = found._backprop(x, y, None, activations, deltas, dW, db)
                total += C
                adam.update_params(weights, dW + db)
            self.cost = total / case.steps
        return time.perf_counter() - start

    def result(self) -> tuple[Any, float]:
        found = self.estimator
        layers = [(W.T, b) for W, b in zip(found.coefs_, found.intercepts_, strict=True)]
        return flat(layers), float(self.cost)


def trainer(variant: str, case: Case, dtype: str, epsilon: float, device: str = "cpu") -> Training:
    """A training of this case."""
    return Training(case, dtype, epsilon)


def predictor(variant: str, case: Case) -> Callable[[Any], Any]:
    """Probabilities of the rows of a NumPy array, in NumPy."""
    predict: Callable[[Any], Any] = estimator(case, *case.data("float32"), EPSILON).predict_proba
    return predict


def fit(x: Any, labels: Any, batch: int) -> None:
    """One epoch of the real thing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # one epoch is what was asked for
        MLPClassifier(hidden_layer_sizes=(100,), batch_size=batch, max_iter=1, random_state=0).fit(x, labels)
