"""An old payload that is stored again is void: its end is signed with it."""

from __future__ import annotations

import time

import pytest

from clients.signing import Node, cached
from shardcache import DecodeError
from shardcache.core.values.envelopes import pack, unpack
from shardcache.core.values.flags import ENVELOPE_FLAGS, ERROR_FLAGS


class TestReplay:
    """An attacker who can write to the cache stores an old payload again."""

    def test_a_value_is_void_after_its_end(self, make_signed):
        """Its end is signed with it; without a `ttl` it has none."""
        client = make_signed()
        payloads, now = client._cluster.payloads, [time.time()]
        payloads._wall = lambda: now[0]
        brief = payloads.encode(b"k", "value", 60.0)
        lasting = payloads.encode(b"k", "value")
        error = payloads.seal(b"k", (ERROR_FLAGS, b"stored"), 60.0)
        for _ in range(2):
            assert payloads.decode(b"k", brief) == payloads.decode(b"k", lasting) == "value"
            assert payloads.open(b"k", error) == (ERROR_FLAGS, b"stored")
            now[0] += 60.5
        now[0] += 1.0
        assert payloads.decode(b"k", lasting) == "value"
        with pytest.raises(DecodeError, match="expired"):
            payloads.decode(b"k", brief)
        with pytest.raises(DecodeError, match="expired"):
            payloads.open(b"k", error)

    def test_an_envelope_is_void_after_its_end(self, make_signed):
        """A cached function goes by its age; for `get` it ends as any value."""
        client = make_signed()
        node, calls, payloads = Node(client), [], client._cluster.payloads

        def compute():
            calls.append(1)
            return len(calls)

        load, key = cached(client, compute, ttl=60, stale=60, jitter=0)
        assert [load(), load()] == [1, 1]
        old = node.held(key)
        wall = payloads._wall
        for seconds, expected in ((0, 1), (118, 1), (123, "miss")):
            payloads._wall = lambda seconds=seconds: wall() + seconds
            node.plant(key, old)
            assert client.get(key, "miss") == expected
        envelope = payloads.open(key, old)[1]
        ended = pack(unpack(envelope)._replace(fresh_until=wall() - 61))
        node.plant(key, payloads.seal(node.name(key), (ENVELOPE_FLAGS, ended)))
        assert load() == 2

    def test_every_call_signs_the_end(self, make_signed):
        """However a value comes to be stored with a `ttl`, it is void after that."""
        client = make_signed(default_ttl=60)
        payloads, node = client._cluster.payloads, Node(client)
        client.set("set", "value")
        client.add("add", "value")
        client.set_many({"many": "value"})
        client.set("cas", "value", ttl=None)
        client.cas("cas", "value", client.gets("cas")[1])
        client.set("touched", "value", ttl=None)
        client.touch("touched", 60)
        client.get_or_set("computed", lambda: "value", ttl=60)
        keys = ["set", "add", "many", "cas", "touched", "computed"]
        held = {key: node.held(key.encode()) for key in keys}
        assert client.get_many(keys) == dict.fromkeys(keys, "value")
        wall = payloads._wall
        payloads._wall = lambda: wall() + 62
        for key, payload in held.items():
            with pytest.raises(DecodeError, match="expired"):
                payloads.decode(key.encode(), payload)
