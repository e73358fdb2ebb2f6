"""How Sphinx makes a site of this folder: ``make docs``. Warnings are errors, and nothing is fetched."""

from __future__ import annotations

from jupyter_gpu_platform import __version__

project = "jupyter-gpu-platform"
author = "The jupyter-gpu-platform developers"
copyright = author  # noqa: A001 (Sphinx's name for it)
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["_build"]
# A command's output may hold anything, such as a single quotation mark that opens nothing.
suppress_warnings = ["misc.highlighting_failure"]
nitpicky = False  # signatures name types of libraries whose pages are not looked up: no network

myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
# The docstrings write `name` for code.
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = "jupyter-gpu-platform"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_center": [],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"**": ["globaltoc.html"]}
html_static_path = ["_static"]
html_css_files = ["site.css"]
