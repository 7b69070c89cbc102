"""A backend may do less than the servers: what it lacks is an error that says so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

import pytest

from shardcache import KEEP, AsyncClient, Client, UnsupportedError
from shardcache.backends.handlers import Handlers
from shardcache.backends.memory import Bounds, Memory, MemoryBackend, Store
from shardcache.backends.memory_asyncio import AsyncMemoryBackend
from shardcache.core import capabilities
from shardcache.core.capabilities import (
    AGES,
    CAS,
    COMPARE,
    DATES,
    EVERYTHING,
    KEEPING,
    LISTS,
    LOCKS,
    PLAIN,
    STUBS,
)
from shardcache.core.commands import Command
from shardcache.plugin.manager import load
from shardcache.testing.backend import BackendContract
from shardcache.testing.driving import make_client


def limited(supports):
    """Return a factory of memory nodes that have no other handlers."""

    class LimitedStore(Store):
        _handlers = Handlers("plain")

    for command in supports:
        LimitedStore._handlers[command] = Store._handlers[command]

    class Blocking(MemoryBackend):
        pass

    class Asyncio(AsyncMemoryBackend):
        pass

    Blocking.supports = Asyncio.supports = supports

    class Limited(Memory):
        def blocking(self, node, _options):
            return Blocking(LimitedStore(Bounds.from_node(node)))

        def asyncio(self, node, _options):
            return Asyncio(LimitedStore(Bounds.from_node(node)))

    return Limited()


@pytest.fixture
def plain(monkeypatch):
    """Offer a backend for `plain://` that does the least a backend must."""
    monkeypatch.setitem(load().backends._entries, "plain", limited(PLAIN))
    return "plain://one"


def test_the_capabilities_are_all_commands_each_once():
    """A new command belongs to one of them."""
    sets = (PLAIN, CAS, STUBS, LOCKS, COMPARE, AGES, KEEPING, LISTS, DATES)
    assert set(get_args(Command)) == EVERYTHING
    assert sum(map(len, sets)) == len(EVERYTHING)


def test_the_guide_tells_the_same():
    """What goes away without each set is said twice: where it is defined, and in the how-to."""
    page = Path(__file__).parents[2] / "docs/how-to/write-a-backend.md"
    rows = [row for row in (capabilities.__doc__ or "").splitlines() if row.startswith("| `")]
    told = page.read_text(encoding="utf-8").splitlines()
    named = [row.split("`")[1] for row in rows]
    assert named == [
        *("PLAIN", "CAS", "STUBS", "LOCKS", "COMPARE", "AGES", "KEEPING", "LISTS", "DATES")
    ]
    assert [row for row in rows[1:] if row not in told] == []


class TestPlain(BackendContract):
    """The contract holds for a backend without any optional command, except for the tests of those."""

    @pytest.fixture
    def url(self, plain):
        """Return the URL of a plain node."""
        return plain


@pytest.fixture
def client(mode, plain):
    """Return a client that takes every failure of a node for a miss."""
    client = make_client(mode, plain, timeout=5, namespace="shop", clearable=True)
    yield client
    client.close()


CALLS = {
    "gets": lambda client: client.gets("k"),
    "cas": lambda client: client.cas("k", 1, None),
    "cas with KEEP": lambda client: client.cas("k", 1, None, ttl=KEEP),
    "ttl": lambda client: client.ttl("k"),
    "decr": lambda client: client.decr("k", floor=None),
    "get_or_set": lambda client: client.get_or_set("k", lambda: 1, ttl=60),
    "clear": lambda client: client.clear(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_needs_more_says_what_is_missing(client, call):
    """Whatever `on_error` is: it is no failure of the node, and ejects none."""
    for _ in range(10):
        with pytest.raises(UnsupportedError, match="plain nodes do not support "):
            CALLS[call](client)
    assert client.ejected == ()
    assert client.set("k", 1)
    assert client.get("k") == 1


def test_a_lock_says_so_as_well(plain):
    """Each client takes locks in a way of its own."""
    with Client(plain) as client, pytest.raises(UnsupportedError, match="support Acquire"):
        client.lock("k").acquire()

    async def acquire():
        async with AsyncClient(plain) as client:
            await client.lock("k").acquire()

    with pytest.raises(UnsupportedError, match="support Acquire"):
        asyncio.run(acquire())


def test_a_check_passes_and_tells_what_is_missing(client):
    """Such a node serves what it can."""
    (found,) = client.check().values()
    (note,) = [note for note in found.notes if "cannot" in note]
    assert note.startswith("its backend cannot ")
    assert "cache functions" in note
    assert "take a lock" in note
