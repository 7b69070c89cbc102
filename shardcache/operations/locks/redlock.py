"""A lock over a majority of nodes, after Redis' description of the Redlock algorithm.

One difference: the nodes are not asked all at once. The first node, the gate, is asked alone, and
only the client that gets it asks the rest. If many clients asked all nodes at once, they would split
the votes, and none would win.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

from shardcache.core.commands import Acquire, CompareAndDelete, Get, Payload, Reply
from shardcache.core.leases import LockPolicy, long_enough, quorum
from shardcache.core.placement.nodes import Node
from shardcache.core.reserved_keys import LOCKS, own_key
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import LockTimeout, LockUnavailable, NodeError, NodeTimeoutError
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

SILENT_GATES: Final = 2  # silent gates to wait for; then all other nodes are asked at once
GATE_SHARE: Final = (
    0.5  # of a call's time, for one gate: two gates and the rest take two calls' time
)


class Refusal(Enum):
    """Why an attempt at a lock failed, although enough nodes answered."""

    HELD = "another client holds it"
    LATE = "the nodes agreed when too little of its ttl was left"


async def acquire(cluster: Cluster, key: Key, policy: LockPolicy, wait: float | None) -> HeldLock:
    """Acquire the lock `key`; retry for `wait` seconds while another client holds it, or for ever.

    Raise `LockTimeout` if it is still held after that, `LockUnavailable` if too few nodes answer.
    """
    io = cluster.io
    deadline = math.inf if wait is None else io.now() + wait
    backoff = Backoff(io, policy.backoff)
    while (lock := await attempt(cluster, key, policy)) is None:
        pause = backoff.pause()
        left = deadline - io.now()
        if left <= 0:
            raise LockTimeout(f"lock {key!r} is still held by another client after {wait:g} s")
        await io.sleep(min(pause, left))
    return lock


async def attempt(
    cluster: Cluster, key: Key, policy: LockPolicy, prefix: bytes = LOCKS
) -> HeldLock | None:
    """Try once to acquire the lock `key`; return `None` if that fails.

    Raise `LockUnavailable` if too few nodes answer.
    """
    lock = await attempt_or_refusal(cluster, key, policy, prefix)
    # Without a call, after which a signal could raise: no caller would have the lock then.
    return None if lock is Refusal.HELD or lock is Refusal.LATE else lock


async def attempt_or_refusal(
    cluster: Cluster, key: Key, policy: LockPolicy, prefix: bytes = LOCKS
) -> HeldLock | Refusal:
    """Try once to acquire the lock `key`, as `attempt`; return why it was not acquired."""
    cluster = cluster.locking
    name, _, hashed = cluster.route(key)
    members = cluster.voters(hashed)
    first = _Attempt(cluster, name, members, policy, prefix)
    lock = await _run(first)
    if lock is Refusal.HELD and await clear(cluster, first.refusing(), own_key(prefix, name)):
        lock = await _run(_Attempt(cluster, name, members, policy, prefix))
    return lock


async def _run(attempt: _Attempt) -> HeldLock | Refusal:
    """Return the lock if the attempt succeeds; withdraw it otherwise."""
    io = attempt.cluster.io
    try:
        if await attempt.ask_nodes():
            lock = attempt.held_lock()
            lock.renew_in_background()
            return lock
    except BaseException:
        await io.shield(attempt.withdraw)
        raise
    await io.shield(attempt.withdraw)
    attempt.check_available()
    return Refusal.LATE if attempt.is_late else Refusal.HELD


async def is_held(cluster: Cluster, key: Key) -> bool:
    """Return whether a majority of the lock's nodes has it for one holder now.

    Raise `LockUnavailable` if the nodes that did not answer could make the difference.
    """
    cluster = cluster.locking
    name, _, hashed = cluster.route(key)
    members = cluster.voters(hashed)
    command = Get(own_key(LOCKS, name))
    replies = await cluster.ask_members(
        [(member, command) for member in members],
        cluster.deadline(),
        lambda heard: _decide_held(heard) is not None,
    )
    answer = _decide_held(replies)
    if answer is None:
        raise _unavailable(name, dict(zip(members, replies, strict=True)))
    return answer


def _decide_held(replies: Sequence[Reply]) -> bool | None:
    """Return whether a majority has one token; `None` if unheard nodes could make the difference."""
    tokens = [reply for reply in replies if isinstance(reply, tuple)]
    votes = max(map(tokens.count, tokens), default=0)
    unheard = sum(reply is UNANSWERED or isinstance(reply, NodeError) for reply in replies)
    if votes >= quorum(len(replies)):
        return True
    return False if votes + unheard < quorum(len(replies)) else None


class _Attempt:
    """One attempt at a lock: the nodes that it asked, and their replies."""

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
        self._key = own_key(prefix, name)
        self._wanted = quorum(len(members))
        self._replies: dict[Member, Reply] = {}
        self._asked = cluster.io.now()  # before the first byte is sent
        self._left = 0.0

    async def ask_nodes(self) -> bool:
        """Ask the gate, then the others; return whether enough agreed, and soon enough."""
        if not await self._ask_gate():
            return False
        others = [member for member in self._members if member not in self._replies]
        if others:
            await self._ask_others(others)
        now = self.cluster.io.now()
        self._left = validity_of(self._policy.ttl, now - self._asked, self._agreed())
        return len(self._agreed()) >= self._wanted and long_enough(self._left, self._policy.ttl)

    def held_lock(self) -> HeldLock:
        """Return the lock after a successful attempt."""
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

    @property
    def is_late(self) -> bool:
        """Return whether enough nodes agreed, and too little of the ttl was left by then."""
        return len(self._agreed()) >= self._wanted

    def refusing(self) -> list[Member]:
        """Return the nodes that refused, because they have another client's token."""
        return [member for member, reply in self._replies.items() if reply is False]

    async def withdraw(self) -> None:
        """Remove the token on every node that agreed or may still agree."""
        unsure = [member for member, reply in self._replies.items() if may_store(reply)]
        # If a removal takes two steps, and the first is not answered yet, both run in the background.
        later = [member for member in unsure if CompareAndDelete not in member.supports]
        remove_later(self.cluster, later, self._key, self._payload, LOOKS)
        agreed = self._agreed()
        at_once = [*agreed, *(member for member in unsure if member not in later)]
        if at_once:
            tokens = {member: token_of(self._replies[member]) for member in at_once}
            await withdraw(
                self.cluster, tokens, self._key, self._payload, len(agreed), unsure=unsure
            )

    def check_available(self) -> None:
        """Raise `LockUnavailable` if failed nodes, not another holder, made the attempt fail."""
        failed = sum(isinstance(reply, NodeError) for reply in self._replies.values())
        if len(self._members) - failed < self._wanted:
            raise _unavailable(self._name, {**dict.fromkeys(self._members), **self._replies})

    async def _ask_gate(self) -> bool:
        """Ask one node after another until one answers; return whether it agreed.

        Nodes that were silent when last asked come last, so that not every attempt waits for them.
        After two silent gates the rest is asked at once, which bounds the whole.
        """
        io, cluster = self.cluster.io, self.cluster
        silent = 0
        gates = iter(sorted(self._members, key=lambda member: member.suspect))
        while not self._cannot_win(self._replies.values()):
            if silent == SILENT_GATES:
                return True
            gate = next(gates)
            self._replies[gate] = UNANSWERED
            until = io.now() + GATE_SHARE * cluster.timeout
            reply = self._replies[gate] = await cluster.ask_member(gate, self._command(gate), until)
            if not isinstance(reply, NodeError):
                return agrees(reply)
            silent += isinstance(reply, NodeTimeoutError)
        return False

    async def _ask_others(self, members: Sequence[Member]) -> None:
        before = list(self._replies.values())
        self._replies.update(dict.fromkeys(members, UNANSWERED))
        replies = await self.cluster.ask_members(
            [(member, self._command(member)) for member in members],
            self.cluster.deadline(),
            lambda heard: is_decided([*before, *heard], self._wanted, len(self._members)),
        )
        self._replies.update(zip(members, replies, strict=True))

    def _command(self, member: Member) -> Acquire:
        return Acquire(self._key, self._payload, member_ttl(member, self._policy.ttl))

    def _agreed(self) -> list[Member]:
        return [member for member, reply in self._replies.items() if agrees(reply)]

    def _cannot_win(self, replies: Iterable[Reply]) -> bool:
        return count_against(replies) > len(self._members) - self._wanted


def _unavailable(name: bytes, replies: Mapping[Member, Reply]) -> LockUnavailable:
    """Return the error for replies of which too few decide about the lock."""
    errors = {
        member.node.name: reply for member, reply in replies.items() if isinstance(reply, NodeError)
    }
    shown = name.decode("utf-8", "backslashreplace")
    return LockUnavailable(
        f"lock {shown!r}: {len(errors)} of {len(replies)} nodes failed"
        f" ({', '.join(errors)}), and {quorum(len(replies))} must agree",
        errors,
    )


def lock_nodes(cluster: Cluster, key: Key) -> Sequence[Node]:
    """Return the nodes of the lock `key`, in its order of preference."""
    locking = cluster.locking
    return [member.node for member in locking.voters(locking.hashed(key))]
