"""One call for a computed value: what it is about, what is stored for it, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from shardcache.core.cache_policy import CachePolicy, apply_jitter
from shardcache.core.cache_policy import describe_function as shown_function
from shardcache.core.commands import Command, Get, Payload, Reply
from shardcache.core.events import ComputeFinished, StampedePrevented
from shardcache.core.leases import node_ttl
from shardcache.core.reserved_keys import REFRESHING
from shardcache.core.values.envelopes import pack
from shardcache.core.values.flags import ENVELOPE_FLAGS, ERROR_FLAGS, REFUSED, is_mark, is_value
from shardcache.core.values.freshness import Freshness, Stored, freshness, open_stored, seal
from shardcache.errors import DecodeError, EncodeError, NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key
from shardcache.operations.invalidation import tags
from shardcache.operations.recompute.counters import RecomputeCounters
from shardcache.operations.recompute.exceptions import describe, equal, restore
from shardcache.operations.recompute.outcomes import NOT_MADE, Outcome, failed, read
from shardcache.operations.recompute.progress import UNREACHABLE
from shardcache.operations.recompute.protection import Protection

SERVED: Final = frozenset({Freshness.FRESH, Freshness.EARLY, Freshness.STALE})

_FLAGS_SIZE: Final = 4  # bytes before the value within a stored error
_MARK_SIZE: Final = 16

# Values and functions are the caller's own, hence `Any`.


class Request:
    """One call for a computed value: its key, on what terms, and the function that makes it.

    `counters` are the counters of the function and those of the client; `refresh_key` is the key, on the
    same node, of whoever makes the value anew while the old one stays. `began` is when it last began
    to read, in monotonic seconds.
    """

    __slots__ = (
        "began",
        "cluster",
        "counters",
        "factory",
        "first",
        "io",
        "key",
        "member",
        "name",
        "policy",
        "protection",
        "tags",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - a call is all of these
        self,
        cluster: Cluster,
        key: Key,
        factory: Callable[[], Any],
        policy: CachePolicy,
        protection: Protection,
        counters: RecomputeCounters,
        tags: Sequence[Key] = (),
    ) -> None:
        self.cluster = cluster
        self.io = cluster.io
        self.key = key
        self.began: float
        self.name: bytes
        self.member: Member
        self.name, self.member = cluster.route(key)
        self.factory = factory
        self.policy = policy
        self.protection = protection
        self.counters = (counters, protection.counters)
        self.tags = tags
        # What was read for it already, along with a look at its generation.
        self.first: tuple[Reply, Sequence[bytes | None]] | None = None

    def rename(self, key: Key) -> None:
        """Make it a call for the value of another key."""
        self.key = key
        self.name, self.member = self.cluster.route(key)

    @property
    def refresh_key(self) -> bytes:
        """Give the name of the key beside the value's."""
        return REFRESHING + self.name

    @property
    def lease(self) -> float:
        """Give for how many seconds the key's own node is told that the value is being made."""
        return node_ttl(self.policy.locking.ttl, whole_seconds=self.member.whole_seconds)

    @property
    def patience(self) -> float:
        """Return for how many seconds nobody else may make the value anew: a holder works, or rests."""
        locking = self.policy.locking
        works = 2 * self.lease + (locking.max_hold if locking.renew else 0.0)
        return max(works, self.policy.seconds("error_backoff"))

    # What is stored.

    async def ask(self, command: Command) -> Reply:
        """Ask the key's own node; give its error as a value."""
        return await self.cluster.ask(self.member, command)

    async def read(self) -> tuple[Reply, Sequence[bytes | None]]:
        """Give what the key's node has, and the versions that the tags have now.

        That of a tag whose node failed is `UNREACHABLE`.
        """
        first, self.first = self.first, None
        if first is not None:
            return first
        if self.tags:
            return self.parse_replies(await self.cluster.ask_many(self.reads()))
        self.began = self.io.now()
        member, command, ask = self.member, Get(self.name), self.cluster.ask
        reply = await self.io.coalesce(self.name, lambda: ask(member, command))
        return self.open(reply) if self.cluster.payloads.signs else reply, ()

    def reads(self) -> list[tuple[Member, Command]]:
        """Return what is asked now to read the value and the versions of its tags."""
        self.began = self.io.now()
        places = [(self.name, self.member), *tags.placed(self.cluster, self.tags)]
        return [(member, Get(name)) for name, member in places]

    def parse_replies(self, replies: Sequence[Reply]) -> tuple[Reply, Sequence[bytes | None]]:
        """Return what `read` gives, of the replies to `reads`."""
        cluster = self.cluster
        reply, *versions = replies
        return self.open(reply), [
            UNREACHABLE if isinstance(each, NodeError) else tags.version(cluster, name, each)
            for (name, _), each in zip(tags.placed(cluster, self.tags), versions, strict=True)
        ]

    def open(self, reply: Any) -> Any:  # a reply, or the payload of one
        """Return what a signed payload in a reply holds, any other reply as it is.

        In place of one that no secret of ours has signed there is one that nobody can read.
        """
        if not isinstance(reply, tuple) or not self.cluster.payloads.signs:
            return reply
        try:
            return self.cluster.payloads.open(self.name, reply)
        except DecodeError:
            return REFUSED

    def freshness_of(self, stored: Stored, versions: Sequence[bytes | None]) -> Freshness:
        """Say what may be done with a stored value."""
        if stored.versions is None and not self.tags:
            return Freshness.FRESH
        return freshness(stored, self.policy, self.io.wall(), self.io.random(), versions)

    def decode(self, payload: Payload) -> Any:
        """Give the value of a payload, `NOT_MADE` if it cannot be read."""
        try:
            cluster = self.cluster
            return cluster.value(self.member, self.name, payload, NOT_MADE, cluster.payloads.load)
        except DecodeError:
            if self.policy.on_error == "raise":
                raise
            return NOT_MADE

    def copy(self, payload: Payload) -> Any:
        """Return a value of its own for a caller who did not make it, as `decode` does.

        It was not read from the node, so that it counts as neither its hit nor its miss.
        """
        try:
            return self.cluster.payloads.load(self.name, payload)
        except DecodeError as error:
            self.cluster.note_undecodable(self.member, self.name, error)
            if self.policy.on_error == "raise":
                raise
            return NOT_MADE

    def restore_error(self, payload: Payload) -> Exception | None:
        """Give the exception that is stored in place of a value, if it is of a type kept here."""
        flags = int.from_bytes(payload[1][:_FLAGS_SIZE], "big")
        data = payload[1][_FLAGS_SIZE + _MARK_SIZE :]
        if not is_value(flags):
            return None
        try:
            stored = self.cluster.payloads.load(self.name, (flags, data))
        except DecodeError:
            return None
        return restore(stored, self.policy.error_kinds)

    def outcome_of(self, reply: Reply, versions: Sequence[bytes | None]) -> Outcome | None:
        """Give the outcome that a reply stands for, if it is one to be served."""
        if not isinstance(reply, tuple):
            return None
        if reply[0] == ERROR_FLAGS:
            error = self.restore_error(reply)
            return None if error is None else failed(error)
        stored = None if is_mark(reply) else open_stored(reply)
        if stored is None or self.freshness_of(stored, versions) not in SERVED:
            return None
        return None if self.decode(stored.payload) is NOT_MADE else read(stored.payload)

    # What is to be stored.

    def seal(
        self, payload: Payload, lifetime: float | None, delta: float, versions: Sequence[bytes]
    ) -> tuple[Payload, float | None]:
        """Give what is stored for a value that is fresh for so long, and for how long it is stored.

        `delta` is how many seconds it took to make.
        """
        policy, io = self.policy, self.io
        if lifetime is not None:
            lifetime = apply_jitter(lifetime, policy.jitter, io.random())
        if not (policy.ages or versions):
            return self.cluster.payloads.seal(self.name, payload, lifetime), lifetime
        envelope = seal(payload, io.wall(), delta, lifetime, versions)
        seconds = None if lifetime is None else lifetime + policy.served_after
        held = ENVELOPE_FLAGS, pack(envelope)
        return self.cluster.payloads.seal(self.name, held, seconds), seconds

    def dump_error(self, error: Exception) -> Payload | None:
        """Return what is stored of an exception, `None` if it would not come back equal."""
        payloads = self.cluster.payloads
        try:
            payload = payloads.dump(self.name, describe(error))
            twin = restore(payloads.load(self.name, payload), [type(error)])
        except (EncodeError, DecodeError):
            return None
        return None if twin is None or not equal(twin, error) else payload

    def seal_error(self, payload: Payload, seconds: float | None = None) -> Payload:
        """Give what is stored for `seconds` for an exception whose description is `payload`."""
        flags, data = payload
        mark = self.io.token()[:_MARK_SIZE]  # no two are the same, whatever they say
        stored = ERROR_FLAGS, flags.to_bytes(_FLAGS_SIZE, "big") + mark + data
        return self.cluster.payloads.seal(self.name, stored, seconds)

    # What is counted, and told to those who watch.

    def increment(self, what: str, amount: float = 1) -> None:
        """Add to a counter of the function and of the client."""
        for counters in self.counters:
            counters.add(what, amount)

    @property
    def function(self) -> str:
        """Return by what name the log speaks of the function."""
        return self.counters[0].name or f"get_or_set with {shown_function(self.factory)}"

    def count_trouble(self, reply: object) -> None:
        """Count a node's failure; raise it if the policy says so."""
        self.increment("cache_errors")
        if self.policy.on_error == "raise" and isinstance(reply, NodeError):
            raise reply

    def notify_prevented(self, how: Literal["joined", "waited"], seconds: float) -> None:
        """Tell that this caller did not have to compute."""
        observers = self.cluster.observers
        if observers:
            observers.notify(StampedePrevented(self.name, how, seconds))

    def notify_computed(self, seconds: float, error: Exception | None, *, stored: bool) -> None:
        """Tell that the function was called."""
        observers = self.cluster.observers
        if observers:
            observers.notify(ComputeFinished(self.name, seconds, error, stored))
