"""Immutable records of measurements, and calculations on them. No I/O, no logging.

`README.md` in this folder describes the modules.
"""
