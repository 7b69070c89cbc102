"""Nodes that are ejected are probed until they give a sign of life."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shardcache.core.commands import Ping, Reply
from shardcache.core.health import FailureKind, failure_kind
from shardcache.errors import NodeError, NodeRefusedError, NodeUnavailableError, ShardCacheError
from shardcache.operations.cluster.members import Member, SharedHealth
from shardcache.operations.port import IO

if TYPE_CHECKING:  # it works on this
    from shardcache.operations.cluster.ejection import Ejector

TICK: Final = 0.1  # seconds; how often a prober looks who is due
DOUBT: Final = 1.0  # seconds between two probes at most, while most nodes are silent
ABANDONED: Final = 1.0  # seconds after which a claim to a node that is not ejected counts no more


class ProberLog(NamedTuple):
    """Where lines are written about nodes that are left out, and asked again after so many seconds."""

    ejected: Callable[[NodeError], None]
    restored: Callable[[str, float], None]


SILENT: Final = ProberLog(lambda _error: None, lambda _name, _seconds: None)


class Claim:
    """Tells that a node is being ejected, or is out, since a moment."""

    __slots__ = ("since",)

    def __init__(self, since: float) -> None:
        self.since = since


class Probe(NamedTuple):
    """One node that is asked for a sign of life, and over which backend."""

    health: SharedHealth
    member: Member
    backend: Any  # as the prober's port takes it


class Prober:
    """Keeps the ejected nodes of all clients with equal timeouts, and asks each for a sign of life.

    It runs in a thread (under gevent a greenlet), for blocking and asyncio clients, and only while
    there is such a node: event loops come and go, and one may end with each call. In a forked
    child, which has no thread, the next refused call starts another.

    `io` is a blocking port. `timeout` is the length of a call, in seconds. The prober itself keeps
    nobody's node: one that the last of its clients has let go is probed no more.
    """

    __slots__ = (
        "__weakref__",
        "_alive",
        "_io",
        "_known",
        "_log",
        "_out",
        "_process",
        "_watch",
        "now",
        "timeout",
    )

    def __init__(self, io: IO[Any], timeout: float, log: ProberLog = SILENT) -> None:
        self.timeout = timeout
        self.now = io.now
        self._io = io
        self._log = log
        # Nodes by their identity, while a client has them.
        self._known: dict[Hashable, SharedHealth] = {}
        # Who puts a node in with `setdefault`, which is atomic, ejects it, and who takes it out with
        # `pop` restores it: no lock is needed, which an interrupt could leave locked. The state of
        # its health follows a moment later.
        self._out: dict[SharedHealth, Claim] = {}
        self._watch: object = None
        self._alive = 0.0
        self._process = 0  # in which the watch was begun

    def join(self, member: Member, ejector: Ejector, identity: Hashable) -> None:
        """Let a member share the health of its node with all others of this identity."""
        health = member.health
        health.members[member] = ejector
        if identity is not None:
            health.identity = identity
            health = self._known_as(health)
            member.health = health
            health.members[member] = ejector
            self._known.setdefault(identity, health)  # its last member may have left just now
        if health.ejected:
            self._out.setdefault(health, Claim(self.now()))  # for the same reason

    def _known_as(self, health: SharedHealth) -> SharedHealth:
        """Return what is known already of the node with this identity; else `health`, from now on."""
        known = self._known.get(health.identity)
        if known is not None:
            self._clear(known)
        return self._known.setdefault(health.identity, health)

    def leave(self, member: Member) -> None:
        """Let a member go; forget the node with its last one."""
        health = member.health
        if health.members.pop(member, None) is not None:
            health.departed += member.answered
        if not health.members:
            self._forget(health)

    def _clear(self, health: SharedHealth) -> None:
        """Let go of the members of clients that are gone, which an interrupt has left behind."""
        for member in list(health.members):
            ejector = health.members.get(member)
            if ejector is not None and ejector.stopped:
                self.leave(member)
        if not health.members:
            self._forget(health)

    def _forget(self, health: SharedHealth) -> None:
        """Forget a node, unless another client has come for it."""
        identity = health.identity
        if self._known.get(identity) is not health:
            return
        known = self._known.pop(identity, health)
        if known is not health or clients_of(known):
            self._known.setdefault(identity, known)

    def eject(self, health: SharedHealth, error: NodeError, now: float) -> None:
        """Eject a node because of `error`, and tell every client of it, unless another does."""
        claim = Claim(now)
        # A signal may raise between any two bytecodes: a node that is ejected is in the list then,
        # and one that is not can be put there by the next failure.
        try:
            if not self._take(health, claim):
                return
            health.eject(error, now, self._io.random())
            self._out.setdefault(health, claim)  # it may have passed for abandoned meanwhile
        except BaseException:
            if not health.ejected and self._out.get(health) is claim:
                self._out.pop(health, None)
            raise
        self._log.ejected(error)
        self.ensure_running()
        for member, ejector in clients_of(health):
            ejector.notify_ejected(member, error)

    def _take(self, health: SharedHealth, claim: Claim) -> bool:
        """Put a node in the list; return whether it was not there, and is the caller's to eject."""
        held = self._out.setdefault(health, claim)
        if held is claim:
            return True
        if health.ejected or claim.since - held.since < ABANDONED:
            return False
        self._out[health] = claim  # whoever had it was stopped twice
        return True

    def restore(self, health: SharedHealth) -> None:
        """Take a node back that has answered, and tell every client of it, unless another does."""
        if health not in self._out or not health.ejected:  # it may be about to be ejected
            return
        now = self.now()
        try:
            if self._out.pop(health, None) is None:
                return
            seconds = now - health.since
            health.restore(now)
        except BaseException:
            if health.ejected:  # what is ejected is in the list, to be restored another time
                self._out.setdefault(health, Claim(now))
            raise
        told = clients_of(health)
        if told:
            self._log.restored(told[0][0].node.name, seconds)
        for member, ejector in told:
            ejector.notify_restored(member, seconds)

    def ensure_running(self) -> None:
        """Begin to probe, unless that is being done in this process."""
        now, process = self.now(), self._io.process()
        recent = now - self._alive < self.timeout + 10 * TICK
        if self._watch is not None and recent and self._process == process:
            return
        watch = object()
        try:
            self._alive = now
            self._process = process
            self._watch = watch
            self._io.spawn(lambda: self._watched(watch), "prober")
        except OSError:  # no thread is to be had, as while the interpreter ends
            self._watch = None
        except BaseException:  # another watch may take over at once
            self._watch = None
            raise

    async def _watched(self, watch: object) -> None:
        """Probe whoever is due, until none is left or another watch has taken over."""
        while self._out and self._watch is watch:
            self._alive = now = self.now()
            due = self._due(now)
            if due:
                await self._probe(due)
            else:
                await self._io.sleep(TICK)
        if self._watch is watch:
            self._watch = None

    def _due(self, now: float) -> Sequence[SharedHealth]:
        """Return the nodes that are to be probed now.

        When more than half of a client's nodes are silent the trouble may be this process's own:
        then none of them waits longer than a second.
        """
        out = self._ejected(now)
        due = [health for health in out if health.due <= now]
        early = [
            health
            for health in out
            if now < health.due and health.soft and health.looked + DOUBT <= now
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
        """Return the nodes that are out; let go of claims that led to nothing, and of those gone."""
        # Not the list's items: making pairs may collect garbage, and so change it.
        return [health for health in list(self._out) if self._stays_out(health, now)]

    def _stays_out(self, health: SharedHealth, now: float) -> bool:
        claim = self._out.get(health)
        if claim is None:
            return False
        if not clients_of(health):
            self._out.pop(health, None)
            if not clients_of(health):
                return False
            self._out.setdefault(health, claim)  # another client came in between
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
                except Exception as error:  # noqa: BLE001 - whatever a plugin's backend raises
                    self._judge(health, _unasked(member, error))
        replies = await self._asked(probes)
        for probe, reply in zip(probes, replies, strict=True):
            self._judge(probe.health, reply)
        for health, member, backend in probes:
            if backend is not member.backend:
                backend.close()
            elif health.ejected:
                backend.eject()

    async def _asked(self, probes: Sequence[Probe]) -> Sequence[Reply]:
        """Ask all at once; one after the other if that fails, so that each answers for itself."""
        self._alive = now = self.now()
        try:
            asks = [(probe.backend, Ping()) for probe in probes]
            return [reply for reply, _ in await self._io.call_many(asks, now + self.timeout)]
        except Exception as error:  # noqa: BLE001 - such as a node that has joined a Redis Cluster
            if len(probes) == 1:
                return [_unasked(probes[0].member, error)]
        return [reply for probe in probes for reply in await self._asked([probe])]

    def _judge(self, health: SharedHealth, reply: Reply) -> None:
        """Restore a node that has answered, be it with a no; else have it probed again later."""
        if not isinstance(reply, NodeError) or isinstance(reply, NodeRefusedError):
            self.restore(health)
            return
        # What failed for a reason of this process's own tells nothing new.
        error = health.error if failure_kind(reply) is FailureKind.NONE else reply
        if error is not None:  # else it was restored meanwhile
            health.record_probe_failure(error, self.now(), self._io.random())


def _unasked(member: Member, error: Exception) -> NodeError:
    """Return the error of a node that cannot even be asked."""
    said = str(error) if isinstance(error, ShardCacheError) else repr(error)
    return NodeUnavailableError(f"cannot be probed: {said}", member.node.name)


def clients_of(health: SharedHealth) -> Sequence[tuple[Member, Ejector]]:
    """Return the members that share a node's health, each with its client's ejector."""
    members = health.members
    pairs = [(member, members.get(member)) for member in list(members)]
    return [(member, each) for member, each in pairs if each is not None and not each.stopped]
