"""Formulas as graphs of operations, from running them once on promises instead of arrays.

tracer : promises, and the namespace that formulas are given
operations : what can be done element by element, and how
kernel : a formula as the text of one CUDA kernel
"""
