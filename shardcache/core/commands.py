"""The commands that a client sends to one node, as values, and the reply to each.

Keys here are canonical (`core.keys`): namespace in front, never empty. A payload is
`(flags, data)`: how the bytes were encoded (`core.values.flags`), and the bytes. A `ttl` is seconds
above zero, or `None` for no expiry; writes that expire at once become deletes before they get here.
NamedTuples, because a frozen dataclass costs 1 µs to build and these 0.25.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from enum import Enum
from functools import partial
from itertools import islice, repeat
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from shardcache.errors import ConfigurationError, NodeError

T = TypeVar("T")

Payload: TypeAlias = tuple[int, bytes]
UNREAD: Final = b"?"  # in place of the bytes of a payload that were not read

COUNTER_MAX: Final = 2**63 - 1  # the largest number that every server can hold
COUNTER_MIN: Final = -(2**63)


class When(Enum):
    """The condition of a store."""

    ALWAYS = "set"
    ABSENT = "add"
    PRESENT = "replace"


class Get(NamedTuple):
    """Read one key. Reply: its payload, or `None`."""

    key: bytes


# A `Get` of the fields in a tuple, in half the time: every `get` of asyncio makes one.
make_get: Final[Callable[[tuple[bytes]], Get]] = partial(tuple.__new__, Get)


class GetMany(NamedTuple):
    """Read many keys. Reply: a list as long as `keys`, each a payload, `None` or a `NodeError`; or `Hits`."""

    keys: Sequence[bytes]


class Gets(NamedTuple):
    """Read one key for a later `Cas`. Reply: `(payload, token)`, or `None`; the token is opaque."""

    key: bytes


class GetAged(NamedTuple):
    """Read one key, and how long it lives. Reply: `(payload, seconds left)`, or `None`.

    The seconds are infinite without an expiry. memcached: `mg key v f t`, in whole seconds, so that up
    to one of them has passed. Redis: a script of `GET` and `PTTL`.
    """

    key: bytes


class Peek(NamedTuple):
    """Read how long one key lives, without its bytes. Reply: that of a `GetAged`.

    The payload has its flags, and may have `UNREAD` in place of bytes. memcached: `mg key f s t`. Redis: a
    script of `GETRANGE` and `PTTL`.
    """

    key: bytes


class Set(NamedTuple):
    """Store one key, on the condition `when`. Reply: whether it was stored."""

    key: bytes
    payload: Payload
    ttl: float | None = None
    when: When = When.ALWAYS


class LazyList(Sequence[T]):
    """A sequence that is equal to a list and reads like one, whose items are made as they are looked at."""

    __slots__ = ()

    # With both signatures of a sequence, hence `Any`.
    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return repr(list(self))


class Items(LazyList[tuple[bytes, Payload]]):
    """The items of a `SetMany` whose payloads have the same flags: what these consist of, each in a list.

    So a wire need not look at each item, and no pair is made for it: that saves a twentieth of a call
    about a hundred. It is never changed.

    >>> list(Items([b"a", b"b"], 0, [b"1", b"2"]))
    [(b'a', (0, b'1')), (b'b', (0, b'2'))]
    """

    __slots__ = ("data", "flags", "keys")

    def __init__(self, keys: list[bytes], flags: int, data: list[bytes]) -> None:
        self.keys = keys
        self.flags = flags
        self.data = data

    def payloads(self) -> Iterator[Payload]:
        """Return an iterator over the payloads."""
        return zip(repeat(self.flags), self.data)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[bytes, Payload]]:
        return zip(self.keys, self.payloads(), strict=False)


class SetMany(NamedTuple):
    """Store many keys. Reply: a list as long as `items`, each `True` or a `NodeError`."""

    items: Sequence[tuple[bytes, Payload]]
    ttl: float | None = None


class Until(NamedTuple):
    """The reply to a `GetExpiry`: seconds since 1970 by the server's clock; a date of 0 is no expiry.

    If it is not `exact`, a second of the server ended meanwhile; the date may be a second too early.
    """

    date: int
    exact: bool = True


class GetExpiry(NamedTuple):
    """Read when one key expires. Reply: `Until`, or `None`.

    For servers that cannot keep an expiry by themselves: with `CasUntil` it takes the place of `CasKeep`.
    memcached: `mg key t`, `stats`, which has the server's time, and `mg key t` in one request. The
    seconds left would not do: they count from the arrival of the store, so a value that is often
    stored might never expire.
    """

    key: bytes


class CasUntil(NamedTuple):
    """Store one key, to expire on a date of this node, if unchanged since its `Gets`. Reply: that of a `Cas`."""

    key: bytes
    payload: Payload
    token: Hashable
    until: Until


class Cas(NamedTuple):
    """Store one key if unchanged since its `Gets`. Reply: `True` stored, `False` changed, `None` gone."""

    key: bytes
    payload: Payload
    token: Hashable
    ttl: float | None = None


class CasKeep(NamedTuple):
    """Store one key if unchanged since its `Gets`, and keep its expiry. Reply: that of a `Cas`.

    Redis: a script of `GET`, compare, `SET … KEEPTTL`. memcached cannot: see `GetExpiry`.
    """

    key: bytes
    payload: Payload
    token: Hashable


class Delete(NamedTuple):
    """Remove one key. Reply: whether the key was there."""

    key: bytes


class DeleteMany(NamedTuple):
    """Remove many keys. Reply: a list as long as `keys`, each a bool or a `NodeError`."""

    keys: Sequence[bytes]


class Touch(NamedTuple):
    """Set a key's expiry. Reply: whether the key was there."""

    key: bytes
    ttl: float | None


class Incr(NamedTuple):
    """Add `delta` to a counter. A negative delta subtracts, and the counter stops at 0.

    Reply: the new value, or `None` when the key is missing. A `NotACounterError` when the value is
    not a whole number from 0 to 2**63 - 1, or would rise above that. The expiry does not change.
    """

    key: bytes
    delta: int


class IncrSigned(NamedTuple):
    """Add `delta` to a counter that may be negative.

    Reply: the new value, or `None` when the key is missing. A `NotACounterError` when the value is
    not a whole number from -2**63 to 2**63 - 1, or would leave that range. The expiry does not change.
    memcached cannot: a client takes `Gets` and `Cas` there.
    """

    key: bytes
    delta: int


class StubReply(NamedTuple):
    """The reply to a `GetOrStub`: a value or a stub, and its CAS token.

    `payload` is `None` for a stub; `leads` is whether the stub is the caller's own. A `Cas` with
    `token` stores only while that value or stub is still there: a later write or delete voids the
    token. `stub` is the stub as a `Get` shows it.
    """

    payload: Payload | None
    token: Hashable
    leads: bool
    stub: Payload | None = None


class GetOrStub(NamedTuple):
    """Read one key; if it is missing, leave a stub: a recompute is in progress. Reply: `StubReply`.

    memcached: `mg key v f c N<ttl>`, the meta get that creates a missing item (*vivify*) and flags
    its winner (`W`). Redis: a script of `GET` and `SET key stub NX PX`. The paper's word for the
    right to store is *lease* (Nishtala et al., NSDI 2013).

    The stub expires after `ttl` seconds. It holds `mark`, which is unique; on memcached only from
    the first `Renew` on: until then its CAS token alone identifies it.
    """

    key: bytes
    mark: bytes
    ttl: float


class Renew(NamedTuple):
    """Extend a stub by `ttl` seconds if its token is still `token`.

    Reply: the stub's token from now on, or `None`.
    """

    key: bytes
    mark: bytes
    token: Hashable
    ttl: float


class Acquired(NamedTuple):
    """The reply to a successful `Acquire`: the CAS token of the stored payload, for `DeleteCas`."""

    token: Hashable


class Acquire(NamedTuple):
    """Store the token of a lock if the key is missing. Reply: `Acquired`, or `False` if it is there.

    memcached: `ms key <size> ME c`, a meta set in `add` mode that returns the item's CAS number.
    Redis: `SET key payload NX PX <milliseconds>`.
    """

    key: bytes
    payload: Payload
    ttl: float


class DeleteCas(NamedTuple):
    """Remove a key if its CAS token is still `token`. Reply: whether it was removed.

    memcached: `md key C<token>`. Redis has no CAS numbers: its token is a digest of the stored bytes,
    which a script compares before it calls `DEL`.
    """

    key: bytes
    token: Hashable


class CompareAndDelete(NamedTuple):
    """Remove a key if it holds `payload`. Reply: whether it was removed.

    Redis: the release script of Redlock, `GET`, compare, `DEL`. memcached cannot compare values. Where a
    backend does not support this command and the next, a client reads the key first and changes it by
    `Cas` or `DeleteCas`.
    """

    key: bytes
    payload: Payload


class CompareAndExpire(NamedTuple):
    """Set a key's expiry to `ttl` seconds if it holds `payload`. Reply: whether it holds it.

    Redis: a script of `GET`, compare, `PEXPIRE`. memcached cannot compare values: `Gets` with `Cas`
    takes its place.
    """

    key: bytes
    payload: Payload
    ttl: float


class CommandList(NamedTuple):
    """Send commands to one node together, in this order. Reply: a list with the reply to each.

    A command that fails has its `NodeError` there, and the others are carried out all the same.
    Other clients' commands may come in between. Each command is about one key.
    """

    commands: Sequence[Command]


class Ping(NamedTuple):
    """Ask whether the server answers. Reply: `True`."""


class ServerStats(NamedTuple):
    """Ask for the server's own figures. Reply: a dict from `str` to `str`."""


class FlushAll(NamedTuple):
    """Empty the node. Reply: `True`."""


Command: TypeAlias = (
    Get
    | GetMany
    | Gets
    | GetAged
    | Peek
    | Set
    | SetMany
    | GetExpiry
    | Cas
    | CasKeep
    | CasUntil
    | Delete
    | DeleteMany
    | Touch
    | Incr
    | IncrSigned
    | GetOrStub
    | Renew
    | Acquire
    | DeleteCas
    | CompareAndDelete
    | CompareAndExpire
    | CommandList
    | Ping
    | ServerStats
    | FlushAll
)


class Hits(LazyList[Payload]):
    """The reply to a `GetMany` if all keys were found with the same flags: their payloads.

    `flags` and `data` are what these consist of, so that a reader of many keys need not look at each, and
    no payload is made: that saves a tenth of a call about a thousand. It is never changed.

    >>> list(Hits(0, [b"1", b"2"]))
    [(0, b'1'), (0, b'2')]
    """

    __slots__ = ("data", "flags")

    def __init__(self, flags: int, data: Sequence[bytes]) -> None:
        self.flags = flags
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Payload]:
        return zip(repeat(self.flags), self.data)


# The types of the reply to a command about many keys, when the node has not failed.
REPLIES: Final = (list, Hits)

# A reply is of the type that its command names. It may also be a `NodeError` *as a value*: the node
# refused that one command, and the connection is still good. A `ConfigurationError` as a value says
# that this node can never serve this client (such as a member of a Redis Cluster); a backend raises
# it, whatever `on_error` says.
Reply: TypeAlias = (
    Payload
    | tuple[Payload, Hashable]
    | tuple[Payload, float]
    | StubReply
    | Acquired
    | Until
    | Hashable
    | list[Payload | NodeError | None]
    | Hits
    | list[bool | NodeError]
    | list[Any]  # to a `CommandList`
    | dict[str, str]
    | bool
    | int
    | NodeError
    | ConfigurationError
    | None
)

CommandT = TypeVar("CommandT", bound=Command)

_KEYLESS: Final = (Ping, ServerStats, FlushAll)


def keys_of(command: Command) -> Sequence[bytes]:
    """Return the keys of a command, in its order; none for a command about the whole node.

    >>> keys_of(Get(b"k")), keys_of(SetMany([(b"k", (0, b"1")), (b"l", (0, b"2"))])), keys_of(Ping())
    ((b'k',), [b'k', b'l'], ())
    """
    if type(command) is Get:  # most calls
        return (command.key,)
    if isinstance(command, _KEYLESS):
        return ()
    if isinstance(command, (GetMany, DeleteMany)):
        return command.keys
    if isinstance(command, SetMany):
        items = command.items
        return items.keys if isinstance(items, Items) else [key for key, _ in items]
    if isinstance(command, CommandList):
        return [key for each in command.commands for key in keys_of(each)]
    return (command.key,)


def with_keys(command: CommandT, keys: Sequence[bytes]) -> CommandT:
    """Return the command with other keys, as many as it has, in its order.

    >>> with_keys(SetMany([(b"k", (0, b"1"))], 10.0), [b"n:k"])
    SetMany(items=[(b'n:k', (0, b'1'))], ttl=10.0)
    """
    if isinstance(command, _KEYLESS):
        return command
    fields: Any = command  # each kind has others
    renamed: CommandT
    if isinstance(command, (GetMany, DeleteMany)):
        renamed = fields._replace(keys=keys)
    elif isinstance(command, SetMany):
        payloads = (payload for _, payload in command.items)
        renamed = fields._replace(items=list(zip(keys, payloads, strict=True)))
    elif isinstance(command, CommandList):
        left = iter(keys)
        renamed = fields._replace(
            commands=[
                with_keys(each, list(islice(left, len(keys_of(each))))) for each in command.commands
            ]
        )
    else:
        (key,) = keys
        renamed = fields._replace(key=key)
    return renamed


def with_ttl(command: CommandT, ttl: float | None) -> CommandT:
    """Return the command with another ttl; a command without one is returned as it is.

    >>> with_ttl(Touch(b"k", 60.0), 10.0), with_ttl(Get(b"k"), 10.0)
    (Touch(key=b'k', ttl=10.0), Get(key=b'k'))
    """
    fields: Any = command  # each kind has others
    timed: CommandT
    if isinstance(command, CommandList):
        timed = fields._replace(commands=[with_ttl(each, ttl) for each in command.commands])
    elif hasattr(command, "ttl"):
        timed = fields._replace(ttl=ttl)
    else:
        timed = command
    return timed


def is_delete(command: Command) -> bool:
    """Return whether a command removes keys, whatever they hold.

    >>> is_delete(CommandList([Get(b"k"), Delete(b"k")])), is_delete(DeleteCas(b"k", 1))
    (True, False)
    """
    if isinstance(command, CommandList):
        return any(map(is_delete, command.commands))
    return isinstance(command, (Delete, DeleteMany))


def take(command: CommandT, places: Sequence[int]) -> CommandT:
    """Return a command with only some of its keys, by their places; one about one key as it is.

    >>> take(GetMany([b"a", b"b", b"c"]), [0, 2])
    GetMany(keys=[b'a', b'c'])
    """
    fields: Any = command  # each kind has others
    taken: CommandT = command
    if isinstance(command, (GetMany, DeleteMany)):
        taken = fields._replace(keys=[command.keys[place] for place in places])
    elif isinstance(command, SetMany):
        taken = fields._replace(items=[command.items[place] for place in places])
    return taken
