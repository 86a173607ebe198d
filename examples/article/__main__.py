"""``python -m examples.article --check --figures``, from the folder that holds ``examples``."""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 0 when it went well."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.article",
        description="The article's claims, held against numbers, and its figures.",
    )
    parser.add_argument(
        "--check", action="store_true", help="print every claim with what was measured; 1 unless all hold"
    )
    parser.add_argument(
        "--figures", action="store_true", help="draw the figures, and write the numbers of derivation.md"
    )
    options = parser.parse_args(argv)
    if not (options.check or options.figures):
        parser.error("say what to do: --check, --figures or both")
    if options.figures:
        from examples.article import figures  # needs matplotlib

        figures.make()
        text = figures.DERIVATION.read_text(encoding="utf-8")
        figures.DERIVATION.write_text(figures.refreshed(text), encoding="utf-8")
    if options.check:
        from examples.article import claims

        return 0 if claims.check() else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
