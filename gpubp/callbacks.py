"""What watches a training run: any object with ``on_batch_end(state)`` or ``on_epoch_end(state)``; True stops the run.

``ProgressBar`` is the one that ``train`` itself uses.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from typing import Any

from gpubp._devices import Device
from gpubp._network import Network
from gpubp._typing import Array

__all__ = ["ProgressBar", "TrainingState"]


def __dir__() -> list[str]:
    return __all__


@dataclass
class TrainingState:
    """Where a run stands.

    ``epoch`` and ``batch`` count from 1 (``batch`` within its epoch), ``rows`` are those of the whole run and
    ``rows_done`` those behind it. ``metric`` is its name, "accuracy" or "R2", or None. ``cost`` is the last batch's,
    0-d, on the device: reading it waits for the device. ``w`` is the live vector, which the next step may overwrite:
    copy what you keep. ``history`` grows at each epoch's end, before ``on_epoch_end``.
    """

    net: Network
    device: Device
    epochs: int
    rows: int
    w: Array
    metric: str | None = None
    epoch: int = 0
    batch: int = 0
    rows_done: int = 0
    cost: Array | None = None
    learning_rate: float = float("nan")
    history: dict[str, list[Any]] = field(default_factory=dict)


_LOOK = {
    "unit": " rows",
    "unit_scale": True,
    "dynamic_ncols": True,
    "bar_format": "{desc} {percentage:3.0f}% |{bar:10}| {rate_fmt}, {remaining} left{postfix}",
}


class ProgressBar:
    """A tqdm bar in a terminal or notebook, and a plain line now and then where there is neither; on stderr.

    It names the device and shows cost, metric and rows a second.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._shown = 0
        self._tqdm = _bar_type()

    def on_batch_end(self, state: TrainingState) -> None:
        """Move on by the batch's rows."""
        if self._tqdm is None:
            return
        if self._bar is None:
            self._bar = self._tqdm(total=state.rows, desc=state.device.name, **_LOOK)
        self._bar.update(state.rows_done - self._shown)
        self._shown = state.rows_done

    def on_epoch_end(self, state: TrainingState) -> None:
        """Show the epoch's numbers."""
        text = _summary(state)
        if self._bar is not None:
            self._bar.set_description_str(
                f"{state.device.name}, epoch {state.epoch}/{state.epochs}", refresh=False
            )
            self._bar.set_postfix_str(text)
            return
        every = max(1, state.epochs // 10)
        if self._tqdm is None and (state.epoch % every == 0 or state.epoch == state.epochs):
            speed = state.rows / state.epochs / max(state.history["seconds"][-1], 1e-9)
            line = f"{state.device.name}, epoch {state.epoch}/{state.epochs}: {text}, {speed:,.0f} rows/s\n"
            if sys.stderr is not None:  # None in a program without a console
                sys.stderr.write(line)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _summary(state: TrainingState) -> str:
    """The last epoch's cost and metric, for people: "cost 0.21 (val. 0.25), accuracy 0.97 (val. 0.95)"."""
    last = {name: values[-1] for name, values in state.history.items()}
    parts = []
    for name, shown in {"cost": "cost", "metric": state.metric}.items():
        if last[name] is not None:
            held = last[f"validation_{name}"]
            parts.append(f"{shown} {last[name]:.3g}" + (f" (val. {held:.3g})" if held is not None else ""))
    return ", ".join(parts)


def _bar_type() -> Any:
    """tqdm's class for a notebook or a terminal; None where stderr is neither."""
    if "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar
    if sys.stderr is not None and sys.stderr.isatty():
        from tqdm import tqdm

        return tqdm
    return None
