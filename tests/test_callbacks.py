"""ProgressBar: in a terminal, in a notebook, where there is neither, and not at all."""

from __future__ import annotations

import io
import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import Network, Run
from gpubp.callbacks import ProgressBar, TrainingState

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 4))
Y = rng.integers(0, 3, 30)
NET = Network((4, 5, 3), cost="cross_entropy")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fit(**more: Any) -> Run:
    return gpubp.train(NET, X, Y, **{"device": "cpu", "epochs": 3, "batch_size": 10, **more})


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error from here on; a fixture would be overtaken by pytest's own capture."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "150")
    return screen


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    run = fit(validation=0.2)
    frames = screen.getvalue().split("\r")
    assert frames[1].startswith("cpu")
    last = frames[-1].rstrip()
    assert re.match(r"cpu, epoch 3/3 +100% ?\|[█#]+\| +[\d.]+k? rows/s", last), last
    for name in ("cost", "validation_cost", "metric", "validation_metric"):
        assert f"{run.history[name][-1]:.3g}" in last
    assert "accuracy" in last
    assert screen.getvalue().endswith("\n")
    assert screen.getvalue().count("\n") == 1


def test_the_bar_counts_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch)
    bars: list[Any] = []
    init = ProgressBar.__init__

    def remembered(self: ProgressBar) -> None:
        init(self)
        bars.append(self)

    monkeypatch.setattr(ProgressBar, "__init__", remembered)
    fit(batch_size=7)
    assert (bars[0]._bar.total, bars[0]._bar.n) == (90, 90)
    fit(batch_size=7, callbacks=[SimpleNamespace(on_batch_end=lambda state: state.rows_done > 40)])
    assert bars[1]._bar.n == 30 + 14


def test_the_bar_is_closed_when_a_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)

    def fail(state: TrainingState) -> None:
        if state.epoch == 2:
            raise LookupError

    with pytest.raises(LookupError):
        fit(callbacks=[SimpleNamespace(on_batch_end=fail)])
    assert "epoch 1/3" in screen.getvalue()
    assert screen.getvalue().endswith("\n")


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run = fit()
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 3
    for k, line in enumerate(lines):
        cost, accuracy = run.history["cost"][k], run.history["metric"][k]
        assert re.fullmatch(
            rf"cpu, epoch {k + 1}/3: cost {cost:.3g}, accuracy {accuracy:.3g}, [\d,]+ rows/s", line
        )


def test_about_ten_lines_of_many_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    fit(epochs=25, metric=None, validation=0.2)
    lines = capsys.readouterr().err.splitlines()
    assert [int(line.partition("epoch ")[2].partition("/")[0]) for line in lines] == [*range(2, 26, 2), 25]
    assert re.search(r"cost [\d.e-]+ \(val. [\d.e-]+\), [\d,]+ rows/s$", lines[0])


def test_nothing_is_printed_without_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(progress=False)
    screen = terminal(monkeypatch)
    fit(progress=False)
    assert screen.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_a_program_without_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert fit().stopped == "epochs"


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[Any] = []

    class Bar:
        def __init__(self, total: int, desc: str, **look: Any) -> None:
            shown.append((total, desc))

        def update(self, rows: int) -> None:
            shown.append(rows)

        def set_description_str(self, text: str, refresh: bool = True) -> None:
            shown.append(text)

        set_postfix_str = set_description_str

        def close(self) -> None:
            shown.append("closed")

    notebook: Any = ModuleType("tqdm.notebook")
    notebook.tqdm = Bar
    for name in ("ipykernel", "ipywidgets"):
        module = ModuleType(name)
        module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", notebook)
    run = fit(epochs=1)
    text = f"cost {run.history['cost'][0]:.3g}, accuracy {run.history['metric'][0]:.3g}"
    assert shown == [(30, "cpu"), 10, 10, 10, "cpu, epoch 1/1", text, "closed"]
    assert capsys.readouterr() == ("", "")


def test_a_bar_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    fit(progress=False, callbacks=[ProgressBar()])
    assert len(capsys.readouterr().err.splitlines()) == 3
