"""A small write that is started, and one that is encoded, are one: same bytes, same meaning of each reply."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Delete, Incr, Set, Touch, When
from shardcache.errors import ShardCacheError

WRITES = [
    Set(b"k", (0, b"value"), 60),
    Set(b"k", (65536, b""), None, When.ABSENT),
    Set(b"k", (0, b"x" * 100), 0.5, When.PRESENT),
    Delete(b"k"),
    Incr(b"k", 0),
    Incr(b"k", 2**63 - 1),
]
OTHER_WRITES = [
    Set(b"two words", (0, b"value"), 60),
    Set(b"k", (0, b"x" * 101), 60),
    Delete(b"k" * 251),
    Incr(b"two words", 1),
    Incr(b"k", -1),
    Touch(b"k", 60),
]
ANSWERS = [
    b"HD O%d\r\n",
    b"NS O%d\r\n",
    b"NF O%d\r\n",
    b"EN O%d\r\n",
    b"HD O%d W\r\n",
    b"VA 1 O%d\r\n7\r\n",
    b"VA 2 O%d\r\n7 \r\n",
    b"VA 19 O%d\r\n9223372036854775807\r\n",
    b"VA 20 O%d\r\n18446744073709551615\r\n",
    b"VA 3 O%d\r\nabc\r\n",
    b"SERVER_ERROR out of memory O%d\r\n",
]


def started(command):
    """Return a wire that has started a write and one that has encoded it, with the same token, and it."""
    straight, general = MemcachedWire(max_value=100), MemcachedWire(max_value=100)
    request = straight.start(command)
    whole = b"".join(general.encode(command))
    assert re.sub(rb"O\d+", b"O", request) == re.sub(rb"O\d+", b"O", whole)
    (token,) = re.findall(rb"O(\d+)", request)
    general._pending[0].token = b"O" + token
    return straight, general, int(token)


@pytest.mark.parametrize("command", WRITES, ids=repr)
@pytest.mark.parametrize("answer", ANSWERS)
@given(data=st.data())
def test_replies_to_writes_are_equal(command, answer, data):
    """The same request, and the same meaning of whatever bytes come; the rest is left to `feed`."""
    straight, general, token = started(command)
    assert straight.idle
    reply = answer % token
    place = data.draw(st.integers(0, 40))
    other = answer % (token + 1)
    cuts = [reply, other, reply[:place], reply[:place] + b"0" + reply[place:], reply + b"\r\n", b""]
    reply = data.draw(st.sampled_from(cuts))
    seen = straight.end(reply)
    if seen is not UNUSUAL:
        assert general.feed(reply) == [seen]
        assert general.idle
        return
    straight.expect()
    straight.expect()
    assert heard(straight, reply) == heard(general, reply)


def heard(wire, reply):
    """Return what a wire makes of some bytes, and whether a reply is owed."""
    try:
        replies = wire.feed(reply)
    except ShardCacheError as error:
        return str(error)
    return [str(each) for each in replies], wire.idle


@pytest.mark.parametrize("command", OTHER_WRITES, ids=repr)
def test_other_writes_are_left_to_the_general_way(command):
    """Nothing is expected, and the wire stays at a reply boundary."""
    wire = MemcachedWire(max_value=100)
    assert wire.start(command) is None
    assert wire.idle
