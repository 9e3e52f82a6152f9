"""Configuration of Sphinx. `make docs` builds the site into `build/docs`; each warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import llm_energy_measure

sys.path.insert(0, str(Path(__file__).parent))  # for `generated`

project = "llm-energy-measure"
author = "The llm-energy-measure contributors"
project_copyright = "2026, the llm-energy-measure contributors"
release = llm_energy_measure.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "generated"]
html_theme = "furo"
html_title = f"llm-energy-measure {release}"

myst_heading_anchors = 3
smartquotes = False  # options such as --all keep their two hyphens
suppress_warnings = ["misc.highlighting_failure"]  # the grammar of --where is no language that Pygments knows

default_role = "code"  # docstrings use single backquotes for code
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
    "exclude-members": "NamesAllFields, StructMeta",  # autodoc cannot read the signature of a metaclass of msgspec
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # the fields of a struct are documented once, under "Attributes"
