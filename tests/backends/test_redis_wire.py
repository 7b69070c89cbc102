"""The Redis wire as plain values: bytes out, bytes in, no server."""

from __future__ import annotations

import contextlib
import hashlib
import tracemalloc

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.backends.redis.header import from_redis, to_redis
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import MGET_BYTES, MGET_KEYS, RedisWire
from shardcache.backends.transport.coalesce import CHUNK, joined
from shardcache.core.commands import (
    Cas,
    Delete,
    DeleteMany,
    FlushAll,
    Get,
    GetMany,
    Gets,
    Incr,
    Ping,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
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
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
    TooManyConnectionsError,
    ValueTooLargeError,
)

NODE = "cache1"
TEXT = (TEXT_FLAGS, b"text")
STORED = to_redis(TEXT)
ANY_COMMAND = [
    Get(b"k"),
    GetMany([b"k", b"l"]),
    Gets(b"k"),
    Set(b"k", TEXT),
    Set(b"k", TEXT, when=When.ABSENT),
    SetMany([(b"k", TEXT), (b"l", TEXT)]),
    Cas(b"k", TEXT, b"token"),
    Delete(b"k"),
    DeleteMany([b"k", b"l"]),
    Touch(b"k", 1.0),
    Touch(b"k", None),
    Incr(b"k", 1),
    Ping(),
    ServerStats(),
    FlushAll(),
]


class Plain:
    """Credentials as they stand in a URL."""

    def get_credentials(self):
        """Give the user and the password."""
        return ("app", "hunter2")


def make_wire(**options):
    """Give the wire of a new connection."""
    return RedisWire(RedisOptions(**options), NODE)


def sent(command, **options):
    """Give the words of each request that a command comes to."""
    reader = hiredis.Reader()
    reader.feed(b"".join(make_wire(**options).encode(command)))
    words = []
    while request := reader.gets():
        words.append(request)
    return words


def answered(command, *fragments):
    """Give the one reply to a command."""
    wire = make_wire()
    wire.encode(command)
    (reply,) = [reply for fragment in fragments for reply in wire.feed(fragment)]
    assert wire.idle
    return reply


def bulk(data):
    """Give a reply as the server writes it."""
    return b"$-1\r\n" if data is None else b"$%d\r\n%b\r\n" % (len(data), data)


def bulks(parts):
    """Give a reply of many parts as the server writes it."""
    return b"*%d\r\n%b" % (len(parts), b"".join(map(bulk, parts)))


def feed_in_parts(wire, stream, size):
    """Feed a stream so many bytes at a time; give the replies."""
    starts = range(0, len(stream), size)
    return [reply for start in starts for reply in wire.feed(stream[start : start + size])]


@st.composite
def cut(draw, data):
    """Cut bytes into fragments of any sizes."""
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


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
    """Fragments of any size give what the whole gives, in the order of the commands."""
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


@given(st.text("abc", min_size=1, max_size=30), st.integers(-40, 3), st.booleans(), st.data())
def test_a_size_that_lies_never_cuts_a_value(text, error, another, data):
    """A value of another length than announced is refused, waited for or a miss: never given."""
    value = to_redis((TEXT_FLAGS, text.encode()))
    size = max(-2, len(value) + error)
    other = (RAW_FLAGS, b"other")
    stream = b"$%d\r\n%b\r\n" % (size, value) + (bulk(to_redis(other)) if another else b"")
    wire = make_wire()
    wire.encode(Get(b"k"))
    wire.encode(Get(b"l"))
    replies = []
    with contextlib.suppress(NodeProtocolError):
        for fragment in data.draw(cut(stream)):
            replies += wire.feed(fragment)
    if error == 0:
        assert replies == [(TEXT_FLAGS, text.encode()), other][: 1 + another]
    else:
        assert replies in ([], [None])


@given(
    st.sampled_from(ANY_COMMAND),
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    b"*2\r\n",
                    b"$3\r\n",
                    b":1\r\n",
                    b"+OK\r\n",
                    b"-ERR no\r\n",
                    b"$-1\r\n",
                    b"*-1\r\n",
                    b"*1\r\n*1\r\n",
                    b"#f\r\n",
                    b"_\r\n",
                    b"%1\r\n",
                    b">1\r\n",
                    b":-1\r\n",
                    b"-\r\n",
                ]
            ),
        ),
        max_size=8,
    ),
)
def test_garbage_raises_nothing_undocumented(command, fragments):
    """Whatever a server says, it is a reply, is waited on, or is a documented error."""
    wire = make_wire()
    wire.encode(command)
    try:
        replies = [reply for fragment in fragments for reply in wire.feed(fragment)]
    except NodeError:
        return
    assert len(replies) <= 1
    assert wire.idle == (len(replies) == 1)


@pytest.mark.parametrize(
    "lie",
    [
        b"*2147483647\r\n",
        b"*4294967295\r\n",
        b"*1001\r\n",
        b"*99999999999999999999\r\n",
        b"$2147483648\r\n",
        b"$9223372036854775807\r\n",
        b"$" + b"1" * 24,
        b"$-5\r\n",
        b"*-5\r\n",
        b"$?\r\n",
        b"*?\r\n",
        b"*\r\n",
        b"+" + b"a" * 70_000,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"VALUE k 0 1\r\na\r\nEND\r\n",
        b"ERROR\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 100,
        b"\r\n\r\n",
    ],
    ids=lambda lie: repr(lie[:20]),
)
@pytest.mark.parametrize("command", [Get(b"k"), GetMany([b"k"]), Set(b"k", TEXT)], ids=repr)
def test_impossible_sizes_and_other_protocols_are_refused_at_once(lie, command):
    """Nothing is waited for, and no memory laid out, for what no Redis can mean."""
    wire = make_wire()
    wire.encode(command)
    fragments = (lie[start : start + 1000] for start in range(0, len(lie), 1000))
    with pytest.raises(NodeProtocolError, match=NODE):
        list(map(wire.feed, fragments))


@pytest.mark.parametrize("command", ANY_COMMAND, ids=repr)
@pytest.mark.parametrize("answer", [b":7\r\n", b"*1\r\n+a\r\n", b"*3\r\n:1\r\n:2\r\n:3\r\n"])
def test_an_answer_of_another_kind_is_refused(command, answer):
    """Only what the command can be answered with is taken."""
    wire = make_wire()
    wire.encode(command)
    with pytest.raises(NodeProtocolError):
        wire.feed(answer)


@pytest.mark.parametrize(
    "command",
    [each for each in ANY_COMMAND if not isinstance(each, (Get, Gets, ServerStats))],
    ids=repr,
)
def test_text_where_none_belongs_is_refused(command):
    """A word that answers another command answers no other."""
    wire = make_wire()
    wire.encode(command)
    with pytest.raises(NodeProtocolError):
        wire.feed(b"+QUEUED\r\n")


MANY = b"100000000\r\n"  # parts, for which hiredis would lay out 800 MB and take a second


@pytest.mark.parametrize("before", [b"", b"$-1\r\n", b"$5\r\n*a%b>\r\n"], ids=repr)
@pytest.mark.parametrize(
    "reply",
    [
        *(b"*2\r\n%c%b" % (kind, MANY) for kind in b"*>~%|"),
        *(b"*2\r\n$1\r\na\r\n%c%b" % (kind, MANY) for kind in b"*>~%|"),
        *(b"*2\r\n$1\r\naXX%c%b" % (kind, MANY) for kind in b"*>~%|"),
        *(b"%c%b" % (kind, MANY) for kind in b"*>~%|"),
        b"*2\r\n*1\r\n*1\r\n" + b"*999\r\n" * 10_000,
        b"*2\r\n*0\r\n*0\r\n",
        b"*2\r\n*-1\r\n$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2147483647\r\n",
        b"*-2\r\n",
        b"*2\r\n$-2\r\n",
        b"*2\r\n$536870913\r\n",
        b"*2\r\n$99999999999999999999\r\n",
        b"*2\r\n$x\r\n",
        b"*2\r\n$" + b"1" * 30,
        b"*2\r\n:1\r\n:2\r\n",
        b"*2\r\n-ERR no\r\n-ERR no\r\n",
        b"*2\r\n+" + b"a" * 70_000,
        b"*2\r\n(" + b"1" * 70_000,
    ],
    ids=lambda reply: repr(reply[:30]),
)
@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_parts_that_nobody_asked_for_are_refused_at_their_first_line(before, reply, size):
    """Behind another reply as well, within an array as well, and before anything is laid out."""
    wire = make_wire()
    for _ in range(bool(before)):
        wire.encode(Get(b"k"))
    wire.encode(GetMany([b"k", b"l"]))
    stream = before + reply
    tracemalloc.start()
    try:
        with pytest.raises(NodeProtocolError, match=NODE):
            feed_in_parts(wire, stream, size)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("before", [b"", b"$-1\r\n", b"$5\r\n*a%b>\r\n"], ids=repr)
@pytest.mark.parametrize("kind", [b"*", b">", b"~", b"%", b"|"])
@pytest.mark.parametrize("size", [1, 1000])
def test_no_parts_are_taken_where_one_value_is_owed(before, kind, size):
    """Whatever it announces, few parts or many."""
    for number in (b"1", b"2", b"100000000"):
        wire = make_wire()
        for _ in range(1 + bool(before)):
            wire.encode(Get(b"k"))
        stream = before + kind + number + b"\r\n"
        with pytest.raises(NodeProtocolError, match=NODE):
            feed_in_parts(wire, stream, size)


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


@pytest.mark.parametrize("kind", [b">", b"~", b"%", b"|"])
def test_nothing_is_laid_out_for_parts_behind_another_reply(kind):
    """Nor where the reply before them came in the same fragment."""
    wire = make_wire()
    wire.encode(Get(b"k"))
    wire.encode(Get(b"l"))
    tracemalloc.start()
    try:
        with pytest.raises(NodeProtocolError, match="no known kind"):
            wire.feed(b"$-1\r\n" + kind + b"1000000\r\n")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("command", ANY_COMMAND, ids=lambda command: type(command).__name__)
def test_a_command_that_cannot_be_packed_is_owed_no_reply(command, monkeypatch):
    """Such as one for whose bytes there is no memory: later replies would be taken for its own."""

    def fail(_):
        raise MemoryError

    wire = make_wire()
    with monkeypatch.context() as patch:
        patch.setattr("shardcache.backends.redis.wire.pack", fail)
        with contextlib.suppress(MemoryError):
            wire.encode(command)
            return  # packed without it
    assert wire.idle


def test_a_large_value_is_not_kept_behind_its_reply():
    """What was put together is let go of with the reply."""
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


def test_of_a_batch_that_stalls_whole_mgets_are_kept():
    """A reply that stalls after most of a batch costs the few dozen keys that it is in, and the rest."""
    wire, keys = make_wire(), [b"k%d" % number for number in range(324)]
    wire.encode(GetMany(keys))
    value = b"$%d\r\n%s\r\n" % (len(STORED), STORED)
    arrived = 0
    while arrived < 146:  # of each MGET, whole
        size = min(MGET_KEYS, len(keys) - arrived)
        assert list(wire.feed(b"*%d\r\n%s" % (size, value * size))) == []
        arrived += size
    assert list(wire.feed(b"*%d\r\n%s" % (MGET_KEYS, value * 3))) == []
    kept = [reply for reply in wire.partial() if reply == TEXT]
    assert len(kept) == arrived == 150


def test_many_answers_must_be_as_many_as_keys():
    """An MGET answered with another number of values gives none of them."""
    wire = make_wire()
    wire.encode(GetMany([b"a", b"b", b"c"]))
    with pytest.raises(NodeProtocolError):
        wire.feed(bulks([b"1", b"2"]))


@pytest.mark.parametrize("surplus", [b"+OK\r\n", b"*2\r\n", b"$3\r\n", b"\r", b"$5\r\nhel"])
def test_what_nobody_asked_for_is_refused(surplus):
    """Bytes beyond the last reply close the connection, in the same breath or later."""
    at_once, later = make_wire(), make_wire()
    at_once.encode(Get(b"k"))
    later.encode(Get(b"k"))
    with pytest.raises(NodeProtocolError):
        at_once.feed(b"$-1\r\n" + surplus)
    assert later.feed(b"$-1\r\n") == [None]
    try:
        later.feed(surplus)
    except NodeProtocolError:
        return
    assert not later.idle


def test_a_full_server_says_so_before_it_is_asked():
    """The word with which Redis hangs up on one client too many makes the node unavailable."""
    with pytest.raises(TooManyConnectionsError, match="max number of clients"):
        make_wire().feed(b"-ERR max number of clients reached\r\n")


def test_the_word_of_a_full_server_is_no_reply():
    """It hangs up: the connection is lost, with the command that was sent meanwhile."""
    wire = make_wire()
    wire.encode(Get(b"k"))
    with pytest.raises(TooManyConnectionsError, match="max number of clients"):
        wire.feed(b"-ERR max number of clients reached\r\n")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", NodeUnavailableError),
        ("MASTERDOWN Link with MASTER is down", NodeUnavailableError),
        ("BUSY Redis is busy running a script.", NodeUnavailableError),
        ("CLUSTERDOWN Hash slot not served", NodeUnavailableError),
        ("READONLY You can't write against a read only replica.", NodeUnavailableError),
        ("NOREPLICAS Not enough good replicas to write.", NodeUnavailableError),
        ("MISCONF Redis is configured to save RDB snapshots", NodeUnavailableError),
        ("NOAUTH Authentication required.", NodeRefusedError),
        ("WRONGPASS invalid username-password pair or user is disabled.", NodeRefusedError),
        ("NOPERM User app has no permissions to run the 'set' command", NodeRefusedError),
        ("OOM command not allowed when used memory > 'maxmemory'.", NodeRefusedError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", NodeRefusedError),
        ("ERR syntax error", NodeRefusedError),
        ("MOVED 3999 10.0.0.2:6381", ConfigurationError),
        ("ASK 3999 10.0.0.2:6381", ConfigurationError),
        ("CROSSSLOT Keys in request don't hash to the same slot", ConfigurationError),
    ],
)
def test_each_state_of_the_server_has_its_error(text, kind):
    """The connection stays good, and the error says what the node said."""
    reply = answered(Get(b"k"), b"-%b\r\n" % text.encode())
    assert type(reply) is kind
    assert NODE in str(reply)
    assert text.split()[0].removeprefix("ERR") in str(reply)


def test_a_login_of_common_words_hides_no_meaning():
    """What a refusal means does not depend on how the user is called."""

    class Common:
        def get_credentials(self):
            """Return words of the server's own texts."""
            return ("value", "integer")

    wire = make_wire(credentials=Common())
    wire.hello()
    wire.feed(b"+OK\r\n")
    wire.encode(Incr(b"k", 1))
    (reply,) = wire.feed(b"-ERR value is not an integer or out of range\r\n")
    assert type(reply) is NotACounterError


def test_a_member_of_a_cluster_fails_the_whole_batch():
    """One redirected key of many is a matter of configuration, not of that key."""
    moved = b"-MOVED 1 10.0.0.2:6379\r\n"
    assert isinstance(answered(DeleteMany([b"a", b"b"]), b":1\r\n" + moved), ConfigurationError)


def test_errors_show_no_user_and_no_arguments():
    """What the server repeats of a login or a command stays out of messages."""
    denied = answered(Get(b"k"), b"-NOPERM User hunter has no permissions\r\n")
    unknown = answered(
        Get(b"k"), b"-ERR unknown command 'EVAL', with args beginning with: 'secret'\r\n"
    )
    assert "hunter" not in str(denied)
    assert "secret" not in str(unknown)
    assert "EVAL" in str(unknown)


def test_a_stream_the_server_gave_up_on_is_closed():
    """After "Protocol error" Redis hangs up, so nothing may be read from it."""
    wire = make_wire()
    wire.encode(Get(b"k"))
    with pytest.raises(NodeProtocolError, match="invalid bulk length"):
        wire.feed(b"-ERR Protocol error: invalid bulk length\r\n")


def test_refused_keys_of_a_batch_are_apart():
    """One key's refusal leaves the others their answers."""
    reply = answered(SetMany([(b"a", TEXT), (b"b", TEXT)]), b"-OOM no\r\n+O", b"K\r\n")
    assert isinstance(reply[0], NodeRefusedError)
    assert reply[1] is True


def test_what_arrived_of_a_batch_is_kept():
    """At the deadline the answers so far are given, and a timeout for each key without one."""
    wire = make_wire()
    wire.encode(DeleteMany([b"a", b"b", b"c"]))
    wire.feed(b":1\r\n:0\r\n")
    *answers, late = wire.partial()
    assert answers == [True, False]
    assert isinstance(late, NodeTimeoutError)
    wire = make_wire()
    wire.encode(Get(b"a"))
    assert isinstance(wire.partial(), NodeTimeoutError)


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
    """A header byte says what a value is; bare numbers are counters, anything else is foreign."""
    assert answered(command, bulk(answer)) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"ERR value is not an integer or out of range", NotACounterError),
        (b"ERR increment or decrement would overflow", NotACounterError),
        (b"WRONGTYPE Operation against a key holding the wrong kind of value", NotACounterError),
        (b"OOM command not allowed", NodeRefusedError),
        (b"READONLY no", NodeUnavailableError),
    ],
)
def test_only_a_value_that_is_no_counter_is_no_counter(text, kind):
    """A node that refuses to count says nothing about the value."""
    assert type(answered(Incr(b"k", 1), b"-%b\r\n" % text)) is kind


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
    """A read-only node answers pings; only a write shows it. A user who may not write is no sign."""
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
    """No life becomes zero, which Redis refuses."""
    for command in (Set(b"k", TEXT, ttl), SetMany([(b"k", TEXT)], ttl)):
        ((set_, key, stored, *life),) = sent(command)
        assert (set_, key, life) == (b"SET", b"k", words)
        assert from_redis(stored) == TEXT


@given(st.binary(min_size=1, max_size=50))
def test_any_key_is_one_word(key):
    """Keys go as they are, whatever they hold."""
    assert sent(Get(key)) == [[b"GET", key]]
    assert sent(Delete(key)) == [[b"DEL", key]]


@given(st.lists(st.integers(1, MGET_BYTES + 5), max_size=6), st.integers(0, 3 * MGET_KEYS))
def test_no_mget_is_long(sizes, count):
    """Keys go in order, in pieces of bounded number and length."""
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
    pieces = joined(parts)
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
    """No keys are no reason for no reply."""
    assert sent(command) == [[b"PING"]]
    assert answered(command, b"+PONG\r\n") == expected


def test_the_hello_logs_in_and_chooses_the_database():
    """Nothing is greeted before all of it has been answered with yes."""
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


def test_nothing_to_say_is_greeted_at_once():
    """Without login and database a connection is ready as it opens."""
    wire = make_wire()
    assert wire.hello() == b""
    assert wire.greeted
    assert wire.idle


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"-WRONGPASS invalid username-password pair\r\n", NodeRefusedError),
        (b"-ERR AUTH <password> called without any password configured\r\n", NodeRefusedError),
        (b"-LOADING Redis is loading\r\n", NodeUnavailableError),
        (b"+PONG\r\n", NodeProtocolError),
        (b"HTTP/1.1 400 Bad Request\r\n", NodeProtocolError),
    ],
)
def test_a_refused_hello_raises(answer, kind):
    """A connection that may not begin is no connection; its error holds no password."""
    wire = make_wire(credentials=Plain())
    wire.hello()
    with pytest.raises(kind) as raised:
        wire.feed(answer)
    assert "hunter2" not in repr(raised.value)
    assert not wire.greeted


def test_a_token_of_another_backend_matches_nothing():
    """After a failover a memcached token may reach Redis; it swaps nothing and breaks nothing."""
    ((*_, token, stored, life),) = sent(Cas(b"k", TEXT, 12345))
    assert (token, from_redis(stored), life) == (b"", TEXT, b"")


def test_no_two_writes_are_the_same():
    """A value that is stored again is another one, for `cas`, also by another connection."""
    texts = [(b"k%d" % number, TEXT) for number in range(100)]
    stored = [words[2] for command in (SetMany(texts), Set(b"k", TEXT)) for words in sent(command)]
    assert len(set(stored)) == len(stored) == 101
    assert {from_redis(each) for each in stored} == {TEXT}


@pytest.mark.parametrize(
    "payload", [TEXT, (UNMARKED_FLAGS, b"bytes"), (INTEGER_FLAGS, b"7")], ids=repr
)
def test_what_other_programs_read_stands_bare(payload):
    """A client of the codec `raw` stores bytes and text as they are; bytes like a header get one."""
    assert sent(Set(b"k", payload), bare_bytes=True) == [[b"SET", b"k", payload[1]]]
    for odd in ((UNMARKED_FLAGS, b"\xc1" + payload[1]), (RAW_FLAGS, b"a mark of ours")):
        ((*_, stored),) = sent(Set(b"k", odd), bare_bytes=True)
        assert from_redis(stored) == (RAW_FLAGS, odd[1])
