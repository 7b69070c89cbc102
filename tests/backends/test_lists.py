"""A list of commands on the wire: one reply for each, whatever becomes of the others."""

from __future__ import annotations

import pytest

from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.core.commands import CommandList, Get, Set
from shardcache.errors import (
    ConfigurationError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    ValueTooLargeError,
)

SMALL, LARGE = (0, b"small"), (0, b"x" * 1000)


def memcached():
    """Return a wire that takes values of up to 100 bytes, with tokens from 1."""
    wire = MemcachedWire(max_value=100)
    wire._token = 0
    return wire


def redis():
    """Return a wire that takes values of up to 100 bytes."""
    return RedisWire(RedisOptions(max_value_bytes=100), "node")


@pytest.mark.parametrize(
    ("make_wire", "answer"), [(memcached, b"HD O1\r\nHD O3\r\n"), (redis, b"+OK\r\n+OK\r\n")]
)
def test_a_value_that_is_too_large_concerns_its_command_alone(make_wire, answer):
    """The others are sent all the same."""
    wire = make_wire()
    assert wire.encode(CommandList([Set(b"a", SMALL), Set(b"b", LARGE), Set(b"c", SMALL)]))
    ((first, refused, last),) = wire.feed(answer)
    assert (first, last) == (True, True)
    assert isinstance(refused, ValueTooLargeError)
    assert wire.idle


@pytest.mark.parametrize(("make_wire", "answer"), [(memcached, b"MN\r\n"), (redis, b"+PONG\r\n")])
def test_a_list_that_sends_no_command_is_answered_in_its_turn(make_wire, answer):
    """Replies stay in order."""
    wire = make_wire()
    assert wire.encode(CommandList([Set(b"b", LARGE)]))
    ((refused,),) = wire.feed(answer)
    assert isinstance(refused, ValueTooLargeError)


@pytest.mark.parametrize(
    ("make_wire", "answer"),
    [(memcached, b"EN O1\r\nVA 5 f0 O2\r\nsm"), (redis, b"$-1\r\n$3\r\nsm")],
)
def test_what_has_arrived_of_a_late_list_is_kept(make_wire, answer):
    """The gaps hold timeouts."""
    wire = make_wire()
    wire.encode(CommandList([Get(b"a"), Get(b"b"), Get(b"c")]))
    assert wire.feed(answer) == []
    first, *others = wire.partial_reply()
    assert first is None
    assert list(map(type, others)) == [NodeTimeoutError] * 2


@pytest.mark.parametrize(
    ("make_wire", "answer"),
    [
        (memcached, b"SERVER_ERROR out of memory storing object\r\nHD O2\r\nEN O3\r\n"),
        (redis, b"-OOM command not allowed\r\n+OK\r\n$-1\r\n"),
    ],
)
def test_a_refusal_concerns_its_command_alone(make_wire, answer):
    """The connection is still good."""
    wire = make_wire()
    wire.encode(CommandList([Set(b"a", SMALL), Set(b"b", SMALL), Get(b"c")]))
    ((refused, stored, missing),) = wire.feed(answer)
    assert isinstance(refused, NodeRefusedError)
    assert (stored, missing) == (True, None)


@pytest.mark.parametrize(
    ("make_wire", "answer"), [(memcached, b"VA 2 f0 O9\r\nhi\r\n"), (redis, b":1\r\n")]
)
def test_a_reply_that_belongs_to_no_command_ends_the_connection(make_wire, answer):
    """No key gets the value of another."""
    wire = make_wire()
    wire.encode(CommandList([Get(b"a"), Get(b"b")]))
    with pytest.raises(NodeProtocolError):
        wire.feed(answer)


def test_a_stored_value_that_is_too_large_is_skipped():
    """Memcached's is not read; the next reply is."""
    wire = memcached()
    wire.encode(CommandList([Get(b"a"), Get(b"b")]))
    ((large, missing),) = wire.feed(b"VA 1000 f0 O1\r\n" + b"x" * 1000 + b"\r\nEN O2\r\n")
    assert isinstance(large, ValueTooLargeError)
    assert missing is None


def test_a_node_that_cannot_serve_says_so_for_the_whole_list():
    """A member of a Redis Cluster answers for other keys as if all were well."""
    wire = redis()
    wire.encode(CommandList([Get(b"a"), Get(b"b")]))
    (reply,) = wire.feed(b"-MOVED 1 10.0.0.1:6379\r\n$-1\r\n")
    assert isinstance(reply, ConfigurationError)
