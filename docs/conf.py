"""Sphinx settings: pages in Markdown, the API from the lazy table, examples from their scripts, MathML."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import mathml  # noqa: E402
import pages  # noqa: E402

import causalsat  # noqa: E402

project = "causalsat"
author = "the causalsat authors"
copyright = author
version = release = causalsat.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build", "notebooks", "recorded", "results"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# the API: one page a public name; numpydoc reads the docstrings, autosummary lays out the members
autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# a reference to something of ours that leads nowhere is an error; references to other packages are plain text
nitpicky = True
# modules inside packages have no pages
nitpick_ignore_regex = [(r"py:.*", r"(?!causalsat\b).*"), (r"py:mod", r"causalsat\.\w+\..*")]

html_theme = "furo"
html_title = f"causalsat {release}"
html_static_path = ["_static"]
html_css_files = ["causalsat.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"


def skip_member(app, what, name, member, skip, options):
    """Leave out what scikit-learn adds to every class for metadata routing."""
    added = name.startswith("set_") and name.endswith("_request")
    return True if added or name in ("set_output", "get_metadata_routing") else skip


def setup(app):
    """Write the pages that are made from the code, then let Sphinx read them."""
    pages.write(HERE)
    mathml.setup(app)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
