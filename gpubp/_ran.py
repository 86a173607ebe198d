"""What has run where: ``gpubp info`` and the README's table say so, and a test holds both to the reports."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LIBRARIES", "Card", "Library"]


class Card(NamedTuple):
    """A GPU on which ``ci/gpu`` passed, as its report in benchmarks/results names it."""

    device: str
    date: str  # YYYY-MM-DD
    report: str


class Library(NamedTuple):
    """One whose arrays are computed with, and what was run: without a card on every submission, and on one."""

    name: str
    tested: str
    on_gpus: bool = False  # whether it is meant to
    emulated: bool = False
    cards: tuple[Card, ...] = ()

    @property
    def on_a_gpu(self) -> str:
        """One of three: emulated, run on a card, never run; empty where it isn't meant to."""
        if not self.on_gpus:
            return ""
        cards = ", ".join(f"{card.device} on {card.date} ({card.report})" for card in self.cards)
        if self.emulated:
            return f"emulated on every submission; on a card: {cards or 'not yet'}"
        return f"on a card: {cards}" if cards else "never run"


LIBRARIES = (
    Library("NumPy", "every test"),
    Library("CuPy", "CuPy's own code on an emulated device", on_gpus=True, emulated=True),
    Library("PyTorch", 'on the CPU, and on "meta" for hidden synchronisations', on_gpus=True),
    Library("JAX", "on the CPU, also under `jax.jit`", on_gpus=True),
    Library("array-api-strict", "on all its devices"),
)
