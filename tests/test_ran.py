"""README, ``gpubp info`` and the committed reports agree on what has run where."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpubp._cli.commands import main
from gpubp._devices import EMULATED
from gpubp._ran import LIBRARIES, Card, Library

ROOT = Path(__file__).parent.parent


def wrong(libraries: tuple[Library, ...], reports: dict[str, Any], readme: str) -> list[str]:
    """What is claimed without a report of a card that passed, passed without being claimed, or not in the README."""
    found = []
    passed = {
        Card(report["device"], report["date"][:10], name)
        for name, report in reports.items()
        if report.get("passed") and not (report["failed"] or report["unproven"] or report["emulated"])
    }
    claimed = {(library.name, card) for library in libraries for card in library.cards}
    for name, card in claimed:
        if card not in passed:
            found.append(f"no report shows {name} on {card.device}")
        if name != "CuPy":
            found.append(f"ci/gpu tests CuPy alone, {name} is said to have run on {card.device}")
    found += [f"{card.report} isn't claimed" for card in passed if ("CuPy", card) not in claimed]
    for library in libraries:
        if f"| {library.name} | {library.tested} | {library.on_a_gpu} |".replace("|  |", "| |") not in readme:
            found.append(f"the README's row of {library.name} differs")
    return found


def test_claims_and_reports_and_the_readme_agree() -> None:
    files = (ROOT / "benchmarks" / "results").glob("*gpu*.json")
    reports = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    assert wrong(LIBRARIES, reports, (ROOT / "README.md").read_text(encoding="utf-8")) == []


CARD = Card("NVIDIA H100", "2027-01-02", "gpu_h100.json")
REPORT = {
    "device": CARD.device,
    "date": f"{CARD.date}T03:04:05+00:00",
    "emulated": False,
    "passed": 600,
    "failed": 0,
    "unproven": None,
}
SAYS = "emulated on every submission; on a card: NVIDIA H100 on 2027-01-02 (gpu_h100.json)"
ROW = f"| CuPy | somehow | {SAYS} |\n"


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (REPORT, None),
        (None, "no report shows CuPy"),
        ({**REPORT, "device": EMULATED, "emulated": True}, "no report shows CuPy"),
        ({**REPORT, "emulated": True}, "no report shows CuPy"),
        ({**REPORT, "failed": 1}, "no report shows CuPy"),
        ({**REPORT, "passed": 0}, "no report shows CuPy"),
        ({**REPORT, "unproven": "none ran"}, "no report shows CuPy"),
        ({**REPORT, "device": "NVIDIA H200"}, "no report shows CuPy"),
        ({**REPORT, "date": "2027-01-03T00:00:00+00:00"}, "no report shows CuPy"),
    ],
)
def test_a_claim_needs_the_report_of_a_card_that_passed(report: Any, words: str | None) -> None:
    library = Library("CuPy", "somehow", on_gpus=True, emulated=True, cards=(CARD,))
    found = wrong((library,), {CARD.report: report} if report else {}, ROW)
    if words is None:
        assert found == []
    else:
        assert words in found[0]


def test_a_report_must_be_claimed_and_the_readme_say_it() -> None:
    silent = Library("CuPy", "somehow", on_gpus=True, emulated=True)
    assert wrong((silent,), {CARD.report: REPORT}, "") == [
        "gpu_h100.json isn't claimed",
        "the README's row of CuPy differs",
    ]
    loud = Library("JAX", "somehow", on_gpus=True, cards=(CARD,))
    assert "ci/gpu tests CuPy alone" in wrong((silent, loud), {CARD.report: REPORT}, ROW)[0]


def test_the_emulated_device_has_its_name() -> None:
    files = (ROOT / "ci" / "cupy_on_cpu" / "device").glob("*.cpp")
    assert sum(f'"{EMULATED}"' in file.read_text(encoding="utf-8") for file in files) == 1


def test_info_says_what_has_run_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for library in LIBRARIES:
        line = f"{library.name} on a GPU".ljust(17) + f" {library.on_a_gpu}\n"
        assert (line in said) == library.on_gpus
    assert "your GPU          ci/gpu REPORT.json" in said


def test_info_tells_an_emulated_device_from_a_gpu_with_cupy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpubp
    from gpubp import _devices

    monkeypatch.setattr(_devices, "why_no_gpu", lambda index=0: None)
    monkeypatch.setattr(_devices, "cuda_versions", dict)
    for description, emulated in ((f"{EMULATED}, 4 GiB, CuPy", True), ("NVIDIA H100, 80 GiB, CuPy", False)):
        found = gpubp.Device("cuda:0", None, description)
        monkeypatch.setattr(_devices, "devices", lambda found=found: (found,))
        monkeypatch.setattr(_devices, "device", lambda name, found=found: found)
        assert main(["info"]) == 0
        assert ("emulated          cuda:0 is no GPU" in capsys.readouterr().out) == emulated
