"""Each row of the page on faults is shown by tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "what-happens-when.md"
ROW = re.compile(r"^(?P<fault>\S.*)\n: (?P<text>(?:.+\n)+)", re.MULTILINE)
NAMED = re.compile(r"`(?P<file>[\w/-]+\.py)::(?P<test>test_\w+)`")


def rows(page: str) -> dict[str, list[tuple[str, str]]]:
    """Return the tests of each row: file and name, by the fault."""
    return {
        row["fault"]: [
            (named["file"], named["test"])
            for named in NAMED.finditer(row["text"].partition("*Shown by*")[2])
        ]
        for row in ROW.finditer(page)
    }


ROWS = rows(PAGE.read_text(encoding="utf-8"))


@cache
def defined(file: str) -> frozenset[str]:
    """Return the names of the tests of a file, which is one of ours or of a plugin."""
    folder = TESTS.parent if file.startswith("plugins/") else TESTS
    tree = ast.parse((folder / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


@pytest.mark.parametrize("fault", ROWS)
def test_a_row_is_shown_by_a_test(fault):
    """A promise that no test keeps is a hope."""
    assert ROWS[fault]
    assert [named for named in ROWS[fault] if named[1] not in defined(named[0])] == []


def test_every_row_is_read():
    """None is left out because it is written in another way."""
    assert len(ROWS) == PAGE.read_text(encoding="utf-8").count("*Shown by*") > 30


def test_a_row_without_a_test_is_found():
    """It has none, and one that is named elsewhere does not count."""
    page = "A node dies\n: See `a.py::test_x`.\n  Over soon.\n\nA node hangs\n: *Shown by* `b.py::test_y`\n"
    assert rows(page) == {"A node dies": [], "A node hangs": [("b.py", "test_y")]}
