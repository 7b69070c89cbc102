"""A cluster whose keys can all be made misses in one step, for their names carry a generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from shardcache.core.commands import (
    Command,
    DeleteMany,
    FlushAll,
    GetMany,
    Ping,
    Reply,
    ServerStats,
    SetMany,
)
from shardcache.core.reserved_keys import CLEARABLE, CLEARED, GENERATIONS, LOCKS, MARKS, VALUE_LOCKS
from shardcache.errors import ConfigurationError, NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.invalidation.generations import Generations
from shardcache.operations.port import Enough

# What outlives a clearing.
_KEPT: Final = (LOCKS, VALUE_LOCKS, GENERATIONS, CLEARED, MARKS)
_NEVER_CLEARED: Final = "0" * 16  # in place of the first generation, so that names are equally long
_STAMP: Final = len(CLEARABLE) + len(_NEVER_CLEARED) + 1  # bytes in front of a key's own name


class ClearableCluster(Cluster):
    """Nodes on which each key is called by the generation of the namespace, and then its own name.

    Operations know nothing of it: keys are renamed as they are sent. They stay on their nodes when
    they are cleared, for they are placed by their own names.
    """

    __slots__ = ("_generations",)

    clearable = True

    def __init__(
        self, *, generations: Generations, **parts: Any
    ) -> None:  # as `Cluster` takes them
        super().__init__(**parts)
        self._generations = generations

    async def ask(self, member: Member, command: Command, deadline: float | None = None) -> Reply:
        """Ask one node; once a second along with a look whether the namespace was cleared."""
        if self._is_current():
            return await super().ask(member, self.stamped(command), deadline)
        ((reply, _),) = await self.ask_timed([(member, command)], deadline)
        return reply

    async def ask_timed(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,
        enough: Enough | None = None,
        *,
        ejected_too: bool = False,
    ) -> list[tuple[Reply, float]]:
        """Ask many nodes at once; once a second along with a look as `ask` does."""
        until = self.deadline() if deadline is None else deadline
        if not self._is_current() and any(_is_cleared(command) for _, command in asks):
            # Names that turn out to be void are dead: whatever was done there, it is done anew.
            reads = asks if enough is None else ()
            wanted = [self._generations.cleared]
            replies = await self._generations.settle(self, wanted, reads, until)
            if replies is None:
                self.io.single_flight.forget_all()  # nobody joins who began before
            elif enough is None:
                return replies
        sent = [(member, self.stamped(command)) for member, command in asks]
        return await super().ask_timed(sent, until, enough, ejected_too=ejected_too)

    def stamped(self, command: Command) -> Command:
        """Return a command with the generation in front of its keys."""
        generation = self._generations.cleared.name or _NEVER_CLEARED
        stamp = b"%b%b:" % (CLEARABLE, generation.encode())
        return _renamed(command, lambda key: key if key.startswith(_KEPT) else stamp + key)

    def _is_current(self) -> bool:
        return self._generations.are_current([self._generations.cleared], self.io.now())

    def _notify_call(
        self,
        member: Member,
        command: Command,
        seconds: float,
        reply: Reply,
        error: NodeError | None,
    ) -> None:
        """Tell observers of the keys by their own names."""
        if self.observers:
            super()._notify_call(member, _plain(command), seconds, reply, error)


async def clear(cluster: Cluster, generations: Generations) -> bool:
    """Make all keys of a clearable cluster misses; return whether that is in force."""
    if not cluster.clearable:
        raise ConfigurationError(
            "clear: the keys of this client cannot be told from those of others in one step; make it"
            " with clearable=True, or empty its nodes, for all who use them, with flush_all()"
        )
    try:
        return await generations.renew(cluster, generations.cleared)
    finally:
        cluster.io.single_flight.forget_all()  # nobody joins who began before


_KEYLESS: Final = (Ping, ServerStats, FlushAll)


def _is_cleared(command: Command) -> bool:
    """Return whether a command is about keys that a clearing makes misses."""
    return any(not key.startswith(_KEPT) for key in _keys(command))


def _keys(command: Command) -> Sequence[bytes]:
    if isinstance(command, _KEYLESS):
        return ()
    if isinstance(command, (GetMany, DeleteMany)):
        return command.keys
    if isinstance(command, SetMany):
        return [key for key, _ in command.items]
    return (command.key,)


def _renamed(command: Command, rename: Callable[[bytes], bytes]) -> Command:
    """Return a command with other keys."""
    if isinstance(command, _KEYLESS):
        return command
    if isinstance(command, (GetMany, DeleteMany)):
        return command._replace(keys=list(map(rename, command.keys)))
    if isinstance(command, SetMany):
        return command._replace(items=[(rename(key), payload) for key, payload in command.items])
    return command._replace(key=rename(command.key))


def _plain(command: Command) -> Command:
    """Return a command with the keys that its caller knows."""
    return _renamed(command, _without_generation)


def _without_generation(name: bytes) -> bytes:
    return name[_STAMP:] if name.startswith(CLEARABLE) else name
