"""What is done about nodes that are not fit: they are ejected, probed, and restored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from weakref import ref

from shardcache.core.commands import Command, Ping, Reply
from shardcache.core.events import Audience, NodeEjected, NodeRestored
from shardcache.core.health import Severity, severity_of
from shardcache.errors import (
    ConnectTimeoutError,
    NodeError,
    NodeUnavailableError,
    ShardCacheError,
)
from shardcache.operations.members import Link
from shardcache.operations.port import IO

TICK: Final = 0.1  # seconds; how often a prober looks who is due
DOUBT: Final = 1.0  # seconds between two probes at most, while most nodes are silent
ABANDONED: Final = 1.0  # seconds after which a claim to a node that is not ejected counts no more
SHORTEST: Final = 0.01  # seconds; a node is not blamed for missing a deadline nearer than this


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


class Prober:
    """Keeps the ejected nodes of one client, and asks each for a sign of life until it gives one.

    It runs in a thread (under gevent a greenlet), of both clients, and only while there is such a
    node: event loops come and go, and one may end with each call. In a forked child, which has no
    thread, the next refused call starts another.

    `io` is a blocking port, and `reach` gives the blocking backend over which a node is probed: its
    own, or one for this probe alone.
    """

    __slots__ = (
        "_alive",
        "_audience",
        "_io",
        "_log",
        "_nodes",
        "_out",
        "_reach",
        "_stopped",
        "_timeout",
        "_watch",
    )

    def __init__(
        self,
        io: IO[Any],
        timeout: float,
        audience: Audience,
        log: ProberLog = SILENT,
        reach: Callable[[Link], Any] = lambda link: link.backend,  # as the port takes it
    ) -> None:
        self._io = io
        self._reach = reach
        self._nodes = 1  # of the client, of which some are out
        self._timeout = timeout
        self._audience = audience
        self._log = log
        # Who puts a link in with `setdefault`, which is atomic, ejects it, and who takes it out with
        # `pop` restores it: no lock is needed, which an interrupt could leave locked. The state of
        # its health follows a moment later.
        self._out: dict[Link, Claim] = {}
        self._watch: object = None
        self._alive = 0.0
        self._stopped = False

    def blame(self, link: Link, error: NodeError, allowed: float) -> None:
        """Take note of a call's failure within the time `allowed`; eject the node if it is due."""
        if link.health.ejected or self._stopped:
            return
        if link.blamed is not None and link.blamed() is error:
            return  # one lost connection fails all calls on it with the same error
        link.blamed = ref(error)
        severity = severity_of(error)
        if severity is Severity.SILENCE and allowed < min(SHORTEST, self._timeout / 2):
            return
        if isinstance(error, ConnectTimeoutError) and allowed < self._timeout / 2:
            return  # a later step of a call, with too little time left for a dial
        now = self._io.now()
        if link.health.failed(severity, link.answered, now):
            self._eject(link, error, now)

    def praise(self, link: Link, command: Command) -> None:
        """Take note of a valid reply of an ejected node.

        It restores one that was silent. One that said it cannot serve may still answer reads: only
        a ping, which asks for more, tells when that is over.
        """
        if link.health.soft or type(command) is Ping:
            self._restore(link)

    def refuse(self, nodes: int) -> None:
        """Take note that a call to an ejected node, one of so many, is refused."""
        self._nodes = nodes
        self._ensure_watched(self._io.now())

    def forget(self, link: Link) -> None:
        """Let a node go that the client has no more."""
        self._out.pop(link, None)

    def stop(self) -> None:
        """Probe no more: the client is closed, or gone."""
        self._stopped = True
        self._out.clear()

    def _eject(self, link: Link, error: NodeError, now: float) -> None:
        claim = Claim(now)
        # A signal may raise between any two bytecodes: a node that is ejected is in the list then,
        # and one that is not can be put there by the next failure.
        try:
            if not self._take(link, claim):
                return
            link.health.eject(error, now, self._io.random())
            self._out.setdefault(link, claim)  # it may have passed for abandoned meanwhile
        except BaseException:
            if not link.health.ejected and self._out.get(link) is claim:
                self._out.pop(link, None)
            raise
        link.ejections += 1
        self._log.ejected(error)
        link.backend.eject()
        if self._audience:
            self._audience.tell(NodeEjected(link.node, error))
        self._ensure_watched(now)

    def _take(self, link: Link, claim: Claim) -> bool:
        """Put a link in the list; return whether it was not there, and is the caller's to eject."""
        held = self._out.setdefault(link, claim)
        if held is claim:
            return True
        if link.health.ejected or claim.since - held.since < ABANDONED:
            return False
        self._out[link] = claim  # whoever had it was stopped twice
        return True

    def _restore(self, link: Link) -> None:
        if link not in self._out or not link.health.ejected:  # it may be about to be ejected
            return
        now = self._io.now()
        try:
            if self._out.pop(link, None) is None:
                return
            seconds = now - link.health.since
            link.health.restore(now)
        except BaseException:
            if link.health.ejected:  # what is ejected is in the list, to be restored another time
                self._out.setdefault(link, Claim(now))
            raise
        self._log.restored(link.node.name, seconds)
        if self._audience:
            self._audience.tell(NodeRestored(link.node, seconds))

    def _ensure_watched(self, now: float) -> None:
        if self._watch is not None and now - self._alive < self._timeout + 10 * TICK:
            return
        watch = object()
        try:
            self._alive = now
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
            self._alive = now = self._io.now()
            due = self._due(now)
            if due:
                await self._probe(due)
            else:
                await self._io.sleep(TICK)
        if self._watch is watch:
            self._watch = None

    def _due(self, now: float) -> Sequence[Link]:
        """Return the nodes that are to be probed now.

        When more than half of the nodes are silent the trouble may be this process's own: then none
        waits longer than a second.
        """
        out = self._ejected(now)
        doubted = 2 * sum(link.health.soft for link in out) > self._nodes
        return [
            link
            for link in out
            if link.health.due <= now
            or (doubted and link.health.soft and link.health.looked + DOUBT <= now)
        ]

    def _ejected(self, now: float) -> Sequence[Link]:
        """Return the nodes that are out, and let go of claims that led to nothing."""
        listed = list(
            self._out
        )  # not its items: making pairs may collect garbage, and so change it
        for link in listed:
            claim = self._out.get(link)
            abandoned = claim is not None and now - claim.since >= ABANDONED
            if abandoned and not link.health.ejected and self._out.get(link) is claim:
                self._out.pop(link, None)
        return [link for link in listed if link.health.ejected]

    async def _probe(self, links: Sequence[Link]) -> None:
        for link in links:
            link.health.probing()
        deadline = self._io.now() + self._timeout
        backends = [self._reach(link) for link in links]
        answers: Sequence[Reply]
        try:
            asks = [(backend, Ping()) for backend in backends]
            answers = [reply for reply, _ in await self._io.call_many(asks, deadline)]
        except ShardCacheError as error:  # such as a node that has joined a Redis Cluster
            answers = [NodeUnavailableError(f"cannot be probed: {error}")] * len(links)
        for link, backend, reply in zip(links, backends, answers, strict=True):
            self._judge(link, reply)
            if backend is not link.backend:
                backend.close()
            elif link.health.ejected:
                backend.eject()

    def _judge(self, link: Link, reply: Reply) -> None:
        if isinstance(reply, NodeError) and severity_of(reply) is not Severity.NOTHING:
            link.health.probe_failed(reply, self._io.now(), self._io.random())
        else:
            self._restore(link)
