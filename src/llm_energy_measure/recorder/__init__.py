"""Measure a process: its energy, tokens and latencies become one raw result.

Start with `from llm_energy_measure import record`; docs/how-to/measure-a-script.md shows how to use it.
"""
