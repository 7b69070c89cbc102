"""Claims: the right to store the result of a recompute, as a stub or a refresh mark on a node.

A claim is the *lease* of Facebook's memcache (Nishtala et al., NSDI 2013) and the `W` (*win*) flag
of memcached's meta get; `Lease` is another thing here, the lock's. No command of a claim changes a
key that holds something newer.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final, Protocol

from shardcache.core.commands import (
    Cas,
    Command,
    CompareAndDelete,
    CompareAndExpire,
    DeleteCas,
    Gets,
    Payload,
    Renew,
    Reply,
    Set,
    Touch,
)
from shardcache.core.values.flags import BARE_STUB, MARK_FLAGS, abandoned, is_stub, stub
from shardcache.errors import NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.leftovers import remove_later
from shardcache.operations.cluster.members import Member
from shardcache.operations.locks.compare import compare_and_change
from shardcache.operations.port import UNANSWERED

# How long followers can see that a recompute was abandoned. A node that counts whole seconds may
# drop a key with a shorter life at once.
ABANDONED_SECONDS: Final = 2.0

# In place of the mark of a refresh: it has just failed, and is not tried again for a while.
BACKING_OFF: Final[Payload] = (MARK_FLAGS, b"failed")


class Claim(Protocol):
    """The right to store a value that is being recomputed.

    `token` is the CAS token of the stub or old value at the start: a `Cas` with it stores the value
    only if that is still there. `None`: the value is not to be stored.
    """

    token: Hashable | None

    def matches(self, reply: Reply, token: Hashable | None) -> bool:
        """Return whether a reply shows the stub or value of the start; `token` as in a `FirstRead`."""

    async def find_again(self) -> bool:
        """Look for the stub of the start under another token; adopt that, and return whether it is there."""

    async def renew(self, ttl: float) -> bool:
        """Extend the claim by `ttl` seconds; return whether it is still valid."""

    async def abandon(self, backoff: float) -> None:
        """Tell other processes that no value will come, and that they wait `backoff` seconds."""

    async def release(self) -> None:
        """Give up the claim: another caller may begin at once."""

    async def on_stored(self) -> None:
        """Clean up after the value has been stored."""


class NoClaim:
    """Stores nothing: used when the key's node cannot be reached."""

    token: Hashable | None = None

    def matches(self, reply: Reply, token: Hashable | None) -> bool:  # noqa: ARG002 - there is no stub
        """Return `False`."""
        return False

    async def find_again(self) -> bool:
        """Return `False`."""
        return False

    async def renew(self, ttl: float) -> bool:  # noqa: ARG002 - there is nothing to extend
        """Do nothing."""
        return False

    async def abandon(self, backoff: float) -> None:
        """Do nothing."""

    async def release(self) -> None:
        """Do nothing."""

    async def on_stored(self) -> None:
        """Do nothing."""


class StubClaim:
    """A stub in place of the value, from a `GetOrStub`; this caller's own if it `leads`.

    With another's stub, or that of an abandoned recompute, a value can be stored too, if it is
    first.
    """

    def __init__(self, cluster: Cluster, member: Member, name: bytes, mark: bytes) -> None:
        self.token: Hashable | None = None
        self.at_start: Payload | None = None  # the stub or value of the start, as a `Get` shows it
        self.leads = False
        self._cluster = cluster
        self._member = member
        self._name = name
        self.mark = mark

    def matches(self, reply: Reply, token: Hashable | None) -> bool:
        """Return whether a reply shows the stub or value of the start, or our own stub.

        If the node stored no stub, that is unknown, and counts as a match: it spares the source.
        """
        if self.at_start is None:
            return True
        if reply == BARE_STUB:
            return token is not None and token == self.token
        return reply in {self.at_start, stub(self.mark)}

    async def find_again(self) -> bool:
        """Look for the stub under another token: memcached changes it when the stub is renewed."""
        found = await self._ask(Gets(self._name))
        if not isinstance(found, tuple) or self.at_start is None:
            return False
        payload, token = found
        if token == self.token or payload == BARE_STUB or not is_stub(payload):
            return False
        if not self.matches(payload, token):
            return False
        self.token = token
        return True

    async def renew(self, ttl: float) -> bool:
        """Extend the stub by `ttl` seconds if it is our own."""
        if not self.leads:
            return False
        reply = await self._ask(Renew(self._name, self.mark, self.token, ttl))
        if reply is None:
            return False
        if isinstance(reply, Hashable) and not isinstance(reply, NodeError):
            self.token = reply
        return True  # a node that did not answer is asked again at the next renewal

    async def abandon(self, backoff: float) -> None:  # noqa: ARG002 - others may try at once
        """Leave a mark that tells followers to recompute the value themselves."""
        if self.leads:
            await self._ask(Cas(self._name, abandoned(self.mark), self.token, ABANDONED_SECONDS))

    async def release(self) -> None:
        """Remove the stub."""
        if self.leads:
            await self._ask(DeleteCas(self._name, self.token))

    async def on_stored(self) -> None:
        """Do nothing: the value has taken the stub's place."""

    async def _ask(self, command: Command) -> Reply:
        return await self._cluster.ask(self._member, command)


class RefreshClaim:
    """The right to refresh a value while the old one is still served: a second key on the same node.

    The node keeps the old value meanwhile, even when it is too old to be served: without it other
    callers would begin from a miss, and the new value could not be stored in its place. `leaves` is
    the time of day, in seconds, at which the node would drop the old value.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - two keys, and what is known of each
        self,
        cluster: Cluster,
        member: Member,
        name: bytes,
        refresh_key: bytes,
        mark: Payload,
        at_start: Payload | None,
        token: Hashable,
        leaves: float,
    ) -> None:
        self.token: Hashable | None = token
        self._at_start = at_start
        self._cluster = cluster
        self._member = member
        self._name = name
        self._refresh_key = refresh_key
        self._mark = mark
        self._leaves = leaves

    def matches(self, reply: Reply, token: Hashable | None) -> bool:  # noqa: ARG002 - not needed for values
        """Return whether a reply shows the old value."""
        return reply == self._at_start

    async def find_again(self) -> bool:
        """Return `False`: a value keeps its token."""
        return False

    async def keep_old_value(self, ttl: float) -> None:
        """Keep the old value for another `ttl` seconds."""
        leaves = self._cluster.io.wall() + ttl
        if leaves > self._leaves:
            self._leaves = leaves
            await self._cluster.ask(self._member, Touch(self._name, ttl))

    async def renew(self, ttl: float) -> bool:
        """Extend the refresh mark and the old value by `ttl` seconds."""
        await self.keep_old_value(ttl)
        reply = await self._ask(CompareAndExpire(self._refresh_key, self._mark, ttl))
        return reply is not False

    async def abandon(self, backoff: float) -> None:
        """Keep all callers from refreshing the value for `backoff` seconds."""
        if backoff:
            await self._cluster.ask(self._member, Set(self._refresh_key, BACKING_OFF, backoff))
        else:
            await self.release()

    async def release(self) -> None:
        """Remove the refresh mark."""
        reply = await self._ask(CompareAndDelete(self._refresh_key, self._mark))
        if isinstance(reply, NodeError):
            remove_later(self._cluster, [self._member], self._refresh_key, self._mark)

    async def on_stored(self) -> None:
        """Remove the refresh mark."""
        await self.release()

    async def _ask(self, command: CompareAndDelete | CompareAndExpire) -> Reply:
        cluster = self._cluster
        asks = [(self._member, command)]
        (reply,) = await compare_and_change(cluster.ask_many, asks, cluster.deadline(), _answered)
        return reply


def _answered(heard: Mapping[Member, Reply]) -> bool:
    return UNANSWERED not in heard.values()
