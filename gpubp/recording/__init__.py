"""Steps that are recorded once and done again many times: as NumPy calls, or compiled by numba.

schedule : which operations are done together, and in which order
memory : where every result is kept
text : what the writers of both texts share
numpy_writer : the schedule as NumPy calls
numpy_loops : loop nests in it, in blocks of rows
numba_writer : the schedule as a program for numba, in parts that threads share
names : the names in it, noted where they are handed out
barriers : where threads must wait for each other
loops : what the writers of its loop nests share
wide_loops, narrow_loops : loop nests in it, row by row or down the rows
elementary : exp, log, tanh and their like as arithmetic that is vectorised
team : products, barriers and threads inside compiled code
code_cache : machine code kept between processes
recorded, compiled : a recorded step that can be run
"""
