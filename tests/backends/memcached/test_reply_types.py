"""A reply that another command has is refused, also where its text would fit."""

from __future__ import annotations

import re

import pytest

from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import (
    Acquire,
    Cas,
    CasUntil,
    CommandList,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetExpiry,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
    Until,
)
from shardcache.core.values.flags import RAW_FLAGS
from shardcache.errors import NodeProtocolError

PAYLOAD = (RAW_FLAGS, b"value")
# `%` stands for the token of the request.
CODES = {name: f"{name} O%\r\n" for name in ("HD", "EN", "NS", "EX", "NF")}
VALUE = "VA 1 f0 O%\r\n7\r\n"
LINES = [
    *CODES.values(),
    VALUE,
    "VA 1 f0 c5 O%\r\n7\r\n",
    "VA 1 f0 t5 O%\r\n7\r\n",
    "VA 1 O%\r\n7\r\n",
    "HD c5 O%\r\n",
    "HD f0 s1 t5 O%\r\n",
    "HD t5 O%\r\n",
    "MN\r\n",
    "OK\r\n",
    "END\r\n",
    "7\r\n",
    "VALUE k 0 1\r\n7\r\nEND\r\n",
    "STORED\r\n",
]
# What each command may be answered, of these lines.
TAKEN = [
    (Get(b"k"), [VALUE, CODES["EN"]]),
    (Gets(b"k"), ["VA 1 f0 c5 O%\r\n7\r\n", CODES["EN"]]),
    (GetAged(b"k"), ["VA 1 f0 t5 O%\r\n7\r\n", CODES["EN"]]),
    (GetOrStub(b"k", b"m", 1.0), ["VA 1 f0 c5 O%\r\n7\r\n", CODES["EN"]]),
    (Peek(b"k"), ["HD f0 s1 t5 O%\r\n", CODES["EN"]]),
    (GetExpiry(b"k"), ["HD t5 O%\r\n", CODES["EN"]]),
    (GetMany([b"k"]), [VALUE, "MN\r\n"]),
    (Set(b"k", PAYLOAD), [CODES["HD"], CODES["NS"]]),
    (SetMany([(b"k", PAYLOAD)]), [CODES["HD"], CODES["NS"]]),
    (Cas(b"k", PAYLOAD, b"t"), [CODES[code] for code in ("HD", "EX", "NS", "NF")]),
    (
        CasUntil(b"k", PAYLOAD, b"t", Until(5, exact=True)),
        [CODES[code] for code in ("HD", "EX", "NS", "NF")],
    ),
    (Acquire(b"k", PAYLOAD, 1.0), ["HD c5 O%\r\n", CODES["NS"], CODES["EX"]]),
    (Renew(b"k", b"m", b"t", 1.0), ["HD c5 O%\r\n", *(CODES[code] for code in ("NS", "EX", "NF"))]),
    (Delete(b"k"), [CODES["HD"], CODES["NF"]]),
    (DeleteMany([b"k"]), [CODES["HD"], CODES["NF"]]),
    (DeleteCas(b"k", b"t"), [CODES["HD"], CODES["EX"], CODES["NF"]]),
    (Touch(b"k", 1.0), [CODES["HD"], CODES["EN"]]),
    (Incr(b"k", 1), ["VA 1 O%\r\n7\r\n", CODES["NF"]]),
    (Ping(), ["MN\r\n"]),
    (FlushAll(), ["OK\r\n"]),
    (ServerStats(), ["END\r\n"]),
]
REFUSED = [(command, line) for command, taken in TAKEN for line in LINES if line not in taken]


def feed(command, line):
    """Feed a line as the answer to a command."""
    wire = MemcachedWire()
    request = b"".join(wire.encode(command))
    token = re.search(rb" O(\d+)", request)
    wire.feed(line.encode().replace(b"%", token[1] if token else b"1"))


@pytest.mark.parametrize(("command", "taken"), TAKEN, ids=repr)
def test_the_replies_that_a_command_has_are_taken(command, taken):
    """Each is a reply, or the first line of one."""
    for line in taken:
        feed(command, line)


@pytest.mark.parametrize(("command", "line"), REFUSED, ids=repr)
def test_the_reply_of_another_command_is_refused(command, line):
    """The connection is of no use after it."""
    with pytest.raises(NodeProtocolError):
        feed(command, line)


def test_every_command_is_looked_at():
    """None of those that the wire has is left out."""
    assert MemcachedWire.supports - {CommandList} == {type(command) for command, _ in TAKEN}


@pytest.mark.parametrize("line", [line for line in LINES if line not in {VALUE, CODES["EN"]}])
def test_the_straight_path_leaves_other_replies_to_the_wire(line):
    """It takes a hit and a miss, and nothing else."""
    wire = MemcachedWire()
    token = re.search(rb" O(\d+)", wire.start_get(b"k"))[1]
    data = line.encode().replace(b"%", token)
    assert wire.end_get(data) is UNUSUAL
    wire.expect_get()
    with pytest.raises(NodeProtocolError):
        wire.feed(data)
