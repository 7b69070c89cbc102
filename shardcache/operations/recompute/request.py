"""One call for a cached value: its key and policy, what it reads and stores, and its counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Literal

from shardcache.core.cache_policy import CachePolicy, apply_jitter, describe_function
from shardcache.core.commands import Command, Get, Payload, Peek, Reply
from shardcache.core.events import ComputeFinished, StaleServed, StampedePrevented
from shardcache.core.leases import node_ttl
from shardcache.core.reserved_keys import REFRESHING, own_key
from shardcache.core.values.envelopes import MAX_VERSIONS, pack
from shardcache.core.values.flags import ENVELOPE_FLAGS, ERROR_FLAGS, REFUSED, is_mark, is_value
from shardcache.core.values.freshness import Freshness, Stored, freshness, open_stored, seal
from shardcache.core.values.payloads import Payloads
from shardcache.core.values.typed import InvalidValueError
from shardcache.errors import DecodeError, EncodeError, NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key
from shardcache.operations.invalidation import tags
from shardcache.operations.keys import straight
from shardcache.operations.recompute.counters import RecomputeCounters
from shardcache.operations.recompute.exceptions import describe, equal, restore
from shardcache.operations.recompute.outcomes import (
    ABSENT_PAYLOAD,
    NO_VALUE,
    Outcome,
    failed,
    stored_outcome,
)
from shardcache.operations.recompute.protection import Protection

SERVED: Final = frozenset({Freshness.FRESH, Freshness.EARLY, Freshness.STALE})

_FLAGS_SIZE: Final = 4  # bytes before the value within a stored error
_MARK_SIZE: Final = 16

# Values and functions are the caller's own, hence `Any`.


class Request:
    """One call for a cached value: its key, its policy, and the function that recomputes it.

    `counters` are the counters of the function. `payloads` are its own, if the
    function has a codec or a declared type, else the client's. `refresh_key` names the claim, on the
    same node, of a caller that refreshes the value while the old one is served.
    `began` is the start of the last read, in monotonic seconds. `arguments` returns the arguments of
    the function's call, for a policy whose functions take them. `tags` are known before the call;
    `result_tags` returns those that depend on the result, and is `None` if there are none.
    """

    # What a follower gets of a factory of many keys that has left out this one.
    absent: ClassVar[Any] = NO_VALUE

    __slots__ = (
        "arguments",
        "began",
        "cluster",
        "counters",
        "factory",
        "first",
        "io",
        "key",
        "member",
        "missed",
        "name",
        "payloads",
        "policy",
        "protection",
        "result_tags",
        "tags",
        "unreadable",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - all parts of a call
        self,
        cluster: Cluster,
        key: Key,
        factory: Callable[[], Any] | None,
        policy: CachePolicy,
        protection: Protection,
        counters: RecomputeCounters,
        tags: Sequence[Key] = (),
        result_tags: Callable[[Any], Sequence[Key]] | None = None,
        payloads: Payloads | None = None,
    ) -> None:
        self.cluster = cluster
        self.payloads = payloads or cluster.payloads
        self.io = cluster.io
        self.key = key
        self.began: float
        self.missed = False  # whether nothing could be served at once
        self.name: bytes
        self.member: Member
        self.name, self.member, _ = cluster.route(key)
        if factory is not None:
            self.factory = factory
        self.policy = policy
        self.protection = protection
        self.counters = counters
        self.tags = tags
        self.result_tags = result_tags
        self.arguments: Callable[[], Mapping[str, Any]] = dict
        # What was read already, along with a look at its generation.
        self.first: tuple[Reply, Sequence[bytes | None]] | None = None
        self.unreadable: Payload | None = None  # what was read and could not be decoded

    def rename(self, key: Key) -> None:
        """Turn it into a call for the value of another key."""
        self.key = key
        self.name, self.member, _ = self.cluster.route(key)

    @property
    def refresh_key(self) -> bytes:
        """The name of the claim of a refresh."""
        return own_key(REFRESHING, self.name)

    @property
    def lease(self) -> float:
        """The ttl in seconds of a stub or refresh claim on the key's own node."""
        return node_ttl(self.policy.locking.ttl, whole_seconds=self.member.whole_seconds)

    @property
    def patience(self) -> float:
        """The longest time in seconds for which a refresh may work or back off."""
        locking = self.policy.locking
        works = 2 * self.lease + (locking.max_hold if locking.renew else 0.0)
        return max(works, self.policy.seconds("error_backoff"))

    # Reading.

    async def ask(self, command: Command) -> Reply:
        """Ask the key's own node; return its error as a value."""
        return await self.cluster.ask(self.member, command)

    async def read(self) -> tuple[Reply, Sequence[bytes | None]]:
        """Return the reply of the key's node, and the current versions of the tags.

        The version of a tag whose node failed is `UNREACHABLE`.
        """
        first, self.first = self.first, None
        if first is None and self.tags:
            first = self.parse_replies(await self.cluster.ask_many(self.reads()))
        if first is None:
            self.began = self.io.now()
            cluster, member, name = self.cluster, self.member, self.name
            get_straight = member.get_straight if cluster.straight else None
            reply: Reply
            if get_straight is None or member.health.ejected:
                command = Get(name)
                reply = await self.io.coalesce(name, lambda: cluster.ask(member, command))
            else:  # two coroutines less
                reply = straight.read(cluster, member, name, get_straight)
            first = self.open(reply) if self.payloads.signs else reply, ()
        if self.result_tags is None:
            return first
        reply, versions = first
        return reply, [*versions, *await self._versions_of_result(reply)]

    async def seconds_left(self) -> float | None:
        """Return for how many more seconds the node keeps the value; `None` if it cannot tell."""
        if Peek not in self.member.supports:
            return None
        reply = await self.ask(Peek(self.name))
        if reply is None:
            return 0.0
        return reply[1] if isinstance(reply, tuple) else None

    async def current_versions(self, payload: Payload) -> Sequence[bytes | None]:
        """Return the current versions of the tags of a stored payload, as `read` does."""
        versions = await tags.current(self.cluster, self.tags) if self.tags else ()
        if self.result_tags is None:
            return versions
        return [*versions, *await self._versions_of_result(payload)]

    async def _versions_of_result(self, reply: Reply) -> Sequence[bytes | None]:
        """Return the current versions of the tags that a stored value names.

        One that names none was stored by other code, or by a client that wrote to the key: its tags
        are unknown, and it counts as one with a version that is gone.
        """
        if not isinstance(reply, tuple) or is_mark(reply):
            return ()
        stored = open_stored(reply)
        if stored is None or stored.tags is None:
            return [None]
        return await tags.current(self.cluster, stored.tags)

    def reads(self) -> list[tuple[Member, Command]]:
        """Return the commands that read the value and the versions of its tags."""
        self.began = self.io.now()
        places = [(self.name, self.member), *tags.places(self.cluster, self.tags)]
        return [(member, Get(name)) for name, member in places]

    def parse_replies(self, replies: Sequence[Reply]) -> tuple[Reply, Sequence[bytes | None]]:
        """Return the result of `read` from the replies to `reads`."""
        cluster = self.cluster
        reply, *versions = replies
        return self.open(reply), [
            tags.seen_version(cluster, name, each)
            for (name, _), each in zip(tags.places(cluster, self.tags), versions, strict=True)
        ]

    def open(self, reply: Any) -> Any:  # a reply, or the payload of one
        """Return the content of a signed payload; any other reply as it is.

        A payload that none of our secrets has signed is replaced by one that cannot be decoded.
        """
        if not isinstance(reply, tuple) or not self.payloads.signs:
            return reply
        try:
            return self.payloads.open(self.name, reply)
        except DecodeError:
            return REFUSED

    def freshness_of(self, stored: Stored, versions: Sequence[bytes | None]) -> Freshness:
        """Return whether a stored value is fresh, stale, or of no use."""
        if stored.versions is None and not self.tags and self.result_tags is None:
            return Freshness.FRESH
        return freshness(stored, self.policy, self.io.wall(), self.io.random(), versions)

    def decode(self, payload: Payload) -> Any:
        """Return the value of a payload; `NO_VALUE` if it cannot be decoded."""
        payloads = self.payloads
        load = payloads.load if payloads.declared is None else self._load  # saves a call
        try:
            return self.cluster.value(self.member, self.name, payload, NO_VALUE, load)
        except DecodeError as error:
            return self._no_value(error)

    def copy(self, payload: Payload) -> Any:
        """Return a follower's own copy of a value, as `decode` does.

        It was not read from the node, so it counts as neither a hit nor a miss of that node.
        """
        if payload is ABSENT_PAYLOAD:
            return self.absent
        try:
            return self._load(self.name, payload)
        except DecodeError as error:
            self.cluster.note_undecodable(self.member, self.name, error)
            return self._no_value(error)

    def _load(self, name: bytes, payload: Payload) -> Any:
        """Return the value of a payload; log that one is not of the declared type."""
        try:
            return self.payloads.load(name, payload)
        except InvalidValueError as error:
            self.protection.notes.value_not_valid(self.function, error)
            raise

    def _no_value(self, error: DecodeError) -> Any:
        """Return `NO_VALUE`, or raise `error` if the policy says so.

        A value that is not of the declared type is a miss under every policy: deploys leave such values.
        """
        if self.policy.on_error == "raise" and not isinstance(error, InvalidValueError):
            raise error
        return NO_VALUE

    def restore_error(self, payload: Payload) -> Exception | None:
        """Return the exception that is stored in place of a value, if the policy keeps its type."""
        flags = int.from_bytes(payload[1][:_FLAGS_SIZE], "big")
        data = payload[1][_FLAGS_SIZE + _MARK_SIZE :]
        if not is_value(flags):
            return None
        try:
            stored = self.payloads.load_error(self.name, (flags, data))
        except DecodeError:
            return None
        return restore(stored, self.policy.error_kinds)

    def outcome_of(self, reply: Reply, versions: Sequence[bytes | None]) -> Outcome | None:
        """Return the outcome in a reply, if it may be served."""
        if not isinstance(reply, tuple):
            return None
        if reply[0] == ERROR_FLAGS:
            error = self.restore_error(reply)
            return None if error is None else failed(error)
        stored = None if is_mark(reply) else open_stored(reply)
        if stored is None or self.freshness_of(stored, versions) not in SERVED:
            return None
        if stored.payload == self.unreadable:  # it has been counted
            return None
        return None if self.decode(stored.payload) is NO_VALUE else stored_outcome(stored.payload)

    # Storing.

    def tags_of(self, result: Any) -> list[bytes] | None:
        """Return the tags of a result; `None` if its tags do not depend on it."""
        if self.result_tags is None:
            return None
        encode = self.cluster.keys.encode
        return list(dict.fromkeys(encode(tag) for tag in self.result_tags(result)))

    def dump(self, result: Any, result_tags: Sequence[bytes] | None) -> tuple[Payload, Any]:
        """Return the payload of a result, and the result as callers get it.

        Raise `EncodeError` if it cannot be stored.
        """
        count = len(self.tags) + len(result_tags or ())
        if count > MAX_VERSIONS:
            raise EncodeError(f"it has {count} tags, and the limit is {MAX_VERSIONS}")
        return self.payloads.dump_result(self.name, result)

    def seal(
        self,
        payload: Payload,
        lifetime: float | None,
        delta: float,
        versions: Sequence[bytes],
        tags: Sequence[bytes] | None = None,
    ) -> tuple[Payload, float | None]:
        """Return what to store for a value that is fresh for `lifetime` seconds, and its ttl.

        `delta` is the time in seconds that its recompute took. `tags` are those that depend on it.
        """
        policy, io = self.policy, self.io
        if lifetime is not None:
            lifetime = apply_jitter(lifetime, policy.jitter, io.random())
        if not (policy.ages or versions) and tags is None:
            return self.payloads.seal(self.name, payload, lifetime), lifetime
        envelope = seal(payload, io.wall(), delta, lifetime, versions, tags)
        seconds = None if lifetime is None else lifetime + policy.served_after
        enveloped = ENVELOPE_FLAGS, pack(envelope)
        return self.payloads.seal(self.name, enveloped, seconds), seconds

    def dump_error(self, error: Exception) -> Payload | None:
        """Return the payload of an exception; `None` if it would not come back equal."""
        payloads = self.payloads
        try:
            payload = payloads.dump_error(self.name, describe(error))
            twin = restore(payloads.load_error(self.name, payload), [type(error)])
        except (EncodeError, DecodeError):
            return None
        return None if twin is None or not equal(twin, error) else payload

    def seal_error(self, payload: Payload, seconds: float | None = None) -> Payload:
        """Return what to store for `seconds` for an exception with the payload `payload`."""
        flags, data = payload
        mark = self.io.token()[:_MARK_SIZE]  # makes two stored errors differ, even equal ones
        stored = ERROR_FLAGS, flags.to_bytes(_FLAGS_SIZE, "big") + mark + data
        return self.payloads.seal(self.name, stored, seconds)

    # Counting, and notifying the observers.

    def increment(self, what: str, amount: float = 1) -> None:
        """Add to a counter of the function and of the client."""
        self.counters.counts[what] += amount
        self.protection.counters.counts[what] += amount

    @property
    def function(self) -> str:
        """The function's name in the log."""
        return self.counters.name or f"get_or_set with {describe_function(self.factory)}"

    @property
    def outlives(self) -> Callable[[], float] | None:
        """What to call when no caller waits for a recompute any more; `None` to cancel it."""
        return self._outlive if self.policy.on_cancel == "finish" else None

    def _outlive(self) -> float:
        """Count a recompute that goes on without a caller; return for how many seconds it may."""
        self.increment("orphaned")
        return self.policy.locking.max_hold

    def count_stale(self) -> None:
        """Count a value that is served after its ttl, and notify the observers."""
        self.increment("stale")
        observers = self.cluster.observers
        if observers:
            observers.notify(StaleServed(self.name))

    def count_trouble(self, reply: object) -> None:
        """Count a node's failure; raise it if the policy says so."""
        self.increment("cache_errors")
        if self.policy.on_error == "raise" and isinstance(reply, NodeError):
            raise reply

    def notify_prevented(self, how: Literal["joined", "waited"], seconds: float) -> None:
        """Notify the observers that this caller was spared a recompute."""
        observers = self.cluster.observers
        if observers:
            observers.notify(StampedePrevented(self.name, how, seconds))

    def notify_computed(self, seconds: float, error: Exception | None, *, stored: bool) -> None:
        """Notify the observers that the function was called."""
        observers = self.cluster.observers
        if observers:
            observers.notify(ComputeFinished(self.name, seconds, error, stored))


class FunctionRequest(Request):
    """A call of a cached function. What recomputes its value is made when it is needed, seldom."""

    __slots__ = ("args", "called", "kwargs")

    args: tuple[Any, ...]
    called: Callable[..., Any]
    kwargs: Mapping[str, Any]

    @property
    def factory(self) -> Callable[[], Any]:  # type: ignore[override]  # never set
        """Return the function with the arguments of the call."""
        return partial(self.called, *self.args, **self.kwargs)
