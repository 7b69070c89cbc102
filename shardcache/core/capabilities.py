"""What a node can do: sets of commands, and what a client loses without each set.

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
"""

from __future__ import annotations

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

PLAIN: Final[frozenset[type]] = frozenset(
    {
        Get,
        GetMany,
        Set,
        SetMany,
        Delete,
        DeleteMany,
        Touch,
        Incr,
        Ping,
        ServerStats,
        FlushAll,
    }
)
CAS: Final[frozenset[type]] = frozenset({Gets, Cas, DeleteCas})
STUBS: Final[frozenset[type]] = frozenset({GetOrStub, Renew})
LOCKS: Final[frozenset[type]] = frozenset({Acquire})
COMPARE: Final[frozenset[type]] = frozenset({CompareAndDelete, CompareAndExpire})
AGES: Final[frozenset[type]] = frozenset({GetAged, Peek})
KEEPING: Final[frozenset[type]] = frozenset({CasKeep, IncrSigned})
LISTS: Final[frozenset[type]] = frozenset({CommandList})
DATES: Final[frozenset[type]] = frozenset({GetExpiry, CasUntil})
EVERYTHING: Final[frozenset[type]] = (
    PLAIN | CAS | STUBS | LOCKS | COMPARE | AGES | KEEPING | LISTS | DATES
)
