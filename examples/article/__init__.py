"""The article, executed: a script for each of its sections, and their figures; see derivation.md beside this folder."""
