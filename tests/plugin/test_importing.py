"""Importing the package does nothing, and a program loads what it uses."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import shardcache

# What `import shardcache` loads of the package. Client and exceptions come with their first use.
OURS = {"shardcache"}
HEAVY = (
    *("redis", "pymemcache", "hiredis", "click", "rich", "tenacity", "importlib.metadata"),
    *("asyncio", "ssl", "difflib", "json", "pickle", "tomllib", "zoneinfo"),
)
# What a blocking client of memcached has no use for: event loops, the other backends' libraries, and
# our own modules of cached functions, whole checks, shadows and other nodes' protocols.
NOT_OF_A_BLOCKING_CLIENT = {
    *(
        "asyncio",
        "concurrent.futures",
        "redis",
        "hiredis",
        "pymemcache",
        "pickle",
        "tomllib",
    ),
    "shardcache.backends.memory_asyncio",
    "shardcache.backends.pymemcache.backend",
    "shardcache.backends.redis.wire",
    "shardcache.backends.transport.asyncio",
    "shardcache.backends.transport.channel",
    "shardcache.clients.asyncio",
    "shardcache.clients.cached",
    "shardcache.clients.fingerprints",
    "shardcache.clients.function_cache",
    "shardcache.clients.key_builder",
    "shardcache.clients.many",
    "shardcache.clients.shadow",
    "shardcache.core.key_building.arguments",
    "shardcache.core.key_building.templates",
    "shardcache.decorators",
    "shardcache.io.asyncio",
    "shardcache.io.task_flights",
    "shardcache.operations.keys.checking",
    "shardcache.operations.keys.shadowing",
    "shardcache.operations.recompute.lockstep",
    "shardcache.operations.recompute.many",
}
# All that it loads of the package: a number to lower. It may rise with a feature that each `get` needs.
MODULES_OF_A_BLOCKING_CLIENT = 174


def modules_after(code: str, plugins: str = "none") -> set[str]:
    """Give the names of all modules loaded once `code` has run in a new interpreter."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SHARDCACHE_PLUGINS": plugins},
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("code", ["import shardcache", "from shardcache import Client"])
def test_importing_loads_no_library_that_is_not_used(code):
    """Neither servers' libraries nor entry points nor an event loop come with the import."""
    assert not modules_after(code).intersection(HEAVY)


def test_importing_the_package_loads_none_of_its_modules():
    """Neither does it load what most modules of the standard library bring along."""
    added = modules_after("import shardcache") - modules_after("import typing, importlib")
    assert {name for name in added if name.startswith("shardcache")} == OURS
    assert not added & {"asyncio", "inspect", "logging", "dataclasses", "socket", "re"}


def test_a_blocking_client_of_memcached_loads_what_it_uses(memcached_servers):
    """It loads no more modules than it does today, and none for tasks, other servers or cached functions."""
    loaded = modules_after(
        "import shardcache\n"
        f"with shardcache.Client('{memcached_servers.urls[0]}') as client:\n"
        "    assert client.set('key', 1, ttl=60) and client.get('key') == 1"
    )
    assert not loaded & NOT_OF_A_BLOCKING_CLIENT
    own = sorted(name for name in loaded if name.startswith("shardcache."))
    assert len(own) == MODULES_OF_A_BLOCKING_CLIENT, (
        "if fewer: lower the number; else see what is new"
    )


def test_entry_points_are_looked_for_only_if_a_plugin_may_be_loaded():
    """`SHARDCACHE_PLUGINS=none` spares a process that."""
    code = "from shardcache import Client\nClient('memory://a')"
    assert "importlib.metadata" not in modules_after(code)
    assert "importlib.metadata" in modules_after(code, plugins="-unknown")


def test_each_public_name_comes_from_its_module():
    """`__all__`, what type checkers read and what is loaded at run time agree; names are loaded once."""
    tree = ast.parse(Path(shardcache.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    read = {(node.module, name.name) for node in block.body for name in node.names}
    assert read == {(module, name) for name, module in shardcache._MODULE_OF.items()}
    assert sorted(shardcache._MODULE_OF) == sorted(shardcache.__all__)
    for module, name in read:
        value = getattr(shardcache, name)
        assert value is getattr(import_module(module), name)
        assert vars(shardcache)[name] is value
    assert set(shardcache.__all__) <= set(dir(shardcache))
    assert pickle.loads(pickle.dumps(shardcache.Client)) is shardcache.Client


def test_a_package_is_an_attribute_without_its_own_import():
    """`shardcache.errors` is there after `import shardcache`, and no other name is."""
    loaded = modules_after("import shardcache\nassert shardcache.errors.NodeError")
    assert "shardcache.clients" not in loaded
    with pytest.raises(AttributeError, match="module 'shardcache' has no attribute 'nothing'"):
        shardcache.nothing  # noqa: B018 - it is the looking up that raises


def test_nothing_is_printed_without_logging():
    """A program that has not set up logging sees no warning on its standard error."""
    code = "from shardcache.log import log\nlog.error('unseen')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stderr == b""


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
