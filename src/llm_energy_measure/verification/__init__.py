"""Verification: checks of what an experiment's processes measured, a module a family; see `checks.py` for the list."""
