"""The documentation fits the screen of a phone and of a laptop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md"))
SCREENS = [390, 1280]  # pixels: a phone and a laptop

# Each table that is wider than its column, by its first words; the wrapper around it would scroll.
WIDE_TABLES = """
return Array.from(document.querySelectorAll("article table"))
    .filter(table => table.getBoundingClientRect().width > table.parentElement.clientWidth + 0.5
                     || table.scrollWidth > table.clientWidth + 1)
    .map(table => table.innerText.slice(0, 40))
"""
# The narrowest column of each table, in pixels; text of one letter a line fits, and is not read.
NARROW_COLUMNS = """
return Array.from(document.querySelectorAll("article table"))
    .filter(table => Array.from(table.rows[0].cells).some(cell => cell.clientWidth < arguments[0]))
    .map(table => table.innerText.slice(0, 40))
"""
# Marks of Markdown that the page shows as they are written.
BARE_MARKS = """
const text = document.querySelector("article").cloneNode(true);
text.querySelectorAll("pre, code").forEach(code => code.remove());
return text.textContent.match(/.{0,30}(`|\\]\\(|\\{eval-rst|<factory>).{0,30}/g) || []
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Return the folder of the built pages."""
    target = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", DOCS, target]
    subprocess.run(command, check=True)
    return target


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_the_screen(page, built, name):
    """No table is wider than its column, and no page scrolls sideways."""
    page.browser.get((built / f"{name}.html").as_uri())
    for pixels in SCREENS:
        with page.width(pixels):
            script = page.browser.execute_script
            assert script(WIDE_TABLES) == [], f"tables wider than their column at {pixels} pixels"
            assert script(NARROW_COLUMNS, 48) == [], f"columns too narrow at {pixels} pixels"
            assert script("return document.documentElement.scrollWidth") <= pixels


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_no_markup(page, built, name):
    """What Markdown or a docstring leaves open is not shown as it is written."""
    page.browser.get((built / f"{name}.html").as_uri())
    assert page.browser.execute_script(BARE_MARKS) == []
