"""A lock over a majority of nodes, after Redis' description of the Redlock algorithm.

One difference: the nodes are not asked all at once. The first node, the gate, is asked alone, and
only the client that gets it asks the rest. If many clients asked all nodes at once, they would split
the votes, and none would win.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from shardcache.core.commands import Acquire, CompareAndDelete, Get, GetAged, Payload, Reply
from shardcache.core.leases import long_enough, quorum
from shardcache.core.lock_providers import Holder, LockOptions, LockScope, NamedLock, Refusal
from shardcache.core.placement.nodes import Node
from shardcache.core.reserved_keys import LOCKS, VALUE_LOCKS, own_key
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import (
    ConfigurationError,
    LockUnavailable,
    NodeError,
    NodeTimeoutError,
    UnsupportedError,
)
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.leftovers import LOOKS, clear, may_store, remove_later
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key
from shardcache.operations.locks.quorum import (
    QuorumGrant,
    agrees,
    count_against,
    is_decided,
    member_ttl,
    token_of,
    validity_of,
    withdraw,
)
from shardcache.operations.port import UNANSWERED

PREFIXES: Final = {LockScope.CALLER: LOCKS, LockScope.RECOMPUTE: VALUE_LOCKS}

SILENT_GATES: Final = 2  # silent gates to wait for; then all other nodes are asked at once
# Of a call's time, for one gate: two gates and the rest take two calls' time.
GATE_SHARE: Final = 0.5


class Redlock:
    """The locks of the client's own nodes: the built-in provider. It has no state."""

    async def attempt(
        self,
        lock: NamedLock,
        ttl: float,
        deadline: float,  # noqa: ARG002 - each of its rounds has its own
    ) -> QuorumGrant | Refusal:
        """Try once to take a lock: the gate has half a call's time, the other nodes a whole one.

        Raise `LockUnavailable` if too few nodes answer.
        """
        first = _Attempt(lock, ttl)
        grant = await _run(first)
        if grant is Refusal.HELD and await clear(first.cluster, first.refusing(), first.key):
            grant = await _run(_Attempt(lock, ttl))
        # No call may follow: a signal that raised in it would leave a lock that no caller has.
        return grant

    async def is_held(self, lock: NamedLock, deadline: float) -> bool:
        """Return whether a majority of the lock's nodes has it for one holder now.

        Raise `LockUnavailable` if the nodes that did not answer could make the difference.
        """
        return await _find(lock, deadline) is not None

    async def holder(self, lock: NamedLock, deadline: float) -> Holder | None:
        """Return how long a majority still keeps the lock, `None` if it is free.

        The nodes do not know which client holds it.
        """
        found = await _find(lock, deadline)
        if found is None:
            return None
        return Holder(lock.name, lock.scope, remaining=await _seconds_left(lock, found, deadline))

    async def holders(self, deadline: float) -> Sequence[Holder]:  # noqa: ARG002 - it asks no node
        """Raise `UnsupportedError`: nodes find a key by its name, and memcached lists none."""
        raise UnsupportedError(
            "locks on cache nodes cannot be listed, because memcached lists no keys: name the lock"
        )

    async def break_lock(self, lock: NamedLock, deadline: float) -> bool:
        """Remove the token of the lock's holder from every node.

        A holder that renews it stores it again, unless another client has it by then.
        """
        payload = await _find(lock, deadline)
        if payload is None:
            return False
        tokens = dict.fromkeys(_voters(lock))
        await withdraw(lock.cluster, tokens, _key(lock), payload, len(tokens))
        return True

    async def close(self) -> None:
        """Do nothing: the client closes its nodes."""


class RedlockFactory:
    """The factory of `Redlock`, which is the same for both clients."""

    def blocking(self, url: str, options: LockOptions) -> Redlock:  # noqa: ARG002 - none apply
        """Return the provider; raise `ConfigurationError` for a URL."""
        if "://" in url:
            raise ConfigurationError(
                "locks: redlock has no URL: write locks='redlock', lock_nodes=…"
            )
        return Redlock()

    asyncio = blocking


def _key(lock: NamedLock) -> bytes:
    return own_key(PREFIXES[lock.scope], lock.name)


def _voters(lock: NamedLock) -> list[Member]:
    cluster: Cluster = lock.cluster
    return cluster.voters(lock.hashed)


async def _find(lock: NamedLock, deadline: float) -> Payload | None:
    """Return the token that a majority of the lock's nodes has, `None` if there is none.

    Raise `LockUnavailable` if the nodes that did not answer could make the difference.
    """
    members, command = _voters(lock), Get(_key(lock))
    asks = [(member, command) for member in members]
    replies = await lock.cluster.ask_members(asks, deadline, _is_settled)
    if not _is_settled(replies):
        raise _unavailable(lock, dict(zip(members, replies, strict=True)))
    return _common(replies)


def _common(replies: Sequence[Reply]) -> Payload | None:
    """Return the token that a majority of the replies has."""
    tokens = [reply for reply in replies if isinstance(reply, tuple)]
    common = (token for token in tokens if tokens.count(token) >= quorum(len(replies)))
    return next(common, None)


def _is_settled(replies: Sequence[Reply]) -> bool:
    """Return whether no further reply can change the result.

    A majority has one token, or no token can get a majority any more.
    """
    tokens = [reply for reply in replies if isinstance(reply, tuple)]
    votes = max(map(tokens.count, tokens), default=0)
    unheard = sum(reply is UNANSWERED or isinstance(reply, NodeError) for reply in replies)
    return votes >= quorum(len(replies)) or votes + unheard < quorum(len(replies))


async def _seconds_left(lock: NamedLock, payload: Payload, deadline: float) -> float | None:
    """Return for how many seconds a majority still has a token; `None` if too few nodes tell."""
    members = _voters(lock)
    asks = [(member, GetAged(_key(lock))) for member in members if GetAged in member.supports]
    replies = await lock.cluster.ask_members(asks, deadline)
    seconds = sorted(
        (reply[1] for reply in replies if isinstance(reply, tuple) and reply[0] == payload),
        reverse=True,
    )
    wanted = quorum(len(members))
    return seconds[wanted - 1] if len(seconds) >= wanted else None


async def _run(attempt: _Attempt) -> QuorumGrant | Refusal:
    """Return the grant if the attempt succeeds; withdraw it otherwise."""
    io = attempt.cluster.io
    try:
        if await attempt.ask_nodes():
            return attempt.grant()
    except BaseException:
        await io.shield(attempt.withdraw)
        raise
    await io.shield(attempt.withdraw)
    attempt.check_available()
    return Refusal.LATE if attempt.is_late else Refusal.HELD


class _Attempt:
    """One attempt at a lock: the nodes that it asked, and their replies."""

    def __init__(self, lock: NamedLock, ttl: float) -> None:
        cluster: Cluster = lock.cluster
        self.cluster = cluster
        self.key = _key(lock)
        self._lock = lock
        self._members = _voters(lock)
        self._ttl = ttl
        self._payload: Payload = (MARK_FLAGS, cluster.io.token())
        self._wanted = quorum(len(self._members))
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
        self._left = validity_of(self._ttl, now - self._asked, self._agreed())
        return len(self._agreed()) >= self._wanted and long_enough(self._left, self._ttl)

    def grant(self) -> QuorumGrant:
        """Return the grant after a successful attempt."""
        now = self.cluster.io.now()
        tokens = {member: token_of(self._replies.get(member)) for member in self._members}
        return QuorumGrant(self.cluster, self.key, tokens, self._payload, now + self._left)

    @property
    def is_late(self) -> bool:
        """Return whether a failed attempt had enough nodes, but too late for its ttl."""
        return len(self._agreed()) >= self._wanted

    def refusing(self) -> list[Member]:
        """Return the nodes that refused, because they have another client's token."""
        return [member for member, reply in self._replies.items() if reply is False]

    async def withdraw(self) -> None:
        """Remove the token on every node that agreed or may still agree."""
        unsure = [member for member, reply in self._replies.items() if may_store(reply)]
        # If a removal takes two steps, and the first is not answered yet, both run in the background.
        later = [member for member in unsure if CompareAndDelete not in member.supports]
        remove_later(self.cluster, later, self.key, self._payload, LOOKS)
        agreed = self._agreed()
        at_once = [*agreed, *(member for member in unsure if member not in later)]
        if at_once:
            tokens = {member: token_of(self._replies[member]) for member in at_once}
            await withdraw(
                self.cluster, tokens, self.key, self._payload, len(agreed), unsure=unsure
            )

    def check_available(self) -> None:
        """Raise `LockUnavailable` if failed nodes, not another holder, made the attempt fail."""
        failed = sum(isinstance(reply, NodeError) for reply in self._replies.values())
        if len(self._members) - failed < self._wanted:
            raise _unavailable(self._lock, {**dict.fromkeys(self._members), **self._replies})

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
        return Acquire(self.key, self._payload, member_ttl(member, self._ttl))

    def _agreed(self) -> list[Member]:
        return [member for member, reply in self._replies.items() if agrees(reply)]

    def _cannot_win(self, replies: Iterable[Reply]) -> bool:
        return count_against(replies) > len(self._members) - self._wanted


def _unavailable(lock: NamedLock, replies: Mapping[Member, Reply]) -> LockUnavailable:
    """Return the error for replies of which too few decide about the lock."""
    errors = {
        member.node.name: reply for member, reply in replies.items() if isinstance(reply, NodeError)
    }
    return LockUnavailable(
        f"lock {lock.shown}: {len(errors)} of {len(replies)} nodes failed"
        f" ({', '.join(errors)}), and {quorum(len(replies))} must agree",
        errors,
    )


def lock_nodes(cluster: Cluster, key: Key) -> Sequence[Node]:
    """Return the nodes of the lock `key`, in its order of preference; none without `Redlock`."""
    if not isinstance(cluster.lock_provider, Redlock):
        return ()
    locking = cluster.locking
    return [member.node for member in locking.voters(locking.hashed(key))]
