"""What is done about nodes that are not fit: they are ejected, probed, and restored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
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
TRIAL: Final = 1.0  # seconds between the calls let through to a node that may be well after all
SHORTEST: Final = 0.01  # seconds; a node is not blamed for missing a deadline nearer than this


class Prober:
    """Keeps the ejected nodes of one client, and asks each for a sign of life until it gives one.

    It runs beside the calls (a thread, or a task) only while there is such a node. When that ends
    without a word, as in a forked child or with its event loop, the next refused call starts another.
    """

    __slots__ = (
        "_alive",
        "_audience",
        "_claims",
        "_io",
        "_log",
        "_out",
        "_stopped",
        "_timeout",
        "_watch",
    )

    def __init__(
        self,
        io: IO[Any],
        timeout: float,
        audience: Audience,
        log: Callable[[NodeError], None] = lambda _: None,
    ) -> None:
        self._io = io
        self._timeout = timeout
        self._audience = audience
        self._log = log
        self._out: dict[Link, None] = {}
        # Who puts a link in with `setdefault`, which is atomic, ejects it: no lock is needed.
        self._claims: dict[Link, object] = {}
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

    def admits(self, link: Link, nodes: int) -> bool:
        """Say whether an ejected node is asked all the same.

        When more than half of the `nodes` are silent the trouble may be this process's own: then
        one call a second goes through to each.
        """
        now = self._io.now()
        self._ensure_watched(now)
        if now < link.trial or 2 * sum(other.health.soft for other in list(self._out)) <= nodes:
            return False
        link.trial = now + TRIAL
        return link.health.soft

    def forget(self, link: Link) -> None:
        """Let a node go that the client has no more."""
        self._out.pop(link, None)

    def stop(self) -> None:
        """Probe no more: the client is closed, or gone."""
        self._stopped = True
        self._out.clear()

    def _eject(self, link: Link, error: NodeError, now: float) -> None:
        mine = object()
        if self._claims.setdefault(link, mine) is not mine:
            return
        # Whoever finds it among those that are out may probe and restore it at once: so it is put
        # there when its health says so, and not before.
        ejects = not link.health.ejected
        if ejects:
            link.health.eject(error, now, self._io.random())
            link.trial = now + TRIAL
            self._out[link] = None
        del self._claims[link]
        if not ejects:
            return
        link.ejections += 1
        self._log(error)
        link.backend.eject()
        if self._audience:
            self._audience.tell(NodeEjected(link.node, error))
        self._ensure_watched(now)

    def _restore(self, link: Link) -> None:
        if self._out.pop(link, link) is not None:
            return
        now = self._io.now()
        seconds = now - link.health.since
        link.health.restore(now)
        if self._audience:
            self._audience.tell(NodeRestored(link.node, seconds))

    def _ensure_watched(self, now: float) -> None:
        if self._watch is not None and now - self._alive < self._timeout + 10 * TICK:
            return
        self._alive = now
        self._watch = watch = object()
        try:
            self._io.spawn(lambda: self._watched(watch), "prober")
        except RuntimeError:  # no thread is to be had, as while the interpreter ends
            self._watch = None

    async def _watched(self, watch: object) -> None:
        """Probe whoever is due, until none is left or another watch has taken over."""
        while self._out and self._watch is watch:
            self._alive = now = self._io.now()
            due = [link for link in list(self._out) if link.health.due <= now]
            if due:
                await self._probe(due)
            else:
                await self._io.sleep(TICK)
        if self._watch is watch:
            self._watch = None

    async def _probe(self, links: Sequence[Link]) -> None:
        for link in links:
            link.health.probing()
        deadline = self._io.now() + self._timeout
        answers: Sequence[Reply]
        try:
            asks = [(link.backend, Ping()) for link in links]
            answers = [reply for reply, _ in await self._io.call_many(asks, deadline)]
        except ShardCacheError as error:  # such as a node that has joined a Redis Cluster
            answers = [NodeUnavailableError(f"cannot be probed: {error}")] * len(links)
        for link, reply in zip(links, answers, strict=True):
            self._judge(link, reply)

    def _judge(self, link: Link, reply: Reply) -> None:
        if isinstance(reply, NodeError) and severity_of(reply) is not Severity.NOTHING:
            link.health.probe_failed(reply, self._io.now(), self._io.random())
            link.backend.eject()
        else:
            self._restore(link)
