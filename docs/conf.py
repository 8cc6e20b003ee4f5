"""Sphinx: the manual as HTML (`make docs`)."""

project = "replicad"
author = "the replicad authors"
project_copyright = "the replicad authors"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "replicad"
myst_heading_anchors = 3
nitpicky = True
