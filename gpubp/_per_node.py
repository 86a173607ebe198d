"""``per_node``: an activation of its own for every node of a layer (article, section II, allows it)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np

from gpubp import activations
from gpubp._checks import Interval
from gpubp._typing import Array, Namespace
from gpubp.activations import Activation
from gpubp.engines import Generic

__all__ = ["PerNode", "per_node"]


class PerNode(Activation):
    """The activation that ``per_node`` makes; ``parts`` has one for each node. It is what its parts are: compared,
    hashed and pickled by them."""

    parts: tuple[Activation, ...]

    def __init__(self, parts: tuple[Activation, ...]) -> None:
        object.__setattr__(self, "parts", parts)
        super().__init__(
            self._values,
            pullback=self._pulled_back,
            name=f"per_node({', '.join(part.name for part in parts)})",
            analytic=all(part.analytic for part in parts),
            check_at=None,  # its parts are checked
            output_range=_hull([part.output_range for part in parts]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerNode) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __reduce__(self) -> tuple[Callable[..., Activation], tuple[tuple[Activation, ...]]]:
        return per_node, (self.parts,)

    @cached_property
    def reads_p(self) -> bool:
        return any(part.reads_p for part in self.parts)

    @cached_property
    def reads_q(self) -> bool:
        return any(part.reads_q for part in self.parts)

    def _runs(self) -> Iterator[tuple[Activation, slice]]:
        """Neighbours of one kind, and their columns."""
        start = 0
        for sigma, same in groupby(self.parts):
            stop = start + len(list(same))
            yield sigma, slice(start, stop)
            start = stop

    def _values(self, xp: Namespace, p: Array) -> Array:
        if p.shape[1] != len(self.parts):
            raise ValueError(
                f"{self.name} needs p of shape (B, n) with n = {len(self.parts)}, got {tuple(p.shape)}: "
                "give one activation a node"
            )
        return xp.concat([sigma.value(xp, p[:, run]) for sigma, run in self._runs()], axis=1)

    def _pulled_back(self, xp: Namespace, p: Array | None, q: Array, g: Array) -> Array:
        engine = Generic(xp)
        return xp.concat(
            [
                engine.pull_back(sigma, None if p is None else p[:, run], q[:, run], g[:, run])
                for sigma, run in self._runs()
            ],
            axis=1,
        )


def per_node(parts: Iterable[str | Activation]) -> Activation:
    """One activation for a layer of n nodes, from n activations or names: q_k = sigma_k(p_k).

    >>> per_node(["tanh", "relu", "relu"])
    <activation per_node(tanh, relu, relu)>

    It goes wherever an activation goes, and a network refuses it at a layer that hasn't as many nodes. First weights
    before it are drawn by "glorot_uniform" unless said otherwise.

    Raises
    ------
    ValueError : an unknown name, none at all, or an activation such as softmax that doesn't act on each node alone
    TypeError : neither names nor Activations
    """
    if isinstance(parts, str | Activation) or not hasattr(parts, "__iter__"):
        raise TypeError(
            f"per_node needs a sequence of activations, one a node, got {type(parts).__name__}: put it in a list"
        )
    given = tuple(map(activations.get, parts))
    if not given:
        raise ValueError("per_node needs an activation for each node of its layer, got none: give names")
    for sigma in given:
        if isinstance(sigma, PerNode) or not _alone(sigma):
            raise ValueError(
                f"per_node needs activations that act on each node alone, got {sigma.name!r}: choose another"
            )
    return PerNode(given)


def _alone(sigma: Activation) -> bool:
    """Whether a node's q doesn't change with the other nodes' p."""
    p = np.random.default_rng(0).uniform(0.1, 0.9, (3, 2))
    return sigma.derivative is not None or np.allclose(sigma.value(np, p)[:, :1], sigma.value(np, p[:, :1]))


def _hull(ranges: Sequence[Interval | None]) -> Interval | None:
    """The smallest interval around them all; None where one isn't known."""
    known = [each for each in ranges if each is not None]
    if len(known) < len(ranges):
        return None
    low, high = min(each.low for each in known), max(each.high for each in known)
    return Interval(
        low,
        high,
        low_closed=any(each.low == low and each.low_closed for each in known),
        high_closed=any(each.high == high and each.high_closed for each in known),
    )
