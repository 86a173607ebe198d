"""CuPy's own code on the CPU: README.md says what this is."""
