"""``python -m examples.article --figures``, from the repository root: the figures and numbers of derivation.md."""

import argparse

from examples.article import figures


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m examples.article", description=__doc__)
    parser.add_argument(
        "--figures", action="store_true", required=True, help=f"write {figures.HERE.name}/*.png"
    )
    parser.parse_args()
    figures.make()
    text = figures.DERIVATION.read_text(encoding="utf-8")
    figures.DERIVATION.write_text(figures.refreshed(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
