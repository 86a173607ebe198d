"""The article, executed."""
