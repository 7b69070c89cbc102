"""Adapt the readme to a package index, where a relative link leads nowhere.

With a `Source` among the project's URLs, relative links become absolute. Without one they become
plain text, and pictures become their captions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_link = re.compile(r"(!?)\[([^][]*)]\((?!https?://|mailto:|#)([^()\s]+)\)")


class ReadmeHook(MetadataHookInterface):
    """The hook that puts the readme into the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`, which the project declares as dynamic."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source", "")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_links(text, source)}


def with_links(text: str, source: str) -> str:
    """Return the text with its relative links made absolute, or without them if `source` is empty.

    A `source` is the address of a repository; its files are below `blob/HEAD/` and `raw/HEAD/`.
    """

    def replace(match: re.Match[str]) -> str:
        picture, caption, path = match.groups()
        if not source:
            return caption
        kind = "raw" if picture else "blob"
        return f"{picture}[{caption}]({source.rstrip('/')}/{kind}/HEAD/{path})"

    return _link.sub(replace, text)
