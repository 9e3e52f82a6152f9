"""Verification: checks of what an experiment's processes measured, one module per family; `checks.py` has the list."""
