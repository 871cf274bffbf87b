"""Sphinx configuration: Markdown pages through MyST; builds offline and without warnings."""

from __future__ import annotations

import re
from pathlib import Path

project = "PowerGrid"
author = "The PowerGrid authors"
copyright = author
source = Path(__file__).resolve().parents[1] / "powergrid" / "__init__.py"
release = re.findall(r'^__version__ = "(.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)[0]
version = release

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # they turn --option into a dash
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"PowerGrid {release}"
