"""``python -m examples.article --check``, from the folder that holds ``examples``."""

from __future__ import annotations

import argparse
import sys

from examples.article import claims


def main(argv: list[str] | None = None) -> int:
    """Do what was asked for; 0 when it went well."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.article", description="The article's claims, held against numbers."
    )
    parser.add_argument(
        "--check", action="store_true", help="print every claim with what was measured; 1 unless all hold"
    )
    options = parser.parse_args(argv)
    if not options.check:
        parser.error("say what to do: --check")
    return 0 if claims.check() else 1


if __name__ == "__main__":
    sys.exit(main())
