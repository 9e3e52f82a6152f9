"""The version of this package. A bundle records the version, because its checks gave the verdicts."""

from __future__ import annotations

from llm_energy_measure._version import __version__

VERSION = __version__
"""Version of this package."""
