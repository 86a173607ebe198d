"""``Network``: sizes, activations and a cost; a value without weights. Its methods check shapes and call the heart."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, overload

import numpy as np

from gpubp import activations, backprop, costs, initializers
from gpubp._checks import shape_is, whole_number
from gpubp._devices import at, check_alike, place
from gpubp._devices import device as named_device
from gpubp._layout import Layout
from gpubp._numerics import dtype_kind, native
from gpubp._per_node import PerNode
from gpubp._typing import Array, Biases, Namespace, NativeDevice
from gpubp.activations import Activation
from gpubp.backprop import Chains, ForwardChains
from gpubp.costs import Cost
from gpubp.engines import Generic, engine_for
from gpubp.initializers import Initializer

__all__ = ["Network", "is_network"]


@dataclass(frozen=True, init=False, repr=False)
class Network(typing.Generic[Biases]):
    """A feedforward network of nodes j = 0..L with ``sizes`` (n_0, ..., n_L): what to compute, without the weights.

    Parameters
    ----------
    sizes : the number of nodes of each layer, input first; at least two
    hidden : an activation or its name for all hidden layers, or one for each; ``per_node`` makes one of several
    output : the activation of the output; None takes the cost's natural partner (identity, softmax for
        "cross_entropy", sigmoid for "binary_cross_entropy", exp for "poisson")
    input : sigma_0, applied to x itself (article, section II)
    cost : a cost or its name
    bias : whether p_{i+1} = q_i W_i' + b_i has its b_i; the article has none

    All weights form one flat vector w (n_weights,): W_0, ..., W_{L-1}, then b_0, ..., b_{L-1}.

    Raises
    ------
    ValueError : an unknown name, too few sizes, or an output whose range leaves what the cost is defined on
    TypeError : something of the wrong kind

    Examples
    --------
    >>> net = Network((2, 3, 1), hidden="tanh")
    >>> net
    Network((2, 3, 1), hidden='tanh')
    >>> net.n_weights
    13
    """

    sizes: tuple[int, ...]
    sigma: tuple[Activation, ...]
    cost_function: Cost
    bias: bool

    @overload
    def __init__(
        self: Network[None],
        sizes: Sequence[int],
        hidden: str | Activation | Sequence[str | Activation] = ...,
        output: str | Activation | None = ...,
        input: str | Activation = ...,
        cost: str | Cost = ...,
        *,
        bias: Literal[False],
    ) -> None: ...
    @overload
    def __init__(
        self: Network[Any],
        sizes: Sequence[int],
        hidden: str | Activation | Sequence[str | Activation] = ...,
        output: str | Activation | None = ...,
        input: str | Activation = ...,
        cost: str | Cost = ...,
        bias: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        sizes: Sequence[int],
        hidden: str | Activation | Sequence[str | Activation] = "relu",
        output: str | Activation | None = None,
        input: str | Activation = "identity",
        cost: str | Cost = "squared_error",
        bias: bool = True,
    ) -> None:
        if isinstance(sizes, str) or not hasattr(sizes, "__iter__"):
            raise TypeError(
                f"sizes must be a sequence such as (784, 100, 10), got {type(sizes).__name__}: give a tuple"
            )
        sizes = tuple(whole_number(f"sizes[{j}]", n) for j, n in enumerate(sizes))
        if len(sizes) < 2:
            raise ValueError(
                f"sizes must name at least an input and an output, got {len(sizes)} of them: add layers"
            )
        inner = len(sizes) - 2
        if not isinstance(hidden, str | Activation | Sequence):
            raise TypeError(
                f"hidden must be one activation, or one for each of the {inner} hidden layers, got "
                f"{type(hidden).__name__}: give a name"
            )
        each = [hidden] * inner if isinstance(hidden, str | Activation) else list(hidden)
        if len(each) != inner:
            raise ValueError(
                f"hidden must be one activation, or one for each of the {inner} hidden layers, got {len(each)}: "
                "give as many as there are hidden layers"
            )
        cost_function = costs.get(cost)
        last = activations.get(cost_function.partner.activation if output is None else output)
        _check_domain(cost_function, last)
        sigma = (activations.get(input), *map(activations.get, each), last)
        _check_nodes(sizes, sigma)
        for name, value in {
            "sizes": sizes,
            "sigma": sigma,
            "cost_function": cost_function,
            "bias": bool(bias),
        }.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        parts = [f"{self.sizes}"]
        inner = tuple(sigma.name for sigma in self.sigma[1:-1])
        if inner and set(inner) != {"relu"}:
            parts.append(f"hidden={inner[0]!r}" if len(set(inner)) == 1 else f"hidden={inner}")
        if self.sigma[-1].name != self.cost_function.partner.activation:
            parts.append(f"output={self.sigma[-1].name!r}")
        if self.sigma[0].name != "identity":
            parts.append(f"input={self.sigma[0].name!r}")
        if self.cost_function.name != "squared_error":
            parts.append(f"cost={self.cost_function.name!r}")
        if not self.bias:
            parts.append("bias=False")
        return f"Network({', '.join(parts)})"

    @cached_property
    def layout(self) -> Layout:
        """Where each W and b stands in w."""
        return Layout(self.sizes, self.bias)

    @property
    def n_weights(self) -> int:
        """The length of w."""
        return self.layout.n_weights

    @cached_property
    def natural(self) -> bool:
        """Whether cost and output are made for each other, so that both are computed from p_L in one piece."""
        partner = self.cost_function.partner
        return partner.Delta is not None and self.sigma[-1] == activations.get(partner.activation)

    @cached_property
    def analytic(self) -> bool:
        """Whether complex w and x may run through it."""
        return self.cost_function.analytic and all(sigma.analytic for sigma in self.sigma)

    def init(
        self,
        seed: int = 0,
        *,
        dtype: str = "float32",
        device: str | NativeDevice = "cpu",
        xp: Namespace = None,
        weights: str | Initializer | Sequence[str | Initializer] | None = None,
        biases: str | Initializer = "zeros",
    ) -> Array:
        """First weights w (n_weights,), drawn on the host in float64: a seed gives the same numbers everywhere.

        ``weights`` is an initializer or its name for all layers, or one for each; None chooses by the activation that
        follows (``initializers.default_for``). ``device`` is a name of ``gpubp.device``; or, with a namespace ``xp``,
        one of that library's own ("cpu" is its default device).

        Raises
        ------
        ValueError : an unknown initializer, dtype or device, or an initializer that gives another shape
        """
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}: give one of these names")
        L = len(self.sizes) - 1
        if weights is None:
            weights = [initializers.default_for(sigma.name) for sigma in self.sigma[1:]]
        if not (isinstance(weights, Sequence) or callable(weights)):
            raise TypeError(
                f"weights must be one initializer, or one for each of the {L} layers, got "
                f"{type(weights).__name__}: give a name"
            )
        each = [weights] * L if isinstance(weights, str) or callable(weights) else list(weights)
        if len(each) != L:
            raise ValueError(
                f"weights must be one initializer, or one for each of the {L} layers, got {len(each)}: "
                "give as many as there are layers"
            )
        rng = np.random.default_rng(seed)
        pairs = list(pairwise(self.sizes))
        parts = [
            initializers.drawn(draw, rng, (n, m), m, n) for draw, (m, n) in zip(each, pairs, strict=True)
        ]
        if self.bias:
            parts += [initializers.drawn(biases, rng, (n,), m, n) for m, n in pairs]
        w = np.concatenate([part.ravel() for part in parts]).astype(dtype)
        if xp is None:
            return named_device(device).put(w)
        return place(w, xp, None if isinstance(device, str) and device == "cpu" else device)

    def layers(self, w: Array) -> list[tuple[Array, Biases]]:
        """[(W_0, b_0), ...]: W_i (n_{i+1}, n_i), b_i (n_{i+1},) or None without biases; writable views of w on NumPy,
        CuPy and PyTorch, copies on JAX.

        Raises
        ------
        ValueError : w isn't (n_weights,)
        """
        self._check_w(w)
        return list(zip(*self.layout.views(w), strict=True))

    def flatten(self, layers: Sequence[tuple[Array, Array | None]]) -> Array:
        """The flat w (n_weights,) of [(W_0, b_0), ...], the inverse of ``layers``.

        Raises
        ------
        ValueError : a W or b of another shape than the network's, or too few or many
        TypeError, RuntimeError : parts that are not arrays of one library, dtype and device
        """
        L = len(self.sizes) - 1
        if len(layers) != L:
            raise ValueError(f"layers must hold {L} pairs (W, b), got {len(layers)}: give one a layer")
        parts = [W for W, _ in layers]
        if self.bias:
            parts += [b for _, b in layers]
        elif any(b is not None for _, b in layers):
            raise ValueError(
                "layers must hold None for every b of a network without biases, got an array: drop it"
            )
        engine = engine_for(parts[0])
        for part, shape, k in zip(parts, self.layout.shapes, range(2 * L), strict=False):
            name = f"{'Wb'[k // L]}[{k % L}]"
            if part is None:
                raise ValueError(f"{name} must have shape {shape}, got None: give an array")
            check_alike(name, part, parts[0], engine, "W[0]")
            shape_is(
                name,
                part,
                shape,
                str(shape),
                "rows are outputs, columns are inputs" if k < L else "one an output",
            )
        with at(parts[0]):
            return engine.join(parts)

    def forward(self, w: Array, x: Array) -> ForwardChains:
        """The forward chains p and q of x (B, n_0); p[0] is x itself.

        Raises
        ------
        ValueError : w or x of another shape
        TypeError : w or x of another dtype or library, or not an array
        RuntimeError : w and x on different devices
        """
        w, x = native(w), native(x)
        engine = self._check(w, x)
        with at(w), engine.quiet():
            p, q = zip(*backprop.forward(self, engine, self.layout.views(w), x), strict=True)
        return ForwardChains(p, q)

    def collapse(self, w: Array) -> tuple[Array, Biases]:
        """(W_c, b_c): the one matrix (n_L, n_0) that a linear network equals, W_{L-1} ... W_0, and its bias (n_L,) or
        None (article, sections I and III).

        Raises
        ------
        ValueError : an activation that isn't the identity, or w isn't (n_weights,)
        """
        w = native(w)
        engine = self._check_w(w)
        for j, sigma in enumerate(self.sigma):
            if set(sigma.parts if isinstance(sigma, PerNode) else [sigma]) != {activations.identity()}:
                raise ValueError(
                    f"collapse needs a linear network, every sigma_j the identity, got {sigma.name!r} at j = {j}: "
                    "only without it is the network one matrix"
                )
        with at(w):
            return backprop.collapsed(engine, self.layout.views(w))

    def predict(self, w: Array, x: Array) -> Array:
        """q_L, (B, n_L), of x (B, n_0). Raises as ``forward`` does."""
        w, x = native(w), native(x)
        engine = self._check(w, x)
        with at(w), engine.quiet():
            return backprop.predict(self, engine, self.layout.views(w), x)

    def backward(
        self, w: Array, x: Array, y: Array, *, sample_weight: Array | None = None, reduction: str = "mean"
    ) -> Chains[Biases]:
        """Both chains of a batch, its cost C and gradient.

        Parameters
        ----------
        w : (n_weights,)
        x : (B, n_0)
        y : (B, n_L), (B,) where n_L = 1, or integer classes (B,) for "cross_entropy"
        sample_weight : s (B,); for "mean" its sum must be finite and not 0: NumPy arrays are refused else, with others
            C and the gradient are NaN, as to look at a value would wait for the device
        reduction : C is sum_i c_i / B for "mean", or sum_i s_i c_i / sum_i s_i with sample weights; sum_i c_i or
            sum_i s_i c_i for "sum". ``Delta[j]`` is dC/dp_j and so carries the 1/B of a mean; unweighted, "sum" makes
            each of its rows that example's own chain.

        Raises
        ------
        ValueError : an argument of another shape; NumPy classes out of range, or sample weights without a mean
        TypeError : an argument of another dtype or library, not an array, or complex
        RuntimeError : arrays on different devices
        """
        w, x, y, sample_weight = map(native, (w, x, y, sample_weight))
        engine = self._check_batch(w, x, y, sample_weight, reduction, real=True)
        with at(w), engine.quiet():
            return backprop.chains(self, engine, w, x, y, sample_weight, reduction)

    def cost(
        self, w: Array, x: Array, y: Array, *, sample_weight: Array | None = None, reduction: str = "mean"
    ) -> Array:
        """C, 0-d, on the device; arguments as for ``backward``."""
        w, x, y, sample_weight = map(native, (w, x, y, sample_weight))
        engine = self._check_batch(w, x, y, sample_weight, reduction)
        with at(w), engine.quiet():
            return backprop.batch_cost(self, engine, w, x, y, sample_weight, reduction)[0]

    def gradient(
        self, w: Array, x: Array, y: Array, *, sample_weight: Array | None = None, reduction: str = "mean"
    ) -> Array:
        """dC/dw, (n_weights,); arguments as for ``backward``."""
        return self.cost_and_gradient(w, x, y, sample_weight=sample_weight, reduction=reduction)[1]

    def cost_and_gradient(
        self, w: Array, x: Array, y: Array, *, sample_weight: Array | None = None, reduction: str = "mean"
    ) -> tuple[Array, Array]:
        """(C, dC/dw), keeping less than ``backward`` does; arguments as there."""
        w, x, y, sample_weight = map(native, (w, x, y, sample_weight))
        engine = self._check_batch(w, x, y, sample_weight, reduction, real=True)
        with at(w), engine.quiet():
            C, g, _ = backprop.cost_and_gradient(self, engine, w, x, y, sample_weight, reduction)
        return C, g

    def _check_w(self, w: Array) -> Generic:
        engine = engine_for(w)
        if w.shape != (self.n_weights,):
            shape_is(
                "w", w, (self.n_weights,), f"(n_weights,) with n_weights = {self.n_weights}", "see net.init"
            )
        return engine

    def _check(self, w: Array, x: Array, *, real: bool = False) -> Generic:
        engine = self._check_w(w)
        kind = dtype_kind(engine.xp, w.dtype)
        if kind is None:
            raise TypeError(f"w must be float32 or float64, got {w.dtype}: convert it with astype")
        if kind == "complex" and (real or not self.analytic):
            why = "going back is for real numbers" if real else "an activation or the cost is not analytic"
            raise TypeError(f"w must be float32 or float64, got {w.dtype}: {why}")
        check_alike("x", x, w, engine)
        n_0 = self.sizes[0]
        if x.ndim != 2 or x.shape[1] != n_0:
            shape_is("x", x, (None, n_0), f"(B, n_0) with n_0 = {n_0}", "one example per row")
        if x.shape[0] < 1:
            raise ValueError(f"x must hold at least one example, got shape {tuple(x.shape)}: give it a row")
        return engine

    def _check_batch(
        self, w: Array, x: Array, y: Array, s: Array | None, reduction: str, *, real: bool = False
    ) -> Generic:
        engine = self._check(w, x, real=real)
        B = x.shape[0]
        self._check_y(y, w, engine, B, self.sizes[-1])
        if s is not None:
            check_alike("sample_weight", s, w, engine, real_allowed=True)
            shape_is("sample_weight", s, (B,), f"(B,) with B = {B}", "one weight an example")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}: choose one")
        if reduction == "mean" and isinstance(s, np.ndarray):
            with engine.quiet():
                total = s.sum()
            if total == 0 or not np.isfinite(total):
                raise ValueError(
                    f"sample_weight must have a finite sum other than 0 for reduction 'mean', got {total:g}: "
                    "give some rows weight, or smaller ones"
                )
        return engine

    def _check_y(self, y: Array, w: Array, engine: Generic, B: int, n_L: int) -> None:
        check_alike("y", y, w, engine, dtype=False)
        if y.ndim == 1 and self.cost_function.labels and dtype_kind(engine.xp, y.dtype) is None:
            if not engine.xp.isdtype(y.dtype, "integral"):
                raise TypeError(
                    f"y must hold integer classes or {w.dtype} probabilities, got {y.dtype}: convert it"
                )
            shape_is("y", y, (B,), f"(B,) with B = {B}", "one class an example")
            if isinstance(y, np.ndarray) and not (y.min() >= 0 and y.max() < n_L):
                raise ValueError(
                    f"y must hold classes 0..{n_L - 1} for n_L = {n_L}, got {y.min()}..{y.max()}: number them from 0"
                )
            return
        check_alike("y", y, w, engine, real_allowed=True)
        if y.ndim == 1 and n_L == 1:
            shape_is("y", y, (B,), f"(B,) with B = {B}", "one target an example")
        else:
            labels = ", or integer classes (B,)" if self.cost_function.labels else ""
            shape_is(
                "y",
                y,
                (B, n_L),
                f"(B, n_L) with B = {B}, n_L = {n_L}{labels}",
                "one row of targets an example",
            )


def is_network(net: Any) -> None:
    """Refuse what isn't a network."""
    if not isinstance(net, Network):
        raise TypeError(
            f"net must be a gpubp.Network, got {type(net).__name__}: make one with gpubp.Network(sizes)"
        )


def _check_nodes(sizes: tuple[int, ...], sigma: tuple[Activation, ...]) -> None:
    for j, (n, part) in enumerate(zip(sizes, sigma, strict=True)):
        if isinstance(part, PerNode) and len(part.parts) != n:
            raise ValueError(
                f"per_node must give an activation for each node of layer j = {j}, n_{j} = {n}, got {len(part.parts)}: "
                "give as many"
            )


def _check_domain(cost: Cost, output: Activation) -> None:
    if output.output_range is not None and not output.output_range.within(cost.domain):
        raise ValueError(
            f"the output of cost {cost.name!r} must lie in {cost.domain}, got {output.name!r} with values in "
            f"{output.output_range}: use output={cost.partner.activation!r}"
        )
