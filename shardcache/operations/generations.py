"""The generation of a function's values: another one, and none of the old is found any more."""

from __future__ import annotations

from typing import Final

from shardcache.core.commands import Get, Set, When
from shardcache.core.keys import RESERVED
from shardcache.core.payloads import RAW_FLAGS
from shardcache.errors import NodeError
from shardcache.operations.cluster import Cluster, Key

GENERATIONS: Final = RESERVED + b"g:"
LOOK_AGAIN: Final = 1.0  # seconds after which another process's change is looked for


class Generation:
    """The generation of one function's values, as this process knows it.

    The first has no name and no key: nothing is lost with a node unless `renew` was used, and then
    each process that knows better puts it back.
    """

    __slots__ = ("_due", "_function", "_known", "_looked", "_renewals", "name")

    def __init__(self, function: Key) -> None:
        self._function = function
        self._known = False
        self._renewals = 0
        self._due = 0.0
        self._looked = 0.0  # when a look-up began
        self.name = ""

    async def look(self, cluster: Cluster) -> None:
        """See to it that `name` is known, and looked up again once a second.

        That is done beside the calls, but for the first after a pause, which waits for it; so does
        one after which nobody was free to do it beside.
        """
        io = cluster.io
        now = io.now()
        if now < self._due:
            return
        if not self._known:
            await self._look_up(cluster)  # nobody may go on without it
            return
        recent = now < self._looked + 2 * LOOK_AGAIN
        self._due = now + LOOK_AGAIN
        if not recent:
            await self._look_up(cluster)
        elif not io.offer(lambda: self._look_up(cluster), "generation"):
            self._due = now

    async def renew(self, cluster: Cluster) -> bool:
        """Begin a new generation; say whether its node has taken note."""
        key, link = cluster.route(self._function)
        name = cluster.io.token()[:8].hex()
        stored = await cluster.ask(link, Set(GENERATIONS + key, (RAW_FLAGS, name.encode())))
        if cluster.settled(stored, otherwise=False) is not True:
            return False
        self.name = name
        self._renewals += 1
        self._known = True
        return True

    async def _look_up(self, cluster: Cluster) -> None:
        self._looked = cluster.io.now()
        key, link = cluster.route(self._function)
        command, renewals = Get(GENERATIONS + key), self._renewals
        reply = await cluster.io.shared(command.key, lambda: cluster.ask(link, command))
        if isinstance(reply, NodeError) or renewals != self._renewals:
            return  # it says nothing, or is older than what is known
        self._known = True
        self._due = cluster.io.now() + LOOK_AGAIN
        if isinstance(reply, tuple):
            self.name = reply[1].decode("ascii", "replace")
        elif self.name:
            payload = (RAW_FLAGS, self.name.encode())
            await cluster.ask(link, Set(GENERATIONS + key, payload, None, When.ABSENT))
