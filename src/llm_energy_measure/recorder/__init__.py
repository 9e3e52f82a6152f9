"""Measuring a process: energy, tokens and latencies, saved as one raw result.

Start with `from llm_energy_measure import record`; see `docs/how-to/measure-a-script.md`.
"""
