"""Every write and delete passes one place, to which single flight listens."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import shardcache
from shardcache import KEEP, AsyncClient, Client
from shardcache.operations.cluster.cluster import Cluster

PACKAGE = Path(shardcache.__file__).parent

WRITES = {
    "set": lambda client: client.set("k", 1),
    "set for no time": lambda client: client.set("k", 1, ttl=0),
    "replace": lambda client: client.replace("k", 1),
    "cas": lambda client: client.cas("k", 1, 7),
    "cas with the old expiry": lambda client: client.cas("k", 1, 7, ttl=KEEP),
    "delete": lambda client: client.delete("k"),
    "touch for no time": lambda client: client.touch("k", ttl=0),
    "incr": lambda client: client.incr("k"),
    "decr below zero": lambda client: client.decr("k", initial=-1, floor=None),
    "set_many": lambda client: client.set_many({"k": 1}),
    "delete_many": lambda client: client.delete_many(["k"]),
}
OTHERS = {
    "get": lambda client: client.get("k"),
    "gets": lambda client: client.gets("k"),
    "get_many": lambda client: client.get_many(["k"]),
    "exists": lambda client: client.exists("k"),
    "ttl": lambda client: client.ttl("k"),
    "add": lambda client: client.add("k", 1),
    "touch": lambda client: client.touch("k", ttl=60),
    "get_or_set": lambda client: client.get_or_set("k", lambda: 1, 60),
}
ALL = {
    "tag": lambda client: client.invalidate_tag("t"),
    "clear": lambda client: client.clear(),
    "flush_all": lambda client: client.flush_all(),
    "flush_node": lambda client: client.flush_node("a"),
}


@pytest.fixture
def heard(monkeypatch):
    """Return the names that were invalidated, `None` for all at once."""
    names = []
    monkeypatch.setattr(Cluster, "invalidated", lambda _, name: names.append(name))
    monkeypatch.setattr(Cluster, "invalidated_all", lambda _: names.append(None))
    return names


@pytest.fixture(params=[Client, AsyncClient])
async def act(request, heard):
    """Return a function that runs an action on a client of either kind."""
    client = request.param("memory://a", clearable=True)

    async def do(action):
        result = action(client)
        if request.param is AsyncClient:
            await result
        return heard

    yield do
    closed = client.close() if request.param is Client else client.aclose()
    if closed is not None:
        await closed


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_invalidates_its_key(act, name):
    """A command that can replace or remove a value invalidates the key's name first."""
    assert set(await act(WRITES[name])) == {b"k"}


@pytest.mark.parametrize("name", OTHERS)
async def test_a_command_that_replaces_no_value_invalidates_nothing(act, name):
    """A read, an `add`, a longer ttl, and the store of a recompute leave flights alone."""
    assert await act(OTHERS[name]) == []


@pytest.mark.parametrize("name", ALL)
async def test_tags_clears_and_flushes_invalidate_all(act, name):
    """The client does not know which values have a tag or are on a node."""
    assert set(await act(ALL[name])) == {None}


def test_flights_are_forgotten_in_one_place():
    """`forget` and `forget_all` of single flight are called by the cluster alone."""
    callers = [
        path.name
        for path in sorted((PACKAGE / "operations").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in {"forget", "forget_all"}
        and isinstance(node.value, ast.Attribute)
    ]
    assert callers == ["cluster.py", "cluster.py"]
