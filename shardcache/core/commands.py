"""What a client can ask of one node, as values, with the reply each gets.

Keys here are canonical (`core.keys`): namespace in front, never empty. A payload is
`(flags, data)`: how the bytes were encoded (`core.values.flags`) and the bytes. A `ttl` is seconds
above zero, or `None` for no expiry; writes that expire at once become deletes before they get here.
NamedTuples, because a frozen dataclass costs 1 µs to make and these 0.25.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from shardcache.errors import ConfigurationError, NodeError

Payload: TypeAlias = tuple[int, bytes]


class When(Enum):
    """When a store takes place."""

    ALWAYS = "set"
    ABSENT = "add"
    PRESENT = "replace"


class Get(NamedTuple):
    """Read one key. Reply: its payload, or `None`."""

    key: bytes


class GetMany(NamedTuple):
    """Read many keys. Reply: a list as long as `keys`, each a payload, `None` or a `NodeError`."""

    keys: Sequence[bytes]


class Gets(NamedTuple):
    """Read one key for a later `Cas`. Reply: `(payload, token)`, or `None`; the token is opaque."""

    key: bytes


class Set(NamedTuple):
    """Store one key. Reply: whether it was stored, as `when` asks."""

    key: bytes
    payload: Payload
    ttl: float | None = None
    when: When = When.ALWAYS


class SetMany(NamedTuple):
    """Store many keys. Reply: a list as long as `items`, each `True` or a `NodeError`."""

    items: Sequence[tuple[bytes, Payload]]
    ttl: float | None = None


class Cas(NamedTuple):
    """Store one key if unchanged since its `Gets`. Reply: `True` stored, `False` changed, `None` gone."""

    key: bytes
    payload: Payload
    token: Hashable
    ttl: float | None = None


class Delete(NamedTuple):
    """Remove one key. Reply: whether it was there."""

    key: bytes


class DeleteMany(NamedTuple):
    """Remove many keys. Reply: a list as long as `keys`, each a bool or a `NodeError`."""

    keys: Sequence[bytes]


class Touch(NamedTuple):
    """Give a key a new expiry. Reply: whether it was there."""

    key: bytes
    ttl: float | None


class Incr(NamedTuple):
    """Add `delta` to a counter; below zero subtracts, and the counter stops at 0.

    Reply: the new value, or `None` when the key is missing. A `NotACounterError` when the value is
    not a whole number from 0 to 2**63 - 1, or would rise above that. The expiry stays as it is.
    """

    key: bytes
    delta: int


class StubReply(NamedTuple):
    """What a `GetOrStub` met: a value, or the stub of a recompute, and the token that stands for it.

    `payload` is `None` for a stub; `leads` is whether the stub is the caller's own. A `Cas` with
    `token` stores only while what was met is still there: a later write or delete voids it. `stub`
    is the stub as a `Get` shows it.
    """

    payload: Payload | None
    token: Hashable
    leads: bool
    stub: Payload | None = None


class GetOrStub(NamedTuple):
    """Read one key; if it is missing, leave a stub that says that it is being made. Reply: `StubReply`.

    The stub vanishes after `ttl` seconds, and holds `mark`, which no other has; on memcached only from
    the first `Renew` on, and until then its token alone says whose it is.
    """

    key: bytes
    mark: bytes
    ttl: float


class Renew(NamedTuple):
    """Give a stub another `ttl` seconds if it is still the one that `token` stands for.

    Reply: the token from now on, or `None`.
    """

    key: bytes
    mark: bytes
    token: Hashable
    ttl: float


class Acquired(NamedTuple):
    """What a `Acquire` gave: a token for what has been stored, good for `DeleteCas`."""

    token: Hashable


class Acquire(NamedTuple):
    """Store one key if it is missing, to be held. Reply: `Acquired`, or `False` when it is there."""

    key: bytes
    payload: Payload
    ttl: float


class DeleteCas(NamedTuple):
    """Remove a key if it still holds what `token` stands for. Reply: whether it did."""

    key: bytes
    token: Hashable


class CompareAndDelete(NamedTuple):
    """Remove a key if it holds `payload`. Reply: whether it did.

    A backend whose server cannot compare names this and the next in `lacks`.
    """

    key: bytes
    payload: Payload


class CompareAndExpire(NamedTuple):
    """Give a key `ttl` seconds from now if it holds `payload`. Reply: whether it does."""

    key: bytes
    payload: Payload
    ttl: float


class Ping(NamedTuple):
    """Ask for a sign of life. Reply: `True`."""


class ServerStats(NamedTuple):
    """Ask for the server's own figures. Reply: a dict from `str` to `str`."""


class FlushAll(NamedTuple):
    """Empty the node. Reply: `True`."""


Command: TypeAlias = (
    Get
    | GetMany
    | Gets
    | Set
    | SetMany
    | Cas
    | Delete
    | DeleteMany
    | Touch
    | Incr
    | GetOrStub
    | Renew
    | Acquire
    | DeleteCas
    | CompareAndDelete
    | CompareAndExpire
    | Ping
    | ServerStats
    | FlushAll
)

# A reply is of the type its command names. It may also be a `NodeError` *as a value*: the node's
# refusal of that one command, after which the connection is still good. A `ConfigurationError` as
# a value says that this node can never serve this client (such as a member of a Redis Cluster);
# a backend raises it, whatever `on_error` says.
Reply: TypeAlias = (
    Payload
    | tuple[Payload, Hashable]
    | StubReply
    | Acquired
    | Hashable
    | list[Payload | NodeError | None]
    | list[bool | NodeError]
    | dict[str, str]
    | bool
    | int
    | NodeError
    | ConfigurationError
    | None
)

# Commands that may be sent a second time, on a fresh connection, when a pooled one turned out dead
# before any byte of the reply.
IDEMPOTENT: frozenset[type] = frozenset(
    {Get, GetMany, Gets, Delete, DeleteMany, Touch, Ping, ServerStats}
)
