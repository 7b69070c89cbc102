"""How the pages are built: Markdown by MyST, in the furo theme, without the network."""

from __future__ import annotations

from importlib import metadata

project = "shardcache"
author = "shardcache maintainers"
copyright = author
release = metadata.version("shardcache")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings write names in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"shardcache {release}"
