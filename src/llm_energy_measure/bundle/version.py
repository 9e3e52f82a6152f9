"""The version of this package, which a bundle records: its checks gave the verdicts."""

from __future__ import annotations

import llm_energy_measure

VERSION = llm_energy_measure.__version__
"""Version of this package."""
