"""Whatever a server says is a reply, is waited for, or is a documented error."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.redis.wires import ANY_COMMAND, NODE, TEXT, bulk, bulks, cut, feed_in_parts, make_wire
from shardcache.backends.redis.header import to_redis
from shardcache.core.commands import Get, GetMany, Gets, ServerStats, Set
from shardcache.core.values.flags import RAW_FLAGS, TEXT_FLAGS
from shardcache.errors import NodeError, NodeProtocolError


@given(st.text("abc", min_size=1, max_size=30), st.integers(-40, 3), st.booleans(), st.data())
def test_a_wrong_size_never_cuts_a_value(text, error, another, data):
    """A value of another length than announced is refused, awaited or a miss: never returned."""
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
    """Bytes of a server are a reply, the start of one, or a documented error."""
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
    """The wire waits for nothing and allocates nothing for what no Redis can mean."""
    wire = make_wire()
    wire.encode(command)
    fragments = (lie[start : start + 1000] for start in range(0, len(lie), 1000))
    with pytest.raises(NodeProtocolError, match=NODE):
        list(map(wire.feed, fragments))


@pytest.mark.parametrize("command", ANY_COMMAND, ids=repr)
@pytest.mark.parametrize("answer", [b":7\r\n", b"*1\r\n+a\r\n", b"*3\r\n:1\r\n:2\r\n:3\r\n"])
def test_an_answer_of_another_kind_is_refused(command, answer):
    """Only a reply that fits the command is taken."""
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
    """A word that answers one command answers no other."""
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
        *(b"*2\r\n$40\r\n%bXX%c%b" % (b"%~>|" * 10, kind, MANY) for kind in b"*>~%|"),
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
def test_unrequested_arrays_are_refused_at_their_first_line(before, reply, size):
    """Behind a reply, within an array, and before anything is allocated."""
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
def test_no_array_is_taken_where_one_value_is_due(before, kind, size):
    """Of any announced size."""
    for number in (b"1", b"2", b"100000000"):
        wire = make_wire()
        for _ in range(1 + bool(before)):
            wire.encode(Get(b"k"))
        stream = before + kind + number + b"\r\n"
        with pytest.raises(NodeProtocolError, match=NODE):
            feed_in_parts(wire, stream, size)


@pytest.mark.parametrize("kind", [b">", b"~", b"%", b"|"])
def test_nothing_is_allocated_for_an_array_behind_another_reply(kind):
    """Also when both come in one fragment."""
    wire = make_wire()
    wire.encode(Get(b"k"))
    wire.encode(Get(b"l"))
    tracemalloc.start()
    try:
        with pytest.raises(NodeProtocolError, match="unknown type"):
            wire.feed(b"$-1\r\n" + kind + b"1000000\r\n")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_many_answers_must_be_as_many_as_keys():
    """An MGET answered with another number of values gives none of them."""
    wire = make_wire()
    wire.encode(GetMany([b"a", b"b", b"c"]))
    with pytest.raises(NodeProtocolError):
        wire.feed(bulks([b"1", b"2"]))


@pytest.mark.parametrize("surplus", [b"+OK\r\n", b"*2\r\n", b"$3\r\n", b"\r", b"$5\r\nhel"])
def test_unrequested_bytes_are_refused(surplus):
    """Bytes beyond the last reply close the connection, in the same fragment or later."""
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
