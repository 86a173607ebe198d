"""The article's scripts run, and derivation.md says and shows what they compute today."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[plot]'")

from matplotlib import mathtext

from examples.article import __main__, figures, slips
from examples.article.slips import Slip

ROOT = Path(__file__).parent.parent
TEXT = figures.DERIVATION.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("article") / "figures"
    figures.make(folder)
    return folder


def numbers(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "numbers.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", figures.SCRIPTS)
def test_each_script_runs_by_itself(name: str) -> None:
    command = [sys.executable, "-m", f"examples.article.{name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_every_script_is_among_them() -> None:
    files = {file.stem for file in Path(figures.__file__).parent.glob("*.py")}
    assert files - set(figures.SCRIPTS) >= {"__init__", "__main__", "figures"}
    runnable = {stem for stem in files if "python -m examples.article." + stem in _source(stem)}
    assert runnable == set(figures.SCRIPTS)


def _source(stem: str) -> str:
    return (Path(figures.__file__).parent / f"{stem}.py").read_text(encoding="utf-8")


def test_the_figures_are_current(made: Path) -> None:
    committed, ours = numbers(figures.HERE), numbers(made)
    assert set(committed) == set(figures.FIGURES)
    assert [name for name in figures.FIGURES if not figures.alike(ours[name], committed[name])] == []


def test_the_figures_are_files_that_the_page_shows(made: Path) -> None:
    shown = re.findall(r"!\[[^\]]+\]\(article/figures/(\w+)\.png\)", TEXT)
    assert sorted(shown) == sorted(figures.FIGURES)
    for folder in (made, figures.HERE):
        assert {file.stem for file in folder.glob("*.png")} == set(figures.FIGURES)
        assert all(file.stat().st_size < 120_000 for file in folder.glob("*.png"))


@pytest.mark.parametrize("part", ["lines", "points", "contours", "texts"])
def test_a_figure_that_changed_is_noticed(part: str) -> None:
    committed = numbers(figures.HERE)
    for name, panels in committed.items():
        filled = [panel for panel in panels if _moved(panel[part]) != panel[part]]
        if filled:
            changed = copy.deepcopy(panels)
            panel = changed[panels.index(filled[0])]
            panel[part] = _moved(panel[part])
            assert not figures.alike(changed, panels), name
            return
    pytest.fail(f"no figure has {part}")


def _moved(values: Any) -> Any:
    if isinstance(values, list):
        return [_moved(value) for value in values]
    return re.sub(r"\d+\.\d+", "77.7", values) if isinstance(values, str) else 1.05 * values + 0.05


def test_what_the_page_quotes_is_what_the_scripts_print() -> None:
    quoted = re.findall(r"<!-- (\w+):begin -->", TEXT)
    assert sorted(quoted) == sorted(figures.SCRIPTS)
    assert figures.alike(figures.refreshed(TEXT).splitlines(), TEXT.splitlines())
    first = slips.slips()[0]
    assert not figures.alike(slips.table([first]), slips.table([first._replace(measured=2.0)]))


def test_one_command_makes_figures_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "derivation.md"
    page.write_text("before\n<!-- slips:begin -->\nold\n<!-- slips:end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(figures, "DERIVATION", page)
    monkeypatch.setattr(figures, "make", lambda: None)
    monkeypatch.setattr(sys, "argv", ["examples.article", "--figures"])
    assert __main__.main() == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- slips:begin -->\n| # | section |")
    assert text.endswith("|\n<!-- slips:end -->\nafter\n")


@pytest.mark.parametrize("slip", slips.slips(), ids=lambda slip: slip.written)
def test_each_slip_is_decided_by_its_numbers(slip: Slip) -> None:
    assert slip.should == pytest.approx(slip.measured, rel=1e-12)
    if not isinstance(slip.gives, str):
        assert abs(slip.gives - slip.measured) > 1e-3
    else:
        assert slip.gives in {"not defined", "no number", "no E", "stops"}


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line[:1] == "#"
    }
    targets = re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`]*`|```.*?```", "", TEXT, flags=re.DOTALL))
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (figures.DERIVATION.parent / target).is_file(), target


def test_the_formulas_can_be_set() -> None:
    inline = re.findall(r"\$`([^`\n]+)`\$", TEXT)
    displayed = re.findall(r"```math\n(.*?)\n```", TEXT, re.DOTALL)
    assert len(displayed) > 8
    assert TEXT.count("$`") == TEXT.count("`$") == len(inline)
    parser = mathtext.MathTextParser("path")
    for formula in [*inline, *" ".join(displayed).splitlines()]:
        parser.parse(f"${formula}$")
