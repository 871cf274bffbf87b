"""Sphinx configuration: Markdown pages through MyST; builds offline and without warnings."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

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

html_math_renderer = "mathml"


def _show_math(self, node, *, block: bool) -> None:
    """Write a formula as MathML, which browsers draw themselves: the site needs no script from elsewhere."""
    self.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app) -> None:
    """Draw formulas without MathJax."""
    app.add_html_math_renderer(
        "mathml",
        (lambda self, node: _show_math(self, node, block=False), None),
        (lambda self, node: _show_math(self, node, block=True), None),
    )
