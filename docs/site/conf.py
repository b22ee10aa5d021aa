"""The course's site: Sphinx over the staged tree (docs/build_site.py). No request leaves its pages."""

import refdiff_lite

project = "refdiff-lite"
author = "The refdiff-lite authors"
copyright = f"2026, {author}"
release = refdiff_lite.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "html_image"]
myst_heading_anchors = 4
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "none"
mathjax_path = "tex-svg.js"
html_theme = "furo"
html_title = "refdiff-lite"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it would fetch every page found, which no browser allows from disk
templates_path = ["_templates"]
exclude_patterns = ["_templates", "_extra"]
html_theme_options = {"top_of_page_buttons": []}
suppress_warnings = [
    "myst.xref_missing",
    "myst.header",
    "mystnb.unknown_mime_type",
    "myst.strikethrough",
    "toc.not_included",
    "ref.python",
    "docutils",
]
