"""A store in memory does as its model does, within its bounds: a search by a state machine."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backends.embedding import MemoryNode, number, text
from shardcache.backends.memory import ENTRY_OVERHEAD
from shardcache.core.commands import (
    Cas,
    CasKeep,
    Delete,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetMany,
    Gets,
    Incr,
    IncrSigned,
    Payload,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.values.flags import INTEGER_FLAGS, RAW_FLAGS
from shardcache.errors import NotACounterError, ValueTooLargeError


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
    """A memory node and a list that is plainly right get the same commands."""

    def __init__(self) -> None:
        super().__init__()
        self.node = MemoryNode(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        self.kept: dict[bytes, Kept] = {}  # the least recently used first
        self.versions = 0
        self.seen: list[tuple[bytes, object, int]] = []  # key, token and version of each gets

    def live(self, key: bytes) -> Kept | None:
        """Return what the model has for a key, unless it has expired."""
        kept = self.kept.get(key)
        return kept if kept and kept.expires > self.node.clock.now else None

    def used(self, key: bytes) -> Kept | None:
        """Return the same, now the most recently used."""
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
        """Return the bytes that the model holds."""
        return sum(size(key, kept.payload) for key, kept in self.kept.items())

    def until(self, ttl: float | None) -> float:
        """Return when a time to live that begins now is over."""
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

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), payload=PAYLOADS)
    def cas_keep(self, data, payload):
        """Do the same, and keep the expiry."""
        key, token, version = data.draw(st.sampled_from(self.seen))
        kept = self.live(key)
        reply = self.node(CasKeep(key, payload, token))
        if kept is None:
            assert reply is None
        elif kept.version != version:
            assert reply is False
        else:
            fits = self.put(key, payload, kept.expires)
            assert stored(reply) is fits

    @rule(key=KEYS)
    def delete(self, key):
        """Return whether it was there."""
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

    @rule(key=KEYS, delta=st.integers(-9, 3) | st.sampled_from([2**63 - 1, -(2**63) + 1]))
    def incr_signed(self, key, delta):
        """Count within 64 bits, below zero as well, and keep the expiry."""
        kept = self.live(key)
        reply = self.node(IncrSigned(key, delta))
        if kept is None:
            assert reply is None
            return
        flags, data = kept.payload
        count = int(data) if flags == INTEGER_FLAGS else 2**63
        if not (-(2**63) <= count < 2**63 and -(2**63) <= count + delta < 2**63):
            assert isinstance(reply, NotACounterError)
            return
        assert reply == count + delta
        self.put(key, number(reply), kept.expires)

    @rule(key=KEYS)
    def get_aged(self, key):
        """Return what is live and how long it lives, and count as a use."""
        kept = self.used(key)
        aged = kept and (kept.payload, kept.expires - self.node.clock.now)
        assert self.node(GetAged(key)) == aged

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
    """Return what an entry counts for."""
    return ENTRY_OVERHEAD + len(key) + len(payload[1])


def stored(reply: object) -> bool:
    """Return whether a write was done, or refused for its size: there is nothing else."""
    assert reply is True or isinstance(reply, ValueTooLargeError)
    return reply is True


TestAgainstModel = AgainstModel.TestCase
