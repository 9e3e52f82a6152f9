"""The catalogue: a fast, derived view of a results directory, which can be deleted at any time.

See `README.md` beside this file for a tour.
"""
