"""Plugins stand alone: none imports another, and the package imports none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = {
    folder.name.replace("-", "_"): folder
    for folder in sorted((ROOT / "plugins").iterdir())
    if (folder / "pyproject.toml").exists()
}


def imported(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each module of a folder with the name of each package that it imports."""
    for module in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield module, node.module.partition(".")[0]


def test_the_package_imports_no_plugin():
    """It must work without any of them."""
    found = [(module, name) for module, name in imported(ROOT / "shardcache") if name in PLUGINS]
    assert found == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_imports_no_other(plugin):
    """Each is installed by itself."""
    names = set(dict.fromkeys(name for _, name in imported(PLUGINS[plugin])))
    assert "shardcache" in names
    assert names & PLUGINS.keys() <= {plugin}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_has_what_a_distribution_needs(plugin):
    """A readme, tests, types, and a changelog if it is not only an example."""
    folder = PLUGINS[plugin]
    assert (folder / plugin / "__init__.py").exists()
    assert (folder / "README.md").exists()
    assert list((folder / "tests").glob("test_*.py"))
    if plugin != "shardcache_example":
        assert (folder / "CHANGELOG.md").exists()
        assert (folder / plugin / "py.typed").exists()
