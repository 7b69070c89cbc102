"""A lock over a majority of nodes, once it is granted: extend it, put it back, withdraw it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from shardcache.core.commands import (
    Acquire,
    Acquired,
    CompareAndDelete,
    CompareAndExpire,
    Payload,
    Reply,
    with_ttl,
)
from shardcache.core.leases import long_enough, node_ttl, quorum, validity
from shardcache.errors import ShardCacheError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.leftovers import LOOKS, remove_later
from shardcache.operations.cluster.members import Member
from shardcache.operations.locks.compare import Suffices, compare_and_change, compare_and_delete
from shardcache.operations.port import UNANSWERED


class QuorumGrant:
    """A lock on the nodes that have granted it: their tokens, and its validity.

    Times are monotonic seconds. It is valid until `until`, unless it has `ended`.
    """

    __slots__ = (
        "_extending",
        "_process",
        "_put_back",
        "_shortest",
        "_tokens",
        "cluster",
        "ended",
        "key",
        "members",
        "payload",
        "until",
    )

    fence = None  # a majority of caches has no number that grows

    def __init__(
        self,
        cluster: Cluster,
        key: bytes,
        tokens: Mapping[Member, Hashable],
        payload: Payload,
        until: float,
    ) -> None:
        self.cluster = cluster
        self.key = key
        self.members = tuple(tokens)
        self.payload = payload
        self.until = until
        self.ended = False
        self._tokens = tokens
        self._put_back: set[Member] = set()  # nodes that had lost it, and may store it again
        self._process = cluster.io.process()
        self._extending = 0  # the number of extensions in progress
        self._shortest = 0.0  # the validity by the shortest of them

    @property
    def token(self) -> bytes:
        """The bytes that the nodes keep for this grant only."""
        return self.payload[1]

    def remaining(self) -> float:
        """Return the seconds for which it is still valid; 0 if it is not, as in a forked child."""
        io = self.cluster.io
        if self.ended or self._process != io.process():
            return 0.0
        return max(0.0, self.until - io.now())

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Do nothing: nodes tell of no loss by themselves."""

    def end(self, *, lost: bool) -> None:
        """Put it back on no node any more; what a lost one has put back is removed."""
        self.ended = True
        if lost:
            remove_later(self.cluster, self._put_back, self.key, self.payload, LOOKS)

    async def extend(self, ttl: float, deadline: float) -> bool:
        """Extend it to `ttl` seconds from now on a majority; return whether it is valid.

        Two extensions at once may reach the nodes in any order: the shorter one counts.
        """
        if not self._extending:
            self._shortest = math.inf
        self._extending += 1
        try:
            return await self._extend(ttl, deadline)
        finally:
            self._extending -= 1

    async def _extend(self, ttl: float, deadline: float) -> bool:
        io = self.cluster.io
        asked = io.now()
        deadline = min(deadline, self.until)
        # From now on nodes may keep it for no longer than this, whatever they reply.
        self.until = min(self.until, asked + validity_of(ttl, 0.0, self.members))
        wanted = quorum(len(self.members))
        replies = await self._extend_on(
            self.members,
            ttl,
            deadline,
            lambda heard: is_decided(list(heard.values()), wanted, len(self.members)),
        )
        agreed = [member for member, reply in replies.items() if reply is True]
        now = io.now()
        left = validity_of(ttl, now - asked, agreed)
        if len(agreed) < wanted or not long_enough(left, ttl) or self.ended:
            return False
        self.until = self._shortest = min(self._shortest, now + left)
        late = [member for member, reply in replies.items() if reply is UNANSWERED]
        if late:
            io.clean_up((self, asked), partial(self._extend_late, late, ttl, deadline))
        return True

    async def _extend_on(
        self, members: Sequence[Member], ttl: float, deadline: float, enough: Suffices
    ) -> Mapping[Member, Reply]:
        """Extend the lock to `ttl` seconds on nodes, and store it again where it was lost.

        Otherwise a node that was restarted would be missing for as long as the lock is held, and so
        would the next one to be restarted.
        """
        put_back: list[Member] = []

        def absent(member: Member) -> Acquire | None:
            """Return the command that stores the lock again; it never replaces another's lock."""
            if not self.remaining():
                return None
            put_back.append(member)
            self._put_back.add(member)
            return Acquire(self.key, self.payload, member_ttl(member, ttl))

        command = CompareAndExpire(self.key, self.payload, ttl)
        replies = await compare_and_change(
            self.cluster.ask_members,
            [(member, with_ttl(command, member_ttl(member, ttl))) for member in members],
            deadline,
            enough,
            absent,
        )
        if not self.remaining():  # it ended meanwhile
            remove_later(self.cluster, put_back, self.key, self.payload, LOOKS)
        return dict(zip(members, replies, strict=True))

    async def _extend_late(self, members: Sequence[Member], ttl: float, deadline: float) -> None:
        """Extend it on nodes that the call did not wait for, with all steps that they need."""
        if self.remaining():
            with suppress(
                ShardCacheError
            ):  # the next extension meets the same error, and raises it
                await self._extend_on(members, ttl, deadline, lambda _: False)

    async def release(self) -> bool:
        """Withdraw it from every node; return whether a majority may still have had it."""
        majority = quorum(len(self.members))
        # Wait for the gate in any case: the next attempt asks it first.
        asked = (member for member in self.members if not (member.suspect or member.health.ejected))
        replies = await withdraw(
            self.cluster,
            self._tokens,
            self.key,
            self.payload,
            majority,
            gate=next(asked, None),
            unsure=self._put_back,
        )
        return replies.count(False) <= len(self.members) - majority


def agrees(reply: Reply) -> bool:
    """Return whether a node agreed to store the lock."""
    return reply is True or isinstance(reply, Acquired)


def token_of(reply: Reply) -> Hashable:
    """Return the CAS token in a node's reply, `None` without one."""
    return reply.token if isinstance(reply, Acquired) else None


def count_against(replies: Iterable[Reply]) -> int:
    """Count the nodes that refused or failed."""
    return sum(not agrees(reply) and reply is not UNANSWERED for reply in replies)


def is_decided(replies: Sequence[Reply], wanted: int, nodes: int) -> bool:
    """Return whether enough nodes agreed, or enough can no longer agree."""
    return sum(map(agrees, replies)) >= wanted or count_against(replies) > nodes - wanted


def member_ttl(member: Member, ttl: float) -> float:
    """Return the ttl in seconds to be sent to a node for a lock of `ttl`."""
    return node_ttl(ttl, whole_seconds=member.whole_seconds)


def validity_of(ttl: float, elapsed: float, agreed: Iterable[Member]) -> float:
    """Return the validity in seconds from now of a lock of `ttl` on the nodes that agreed."""
    return validity(ttl, elapsed, whole_seconds=any(member.whole_seconds for member in agreed))


async def withdraw(  # noqa: PLR0913 - what to remove, and which nodes to wait for
    cluster: Cluster,
    tokens: Mapping[Member, Hashable],
    key: bytes,
    payload: Payload,
    answers: int,
    *,
    gate: Member | None = None,
    unsure: Collection[Member] = (),
) -> list[Reply]:
    """Remove this client's token on each node.

    Wait for `answers` replies, that of the `gate` among them if there is one. The rest is done in
    the background: on nodes that are late, and on `unsure` nodes, which may store it later.
    """

    def enough(heard: Mapping[Member, Reply]) -> bool:
        unheard = [member for member, reply in heard.items() if reply is UNANSWERED]
        return len(heard) - len(unheard) >= answers and gate not in unheard

    members = list(tokens)
    replies: list[Reply] = [UNANSWERED] * len(members)
    try:
        replies = await compare_and_delete(
            cluster.ask_members,
            members,
            CompareAndDelete(key, payload),
            tokens,
            cluster.deadline(),
            enough,
        )
    finally:
        for member, reply in zip(members, replies, strict=True):
            if member in unsure and reply is not True:
                remove_later(cluster, [member], key, payload, LOOKS)
            elif not isinstance(reply, bool):
                remove_later(cluster, [member], key, payload)
    return replies
