"""`append` and `prepend`, which memcached's meta protocol has and a `Client` has not."""

from __future__ import annotations

import contextlib
import threading

import pytest
from pymemcache.client.base import Client as PlainClient
from pymemcache.exceptions import MemcacheServerError
from pymemcache.serde import pickle_serde

from shardcache.compat.pymemcache.cluster import SerdeCluster
from shardcache.compat.pymemcache.operations import EXTEND_TRIES
from shardcache.core.commands import Gets


def test_the_expiry_and_the_flags_stay(make, hosts):
    """What is added has neither of its own, whatever is passed."""
    client = make("ours", hosts[:1], serde=pickle_serde)
    client.set("brief", "text", 60)
    client.set("lasting", "text")
    for key in ("brief", "lasting"):
        assert client.append(key, b" and more", 5, flags=1) is True
        assert client.prepend(key, b"more ", 5, flags=1) is True
        assert client.get(key) == "more text and more"
    plain = PlainClient(hosts[0])
    brief, lasting = (plain.raw_command(f"mg {key} t f") for key in ("brief", "lasting"))
    plain.close()
    assert brief in {b"HD t%d f16" % seconds for seconds in range(30, 61)}
    assert lasting == b"HD t-1 f16"


def test_no_addition_of_a_thread_is_lost(make):
    """Another write between the read and the store is noticed, and the addition made again."""
    client = make("ours")
    client.set("k", "")

    def add(letter):
        left = 20
        while left:
            with contextlib.suppress(MemcacheServerError):  # the others were faster each time
                left -= client.append("k", letter)

    threads = [threading.Thread(target=add, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(client.get("k").decode()) == sorted("abc" * 20)


def test_a_value_that_keeps_changing_is_an_error(make):
    """After some rounds the caller learns of it, and the value has nothing of the addition."""
    client, other = make("ours"), make("ours")
    other.set("k", "0")
    rounds = []

    ask = SerdeCluster.ask

    async def meddle(cluster, member, command, deadline=None):
        reply = await ask(cluster, member, command, deadline)
        if isinstance(command, Gets):
            rounds.append(command)
            other.set("k", str(len(rounds)))
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SerdeCluster, "ask", meddle)
        with pytest.raises(MemcacheServerError, match="append: other writers keep changing"):
            client.append("k", b"more")
    assert len(rounds) == EXTEND_TRIES
    assert client.get("k") == str(EXTEND_TRIES).encode()
