"""How the pages are built: Markdown by MyST, in the furo theme, without the network."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"shardcache {release}"


def setup(app: Sphinx) -> None:
    """Connect to the build. Sphinx calls this when it loads the configuration."""
    app.connect("autodoc-process-signature", _show_defaults)
    app.connect("autodoc-skip-member", _skip_field)


def _show_defaults(*arguments: Any) -> tuple[str | None, str | None]:
    """Show a default that a factory makes as `...`, where `inspect` says `<factory>`."""
    *_, signature, returns = arguments
    return signature and signature.replace("<factory>", "..."), returns


def _skip_field(*arguments: Any) -> bool | None:
    """Skip the fields of named tuples: the signature shows them, and they have no text."""
    member = arguments[3]
    return True if str(member.__doc__).startswith("Alias for field number") else None
