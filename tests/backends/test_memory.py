"""Embedded nodes: what the commands promise, within bounds, by a clock that the test turns."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import warnings
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardcache.backends.base import BackendOptions
from shardcache.backends.memory import ENTRY_OVERHEAD, Memory
from shardcache.core.commands import (
    Cas,
    Delete,
    DeleteMany,
    FlushAll,
    Get,
    GetMany,
    Gets,
    Incr,
    Payload,
    Ping,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import INTEGER_FLAGS, RAW_FLAGS, TEXT_FLAGS
from shardcache.errors import ConfigurationError, NotACounterError, ValueTooLargeError

DEADLINE = 0.0  # long past: an embedded node never waits


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


class Embedded:
    """An embedded node with a clock of its own, told commands."""

    def __init__(self, **options: int) -> None:
        self.clock = Clock()
        query = "&".join(f"{name}={value}" for name, value in options.items())
        node = Node(f"memory://n?{query}" if query else "memory://n")
        self.backend = Memory(self.clock).blocking(node, BackendOptions())

    def __call__(self, command):
        """Give the node's reply."""
        return self.backend.execute(command, DEADLINE)

    def stat(self, name: str) -> int:
        """Give one of the node's figures."""
        return int(self(ServerStats())[name])


def text(data: bytes) -> Payload:
    """Give the payload of a text."""
    return TEXT_FLAGS, data


def number(count: int) -> Payload:
    """Give the payload of a whole number."""
    return INTEGER_FLAGS, str(count).encode()


@dataclass
class Kept:
    """An entry as the model keeps it; `version` is new with every write."""

    payload: Payload
    expires: float
    version: int


KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])
PAYLOADS = st.one_of(
    st.binary(max_size=3).map(text),
    st.integers(-2, 12).map(number),
    st.sampled_from([number(2**63 - 1), number(2**63), text(b"7"), (RAW_FLAGS, b"x" * 60)]),
    st.just((RAW_FLAGS, b"x" * 5000)),
)
TTLS = st.none() | st.sampled_from([0.25, 1.0, 5.0])
MAX_ENTRIES = 4
MAX_BYTES = 3 * ENTRY_OVERHEAD + 100


class AgainstModel(RuleBasedStateMachine):
    """An embedded node and a list that is plainly right, told the same commands."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Embedded(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        self.kept: dict[bytes, Kept] = {}  # the least recently used first
        self.versions = 0
        self.seen: list[tuple[bytes, object, int]] = []  # key, token and version of each gets

    def live(self, key: bytes) -> Kept | None:
        """Give what the model has for a key, unless it has expired."""
        kept = self.kept.get(key)
        return kept if kept and kept.expires > self.node.clock.now else None

    def used(self, key: bytes) -> Kept | None:
        """Give the same, now the most recently used."""
        kept = self.live(key)
        if kept:
            self.kept[key] = self.kept.pop(key)
        return kept

    def put(self, key: bytes, payload: Payload, expires: float) -> bool:
        """Keep an entry and make room; say whether it could ever fit."""
        if size(key, payload) > MAX_BYTES:
            return False
        self.versions += 1
        self.kept.pop(key, None)
        self.kept[key] = Kept(payload, expires, self.versions)
        while len(self.kept) > MAX_ENTRIES or self.bytes() > MAX_BYTES:
            gone = [name for name in self.kept if not self.live(name)]
            gone.sort(key=lambda name: (self.kept[name].expires, name))
            del self.kept[(gone or list(self.kept))[0]]
        return True

    def bytes(self) -> int:
        """Give the bytes that the model holds."""
        return sum(size(key, kept.payload) for key, kept in self.kept.items())

    def until(self, ttl: float | None) -> float:
        """Give when a time to live that begins now is over."""
        return float("inf") if ttl is None else self.node.clock.now + ttl

    @rule(seconds=st.sampled_from([0.1, 0.25, 1.0, 7.0]))
    def time_passes(self, seconds):
        """Let some entries expire."""
        self.node.clock.now += seconds

    @rule(key=KEYS)
    def get(self, key):
        """Find what the model finds."""
        kept = self.used(key)
        assert self.node(Get(key)) == (kept and kept.payload)

    @rule(keys=st.lists(KEYS, max_size=4))
    def get_many(self, keys):
        """Find what the model finds, in order, also for a key that is asked twice."""
        found = [self.used(key) for key in keys]
        assert self.node(GetMany(keys)) == [kept and kept.payload for kept in found]

    @rule(key=KEYS)
    def gets(self, key):
        """Find it with a token, to be used at any later time."""
        kept = self.used(key)
        reply = self.node(Gets(key))
        if kept is None:
            assert reply is None
        else:
            assert reply[0] == kept.payload
            self.seen.append((key, reply[1], kept.version))

    @rule(key=KEYS, payload=PAYLOADS, ttl=TTLS, when=st.sampled_from(When))
    def set(self, key, payload, ttl, when):
        """Store only as `when` asks."""
        allowed = {
            When.ALWAYS: True,
            When.ABSENT: self.live(key) is None,
            When.PRESENT: self.live(key) is not None,
        }
        reply = self.node(Set(key, payload, ttl, when))
        if allowed[when]:
            fits = self.put(key, payload, self.until(ttl))
            assert stored(reply) is fits
        else:
            assert reply is False

    @rule(items=st.lists(st.tuples(KEYS, PAYLOADS), max_size=4), ttl=TTLS)
    def set_many(self, items, ttl):
        """Store in order; the last of a repeated key stays."""
        replies = self.node(SetMany(items, ttl))
        assert len(replies) == len(items)
        for (key, payload), reply in zip(items, replies, strict=True):
            fits = self.put(key, payload, self.until(ttl))
            assert stored(reply) is fits

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), payload=PAYLOADS, ttl=TTLS)
    def cas(self, data, payload, ttl):
        """Store only on the very write that was read."""
        key, token, version = data.draw(st.sampled_from(self.seen))
        kept = self.live(key)
        reply = self.node(Cas(key, payload, token, ttl))
        if kept is None:
            assert reply is None
        elif kept.version != version:
            assert reply is False
        else:
            fits = self.put(key, payload, self.until(ttl))
            assert stored(reply) is fits

    @rule(key=KEYS)
    def delete(self, key):
        """Say whether it was there."""
        assert self.node(Delete(key)) is (self.live(key) is not None)
        self.kept.pop(key, None)

    @rule(keys=st.lists(KEYS, max_size=4))
    def delete_many(self, keys):
        """Say of each whether it was there."""
        there = []
        for key in keys:
            there.append(self.live(key) is not None)
            self.kept.pop(key, None)
        assert self.node(DeleteMany(keys)) == there

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key, ttl):
        """Move the expiry, and count as a use."""
        kept = self.used(key)
        assert self.node(Touch(key, ttl)) is (kept is not None)
        if kept:
            kept.expires = self.until(ttl)

    @rule(key=KEYS, delta=st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63)]))
    def incr(self, key, delta):
        """Count within the range of all servers, and keep the expiry."""
        kept = self.live(key)
        reply = self.node(Incr(key, delta))
        if kept is None:
            assert reply is None
            return
        flags, data = kept.payload
        count = int(data) if flags == INTEGER_FLAGS else -1
        if not 0 <= count < 2**63 or count + delta >= 2**63:
            assert isinstance(reply, NotACounterError)
            return
        assert reply == max(0, count + delta)
        self.put(key, number(reply), kept.expires)

    @rule()
    def flush(self):
        """Empty both."""
        assert self.node(FlushAll()) is True
        self.kept.clear()

    @invariant()
    def within_bounds(self):
        """Hold no more than the bounds allow, expired or not, and all that lives."""
        entries, held = self.node.stat("entries"), self.node.stat("bytes")
        assert entries <= MAX_ENTRIES
        assert held <= MAX_BYTES
        live = [key for key in self.kept if self.live(key)]
        assert entries >= len(live)
        assert (entries == 0) == (held == 0)


def size(key: bytes, payload: Payload) -> int:
    """Give what an entry counts for."""
    return ENTRY_OVERHEAD + len(key) + len(payload[1])


def stored(reply: object) -> bool:
    """Say whether a write was done, or refused for its size: there is nothing else."""
    assert reply is True or isinstance(reply, ValueTooLargeError)
    return reply is True


TestAgainstModel = AgainstModel.TestCase


def test_the_least_recently_used_leaves_first():
    """Reading, touching and counting are uses; looking without finding is none."""
    node = Embedded(max_entries=3)
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
    node = Embedded(max_entries=3)
    node(Set(b"old", number(1)))
    node(Set(b"brief", number(2), 5.0))
    node(Set(b"recent", number(3)))
    node.clock.now += 5
    node(Set(b"new", number(4)))
    assert node(Get(b"old")) == number(1)
    assert (node.stat("evictions"), node.stat("expired")) == (0, 1)


def test_an_entry_expires_at_its_time():
    """A value lives for its time to live, not less and not more."""
    node = Embedded()
    node(Set(b"k", number(1), 5.0))
    node.clock.now += 4.999
    assert node(Get(b"k")) == number(1)
    node.clock.now += 0.001
    assert node(Get(b"k")) is None
    assert node.stat("entries") == 0


def test_rewriting_leaves_no_trace():
    """A million short lives of one key take the memory of one."""
    node = Embedded()
    for _ in range(10_000):
        node(Set(b"k", number(1), 3600.0))
    store = node.backend._execute.__self__
    assert len(store._due) < 100
    node(FlushAll())
    assert node.stat("bytes") == 0


def test_bytes_are_bounded_by_default():
    """Without options an embedded node cannot fill the machine's memory."""
    node = Embedded()
    for number_ in range(80):
        node(Set(b"%d" % number_, (RAW_FLAGS, bytes(1024 * 1024))))
    assert node.stat("bytes") <= node.stat("max_bytes") == 64 * 1024 * 1024
    assert node(Get(b"79")) is not None


def test_too_large_is_a_refusal():
    """A value above the bound is refused, and drops nothing else."""
    node = Embedded(max_bytes=1000)
    node(Set(b"k", text(b"kept")))
    reply = node(Set(b"large", (RAW_FLAGS, bytes(1000))))
    assert isinstance(reply, ValueTooLargeError)
    assert node(Get(b"k")) == text(b"kept")


@pytest.mark.parametrize("payload", [text(b"7"), (RAW_FLAGS, b"7"), number(-1), number(2**63)])
def test_only_whole_numbers_count(payload):
    """A text of digits is no counter, and stays what it is."""
    node = Embedded()
    node(Set(b"k", payload))
    assert isinstance(node(Incr(b"k", 1)), NotACounterError)
    assert node(Get(b"k")) == payload


def test_counting_keeps_the_expiry():
    """A counter lives as long as it was given, however often it is counted on."""
    node = Embedded()
    node(Set(b"n", number(1), 5.0))
    node.clock.now += 4
    assert node(Incr(b"n", 1)) == 2
    node.clock.now += 1
    assert node(Incr(b"n", 1)) is None


def test_a_token_outlives_a_touch():
    """A new expiry is no change of the value; a count is."""
    node = Embedded()
    node(Set(b"n", number(1)))
    _, token = node(Gets(b"n"))
    node(Touch(b"n", 5.0))
    assert node(Cas(b"n", number(2), token)) is True
    _, token = node(Gets(b"n"))
    node(Incr(b"n", 1))
    assert node(Cas(b"n", number(9), token)) is False


def test_counters_end_where_servers_end():
    """The last count is 2**63 - 1, for one more no server counts alike."""
    node = Embedded()
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
    node = Embedded()
    node(Set(b"k", number(1)))
    node(Get(b"k"))
    node(Gets(b"k"))
    node(GetMany([b"k", b"x"]))
    node(Delete(b"y"))
    assert (node.stat("hits"), node.stat("misses"), node.stat("entries")) == (3, 1, 1)
    assert node(Ping()) is True


def test_threads_lose_no_count():
    """Commands of many threads are taken one at a time."""
    node = Embedded(max_entries=50)
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
    """A value's end in the middle of a command can ask the cache, and waits for nothing."""
    node = Embedded()
    found = []

    class Noisy(bytes):
        def __del__(self) -> None:
            found.append(node(Get(b"other")))

    node(Set(b"other", number(5)))
    node(Set(b"k", (RAW_FLAGS, Noisy(b"x"))))
    node(Set(b"k", number(1)))
    assert found == [number(5)]


@given(st.lists(st.binary(min_size=1), max_size=5))
def test_exchanges_are_over_when_they_begin(keys):
    """A fan-out has nothing to wait for, and gets the same reply as a plain call."""
    node = Embedded()
    node(SetMany([(key, number(1)) for key in keys]))
    exchange = node.backend.begin(GetMany(keys), DEADLINE)
    assert exchange.finished
    assert exchange.events() == 0
    assert exchange.fileno() == -1
    exchange.advance()


def test_a_closed_node_still_serves():
    """Calls that began on an older topology are served to the end."""
    node = Embedded()
    node.backend.close()
    node.backend.close()
    assert node(Set(b"k", number(1))) is True


def test_tasks_of_several_loops():
    """One embedded node serves loops one after another, each with a future that is done."""
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
    """A child has the parent's entries, or none if another thread was busy; it never waits."""
    node = Embedded()
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
