"""Sources -> executed notebooks, exercises, figures, result pages and the command line.

Comes in: notebooks and finished runs. Goes out: what a reader opens. Notebook 00.
"""
