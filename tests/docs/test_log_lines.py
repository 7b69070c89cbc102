"""The page on the log has each line that the package and its plugins write, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "read-the-log.md"
SOURCES = sorted([*(ROOT / "shardcache").rglob("*.py"), *(ROOT / "plugins").glob("*/*/**/*.py")])
LEVELS = {"info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
PLACE = re.compile(r"%[.\d]*[a-z]")
ENTRY = re.compile(r"^`([^\n]+)`\n: \*\*(\w+)\*\*", re.MULTILINE)


def calls(tree: ast.AST, owner: str) -> Iterator[tuple[str, list[ast.expr]]]:
    """Yield the method and the arguments of each call of a method of `owner`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
                if name == owner:
                    yield method, node.args


def noted(tree: ast.AST) -> list[tuple[str, str]]:
    """Return what each `self._note(doing, function, why, so)` puts into the lines of `_note`."""
    return [
        (doing.value, so.value)
        for method, arguments in calls(tree, "self")
        if method == "_note"
        for doing, *_, so in [arguments]
        if isinstance(doing, ast.Constant) and isinstance(so, ast.Constant)
    ]


def lines(source: str) -> Iterator[tuple[str, str]]:
    """Yield the text and the level of each line that a module logs, with `…` for what differs."""
    tree = ast.parse(source)
    for method, (text, *_) in calls(tree, "log"):
        assert isinstance(text, ast.Constant), "the text of a line is a constant"
        level, shown = LEVELS[method], PLACE.sub("…", text.value)
        if shown.startswith("… … failed"):
            for doing, so in noted(tree):
                filled = shown.replace("…", doing, 1)
                yield filled.removesuffix("…") + so, level
        else:
            yield shown, level


def test_the_page_has_every_line_with_its_level():
    """An operator finds the line by its text."""
    logged = {line for file in SOURCES for line in lines(file.read_text(encoding="utf-8"))}
    assert len(logged) > 20
    assert sorted(ENTRY.findall(PAGE.read_text(encoding="utf-8"))) == sorted(logged)


def test_a_line_is_read_from_the_code():
    """The text in parts, what differs, and the lines of `_note`."""
    source = """
log.warning("node %s "
            "restored after %.1f s", name, seconds)
log.info("%s %s failed: %s; %s", doing, function, why, so)
self._note("reading", function, why, "it is recomputed")
"""
    assert sorted(lines(source)) == [
        ("node … restored after … s", "WARNING"),
        ("reading … failed: …; it is recomputed", "INFO"),
    ]
