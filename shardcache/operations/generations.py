"""The generation of a function's values: another one, and none of the old is found any more.

It is kept on as many nodes as a lock is, and said by a majority of them: none of them is waited for
while the others answer, and one that loses it is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from shardcache.core.commands import Cas, Command, Gets, Reply, Set, When
from shardcache.core.keys import RESERVED
from shardcache.core.leases import quorum
from shardcache.core.payloads import RAW_FLAGS
from shardcache.errors import NodeError
from shardcache.operations.cluster import Cluster, Key
from shardcache.operations.members import Link
from shardcache.operations.port import IO, UNANSWERED, Landing

GENERATIONS: Final = RESERVED + b"g:"
LOOK_AGAIN: Final = 1.0  # seconds after which another process's change is looked for

# Milliseconds since 1970 in 12 hexadecimal digits, then 4 by chance: the newest is the greatest.
_NAME: Final = re.compile(rb"[0-9a-f]{16}")
_CHANCE_BITS: Final = 16


class Generation:
    """The generation of one function's values, as this process knows it.

    The first has no name and no key: nothing is lost with a node unless `renew` was used, and then
    each process that knows better puts it back.
    """

    __slots__ = ("_due", "_function", "_known", "_looked", "name")

    def __init__(self, function: Key) -> None:
        self._function = function
        self._known = False
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
        """Begin a new generation; say whether most of its nodes have taken note."""
        await self._ask(cluster)  # it has to be newer than all others
        name = _newer(self.name, cluster.io)
        key, links = self._kept(cluster)
        command, wanted = Set(key, _payload(name)), quorum(len(links))
        replies = await cluster.ask_many(
            [(link, command) for link in links],
            cluster.deadline(),
            lambda heard: heard.count(True) >= wanted,
        )
        stored = replies.count(True)
        if stored:  # others may find it already
            self._learn(name)
        if stored >= wanted:
            return True
        failed = next(reply for reply in replies if reply is not True)
        return cluster.settled(failed, otherwise=False) is True

    async def _look_up(self, cluster: Cluster) -> None:
        """Ask for it, one for all who want to know it now."""
        io = cluster.io
        self._looked = io.now()
        key, _ = self._kept(cluster)
        landed, _ = await io.flights.fly(
            key, lambda: self._ask(cluster), cluster.timeout, takes_over=False
        )
        if isinstance(landed, Landing):
            await self._ask(cluster)

    async def _ask(self, cluster: Cluster) -> None:
        """Ask the nodes that keep it, and tell those that know less than others."""
        key, links = self._kept(cluster)
        wanted, deadline = quorum(len(links)), cluster.deadline()
        replies = await cluster.ask_many(
            [(link, Gets(key)) for link in links],
            deadline,
            lambda heard: sum(map(_answers, heard)) >= wanted,
        )
        heard = [_name(reply) for reply in replies if _answers(reply)]
        if not heard:
            return
        self._learn(max(heard))
        self._due = cluster.io.now() + LOOK_AGAIN
        behind: list[tuple[Link, Command]] = [
            (link, _correction(key, self.name, reply))
            for link, reply in zip(links, replies, strict=True)
            if _answers(reply) and _name(reply) < self.name
        ]
        await cluster.ask_many(behind, deadline)

    def _learn(self, name: str) -> None:
        self.name = max(self.name, name)
        self._known = True

    def _kept(self, cluster: Cluster) -> tuple[bytes, Sequence[Link]]:
        name = cluster.keys.canonical(cluster.keys.encode(self._function))
        return GENERATIONS + name, cluster.voters(self._function)


def _answers(reply: Reply) -> bool:
    return reply is not UNANSWERED and not isinstance(reply, NodeError)


def _name(reply: Reply) -> str:
    """Give the generation in a reply to `Gets`; the first one's, if there is none that is ours."""
    if not isinstance(reply, tuple):
        return ""
    _, data = reply[0]
    return data.decode() if _NAME.fullmatch(data) else ""


def _correction(key: bytes, name: str, reply: Reply) -> Command:
    """Give the command that tells a node, unless it has been told of another meanwhile."""
    if isinstance(reply, tuple):
        return Cas(key, _payload(name), reply[1])
    return Set(key, _payload(name), None, When.ABSENT)


def _payload(name: str) -> tuple[int, bytes]:
    return RAW_FLAGS, name.encode()


def _newer(name: str, io: IO[object]) -> str:
    """Give the name of a generation that comes after another, also when clocks differ."""
    moment = max(int(io.wall() * 1000), (int(name or "0", 16) >> _CHANCE_BITS) + 1)
    return f"{moment:012x}{io.token()[:2].hex()}"
