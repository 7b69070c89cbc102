"""What an operation works on: the nodes as this client knows them, and how one is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Final, Literal

from shardcache.core.commands import Command, Payload, Reply
from shardcache.core.events import CallFinished, DecodeFailed, KeysAccessed, NodeFailed, Observers
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.key_accesses import hits_and_misses, keys_accessed
from shardcache.core.keys import KeySpace
from shardcache.core.leases import lock_node_count
from shardcache.core.placement.topology import Topology
from shardcache.core.values.flags import is_mark
from shardcache.core.values.payloads import Decode, Payloads
from shardcache.errors import DecodeError, NodeError, NodeUnavailableError, NotACounterError
from shardcache.operations.cluster.ejection import Ejector
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key, Route, router
from shardcache.operations.port import IO, UNANSWERED, Enough

# The types of replies about single keys when nothing failed.
_GOOD: Final = frozenset({tuple, bool, type(None)})


class Cluster:
    """The nodes of one topology with everything an operation needs; replaced whole on a change.

    `timeout` is the length of a call in seconds, whatever it fans out to. `raises` is whether a
    node's error reaches the caller (`on_error="raise"`).
    """

    # Whether the names of keys carry a generation: see `ClearableCluster`.
    clearable = False

    __slots__ = (
        "default_ttl",
        "ejector",
        "io",
        "keys",
        "locks",
        "members",
        "note_refused",
        "note_swallowed",
        "observers",
        "payloads",
        "raises",
        "route",
        "timeout",
        "topology",
    )

    def __init__(  # noqa: PLR0913 - it is the one place where these meet
        self,
        *,
        io: IO[Any],  # blocking or asyncio backends: the port and its members come from one place
        topology: Topology,
        members: Mapping[str, Member],
        keys: KeySpace,
        payloads: Payloads,
        timeout: float,
        default_ttl: float | None,
        on_error: Literal["miss", "raise"],
        observers: Observers,
        ejector: Ejector,
        note_swallowed: Callable[[NodeError], None] = lambda _: None,
        note_refused: Callable[[Member, NodeError], None] = lambda _member, _error: None,
    ) -> None:
        self.io = io
        self.topology = topology
        self.members = members
        self.keys = keys
        self.payloads = payloads
        self.timeout = timeout
        self.default_ttl = default_ttl
        self.raises = on_error == "raise"
        self.observers = observers
        self.ejector = ejector
        self.note_swallowed = note_swallowed
        self.note_refused = note_refused
        self.locks: Cluster | None = None  # of nodes for locks alone
        self.route: Route = router(topology, members, keys)

    def with_nodes(self, topology: Topology, members: Mapping[str, Member]) -> Cluster:
        """Give the cluster of another topology, everything else as it is."""
        cluster = copy(self)
        cluster.topology = topology
        cluster.members = members
        cluster.route = router(topology, members, self.keys)
        return cluster

    @property
    def known(self) -> dict[str, Member]:
        """Give all nodes by the name that operators see: those for locks alone are marked so."""
        locks = {} if self.locks is None else self.locks.members
        return {**self.members, **{f"lock {name}": member for name, member in locks.items()}}

    @property
    def locking(self) -> Cluster:
        """Give the cluster on which locks are taken."""
        return self if self.locks is None else self.locks

    def hashed(self, key: Key) -> bytes:
        """Give the bytes of `key` that the strategy hashes."""
        raw = self.keys.encode(key)
        return self.keys.canonical(raw) if self.topology.strategy.hashes_namespace else raw

    def voters(self, key: Key) -> list[Member]:
        """Give the nodes whose majority decides on what is said of `key`, its owner first."""
        nodes = self.topology.preference(self.hashed(key), lock_node_count(len(self.members)))
        return [self.members[node.name] for node in nodes]

    def deadline(self) -> float:
        """Give when a call that begins now must be over, however many nodes or steps it takes."""
        return self.io.now() + self.timeout

    async def ask(self, member: Member, command: Command, deadline: float | None = None) -> Reply:
        """Give the node's reply to `command`; when it fails, its `NodeError` as a value, counted.

        A call of several steps passes its own `deadline`.
        """
        io = self.io
        started = io.now()
        until = started + self.timeout if deadline is None else deadline
        if member.health.ejected:
            await io.give_way()  # who asks again and again must not keep all others from their turn
            return self._refused(member, command)
        try:
            reply = await io.call(member.backend, command, until)
        except NodeError as error:
            reply = error
        seconds = io.now() - started
        if self.observers or member.health.ejected or isinstance(reply, NodeError):
            self._finished(member, command, started, seconds, until, reply)
        else:
            member.answered += 1
            member.seconds += seconds
        return reply

    async def ask_many(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,
        enough: Enough | None = None,
    ) -> list[Reply]:
        """Ask many nodes at once; return each reply, or the `NodeError` of a node that failed.

        Once `enough` holds for the replies so far, the others are waited for a moment longer. They
        are `UNANSWERED` then, and their nodes are not blamed.
        """
        return [reply for reply, _ in await self.ask_timed(asks, deadline, enough)]

    async def ask_timed(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,
        enough: Enough | None = None,
        *,
        ejected_too: bool = False,
    ) -> list[tuple[Reply, float]]:
        """Ask many nodes at once; return each reply with the seconds it took.

        A call for an ejected node is refused, unless `ejected_too`.
        """
        io, started = self.io, self.io.now()
        until = started + self.timeout if deadline is None else deadline
        answers: list[tuple[Reply, float]] = [(UNANSWERED, 0.0)] * len(asks)
        sent: Sequence[int] = range(len(asks))
        if not ejected_too and any(member.health.ejected for member, _ in asks):
            sent = self._refuse_ejected(asks, answers)
        if not sent:
            await io.give_way()
            return answers
        calls = [(asks[place][0].backend, asks[place][1]) for place in sent]
        if enough is not None and len(sent) < len(asks):
            enough = _beside([reply for reply, _ in answers], sent, enough)
        for place, (reply, arrived) in zip(
            sent, await io.call_many(calls, until, enough), strict=True
        ):
            member, command = asks[place]
            answers[place] = reply, arrived - started
            if reply is not UNANSWERED:
                self._finished(member, command, started, arrived - started, until, reply)
        return answers

    # As it is in this class, whatever another does beside it.
    ask_raw = ask_timed

    def stamped(self, command: Command) -> Command:
        """Return a command about callers' keys as it is sent."""
        return command

    def _refuse_ejected(
        self, asks: Sequence[tuple[Member, Command]], answers: list[tuple[Reply, float]]
    ) -> Sequence[int]:
        """Put errors among the answers for calls that are not sent; return the places of the others."""
        sent = []
        for place, (member, command) in enumerate(asks):
            if member.health.ejected:
                answers[place] = self._refused(member, command), 0.0
            else:
                sent.append(place)
        return sent

    def _refused(self, member: Member, command: Command) -> NodeError:
        """Give the error of a call that is not sent, because its node is ejected."""
        cause = member.health.error
        error = NodeUnavailableError(f"ejected, and probed again soon ({cause})", member.node.name)
        error.__cause__ = cause
        error.sent = False
        member.refused += 1
        if not self.raises:
            self.note_refused(member, error if cause is None else cause)
        self.ejector.refuse(member)
        self._notify_call(member, command, 0.0, error, error)
        self.failed(member, error)
        return error

    def _finished(  # noqa: PLR0913, PLR0917 - what there is to know of a call
        self,
        member: Member,
        command: Command,
        started: float,
        seconds: float,
        until: float,
        reply: Reply,
    ) -> None:
        member.seconds += seconds
        error = _error_in(reply)
        self._notify_call(member, command, seconds, reply, error)
        if error is not None:
            self.failed(member, error)
            if not self.raises:
                self.note_swallowed(error)
            self.ejector.record_failure(member, error, started, until - started)
            if error is reply or failure_kind(error) is not FailureKind.NONE:
                return
        member.answered += 1
        if member.health.ejected:
            self.ejector.record_success(member, command)

    def _notify_call(
        self,
        member: Member,
        command: Command,
        seconds: float,
        reply: Reply,
        error: NodeError | None,
    ) -> None:
        observers = self.observers
        if not observers:
            return
        if CallFinished in observers.heard:
            name = type(command).__name__.lower()
            counts = hits_and_misses(command, reply)
            observers.notify(CallFinished(name, member.node, seconds, error, *counts))
        if KeysAccessed in observers.heard:
            accesses = keys_accessed(command, reply, member.node)
            if accesses is not None:
                observers.notify(accesses)

    def failed(self, member: Member, error: NodeError) -> None:
        """Count an error of a node, and tell of it."""
        member.errors += 1
        member.swallowed += not self.raises
        if self.observers:
            self.observers.notify(NodeFailed(member.node, error, swallowed=not self.raises))

    def unwrap(self, reply: Any, default: Any) -> Any:  # the reply is of its command's type
        """Give `reply`; for an error, raise it or give `default`, as `on_error` says."""
        if not isinstance(reply, NodeError):
            return reply
        if self.raises or isinstance(reply, NotACounterError):
            raise reply
        return default

    def value(
        self,
        member: Member,
        name: bytes,
        payload: Payload | None,
        default: Any,
        decode: Decode | None = None,
    ) -> Any:
        """Give the value of a stored payload; `default` for a miss, counted either way.

        What has been verified already is read by another `decode`.
        """
        if payload is None or is_mark(payload):
            member.misses += 1
            return default
        try:
            value = (decode or self.payloads.decode)(name, payload)
        except DecodeError as error:
            return self.undecodable(member, name, error, default)
        member.hits += 1
        return value

    def undecodable(self, member: Member, name: bytes, error: DecodeError, default: Any) -> Any:
        """Count bytes that cannot be decoded as a miss; raise the error, or give `default`."""
        member.misses += 1
        self.note_undecodable(member, name, error)
        if self.raises:
            raise error
        return default

    def note_undecodable(self, member: Member, name: bytes, error: DecodeError) -> None:
        """Count bytes that cannot be decoded, and notify the observers."""
        member.decode_failures += 1
        if self.observers:
            self.observers.notify(DecodeFailed(member.node, name, error))


def _beside(answers: Sequence[Reply], sent: Sequence[int], enough: Enough) -> Enough:
    """Return the same condition on the replies to the calls that were sent, each in its place."""

    def holds(replies: Sequence[Reply]) -> bool:
        heard = list(answers)
        for place, reply in zip(sent, replies, strict=True):
            heard[place] = reply
        return enough(heard)

    return holds


def _error_in(reply: Reply) -> NodeError | None:
    """Give the error of a reply; of one about many keys the gravest, which stands for all.

    A batch that was not answered in time has timeouts in its gaps: it says as much about its node
    as any other late reply.
    """
    if isinstance(reply, NodeError):
        return reply
    if not isinstance(reply, list) or _GOOD.issuperset(map(type, reply)):
        return None
    errors = [each for each in reply if isinstance(each, NodeError)]
    grave = (error for error in errors if failure_kind(error) is not FailureKind.NONE)
    return next(grave, errors[0] if errors else None)
