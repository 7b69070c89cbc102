"""In-process memory nodes: a bounded cache with the semantics of the servers."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from weakref import WeakSet

from shardcache.backends.base import BackendOptions, FinishedExchange
from shardcache.backends.handlers import Handlers
from shardcache.core.commands import (
    COUNTER_MAX,
    COUNTER_MIN,
    Acquire,
    Acquired,
    Cas,
    CasKeep,
    Command,
    CommandList,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    IncrSigned,
    Payload,
    Peek,
    Ping,
    Renew,
    Reply,
    ServerStats,
    Set,
    SetMany,
    StubReply,
    Touch,
    When,
)
from shardcache.core.placement.nodes import Node
from shardcache.core.urls import redact
from shardcache.core.values.flags import INTEGER_FLAGS, is_stub, stub
from shardcache.errors import ConfigurationError, NodeError, NotACounterError, ValueTooLargeError

if TYPE_CHECKING:  # it loads asyncio
    from shardcache.backends.memory_asyncio import AsyncMemoryBackend

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024  # as memcached without -m

# The memory that CPython needs for an entry in addition to the bytes of its key and value, including
# its share of the tables: measured at 350 without an expiry, and 450 to 480 with one.
ENTRY_OVERHEAD: Final = 450

_SPARE_DUE: Final = 64  # outdated expiries that are not worth a clean-up


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a memory node: entries, and bytes including Python's overhead."""

    max_entries: int | None = None
    max_bytes: int = DEFAULT_MAX_BYTES

    @classmethod
    def from_node(cls, node: Node) -> Bounds:
        """Read the bounds from a node's URL; raise `ConfigurationError` listing every fault."""
        options = dict(node.address.options)
        faults = [
            f"node {node.name}: {fault}"
            for name, value in options.items()
            for fault in _faults(name, value)
        ]
        if faults:
            raise ConfigurationError(*faults)
        return cls(**{name: int(value) for name, value in options.items()})


_is_whole = re.compile(r"[1-9][0-9]{0,17}").fullmatch


def _faults(name: str, value: str) -> Iterator[str]:
    known = [field.name for field in fields(Bounds)]
    if name not in known:
        yield f"no option {redact(name)} (known: {', '.join(known)})"
    elif not _is_whole(value):
        yield f"{name} must be a whole number above zero"


class Entry(NamedTuple):
    """The entry of a key. Each write has a new `token`; `expires` is on the node's clock."""

    payload: Payload
    expires: float
    token: int


class Store:
    """The memory of one node. Expired entries are evicted first, then the least recently used.

    Each command runs as a whole under one lock. The lock is reentrant, because a finalizer may run
    in the middle of a command and use the cache itself.
    """

    # Each takes its own command type, hence `Any`.
    _handlers: ClassVar[Handlers[Callable[[Store, Any], Reply]]] = Handlers("memory")

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._clock = clock
        self._lock = threading.RLock()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()  # the most recently used last
        self._due: list[tuple[float, bytes]] = []  # a heap of expiries, some of them outdated
        self._bytes = 0
        self._writes = 0
        self._hits = self._misses = self._evictions = self._expired = 0
        _watch_forks()
        _stores.add(self)

    def execute(self, command: Command) -> Reply:
        """Execute `command` and return its reply."""
        with self._lock:
            return self._handlers[type(command)](self, command)

    def recover(self) -> None:
        """Make the copy in a forked child usable; empty it if another thread was writing to it."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()
            self._clear()

    @_handlers.handles(Get)
    def _get(self, command: Get) -> Payload | None:
        entry = self._read(command.key)
        return None if entry is None else entry.payload

    @_handlers.handles(GetMany)
    def _get_many(self, command: GetMany) -> list[Payload | NodeError | None]:
        entries = map(self._read, command.keys)
        return [None if entry is None else entry.payload for entry in entries]

    @_handlers.handles(Gets)
    def _gets(self, command: Gets) -> tuple[Payload, Hashable] | None:
        entry = self._read(command.key)
        return None if entry is None else (entry.payload, entry.token)

    @_handlers.handles(Peek)  # it saves nothing to leave out the bytes
    @_handlers.handles(GetAged)
    def _get_aged(self, command: GetAged | Peek) -> tuple[Payload, float] | None:
        entry = self._read(command.key)
        return None if entry is None else (entry.payload, entry.expires - self._clock())

    @_handlers.handles(Set)
    def _set(self, command: Set) -> bool | NodeError:
        key, payload, ttl, when = command
        if when is not When.ALWAYS and (self._find(key) is not None) != (when is When.PRESENT):
            return False
        return self._write(key, payload, self._expiry(ttl))

    @_handlers.handles(SetMany)
    def _set_many(self, command: SetMany) -> list[bool | NodeError]:
        expires = self._expiry(command.ttl)
        return [self._write(key, payload, expires) for key, payload in command.items]

    @_handlers.handles(Cas)
    def _cas(self, command: Cas) -> bool | NodeError | None:
        entry = self._find(command.key)
        if entry is None:
            return None
        if entry.token != command.token:
            return False
        return self._write(command.key, command.payload, self._expiry(command.ttl))

    @_handlers.handles(CasKeep)
    def _cas_keep(self, command: CasKeep) -> bool | NodeError | None:
        entry = self._find(command.key)
        if entry is None:
            return None
        if entry.token != command.token:
            return False
        return self._write(command.key, command.payload, entry.expires)

    @_handlers.handles(Delete)
    def _delete(self, command: Delete) -> bool:
        return self._remove(command.key)

    @_handlers.handles(DeleteMany)
    def _delete_many(self, command: DeleteMany) -> list[bool | NodeError]:
        return [self._remove(key) for key in command.keys]

    @_handlers.handles(Touch)
    def _touch(self, command: Touch) -> bool:
        entry = self._find(command.key)
        if entry is None:
            return False
        self._put(command.key, entry._replace(expires=self._expiry(command.ttl)))
        return True

    @_handlers.handles(Incr)
    def _incr(self, command: Incr) -> int | NodeError | None:
        return self._add_to_counter(command.key, command.delta, least=0)

    @_handlers.handles(IncrSigned)
    def _incr_signed(self, command: IncrSigned) -> int | NodeError | None:
        return self._add_to_counter(command.key, command.delta, least=COUNTER_MIN)

    def _add_to_counter(self, key: bytes, delta: int, least: int) -> int | NodeError | None:
        """Add to the number of a key, and keep its expiry; the number stops at a `least` of 0."""
        entry = self._find(key)
        if entry is None:
            return None
        count = _number(entry.payload)
        if count is None or not least <= count <= COUNTER_MAX:
            return NotACounterError("the value is not a counter")
        total = max(0, count + delta) if least == 0 else count + delta
        if not least <= total <= COUNTER_MAX:
            return NotACounterError("the counter would not fit in 64 bits")
        stored = self._write(key, (INTEGER_FLAGS, b"%d" % total), entry.expires)
        return stored if isinstance(stored, NodeError) else total

    @_handlers.handles(GetOrStub)
    def _get_or_stub(self, command: GetOrStub) -> StubReply | NodeError:
        entry = self._read(command.key)
        if entry is not None:
            if is_stub(entry.payload):
                return StubReply(None, entry.token, leads=False, stub=entry.payload)
            return StubReply(entry.payload, entry.token, leads=False)
        own = stub(command.mark)
        stored = self._write(command.key, own, self._expiry(command.ttl))
        if isinstance(stored, NodeError):
            return stored
        return StubReply(None, self._writes, leads=True, stub=own)

    @_handlers.handles(Renew)
    def _renew(self, command: Renew) -> Hashable | None:
        entry = self._find(command.key)
        if entry is None or entry.token != command.token:
            return None
        self._put(command.key, entry._replace(expires=self._expiry(command.ttl)))
        return entry.token

    @_handlers.handles(Acquire)
    def _acquire(self, command: Acquire) -> Acquired | bool | NodeError:
        if self._find(command.key) is not None:
            return False
        stored = self._write(command.key, command.payload, self._expiry(command.ttl))
        return stored if isinstance(stored, NodeError) else Acquired(self._writes)

    @_handlers.handles(DeleteCas)
    def _delete_cas(self, command: DeleteCas) -> bool:
        entry = self._find(command.key)
        return entry is not None and entry.token == command.token and self._remove(command.key)

    @_handlers.handles(CompareAndDelete)
    def _compare_and_delete(self, command: CompareAndDelete) -> bool:
        entry = self._find(command.key)
        return entry is not None and entry.payload == command.payload and self._remove(command.key)

    @_handlers.handles(CompareAndExpire)
    def _compare_and_expire(self, command: CompareAndExpire) -> bool:
        entry = self._find(command.key)
        if entry is None or entry.payload != command.payload:
            return False
        self._put(command.key, entry._replace(expires=self._expiry(command.ttl)))
        return True

    @_handlers.handles(CommandList)
    def _list(self, command: CommandList) -> list[Reply]:
        return [self.execute(each) for each in command.commands]

    @_handlers.handles(Ping)
    def _ping(self, _: Ping) -> bool:
        return True

    @_handlers.handles(ServerStats)
    def _stats(self, _: ServerStats) -> dict[str, str]:
        figures = {
            "entries": len(self._entries),
            "bytes": self._bytes,
            "max_bytes": self._bounds.max_bytes,
            "hits": self._hits,
            "misses": self._misses,
            "evictions": self._evictions,
            "expired": self._expired,
        }
        return {name: str(figure) for name, figure in figures.items()}

    @_handlers.handles(FlushAll)
    def _flush_all(self, _: FlushAll) -> bool:
        self._clear()
        return True

    supports: ClassVar[frozenset[type]] = _handlers.supports

    def _clear(self) -> None:
        self._entries.clear()
        self._due.clear()
        self._bytes = 0

    def _expiry(self, ttl: float | None) -> float:
        return math.inf if ttl is None else self._clock() + ttl

    def _read(self, key: bytes) -> Entry | None:
        """Return the key's entry, counted as a hit or a miss and as recently used."""
        entry = self._find(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return entry

    def _find(self, key: bytes) -> Entry | None:
        """Return the key's entry unless it has expired."""
        entry = self._entries.get(key)
        if entry is None or entry.expires > self._clock():
            return entry
        self._drop(key)
        self._expired += 1
        return None

    def _write(self, key: bytes, payload: Payload, expires: float) -> bool | NodeError:
        size = _size(key, payload)
        if size > self._bounds.max_bytes:
            return ValueTooLargeError(f"an entry of {size} bytes is above max_bytes")
        self._writes += 1
        self._put(key, Entry(payload, expires, self._writes))
        while self._is_over():
            self._make_room()
        return True

    def _remove(self, key: bytes) -> bool:
        there = self._find(key) is not None
        if there:
            self._drop(key)
        return there

    def _put(self, key: bytes, entry: Entry) -> None:
        if key in self._entries:
            self._drop(key)
        self._entries[key] = entry
        self._bytes += _size(key, entry.payload)
        if entry.expires < math.inf:
            self._schedule(entry.expires, key)

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self._bytes -= _size(key, entry.payload)

    def _schedule(self, expires: float, key: bytes) -> None:
        heappush(self._due, (expires, key))
        if len(self._due) > 2 * len(self._entries) + _SPARE_DUE:
            self._due = [(e.expires, k) for k, e in self._entries.items() if e.expires < math.inf]
            heapify(self._due)

    def _is_over(self) -> bool:
        bounds = self._bounds
        return self._bytes > bounds.max_bytes or (
            bounds.max_entries is not None and len(self._entries) > bounds.max_entries
        )

    def _make_room(self) -> None:
        """Drop one entry: an expired one if there is any, otherwise the least recently used."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            expires, key = heappop(self._due)
            entry = self._entries.get(key)
            if entry is not None and entry.expires == expires:
                self._drop(key)
                self._expired += 1
                return
        self._drop(next(iter(self._entries)))
        self._evictions += 1


def _size(key: bytes, payload: Payload) -> int:
    return ENTRY_OVERHEAD + len(key) + len(payload[1])


def _number(payload: Payload) -> int | None:
    """Return a whole number that is stored as such, `None` for any other value."""
    flags, data = payload
    return int(data) if flags == INTEGER_FLAGS else None


# A lock held by a thread of the parent stays locked for ever in a forked child.
_stores: WeakSet[Store] = WeakSet()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_recover_all)


def _recover_all() -> None:
    for store in _stores:
        store.recover()


class MemoryBackend:
    """A memory node for blocking callers. It never waits, so deadlines do not matter."""

    __slots__ = ("_execute",)

    supports = Store.supports

    def __init__(self, store: Store) -> None:
        self._execute = store.execute

    def execute(self, command: Command, deadline: float) -> Reply:  # noqa: ARG002 - it never waits
        """Execute `command` and return its reply."""
        return self._execute(command)

    def begin(self, command: Command, deadline: float) -> FinishedExchange:  # noqa: ARG002 - it never waits
        """Execute `command`; return a finished exchange."""
        return FinishedExchange(self._execute(command))

    def eject(self) -> None:
        """Do nothing: there are no connections."""

    def close(self) -> None:
        """Do nothing: the memory is freed with the backend."""


class Memory:
    """A factory of nodes for `memory://name?max_entries=&max_bytes=`, each with its own memory.

    `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def blocking(self, node: Node, options: BackendOptions) -> MemoryBackend:  # noqa: ARG002 - no connections
        """Return an empty node for blocking callers; raise `ConfigurationError` for bad options in its URL."""
        return MemoryBackend(Store(Bounds.from_node(node), self._clock))

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncMemoryBackend:  # noqa: ARG002 - no connections
        """Return an empty node for asyncio; raise `ConfigurationError` for bad options in its URL."""
        # Imported here because a program with blocking clients alone needs no event loop.
        from shardcache.backends.memory_asyncio import AsyncMemoryBackend  # noqa: PLC0415

        return AsyncMemoryBackend(Store(Bounds.from_node(node), self._clock))
