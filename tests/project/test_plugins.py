"""Plugins stand alone: none knows another, and the package knows none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = {
    path.parent.name.replace("-", "_"): path.parent
    for path in ROOT.glob("plugins/*/pyproject.toml")
}


def imported(directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield every top-level name that the modules below `directory` import."""
    for path in directory.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            yield from ((path, name.partition(".")[0]) for name in names)


def strangers(directory: Path, own: str) -> list[str]:
    """Return the imports of plugins other than `own` below `directory`."""
    others = PLUGINS.keys() - {own}
    return [f"{path.name} imports {name}" for path, name in imported(directory) if name in others]


def test_the_package_imports_no_plugin():
    """The package works without any of its plugins."""
    assert strangers(ROOT / "shardcache", own="") == []


def test_no_plugin_imports_another():
    """Each plugin can be installed by itself."""
    assert {name: strangers(path, own=name) for name, path in PLUGINS.items()} == {
        name: [] for name in PLUGINS
    }
