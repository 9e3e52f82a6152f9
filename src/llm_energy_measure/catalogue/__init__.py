"""The catalogue: a fast, derived view of a results directory. It can be deleted at any time.

`README.md` in this folder describes the modules.
"""
