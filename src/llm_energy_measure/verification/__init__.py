"""Verification: checks of the energies, times and counts that an experiment records. `checks.py` runs all checks."""
