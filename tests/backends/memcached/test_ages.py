"""How long an item lives, and on which date it expires: what the wire asks, and what it takes."""

from __future__ import annotations

import math

import pytest

from shardcache import Client
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.core.commands import UNREAD, CasUntil, GetAged, GetExpiry, Peek, Until
from shardcache.core.values.flags import BARE_STUB
from shardcache.errors import NodeProtocolError, ValueTooLargeError
from shardcache.operations.port import step

STATS = b"STAT pid 1\r\nSTAT time 1700000000\r\nSTAT threads 4\r\nEND\r\n"


def hear(command, reply, *, size=1 << 20):
    """Have a wire ask something and hear a reply, in pieces of a size; return what it makes of it."""
    wire = MemcachedWire(max_value=64)
    asked = b"".join(wire.encode(command))
    token = next(word for word in asked.split() if word[:1] == b"O")
    data = reply.replace(b"%", token)
    (heard,) = [
        each
        for start in range(0, len(data), size)
        for each in wire.feed(data[start : start + size])
    ]
    assert wire.idle
    return heard


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("command", "reply", "expected"),
    [
        (GetAged(b"k"), b"VA 1 f16 t30 %\r\nx\r\n", ((16, b"x"), 30.0)),
        (GetAged(b"k"), b"VA 1 f16 t-1 %\r\nx\r\n", ((16, b"x"), math.inf)),
        (GetAged(b"k"), b"VA 0 f0 t5 % Z\r\n\r\n", (BARE_STUB, 5.0)),
        (GetAged(b"k"), b"EN %\r\n", None),
        (Peek(b"k"), b"HD f16 s9 t30 %\r\n", ((16, UNREAD), 30.0)),
        (Peek(b"k"), b"HD f0 s1 t-1 %\r\n", ((0, UNREAD), math.inf)),
        (Peek(b"k"), b"HD f0 s0 t5 % Z\r\n", (BARE_STUB, 5.0)),
        (Peek(b"k"), b"EN %\r\n", None),
        (GetExpiry(b"k"), b"HD t30 %\r\n" + STATS + b"HD t30 %\r\n", Until(1_700_000_030)),
        (GetExpiry(b"k"), b"HD t-1 %\r\n" + STATS + b"HD t-1 % Z\r\n", Until(0)),
        (
            GetExpiry(b"k"),
            b"HD t30 %\r\n" + STATS + b"HD t29 %\r\n",
            Until(1_700_000_029, exact=False),
        ),
        (GetExpiry(b"k"), b"HD t30 %\r\n" + STATS + b"HD t-1 %\r\n", Until(0, exact=False)),
        (GetExpiry(b"k"), b"HD t30 %\r\n" + STATS + b"EN %\r\n", None),
        (GetExpiry(b"k"), b"EN %\r\n" + STATS + b"EN %\r\n", None),
        (GetExpiry(b"k"), b"EN %\r\n" + STATS + b"HD t30 %\r\n", None),
    ],
)
def test_a_legal_reply_is_understood(command, reply, expected, size):
    """However it is cut."""
    assert hear(command, reply, size=size) == expected


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (GetAged(b"k"), b"VA 1 f16 %\r\nx\r\n"),
        (GetAged(b"k"), b"VA 1 f16 s30 %\r\nx\r\n"),
        (GetAged(b"k"), b"VA 1 f16 t-2 %\r\nx\r\n"),
        (GetAged(b"k"), b"VA 1 x16 t30 %\r\nx\r\n"),
        (GetAged(b"k"), b"VA 1 f16 t30 O0\r\nx\r\n"),
        (GetAged(b"k"), b"HD %\r\n"),
        (Peek(b"k"), b"HD f16 s9 %\r\n"),
        (Peek(b"k"), b"HD f16 t30 s9 %\r\n"),
        (Peek(b"k"), b"HD f16 s9 tx %\r\n"),
        (Peek(b"k"), b"VA 1 f16 s9 t30 %\r\nx\r\n"),
        (Peek(b"k"), b"EN O0\r\n"),
        (GetExpiry(b"k"), b"HD f30 %\r\n"),
        (GetExpiry(b"k"), b"NF %\r\n"),
        (GetExpiry(b"k"), STATS + b"HD t30 %\r\n"),
        (GetExpiry(b"k"), b"HD t30 %\r\nSTAT pid 1\r\nEND\r\n"),
        (GetExpiry(b"k"), b"HD t30 %\r\nSTAT time now\r\nEND\r\n"),
        (GetExpiry(b"k"), b"HD t30 %\r\n" + STATS + b"HD t30 O0\r\n"),
        (GetExpiry(b"k"), b"HD t30 %\r\nERROR\r\n"),
    ],
)
def test_any_other_reply_closes_the_connection(command, reply):
    """Nothing is guessed."""
    with pytest.raises(NodeProtocolError):
        hear(command, reply)


def test_a_value_that_is_too_large_is_not_read():
    """Only its age is."""
    large = b"VA 65 f16 t30 %\r\n" + b"x" * 65 + b"\r\n"
    assert isinstance(hear(GetAged(b"k"), large), ValueTooLargeError)
    assert hear(Peek(b"k"), b"HD f16 s65 t30 %\r\n") == ((16, UNREAD), 30.0)


@pytest.mark.parametrize("kind", [GetAged, Peek, GetExpiry])
def test_a_key_that_is_not_plain_is_encoded(kind):
    """As in every other command."""
    asked = b"".join(MemcachedWire().encode(kind(b"two words")))
    assert b"mg dHdvIHdvcmRz " in asked
    assert asked.split(b"\r\n")[0].endswith(b" b")


def test_a_date_is_stored_as_it_is():
    """It is no ttl, and zero is no expiry."""
    for date in (1_700_000_030, 0):
        asked = b"".join(MemcachedWire().encode(CasUntil(b"k", (0, b"x"), None, Until(date))))
        assert b" T%d " % date in asked


def test_the_date_of_a_server_is_exact(memcached_servers):
    """It stays the same while the seconds left grow fewer, and so do those of what is stored with it."""
    with Client(memcached_servers[0].url, on_error="raise", timeout=5) as client:
        (member,) = client._cluster.members.values()

        def date():
            while not (until := step(client._cluster.ask(member, GetExpiry(b"k")))).exact:
                pass
            return until

        client.set("k", "value", ttl=100)
        first, left = date(), client.ttl("k")
        while client.ttl("k") >= left - 1:
            _, token = client.gets("k")
            assert (
                step(client._cluster.ask(member, CasUntil(b"k", (0, b"x"), token, date()))) is True
            )
        assert date() == first
