"""What becomes of a client's nodes that fail: they are ejected, and restored when they answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final
from weakref import ref

from shardcache.core.commands import Command, Ping
from shardcache.core.events import Audience, NodeEjected, NodeRestored
from shardcache.core.health import Severity, severity_of
from shardcache.errors import ConnectTimeoutError, NodeError
from shardcache.operations.members import Link
from shardcache.operations.probing import Claim, Prober

SHORTEST: Final = 0.01  # seconds; a node is not blamed for missing a deadline nearer than this


class Ejector:
    """One client's part in the health of its nodes: it is told of their failures, and tells of them.

    The `prober` has the nodes that are ejected, of this client and of all others that share it.
    `reach` returns the blocking backend over which a node is probed: its own, or one for this probe
    alone. `client` returns the client, or `None` once it is gone.
    """

    __slots__ = ("_audience", "_client", "_links", "_stopped", "_told", "prober", "reach")

    def __init__(
        self,
        prober: Prober,
        audience: Audience,
        reach: Callable[[Link], Any] = lambda link: link.backend,  # as the prober's port takes it
        client: Callable[[], object] = lambda: True,
    ) -> None:
        self.prober = prober
        self.reach = reach
        self._client = client
        self._stopped = False
        self._audience = audience
        self._links: dict[Link, None] = {}
        # Those of which the client was told that they are out, and since when. Who puts one in with
        # `setdefault`, which is atomic, tells of it, and so does who takes it out with `pop`.
        self._told: dict[Link, Claim] = {}

    def add(self, link: Link, identity: Hashable = None) -> None:
        """Watch over one more node, together with all clients that know it by the same `identity`.

        A node whose identity is `None` is this client's alone.
        """
        self._links[link] = None
        self.prober.join(link, self, identity)

    def keep(self, links: Iterable[Link]) -> None:
        """Let go of every node but these: the client has no others any more."""
        kept = set(links)
        for link in list(self._links):
            if link not in kept:
                self._let_go(link)

    def stop(self) -> None:
        """Let go of every node: the client is closed, or gone."""
        self._stopped = True  # which suffices, if an interrupt comes before the rest
        for link in list(self._links):
            self._let_go(link)

    @property
    def stopped(self) -> bool:
        """Return whether the client is closed, or gone: an interrupt may keep `stop` from being called."""
        return self._stopped or self._client() is None

    def _let_go(self, link: Link) -> None:
        self.prober.leave(link)
        self._links.pop(link, None)
        self._told.pop(link, None)

    def blame(self, link: Link, error: NodeError, began: float, allowed: float) -> None:
        """Take note of the failure of a call; eject the node if it is due.

        The call `began` at a moment of the prober's clock, and was `allowed` so many seconds.
        """
        health = link.health
        if health.ejected or self.stopped or link not in health.links:
            return
        if link.blamed is not None and link.blamed() is error:
            return  # one lost connection fails all calls on it with the same error
        link.blamed = ref(error)
        severity = severity_of(error)
        timeout = self.prober.timeout
        if severity is Severity.SILENCE and allowed < min(SHORTEST, timeout / 2):
            return
        if isinstance(error, ConnectTimeoutError) and allowed < timeout / 2:
            return  # a later step of a call, with too little time left for a dial
        if began < health.restored:
            return  # it says nothing of the node as it is since
        now = self.prober.now()
        if health.failed(severity, health.answered, now):
            self.prober.eject(health, error, now)

    def praise(self, link: Link, command: Command) -> None:
        """Take note of a valid reply of an ejected node.

        It restores one that was silent. One that said it cannot serve may still answer reads: only
        a ping, which asks for more, tells when that is over.
        """
        if link.health.soft or type(command) is Ping:
            self.prober.restore(link.health)

    def refuse(self, link: Link) -> None:
        """Take note that a call to an ejected node is refused."""
        if link not in self._links:
            return
        error = link.health.error
        told = self._told.get(link)
        if error is not None and (told is None or told.since != link.health.since):
            self.tell_ejected(link, error)  # it was ejected before this client had it
        self.prober.ensure_running()

    @property
    def doubts(self) -> bool:
        """Return whether most nodes of the client are silent: that may be this process's own fault."""
        links = list(self._links)
        silent = sum(link.health.ejected and link.health.soft for link in links)
        return 2 * silent > len(links)

    def tell_ejected(self, link: Link, error: NodeError) -> None:
        """Drop the connections of a node that is ejected, and tell the client of it, once."""
        self._tell_overdue(link)
        told = Claim(link.health.since)
        if link not in self._links or self._told.setdefault(link, told) is not told:
            return
        if not link.health.ejected:  # it was restored meanwhile
            self._told.pop(link, None)
            return
        link.ejections += 1
        link.backend.eject()
        if self._audience:
            self._audience.tell(NodeEjected(link.node, error))

    def _tell_overdue(self, link: Link) -> None:
        """Tell of the return from an earlier ejection, if an interrupt kept the client from it."""
        told, health = self._told.get(link), link.health
        if told is not None and told.since != health.since:
            self.tell_restored(link, health.restored - told.since)

    def tell_restored(self, link: Link, seconds: float) -> None:
        """Tell the client, if it was told before, that a node is back after so many seconds."""
        if self._told.pop(link, None) is not None and self._audience:
            self._audience.tell(NodeRestored(link.node, seconds))
