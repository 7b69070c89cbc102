"""Importing the package does nothing and loads little."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import shardcache

HEAVY = (
    *("redis", "pymemcache", "hiredis", "click", "rich", "tenacity", "importlib.metadata"),
    *("asyncio", "ssl", "difflib", "json", "pickle", "tomllib", "zoneinfo"),
)


def modules_after(code: str) -> set[str]:
    """Give the names of all modules loaded once `code` has run in a new interpreter."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("code", ["import shardcache", "from shardcache import Client"])
def test_importing_loads_no_library_that_is_not_used(code):
    """Neither servers' libraries nor entry points nor an event loop come with the import."""
    assert not modules_after(code).intersection(HEAVY)


def test_importing_starts_nothing():
    """No thread runs and no file is open after the import."""
    code = (
        "import os, threading\n"
        "before = len(os.listdir('/proc/self/fd'))\n"
        "import shardcache\n"
        "assert threading.active_count() == 1\n"
        "assert len(os.listdir('/proc/self/fd')) == before"
    )
    assert "shardcache" in modules_after(code)


def test_the_version_is_that_of_the_installed_package():
    """`__version__` is what pip says, and is looked up when it is asked for."""
    assert shardcache.__version__ == version("shardcache")
    assert "importlib.metadata" in modules_after("from shardcache import __version__")


def test_a_copy_without_metadata_has_a_version_too(monkeypatch):
    """A program that was frozen without metadata is told that the version is unknown."""

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert shardcache.__version__ == "unknown"
