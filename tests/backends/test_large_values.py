"""A large value is copied once as it arrives and not as it leaves, and is the same value as a small one."""

from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcache import Client
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.backends.transport.large_values import WHOLE
from shardcache.backends.transport.sockets import LARGE, READ
from shardcache.core.commands import Get, GetMany, Gets, Incr, Set, SetMany
from shardcache.core.values.flags import INTEGER_FLAGS, TEXT_FLAGS, UNMARKED_FLAGS
from shardcache.errors import NodeProtocolError
from shardcache.testing.driving import make_client

KINDS = ["memcached", "redis"]
SIZES = [0, 1, LARGE - 1, LARGE, LARGE + 1, LARGE + 12, 3 * LARGE, 100_000]
cuts = st.lists(st.integers(0, 110_000), max_size=6)


def wire_of(kind):
    """Return a new wire of a kind."""
    if kind == "memcached":
        return MemcachedWire(max_value=200_000)
    return RedisWire(RedisOptions(max_value_bytes=200_000), "node")


def whole_reply(kind, wire, command, payloads):
    """Return the reply of a server that holds `payloads` to a command that the wire now expects."""
    request = b"".join(wire.encode(command))
    if kind == "memcached":
        tokens = re.findall(rb"O\d+", request)
        version = b" c7" if isinstance(command, Gets) else b""
        hits = [
            b"VA %d f%d%b %b\r\n%b\r\n" % (len(data), flags, version, token, data)
            for (flags, data), token in zip(payloads, tokens, strict=True)
        ]
        return b"".join(hits) + (b"MN\r\n" if isinstance(command, GetMany) else b"")
    store = wire_of(kind)
    words = [b"".join(store.encode(Set(b"k", payload))) for payload in payloads]
    stored = [re.split(rb"\r\n\$\d+\r\n", word, maxsplit=3)[3] for word in words]
    bulks = [b"$%d\r\n%b" % (len(each) - 2, each) for each in stored]
    array = b"*%d\r\n" % len(bulks) if isinstance(command, GetMany) else b""
    return array + b"".join(bulks)


def pieces(data, places):
    """Return data cut at some places."""
    ends = sorted({*(place for place in places if place < len(data)), len(data)})
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [Get(b"k"), Gets(b"k"), GetMany([b"k", b"l", b"m"])], ids=repr)
@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=3, max_size=3),
    form=st.tuples(
        st.sampled_from([UNMARKED_FLAGS, TEXT_FLAGS, INTEGER_FLAGS]),
        st.sampled_from([b"x", b"\xc1", b"\r\n"]),
    ),
    places=cuts,
)
@example(sizes=[100_000] * 3, form=(TEXT_FLAGS, b"x"), places=[20, 100_020, 100_021, 100_022])
def test_a_value_in_pieces_is_the_value(kind, command, sizes, form, places):
    """Wherever the network cuts: in the line, the header, the value, or the CRLF behind it."""
    flags, first = form
    count = 3 if isinstance(command, GetMany) else 1
    payloads = [(flags, (first * size)[:size] or b"0") for size in sizes[:count]]
    if flags == INTEGER_FLAGS:
        payloads = [(flags, b"7" * min(len(data), 600)) for _, data in payloads]
    wire = wire_of(kind)
    reply = whole_reply(kind, wire, command, payloads)
    replies = [each for piece in pieces(reply, places) for each in wire.feed(piece)]
    assert len(replies) == 1
    found = replies[0] if isinstance(command, GetMany) else replies
    assert wire.idle
    if isinstance(command, Gets):
        found = [found[0][0]]
    assert [data for _, data in found] == [data for _, data in payloads]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [Get(b"k"), GetMany([b"k", b"l", b"m"])], ids=repr)
@given(sizes=st.lists(st.sampled_from(SIZES), min_size=3, max_size=3), places=cuts)
@example(sizes=[100_000] * 3, places=[30_000, 60_000, 150_000, 160_000])
def test_a_value_written_into_its_room_is_the_value(kind, command, sizes, places):
    """What a socket writes there counts as what is fed, up to the end of the value and no further."""
    count = 3 if isinstance(command, GetMany) else 1
    payloads = [(TEXT_FLAGS, b"x" * size) for size in sizes[:count]]
    wire = wire_of(kind)
    replies = []
    for piece in pieces(whole_reply(kind, wire, command, payloads), places):
        left = piece
        while left and (room := wire.room()) is not None:
            with room:
                size = min(len(room), len(left))
                room[:size] = left[:size]
            replies += wire.take(size)
            left = left[size:]
        replies += wire.feed(left) if left else []
    assert wire.idle
    assert wire.room() is None
    found = replies[0] if isinstance(command, GetMany) else replies
    assert list(found) == payloads


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_value_of_the_wrong_length_is_refused(kind):
    """The bytes behind it are no line end: the connection is closed."""
    wire = wire_of(kind)
    reply = whole_reply(kind, wire, Get(b"k"), [(TEXT_FLAGS, b"x" * 100_000)])
    assert wire.feed(reply[:50_000]) == []
    with pytest.raises(NodeProtocolError):
        wire.feed(reply[50_000:-2] + b"xx\r\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [Set, lambda *item: SetMany([item])], ids=["set", "many"])
@pytest.mark.parametrize("size", SIZES)
def test_a_request_is_the_same_in_pieces(kind, command, size):
    """The bytes of a large value are no others than those of a small one."""
    sent = b"".join(wire_of(kind).encode(command(b"k", (TEXT_FLAGS, b"x" * size))))
    assert sent.count(b"x" * size) >= 1
    length = size if kind == "memcached" else size + 10
    assert re.search(rb"[ $]%d[ \r]" % length, sent)
    assert b"x" * size + b"\r\n" in sent


@pytest.mark.parametrize("kind", KINDS)
def test_a_megabyte_is_copied_once_in_and_not_at_all_out(request, kind):
    """In are the pieces that arrive and the value, out is the value that the caller has."""
    server = request.getfixturevalue(f"{kind}_servers")[0]
    data = b"x" * 1_000_000
    with Client(f"{server.url}?max_value_bytes=1100000", timeout=20) as client:
        for act, copies in ((lambda: client.get("k"), 2), (lambda: client.set("k", data), 0)):
            assert client.set("k", data)
            act()
            tracemalloc.start()
            try:
                act()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < (copies + 0.3) * len(data)


def test_a_hit_in_place_of_a_large_values_line_end_is_refused():
    """Whatever its token is: bytes that belong to no reply close the connection."""
    wire = MemcachedWire(max_value=200_000)
    (request,) = wire.encode(Get(b"k"))
    (token,) = re.findall(rb"O\d+", request)
    assert wire.feed(b"VA 100000 f0 %b\r\n%b" % (token, b"x" * 50_000)) == []
    assert wire.feed(b"x" * 50_000) == []
    with pytest.raises(NodeProtocolError):
        wire.feed(b"VA 1 f0 %b\r\na\r\n" % token)


def test_digits_that_are_none_are_no_number():
    """A reply to a count that fits but for its digits is refused, in one piece or in two."""
    for cut in (None, 8):
        wire = MemcachedWire()
        (request,) = wire.encode(Incr(b"k", 1))
        (token,) = re.findall(rb"O\d+", request)
        reply = b"VA 3 %b\r\nabc\r\n" % token
        if cut is not None:
            assert wire.feed(reply[:cut]) == []
        with pytest.raises(NodeProtocolError):
            wire.feed(reply if cut is None else reply[cut:])


def test_a_large_value_of_memcached_takes_its_size_once():
    """Twice as much would be given back to the system after each call, and mapped again."""
    wire = MemcachedWire()
    token = b"".join(wire.encode(Get(b"k"))).split()[-1]
    head, value = b"VA 1000000 f0 %b\r\n" % token, b"v" * 1_000_000
    reply = head + value + b"\r\n"
    tracemalloc.start()
    try:
        replies = [
            each
            for begin in range(0, len(reply), READ)
            for each in wire.feed(reply[begin : begin + READ])
        ]
        assert tracemalloc.get_traced_memory()[1] < 1_300_000
    finally:
        tracemalloc.stop()
    assert replies == [(0, value)]


def test_a_value_that_is_only_announced_takes_little():
    """However large it is to be; and one of that size arrives whole."""
    wire = MemcachedWire(max_value=1 << 30)
    token = b"".join(wire.encode(Get(b"k"))).split()[-1]
    tracemalloc.start()
    try:
        assert wire.feed(b"VA 1000000000 f0 %b\r\nxyz" % token) == []
        assert tracemalloc.get_traced_memory()[1] < 2 * WHOLE
    finally:
        tracemalloc.stop()
    wire = MemcachedWire(max_value=1 << 30)
    token = b"".join(wire.encode(Get(b"k"))).split()[-1]
    value = bytes(range(250)) * (WHOLE // 200)
    assert wire.feed(b"VA %d f0 %b\r\n" % (len(value), token)) == []
    assert wire.feed(value) == []
    assert wire.feed(b"\r\n") == [(0, value)]


@pytest.mark.servers
def test_large_values_of_a_batch_make_room_for_each_other(mode, redis_servers):
    """What a value was decoded from makes room for the next one."""
    size, keys = 200_000, [f"large:{number}" for number in range(40)]
    client = make_client(mode, [server.url for server in redis_servers], timeout=10)
    try:
        client.set_many(dict.fromkeys(keys, "x" * size))
        tracemalloc.start()
        found = client.get_many(keys)
        _, peak = tracemalloc.get_traced_memory()
        assert len(found) == len(keys)
        assert peak < 2.5 * size * len(keys)
    finally:
        tracemalloc.stop()
        client.close()
