"""Keep, aggregate and verify the energy measurements of language models.

Importing this package is cheap: the records live in `llm_energy_measure.domain`, the store and the
aggregation in `llm_energy_measure.results`, and each is imported where it is used.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
