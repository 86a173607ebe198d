"""Scripts to learn from, each run by itself; and ``python -m examples.article --check``."""
