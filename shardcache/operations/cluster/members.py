"""One node as a client knows it: its backend, its health, and its counters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from shardcache.core.capabilities import EVERYTHING
from shardcache.core.commands import Payload, Reply
from shardcache.core.health import Health
from shardcache.core.placement.nodes import Node
from shardcache.errors import NodeError, NodeUnavailableError
from shardcache.operations.cluster.pending import PendingDeletes

if TYPE_CHECKING:  # they work on members
    from shardcache.operations.cluster.ejection import Ejector
    from shardcache.operations.cluster.leftovers import Leftover

# Reads a key in one call; it takes when the call began, and its seconds.
GetStraight: TypeAlias = Callable[[bytes, float, float], Reply]


class SharedHealth(Health):
    """The health of one node, shared by the clients of this process.

    `members` has the member of each client that uses the node, with that client's ejector. Clients
    that reach the node by the same `identity` share its health; `None` is never shared. `pending`
    has the keys whose writes failed, of all these clients; `watched` is whether replies matter that are
    no errors: while the node is ejected, or has such keys.

    It is read and changed without a lock, which an interrupt could leave locked: each step is one
    atomic operation of a dict.
    """

    __slots__ = ("departed", "identity", "members", "pending", "watched")

    def __init__(self) -> None:
        super().__init__()
        self.identity: Hashable = None
        self.members: dict[Member, Ejector] = {}
        self.departed = 0  # answered calls of members that have left
        self.pending = PendingDeletes()
        self.watched = False  # read after every call

    @property
    def answered(self) -> int:
        """The number of calls that the node has answered, over all clients."""
        return self.departed + sum(member.answered for member in list(self.members))

    @property
    def suspect(self) -> bool:
        """Whether the node has been silent since it last answered."""
        return self._timeouts > 0 and self.silent(self.answered)

    def watch(self) -> None:
        """Watch the replies from now on if there is a reason; else do not, until there is one."""
        self.watched = self.ejected or bool(self.pending)
        if self.pending:  # noted just now by another thread
            self.watched = True


class Member:
    """One node as this client knows it: its backend, its health, and its counters.

    `answered` counts calls that got a valid reply, `refused` calls that were not sent because the node
    is ejected, `detoured` calls about its keys that another node got meanwhile. `health` is shared by
    all clients of this process that reach the node in the same way. `successor` is the member that
    reaches the same server under other options, once the client has one. `get_straight` is the
    shortest way to read a key, if the backend has one (`SocketBackend`). `leftovers` are tokens of
    locks that the node may still keep without a holder. `reminded` has the start of the ejection, the
    time of the last log line about it, and the number of calls that it was spared by then.

    Counters are plain integers: CPython switches threads only at calls and jumps, and `x.n += 1`
    has neither between its load and its store, so no count is lost.
    """

    __slots__ = (
        "answered",
        "backend",
        "decode_failures",
        "detoured",
        "ejections",
        "errors",
        "get_straight",
        "health",
        "hits",
        "leftovers",
        "misses",
        "node",
        "recorded_failure",
        "refused",
        "reminded",
        "seconds",
        "successor",
        "supports",
        "swallowed",
        "whole_seconds",
    )

    def __init__(self, node: Node, backend: Any) -> None:  # Backend or AsyncBackend: io knows which
        self.node = node
        self.backend = backend
        self.supports: frozenset[type] = getattr(backend, "supports", EVERYTHING)
        self.whole_seconds: bool = getattr(backend, "whole_seconds", False)
        self.get_straight: GetStraight | None = getattr(backend, "get_straight", None)
        self.health = SharedHealth()
        self.successor: Member | None = None
        self.leftovers: dict[tuple[bytes, Payload], Leftover] = {}  # by key and token
        self.recorded_failure: ref[NodeError] | None = None  # the last error it was blamed for
        self.answered = 0
        self.refused = 0
        self.detoured = 0
        self.reminded = (0.0, 0.0, 0)
        self.ejections = 0
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self.swallowed = 0
        self.decode_failures = 0
        self.seconds = 0.0

    @property
    def spared(self) -> int:
        """Return how many calls were not sent to it because it was ejected."""
        return self.refused + self.detoured

    @property
    def suspect(self) -> bool:
        """Return whether the node has kept silent since it last answered."""
        return self.health.suspect

    def counters(self) -> dict[str, int | float]:
        """Return this client's counters for the node; `mean_seconds` is over all calls so far."""
        calls = self.answered + self.errors
        return {
            "calls": calls,
            "hits": self.hits,
            "misses": self.misses,
            "errors": self.errors,
            "swallowed_errors": self.swallowed,
            "decode_failures": self.decode_failures,
            "refused_calls": self.refused,
            "detoured_calls": self.detoured,
            "ejections": self.ejections,
            "refused_connections": getattr(self.backend, "refused_connections", 0),
            "pending_deletes": len(self.health.pending),
            "mean_seconds": self.seconds / calls if calls else 0.0,
        }


def clients_of(health: SharedHealth) -> Sequence[tuple[Member, Ejector]]:
    """Return the members that share a node's health, each with the ejector of its live client."""
    members = health.members
    pairs = [(member, members.get(member)) for member in list(members)]
    return [(member, each) for member, each in pairs if each is not None and not each.stopped]


def refusal(member: Member) -> NodeError:
    """Return the error of a call that is not sent because its node is ejected."""
    cause = member.health.error
    error = NodeUnavailableError(f"ejected: {cause}; retrying in the background", member.node.name)
    error.__cause__ = cause
    error.sent = False
    return error
