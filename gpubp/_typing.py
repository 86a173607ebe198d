"""Names for types: what the library asks of an array, a namespace, an activation, a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

# The Array API standard has no typed protocol that every library meets; these names say what is meant.
Array: TypeAlias = Any
Namespace: TypeAlias = Any
NativeDevice: TypeAlias = Any
Formula: TypeAlias = Callable[..., Any]

# What stands in the place of biases: arrays, or None without them. A network of which nothing is said may have them;
# a default is known to Python 3.13, and to type checkers from typing_extensions, which need not be installed.
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Biases = TypeVar("Biases", default=Any)
else:
    from typing import TypeVar

    Biases = TypeVar("Biases")


class Sigma(Protocol):
    """What an engine and the heart ask of an activation."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> Formula: ...
    @property
    def derivative(self) -> Formula | None: ...
    @property
    def pullback(self) -> Formula | None: ...
    @property
    def reads_p(self) -> bool: ...


class Flat(Protocol):
    """What the heart asks of the flat vector's layout."""

    def views(self, w: Array) -> tuple[list[Array], list[Array]]: ...


class Net(Protocol):
    """What the heart asks of a network."""

    @property
    def sizes(self) -> Sequence[int]: ...
    @property
    def sigma(self) -> Sequence[Sigma]: ...  # for the nodes 0..L
    @property
    def layout(self) -> Flat: ...
    @property
    def cost_function(self) -> Any: ...
    @property
    def natural(self) -> bool: ...  # the cost meets its partner, reads p_L and owns Delta_L
