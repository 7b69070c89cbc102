"""A batch of quiet gets means the same to memcached and to us, whichever way it is written or read."""

from __future__ import annotations

import re
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.backends.memcached.batches import TEMPLATED
from shardcache.backends.memcached.replies import TOKENS
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.core.commands import DeleteMany, GetMany
from shardcache.errors import (
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    ValueTooLargeError,
)

_line = re.compile(rb"mg ([!-~]{1,250}) v f q O([0-9]{1,10})( b)?\r\n")

ENDS = b"\r\nVA 1 f0 O1\r\nMN\r\n"  # what a value may hold to look like a reply
values = st.one_of(
    st.binary(max_size=40),
    st.text("\r\nVAMN0 ", max_size=12).map(str.encode),
    st.sampled_from([b"", b"\r", b"\r\n", b"x\r", ENDS, b"\r" * 20, b"v" * 501, b"v" * 40_000]),
)
payloads = st.one_of(st.none(), st.tuples(st.integers(0, 2**32 - 1), values))


def asked(wire, keys):
    """Encode a batch; give what it asks for: names with their tokens."""
    *lines, end = b"".join(wire.encode(GetMany(keys))).splitlines(keepends=True)
    assert end == b"mn\r\n"
    return [(match[1], int(match[2])) for match in map(_line.fullmatch, lines)]


def answer(requests, found):
    """Return what memcached answers when it has `found`."""
    hits = [
        b"VA %d f%d O%d\r\n%s\r\n" % (len(payload[1]), payload[0], token, payload[1])
        for (_, token), payload in zip(requests, found, strict=True)
        if payload is not None
    ]
    return b"".join(hits) + b"MN\r\n"


@given(st.lists(payloads, min_size=1, max_size=8), st.integers(1, 60_000))
def test_a_reply_in_pieces_is_the_reply_in_one(found, size):
    """Values may hold anything, keys may be missing, and the network may cut where it likes."""
    keys = [b"key:%d" % place for place in range(len(found))]
    for pieces in (size, 1 << 30):
        wire = MemcachedWire()
        reply = answer(asked(wire, keys), found)
        replies = [
            whole
            for start in range(0, len(reply), pieces)
            for whole in wire.feed(reply[start : start + pieces])
        ]
        assert replies == [found]
        assert wire.idle


@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply, token: reply.replace(b"O%d" % token, b"O%d" % (token + 9)),
        lambda reply, token: reply.replace(b"O%d" % token, b"O%d" % (token - 1)),
        lambda reply, token: reply.replace(b"O%d" % (token + 1), b"O%d" % token),
        lambda reply, token: reply.replace(b"O%d" % token, b"O+%d" % token),
        lambda reply, token: reply.replace(b"O%d" % token, b"O" + b"9" * 5000),
        lambda reply, token: reply.replace(b"O%d" % token, b"O"),
        lambda reply, _: reply.replace(b"VA 5", b"VA +5"),
        lambda reply, _: reply.replace(b"VA 5", b"VA 4"),
        lambda reply, _: b"x" + reply,
        lambda reply, _: reply.replace(b"MN\r\n", b"x\r\nMN\r\n"),
        lambda reply, _: reply + b"MN\r\n",
    ],
    ids=[
        *("late", "early", "twice", "signed", "endless", "none"),
        *("signed size", "size", "before", "between", "behind"),
    ],
)
def test_a_reply_that_was_not_asked_for_is_an_error(spoil):
    """Each token, length and separator is checked, however the reply is parsed."""
    wire = MemcachedWire()
    requests = asked(wire, [b"a", b"b"])
    reply = answer(requests, [(0, b"first"), (0, b"other")])
    with pytest.raises(NodeProtocolError):
        wire.feed(spoil(reply, requests[0][1]))


@pytest.mark.parametrize("count", [1, 2, TEMPLATED - 1, TEMPLATED, TEMPLATED + 1, 3000])
def test_every_key_has_the_next_token(count):
    """No two keys of a connection have one token, whatever the size of their batches."""
    wire = MemcachedWire()
    keys = [b"%%s@%d" % place for place in range(count)]
    requests = asked(wire, keys) + asked(wire, keys)
    assert [name for name, _ in requests] == keys + keys
    tokens = [token for _, token in requests]
    assert tokens[:count] == list(range(tokens[0], tokens[0] + count))
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("odd", [b"two words", b"\xff", b"line\r\nflush_all", b"k" * 251])
def test_one_odd_key_spoils_no_batch(odd):
    """A key that memcached cannot take as it is goes under another name among the others."""
    requests = asked(MemcachedWire(), [b"plain", odd])
    assert requests[0][0] == b"plain"
    assert requests[1][0] != odd


def test_tokens_start_again_after_the_last():
    """A batch at the last token takes low ones, and its reply is matched by them."""
    wire = MemcachedWire()
    wire._token = TOKENS - 5
    requests = asked(wire, [b"a", b"b"])
    assert requests[0][1] < TOKENS // 2
    assert wire.feed(answer(requests, [(0, b"1"), None])) == [[(0, b"1"), None]]


def written(wire, count):
    """Encode a batch of deletes; give their tokens."""
    *lines, _ = b"".join(wire.encode(DeleteMany([b"k%d" % each for each in range(count)]))).split()
    return [int(word[1:]) for word in lines if word.startswith(b"O")]


lines = st.sampled_from([b"HD", b"NF", b"SERVER_ERROR out of memory"])
uniform = st.tuples(lines, st.integers(1, 60)).map(lambda pair: [pair[0]] * pair[1])


@given(uniform | st.lists(lines, min_size=1, max_size=30), st.integers(1, 600))
def test_answers_in_pieces_are_the_answers_in_one(found, size):
    """Equal or not, with errors among them, wherever the network cuts."""
    wire = MemcachedWire()
    answers = [
        line if b" " in line else b"%b O%d" % (line, token)
        for line, token in zip(found, written(wire, len(found)), strict=True)
    ]
    reply = b"".join(each + b"\r\n" for each in (*answers, b"MN"))
    replies = [
        whole
        for start in range(0, len(reply), size)
        for whole in wire.feed(reply[start : start + size])
    ]
    expected = [NodeRefusedError if b" " in line else line == b"HD" for line in found]
    assert [[type(each) if isinstance(each, Exception) else each for each in replies[0]]] == [
        expected
    ]
    assert wire.idle


@pytest.mark.parametrize("size", [40, 1 << 20])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply, token: reply.replace(b"O%d" % token, b"O%d" % (token + 1)),
        lambda reply, token: reply.replace(b"HD O%d" % token, b"HD"),
        lambda reply, token: reply.replace(b"HD O%d" % token, b"OK O%d" % token),
        lambda reply, token: reply.replace(b"HD O%d\r\n" % token, b""),
        lambda reply, token: reply.replace(b"HD O%d" % token, b"HD O%d 1" % token),
    ],
    ids=["another token", "none", "another word", "missing", "more"],
)
def test_an_answer_that_was_not_asked_for_is_an_error(spoil, size):
    """In a whole reply, and in one that comes in parts."""
    wire = MemcachedWire()
    tokens = written(wire, 20)
    reply = b"".join(b"HD O%d\r\n" % token for token in tokens) + b"MN\r\n"
    reply = spoil(reply, tokens[12])
    parts = [reply[start : start + size] for start in range(0, len(reply), size)]
    with pytest.raises(NodeProtocolError):
        deque(map(wire.feed, parts))


def test_what_came_by_the_deadline_is_kept():
    """Of a run of hits, and of a run of answers."""
    wire = MemcachedWire()
    requests = asked(wire, [b"a", b"b", b"c"])
    whole = answer(requests, [(0, b"1"), (0, b"2"), (0, b"3")])
    wire.feed(whole[: whole.rindex(b"3")])
    first, second, late = wire.partial_reply()
    assert [first, second] == [(0, b"1"), (0, b"2")]
    assert isinstance(late, NodeTimeoutError)
    wire = MemcachedWire()
    first, second = written(wire, 2)
    wire.feed(b"NF O%d\r\nHD O" % first)
    removed, late = wire.partial_reply()
    assert removed is False
    assert isinstance(late, NodeTimeoutError)


def test_a_run_has_no_value_that_is_too_large():
    """An error stands for it, and the others are kept."""
    wire = MemcachedWire(max_value=30)
    requests = asked(wire, [b"a", b"b", b"c"])
    whole = answer(requests, [(0, b"1" * 20), (0, b"2" * 31), (0, b"3" * 20)])
    assert wire.feed(whole[:-4]) == []
    ((one, two, three),) = wire.feed(whole[-4:])
    assert [one, three] == [(0, b"1" * 20), (0, b"3" * 20)]
    assert isinstance(two, ValueTooLargeError)


@given(
    st.lists(st.lists(payloads, min_size=1, max_size=5) | uniform, min_size=1, max_size=5),
    st.integers(1, 2000),
)
def test_batches_behind_one_another_have_their_own_replies(batches, size):
    """As tasks have them that share a connection; wherever the network cuts."""
    wire, stream, expected = MemcachedWire(), b"", []
    for batch in batches:
        if isinstance(batch[0], bytes):
            lines = zip(batch, written(wire, len(batch)), strict=True)
            answers = [
                b"HD O%d" % token if each == b"HD" else b"NF O%d" % token for each, token in lines
            ]
            stream += b"".join(each + b"\r\n" for each in (*answers, b"MN"))
            expected.append([each == b"HD" for each in batch])
        else:
            keys = [b"key:%d" % place for place in range(len(batch))]
            stream += answer(asked(wire, keys), batch)
            expected.append(batch)
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [reply for part in parts for reply in wire.feed(part)] == expected
    assert wire.idle
