"""The map of the code names what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")


def paths_of_the_map() -> list[str]:
    """Return the files and folders of the tree on the page, from the package on."""
    paths: list[str] = []
    parents: list[str] = []
    for indent, name in re.findall(r"^( *)([a-z_]+(?:/|\.py))(?: |$)", PAGE, flags=re.MULTILINE):
        del parents[len(indent) // 2 :]
        paths.append("".join([*parents, name]))
        parents.append(name)
    return paths


def test_the_map_names_what_exists():
    """Each file and folder of the tree is in the package."""
    paths = paths_of_the_map()
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / "shardcache" / path).exists()] == []


def test_the_map_has_every_module_of_the_operations():
    """A reader who looks for a step of a call finds its module."""
    operations = ROOT / "shardcache" / "operations"
    modules = {
        str(path.relative_to(operations.parent))
        for path in operations.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= set(paths_of_the_map())


def test_each_seam_is_where_the_page_says():
    """The second column of the table of seams names files and folders of the package."""
    table = PAGE.partition("## Where new features fit")[2]
    places = re.findall(r"^\| [^|]+ \| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(places) > 8
    assert [place for place in places if not (ROOT / "shardcache" / place).exists()] == []
