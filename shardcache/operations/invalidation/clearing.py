"""A cluster whose keys can all be invalidated in one step, because their names carry a generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shardcache.core.commands import Command, Reply, keys_of, with_keys
from shardcache.core.reserved_keys import (
    CLEARABLE,
    CLEARED,
    GENERATION_SIZE,
    GENERATIONS,
    LOCKS,
    MARKS,
    VALUE_LOCKS,
    own_key,
    without_generation,
)
from shardcache.errors import ConfigurationError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.invalidation.generations import Generations
from shardcache.operations.port import Enough

# Prefixes of the keys that outlive a clear.
_KEPT: Final = (LOCKS, VALUE_LOCKS, GENERATIONS, CLEARED, MARKS)
# In place of the first generation, so that all names are equally long.
_NEVER_CLEARED: Final = "0" * GENERATION_SIZE


class ClearableCluster(Cluster):
    """A cluster on whose nodes the generation of the namespace precedes each key's own name.

    Operations do not know of it: keys are renamed as they are sent. A clear does not move keys to
    other nodes, because they are placed by their own names.
    """

    __slots__ = ("_generations",)

    clearable = True

    # The parts are those that `Cluster` takes, hence `Any`.
    def __init__(self, *, generations: Generations, **parts: Any) -> None:
        super().__init__(**parts)
        self._generations = generations

    async def ask(self, member: Member, command: Command, deadline: float | None = None) -> Reply:
        """Ask one node; once a second, also ask whether the namespace was cleared."""
        if self._is_current():
            return await super().ask(member, self.stamp(command), deadline)
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
        """Ask many nodes at once; once a second, also ask what `ask` does."""
        until = self.deadline() if deadline is None else deadline
        if not self._is_current() and any(_is_cleared(command) for _, command in asks):
            # Commands to names of an old generation had no effect on the new one: send them again.
            reads = asks if enough is None else ()
            wanted = [self._generations.cleared]
            replies = await self._generations.settle(self, wanted, reads, until)
            if replies is None:
                self.invalidated_all()  # no caller joins an older recompute
            elif enough is None:
                return replies
        sent = [(member, self.stamp(command)) for member, command in asks]
        return await super().ask_timed(sent, until, enough, ejected_too=ejected_too)

    def stamp(self, command: Command) -> Command:
        """Return a command with the generation in front of its keys."""
        generation = self._generations.cleared.name or _NEVER_CLEARED
        stamp = own_key(CLEARABLE, b"%b:" % generation.encode())
        keys = [key if key.startswith(_KEPT) else stamp + key for key in keys_of(command)]
        return with_keys(command, keys)

    def own_name(self, name: bytes) -> bytes:
        """Return the canonical name of a key, without the generation."""
        return without_generation(super().own_name(name))

    def _is_current(self) -> bool:
        return self._generations.are_current([self._generations.cleared], self.io.now())


async def clear(cluster: Cluster, generations: Generations) -> bool:
    """Invalidate all keys of a clearable cluster; return whether that is in force."""
    if cluster.disabled:
        return False
    if not cluster.clearable:
        raise ConfigurationError(
            "clear: this client's keys carry no generation, so they cannot be cleared in one step;"
            " create the client with clearable=True, or empty its nodes, for all of their clients,"
            " with flush_all()"
        )
    try:
        return await generations.renew(cluster, generations.cleared)
    finally:
        cluster.invalidated_all()  # no caller joins an older recompute


def _is_cleared(command: Command) -> bool:
    """Return whether a command is about keys that a clear invalidates."""
    return any(not key.startswith(_KEPT) for key in keys_of(command))
