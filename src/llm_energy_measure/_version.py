"""The version of this package, in a separate module so that all layers can import it without an import cycle."""

from __future__ import annotations

__version__ = "0.1.0"
