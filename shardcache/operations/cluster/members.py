"""One node as a client knows it: its backend, its health, and what was asked of it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any
from weakref import ref

from shardcache.core.commands import Payload
from shardcache.core.health import Health
from shardcache.core.placement.nodes import Node
from shardcache.errors import NodeError

if TYPE_CHECKING:  # they work on members
    from shardcache.operations.cluster.ejection import Ejector
    from shardcache.operations.cluster.leftovers import Leftover


class SharedHealth(Health):
    """What the clients of this process know of one node's fitness.

    `members` are those of the clients that use the node, each with the ejector of its client. Clients
    share it that reach the node by the same `identity`; `None` is never shared.

    It is read and changed without a lock, which an interrupt could leave locked: each step is one
    of a dict's own.
    """

    __slots__ = ("departed", "identity", "members")

    def __init__(self) -> None:
        super().__init__()
        self.identity: Hashable = None
        self.members: dict[Member, Ejector] = {}
        self.departed = 0  # calls that were answered over members that are gone

    @property
    def answered(self) -> int:
        """Return how many calls the node has answered, whoever made them."""
        return self.departed + sum(member.answered for member in list(self.members))

    @property
    def suspect(self) -> bool:
        """Return whether the node has kept silent since it last answered."""
        return self._timeouts > 0 and self.silent(self.answered)


class Member:
    """One node as this client knows it: its backend, its health, and counters of what was asked.

    `answered` counts calls that got a valid reply, `refused` those not sent because the node is
    ejected. `health` is what all clients of this process know that use the node in the same way.
    `leftovers` are the locks that the node may keep though nobody has them.
    `reminded` is since when it was ejected, when the log was last told that it still is, and how many
    calls had been refused by then.

    Counters are plain integers: CPython switches threads only at calls and jumps, and `x.n += 1`
    has neither between its load and its store, so no count is lost.
    """

    __slots__ = (
        "answered",
        "backend",
        "decode_failures",
        "ejections",
        "errors",
        "health",
        "hits",
        "lacks",
        "leftovers",
        "misses",
        "node",
        "recorded_failure",
        "refused",
        "reminded",
        "seconds",
        "swallowed",
        "whole_seconds",
    )

    def __init__(self, node: Node, backend: Any) -> None:  # Backend or AsyncBackend: io knows which
        self.node = node
        self.backend = backend
        self.lacks: frozenset[type] = getattr(backend, "lacks", frozenset())
        self.whole_seconds: bool = getattr(backend, "whole_seconds", False)
        self.health = SharedHealth()
        self.leftovers: dict[tuple[bytes, Payload], Leftover] = {}  # by key and token
        self.recorded_failure: ref[NodeError] | None = None  # the last error it was blamed for
        self.answered = 0
        self.refused = 0
        self.reminded = (0.0, 0.0, 0)
        self.ejections = 0
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self.swallowed = 0
        self.decode_failures = 0
        self.seconds = 0.0

    @property
    def suspect(self) -> bool:
        """Say whether the node has kept silent since it last answered."""
        return self.health.suspect

    def counters(self) -> dict[str, int | float]:
        """Give this client's counters for the node; `mean_seconds` is over all calls so far."""
        calls = self.answered + self.errors
        return {
            "calls": calls,
            "hits": self.hits,
            "misses": self.misses,
            "errors": self.errors,
            "swallowed_errors": self.swallowed,
            "decode_failures": self.decode_failures,
            "refused_calls": self.refused,
            "ejections": self.ejections,
            "refused_connections": getattr(self.backend, "limited", 0),
            "mean_seconds": self.seconds / calls if calls else 0.0,
        }
