"""The commands of `llm-energy-measure`, and their output on a terminal."""
