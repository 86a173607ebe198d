"""The command line ``gpubp``.

commands : what each command does
options : how the commands are called
tables : CSV and .npz files as columns of numbers
picture : plots in files
"""
