"""Gets that are sent together get the replies that they would get one by one, however these arrive."""

from __future__ import annotations

import re

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.redis.wires import NODE, make_wire
from shardcache.backends.memcached.batches import TEMPLATED
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis.header import to_redis
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.core.commands import Delete, Get, GetMany, Set
from shardcache.core.values.flags import TEXT_FLAGS, UNMARKED_FLAGS
from shardcache.errors import NodeProtocolError, NodeRefusedError, ValueTooLargeError

LARGEST = 1000  # bytes of a value
KEYS = [b"key:%d" % place for place in range(8)]
_line = re.compile(rb"mg ([!-~]{1,250}) v f (O[0-9]{1,10})( b)?\r\n")

ENDS = b"\r\nVA 1 f0 O1\r\nEN O1\r\n"  # what a value may hold to look like a reply
values = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"\r", b"\r\n", ENDS, b"$-1\r\n", b"*1\r\n", b"%~>|" * 9]),
)
flags = st.one_of(st.just(UNMARKED_FLAGS), st.integers(0, 2**32 - 1))
# A reply: a payload, a miss, a payload while its item is recomputed, or a refusal.
answers = st.one_of(
    st.tuples(st.just("hit"), flags, values),
    st.tuples(st.just("marked"), flags, values),
    st.sampled_from([("miss", 0, b""), ("refused", 0, b""), ("large", 0, b"v" * (LARGEST + 1))]),
)


def tokens_of(sent):
    """Return the token of each request in some bytes."""
    lines = sent.splitlines(keepends=True)
    return [_line.fullmatch(line)[2] for line in lines]


def memcached_line(answer, token):
    """Return what memcached answers to a get with this token."""
    kind, number, value = answer
    if kind == "miss":
        return b"EN %b\r\n" % token
    if kind == "refused":
        return b"SERVER_ERROR out of memory writing get response\r\n"
    mark = b" W" if kind == "marked" else b""
    return b"VA %d f%d %b%b\r\n%b\r\n" % (len(value), number, token, mark, value)


def redis_line(answer):
    """Return what Redis answers to a get."""
    kind, _, value = answer
    if kind == "miss":
        return b"$-1\r\n"
    if kind == "refused":
        return b"-WRONGTYPE it is a list\r\n"
    stored = value if kind == "marked" else to_redis((TEXT_FLAGS, value))
    return b"$%d\r\n%b\r\n" % (len(stored), stored)


def feed(wire, reply, size):
    """Feed a reply in pieces; return the replies that came, errors by their type and text."""
    replies = [
        each
        for start in range(0, len(reply), size)
        for each in wire.feed(reply[start : start + size])
    ]
    return [repr(each) if isinstance(each, Exception) else each for each in replies]


@given(st.lists(answers, min_size=1, max_size=8), st.integers(1, 3000))
def test_memcached_answers_each_as_if_it_were_alone(found, size):
    """Hits with any flags, misses, refusals and values that are too large, cut anywhere."""
    keys = KEYS[: len(found)]
    together, alone = MemcachedWire(max_value=LARGEST), MemcachedWire(max_value=LARGEST)
    tokens = tokens_of(b"".join(together.encode_gets(keys)))
    reply = b"".join(map(memcached_line, found, tokens))
    one_by_one = tokens_of(b"".join(b"".join(alone.encode(Get(key))) for key in keys))
    expected = feed(alone, b"".join(map(memcached_line, found, one_by_one)), 1 << 30)
    assert len(expected) == len(found)
    for pieces in (1 << 30, size):
        wire = MemcachedWire(max_value=LARGEST)
        wire._token = together._token - TEMPLATED  # so that it takes the same tokens
        assert tokens_of(b"".join(wire.encode_gets(keys))) == tokens
        assert feed(wire, reply, pieces) == expected
        assert wire.idle


@given(st.lists(answers, min_size=1, max_size=8), st.integers(1, 3000))
def test_redis_answers_each_as_if_it_were_alone(found, size):
    """The same, where an error is a line and an array would be one reply."""
    keys = KEYS[: len(found)]
    together, alone = make_wire(), make_wire()
    one_by_one = [b"".join(alone.encode(Get(key))) for key in keys]
    assert b"".join(together.encode_gets(keys)) == b"".join(one_by_one)
    reply = b"".join(map(redis_line, found))
    expected = feed(alone, reply, 1)
    assert len(expected) == len(found)
    assert feed(together, reply, size) == expected
    assert together.idle


def test_the_values_of_redis_have_a_limit_for_gets_together_too():
    """`max_value_bytes` holds however many replies come at once."""
    wire = RedisWire(RedisOptions(max_value_bytes=20), NODE)
    wire.encode_gets(KEYS[:5])
    replies = wire.feed(b"$4\r\n1234\r\n" * 3 + b"$25\r\n%b\r\n$1\r\n7\r\n" % (b"x" * 25))
    assert [type(each) for each in replies] == [tuple, tuple, tuple, ValueTooLargeError, tuple]


def test_hits_may_be_cut_anywhere():
    """Also within a line, and the rest may be one reply or many."""
    found = [("hit", UNMARKED_FLAGS, b"v" * place) for place in range(4)]
    for cut in range(70):
        wire = MemcachedWire()
        reply = b"".join(
            map(memcached_line, found, tokens_of(b"".join(wire.encode_gets(KEYS[:4]))))
        )
        replies = wire.feed(reply[:cut]) + wire.feed(reply[cut:])
        assert replies == [(number, value) for _, number, value in found]


@pytest.mark.parametrize("count", [1, 2, TEMPLATED, TEMPLATED + 1, 2 * TEMPLATED + 3])
@pytest.mark.parametrize("odd", [None, b"two words", b"k" * 300])
def test_any_number_of_keys_of_any_kind(count, odd):
    """More than a template has lines for; and a key that memcached takes only in another form."""
    keys = [b"key:%d" % place for place in range(count)]
    if odd is not None:
        keys[count // 2] = odd
    wire = MemcachedWire()
    sent = b"".join(wire.encode_gets(keys))
    tokens = tokens_of(sent)
    assert len(tokens) == len(set(tokens)) == count
    alone = MemcachedWire()
    names = [b"".join(alone.encode(Get(key))).split(b" ")[1] for key in keys]
    assert [line.split(b" ")[1] for line in sent.splitlines()] == names
    reply = b"".join(b"VA 3 f0 %b\r\n%03d\r\n" % (t, n % 999) for n, t in enumerate(tokens))
    assert feed(wire, reply, 1 << 30) == [(0, b"%03d" % (n % 999)) for n in range(count)]
    assert wire.idle


def test_a_reply_with_the_token_of_another_get_is_an_error():
    """No value is ever taken for that of another key, in the middle of a run neither."""
    for swapped in range(7):
        wire = MemcachedWire()
        tokens = tokens_of(b"".join(wire.encode_gets(KEYS)))
        tokens[swapped], tokens[swapped + 1] = tokens[swapped + 1], tokens[swapped]
        for kind in ("hit", "miss"):
            reply = b"".join(memcached_line((kind, 0, b"v"), token) for token in tokens)
            with pytest.raises(NodeProtocolError):
                wire.feed(reply)


def test_gets_together_stay_in_order_with_other_commands():
    """What is asked before and after them gets its own reply."""
    wire = MemcachedWire()
    sent = [wire.encode(Delete(b"d"))[0], *wire.encode_gets(KEYS[:2]), *wire.encode_gets(KEYS[2:4])]
    sent += [wire.encode(Get(b"g"))[0], *wire.encode(GetMany([b"m"]))]
    token = [re.findall(rb"O([0-9]+)", each) for each in sent]
    reply = b"HD O%b\r\nVA 1 f0 O%b\r\na\r\nEN O%b\r\n" % (*token[0], *token[1])
    reply += b"VA 1 f0 O%b\r\nb\r\nVA 1 f0 O%b\r\nc\r\n" % tuple(token[2])
    reply += b"VA 1 f0 O%b\r\nd\r\nVA 1 f0 O%b\r\ne\r\nMN\r\n" % (*token[3], *token[4])
    expected = [True, (0, b"a"), None, (0, b"b"), (0, b"c"), (0, b"d"), [(0, b"e")]]
    assert wire.feed(reply) == expected
    assert wire.idle
    redis = make_wire()
    redis.encode_gets(KEYS[:4])
    redis.encode(Set(b"s", TEXT))
    redis.encode_gets(KEYS[4:6])
    found = b"$1\r\na\r\n" * 3 + b"$-1\r\n+OK\r\n$1\r\nb\r\n$1\r\nc\r\n"

    replies = redis.feed(found)
    assert replies[3:5] == [None, True]
    assert [each[1] for each in replies[:3] + replies[5:]] == [b"a", b"a", b"a", b"b", b"c"]


TEXT = (TEXT_FLAGS, b"text")


def test_an_error_among_the_replies_of_redis_is_that_of_its_get():
    """The others keep their values."""
    wire = make_wire()
    wire.encode_gets(KEYS[:4])
    replies = wire.feed(b"$1\r\na\r\n$1\r\nb\r\n-WRONGTYPE it is a list\r\n$1\r\nc\r\n")
    assert [type(each) for each in replies] == [tuple, tuple, NodeRefusedError, tuple]
    assert isinstance(replies[2].__cause__, hiredis.ReplyError)


def test_a_get_that_is_late_has_a_timeout():
    """What has arrived belongs to those before it."""
    wire = MemcachedWire()
    tokens = tokens_of(b"".join(wire.encode_gets(KEYS[:2])))
    assert wire.feed(memcached_line(("hit", 0, b"v"), tokens[0]) + b"VA 5") == [(0, b"v")]
    assert "in time" in str(wire.partial_reply())
