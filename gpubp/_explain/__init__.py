"""The recursion of a small network with its numbers: as text, as LaTeX, and as a page.

explanation : ``explain``
term : one line of it
notation : letters and numbers as text, LaTeX and HTML
page : the page, from explain.html and explain.js
"""
