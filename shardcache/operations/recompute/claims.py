"""The right to store what is being made, and what becomes of it: kept, given up, let go.

What a claim asks of the key's own node changes nothing if something newer is there.
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
from shardcache.operations.locks.compare import compared
from shardcache.operations.port import UNANSWERED

# How long those who wait can see that a making was given up; less may be gone at once on a node
# that counts whole seconds.
ABANDONED_SECONDS: Final = 2.0

# In the place of the mark of whoever makes a value anew: it has just failed, and is not tried now.
BACKING_OFF: Final[Payload] = (MARK_FLAGS, b"failed")


class Claim(Protocol):
    """What one who makes a value has on the key's own node.

    `token` stands for what was there when the making began: a `Cas` with it stores the value only
    if that is still there. `None`: the value is not to be stored.
    """

    token: Hashable | None

    def matches(self, reply: Reply, token: Hashable | None) -> bool:
        """Return whether a reply shows what was there when this began; `token` as in a `Sight`."""

    async def find_again(self) -> bool:
        """Return whether what was there when this began is there under another token, used from now on."""

    async def renew(self, ttl: float) -> bool:
        """Keep others from making the same for another `ttl` seconds; say whether that went well."""

    async def abandon(self, backoff: float) -> None:
        """Let others know that nothing will come of it, or not for `backoff` seconds."""

    async def release(self) -> None:
        """Undo it: somebody else may begin at once."""

    async def on_stored(self) -> None:
        """Do what remains to be done when the value has been stored."""


class NoClaim:
    """What one has who makes a value without a word to anybody: it will not be stored."""

    token: Hashable | None = None

    def matches(self, reply: Reply, token: Hashable | None) -> bool:  # noqa: ARG002 - nothing is there
        """Return that it does not."""
        return False

    async def find_again(self) -> bool:
        """Return that it is not."""
        return False

    async def renew(self, ttl: float) -> bool:  # noqa: ARG002 - nobody is kept from anything
        """Do nothing."""
        return False

    async def abandon(self, backoff: float) -> None:
        """Do nothing."""

    async def release(self) -> None:
        """Do nothing."""

    async def on_stored(self) -> None:
        """Do nothing."""


class StubClaim:
    """What a `GetOrStub` gave: a stub in place of the value, our own if it `leads`.

    With somebody else's stub, or with what was left of a making given up, a value can be stored as
    well, if it comes first.
    """

    def __init__(self, cluster: Cluster, member: Member, name: bytes, mark: bytes) -> None:
        self.token: Hashable | None = None
        self.met: Payload | None = None  # what a `Get` shows of what is there
        self.leads = False
        self._cluster = cluster
        self._member = member
        self._name = name
        self.mark = mark

    def matches(self, reply: Reply, token: Hashable | None) -> bool:
        """Return whether a reply shows what was there at the beginning, or our stub.

        Where the node took no stub that cannot be known, and is not denied: the source is to be spared.
        """
        if self.met is None:
            return True
        if reply == BARE_STUB:
            return token is not None and token == self.token
        return reply in {self.met, stub(self.mark)}

    async def find_again(self) -> bool:
        """Look for the stub under another token, which memcached gives it when it is renewed."""
        there = await self._ask(Gets(self._name))
        if not isinstance(there, tuple) or self.met is None:
            return False
        payload, token = there
        if token == self.token or payload == BARE_STUB or not is_stub(payload):
            return False
        if not self.matches(payload, token):
            return False
        self.token = token
        return True

    async def renew(self, ttl: float) -> bool:
        """Give the stub another `ttl` seconds if it is ours."""
        if not self.leads:
            return False
        reply = await self._ask(Renew(self._name, self.mark, self.token, ttl))
        if reply is None:
            return False
        if isinstance(reply, Hashable) and not isinstance(reply, NodeError):
            self.token = reply
        return True  # a node that did not answer is asked again

    async def abandon(self, backoff: float) -> None:  # noqa: ARG002 - others may try at once
        """Leave a mark that tells those who wait to make the value for themselves."""
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
    """What the one has who makes a value anew while the old one stays: a key beside the value's.

    The old value is kept on its node for as long, even when nobody is served with it any more:
    without it others would begin from nothing, and what is made now could not be stored in its
    place. `leaves` is the time of day, in seconds, at which its node would let it go.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - two keys, and what is known of each
        self,
        cluster: Cluster,
        member: Member,
        name: bytes,
        refresh_key: bytes,
        mark: Payload,
        met: Payload | None,
        token: Hashable,
        leaves: float,
    ) -> None:
        self.token: Hashable | None = token
        self._met = met
        self._cluster = cluster
        self._member = member
        self._name = name
        self._refresh_key = refresh_key
        self._mark = mark
        self._leaves = leaves

    def matches(self, reply: Reply, token: Hashable | None) -> bool:  # noqa: ARG002 - values have no need
        """Return whether a reply shows the old value."""
        return reply == self._met

    async def find_again(self) -> bool:
        """Return that it is not: a value keeps its token."""
        return False

    async def stay(self, ttl: float) -> None:
        """Keep the old value for another `ttl` seconds."""
        leaves = self._cluster.io.wall() + ttl
        if leaves > self._leaves:
            self._leaves = leaves
            await self._cluster.ask(self._member, Touch(self._name, ttl))

    async def renew(self, ttl: float) -> bool:
        """Stay the one for another `ttl` seconds."""
        await self.stay(ttl)
        return (
            await self._compared(CompareAndExpire(self._refresh_key, self._mark, ttl)) is not False
        )

    async def abandon(self, backoff: float) -> None:
        """Keep everybody from trying again for `backoff` seconds."""
        if backoff:
            await self._cluster.ask(self._member, Set(self._refresh_key, BACKING_OFF, backoff))
        else:
            await self.release()

    async def release(self) -> None:
        """Let somebody else be the one."""
        if isinstance(
            await self._compared(CompareAndDelete(self._refresh_key, self._mark)), NodeError
        ):
            remove_later(self._cluster, [self._member], self._refresh_key, self._mark)

    async def on_stored(self) -> None:
        """Be the one no more."""
        await self.release()

    async def _compared(self, command: CompareAndDelete | CompareAndExpire) -> Reply:
        cluster = self._cluster
        asks = [(self._member, command)]
        (reply,) = await compared(cluster, asks, cluster.deadline(), _answered)
        return reply


def _answered(heard: Mapping[Member, Reply]) -> bool:
    return UNANSWERED not in heard.values()
