"""What becomes of a client's nodes that fail: they are ejected, and restored when they answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final
from weakref import ref

from shardcache.core.commands import Command, Ping
from shardcache.core.events import NodeEjected, NodeRestored, Observers
from shardcache.core.health import FailureKind, failure_kind
from shardcache.errors import ConnectTimeoutError, NodeError
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import Claim, Prober

SHORTEST: Final = 0.01  # seconds; a node is not blamed for missing a deadline nearer than this


class Ejector:
    """One client's part in the health of its nodes: it is told of their failures, and tells of them.

    The `prober` has the nodes that are ejected, of this client and of all others that share it.
    `reach` returns the blocking backend over which a node is probed: its own, or one for this probe
    alone. `client` returns the client, or `None` once it is gone.
    """

    __slots__ = ("_client", "_members", "_notified", "_observers", "_stopped", "prober", "reach")

    def __init__(
        self,
        prober: Prober,
        observers: Observers,
        reach: Callable[[Member], Any] = lambda member: (
            member.backend
        ),  # as the prober's port takes it
        client: Callable[[], object] = lambda: True,
    ) -> None:
        self.prober = prober
        self.reach = reach
        self._client = client
        self._stopped = False
        self._observers = observers
        self._members: dict[Member, None] = {}
        # Those of which the client was told that they are out, and since when. Who puts one in with
        # `setdefault`, which is atomic, tells of it, and so does who takes it out with `pop`.
        self._notified: dict[Member, Claim] = {}

    def add(self, member: Member, identity: Hashable = None) -> None:
        """Watch over one more node, together with all clients that know it by the same `identity`.

        A node whose identity is `None` is this client's alone.
        """
        self._members[member] = None
        self.prober.join(member, self, identity)

    def keep(self, members: Iterable[Member]) -> None:
        """Let go of every node but these: the client has no others any more."""
        kept = set(members)
        for member in list(self._members):
            if member not in kept:
                self._let_go(member)

    def stop(self) -> None:
        """Let go of every node: the client is closed, or gone."""
        self._stopped = True  # which suffices, if an interrupt comes before the rest
        for member in list(self._members):
            self._let_go(member)

    @property
    def stopped(self) -> bool:
        """Return whether the client is closed, or gone: an interrupt may keep `stop` from being called."""
        return self._stopped or self._client() is None

    def _let_go(self, member: Member) -> None:
        self.prober.leave(member)
        self._members.pop(member, None)
        self._notified.pop(member, None)

    def record_failure(
        self, member: Member, error: NodeError, began: float, allowed: float
    ) -> None:
        """Take note of the failure of a call; eject the node if it is due.

        The call `began` at a moment of the prober's clock, and was `allowed` so many seconds.
        """
        health = member.health
        if health.ejected or self.stopped or member not in health.members:
            return
        if member.recorded_failure is not None and member.recorded_failure() is error:
            return  # one lost connection fails all calls on it with the same error
        member.recorded_failure = ref(error)
        kind = failure_kind(error)
        timeout = self.prober.timeout
        if kind is FailureKind.TIMEOUT and allowed < min(SHORTEST, timeout / 2):
            return
        if isinstance(error, ConnectTimeoutError) and allowed < timeout / 2:
            return  # a later step of a call, with too little time left for a dial
        if began < health.restored:
            return  # it says nothing of the node as it is since
        now = self.prober.now()
        if health.record_failure(kind, health.answered, now):
            self.prober.eject(health, error, now)

    def record_success(self, member: Member, command: Command) -> None:
        """Take note of a valid reply of an ejected node.

        It restores one that was silent. One that said it cannot serve may still answer reads: only
        a ping, which asks for more, tells when that is over.
        """
        if member.health.soft or type(command) is Ping:
            self.prober.restore(member.health)

    def refuse(self, member: Member) -> None:
        """Take note that a call to an ejected node is refused."""
        if member not in self._members:
            return
        error = member.health.error
        told = self._notified.get(member)
        if error is not None and (told is None or told.since != member.health.since):
            self.notify_ejected(member, error)  # it was ejected before this client had it
        self.prober.ensure_running()

    @property
    def fails_open(self) -> bool:
        """Return whether most nodes of the client are silent: that may be this process's own fault."""
        members = list(self._members)
        silent = sum(member.health.ejected and member.health.soft for member in members)
        return 2 * silent > len(members)

    def notify_ejected(self, member: Member, error: NodeError) -> None:
        """Drop the connections of a node that is ejected, and tell the client of it, once."""
        self._notify_overdue(member)
        told = Claim(member.health.since)
        if member not in self._members or self._notified.setdefault(member, told) is not told:
            return
        if not member.health.ejected:  # it was restored meanwhile
            self._notified.pop(member, None)
            return
        member.ejections += 1
        member.backend.eject()
        if self._observers:
            self._observers.notify(NodeEjected(member.node, error))

    def _notify_overdue(self, member: Member) -> None:
        """Tell of the return from an earlier ejection, if an interrupt kept the client from it."""
        told, health = self._notified.get(member), member.health
        if told is not None and told.since != health.since:
            self.notify_restored(member, health.restored - told.since)

    def notify_restored(self, member: Member, seconds: float) -> None:
        """Tell the client, if it was told before, that a node is back after so many seconds."""
        if self._notified.pop(member, None) is not None and self._observers:
            self._observers.notify(NodeRestored(member.node, seconds))
