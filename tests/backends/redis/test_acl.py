"""A Redis user with the rights of the security page can do all that a client does."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import pytest
import redis

from shardcache import KEEP, NodeRefusedError
from shardcache.testing.driving import make_client

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "security.md"
RULES = re.search(r"ACL SETUSER (cache on .*)", PAGE.read_text(encoding="utf-8"))[1]
IN_A_NAMESPACE = re.search(r"the keys are `([^`]*)`", PAGE.read_text(encoding="utf-8"))[1]


@pytest.fixture(params=["", "shop"])
def client(request, mode, make_redis):
    """Return a client of that user, without a namespace and with the one of the page."""
    server = make_redis()
    rules = RULES.replace("~*", IN_A_NAMESPACE) if request.param else RULES
    with redis.Redis.from_url(server.url) as operator:
        operator.execute_command("ACL", "SETUSER", *rules.split())
    url = server.url.replace("redis://", "redis://cache:password@") + "/3?client_name=web"
    client = make_client(mode, url, namespace=request.param, on_error="raise", timeout=20)
    yield client
    client.close()


def settled(client, made):
    """Return what comes of awaiting, where that has to be done."""
    return client.loop.run_until_complete(made) if inspect.isawaitable(made) else made


def test_all_operations_are_permitted(client):
    """Each kind of call, and the check that an operator runs beforehand."""
    client.check()
    assert client.set("k", {"a": 1}, ttl=60)
    assert client.set_many({"i": 1, "j": 2}, ttl=60) == []
    assert client.get_many(["i", "j"]) == {"i": 1, "j": 2}
    assert client.add("new", 1)
    assert client.replace("new", 2, ttl=None)
    assert client.touch("new", 60)
    assert client.touch("new", None)
    assert client.touch("new", None)  # it has no expiry any more
    assert client.incr("n", initial=1, ttl=60) == 1
    assert client.incr("n") == 2
    assert client.decr("n") == 1
    value, token = client.gets("k")
    assert client.cas("k", value, token)
    _, token = client.gets("k")
    assert client.cas("k", value, token, ttl=KEEP)
    assert client.ttl("k") == math.inf
    assert client.exists("k")
    assert client.decr("n", 9, floor=None) == -8
    assert client.delete("k")
    assert client.delete_many(["i", "j"]) == 2
    (figures,) = client.stats().values()
    assert "redis_version" in figures.server
    (seconds,) = client.ping().values()
    assert seconds > 0


def test_functions_and_locks_are_permitted(client):
    """Stubs, locks, tags and marks are keys that the user may write."""
    for lock in ("shard", True):
        assert client.get_or_set(f"v {lock}", lambda: [1], ttl=60, lock=lock, stale=60) == [1]
    assert client.invalidate_tag("tag")
    lease = settled(client, client.lock("report").try_acquire())
    assert lease is not None
    assert settled(client, lease.extend())
    assert settled(client, lease.release())


def test_nothing_else_is_permitted(client):
    """Not flushing the database, for one."""
    with pytest.raises(NodeRefusedError, match="ACL"):
        client.flush_node(client.nodes[0].name)
