"""A client refuses a process that eventlet has patched."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

from shardcache import AsyncClient, Client, ConfigurationError

KINDS = [Client, AsyncClient]
MAKE = """

from shardcache import AsyncClient, Client, ConfigurationError
for kind in (Client, AsyncClient):
    for url in ("memory://a", "memcached://127.0.0.1:1", "redis://127.0.0.1:1"):
        try:
            kind(url)
        except ConfigurationError as error:
            assert "use gevent, threads or asyncio" in str(error)
            print("refused")
"""


@pytest.fixture
def patched(monkeypatch):
    """Let eventlet seem to be loaded, and return the names that it has patched."""
    names = set()
    patcher = ModuleType("eventlet.patcher")
    patcher.is_monkey_patched = names.__contains__
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
    return names


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["select", "socket"])
def test_a_patched_process_is_refused(patched, kind, name):
    """Each call would fail with an `AttributeError`: there is no `select.poll` any more."""
    patched.add(name)
    with pytest.raises(ConfigurationError, match=r"eventlet\.monkey_patch.*gevent"):
        kind("memory://a")


@pytest.mark.parametrize("kind", KINDS)
def test_eventlet_that_is_only_imported_is_accepted(patched, kind):
    """So is one that has patched nothing that calls wait with."""
    patched.add("os")
    assert kind("memory://a").nodes


@pytest.mark.skipif(find_spec("eventlet") is None, reason="eventlet is not installed")
@pytest.mark.parametrize(("patch", "refused"), [("eventlet.monkey_patch()", 6), ("", 0)])
def test_the_stand_in_is_as_eventlet_is(patch, refused):
    """The stand-in above is as eventlet is."""
    code = f"import eventlet\n{patch}\n{MAKE}"
    result = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.split() == ["refused"] * refused, result.stderr
