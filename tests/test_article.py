"""The article's claims all hold, and none holds whatever the numbers are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from examples.article import __main__, _catalogue, _claims_full, _claims_linear
from examples.article._claim import GATE, Claim, error, slopes
from examples.article.claims import CLAIMS
from gpubp import backprop, costs, matrix_calculus, optimizers
from gpubp.engines import Generic, Numpy
from gpubp.matrix_calculus import identities

IDENTITIES = [claim for claim in CLAIMS if claim.kind == "identity"]
OTHER_KINDS = {
    "shape": [31, 32, 35, 39, 48],
    "behaviour": [4, 5, 27],
    "refusal": [59],
}
# the claim that states each derivative of the catalogue
STATED = {
    ("y' A x", "A"): 37,
    ("y' A B x", "A"): 43,
    ("y' A B x", "B"): 44,
    ("1/2 x' A' A x", "A"): 45,
    ("1/2 x' B' A' A B x", "A"): 49,
    ("1/2 x' B' A' A B x", "B"): 50,
    ("y' sigma(A) x", "A"): 60,
    ("y' sigma1(A sigma2(B)) x", "A"): 63,
    ("y' sigma1(A sigma2(B)) x", "B"): 64,
    ("y' sigma(A x)", "A"): 65,
    ("y' sigma1(A sigma2(B x))", "A"): 66,
    ("y' sigma1(A sigma2(B x))", "B"): 67,
    ("1/2 |sigma(A x) - y|^2", "A"): 68,
}


def number(claim: Claim) -> str:
    return str(claim.number)


def test_every_claim_is_there_once_and_in_order() -> None:
    assert [claim.number for claim in CLAIMS] == list(range(1, 71))
    for kind, numbers in OTHER_KINDS.items():
        assert [claim.number for claim in CLAIMS if claim.kind == kind] == numbers
    assert len(IDENTITIES) == 61
    sections = [claim.section for claim in CLAIMS]
    counts = {name: sections.count(name) for name in dict.fromkeys(sections)}
    assert counts == {"Global view": 7, "I": 10, "II": 10, "III": 30, "IV": 7, "IV, ours": 6}


def test_all_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["--check"]) == 0
    head, *lines, blank, end = capsys.readouterr().out.splitlines()
    assert head.split() == ["section", "the", "article", "says", "by", "our", "kind", "measured"]
    assert [int(line.split()[0]) for line in lines] == list(range(1, 71))
    assert (blank, end) == ("", "70 of 70 hold")
    for claim, line in zip(CLAIMS, lines, strict=True):
        measured = line.rpartition(f"  {claim.kind}")[2].strip()
        assert measured
        if claim.kind == "identity":
            assert float(measured) <= GATE


def test_what_to_do_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        __main__.main([])
    assert "say what to do: --check" in capsys.readouterr().err


@pytest.mark.parametrize(("cost", "variable"), STATED)
def test_a_formula_planted_in_the_catalogue_is_caught(
    cost: str, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = identities[cost]
    wrong = replace(
        identity, derivatives={**identity.derivatives, variable: f"2 ({identity.derivatives[variable]})"}
    )
    planted = {**identities, cost: wrong}
    monkeypatch.setattr(matrix_calculus, "identities", planted)
    assert __main__.main(["--check"]) == 1
    out = capsys.readouterr().out
    assert f"\n{STATED[cost, variable]:2}  " in out
    (line,) = [line for line in out.splitlines() if line.startswith(f"{STATED[cost, variable]:2}  ")]
    assert "FAILED" in line
    assert "hold: not " in out


def test_the_whole_catalogue_is_stated() -> None:
    assert set(STATED) == {
        (cost, name) for cost, identity in identities.items() for name in identity.derivatives
    }


@pytest.mark.parametrize("claim", IDENTITIES, ids=number)
def test_a_number_planted_in_an_identity_is_caught(claim: Claim) -> None:
    pairs = list(claim.measure())
    assert pairs
    for k, (ours, other) in enumerate(pairs):
        assert ours is not other
        moved = np.asarray(ours) * (1 + 1e-9) + 1e-9
        planted = [*pairs[:k], (moved, other), *pairs[k + 1 :]]
        holds, measured = replace(claim, measure=iter(planted).__iter__).judge()
        assert not holds
        assert float(measured) > GATE


def off(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its result, or the first of its results, a billionth off."""

    def wrong(*arguments: Any, **more: Any) -> Any:
        found = function(*arguments, **more)
        first = found[0] if isinstance(found, tuple) else found
        if isinstance(first, np.ndarray):
            first *= 1 + 1e-9  # in place, as it may be a view of the gradient
            first += 1e-9
        else:
            first = first * (1 + 1e-9)
        return (first, *found[1:]) if isinstance(found, tuple) else first

    return wrong


# where a slip is planted, and claims that must notice; a name that modules import is planted in each of them
SLIPS: dict[str, tuple[list[Any], set[int]]] = {
    "affine": ([Generic, Numpy], {1, 3, 8, 18, 24, 28, 58}),
    "contract": ([Generic, Numpy], {10, 11, 12, 20, 21, 22, 36, 53, 54, 55, 69}),
    "propagate": ([Generic, Numpy], {7, 14, 15, 16, 25, 26, 56, 57, 68}),
    "sum_rows": ([Generic, Numpy], {70}),
    "collapsed": ([backprop], {9, 29}),
    "step": ([optimizers.SGD], {6, 36}),
    "_half": ([costs], {2, 3, 30}),
    "value": ([_catalogue, _claims_linear, _claims_full], {33, 38, 42, 46, 51, 52, 61, 62}),
    "index_sum": ([_claims_linear], {40, 41, 47}),
}


def noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The claims that fail while that function is off."""
    with monkeypatch.context() as planted:
        for place in SLIPS[name][0]:
            planted.setattr(place, name, off(getattr(place, name)))
        return {claim.number for claim in CLAIMS if not claim.judge()[0]}


def test_slips_in_the_library_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by the claims about it; and there is no identity that none of them breaks."""
    found = {name: noticed(name, monkeypatch) for name in SLIPS}
    assert {name: claims - found[name] for name, (_, claims) in SLIPS.items()} == {
        name: set() for name in SLIPS
    }
    assert {claim.number for claim in IDENTITIES} - set().union(*found.values()) == set()
    assert [claim.number for claim in CLAIMS if not claim.judge()[0]] == []


def test_what_goes_wrong_is_told() -> None:
    def broken() -> Any:
        raise ValueError("no such thing")

    claim = replace(CLAIMS[0], measure=broken)
    assert claim.judge() == (False, "ValueError: no such thing")
    assert replace(claim, measure=list).judge()[0] is False
    assert replace(claim, measure=lambda: [(np.ones(2), np.ones(3))]).judge()[0] is False
    assert replace(claim, measure=lambda: [(np.nan, 1.0)]).judge()[0] is False


def test_the_second_way() -> None:
    at = np.array([[0.3, -1.0], [2.0, 0.0]])
    assert error(slopes(lambda z: np.sum(np.sin(z)), at), np.cos(at)) <= 1e-15
    assert error(0.0, 0.0) == 0.0
    assert error(1e-9, 0.0) == 1e-9
