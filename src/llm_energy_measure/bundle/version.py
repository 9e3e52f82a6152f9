"""The version of this package, which a bundle records: its checks gave the verdicts."""

from __future__ import annotations

from llm_energy_measure._version import __version__

VERSION = __version__
"""Version of this package."""
