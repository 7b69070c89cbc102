"""A Redis wire as plain values, and the replies that a test feeds it."""

from __future__ import annotations

import hiredis
from hypothesis import strategies as st

from shardcache.backends.redis.header import to_redis
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.core.commands import (
    Cas,
    CasKeep,
    Delete,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetMany,
    Gets,
    Incr,
    IncrSigned,
    Peek,
    Ping,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.values.flags import TEXT_FLAGS

NODE = "cache1"
TEXT = (TEXT_FLAGS, b"text")
STORED = to_redis(TEXT)
ANY_COMMAND = [
    Get(b"k"),
    GetMany([b"k", b"l"]),
    Gets(b"k"),
    GetAged(b"k"),
    Peek(b"k"),
    Set(b"k", TEXT),
    Set(b"k", TEXT, when=When.ABSENT),
    SetMany([(b"k", TEXT), (b"l", TEXT)]),
    Cas(b"k", TEXT, b"token"),
    CasKeep(b"k", TEXT, b"token"),
    Delete(b"k"),
    DeleteMany([b"k", b"l"]),
    Touch(b"k", 1.0),
    Touch(b"k", None),
    Incr(b"k", 1),
    IncrSigned(b"k", -1),
    Ping(),
    ServerStats(),
    FlushAll(),
]


def make_wire(**options):
    """Return the wire of a new connection."""
    return RedisWire(RedisOptions(**options), NODE)


def sent(command, **options):
    """Return the words of each request that a command comes to."""
    return sent_by(make_wire(**options), command)


def sent_by(wire, *commands):
    """Return the words of each request that commands come to, on one connection."""
    reader = hiredis.Reader()
    for command in commands:
        reader.feed(b"".join(wire.encode(command)))
    words = []
    while request := reader.gets():
        words.append(request)
    return words


def answered(command, *fragments):
    """Return the one reply to a command."""
    wire = make_wire()
    wire.encode(command)
    (reply,) = [reply for fragment in fragments for reply in wire.feed(fragment)]
    assert wire.idle
    return reply


def bulk(data):
    """Return a reply as the server writes it."""
    return b"$-1\r\n" if data is None else b"$%d\r\n%b\r\n" % (len(data), data)


def bulks(parts):
    """Return a reply of many parts as the server writes it."""
    return b"*%d\r\n%b" % (len(parts), b"".join(map(bulk, parts)))


def feed_in_parts(wire, stream, size):
    """Feed a stream in parts of some bytes; return the replies."""
    starts = range(0, len(stream), size)
    return [reply for start in starts for reply in wire.feed(stream[start : start + size])]


@st.composite
def cut(draw, data):
    """Cut bytes into fragments of any sizes."""
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
