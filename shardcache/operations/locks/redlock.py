"""A lock over a majority of nodes, in the manner of Redlock: taken, prolonged, given back.

Source: Redis' description of the Redlock algorithm. Other than there the nodes are not asked all at
once: the first, the gate, is asked alone, and only who gets it asks the rest. Many who ask all
nodes at once split the votes, and nobody wins.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from shardcache.core.commands import (
    Acquire,
    Acquired,
    CompareAndDelete,
    CompareAndExpire,
    Get,
    Payload,
    Reply,
)
from shardcache.core.events import LeaseLost
from shardcache.core.leases import (
    LOCKS,
    LockPolicy,
    lock_key,
    long_enough,
    node_ttl,
    quorum,
    validity,
)
from shardcache.core.nodes import Node
from shardcache.core.payloads import MARK_FLAGS
from shardcache.errors import (
    LockTimeout,
    LockUnavailable,
    NodeError,
    NodeTimeoutError,
    ShardCacheError,
)
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.leftovers import LOOKS, clear, may_store, remove_later
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key
from shardcache.operations.locks.backoff import Backoff
from shardcache.operations.locks.compare import Suffices, compared, deleted
from shardcache.operations.port import UNANSWERED, Repetition

SILENT_GATES: Final = 2  # that are waited for; then all others are asked at once
GATE_SHARE: Final = 0.5  # of a call's time, for one gate: two of them and the rest take two calls


class HeldLock:
    """A lock in our hands: where it was asked for, until when it holds, and what became of it.

    Moments are monotonic seconds. It holds until `until` unless it is `lost`, which says why, or
    `released`.
    """

    __slots__ = (
        "_extending",
        "_keeping",
        "_least",
        "_process",
        "_put_back",
        "_tokens",
        "cluster",
        "key",
        "lost",
        "members",
        "name",
        "payload",
        "policy",
        "released",
        "since",
        "until",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what a lock is, all of it known at once
        self,
        cluster: Cluster,
        name: bytes,
        key: bytes,
        tokens: Mapping[Member, Hashable],
        payload: Payload,
        policy: LockPolicy,
        since: float,
        until: float,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.key = key
        self.members = tuple(tokens)
        self.payload = payload
        self.policy = policy
        self.since = since
        self.until = until
        self.lost = ""
        self.released = False
        self._tokens = tokens
        self._put_back: set[Member] = set()  # nodes that had lost it, and may have it again
        self._process = cluster.io.process()
        self._extending = 0  # how many extensions are under way
        self._least = 0.0  # until when it holds by the shortest of them
        self._keeping: Repetition | None = None

    def remaining(self) -> float:
        """Give for how many seconds it still holds; 0 when it does not, as in a forked child."""
        if self.lost or self.released or not self.own:
            return 0.0
        return max(0.0, self.until - self.cluster.io.now())

    @property
    def own(self) -> bool:
        """Say whether it belongs to this process, and not to the one it was forked from."""
        return self._process == self.cluster.io.process()

    def keep(self) -> None:
        """Have it prolonged in the background, as its policy says."""
        io, policy = self.cluster.io, self.policy
        if policy.renew:
            self._keeping = io.repeat(policy.ttl / 3, self._extend_while_held, "lock keeper")

    async def _extend_while_held(self) -> bool:
        try:
            return await self._extend_once()
        except ShardCacheError as error:  # such as a node that has joined a Redis Cluster
            self._lose(f"it could not be prolonged: {error}")
            return False

    async def _extend_once(self) -> bool:
        if self.cluster.io.now() - self.since + self.policy.ttl / 3 > self.policy.max_hold:
            return False
        if self.remaining() > self.policy.ttl:
            return True  # it was extended for longer, which stays
        return await self.extend(self.policy.ttl)

    async def extend(self, ttl: float) -> bool:
        """Make it hold for `ttl` seconds from now; say whether, and once it is not it never is.

        Two at once may reach the nodes in any order: then it holds by the shorter of them.
        """
        if not self._extending:
            self._least = math.inf
        self._extending += 1
        try:
            return await self._extend(ttl)
        finally:
            self._extending -= 1

    async def _extend(self, ttl: float) -> bool:
        io = self.cluster.io
        asked = io.now()
        deadline = min(asked + self.cluster.timeout, self.until)
        if self.released:
            return False
        if self.lost or deadline <= asked:
            self._lose("its time ran out")
            return False
        # From now on nodes may keep it for no longer than this, whatever is heard of them.
        self.until = min(self.until, asked + _validity(ttl, 0.0, self.members))
        wanted = quorum(len(self.members))
        replies = await self._prolong(
            self.members,
            ttl,
            deadline,
            lambda heard: _decided(list(heard.values()), wanted, len(self.members)),
        )
        agreed = [member for member, reply in replies.items() if reply is True]
        now = io.now()
        left = _validity(ttl, now - asked, agreed)
        if self.released:  # meanwhile: it was given back, which is no loss
            return False
        if len(agreed) < wanted or not long_enough(left, ttl) or self.lost:
            self._lose("it could not be prolonged")
            return False
        self.until = self._least = min(self._least, now + left)
        late = [member for member, reply in replies.items() if reply is UNANSWERED]
        if late:
            io.clean_up((self, asked), partial(self._prolong_late, late, ttl, deadline))
        return True

    async def _prolong(
        self, members: Sequence[Member], ttl: float, deadline: float, enough: Suffices
    ) -> Mapping[Member, Reply]:
        """Have nodes keep it for another `ttl` seconds, those too that have lost it.

        A node that was restarted would be missing for as long as the lock is held, and the next one
        to be restarted with it.
        """
        put_back: list[Member] = []

        def absent(member: Member) -> Acquire | None:
            """Return what puts it back, as long as it is ours: another's is never replaced."""
            if not self.remaining():
                return None
            put_back.append(member)
            self._put_back.add(member)
            return Acquire(self.key, self.payload, _node_ttl(member, ttl))

        replies = await compared(
            self.cluster,
            [
                (member, CompareAndExpire(self.key, self.payload, _node_ttl(member, ttl)))
                for member in members
            ],
            deadline,
            enough,
            absent,
        )
        if not self.remaining():  # it ended meanwhile
            remove_later(self.cluster, put_back, self.key, self.payload, LOOKS)
        return dict(zip(members, replies, strict=True))

    async def _prolong_late(self, members: Sequence[Member], ttl: float, deadline: float) -> None:
        """Go through all steps with nodes that were not waited for."""
        if self.remaining():
            with suppress(ShardCacheError):  # which the next extension meets as well, and raises
                await self._prolong(members, ttl, deadline, lambda _: False)

    async def release(self) -> bool:
        """Give it back on every node; say whether it was still ours. Only the first time counts."""
        if self.released or not self.own:
            return False
        if not self.remaining():
            self._lose("its time ran out")
        self.released = True
        if self._keeping is not None:
            try:
                await self._keeping.stop()
            except BaseException:
                remove_later(self.cluster, self.members, self.key, self.payload)
                raise
        majority = quorum(len(self.members))
        # Not without the gate, whom the next attempt asks first.
        asked = (member for member in self.members if not (member.suspect or member.health.ejected))
        replies = await _withdraw(
            self.cluster,
            self._tokens,
            self.key,
            self.payload,
            majority,
            gate=next(asked, None),
            unsure=self._put_back,
        )
        if replies.count(False) > len(self.members) - majority:
            self._lose("its nodes had it no more")
        return not self.lost

    def _lose(self, why: str) -> None:
        if self.lost:
            return
        self.lost = why
        remove_later(self.cluster, self._put_back, self.key, self.payload, LOOKS)
        observers = self.cluster.observers
        if observers:
            observers.notify(LeaseLost(self.name, self.cluster.io.now() - self.since))


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
        self._left = _validity(self._policy.ttl, now - self._asked, self._agreed())
        return len(self._agreed()) >= self._wanted and long_enough(self._left, self._policy.ttl)

    def hold(self) -> HeldLock:
        """Give the lock that was taken."""
        now = self.cluster.io.now()
        return HeldLock(
            self.cluster,
            self._name,
            self._key,
            {member: _token(self._replies.get(member)) for member in self._members},
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
            tokens = {member: _token(self._replies[member]) for member in asked}
            await _withdraw(
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
                return _agrees(reply)
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
            lambda heard: _decided([*before, *heard], self._wanted, len(self._members)),
        )
        self._replies.update(zip(members, replies, strict=True))

    def _take(self, member: Member) -> Acquire:
        return Acquire(self._key, self._payload, _node_ttl(member, self._policy.ttl))

    def _agreed(self) -> list[Member]:
        return [member for member, reply in self._replies.items() if _agrees(reply)]

    def _hopeless(self, replies: Iterable[Reply]) -> bool:
        return _against(replies) > len(self._members) - self._wanted


def _agrees(reply: Reply) -> bool:
    return reply is True or isinstance(reply, Acquired)


def _token(reply: Reply) -> Hashable:
    return reply.token if isinstance(reply, Acquired) else None


def _against(replies: Iterable[Reply]) -> int:
    """Count those that said no, or failed."""
    return sum(not _agrees(reply) and reply is not UNANSWERED for reply in replies)


def _decided(replies: Sequence[Reply], wanted: int, nodes: int) -> bool:
    """Say whether enough agreed, or no longer can."""
    return sum(map(_agrees, replies)) >= wanted or _against(replies) > nodes - wanted


def _node_ttl(member: Member, ttl: float) -> float:
    return node_ttl(ttl, whole_seconds=member.whole_seconds)


def _validity(ttl: float, elapsed: float, agreed: Iterable[Member]) -> float:
    """Return for how many seconds from now it holds on nodes that agreed to keep it for `ttl`."""
    return validity(ttl, elapsed, whole_seconds=any(member.whole_seconds for member in agreed))


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


async def _withdraw(  # noqa: PLR0913 - what is removed, and who is waited for
    cluster: Cluster,
    tokens: Mapping[Member, Hashable],
    key: bytes,
    payload: Payload,
    answers: int,
    *,
    gate: Member | None = None,
    unsure: Collection[Member] = (),
) -> list[Reply]:
    """Remove what is ours on each node.

    Wait no longer than for so many answers, one of them that of the `gate` if there is one. The
    rest is done beside the caller: on nodes that are late, and on those that are `unsure`, of which
    nobody knows whether they have it yet.
    """

    def enough(heard: Mapping[Member, Reply]) -> bool:
        unheard = [member for member, reply in heard.items() if reply is UNANSWERED]
        return len(heard) - len(unheard) >= answers and gate not in unheard

    members = list(tokens)
    replies: list[Reply] = [UNANSWERED] * len(members)
    try:
        replies = await deleted(
            cluster, members, CompareAndDelete(key, payload), tokens, cluster.deadline(), enough
        )
    finally:
        for member, reply in zip(members, replies, strict=True):
            if member in unsure and reply is not True:
                remove_later(cluster, [member], key, payload, LOOKS)
            elif not isinstance(reply, bool):
                remove_later(cluster, [member], key, payload)
    return replies
