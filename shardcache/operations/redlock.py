"""A lock over a majority of nodes, in the manner of Redlock: taken, prolonged, given back.

Source: Redis' description of the Redlock algorithm. Other than there the nodes are not asked all at
once: the first, the gate, is asked alone, and only who gets it asks the rest. Many who ask all
nodes at once split the votes, and nobody wins.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

from shardcache.core.commands import DeleteIf, ExpireIf, Payload, Reply, Take, Taken
from shardcache.core.events import LeaseLost
from shardcache.core.leases import (
    COARSE,
    COARSE_TTL,
    LOCKS,
    LockPolicy,
    lock_key,
    quorum,
    validity,
    worthwhile,
)
from shardcache.core.nodes import Node
from shardcache.core.payloads import MARK_FLAGS
from shardcache.errors import (
    ConfigurationError,
    LockTimeout,
    LockUnavailable,
    NodeError,
    NodeTimeoutError,
    ShardCacheError,
)
from shardcache.operations.backoff import Backoff
from shardcache.operations.cluster import Cluster, Key
from shardcache.operations.comparing import compared, deleted
from shardcache.operations.members import Link
from shardcache.operations.port import UNANSWERED, Repetition

SILENT_GATES: Final = 2  # that are waited for; then all others are asked at once
GATE_SHARE: Final = 0.5  # of a call's time, for one gate: two of them and the rest take two calls


class Hold:
    """A lock in our hands: where it was asked for, until when it holds, and what became of it.

    Moments are monotonic seconds. It holds until `until` unless it is `lost`, which says why, or
    `released`.
    """

    __slots__ = (
        "_extending",
        "_keeping",
        "_least",
        "_process",
        "_tokens",
        "cluster",
        "key",
        "links",
        "lost",
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
        tokens: Mapping[Link, Hashable],
        payload: Payload,
        policy: LockPolicy,
        since: float,
        until: float,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.key = key
        self.links = tuple(tokens)
        self.payload = payload
        self.policy = policy
        self.since = since
        self.until = until
        self.lost = ""
        self.released = False
        self._tokens = tokens
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
            self._keeping = io.repeat(policy.ttl / 3, self._prolonged, "lock keeper")

    async def _prolonged(self) -> bool:
        try:
            return await self._prolonged_once()
        except ShardCacheError as error:  # such as a node that has joined a Redis Cluster
            self._lose(f"it could not be prolonged: {error}")
            return False

    async def _prolonged_once(self) -> bool:
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
            return await self._extended(ttl)
        finally:
            self._extending -= 1

    async def _extended(self, ttl: float) -> bool:
        io = self.cluster.io
        asked = io.now()
        deadline = min(asked + self.cluster.timeout, self.until)
        if self.released:
            return False
        if self.lost or deadline <= asked:
            self._lose("its time ran out")
            return False
        # From now on nodes may keep it for no longer than this, whatever is heard of them.
        self.until = min(self.until, asked + validity(ttl, 0.0, _slack(self.links)))
        wanted = quorum(len(self.links))
        replies = await compared(
            self.cluster,
            self.links,
            ExpireIf(self.key, self.payload, ttl),
            deadline,
            lambda heard: _decided(list(heard.values()), wanted, len(self.links)),
        )
        agreed = [link for link, reply in zip(self.links, replies, strict=True) if reply is True]
        now = io.now()
        left = validity(ttl, now - asked, _slack(agreed))
        if self.released:  # meanwhile: it was given back, which is no loss
            return False
        if len(agreed) < wanted or not worthwhile(left, ttl) or self.lost:
            self._lose("it could not be prolonged")
            return False
        self.until = self._least = min(self._least, now + left)
        return True

    async def release(self) -> bool:
        """Give it back on every node; say whether it was still ours. Only the first time counts."""
        if self.released or not self.own:
            return False
        if not self.remaining():
            self._lose("its time ran out")
        self.released = True
        if self._keeping is not None:
            await self._keeping.stop()
        majority = quorum(len(self.links))
        # Not without the gate, whom the next attempt asks first.
        asked = (link for link in self.links if not (link.suspect or link.health.ejected))
        replies = await _withdraw(
            self.cluster, self._tokens, self.key, self.payload, majority, next(asked, None)
        )
        if replies.count(False) > len(self.links) - majority:
            self._lose("its nodes had it no more")
        return not self.lost

    def _lose(self, why: str) -> None:
        if self.lost:
            return
        self.lost = why
        audience = self.cluster.audience
        if audience:
            audience.tell(LeaseLost(self.name, self.cluster.io.now() - self.since))


async def acquire(cluster: Cluster, key: Key, policy: LockPolicy, wait: float) -> Hold:
    """Take the lock called `key`, trying for `wait` seconds while another has it.

    Raise `LockTimeout` when that does not end, `LockUnavailable` when too few nodes answer.
    """
    io = cluster.io
    deadline = io.now() + wait
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
) -> Hold | None:
    """Try once to take the lock called `key`; `None` while another has it.

    Raise `LockUnavailable` when too few nodes answer, `ConfigurationError` when a node cannot
    keep a lock for so short a time.
    """
    cluster = cluster.locking
    name = cluster.keys.canonical(cluster.keys.encode(key))
    links = cluster.voters(key)
    check_ttl(links, policy.ttl)
    vote = _Vote(cluster, name, links, policy, prefix)
    try:
        if await vote.taken():
            hold = vote.hold()
            hold.keep()
            return hold
    except BaseException:
        await cluster.io.shielded(vote.withdrawn)
        raise
    await cluster.io.shielded(vote.withdrawn)
    vote.check_available()
    return None


class _Vote:
    """One attempt at a lock: whom it asked, and what each said."""

    def __init__(
        self,
        cluster: Cluster,
        name: bytes,
        links: Sequence[Link],
        policy: LockPolicy,
        prefix: bytes,
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._links = links
        self._policy = policy
        self._payload: Payload = (MARK_FLAGS, cluster.io.token())
        self._command = Take(lock_key(name, prefix), self._payload, policy.ttl)
        self._wanted = quorum(len(links))
        self._replies: dict[Link, Reply] = {}
        self._asked = cluster.io.now()  # before the first byte is sent
        self._left = 0.0

    async def taken(self) -> bool:
        """Ask the gate, then the others; say whether enough agreed, and soon enough."""
        if not await self._gate_taken():
            return False
        others = [link for link in self._links if link not in self._replies]
        if others:
            await self._ask_others(others)
        now = self._cluster.io.now()
        self._left = validity(self._policy.ttl, now - self._asked, _slack(self._agreed()))
        return len(self._agreed()) >= self._wanted and worthwhile(self._left, self._policy.ttl)

    def hold(self) -> Hold:
        """Give the lock that was taken."""
        now = self._cluster.io.now()
        return Hold(
            self._cluster,
            self._name,
            self._command.key,
            {link: _token(self._replies.get(link)) for link in self._links},
            self._payload,
            self._policy,
            self._asked,
            now + self._left,
        )

    async def withdrawn(self) -> None:
        """Undo it on every node that agreed or may yet agree."""
        unsure = {
            link: _token(reply) for link, reply in self._replies.items() if reply is not False
        }
        if unsure:
            key, payload = self._command.key, self._payload
            await _withdraw(self._cluster, unsure, key, payload, len(self._agreed()))

    def check_available(self) -> None:
        """Raise `LockUnavailable` if no other holder stood in the way, but nodes that failed."""
        errors = {
            link.node.name: reply
            for link, reply in self._replies.items()
            if isinstance(reply, NodeError)
        }
        if len(self._links) - len(errors) < self._wanted:
            raise LockUnavailable(
                f"lock {self._name!r}: {len(errors)} of {len(self._links)} nodes failed"
                f" ({', '.join(errors)}), and {self._wanted} have to agree",
                errors,
            )

    async def _gate_taken(self) -> bool:
        """Ask one node after another until one answers; say whether it agreed.

        Those that kept silent when last asked come last, so that the wait for them is not met again
        and again. When two gates are silent the rest is asked at once, which bounds the whole.
        """
        io, cluster = self._cluster.io, self._cluster
        silent = 0
        for gate in sorted(self._links, key=lambda link: link.suspect):
            if silent == SILENT_GATES:
                return True
            self._replies[gate] = UNANSWERED
            until = io.now() + GATE_SHARE * cluster.timeout
            reply = self._replies[gate] = await cluster.ask(gate, self._command, until)
            if not isinstance(reply, NodeError):
                return _agrees(reply)
            silent += isinstance(reply, NodeTimeoutError)
            if self._hopeless(self._replies.values()):
                return False
        return False

    async def _ask_others(self, links: Sequence[Link]) -> None:
        before = list(self._replies.values())
        self._replies.update(dict.fromkeys(links, UNANSWERED))
        replies = await self._cluster.ask_many(
            [(link, self._command) for link in links],
            self._cluster.deadline(),
            lambda heard: _decided([*before, *heard], self._wanted, len(self._links)),
        )
        self._replies.update(zip(links, replies, strict=True))

    def _agreed(self) -> list[Link]:
        return [link for link, reply in self._replies.items() if _agrees(reply)]

    def _hopeless(self, replies: Iterable[Reply]) -> bool:
        return _against(replies) > len(self._links) - self._wanted


def _agrees(reply: Reply) -> bool:
    return reply is True or isinstance(reply, Taken)


def _token(reply: Reply) -> Hashable:
    return reply.token if isinstance(reply, Taken) else None


def _against(replies: Iterable[Reply]) -> int:
    """Count those that said no, or failed."""
    return sum(not _agrees(reply) and reply is not UNANSWERED for reply in replies)


def _decided(replies: Sequence[Reply], wanted: int, nodes: int) -> bool:
    """Say whether enough agreed, or no longer can."""
    return sum(map(_agrees, replies)) >= wanted or _against(replies) > nodes - wanted


def _slack(agreed: Iterable[Link]) -> float:
    return COARSE if any(link.whole_seconds for link in agreed) else 0.0


def lock_nodes(cluster: Cluster, key: Key) -> Sequence[Node]:
    """Give the nodes of the lock called `key`, in the order of preference of its name."""
    return [link.node for link in cluster.locking.voters(key)]


def check_ttl(links: Sequence[Link], ttl: float) -> None:
    """Raise `ConfigurationError` if one of the nodes cannot keep a lock for so short a time."""
    coarse = next((link for link in links if link.whole_seconds), None)
    if coarse is not None and ttl < COARSE_TTL:
        raise ConfigurationError(
            f"lock: ttl must be at least {COARSE_TTL:g} s, not {ttl:g}, for the node"
            f" {coarse.node.name} counts in whole seconds"
        )


async def _withdraw(  # noqa: PLR0913, PLR0917 - what is removed, and who is waited for
    cluster: Cluster,
    tokens: Mapping[Link, Hashable],
    key: bytes,
    payload: Payload,
    answers: int,
    gate: Link | None = None,
) -> list[Reply]:
    """Remove what is ours on each node.

    Wait no longer than for so many answers, one of them that of the `gate` if there is one.
    """

    def enough(heard: Mapping[Link, Reply]) -> bool:
        unheard = [link for link, reply in heard.items() if reply is UNANSWERED]
        return len(heard) - len(unheard) >= answers and gate not in unheard

    return await deleted(
        cluster, list(tokens), DeleteIf(key, payload), tokens, cluster.deadline(), enough
    )
