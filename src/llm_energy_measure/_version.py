"""The version of this package. All layers can import this module without an import cycle."""

from __future__ import annotations

__version__ = "0.1.0"
