"""The Redis wire as plain values: bytes out, bytes in, no server."""

from __future__ import annotations

import contextlib
import hashlib
import tracemalloc

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.redis.wires import (
    ANY_COMMAND,
    STORED,
    TEXT,
    answered,
    bulk,
    bulks,
    cut,
    feed_in_parts,
    make_wire,
    sent,
    sent_by,
)
from shardcache.backends.redis.batches import MGET_BYTES, MGET_KEYS
from shardcache.backends.redis.header import from_redis, to_redis
from shardcache.backends.transport.coalesce import CHUNK, coalesce
from shardcache.core.commands import (
    Cas,
    Delete,
    DeleteMany,
    Get,
    GetMany,
    Gets,
    Incr,
    Ping,
    ServerStats,
    Set,
    SetMany,
)
from shardcache.core.values.flags import (
    INTEGER_FLAGS,
    RAW_FLAGS,
    TEXT_FLAGS,
    UNKNOWN_FLAGS,
    UNMARKED_FLAGS,
)
from shardcache.errors import (
    ConfigurationError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    ValueTooLargeError,
)


class Plain:
    """Credentials as they stand in a URL."""

    def get_credentials(self):
        """Return the user and the password."""
        return ("app", "hunter2")


# Values that look like replies, or like parts of those that no command here is answered with.
LOOKALIKES = [
    b"\r\n$3\r\nabc\r\n",
    b"*2\r\n",
    b"\r\n*50\r\n$1\r\na\r\n",
    b"a*b%c~d>e|f",
    b"\n>3\r\n",
    b"%1\r\n",
]
stored = st.one_of(st.none(), st.binary(max_size=40), st.sampled_from(LOOKALIKES))


@given(st.lists(st.one_of(stored, st.lists(stored, min_size=1, max_size=5)), min_size=1), st.data())
def test_replies_are_the_same_however_they_are_cut(answers, data):
    """Fragments of any size give the replies of the whole, in the order of the commands."""
    whole, cut_up = make_wire(), make_wire()
    stream = b""
    for answer in answers:
        many = isinstance(answer, list)
        command = GetMany([b"k"] * len(answer)) if many else Get(b"k")
        stream += bulks(answer) if many else bulk(answer)
        whole.encode(command)
        cut_up.encode(command)
    expected = whole.feed(stream)
    assert len(expected) == len(answers)
    fragments = data.draw(cut(stream))
    assert [reply for part in fragments for reply in cut_up.feed(part)] == expected
    assert whole.idle
    assert cut_up.idle


@pytest.mark.parametrize("value", LOOKALIKES, ids=repr)
@pytest.mark.parametrize("count", [1, 50, 120])
@pytest.mark.parametrize("length", [1, 100, 3000])
def test_values_that_look_like_replies_are_values(value, count, length):
    """In batches, and in replies that come together."""
    value *= length
    wire = make_wire()
    wire.encode(GetMany([b"k"] * count))
    wire.encode(Get(b"k"))
    wire.encode(Get(b"l"))
    values = [value] * count
    stream = b"".join(bulks(values[at : at + MGET_KEYS]) for at in range(0, count, MGET_KEYS))
    stream += bulk(value) + bulk(None)
    replies = feed_in_parts(wire, stream, 65536)
    payload = (UNKNOWN_FLAGS, value)
    assert replies == [[payload] * count, payload, None]
    assert wire.idle


@pytest.mark.parametrize("command", ANY_COMMAND, ids=lambda command: type(command).__name__)
def test_a_command_that_cannot_be_packed_is_owed_no_reply(command, monkeypatch):
    """Such as one too large for memory: it must not take the reply of a later command."""

    def fail(_):
        raise MemoryError

    wire = make_wire()
    with monkeypatch.context() as patch:
        patch.setattr("shardcache.backends.redis.wire.pack", fail)
        with contextlib.suppress(MemoryError):
            wire.encode(command)
            return  # packed without it
    assert wire.idle


def test_a_large_value_is_dropped_with_its_reply():
    """The buffer in which it was assembled is freed."""
    wire = make_wire()
    wire.encode(Get(b"k"))
    stream = bulk(b"x" * 4_000_000)
    tracemalloc.start()
    try:
        replies = feed_in_parts(wire, stream, 65536)
        assert len(replies[0][1]) == 4_000_000
        replies.clear()
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("options", [{}, {"max_value_bytes": 1000}], ids=["any", "limited"])
@pytest.mark.parametrize("size", [7, 10_000])
@pytest.mark.parametrize("arrived", [0, 1, 49, 50, 51, 146, 323])
def test_what_arrived_of_a_stalled_read_is_kept(arrived, size, options):
    """The stall costs the value that it cuts off and the later ones; the rest may still come."""
    wire, count = make_wire(**options), 324
    wire.encode(GetMany([b"k%d" % number for number in range(count)]))
    answers = [None if number % 3 == 0 else STORED for number in range(count)]
    parts = [
        b"*%d\r\n" % min(MGET_KEYS, count - number) * (number % MGET_KEYS == 0) + bulk(answer)
        for number, answer in enumerate(answers)
    ]
    begin = b"".join(parts[:arrived]) + parts[arrived][:-3]
    expected = [None if answer is None else TEXT for answer in answers]
    assert feed_in_parts(wire, begin, size) == []
    replies = wire.partial_reply()
    assert replies[:arrived] == expected[:arrived]
    assert [type(reply) for reply in replies[arrived:]] == [NodeTimeoutError] * (count - arrived)
    (whole,) = feed_in_parts(wire, parts[arrived][-3:] + b"".join(parts[arrived + 1 :]), size)
    assert whole == expected


def test_a_value_that_is_too_large_is_told_of_a_late_array_too():
    """It is an error of its key, not a value; the one after it is kept."""
    wire = make_wire(max_value_bytes=100)
    wire.encode(GetMany([b"k", b"l", b"m"]))
    assert wire.feed(b"*3\r\n" + bulk(b"a" * 101) + bulk(STORED) + b"$5\r\n") == []
    large, kept, late = wire.partial_reply()
    assert isinstance(large, ValueTooLargeError)
    assert kept == TEXT
    assert isinstance(late, NodeTimeoutError)


def test_what_arrived_of_a_batch_is_kept():
    """At the deadline the replies so far are returned, and a timeout for each other key."""
    wire = make_wire()
    wire.encode(DeleteMany([b"a", b"b", b"c"]))
    wire.feed(b":1\r\n:0\r\n")
    *answers, late = wire.partial_reply()
    assert answers == [True, False]
    assert isinstance(late, NodeTimeoutError)
    wire.encode(Get(b"d"))  # on a shared connection the rest still comes, and replies after it
    assert wire.feed(b":1\r\n$-1\r\n") == [[True, False, True], None]
    wire = make_wire()
    wire.encode(Get(b"a"))
    assert isinstance(wire.partial_reply(), NodeTimeoutError)


@pytest.mark.parametrize(
    ("command", "answer", "expected"),
    [
        (Get(b"k"), STORED, TEXT),
        (Get(b"k"), to_redis((RAW_FLAGS, b"\x00\xff")), (RAW_FLAGS, b"\x00\xff")),
        (Get(b"k"), b"-12", (INTEGER_FLAGS, b"-12")),
        (Get(b"k"), b"left by another", (UNKNOWN_FLAGS, b"left by another")),
        (Get(b"k"), b"", (UNKNOWN_FLAGS, b"")),
        (Gets(b"k"), b"7", ((INTEGER_FLAGS, b"7"), hashlib.sha1(b"7").hexdigest().encode())),
        (Incr(b"k", 1), b"9223372036854775807", 2**63 - 1),
        (ServerStats(), b"# Server\r\na:1\r\nb:x:y\r\n\r\n", {"a": "1", "b": "x:y"}),
    ],
    ids=repr,
)
def test_values_carry_their_kind(command, answer, expected):
    """A header byte says the kind of a value; bare numbers are counters, the rest is foreign."""
    assert answered(command, bulk(answer)) == expected


@pytest.mark.parametrize(
    ("ping", "write", "expected"),
    [
        (b"+PONG\r\n", b":0\r\n", True),
        (b"+PONG\r\n", b"-NOPERM no\r\n", True),
        (b"+PONG\r\n", b"-READONLY no\r\n", NodeUnavailableError),
        (b"+PONG\r\n", b"-MISCONF no\r\n", NodeUnavailableError),
        (b"+PONG\r\n", b"-MOVED 1 h:1\r\n", ConfigurationError),
        (b"-NOAUTH no\r\n", b"-NOAUTH no\r\n", NodeRefusedError),
        (b"-LOADING no\r\n", b"-LOADING no\r\n", NodeUnavailableError),
        (b"-MASTERDOWN no\r\n", b":0\r\n", NodeUnavailableError),
    ],
)
def test_only_a_node_that_takes_writes_is_alive(ping, write, expected):
    """A read-only node answers pings. A user who may not write tells nothing."""
    reply = answered(Ping(), ping, write)
    assert reply is True if expected is True else isinstance(reply, expected)


@pytest.mark.parametrize(
    ("ttl", "words"),
    [
        (None, []),
        (60, [b"PX", b"60000"]),
        (0.0001, [b"PX", b"1"]),
        (1.0005, [b"PX", b"1001"]),
        (315_360_000, [b"PX", b"315360000000"]),
    ],
)
def test_lives_are_whole_milliseconds_rounded_up(ttl, words):
    """No ttl becomes zero, which Redis refuses."""
    for command in (Set(b"k", TEXT, ttl), SetMany([(b"k", TEXT)], ttl)):
        ((set_, key, stored, *life),) = sent(command)
        assert (set_, key, life) == (b"SET", b"k", words)
        assert from_redis(stored) == TEXT


@given(st.binary(min_size=1, max_size=50))
def test_any_key_is_one_word(key):
    """Keys are sent as they are, whatever bytes they hold."""
    assert sent(Get(key)) == [[b"GET", key]]
    assert sent(Delete(key)) == [[b"DEL", key]]


@given(st.lists(st.integers(1, MGET_BYTES + 5), max_size=6), st.integers(0, 3 * MGET_KEYS))
def test_no_mget_is_long(sizes, count):
    """Keys are sent in order, in MGETs of bounded number and length."""
    keys = [b"k" * size for size in sizes] + [b"%d" % number for number in range(count)]
    pieces = [words[1:] for words in sent(GetMany(keys)) if words != [b"PING"]]
    assert [key for piece in pieces for key in piece] == keys
    for piece in pieces:
        assert len(piece) <= MGET_KEYS
        assert len(piece) == 1 or sum(map(len, piece)) <= MGET_BYTES


@given(st.lists(st.integers(0, 100_000), max_size=20))
def test_a_batch_leaves_in_few_pieces(sizes):
    """Small commands are joined, and no byte is lost or moved."""
    parts = [bytes([place]) * size for place, size in enumerate(sizes)]
    pieces = coalesce(parts)
    assert b"".join(pieces) == b"".join(parts)
    assert all(len(piece) >= CHUNK for piece in pieces[:-1])
    items = [(b"k%d" % number, TEXT) for number in range(1000)]
    assert len(make_wire().encode(SetMany(items))) == 1


def test_a_value_too_large_is_not_sent():
    """It is refused before anything is expected, and alone among many."""
    larger = (TEXT_FLAGS, b"texts")
    wire = make_wire(max_value_bytes=len(STORED))
    with pytest.raises(ValueTooLargeError, match=f"{len(STORED) + 1} bytes"):
        wire.encode(Set(b"k", larger))
    assert wire.idle
    assert wire.encode(Set(b"k", TEXT))
    assert wire.feed(b"+OK\r\n") == [True]
    wire.encode(SetMany([(b"a", TEXT), (b"b", larger), (b"c", TEXT)]))
    ((first, refused, last),) = wire.feed(b"+OK\r\n+OK\r\n")
    assert (first, last) == (True, True)
    assert isinstance(refused, ValueTooLargeError)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (GetMany([]), []),
        (DeleteMany([]), []),
        (SetMany([]), []),
    ],
    ids=repr,
)
def test_an_empty_batch_is_answered_in_its_turn(command, expected):
    """A batch without keys still has its reply."""
    assert sent(command) == [[b"PING"]]
    assert answered(command, b"+PONG\r\n") == expected


def test_the_opening_logs_in_and_chooses_the_database():
    """The connection is ready when the server has said yes to all of it."""
    wire = make_wire(db=3, client_name="shop", credentials=Plain())
    reader = hiredis.Reader()
    reader.feed(wire.hello())
    assert reader.gets() == [b"AUTH", b"app", b"hunter2"]
    assert reader.gets() == [b"SELECT", b"3"]
    assert reader.gets() == [b"CLIENT", b"SETNAME", b"shop"]
    wire.encode(Get(b"k"))
    assert not wire.greeted
    assert wire.feed(b"+OK\r\n+OK\r\n+") == []
    assert not wire.greeted
    assert wire.feed(b"OK\r\n$-1\r\n") == [None]
    assert wire.greeted
    assert wire.idle


def test_without_login_and_database_a_connection_is_ready_at_once():
    """Without login and database a connection is ready as it opens."""
    wire = make_wire()
    assert wire.hello() == b""
    assert wire.greeted
    assert wire.idle


def test_a_token_of_another_backend_matches_nothing():
    """After a failover a memcached token may reach Redis; it swaps nothing and breaks nothing."""
    ((*_, token, stored),) = sent(Cas(b"k", TEXT, 12345))
    assert (token, from_redis(stored)) == (b"", TEXT)


def test_no_two_writes_are_the_same():
    """Storing a value again makes a new version for `cas`, also over another connection."""
    texts = [(b"k%d" % number, TEXT) for number in range(100)]
    stored = [words[2] for command in (SetMany(texts), Set(b"k", TEXT)) for words in sent(command)]
    assert len(set(stored)) == len(stored) == 101
    assert {from_redis(each) for each in stored} == {TEXT}


def test_no_two_writes_of_a_connection_are_the_same():
    """One at a time or many at once, small or large."""
    many = SetMany([(b"k%d" % number, TEXT) for number in range(3)])
    one, large = Set(b"k", TEXT), Set(b"k", (TEXT[0], TEXT[1] * 100_000))
    requests = sent_by(make_wire(), one, one, many, one, large, large, many, one)
    stored = [words[2] for words in requests]
    assert len(set(stored)) == len(stored) == 12


@pytest.mark.parametrize(
    "payload", [TEXT, (UNMARKED_FLAGS, b"bytes"), (INTEGER_FLAGS, b"7")], ids=repr
)
def test_raw_values_are_stored_bare(payload):
    """Bytes and text as they are; bytes that look like a header get one."""
    assert sent(Set(b"k", payload), bare_bytes=True) == [[b"SET", b"k", payload[1]]]
    for odd in ((UNMARKED_FLAGS, b"\xc1" + payload[1]), (RAW_FLAGS, b"a mark of ours")):
        ((*_, stored),) = sent(Set(b"k", odd), bare_bytes=True)
        assert from_redis(stored) == (RAW_FLAGS, odd[1])


def test_no_version_begins_like_a_reply_of_many_parts():
    """Readers look at each byte that may begin one, and most of a version is that of all writes."""
    for _ in range(300):
        _, _, stored = sent(Set(b"k", TEXT))[0]
        assert not set(stored[2:6]) & set(b"*%~>|")
