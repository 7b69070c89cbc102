"""A hostile node costs a call its time and a few megabytes, and returns no value."""

from __future__ import annotations

import pytest

from backends.fakes import fake_node, token_of
from hostile.measuring import cost_of
from hostile.nodes import CLASSIC, MEMCACHED, REDIS, unique_figures
from shardcache import NodeProtocolError, ShardCacheError
from shardcache.backends.memcached import replies
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.core.commands import Get, GetMany, ServerStats

MIB = 1 << 20
TIMEOUT = 0.3  # seconds of a call
SLACK = 4.0  # seconds: two busy cores run this beside ten other loops
MEMORY = 48 * MIB  # the servers are threads of this process, with buffers of their own
LIMIT = "?max_value_bytes=100000"  # so a value of that size is the most that may be kept
KEYS = [f"k{number}" for number in range(20)]
CALLS = [lambda client: client.get("k"), lambda client: client.get_many(KEYS)]

BEHAVIOURS = {"memcached": MEMCACHED, "pymemcache": CLASSIC, "redis": REDIS}
SERVERS = [
    pytest.param(scheme, behave, id=f"{scheme} {name}")
    for scheme, named in BEHAVIOURS.items()
    for name, behave in named.items()
]


def assert_bounded(cost):
    """See that neither the calls nor the close took longer than they may, nor more memory."""
    assert cost.call < TIMEOUT + SLACK
    assert cost.close < TIMEOUT + SLACK
    assert cost.lag < SLACK
    assert cost.memory < MEMORY, f"{cost.memory >> 20} MiB"


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "behave"), SERVERS)
def test_a_hostile_node_delays_no_call(mode, scheme, behave):
    """Calls and close end in time, with a documented error."""
    with fake_node(behave) as address:
        cost = cost_of(mode, f"{scheme}://{address}{LIMIT}", CALLS, timeout=TIMEOUT)
    assert_bounded(cost)
    for outcome in cost.outcomes:
        assert isinstance(outcome, ShardCacheError), (outcome, cost.outcomes)


GREETED = [
    *("garbage", "an endless line", "zeros", "line ends", "silence", "the question", "a drip"),
    *("an endless status", "an endless error", "statuses without end", "errors without end"),
    *("an array within an array", "a map of 1000000000", "a length of 512 MiB and no more"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", GREETED)
@pytest.mark.parametrize("scheme", ["redis://:hunter2secret@", "rediss://", "memcacheds://"])
def test_a_hostile_greeting_delays_no_call(mode, scheme, name):
    """The answer to a login, or the first bytes of TLS."""
    with fake_node(REDIS[name]) as address:
        calls = [lambda client: client.get("k"), lambda client: client.get("k")]
        cost = cost_of(mode, f"{scheme}{address}", calls, timeout=TIMEOUT)
    assert_bounded(cost)
    for outcome in cost.outcomes:
        assert isinstance(outcome, ShardCacheError), (outcome, cost.outcomes)


WRITES = {
    "set": lambda client: client.set("k", "v" * 1000),
    "incr": lambda client: client.incr("k"),
    "delete_many": lambda client: client.delete_many(KEYS),
}
WRITTEN = ["garbage", "zeros", "silence", "a drip", "errors without end", "a negative length"]


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("scheme", BEHAVIOURS)
def test_a_hostile_answer_is_no_stored_write(mode, scheme, name, write):
    """The write ends in time and is not reported as done."""
    with fake_node(BEHAVIOURS[scheme][name]) as address:
        cost = cost_of(mode, f"{scheme}://{address}", [write], timeout=TIMEOUT)
    assert_bounded(cost)
    assert isinstance(cost.outcomes[0], ShardCacheError), cost.outcomes


@pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
def test_endless_stats_end_in_time(mode, scheme):
    """And hold little memory."""
    with fake_node(unique_figures) as address:
        cost = cost_of(
            mode, f"{scheme}://{address}", [lambda client: client.stats()], timeout=TIMEOUT
        )
    assert_bounded(cost)
    (figures,) = cost.outcomes[0].values()
    assert isinstance(figures.server, ShardCacheError)


def test_long_first_lines_are_not_kept():
    """Bytes before a value leave no trace, unless they are the head of a hit."""
    replies.parse_hit_head.cache_clear()
    for number in range(20):
        wire = MemcachedWire()
        (request,) = wire.encode(GetMany([b"k"]))
        head = b"VA 1 f256 %d%s" % (number, b"x" * 200_000)
        with pytest.raises(NodeProtocolError):
            wire.feed(b"%b %b\r\na\r\nMN\r\n" % (head, token_of(request)))
    assert replies.parse_hit_head.cache_info().currsize == 0


def test_stats_have_a_largest_number_of_lines():
    """More lines than any server has are no answer."""
    wire = MemcachedWire()
    wire.encode(ServerStats())
    endless = b"".join(b"STAT n%d x\r\n" % number for number in range(5000))
    with pytest.raises(NodeProtocolError):
        wire.feed(endless)
    wire = MemcachedWire()
    wire.encode(ServerStats())
    (figures,) = wire.feed(b"".join(b"STAT n%d x\r\n" % n for n in range(1000)) + b"END\r\n")
    assert len(figures) == 1000


SCALARS = [
    b"_\r\n",
    b"#t\r\n",
    b"#f\r\n",
    b",1.5\r\n",
    b"(123\r\n",
    b"=5\r\ntxt:a\r\n",
    b"!5\r\nERR x\r\n",
]


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("before", [1, 2, 5])
def test_no_scalar_of_resp3_is_a_reply(scalar, before):
    """Also behind due replies in the same read."""
    wire = RedisWire(RedisOptions(), "n")
    for _ in range(before + 1):
        wire.encode(Get(b"k"))
    with pytest.raises(NodeProtocolError):
        wire.feed(b"$1\r\n1\r\n" * before + scalar)


@pytest.mark.parametrize("scalar", SCALARS)
def test_no_scalar_of_resp3_is_an_array_element(scalar):
    """First, last, or behind an array."""
    for values in (
        scalar + b"$1\r\n1\r\n",
        b"$1\r\n1\r\n" + scalar,
        b"$1\r\n1\r\n$1\r\n1\r\n" + scalar,
    ):
        wire = RedisWire(RedisOptions(), "n")
        wire.encode(GetMany([b"k", b"l"]))
        wire.encode(Get(b"k"))
        with pytest.raises(NodeProtocolError):
            wire.feed(b"*2\r\n" + values)


def test_a_value_that_looks_like_a_scalar_is_read():
    """A line of a value may begin as a scalar does."""
    wire = RedisWire(RedisOptions(), "n")
    for _ in range(3):
        wire.encode(Get(b"k"))
    value = b"\xc1\x00a\r\n_\r\n(b\r\n#t\r\n"
    assert len(wire.feed(b"$%d\r\n%b\r\n" % (len(value), value) * 3)) == 3
