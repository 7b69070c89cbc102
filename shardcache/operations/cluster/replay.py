"""Deletes on a node the keys whose writes failed there.

A failed write leaves an old value. One that has timed out may also *land* later, after a newer write
of the same key. So the client remembers these keys (`PendingDeletes`), and deletes them:

* *An ejected node* is in quarantine once it answers a probe. It is not asked yet, so that whatever
  was sent to it before can land. Then all keys are deleted, and only then is the node restored.
* *A node that is not ejected* is pinged until it answers. A moment after that nothing older can land
  any more. Keys that were written meanwhile, and keys that were to be deleted, are deleted then. All
  others are forgotten: nothing has happened to them that an older write could undo.

The deletes are sent by threads of the prober, over the blocking transport, for both clients: an event
loop may end with the call that failed. They are counted in no counter of calls. Deleting a key costs at
most a miss, also when it has a newer value by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from shardcache.core.commands import Command, DeleteMany, FlushAll, Ping, Reply
from shardcache.core.health import DEFAULT_EJECTION, FailureKind, failure_kind
from shardcache.errors import NodeError, NodeRefusedError
from shardcache.operations.cluster.members import Member, SharedHealth, clients_of
from shardcache.operations.port import IO, Pause

if TYPE_CHECKING:  # they work on this
    from shardcache.operations.cluster.ejection import Ejector
    from shardcache.operations.cluster.prober import ProberLog

AT_ONCE: Final = 1_000  # keys in one call, so that a short timeout is enough
LANDING: Final = Pause(DEFAULT_EJECTION.quarantine)  # after this, nothing older lands any more
FIRST_PAUSE: Final = 0.02  # seconds, before a node that did not answer is pinged again
LONGEST_PAUSE: Final = 1.0


class Replayer:
    """Remembers the keys whose writes failed, and deletes them on their nodes.

    `io` is the prober's port, `timeout` the length of each call in seconds.
    """

    __slots__ = ("_io", "_log", "_timeout")

    def __init__(self, io: IO[Any], timeout: float, log: ProberLog) -> None:
        self._io = io
        self._timeout = timeout
        self._log = log

    def note(self, health: SharedHealth, command: Command, reply: Reply) -> None:
        """Note the keys that a command was to write: which writes failed, and which succeeded."""
        noted = health.pending.note(command, reply, self._io.now())
        if not noted.failed:
            return
        health.watched = True
        if noted.overflowed:
            self._report_overflow(health)
        if not health.ejected:  # else that follows its return
            self.follow_up(health)

    def follow_up(self, health: SharedHealth) -> None:
        """Delete in the background what is to be deleted on a node that is not ejected."""
        self._io.clean_up(health, _FollowUp(self, health).turn)

    async def replay(self, health: SharedHealth) -> NodeError | int:
        """Delete all pending keys of a node; return how many, or the error that it failed with."""
        began = self._io.now()
        reply = await self._delete(health, health.pending.keys_until(began), began)
        health.watch()
        return reply

    async def settle(self, health: SharedHealth, moment: float) -> None:
        """Delete what is to be deleted on a node that was not ejected, and forget all else.

        No write that failed by `moment` lands any more. If the node fails, its keys are kept.
        """
        await self._delete(health, health.pending.settle(moment), moment)
        health.watch()

    async def ping(self, health: SharedHealth) -> NodeError | float:
        """Ping a node that is not ejected; return when it has answered, or its error.

        A timeout is recorded as that of a call is. A refused connection is not: a server that
        restarts refuses them for a moment, and only calls of users eject it.
        """
        began = self._io.now()
        for member, ejector in clients_of(health)[:1]:
            reply = await self._ask(member, ejector, Ping())
            if isinstance(reply, NodeError) and not isinstance(reply, NodeRefusedError):
                if failure_kind(reply) is FailureKind.TIMEOUT:
                    ejector.record_failure(member, reply, began, self._timeout)
                return reply
        return self._io.now()

    async def _delete(
        self, health: SharedHealth, keys: Sequence[bytes], moment: float
    ) -> NodeError | int:
        """Delete keys, or flush the node if more were lost and a client wants that."""
        pending, clients = health.pending, clients_of(health)
        if not clients:
            return 0
        member, asking = clients[0]
        lost = pending.lost
        flush = lost > 0 and any(ejector.flushes for _, ejector in clients)
        refused: list[NodeError] = []
        for part in [keys] if flush else _parts(keys):
            reply = await self._ask(member, asking, FlushAll() if flush else DeleteMany(part))
            replies = reply if isinstance(reply, list) else [reply] * max(1, len(part))
            errors = [each for each in replies if isinstance(each, NodeError)]
            for error in errors:
                if not isinstance(error, NodeRefusedError):
                    return error
            refused += errors
            pending.discard(part, moment)
        pending.lost -= lost
        if refused:
            self._log.refused(member.node.name, len(refused), refused[0])
        deleted = len(keys) - len(refused)
        if deleted > 0:
            for each, ejector in clients:
                ejector.notify_replayed(each, deleted, flushed=flush)
        return deleted

    async def _ask(self, member: Member, ejector: Ejector, command: Command) -> Reply:
        """Ask a node over the blocking transport; return its reply, or its error."""
        backend = None
        try:
            backend = ejector.reach(member)
            asks = [(backend, command)]
            ((reply, _),) = await self._io.call_many(asks, self._io.now() + self._timeout)
        except Exception as error:  # noqa: BLE001 - a plugin's backend may raise anything
            # It is no failure of the node, which would otherwise never come back.
            return NodeRefusedError(repr(error), member.node.name)
        finally:
            if backend is not None and backend is not member.backend:
                backend.close()
        return reply

    def _report_overflow(self, health: SharedHealth) -> None:
        clients = clients_of(health)
        kept = len(health.pending)
        if clients:
            self._log.overflowed(clients[0][0].node.name, kept)
        for member, ejector in clients:
            ejector.notify_overflowed(member, kept)


class _FollowUp:
    """The background work for one node that is not ejected.

    `answered` is when it has just answered a ping, `pause` the seconds before the next ping if it does
    not answer.
    """

    __slots__ = ("_answered", "_health", "_pause", "_replayer")

    def __init__(self, replayer: Replayer, health: SharedHealth) -> None:
        self._replayer = replayer
        self._health = health
        self._answered: float | None = None
        self._pause = FIRST_PAUSE

    async def turn(self) -> Pause | None:
        """Ping the node, or delete a moment after it has answered; return the pause until the next turn."""
        health, replayer = self._health, self._replayer
        if health.ejected or not health.pending or not clients_of(health):
            return None
        answered, self._answered = self._answered, None
        if answered is not None:
            await replayer.settle(health, answered)
            return LANDING if health.pending else None
        reply = await replayer.ping(health)
        if isinstance(reply, NodeError):
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            return Pause(pause, stuck=True)
        self._answered, self._pause = reply, FIRST_PAUSE
        return LANDING


def _parts(keys: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [keys[first : first + AT_ONCE] for first in range(0, len(keys), AT_ONCE)]
