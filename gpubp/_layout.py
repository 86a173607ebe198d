"""The flat vector w and its views: first all W, then all b, so that a penalty on W is a slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from gpubp._typing import Array
from gpubp.engines import engine_for


@dataclass(frozen=True)
class Layout:
    """Where W[i], (n_{i+1}, n_i), and b[i], (n_{i+1},), stand in w (n_weights,)."""

    sizes: tuple[int, ...]
    bias: bool

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all W, then of all b."""
        after, before = self.sizes[1:], self.sizes[:-1]
        return (*zip(after, before, strict=True), *(((n,) for n in after) if self.bias else ()))

    @cached_property
    def n_matrix_weights(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes[: len(self.sizes) - 1])

    @cached_property
    def n_weights(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def _slices(self) -> tuple[tuple[slice, tuple[int, ...]], ...]:
        places, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            places.append((slice(start, stop), shape))
            start = stop
        return tuple(places)

    def views(self, w: Array) -> tuple[list[Array], list[Array]]:
        """(all W, all b) as views of w; b is a list of None without biases."""
        reshape = engine_for(w).xp.reshape
        parts = [w[here] if len(shape) == 1 else reshape(w[here], shape) for here, shape in self._slices]
        depth = len(self.sizes) - 1
        return parts[:depth], parts[depth:] or [None] * depth
