"""What is written for who comes next is so: the tree, the folders' own lists, the version, the workflow's commands."""

import re
from pathlib import Path

import pytest
from test_house import floor

import gpubp

PACKAGE = Path(gpubp.__file__).parent
ROOT = PACKAGE.parent
FOLDERS = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_tree_is_what_is_there() -> None:
    tree = re.findall(
        r"^  (\w+/?) +\S.*$", CONTRIBUTING.partition("gpubp/\n")[2].partition("```")[0], re.MULTILINE
    )
    files = [file.stem for file in PACKAGE.glob("*.py") if file.name != "__init__.py"]
    floors = [place[0] for name in tree if (place := floor(name.rstrip("/"))) is not None]
    assert floors == sorted(floors)
    assert sorted(tree) == sorted([*files, *(f"{folder}/" for folder in FOLDERS)])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_names_its_files(folder: str) -> None:
    """Each on a line "name, name : what it is" of the docstring of its __init__."""
    text = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    named = [
        name for names in re.findall(r"^([\w, ]+) : \S", text, re.MULTILINE) for name in names.split(", ")
    ]
    assert sorted(named) == sorted(f.stem for f in (PACKAGE / folder).glob("*.py") if f.name != "__init__.py")


def test_what_it_names_is_there() -> None:
    """Files in code that look like paths are there, below the root, the package or the tests."""
    named = re.findall(r"`([\w/.]+\.(?:py|md)|[\w]+/[\w]*)`", CONTRIBUTING)
    assert len(named) > 8
    places = (ROOT, PACKAGE, ROOT / "tests")
    found = {
        name: any((place / name).exists() or list(place.rglob(name)) for place in places) for name in named
    }
    assert [name for name, there in found.items() if not there] == []


def test_the_version_to_cite_is_this_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {gpubp.__version__}\n" in citation.replace("cff-version", "")


def test_the_hosted_checks_call_the_commands_that_are_here() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    commands = re.findall(r"run: python (\S+)", workflow)
    assert commands == ["ci/test", "ci/demo"]
    assert all((ROOT / command).exists() for command in commands)
