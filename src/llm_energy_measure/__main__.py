"""`python -m llm_energy_measure` runs the command `llm-energy-measure`."""

from llm_energy_measure.cli.main import main

if __name__ == "__main__":
    main()
