"""How the pages of explanation, reference and decisions are written."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(
    page
    for folder in ("decisions", "explanation", "reference")
    for page in (DOCS / folder).glob("*.md")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_begins_with_the_question_of_its_reader(page):
    """A reader sees in the first paragraph whether this is the page to read."""
    title, paragraph, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert "?" in paragraph
