"""One client's part in ejecting nodes that fail and restoring nodes that answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final
from weakref import ref

from shardcache.core.commands import Command, Ping, Reply
from shardcache.core.events import (
    DeletesOverflowed,
    DeletesReplayed,
    NodeEjected,
    NodeRestored,
    Observers,
)
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.writes import WRITES
from shardcache.errors import ConnectTimeoutError, NodeError
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import Claim, Prober

SHORTEST: Final = 0.01  # seconds; missing a deadline nearer than this is not the node's failure


class Ejector:
    """The failure detector of one client: it records failures, and reports ejections to the client.

    The `prober` has the ejected nodes of this client and of all others that share it. `reach`
    returns the blocking backend over which a node is probed: the member's backend, or one for this
    probe alone. `client` returns the client, or `None` once it has been collected. `flushes` is
    whether a node is emptied on which more writes failed than can be remembered.
    """

    __slots__ = (
        "_client",
        "_members",
        "_notified",
        "_observers",
        "_stopped",
        "flushes",
        "prober",
        "reach",
    )

    def __init__(
        self,
        prober: Prober,
        observers: Observers,
        # A backend, as the prober's port takes it.
        reach: Callable[[Member], Any] = lambda member: member.backend,
        client: Callable[[], object] = lambda: True,
    ) -> None:
        self.prober = prober
        self.reach = reach
        self.flushes = False
        self._client = client
        self._stopped = False
        self._observers = observers
        self._members: dict[Member, None] = {}
        # The ejections that the client was notified of. `setdefault` and `pop` are atomic: the
        # thread that puts a member in reports its ejection, the thread that takes it out its return.
        self._notified: dict[Member, Claim] = {}

    def add(self, member: Member, identity: Hashable = None) -> None:
        """Watch one more node, together with all clients that know it by the same `identity`.

        A node whose identity is `None` is not shared with other clients.
        """
        self._members[member] = None
        self.prober.join(member, self, identity)

    def succeed(self, member: Member, former: Member) -> None:
        """Have a member take over from one that reaches the same server under other options.

        Keys whose writes failed are deleted through it, those of calls that go on as well.
        """
        member.successor = None  # it may be back in place of the one that had taken over from it
        former.successor = member  # before the rest: a call may fail at this moment
        self.prober.hand_over(former.health, member.health)

    def keep(self, members: Iterable[Member]) -> None:
        """Drop every node but these, because the client's nodes have changed."""
        kept = set(members)
        for member in list(self._members):
            if member not in kept:
                self._drop(member)

    def stop(self) -> None:
        """Drop every node: the client is closed, or has been collected."""
        self._stopped = True  # first: this alone suffices if an interrupt comes before the rest
        for member in list(self._members):
            self._drop(member)

    @property
    def stopped(self) -> bool:
        """Whether the client is closed or collected: an interrupt may have kept `stop` from running."""
        return self._stopped or self._client() is None

    def _drop(self, member: Member) -> None:
        self.prober.leave(member)
        self._members.pop(member, None)
        self._notified.pop(member, None)

    def record_failure(
        self, member: Member, error: NodeError, began: float, allowed: float
    ) -> None:
        """Count the failure of a call; eject the node if that was one failure too many.

        `began` is the call's start by the prober's clock, `allowed` its time limit in seconds.
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
            return  # a later step of a call, with too little time left to connect
        if began < health.restored:
            return  # the call began before the node was restored
        now = self.prober.now()
        if health.record_failure(kind, health.answered, now):
            self.prober.eject(health, error, now)

    def record_success(self, member: Member, command: Command) -> None:
        """Record a valid reply of an ejected node.

        Any reply restores a node that was silent (a soft failure). A node that said it cannot serve
        (a hard failure) may still answer reads: only a ping, which tests more, restores it.
        """
        if member.health.soft or type(command) is Ping:
            self.prober.restore(member.health)

    def note_writes(self, member: Member, command: Command, reply: Reply) -> None:
        """Note the keys of a write that has failed, or that was done while such keys are known."""
        if type(command) not in WRITES:
            return
        while member.successor is not None:
            member = member.successor
        if member in self._members:
            self.prober.note_writes(member.health, command, reply)

    def refuse(self, member: Member) -> None:
        """Record that a call to an ejected node was not sent."""
        if member not in self._members:
            return
        error = member.health.error
        notified = self._notified.get(member)
        if error is not None and (notified is None or notified.since != member.health.since):
            self.notify_ejected(member, error)  # it was ejected before this client knew it
        self.prober.ensure_running()

    @property
    def fails_open(self) -> bool:
        """Whether most nodes of the client are silent: then this process itself may be at fault."""
        members = list(self._members)
        silent = sum(member.health.ejected and member.health.soft for member in members)
        return 2 * silent > len(members)

    def notify_ejected(self, member: Member, error: NodeError) -> None:
        """Drop the connections of an ejected node, and notify the client, once."""
        self._notify_overdue(member)
        notified = Claim(member.health.since)
        if (
            member not in self._members
            or self._notified.setdefault(member, notified) is not notified
        ):
            return
        if not member.health.ejected:  # it was restored meanwhile
            self._notified.pop(member, None)
            return
        member.ejections += 1
        member.backend.eject()
        if self._observers:
            self._observers.notify(NodeEjected(member.node, error))

    def _notify_overdue(self, member: Member) -> None:
        """Report the end of an earlier ejection, if an interrupt kept it from being reported."""
        notified, health = self._notified.get(member), member.health
        if notified is not None and notified.since != health.since:
            self.notify_restored(member, health.restored - notified.since)

    def notify_restored(self, member: Member, seconds: float) -> None:
        """Notify a client that knows of the ejection that the node is back after `seconds`."""
        if self._notified.pop(member, None) is not None and self._observers:
            self._observers.notify(NodeRestored(member.node, seconds))

    def notify_replayed(self, member: Member, keys: int, *, flushed: bool) -> None:
        """Notify the client that keys of the node were deleted, because writes of them had failed."""
        if self._observers:
            self._observers.notify(DeletesReplayed(member.node, keys, flushed))

    def notify_overflowed(self, member: Member, kept: int) -> None:
        """Notify the client that more writes have failed than can be remembered."""
        if self._observers:
            self._observers.notify(DeletesOverflowed(member.node, kept))
