"""The heart: forward chains, backward chains, gradients (article, sections II and IV, finished).

For a batch of B examples, one a row, and nodes j = 0..L::

    p_0 = x,                 q_j = sigma_j(p_j),         p_{i+1} = q_i W_i' + b_i
    Delta_L = dC/dq_L o sigma_L'(p_L)
    Delta_i = (Delta_{i+1} W_i) o sigma_i'(p_i)
    dC/dW_i = Delta_{i+1}' q_i,                          dC/db_i = the rows of Delta_{i+1}, summed

p_j, q_j and Delta_j are (B, n_j), W_i is (n_{i+1}, n_i), b_i is (n_{i+1},). The article has one example a column, no
biases, and counts Delta from the output: its Delta_k is Delta[L-k] here. Nothing here asks which library or device.
"""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from gpubp._devices import native_device
from gpubp._typing import Array, Biases, Net
from gpubp.engines import Generic

__all__ = [
    "Chains",
    "ForwardChains",
    "Workspace",
    "backward",
    "batch_cost",
    "chains",
    "collapsed",
    "cost",
    "cost_and_gradient",
    "forward",
    "no_room",
    "output_delta",
    "predict",
    "row_weights",
    "targets",
]


def __dir__() -> list[str]:
    return __all__


Layers: TypeAlias = tuple[Sequence[Array], Sequence[Array]]
Room: TypeAlias = Callable[[str, int, int, int], Array | None]


class ForwardChains(NamedTuple):
    """The forward chains of a batch, ``p`` and ``q``: one (B, n_j) array for each node j = 0..L; a pytree."""

    p: tuple[Array, ...]
    q: tuple[Array, ...]


class Chains(NamedTuple, typing.Generic[Biases]):
    """Forward and backward chains of a batch: plain arrays, the caller's to keep, and a pytree.

    ``p``, ``q``, ``Delta``: one (B, n_j) array for each node j = 0..L. ``cost``: C, 0-d. ``gradient``: dC/dw,
    (n_weights,). ``dW``, ``db``: its parts, one for each layer; ``db`` is None without biases.
    """

    p: tuple[Array, ...]
    q: tuple[Array, ...]
    Delta: tuple[Array, ...]
    cost: Array
    gradient: Array
    dW: tuple[Array, ...]
    db: Biases  # a tuple of arrays with biases


class Workspace:
    """Buffers that one batch after another overwrites, handed out by name, node and shape."""

    def __init__(self, engine: Generic, like: Array) -> None:
        self._engine, self._like = engine, like
        self._kept: dict[tuple[str, int], Array | None] = {}
        self._views: dict[str, tuple[Array, Layers]] = {}

    def __call__(self, name: str, node: int, rows: int, columns: int) -> Array | None:
        kept = self._kept.get((name, node))
        if kept is None or kept.shape[0] < rows:
            kept = self._kept[name, node] = self._engine.buffer((rows, columns), self._like)
        return kept if kept is None or kept.shape[0] == rows else kept[:rows]

    def views(self, net: Net, name: str, w: Array) -> Layers:
        """``net.layout.views(w)``, made anew only where the vector of that name is another array than last time."""
        if name not in self._views or self._views[name][0] is not w:
            self._views[name] = w, net.layout.views(w)
        return self._views[name][1]


def no_room(name: str, node: int, rows: int, columns: int) -> None:
    """In place of a workspace: every array is new."""


def forward(
    net: Net, engine: Generic, layers: Layers, x: Array, room: Room = no_room, *, lean: bool = False
) -> Iterator[tuple[Array, Array]]:
    """(p_j, q_j) for the nodes j = 0..L in turn. ``lean`` lets q_j take the memory of a p_j that going back doesn't
    read, and gives None for it."""
    W, b = layers
    q = engine.activate(net.sigma[0], x)
    yield x, q
    for i, n in enumerate(net.sizes[1:]):
        j, B = i + 1, x.shape[0]
        p = engine.affine(q, W[i], b[i], out=room("p", j, B, n))
        needed = net.sigma[j].reads_p or (net.natural and j == len(W))
        if lean and not needed:
            q = engine.activate(net.sigma[j], p, out=p)
            yield None, q
        else:
            q = engine.activate(net.sigma[j], p)
            yield p, q


def predict(net: Net, engine: Generic, layers: Layers, x: Array) -> Array:
    """q_L alone."""
    return _last(forward(net, engine, layers, x, lean=True))[1]


def _last(nodes: Iterator[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The output node's p and q, letting go of the others on the way."""
    return deque(nodes, maxlen=1)[0]


def collapsed(engine: Generic, layers: Layers) -> tuple[Array, Any]:
    """(W_c, b_c) of a linear network, whose layers are one: W_{L-1} ... W_0, and None without biases."""
    W_c, b_c = (None if part[0] is None else engine.xp.asarray(part[0], copy=True) for part in layers)
    for W, b in zip(*(part[1:] for part in layers), strict=True):
        W_c, b_c = W @ W_c, None if b is None else W @ b_c + b
    return W_c, b_c


def row_weights(engine: Generic, B: int, s: Array | None, reduction: str) -> Array | float:
    """a, such that C = sum_i a_i c_i: one number for all rows, or one for each, (B,): NaN where s sums to 0."""
    if s is None:
        return 1.0 / B if reduction == "mean" else 1.0
    return s / engine.xp.sum(s) if reduction == "mean" else s


def targets(net: Net, engine: Generic, y: Array, like: Array) -> Array:
    """y as (B, n_L): integer classes become rows of a unit matrix, and (B,) a column."""
    xp, n = engine.xp, net.sizes[-1]
    if y.ndim == 2:
        return y
    if net.cost_function.labels and xp.isdtype(y.dtype, "integral"):
        classes = xp.arange(n, device=native_device(y))
        return xp.astype(xp.astype(y, classes.dtype)[:, None] == classes[None, :], like.dtype)
    return y[:, None]


def cost(net: Net, engine: Generic, p: Array, q: Array, y: Array, a: Array | float) -> Array:
    """C = sum_i a_i c_i of the output node's p and q, (B, n_L); 0-d."""
    xp, C = engine.formulas, net.cost_function
    c = C.partner.value(xp, p, q, y) if net.natural else C.value(xp, q, y)
    return a * xp.sum(c) if isinstance(a, float) else xp.sum(a * c)


def batch_cost(
    net: Net, engine: Generic, w: Array, x: Array, y: Array, s: Array | None = None, reduction: str = "mean"
) -> tuple[Array, Array]:
    """(C, q_L), keeping nothing else."""
    p, q = _last(forward(net, engine, net.layout.views(w), x, lean=True))
    y, a = targets(net, engine, y, q), row_weights(engine, x.shape[0], s, reduction)
    return cost(net, engine, p, q, y, a), q


def output_delta(
    net: Net, engine: Generic, p: Array, q: Array, y: Array, a: Array | float, room: Room = no_room
) -> Array:
    """Delta_L = a o dc/dq_L o sigma_L'(p_L); with its natural partner the cost knows it in one piece."""
    C = net.cost_function
    if net.natural:
        Delta = C.partner.Delta(engine.formulas, q, y)
    else:
        Delta = engine.pull_back(net.sigma[-1], p, q, C.derivative(engine.formulas, q, y))
    if isinstance(a, float) and a == 1.0:
        return Delta
    return engine.weigh(Delta, a, out=room("Delta", len(net.sizes) - 1, *q.shape))


def backward(
    net: Net,
    engine: Generic,
    layers: Layers,
    p: Sequence[Array],
    q: Sequence[Array],
    Delta: Array,
    into: Layers,
    room: Room = no_room,
) -> Iterator[tuple[Array, Array | None, Array | None]]:
    """From Delta_L, (Delta_{i+1}, dC/dW_i, dC/db_i) for the layers i = L-1..0 in turn, then (Delta_0, None, None).

    Each is worked out when it is asked for; gradients may use the arrays of ``into``, None where there are none.
    """
    (W, b), (dW, db) = layers, into
    for i in reversed(range(len(W))):
        Delta_q = engine.contract(Delta, q[i], out=dW[i])
        yield Delta, Delta_q, None if b[i] is None else engine.sum_rows(Delta, out=db[i])
        g = engine.propagate(Delta, W[i], out=room("Delta", i, *q[i].shape))
        Delta = engine.pull_back(net.sigma[i], p[i], q[i], g, out=g)
    yield Delta, None, None


def chains(
    net: Net, engine: Generic, w: Array, x: Array, y: Array, s: Array | None = None, reduction: str = "mean"
) -> Chains:
    """All of it: both chains, C and the gradient, in new arrays."""
    layers = net.layout.views(w)
    p, q = zip(*forward(net, engine, layers, x), strict=True)
    y, a = targets(net, engine, y, q[-1]), row_weights(engine, x.shape[0], s, reduction)
    Delta_L = output_delta(net, engine, p[-1], q[-1], y, a)
    flat, into = _flat(net, engine, w)
    Delta, dW, db = (
        part[::-1] for part in zip(*backward(net, engine, layers, p, q, Delta_L, into), strict=True)
    )
    dW, db = dW[1:], db[1:] if layers[1][0] is not None else ()
    return Chains(
        p, q, Delta, cost(net, engine, p[-1], q[-1], y, a), engine.join(dW + db, out=flat), dW, db or None
    )


def cost_and_gradient(
    net: Net,
    engine: Generic,
    w: Array,
    x: Array,
    y: Array,
    s: Array | None = None,
    reduction: str = "mean",
    flat: Array | None = None,
    room: Room = no_room,
) -> tuple[Array, Array, Array]:
    """(C, dC/dw, q_L), keeping only what going back reads; in ``flat`` and ``room`` where they are given."""
    layers = _views(net, "w", w, room)
    p, q = zip(*forward(net, engine, layers, x, room, lean=True), strict=True)
    y, a = targets(net, engine, y, q[-1]), row_weights(engine, x.shape[0], s, reduction)
    C = cost(net, engine, p[-1], q[-1], y, a)
    Delta_L = output_delta(net, engine, p[-1], q[-1], y, a, room)
    flat, into = _flat(net, engine, w, flat, room)
    back = backward(net, engine, layers, p, q, Delta_L, into, room)
    _, dW, db = (part[::-1] for part in zip(*(next(back) for _ in layers[0]), strict=True))
    return C, engine.join(dW + db if db[0] is not None else dW, out=flat), q[-1]


def _views(net: Net, name: str, w: Array, room: Room) -> Layers:
    return room.views(net, name, w) if isinstance(room, Workspace) else net.layout.views(w)


def _flat(
    net: Net, engine: Generic, w: Array, flat: Array | None = None, room: Room = no_room
) -> tuple[Array | None, Layers]:
    """A vector for the gradient and its views, where this engine writes into arrays at all."""
    flat = engine.buffer(w.shape, w) if flat is None else flat
    nothing = [None] * (len(net.sizes) - 1)
    return flat, (nothing, nothing) if flat is None else _views(net, "gradient", flat, room)
