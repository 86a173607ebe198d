"""Built-in parts by name: ``"relu"``, ``"leaky_relu(slope=0.1)"``, ``"adam"``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import cache
from inspect import signature
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_CALL = re.compile(r"(\w+)(?:\((.*)\))?")


class Catalogue(Generic[T]):
    """Factories by name; ``get`` calls one with the numbers in the name, and always gives the same object back."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., T]] = {}
        self.get = cache(self._get)

    def add(self, factory: Callable[..., T]) -> Callable[..., T]:
        """Register a factory under its own name; a decorator."""
        self._factories[factory.__name__.lower()] = factory
        return factory

    def names(self) -> tuple[str, ...]:
        return tuple(self._factories)

    def resolve(self, given: object, ours: Callable[[object], bool], wanted: str) -> T:
        """``given`` itself where it is one of ours, or the part of that name; ``wanted`` says what else may come."""
        if ours(given):
            return given  # type: ignore[return-value]
        if not isinstance(given, str):
            article = "an" if self.kind[0] in "aeio" else "a"
            raise TypeError(f"{article} {self.kind} must be a name or {wanted}".format(type(given).__name__))
        return self.get(given)

    def _get(self, spec: str) -> T:
        match = _CALL.fullmatch(spec.strip())
        name = match[1].lower() if match else spec
        if match is None or name not in self._factories:
            raise ValueError(unknown(self.kind, spec, self._factories))
        factory = self._factories[name]
        return factory(**self._numbers(spec, match[2] or "", factory))

    def _numbers(self, spec: str, text: str, factory: Callable[..., T]) -> dict[str, float]:
        takes = list(signature(factory).parameters)
        numbers: dict[str, float] = {}
        for position, part in enumerate(filter(None, (part.strip() for part in text.split(",")))):
            name, _, value = part.rpartition("=")
            name = name.strip() or (takes[position] if position < len(takes) else "")
            try:
                if name not in takes or name in numbers:
                    raise ValueError
                numbers[name] = float(value)
            except ValueError:
                wanted = f"takes the numbers {', '.join(takes)}" if takes else "takes no numbers"
                raise ValueError(f"{self.kind} {spec!r} can't be read: {factory.__name__} {wanted}") from None
        return numbers


class BuiltIn:
    """A part of the library's own: its name says all of it, so that it is compared and pickled by it. Checked by the
    tests instead of when made."""

    name: str
    get: Callable[[str], Any]  # of its catalogue, for pickle

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.get, (self.name,)


def spelled(name: str, **numbers: float) -> str:
    """``spelled("huber", delta=1.0)`` -> ``"huber(delta=1.0)"``, which ``Catalogue.get`` reads."""
    return f"{name}({', '.join(f'{key}={float(number)!r}' for key, number in numbers.items())})"


def unknown(kind: str, came: object, known: Iterable[str]) -> str:
    """The sentence that refuses a name."""
    names = sorted(known)
    close = difflib.get_close_matches(str(came), names, n=1)
    hint = f": did you mean {close[0]!r}?" if close else ": choose one of these or make your own"
    return f"{kind} must be one of {', '.join(names)}, got {came!r}{hint}"
