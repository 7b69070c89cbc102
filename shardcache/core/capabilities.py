"""What each command does, and what a node can do: sets of commands, and what is lost without each.

| set | commands | without it |
|---|---|---|
| `PLAIN` | get, set, delete, touch, incr and their batches, ping, stats, flush | no backend |
| `CAS` | `Gets`, `Cas`, `DeleteCas` | no `gets`, `cas`, `clear`, and no `touch` with a secret |
| `STUBS` | `GetOrStub`, `Renew` | no `cached` and no `get_or_set`; both need `CAS` as well |
| `LOCKS` | `Acquire` | no `lock`, and no `cached(lock=True)`; both need `CAS` or `COMPARE` as well |
| `COMPARE` | `CompareAndDelete`, `CompareAndExpire` | a lock is released and extended in two steps, by `CAS` |
| `AGES` | `GetAged`, `Peek` | no `ttl`, no `cas` with `KEEP` and a secret; `exists` reads the whole value |
| `KEEPING` | `CasKeep`, `IncrSigned` | no `cas` with `KEEP`, and no `incr` with `floor=None`, unless there are `DATES` and `CAS` |
| `LISTS` | `CommandList` | nothing: commands to one node travel one by one |
| `DATES` | `GetExpiry`, `CasUntil` | nothing, with `KEEPING`: they are for servers that cannot keep an expiry |

A call that needs an unsupported command raises `UnsupportedError`. That is not a failure of the node:
`on_error="miss"` does not hide it, and the node is not ejected. `check` notes what is missing.

What handles commands by their kind, as failover and the replay of failed writes do, asks for a `Trait`.
So a new command is written in four places: its value in `commands`, its row here, a
handler in each backend that has it, and its test in the contract of backends.
"""

from __future__ import annotations

from enum import Flag, auto
from typing import Final

from shardcache.core.commands import (
    Acquire,
    Cas,
    CasKeep,
    CasUntil,
    CommandList,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetExpiry,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    IncrSigned,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
)


class Trait(Flag):
    """What a command does with callers' values."""

    NONE = 0
    READS = auto()  # its reply holds payloads
    LOOKS = auto()  # it tells what only the key's own node can tell of a value: a token, an expiry
    WRITES = (
        auto()
    )  # its failure may leave an old value; not for stubs and locks, which end by themselves
    BLIND = auto()  # without a condition on what is there, so that it may replace something newer
    REPLACES = auto()  # it replaces or removes what is there, whatever it is
    CHANGES = auto()  # it changes what is there
    LIMITS = auto()  # it says how long a caller's value lives
    ONE_STEP = auto()  # it needs nothing of an earlier reply
    # It may be sent a second time: on a fresh connection, when a pooled one was dead before any byte of
    # the reply, or to a stand-in.
    IDEMPOTENT = auto()
    REPEATABLE = auto()


_READ: Final = Trait.READS | Trait.ONE_STEP | Trait.IDEMPOTENT | Trait.REPEATABLE
_LOOK: Final = Trait.READS | Trait.LOOKS | Trait.IDEMPOTENT
_STORE: Final = Trait.WRITES | Trait.BLIND | Trait.LIMITS | Trait.ONE_STEP
_SWAP: Final = Trait.WRITES | Trait.REPLACES
_REMOVE: Final = _SWAP | Trait.ONE_STEP | Trait.IDEMPOTENT | Trait.REPEATABLE
_COUNT: Final = Trait.WRITES | Trait.CHANGES | Trait.ONE_STEP

_PLAIN: Final[dict[type, Trait]] = {
    Get: _READ,
    GetMany: _READ,
    Set: _STORE,  # what it replaces depends on its condition
    SetMany: _STORE | Trait.REPLACES | Trait.REPEATABLE,
    Delete: _REMOVE,
    DeleteMany: _REMOVE,
    Touch: _STORE | Trait.CHANGES | Trait.IDEMPOTENT,
    Incr: _COUNT,
    Ping: Trait.IDEMPOTENT,
    ServerStats: Trait.IDEMPOTENT,
    FlushAll: Trait.NONE,
}
_CAS: Final[dict[type, Trait]] = {Gets: _LOOK, Cas: _SWAP | Trait.LIMITS, DeleteCas: _SWAP}
_STUBS: Final[dict[type, Trait]] = {GetOrStub: Trait.NONE, Renew: Trait.NONE}
_LOCKS: Final[dict[type, Trait]] = {Acquire: Trait.NONE}
_COMPARE: Final[dict[type, Trait]] = {CompareAndDelete: Trait.NONE, CompareAndExpire: Trait.NONE}
_AGES: Final[dict[type, Trait]] = {GetAged: _LOOK, Peek: _LOOK}
_KEEPING: Final[dict[type, Trait]] = {CasKeep: _SWAP, IncrSigned: _COUNT}
_LISTS: Final[dict[type, Trait]] = {CommandList: Trait.WRITES}
_DATES: Final[dict[type, Trait]] = {
    GetExpiry: Trait.LOOKS | Trait.IDEMPOTENT,
    CasUntil: _SWAP,
}
_TRAITS: Final = {
    **_PLAIN,
    **_CAS,
    **_STUBS,
    **_LOCKS,
    **_COMPARE,
    **_AGES,
    **_KEEPING,
    **_LISTS,
    **_DATES,
}

PLAIN: Final = frozenset(_PLAIN)
CAS: Final = frozenset(_CAS)
STUBS: Final = frozenset(_STUBS)
LOCKS: Final = frozenset(_LOCKS)
COMPARE: Final = frozenset(_COMPARE)
AGES: Final = frozenset(_AGES)
KEEPING: Final = frozenset(_KEEPING)
LISTS: Final = frozenset(_LISTS)
DATES: Final = frozenset(_DATES)
EVERYTHING: Final = frozenset(_TRAITS)


def commands_with(traits: Trait, without: Trait = Trait.NONE) -> frozenset[type]:
    """Return the commands that have all of some traits, and none of others.

    >>> sorted(kind.__name__ for kind in commands_with(Trait.READS, without=Trait.LOOKS))
    ['Get', 'GetMany']
    """
    return frozenset(
        kind for kind, its in _TRAITS.items() if traits & its == traits and not without & its
    )


IDEMPOTENT: Final = commands_with(Trait.IDEMPOTENT)
