"""How long a key lives: what the wire asks of Redis, and what it takes for an answer."""

from __future__ import annotations

import math

import pytest

from backends.redis.wires import STORED, TEXT, answered, bulk, bulks, make_wire, sent
from shardcache.core.commands import UNREAD, CasKeep, GetAged, Incr, IncrSigned, Peek
from shardcache.core.values.flags import INTEGER_FLAGS, TEXT_FLAGS, UNKNOWN_FLAGS
from shardcache.errors import (
    NodeProtocolError,
    NodeRefusedError,
    NotACounterError,
    ValueTooLargeError,
)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("command", "parts", "expected"),
    [
        (GetAged(b"k"), (STORED, b"30500"), (TEXT, 30.5)),
        (GetAged(b"k"), (STORED, b"-1"), (TEXT, math.inf)),
        (GetAged(b"k"), (b"7", b"0"), ((INTEGER_FLAGS, b"7"), 0.0)),
        (GetAged(b"k"), (None, b"-2"), None),
        (Peek(b"k"), (STORED[:10], b"30500"), ((TEXT_FLAGS, UNREAD), 30.5)),
        (Peek(b"k"), (b"another's", b"-1"), ((UNKNOWN_FLAGS, UNREAD), math.inf)),
        (Peek(b"k"), (None, b"-2"), None),
    ],
)
def test_a_legal_reply_is_understood(command, parts, expected, size):
    """However it is cut."""
    reply = bulks(parts)
    pieces = [reply[start : start + size] for start in range(0, len(reply), size)]
    assert answered(command, *pieces) == expected


@pytest.mark.parametrize("command", [GetAged(b"k"), Peek(b"k")], ids=repr)
@pytest.mark.parametrize(
    "reply",
    [
        bulk(STORED),
        bulk(None),
        bulks([STORED]),
        bulks([STORED, b"5", b"5"]),
        bulks([STORED, b"-2"]),
        bulks([STORED, b"1.5"]),
        bulks([STORED, None]),
        b"*2\r\n:5\r\n:5\r\n",
        b"+OK\r\n",
    ],
    ids=repr,
)
def test_any_other_reply_closes_the_connection(command, reply):
    """Nothing is guessed."""
    wire = make_wire()
    wire.encode(command)
    with pytest.raises(NodeProtocolError):
        wire.feed(reply)


@pytest.mark.parametrize("command", [GetAged(b"k"), Peek(b"k")], ids=repr)
def test_a_refusal_is_the_reply(command):
    """As of a key that is not a string."""
    assert isinstance(
        answered(command, b"-WRONGTYPE Operation against a key\r\n"), NodeRefusedError
    )


def test_a_value_that_is_too_large_is_an_error():
    """Only its first bytes are read to know its age."""
    wire = make_wire(max_value_bytes=20)
    wire.encode(GetAged(b"k"))
    (reply,) = wire.feed(bulks([b"x" * 21, b"5"]))
    assert isinstance(reply, ValueTooLargeError)
    assert sent(Peek(b"k"))[0][-1] == b"9"


def test_an_expiry_is_kept_by_the_word_of_redis():
    """In the one script of all stores that compare."""
    (words,) = sent(CasKeep(b"k", TEXT, b"token"))
    assert words[0] == b"EVAL"
    assert words[-1] == b"KEEPTTL"


def test_only_a_signed_counter_is_answered_by_a_negative_number():
    """Any other is not a counter that the server may have."""
    assert answered(IncrSigned(b"k", -1), bulk(b"-5")) == -5
    assert answered(IncrSigned(b"k", -1), bulk(None)) is None
    for command, reply in ((Incr(b"k", -1), b"-5"), (IncrSigned(b"k", -1), b"--5")):
        wire = make_wire()
        wire.encode(command)
        with pytest.raises(NodeProtocolError):
            wire.feed(bulk(reply))


@pytest.mark.parametrize(
    ("command", "numbers"),
    [(Incr(b"k", 1), "from 0 to"), (IncrSigned(b"k", 1), r"from -2\*\*63 to")],
)
def test_a_value_that_is_no_counter_says_which_numbers_are(command, numbers):
    """They differ between the two kinds."""
    error = answered(command, b"-ERR value is not an integer or out of range\r\n")
    assert isinstance(error, NotACounterError)
    with pytest.raises(NotACounterError, match=numbers):
        raise error
