"""Formulas as graphs of operations, from running them once on promises instead of arrays.

tracer : promises, and the namespace that formulas are given
operations : the table of what can be recorded, and how targets say it
kernel : a formula as the text of one CUDA kernel
"""
