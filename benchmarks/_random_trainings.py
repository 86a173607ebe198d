"""Random trainings, for ``benchmarks.fuzz`` and the tests: what Hypothesis draws, and shrinks where something fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

import gpubp
from gpubp import Activation, Network, activations, costs, optimizers, schedules
from gpubp._checks import REALS
from gpubp._typing import Array, Formula

__all__ = ["Data", "Own", "PerNode", "Training", "read", "trainings"]

Draw: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Own:
    """An activation of the user's own, its formulas as Python text in xp, p, q and g: one of ``derivative`` and
    ``pullback``. It needn't be the true one: every way of computing must do the same with it."""

    value: str
    derivative: str = ""
    pullback: str = ""

    def made(self) -> Activation:
        derivative = self.derivative and _formula("xp, p, q", self.derivative)
        pullback = self.pullback and _formula("xp, p, q, g", self.pullback)
        value = _formula("xp, p", self.value)
        return Activation(value, derivative or None, pullback=pullback or None, name="own", check_at=None)


def _formula(takes: str, text: str) -> Formula:
    made: Formula = eval(f"lambda {takes}: {text}")
    return made


@dataclass(frozen=True)
class PerNode:
    """``gpubp.per_node`` by runs of neighbours of one kind: ((activation, nodes), ...)."""

    runs: tuple[tuple[str | Own, int], ...]

    def made(self) -> Activation:
        return gpubp.per_node([sigma for each, n in self.runs for sigma in [_made(each)] * n])


Sigma: TypeAlias = str | Own | PerNode


def _made(sigma: Sigma) -> Activation:
    return activations.get(sigma) if isinstance(sigma, str) else sigma.made()


@dataclass(frozen=True)
class Data:
    """What a training is given."""

    X: Array
    Y: Array
    s: Array | None
    w: Array


@dataclass(frozen=True, repr=False)
class Training:
    """A training, in few words: its repr leaves out what is as it is here, and is read by ``read``.

    Attributes
    ----------
    rows : (n, ); batch_size and epochs are such that there are at most 5 steps
    layout : of X, Y, s and w in memory: "C", "F", "strided", "read-only"
    targets : "floats", "zeros and ones" or "bytes" (n, n_L), "labels" (n,) or "column" (n,)
    zeros : whether some elements and rows of X are 0
    weights : None, "some" or "some zero": the sample weights
    w_scale : a factor on the first weights
    watched : whether a callback sees every batch, so that steps are done one a call
    seed : of data, first weights and the order of rows
    """

    sizes: tuple[int, ...]
    hidden: tuple[Sigma, ...] = ()
    output: Sigma | None = None
    input: Sigma = "identity"
    cost: str = "squared_error"
    bias: bool = True
    optimizer: Any = field(default_factory=optimizers.SGD)
    rows: int = 1
    batch_size: int = 1
    epochs: int = 1
    dtype: str = "float64"
    layout: str = "C"
    targets: str = "floats"
    zeros: bool = False
    weights: str | None = None
    w_scale: float = 1.0
    l2: float = 0.0
    l1: float = 0.0
    clip_norm: float | None = None
    metric: str | None = None
    watched: bool = False
    seed: int = 0

    def __repr__(self) -> str:
        plain = Training(self.sizes)
        parts = [f"{self.sizes}"]
        parts += [
            f"{f.name}={value!r}"
            for f in fields(self)[1:]
            if (value := getattr(self, f.name)) != getattr(plain, f.name)
        ]
        return f"Training({', '.join(parts)})"

    @property
    def per_node(self) -> bool:
        """Whether a layer has several activations."""
        return any(isinstance(sigma, PerNode) for sigma in (self.input, *self.hidden, self.output))

    def net(self) -> Network:
        output = None if self.output is None else _made(self.output)
        return Network(
            self.sizes, [_made(each) for each in self.hidden], output, _made(self.input), self.cost, self.bias
        )

    def data(self, net: Network) -> Data:
        rng = np.random.default_rng(self.seed)
        n, n_0, n_L = self.rows, self.sizes[0], self.sizes[-1]
        X = rng.standard_normal((n, n_0))
        if self.zeros:
            X[rng.random((n, n_0)) < 0.2] = 0.0
            X[rng.random(n) < 0.2] = 0.0
        Y = _targets(rng, self.cost, self.targets, n, n_L)
        s = None
        if self.weights is not None:
            s = rng.uniform(0.1, 3.0, n)
            if self.weights == "some zero":
                s[1:][rng.random(n - 1) < 0.3] = 0.0  # but for the first
            s = s.astype(self.dtype)
        w = self.w_scale * net.init(self.seed, dtype=self.dtype, biases="normal(scale=0.1)")
        if self.targets in ("floats", "column"):
            Y = Y.astype(self.dtype)
        return Data(X.astype(self.dtype), Y, s, w)

    def laid_out(self, xp: Any, data: Data) -> Data:
        """A copy in this training's layout, of NumPy's or CuPy's arrays."""
        return Data(*(a if a is None else _laid_out(xp, a, self.layout) for a in vars(data).values()))

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``train``, but for the data."""
        names = ("optimizer", "epochs", "batch_size", "seed", "l2", "l1", "clip_norm", "metric")
        return {name: getattr(self, name) for name in names}


def _targets(rng: Any, cost: str, kind: str, n: int, n_L: int) -> Array:
    shape = n if kind in ("labels", "column") else (n, n_L)
    if kind == "labels":
        return rng.integers(0, n_L, n)
    if kind == "zeros and ones":
        return rng.random(shape) < 0.5
    if kind == "bytes":
        return np.eye(n_L, dtype=np.uint8)[rng.integers(0, n_L, n)]
    if cost == "cross_entropy":
        Y = rng.uniform(0.0, 1.0, shape)
        return Y / np.sum(Y, axis=1, keepdims=True) if n_L > 1 else np.round(Y)
    if cost == "binary_cross_entropy":
        return np.maximum(rng.uniform(-0.5, 1.0, shape), 0.0)
    if cost == "poisson":
        return rng.poisson(2.0, shape)
    return rng.standard_normal(shape)


def _laid_out(xp: Any, a: Array, layout: str) -> Array:
    if layout == "strided":
        gap = math.nan if a.dtype.kind == "f" else 1
        every = xp.full(tuple(2 * n for n in a.shape), gap, dtype=a.dtype)
        view = every[(slice(None, None, 2),) * (a.ndim - 1) + (slice(None, None, -2),)]
        view[...] = xp.asarray(a)
        return view
    a = xp.array(a, order="F" if layout == "F" else "C")
    if layout == "read-only" and xp is np:  # CuPy has no such arrays
        a.flags.writeable = False
    return a


def read(text: str) -> Training:
    """The training of that repr."""
    names = {"Training": Training, "Own": Own, "PerNode": PerNode, "inf": math.inf}
    for module in (optimizers, schedules):
        names |= {name: getattr(module, name) for name in module.__all__}
    found: Training = eval(text, names)
    return found


# widths and rows of a batch: where nests are narrow up to 16, or 64, both sides of it
sizes = st.sampled_from([1, 2, 3, 5, 15, 16, 17, 33, 40]) | st.integers(1, 40)
batches = st.sampled_from([1, 2, 3, 5, 15, 16, 17, 33, 63, 64, 65]) | st.integers(1, 70)
numbers = st.sampled_from([0.0, 0.5, 1.0, -0.5, -1.0, 2.0, 0.1])
slopes = st.sampled_from([0.01, 0.2, -0.3, 1.0, 1.5])


@st.composite
def texts(draw: Draw, names: str, depth: int) -> str:
    """A formula of where, minimum, maximum, abs and a few others, in these names: an array."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return str(draw(st.sampled_from(list(names))))

    def deeper() -> str:
        return str(draw(texts(names, depth - 1)))

    def either() -> str:
        return repr(draw(numbers)) if draw(st.booleans()) else deeper()

    kind = draw(st.sampled_from(["where", "minimum", "maximum", "abs", "scaled", "ones", "-", "+", "*"]))
    if kind == "where":
        compared = draw(st.sampled_from([">", "<", ">=", "<="]))
        return f"xp.where({deeper()} {compared} {either()}, {deeper()}, {either()})"
    if kind in ("minimum", "maximum"):
        return f"xp.{kind}({deeper()}, {either()})"
    if kind == "abs":
        return f"xp.abs({deeper()})"
    if kind == "scaled":
        return f"{draw(slopes)!r} * {_bracketed(deeper())}"
    if kind == "ones":
        return f"{draw(slopes)!r} * xp.ones_like({draw(st.sampled_from(list(names)))})"
    return f"{_bracketed(deeper())} {kind} {_bracketed(either())}"


def _bracketed(text: str) -> str:
    return f"({text})" if " " in text else text


def _clipped(text: str) -> str:
    return f"xp.maximum(xp.minimum({text}, 2.0), -2.0)"


KNOWN = (
    Own("xp.where(p > 0.0, p, 0.1 * p)", "xp.where(q > 0.0, xp.ones_like(q), 0.1)"),
    Own("xp.where(p > 0.0, p, 0.1 * p)", "xp.where(p > 0.0, xp.ones_like(p), 0.1)"),
    Own("xp.where(p > 0.0, p, 0.1 * p)", pullback="xp.where(q > 0.0, g, 0.1 * g)"),
    Own("xp.where(p > 0.0, p, 0.1 * p)", pullback="g * xp.where(p > q, 0.1, xp.ones_like(p))"),
    Own("xp.where(p < -1.0, -xp.ones_like(p), xp.where(p > 1.0, xp.ones_like(p), p))", "xp.abs(q) * q - p"),
    Own("xp.maximum(xp.minimum(p, 1.0), -1.0)", "xp.where(xp.abs(q) < 1.0, xp.ones_like(q), 0.0)"),
    Own("xp.minimum(xp.maximum(0.2 * p + 0.5, 0.0), 1.0)", "xp.where(p < q, 0.2 * xp.ones_like(q), q - p)"),
    Own("xp.abs(p)", "xp.sign(p)"),
    Own("xp.abs(xp.abs(p) - 1.0)", "xp.sign(p) * xp.sign(xp.abs(p) - 1.0)"),
    Own("p - xp.max(p, axis=1, keepdims=True)", pullback="g - xp.sum(xp.abs(q) * g, axis=1, keepdims=True)"),
    Own("xp.maximum(p, xp.min(p, axis=1, keepdims=True) + 1.0)", pullback="xp.where(q > p, 0.0 * g, g)"),
)


@st.composite
def owns(draw: Draw, alone: bool = False) -> Own:
    """Own activations; ``alone`` where each node is to be by itself."""
    if draw(st.booleans()):
        by_itself = [own for own in KNOWN if own.derivative] if alone else KNOWN
        found: Own = draw(st.sampled_from(by_itself))
        return found
    value = draw(texts("p", 3))
    if "p" not in value.replace("xp.ones_like(p)", "").replace("xp.", ""):
        value = f"({value}) + p"  # what doesn't read p leaves nothing to record
    reads = draw(st.sampled_from(["p", "q", "pq"]))
    if alone or draw(st.booleans()):
        return Own(value, _clipped(draw(texts(reads, 3))))
    return Own(
        value,
        pullback=f"g * {_clipped(draw(texts(reads, 2)))} + 0.1 * {_clipped(draw(texts('g' + reads, 2)))}",
    )


@st.composite
def named(draw: Draw, alone: bool = False) -> str:
    """Built-in activations, with numbers where they take any."""
    name = str(
        draw(st.sampled_from([each for each in activations.names() if not (alone and each == "softmax")]))
    )
    if name == "leaky_relu" and draw(st.booleans()):
        return f"leaky_relu(slope={draw(slopes)!r})"
    if name == "elu" and draw(st.booleans()):
        return f"elu(alpha={draw(slopes)!r})"
    return name


@st.composite
def sigmas(draw: Draw, n: int, kinds: Sequence[str]) -> Sigma:
    """An activation for a layer of n nodes."""
    kind = draw(st.sampled_from(kinds))
    if kind == "named":
        return str(draw(named()))
    if kind == "own":
        own: Own = draw(owns())
        return own
    runs: list[tuple[str | Own, int]] = []
    left = n
    while left:
        run = draw(st.integers(1, left)) if len(runs) < 4 else left
        runs.append((draw(named(alone=True) | owns(alone=True)), run))
        left -= run
    return PerNode(tuple(runs))


@st.composite
def outputs(draw: Draw, cost: str, n: int, kinds: Sequence[str]) -> Sigma | None:
    """One that this cost admits; None is its natural partner."""
    if draw(st.booleans()):
        return None
    domain = costs.get(cost).domain
    if domain == REALS:
        sigma: Sigma = draw(sigmas(n, kinds))
        return sigma
    known = [(name, activations.get(name).output_range) for name in activations.names()]
    admitted = [name for name, reach in known if reach is not None and reach.within(domain)]
    return str(draw(st.sampled_from(admitted)))


@st.composite
def rates(draw: Draw) -> float | schedules.Schedule:
    rate = draw(st.sampled_from([0.01, 0.001, 0.1, 0.5]))
    kind = draw(st.sampled_from(["", "", "Constant", "StepDecay", "Cosine", "WarmUp", "InverseScaling"]))
    if kind in ("StepDecay", "Cosine"):
        return getattr(schedules, kind)(rate, draw(st.integers(1, 4)))  # type: ignore[no-any-return]
    if kind == "WarmUp":
        return schedules.WarmUp(draw(st.integers(1, 4)), rate)
    return getattr(schedules, kind)(rate) if kind else float(rate)


@st.composite
def descents(draw: Draw) -> Any:
    """Any optimizer, at any rate, with any numbers."""
    kind = draw(st.sampled_from(["SGD", "Momentum", "Nesterov", "RMSprop", "Adam", "AdamW"]))
    assert len(optimizers.names()) == 6
    more: dict[str, float] = {}
    if kind in ("Momentum", "Nesterov"):
        more = {"momentum": draw(st.sampled_from([0.9, 0.0, 0.5]))}
    elif kind == "RMSprop":
        more = {"decay": draw(st.sampled_from([0.9, 0.5, 0.99]))}
    elif kind in ("Adam", "AdamW"):
        more = {"beta1": draw(st.sampled_from([0.9, 0.0])), "beta2": draw(st.sampled_from([0.999, 0.9]))}
    if kind in ("RMSprop", "Adam", "AdamW"):
        more["epsilon"] = draw(st.sampled_from([1e-8, 1e-6, 1e-3]))
    if kind == "AdamW":
        more["weight_decay"] = draw(st.sampled_from([0.01, 0.5]))
    return getattr(optimizers, kind)(draw(rates()), **more)


@st.composite
def trainings(draw: Draw, dtype: str = "float64") -> Training:
    """Any training of at most 5 steps; in float32 of one step of SGD."""
    depth = draw(st.integers(0, 4))
    layers = tuple(draw(st.lists(sizes, min_size=depth + 2, max_size=depth + 2)))
    cost = str(draw(st.sampled_from(costs.names())))
    n_L = layers[-1]
    spelled = {"huber": ["huber(delta=0.5)"], "quantile": ["quantile(tau=0.2)"]}.get(cost, [])
    held = ["floats"]
    held += ["labels"] if cost == "cross_entropy" else []
    held += ["column"] if n_L == 1 else []
    held += ["zeros and ones", "bytes"] if cost != "cross_entropy" or n_L > 1 else []
    targets = draw(st.sampled_from(held))
    one = dtype == "float32"
    batch = draw(batches)
    per_epoch = 1 if one else draw(st.integers(1, 5))
    rows = (per_epoch - 1) * batch + draw(st.integers(1, batch))
    if per_epoch == 1:
        batch = max(batch, rows)
    metrics = [None, "auto", "accuracy"] + ["r2"] * (targets != "labels")
    rate = draw(rates()) if one else None
    every = ["named", "named", "own", "per node"]
    kinds = draw(st.sampled_from([every[:3], every[:3], every[:3], every[:3], every[:3], every]))
    return Training(
        sizes=layers,
        hidden=tuple(draw(sigmas(n, kinds)) for n in layers[1:-1]),
        output=draw(outputs(cost, n_L, kinds)),
        input=draw(st.just("identity") | sigmas(layers[0], kinds)),
        cost=str(draw(st.sampled_from([cost, *spelled]))),
        bias=draw(st.sampled_from([True, False])),
        optimizer=optimizers.SGD(rate) if rate is not None else draw(descents()),
        rows=rows,
        batch_size=batch,
        epochs=1 if one else draw(st.integers(1, 5 // per_epoch)),
        dtype=dtype,
        layout=draw(st.sampled_from(["C", "F", "strided", "read-only"])),
        targets=targets,
        zeros=draw(st.booleans()),
        weights=draw(st.sampled_from([None, None, "some", "some zero"])),
        w_scale=draw(st.sampled_from([1.0, 1.0, 0.3, 2.0])),
        l2=draw(st.sampled_from([0.0, 0.0, 0.01, 0.3])),
        l1=draw(st.sampled_from([0.0, 0.0, 0.001, 0.1])),
        clip_norm=draw(st.sampled_from([None, None, 0.05, 1.0, 100.0])),
        metric=draw(st.sampled_from(metrics)),
        watched=draw(st.sampled_from([False, False, False, True])),
        seed=draw(st.integers(0, 999)),
    )
