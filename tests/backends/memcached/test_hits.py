"""A batch of which every key is found with the same flags is read without a look at each."""

from __future__ import annotations

import re
import socket

import pytest

from shardcache import Client
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.core.commands import GetMany, Hits


def reply_to(*hits):
    """Return what a wire makes of a reply with these flags and values."""
    wire = MemcachedWire()
    request = b"".join(wire.encode(GetMany([b"%d" % place for place in range(len(hits))])))
    tokens = re.findall(rb"O(\d+)", request)
    lines = [
        b"VA %d f%d O%b\r\n%b\r\n" % (len(data), flags, token, data)
        for token, (flags, data) in zip(tokens, hits, strict=True)
    ]
    (reply,) = wire.feed(b"".join((*lines, b"MN\r\n")))
    return reply


def test_equal_flags_are_told_apart_from_the_values():
    """It is a list of payloads like every other."""
    reply = reply_to((7, b"a"), (7, b""), (7, b"longer"))
    assert type(reply) is Hits
    assert (reply.flags, reply.data) == (7, [b"a", b"", b"longer"])
    assert reply == [(7, b"a"), (7, b""), (7, b"longer")]


def test_other_batches_are_plain_lists():
    """Whose payloads are looked at one by one."""
    reply = reply_to((7, b"a"), (8, b"b"))
    assert type(reply) is list
    assert reply == [(7, b"a"), (8, b"b")]


@pytest.mark.parametrize("empty", [False, True])
def test_a_stub_among_values_is_a_miss(memcached_servers, empty):
    """Its bytes are empty, and its flags those of bytes."""
    server = memcached_servers[0]
    with Client(server.url, timeout=20) as client:
        client.set_many({"a": b"1", "b": b"2", "c": b"3"})
        if empty:
            with socket.create_connection((server.host, server.port)) as connection:
                connection.sendall(b"ms b 0\r\n\r\n")
                assert connection.recv(100) == b"HD\r\n"
        values = client.get_many(["a", "b", "c"])
        assert values == {"a": b"1", "c": b"3"} | ({} if empty else {"b": b"2"})
        (member,) = client._cluster.members.values()
        assert (member.hits, member.misses) == ((2, 1) if empty else (3, 0))
