"""A lock over a majority of nodes, in the manner of Redlock: taken, prolonged, given back.

Source: Redis' description of the Redlock algorithm. Other than there the nodes are not asked all at
once: the first, the gate, is asked alone, and only who gets it asks the rest. Many who ask all
nodes at once split the votes, and nobody wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from shardcache.core.commands import (
    Acquire,
    CompareAndDelete,
    Get,
    Payload,
    Reply,
)
from shardcache.core.leases import LockPolicy, lock_key, long_enough, quorum
from shardcache.core.placement.nodes import Node
from shardcache.core.reserved_keys import LOCKS
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import (
    LockTimeout,
    LockUnavailable,
    NodeError,
    NodeTimeoutError,
)
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.leftovers import LOOKS, clear, may_store, remove_later
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key
from shardcache.operations.locks.backoff import Backoff
from shardcache.operations.locks.held import (
    HeldLock,
    agrees,
    count_against,
    is_decided,
    member_ttl,
    token_of,
    validity_of,
    withdraw,
)
from shardcache.operations.port import UNANSWERED

SILENT_GATES: Final = 2  # that are waited for; then all others are asked at once
GATE_SHARE: Final = 0.5  # of a call's time, for one gate: two of them and the rest take two calls


async def acquire(cluster: Cluster, key: Key, policy: LockPolicy, wait: float | None) -> HeldLock:
    """Take the lock called `key`, trying for `wait` seconds while another has it; `None`: without end.

    Raise `LockTimeout` when that does not end, `LockUnavailable` when too few nodes answer.
    """
    io = cluster.io
    deadline = math.inf if wait is None else io.now() + wait
    backoff = Backoff(io, policy.backoff)
    while (hold := await attempt(cluster, key, policy)) is None:
        pause = backoff.pause()
        left = deadline - io.now()
        if left <= 0:
            raise LockTimeout(f"lock {key!r} is still held by another client after {wait:g} s")
        await io.sleep(min(pause, left))
    return hold


async def attempt(
    cluster: Cluster, key: Key, policy: LockPolicy, prefix: bytes = LOCKS
) -> HeldLock | None:
    """Try once to take the lock called `key`; `None` while another has it.

    Raise `LockUnavailable` when too few nodes answer.
    """
    cluster = cluster.locking
    name = cluster.keys.canonical(cluster.keys.encode(key))
    members = cluster.voters(key)
    vote = _Attempt(cluster, name, members, policy, prefix)
    hold = await _attempt(vote)
    if hold is None and await clear(cluster, vote.refusing(), lock_key(name, prefix)):
        hold = await _attempt(_Attempt(cluster, name, members, policy, prefix))
    return hold


async def _attempt(vote: _Attempt) -> HeldLock | None:
    io = vote.cluster.io
    try:
        if await vote.take():
            hold = vote.hold()
            hold.keep()
            return hold
    except BaseException:
        await io.shield(vote.withdraw)
        raise
    await io.shield(vote.withdraw)
    vote.check_available()
    return None


async def held(cluster: Cluster, key: Key) -> bool:
    """Return whether a majority of the lock's nodes keeps it for one holder now.

    Raise `LockUnavailable` when the nodes that do not answer could make the difference.
    """
    cluster = cluster.locking
    name = cluster.keys.canonical(cluster.keys.encode(key))
    members = cluster.voters(key)
    command = Get(lock_key(name))
    replies = await cluster.ask_many(
        [(member, command) for member in members],
        cluster.deadline(),
        lambda heard: _is_held(heard) is not None,
    )
    answer = _is_held(replies)
    if answer is None:
        raise _unavailable(name, dict(zip(members, replies, strict=True)))
    return answer


def _is_held(replies: Sequence[Reply]) -> bool | None:
    """Return whether a majority has one token; `None` when those not heard make the difference."""
    kept = [reply for reply in replies if isinstance(reply, tuple)]
    most = max(map(kept.count, kept), default=0)
    unheard = sum(reply is UNANSWERED or isinstance(reply, NodeError) for reply in replies)
    if most >= quorum(len(replies)):
        return True
    return False if most + unheard < quorum(len(replies)) else None


class _Attempt:
    """One attempt at a lock: whom it asked, and what each said."""

    def __init__(
        self,
        cluster: Cluster,
        name: bytes,
        members: Sequence[Member],
        policy: LockPolicy,
        prefix: bytes,
    ) -> None:
        self.cluster = cluster
        self._name = name
        self._members = members
        self._policy = policy
        self._payload: Payload = (MARK_FLAGS, cluster.io.token())
        self._key = lock_key(name, prefix)
        self._wanted = quorum(len(members))
        self._replies: dict[Member, Reply] = {}
        self._asked = cluster.io.now()  # before the first byte is sent
        self._left = 0.0

    async def take(self) -> bool:
        """Ask the gate, then the others; say whether enough agreed, and soon enough."""
        if not await self._ask_gate():
            return False
        others = [member for member in self._members if member not in self._replies]
        if others:
            await self._ask_others(others)
        now = self.cluster.io.now()
        self._left = validity_of(self._policy.ttl, now - self._asked, self._agreed())
        return len(self._agreed()) >= self._wanted and long_enough(self._left, self._policy.ttl)

    def hold(self) -> HeldLock:
        """Give the lock that was taken."""
        now = self.cluster.io.now()
        return HeldLock(
            self.cluster,
            self._name,
            self._key,
            {member: token_of(self._replies.get(member)) for member in self._members},
            self._payload,
            self._policy,
            self._asked,
            now + self._left,
        )

    def refusing(self) -> list[Member]:
        """Give the nodes that said no."""
        return [member for member, reply in self._replies.items() if reply is False]

    async def withdraw(self) -> None:
        """Undo it on every node that agreed or may yet agree."""
        unsure = [member for member, reply in self._replies.items() if may_store(reply)]
        # Where it takes two steps, and the first is not answered yet, both are done beside the caller.
        later = [member for member in unsure if CompareAndDelete in member.lacks]
        remove_later(self.cluster, later, self._key, self._payload, LOOKS)
        agreed = self._agreed()
        asked = [*agreed, *(member for member in unsure if member not in later)]
        if asked:
            tokens = {member: token_of(self._replies[member]) for member in asked}
            await withdraw(
                self.cluster, tokens, self._key, self._payload, len(agreed), unsure=unsure
            )

    def check_available(self) -> None:
        """Raise `LockUnavailable` if no other holder stood in the way, but nodes that failed."""
        failed = sum(isinstance(reply, NodeError) for reply in self._replies.values())
        if len(self._members) - failed < self._wanted:
            raise _unavailable(self._name, {**dict.fromkeys(self._members), **self._replies})

    async def _ask_gate(self) -> bool:
        """Ask one node after another until one answers; say whether it agreed.

        Those that kept silent when last asked come last, so that the wait for them is not met again
        and again. When two gates are silent the rest is asked at once, which bounds the whole.
        """
        io, cluster = self.cluster.io, self.cluster
        silent = 0
        for gate in sorted(self._members, key=lambda member: member.suspect):
            if silent == SILENT_GATES:
                return True
            self._replies[gate] = UNANSWERED
            until = io.now() + GATE_SHARE * cluster.timeout
            reply = self._replies[gate] = await cluster.ask(gate, self._take(gate), until)
            if not isinstance(reply, NodeError):
                return agrees(reply)
            silent += isinstance(reply, NodeTimeoutError)
            if self._hopeless(self._replies.values()):
                return False
        return False

    async def _ask_others(self, members: Sequence[Member]) -> None:
        before = list(self._replies.values())
        self._replies.update(dict.fromkeys(members, UNANSWERED))
        replies = await self.cluster.ask_many(
            [(member, self._take(member)) for member in members],
            self.cluster.deadline(),
            lambda heard: is_decided([*before, *heard], self._wanted, len(self._members)),
        )
        self._replies.update(zip(members, replies, strict=True))

    def _take(self, member: Member) -> Acquire:
        return Acquire(self._key, self._payload, member_ttl(member, self._policy.ttl))

    def _agreed(self) -> list[Member]:
        return [member for member, reply in self._replies.items() if agrees(reply)]

    def _hopeless(self, replies: Iterable[Reply]) -> bool:
        return count_against(replies) > len(self._members) - self._wanted


def _unavailable(name: bytes, replies: Mapping[Member, Reply]) -> LockUnavailable:
    """Return the error of a lock whose nodes gave these replies, too few to decide."""
    errors = {
        member.node.name: reply for member, reply in replies.items() if isinstance(reply, NodeError)
    }
    return LockUnavailable(
        f"lock {name!r}: {len(errors)} of {len(replies)} nodes failed"
        f" ({', '.join(errors)}), and {quorum(len(replies))} have to agree",
        errors,
    )


def lock_nodes(cluster: Cluster, key: Key) -> Sequence[Node]:
    """Give the nodes of the lock called `key`, in the order of preference of its name."""
    return [member.node for member in cluster.locking.voters(key)]
