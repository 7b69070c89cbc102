"""A codec that raises whatever it likes: a miss when it reads, an `EncodeError` when it writes."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from operations.harness import EventLog
from shardcache import (
    AsyncClient,
    DecodeError,
    DecodeFailed,
    EncodeError,
    PartialFailureError,
    UncacheableResultError,
)
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

# None of them is derived from another, but for the last: what the library itself could raise.
RAISED = [ValueError, KeyError, RecursionError, MemoryError, StopIteration, OSError, EncodeError]


class Faulty:
    """A codec of a user's own that raises `error` when it `writes` or when it `reads`."""

    name = "faulty"
    kind = 77

    def __init__(self, error=None):
        self.error = error
        self.reads = self.writes = True

    def encode(self, _, value):
        """Return the value's text."""
        if not self.writes:
            raise self.error
        return repr(value).encode()

    def decode(self, _, data):
        """Return what is no text any more."""
        if not self.reads:
            raise self.error
        return [data.decode()]


@pytest.fixture(params=RAISED)
def codec(request):
    """Return a codec that raises each of many errors in turn."""
    return Faulty(request.param("boom"))


def failures(client):
    """Return how many values of the client's one node could not be decoded."""
    inner = getattr(client, "twin", client)
    (member,) = inner._cluster.members.values()
    return member.counters()["decode_failures"]


def test_a_value_it_cannot_read_is_a_counted_miss(mode, codec):
    """Whatever `decode` raises, the caller gets a miss, and observers are told why."""
    log = EventLog(DecodeFailed)
    client = make_client(mode, "memory://a", codec=codec, observers=[log])
    client.set("k", [1])
    codec.reads = False
    assert client.get("k", "default") == "default"
    assert client.get_many(["k"]) == {}
    assert client.gets("k") == (None, None)
    assert failures(client) == len(log.events) == 3
    for event in log.events:
        assert isinstance(event, DecodeFailed)
        assert type(event.error) is DecodeError
        assert event.error.__cause__ is codec.error


def test_a_value_it_cannot_read_raises_when_asked_to(mode, codec):
    """Under `on_error="raise"` it is a `DecodeError` with the codec's own error behind it."""
    client = make_client(mode, "memory://a", codec=codec, on_error="raise")
    client.set_many({"k": [1]})
    codec.reads = False
    with pytest.raises(DecodeError, match="codec 'faulty' raised") as raised:
        client.get("k")
    assert raised.value.__cause__ is codec.error
    with pytest.raises(PartialFailureError) as partial:
        client.get_many(["k"])
    assert partial.value.failed["k"].__cause__ is codec.error
    assert failures(client) == 2


def test_a_value_it_cannot_write_is_an_encode_error(mode, codec):
    """Whatever `encode` raises is the cause of an `EncodeError`."""
    client = make_client(mode, "memory://a", codec=codec)
    codec.writes = False
    for store in (
        lambda: client.set("k", [1]),
        lambda: client.add("k", [1]),
        lambda: client.set_many({"k": [1]}),
        lambda: client.set("k", "\ud800"),
    ):
        with pytest.raises(EncodeError) as raised:
            store()
        cause = raised.value.__cause__
        assert raised.value is codec.error or cause is codec.error


@pytest.mark.parametrize("given", [None, "text", bytearray(b"data"), 7])
def test_only_bytes_are_sent(mode, given):
    """A codec that returns anything else is an error, before a server is asked."""
    codec = Faulty()
    codec.encode = lambda *_: given
    client = make_client(mode, "memory://a", codec=codec)
    with pytest.raises(EncodeError, match=f"'faulty' returned {type(given).__name__}, not bytes"):
        client.set("k", [1])


def one():
    """Return a value."""
    return [1]


def wrapped(client, function, **terms):
    """Return the function cached by either client, to be called as one that blocks."""
    if not hasattr(client, "twin"):
        return client.cached(ttl=60, namespace="f", **terms)(function)

    @functools.wraps(function)
    async def coroutine():
        return function()

    cached = client.twin.cached(ttl=60, namespace="f", **terms)(coroutine)
    return lambda: client.loop.run_until_complete(cached())


def test_a_cached_function_recomputes_an_unreadable_value(mode, codec):
    """A cached value that its codec cannot read is computed again."""
    client = make_client(mode, "memory://a", codec=codec)
    calls = []

    def function():
        calls.append(1)
        return [1]

    cached = wrapped(client, function)
    assert cached() == [1]
    codec.reads = False
    assert cached() == [1]
    assert len(calls) == 2
    assert failures(client) > 0


def test_a_cached_function_raises_when_asked_to(mode, codec):
    """Under a policy of `on_error="raise"` it is a `DecodeError`."""
    client = make_client(mode, "memory://a", codec=codec, on_error="raise")
    cached = wrapped(client, one, on_error="raise")
    cached()
    codec.reads = False
    with pytest.raises(DecodeError) as raised:
        cached()
    assert raised.value.__cause__ is codec.error


def test_a_cached_function_returns_an_unwritable_value_or_names_it(mode, codec):
    """A codec's error is the cause of an `UncacheableResultError`."""
    client = make_client(mode, "memory://a", codec=codec)
    codec.writes = False
    assert wrapped(client, one)() == one()
    with pytest.raises(UncacheableResultError) as raised:
        wrapped(client, one, on_uncacheable="raise", version=1)()
    assert isinstance(raised.value.__cause__, EncodeError)


def test_a_thread_that_follows_recomputes_an_unreadable_value():
    """A thread that joined a recompute and cannot read its value recomputes."""
    codec = Faulty(ValueError("boom"))
    codec.reads = False
    client = make_client("blocking", "memory://a", codec=codec)
    computing, go = threading.Event(), threading.Event()
    calls = []

    @client.cached(ttl=60, namespace="function")
    def function():
        calls.append(1)
        computing.set()
        assert go.wait(30)
        return [1]

    results = []
    threads = [threading.Thread(target=lambda: results.append(function())) for _ in range(2)]
    threads[0].start()
    assert computing.wait(30)
    threads[1].start()
    (flight,) = client._cluster.io.single_flight._flights.values()
    eventually(lambda: bool(flight._waiters), within=30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert results == [[1], [1]]
    assert len(calls) == 2


async def test_a_task_that_follows_recomputes_an_unreadable_value():
    """A task that joined a recompute and cannot read its value recomputes."""
    codec = Faulty(ValueError("boom"))
    codec.reads = False
    calls = []
    async with AsyncClient("memory://a", codec=codec) as client:

        @client.cached(ttl=60, namespace="function")
        async def function():
            calls.append(1)
            await asyncio.sleep(0.05)
            return [1]

        assert await asyncio.gather(function(), function()) == [[1], [1]]
        assert function.cache_info().coalesced == 1
    assert len(calls) == 2
