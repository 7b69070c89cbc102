"""The prober: one thread per process that probes ejected nodes until they answer.

*Ejected*: no call is sent to the node, so that its callers do not wait for one timeout after
another. Reads miss, writes fail. *Hard* failures eject a node with the first one: it cannot be
reached, or said that it cannot serve. Timeouts, protocol errors and lost connections eject it when
several come in a row, or when too large a share of its calls fails: a single one may be the
network's fault. An ejection is *soft* if a timeout or a protocol error caused it, for that could be
this process's own fault. `core.health` has the counts and the waits.

*Who finds out*: each client records the failures of its own calls (`Ejector.record_failure`) in a
health that all clients of this process with equal timeouts share. *Who probes*: only this thread.
It pings each ejected node when its wait is over; the wait grows with each failed probe. Callers
never probe, so a node that is still silent costs no caller a timeout. If most nodes of a client are
silent, the fault may be on this side (the client *fails open*): then none of them waits longer than
a second for its next probe.

*What happens first*: a node may have old values when it answers, because writes and deletes were
refused. It is in *quarantine* then: this thread waits until nothing older can arrive there, deletes
those keys (`replay`), and only then restores the node.

*Which races are harmless*: no lock is taken, because an interrupt could leave it locked. The thread
that puts a node into the list of ejected nodes (`setdefault`) ejects it, and the thread that takes
it out (`pop`) restores it. Both are atomic, so each change happens once, and each client reports it
once. A call that was sent before a soft ejection may still be answered: that restores the node. A
failure of a call that began before the return of the node is ignored. Two watches may overlap for
one round: a node is pinged twice, or its keys are deleted twice. If a write is refused in the
moment in which its node is restored, its key is deleted at once: a read may find the old value for
the length of one call. An interrupt may leave a node in the list that is not ejected:
its claim is void after a second, and another thread may take it over.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shardcache.core.commands import Command, Ping, Reply
from shardcache.core.health import Circuit, FailureKind, failure_kind
from shardcache.errors import NodeError, NodeRefusedError, NodeUnavailableError, ShardCacheError
from shardcache.operations.cluster.members import Member, SharedHealth, clients_of
from shardcache.operations.cluster.replay import Replayer
from shardcache.operations.port import IO

if TYPE_CHECKING:  # it works on this
    from shardcache.operations.cluster.ejection import Ejector

TICK: Final = 0.1  # seconds between two looks for nodes that are due
ROUNDS: Final = 5  # of deletes before a node is restored, while further calls to it are refused
DOUBT: Final = 1.0  # seconds; the longest wait between two probes while most nodes are silent
ABANDONED: Final = 1.0  # seconds after which a claim to a node that is not ejected is void


class ProberLog(NamedTuple):
    """The functions that log what happens to ejected nodes.

    `ejected` gets the node's error. `restored` gets the node's name, the seconds that it was out,
    and how many keys were deleted on it because writes of them had failed. `overflowed` gets its
    name and how many keys are remembered, when writes of more than those have failed. `refused`
    gets its name, the number of keys that it refused to delete, and its error.
    """

    ejected: Callable[[NodeError], None]
    restored: Callable[[str, float, int], None]
    overflowed: Callable[[str, int], None] = lambda _name, _kept: None
    refused: Callable[[str, int, NodeError], None] = lambda _name, _keys, _error: None


SILENT: Final = ProberLog(lambda _error: None, lambda _name, _seconds, _deleted: None)


class Claim:
    """The mark of a node that is being ejected, or is ejected, since `since`."""

    __slots__ = ("since",)

    def __init__(self, since: float) -> None:
        self.since = since


class Probe(NamedTuple):
    """One node to be pinged, and the backend for that."""

    health: SharedHealth
    member: Member
    backend: Any  # as the prober's port takes it


class Prober:
    """The ejected nodes of all clients with equal timeouts, and the thread that probes them.

    The thread (under gevent a greenlet) serves blocking and asyncio clients, and runs only while a
    node is ejected: event loops come and go, and one may end with each call. In a forked child,
    which has no thread, the next refused call starts one.

    `io` is a blocking port. `timeout` is the length of a call, in seconds. The prober does not keep
    nodes alive: a node whose last client has dropped it is not probed any more.
    """

    __slots__ = (
        "__weakref__",
        "_alive",
        "_io",
        "_known",
        "_log",
        "_out",
        "_process",
        "_replayer",
        "_watch",
        "now",
        "timeout",
    )

    def __init__(self, io: IO[Any], timeout: float, log: ProberLog = SILENT) -> None:
        self.timeout = timeout
        self.now = io.now
        self._io = io
        self._log = log
        self._replayer = Replayer(io, timeout, log)
        # Nodes by their identity, while a client has them.
        self._known: dict[Hashable, SharedHealth] = {}
        # The thread that puts a node in with `setdefault` ejects it, the thread that takes it out
        # with `pop` restores it. The state of its health follows a moment later.
        self._out: dict[SharedHealth, Claim] = {}
        self._watch: object = None
        self._alive = 0.0
        self._process = 0  # the process that started the watch

    def join(self, member: Member, ejector: Ejector, identity: Hashable) -> None:
        """Share the health of a node among all members of the same identity."""
        health = member.health
        health.members[member] = ejector
        if identity is not None:
            health.identity = identity
            health = self._find_or_add(health)
            member.health = health
            health.members[member] = ejector
            self._known.setdefault(identity, health)  # its last member may have left just now
        if health.ejected:
            self._out.setdefault(health, Claim(self.now()))  # for the same reason

    def _find_or_add(self, health: SharedHealth) -> SharedHealth:
        """Return the known health of the node with this identity; add `health` if there is none."""
        known = self._known.get(health.identity)
        if known is not None:
            self._drop_stopped(known)
        return self._known.setdefault(health.identity, health)

    def leave(self, member: Member) -> None:
        """Drop a member; forget the node with its last one."""
        health = member.health
        if health.members.pop(member, None) is not None:
            health.departed += member.answered
        if not health.members:
            self._forget(health)

    def _drop_stopped(self, health: SharedHealth) -> None:
        """Drop members of stopped clients, which an interrupt has left behind."""
        for member in list(health.members):
            ejector = health.members.get(member)
            if ejector is not None and ejector.stopped:
                self.leave(member)
        if not health.members:
            self._forget(health)

    def _forget(self, health: SharedHealth) -> None:
        """Forget a node, unless another client uses it by now."""
        identity = health.identity
        if self._known.get(identity) is not health:
            return
        known = self._known.pop(identity, health)
        if known is not health or clients_of(known):
            self._known.setdefault(identity, known)

    def eject(self, health: SharedHealth, error: NodeError, now: float) -> None:
        """Eject a node because of `error`, and notify every client, unless another thread does."""
        claim = Claim(now)
        # A signal may raise between any two bytecodes. Even then an ejected node is in the list, and
        # the next failure can put a node there that is not.
        try:
            if not self._try_claim(health, claim):
                return
            health.eject(error, now, self._io.random())
            health.watch()
            self._out.setdefault(health, claim)  # the claim may have been dropped as abandoned
        except BaseException:
            if not health.ejected and self._out.get(health) is claim:
                self._out.pop(health, None)
            raise
        self._log.ejected(error)
        self.ensure_running()
        for member, ejector in clients_of(health):
            ejector.notify_ejected(member, error)

    def _try_claim(self, health: SharedHealth, claim: Claim) -> bool:
        """Put a node in the list; return whether the caller is the one to eject it."""
        existing = self._out.setdefault(health, claim)
        if existing is claim:
            return True
        if health.ejected or claim.since - existing.since < ABANDONED:
            return False
        self._out[health] = claim  # the thread that had it was interrupted twice
        return True

    def hand_over(self, former: SharedHealth, health: SharedHealth) -> None:
        """Delete through one health what is pending in another of the same server.

        If the node is out, it stays out until that is done.
        """
        if former is health or not former.pending:
            return
        health.pending.add(former.pending)
        health.watch()
        error = former.error
        if error is not None and not health.ejected:
            self.eject(health, error, self.now())
        elif not health.ejected:
            self._replayer.follow_up(health)

    def note_writes(self, health: SharedHealth, command: Command, reply: Reply) -> None:
        """Note which keys a command has left with an old value, to be deleted later."""
        self._replayer.note(health, command, reply)

    def restore(self, health: SharedHealth) -> None:
        """Restore a node that has answered; first delete what may be old there, after a quarantine."""
        if health not in self._out or not health.ejected:  # it may be about to be ejected
            return
        if not health.pending:
            self._restore(health)
        elif health.circuit is not Circuit.QUARANTINE:
            health.begin_quarantine(self.now())
            self.ensure_running()

    def _restore(self, health: SharedHealth, deleted: int = 0) -> None:
        """Restore a node, and notify every client, unless another thread does."""
        now = self.now()
        try:
            if self._out.pop(health, None) is None:
                return
            seconds = now - health.since
            health.restore(now)
        except BaseException:
            if health.ejected:  # an ejected node stays in the list, to be restored later
                self._out.setdefault(health, Claim(now))
            raise
        health.watch()
        clients = clients_of(health)
        if clients:
            self._log.restored(clients[0][0].node.name, seconds, deleted)
        for member, ejector in clients:
            ejector.notify_restored(member, seconds)

    def ensure_running(self) -> None:
        """Start the prober's thread, unless it runs in this process."""
        now, process = self.now(), self._io.process()
        recent = now - self._alive < self.timeout + 10 * TICK
        if self._watch is not None and recent and self._process == process:
            return
        watch = object()
        try:
            self._alive = now
            self._process = process
            self._watch = watch
            self._io.spawn(lambda: self._run(watch), "prober")
        except OSError:  # no thread can be started, as while the interpreter ends
            self._watch = None
        except BaseException:  # another watch may take over at once
            self._watch = None
            raise

    async def _run(self, watch: object) -> None:
        """Probe the nodes that are due, until none is ejected or another watch has taken over."""
        while self._out and self._watch is watch:
            self._alive = now = self.now()
            due = self._due(now)
            quarantined = [health for health in due if health.circuit is Circuit.QUARANTINE]
            for health in quarantined:
                await self._end_quarantine(health)
            if len(due) > len(quarantined):
                await self._probe([health for health in due if health not in quarantined])
            elif not due:
                await self._io.sleep(TICK)
        if self._watch is watch:
            self._watch = None

    def _due(self, now: float) -> Sequence[SharedHealth]:
        """Return the nodes to be probed now, and those whose quarantine is over.

        When more than half of a client's nodes are silent, this process itself may be at fault: then
        none of them waits longer than a second.
        """
        out = self._ejected(now)
        due = [health for health in out if health.due <= now]
        early = [
            health
            for health in out
            if now < health.due and health.soft and health.looked + DOUBT <= now
            if health.circuit is not Circuit.QUARANTINE
        ]
        if early:
            asked = {ejector for health in early for _, ejector in clients_of(health)}
            doubting = {ejector for ejector in asked if ejector.fails_open}
            due += [
                health
                for health in early
                if any(ejector in doubting for _, ejector in clients_of(health))
            ]
        return due

    def _ejected(self, now: float) -> Sequence[SharedHealth]:
        """Return the ejected nodes; drop void claims, and nodes that no client uses any more."""
        # Not the list's items: building pairs may collect garbage, and so change the list.
        return [health for health in list(self._out) if self._check_out(health, now)]

    def _check_out(self, health: SharedHealth, now: float) -> bool:
        """Return whether a node in the list is ejected; drop it if its claim is void."""
        claim = self._out.get(health)
        if claim is None:
            return False
        if not clients_of(health):
            self._out.pop(health, None)
            if not clients_of(health):
                return False
            self._out.setdefault(health, claim)  # another client has joined meanwhile
        abandoned = now - claim.since >= ABANDONED
        if abandoned and not health.ejected and self._out.get(health) is claim:
            self._out.pop(health, None)
        return health.ejected

    async def _probe(self, due: Sequence[SharedHealth]) -> None:
        probes: list[Probe] = []
        for health in due:
            for member, ejector in clients_of(health)[:1]:
                health.begin_probe()
                try:
                    probes.append(Probe(health, member, ejector.reach(member)))
                except Exception as error:  # noqa: BLE001 - a plugin's backend may raise anything
                    self._judge(health, _unreachable(member, error))
        replies = await self._ping(probes)
        for probe, reply in zip(probes, replies, strict=True):
            self._judge(probe.health, reply)
        for health, member, backend in probes:
            if backend is not member.backend:
                backend.close()
            elif health.ejected:
                backend.eject()

    async def _end_quarantine(self, health: SharedHealth) -> None:
        """Delete the keys of a node whose writes failed while it was out; then restore it."""
        deleted = 0
        for _ in range(ROUNDS):  # calls that are refused meanwhile may add more
            self._alive = self.now()
            reply = await self._replayer.replay(health)
            if isinstance(reply, NodeError):
                self._judge(health, reply)
                return
            deleted += reply
            if not health.pending:
                break
        self._restore(health, deleted)
        if health.pending:  # refused just now: these are deleted without a quarantine
            await self._replayer.replay(health)
            self._replayer.follow_up(health)

    async def _ping(self, probes: Sequence[Probe]) -> Sequence[Reply]:
        """Ping all nodes at once; if that raises, one after the other, to tell which one fails."""
        self._alive = now = self.now()
        try:
            asks = [(probe.backend, Ping()) for probe in probes]
            return [reply for reply, _ in await self._io.call_many(asks, now + self.timeout)]
        except Exception as error:  # noqa: BLE001 - such as a node that has joined a Redis Cluster
            if len(probes) == 1:
                return [_unreachable(probes[0].member, error)]
        return [reply for probe in probes for reply in await self._ping([probe])]

    def _judge(self, health: SharedHealth, reply: Reply) -> None:
        """Restore a node that has answered, even with a refusal; else set its next probe."""
        if not isinstance(reply, NodeError) or isinstance(reply, NodeRefusedError):
            self.restore(health)
            return
        # A failure that is this process's own fault tells nothing about the node.
        error = health.error if failure_kind(reply) is FailureKind.NONE else reply
        if error is not None:  # else the node was restored meanwhile
            health.record_probe_failure(error, self.now(), self._io.random())


def _unreachable(member: Member, error: Exception) -> NodeError:
    """Return the error of a node to which no ping can be sent."""
    reason = str(error) if isinstance(error, ShardCacheError) else repr(error)
    return NodeUnavailableError(f"cannot be probed: {reason}", member.node.name)
