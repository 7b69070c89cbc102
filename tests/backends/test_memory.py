"""Memory nodes keep the promises of the commands, within bounds, by a clock that a test sets."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.embedding import DEADLINE, MemoryNode, number, text
from shardcache.backends.base import BackendOptions
from shardcache.backends.memory import Memory
from shardcache.core.commands import (
    Cas,
    Delete,
    FlushAll,
    Get,
    GetMany,
    Gets,
    Incr,
    Ping,
    Set,
    SetMany,
    Touch,
)
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import RAW_FLAGS
from shardcache.errors import ConfigurationError, NotACounterError, ValueTooLargeError


def stored(reply: object) -> bool:
    """Return whether a write was done, or refused for its size: there is nothing else."""
    assert reply is True or isinstance(reply, ValueTooLargeError)
    return reply is True


def test_the_least_recently_used_leaves_first():
    """Reading, touching and counting are uses; a miss is none."""
    node = MemoryNode(max_entries=3)
    for key in (b"a", b"b", b"c"):
        node(Set(key, number(1)))
    node(Get(b"a"))
    node(Incr(b"b", 1))
    node(Set(b"d", number(1)))
    assert node(GetMany([b"a", b"b", b"c", b"d"])) == [number(1), number(2), None, number(1)]
    node(Touch(b"a", 10))
    node(Set(b"e", number(1)))
    assert node(Get(b"b")) is None
    assert node.stat("evictions") == 2


def test_the_expired_leave_before_the_living():
    """An expired entry, however recent, costs no live one its place."""
    node = MemoryNode(max_entries=3)
    node(Set(b"old", number(1)))
    node(Set(b"brief", number(2), 5.0))
    node(Set(b"recent", number(3)))
    node.clock.now += 5
    node(Set(b"new", number(4)))
    assert node(Get(b"old")) == number(1)
    assert (node.stat("evictions"), node.stat("expired")) == (0, 1)


def test_an_entry_expires_at_its_time():
    """A value lives for its ttl, not less and not more."""
    node = MemoryNode()
    node(Set(b"k", number(1), 5.0))
    node.clock.now += 4.999
    assert node(Get(b"k")) == number(1)
    node.clock.now += 0.001
    assert node(Get(b"k")) is None
    assert node.stat("entries") == 0


def test_rewriting_a_key_takes_no_memory():
    """A million short lives of one key take the memory of one."""
    node = MemoryNode()
    for _ in range(10_000):
        node(Set(b"k", number(1), 3600.0))
    store = node.backend._execute.__self__
    assert len(store._due) < 100
    node(FlushAll())
    assert node.stat("bytes") == 0


def test_bytes_are_bounded_by_default():
    """Without options a memory node cannot fill the machine's memory."""
    node = MemoryNode()
    for number_ in range(80):
        node(Set(b"%d" % number_, (RAW_FLAGS, bytes(1024 * 1024))))
    assert node.stat("bytes") <= node.stat("max_bytes") == 64 * 1024 * 1024
    assert node(Get(b"79")) is not None


def test_too_large_is_a_refusal():
    """A value above the bound is refused, and drops nothing else."""
    node = MemoryNode(max_bytes=1000)
    node(Set(b"k", text(b"kept")))
    reply = node(Set(b"large", (RAW_FLAGS, bytes(1000))))
    assert isinstance(reply, ValueTooLargeError)
    assert node(Get(b"k")) == text(b"kept")


@pytest.mark.parametrize("payload", [text(b"7"), (RAW_FLAGS, b"7"), number(-1), number(2**63)])
def test_only_whole_numbers_count(payload):
    """A text of digits is not a counter, and stays what it is."""
    node = MemoryNode()
    node(Set(b"k", payload))
    assert isinstance(node(Incr(b"k", 1)), NotACounterError)
    assert node(Get(b"k")) == payload


def test_counting_keeps_the_expiry():
    """A counter lives as long as it was given, however often it is counted on."""
    node = MemoryNode()
    node(Set(b"n", number(1), 5.0))
    node.clock.now += 4
    assert node(Incr(b"n", 1)) == 2
    node.clock.now += 1
    assert node(Incr(b"n", 1)) is None


def test_a_token_outlives_a_touch():
    """A new expiry is no change of the value; a count is."""
    node = MemoryNode()
    node(Set(b"n", number(1)))
    _, token = node(Gets(b"n"))
    node(Touch(b"n", 5.0))
    assert node(Cas(b"n", number(2), token)) is True
    _, token = node(Gets(b"n"))
    node(Incr(b"n", 1))
    assert node(Cas(b"n", number(9), token)) is False


def test_counters_end_where_servers_end():
    """The last count is 2**63 - 1, for one more no server counts alike."""
    node = MemoryNode()
    node(Set(b"n", number(2**63 - 2)))
    assert node(Incr(b"n", 1)) == 2**63 - 1
    assert isinstance(node(Incr(b"n", 1)), NotACounterError)
    assert node(Incr(b"n", -(2**63 - 1))) == 0


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("max_entries=0", "max_entries must be"),
        ("max_bytes=-1", "max_bytes must be"),
        ("max_bytes=64M", "max_bytes must be"),
        ("max_entries=", "max_entries must be"),
        ("max_entries=" + "9" * 5000, "max_entries must be"),
        ("max_entires=5", "no option 'max_entires' .known: max_entries, max_bytes"),
    ],
)
@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_bad_options_are_named(query, fault, kind):
    """A misspelt or senseless bound is an error that says which, and of which node."""
    with pytest.raises(ConfigurationError, match=f"node n: {fault}"):
        getattr(Memory(), kind)(Node(f"memory://n?{query}"), BackendOptions())


def test_all_bad_options_are_listed():
    """Every fault is found at once."""
    with pytest.raises(ConfigurationError) as caught:
        Memory().blocking(Node("memory://n?max_entries=0&max_bytes=x&y=1"), BackendOptions())
    assert len(caught.value.faults) == 3


def test_figures_count_what_happened():
    """Reads of any form are hits or misses; writes and deletes are neither."""
    node = MemoryNode()
    node(Set(b"k", number(1)))
    node(Get(b"k"))
    node(Gets(b"k"))
    node(GetMany([b"k", b"x"]))
    node(Delete(b"y"))
    assert (node.stat("hits"), node.stat("misses"), node.stat("entries")) == (3, 1, 1)
    assert node(Ping()) is True


def test_threads_lose_no_count():
    """Commands of many threads are taken one at a time."""
    node = MemoryNode(max_entries=50)
    node(Set(b"n", number(0)))

    def work() -> None:
        for turn in range(500):
            node(Incr(b"n", 1))
            node(Set(b"%d" % turn, number(turn), 1.0))
            node(GetMany([b"n", b"%d" % (turn - 1)]))

    threads = [threading.Thread(target=work) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert node(Get(b"n")) == number(4000)
    assert node.stat("entries") == 50


def test_a_finaliser_may_use_the_cache():
    """A finalizer that runs within a command can ask the cache, and waits for nothing."""
    node = MemoryNode()
    found = []

    class Noisy(bytes):
        def __del__(self) -> None:
            found.append(node(Get(b"other")))

    node(Set(b"other", number(5)))
    node(Set(b"k", (RAW_FLAGS, Noisy(b"x"))))
    node(Set(b"k", number(1)))
    assert found == [number(5)]


@given(st.lists(st.binary(min_size=1), max_size=5))
def test_an_exchange_is_over_at_once(keys):
    """A fan-out has nothing to wait for, and gets the reply of a plain call."""
    node = MemoryNode()
    node(SetMany([(key, number(1)) for key in keys]))
    exchange = node.backend.begin(GetMany(keys), DEADLINE)
    assert exchange.finished
    assert exchange.wait == (-1, 0, None)
    exchange.advance()


def test_a_closed_node_still_serves():
    """Calls that began on an older topology are served to the end."""
    node = MemoryNode()
    node.backend.close()
    node.backend.close()
    assert node(Set(b"k", number(1))) is True


def test_one_node_serves_several_loops():
    """One after another, each with a future that is done."""
    backend = Memory().asyncio(Node("memory://n"), BackendOptions())

    async def count() -> object:
        answer = backend.execute(Incr(b"n", 1), DEADLINE)
        assert answer.done()
        assert answer.get_loop() is asyncio.get_running_loop()
        return await answer

    async def close() -> None:
        await backend.execute(Set(b"n", number(0)), DEADLINE)
        await backend.aclose()

    asyncio.run(close())
    assert [asyncio.run(count()) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_is_never_stuck(busy):
    """It has its parent's entries, or none if another thread was busy; it never waits."""
    node = MemoryNode()
    node(Set(b"k", number(1)))
    store = node.backend._execute.__self__
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    if busy:
        thread.start()
        held.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, the very case
        child = os.fork()
    if child == 0:
        found = node(Get(b"k"))
        stored = node(Set(b"k", number(2))) is True and node(Get(b"k")) == number(2)
        os._exit(0 if stored and found == (None if busy else number(1)) else 1)
    done.set()
    if busy:
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
