"""The article's claims by number: section, our object, kind, and what was measured."""

from __future__ import annotations

from examples.article import _claims_full, _claims_linear, _claims_one_node
from examples.article._claim import Claim

CLAIMS: tuple[Claim, ...] = (*_claims_one_node.CLAIMS, *_claims_linear.CLAIMS, *_claims_full.CLAIMS)


def check() -> bool:
    """Print the table, one line a claim; whether all hold."""
    rows = [("", "section", "the article says", "by our", "kind", "measured")]
    failed = []
    for claim in CLAIMS:
        holds, measured = claim.judge()
        if not holds:
            failed.append(str(claim.number))
            measured = f"FAILED: {measured}"
        rows.append((str(claim.number), claim.section, claim.says, claim.ours, claim.kind, measured))
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    for row in rows:
        cells = [
            row[0].rjust(widths[0]),
            *(cell.ljust(n) for cell, n in zip(row[1:5], widths[1:], strict=True)),
        ]
        print("  ".join([*cells, row[5]]).rstrip())
    print(f"\n{len(CLAIMS) - len(failed)} of {len(CLAIMS)} hold{': not ' * bool(failed)}{', '.join(failed)}")
    return not failed
