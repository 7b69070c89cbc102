"""The nodes that a client works on, and how each is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from shardcache.core.commands import (
    Command,
    Hits,
    Payload,
    Reply,
    keys_of,
    with_keys,
)
from shardcache.core.events import (
    CallFinished,
    DecodeFailed,
    KeysAccessed,
    LockProviderFailed,
    NodeFailed,
    Observers,
    OperationFinished,
)
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.key_accesses import hits_and_misses, keys_accessed, single_commands
from shardcache.core.keys import KeySpace
from shardcache.core.leases import lock_node_count
from shardcache.core.lock_providers import LockProvider
from shardcache.core.placement.topology import Topology
from shardcache.core.reserved_keys import DETOURED
from shardcache.core.values.flags import BARE_STUB, is_mark
from shardcache.core.values.payloads import Decode, Payloads
from shardcache.errors import DecodeError, NodeError, NotACounterError
from shardcache.operations.cluster.ejection import Ejector
from shardcache.operations.cluster.failover import Failover, StandIn, ask_twice, detour, try_again
from shardcache.operations.cluster.members import Member, refusal
from shardcache.operations.cluster.routing import (
    Grouping,
    Key,
    Place,
    Route,
    detouring,
    grouper,
    grouping_detours,
    router,
)
from shardcache.operations.port import IO, UNANSWERED, Enough

if TYPE_CHECKING:  # it routes keys to members, as this module does
    from shardcache.operations.cluster.moves import Move, Moving

# The types of replies about single keys when nothing failed.
_GOOD: Final = frozenset({tuple, bool, type(None), Hits})

# One of the two doors to many nodes, as `compare_and_change` takes it.
AskMany: TypeAlias = Callable[
    [Sequence[tuple[Member, Command]], float | None, Enough | None], Awaitable[list[Reply]]
]


class Cluster:
    """The nodes of one topology with everything an operation needs; replaced whole on a change.

    There are two doors to the nodes. *Key-addressed*: `ask` and `ask_many` send commands about keys
    to the members that `route` names for them. A subclass may rename the keys on the way. With a
    `failover`, a route names a stand-in while the key's own member is ejected, and a call that ejects
    its member may be tried once more. *Member-addressed*: `ask_member` and `ask_members` reach these
    very members or none, because the operation is about the node, not about the key: a lock's vote, a
    generation's majority, a probe, a flush. `ask_timed` with `ejected_too` is about the node as well.

    `timeout` is the length of a call in seconds, whether it asks one node or many. `raises` is
    whether a node's error reaches the caller (`on_error="raise"`).
    """

    # Whether keys' names carry a generation: see `ClearableCluster`.
    clearable = False
    # Whether the cache is turned off: see `DisabledCluster`.
    disabled = False

    __slots__ = (
        "default_ttl",
        "ejector",
        "failover",
        "group",
        "home",
        "io",
        "keys",
        "lock_provider",
        "locks",
        "members",
        "moving",
        "note_lock_failure",
        "note_refused",
        "note_swallowed",
        "observed",
        "observers",
        "observes_operations",
        "payloads",
        "raises",
        "route",
        "straight",
        "timeout",
        "topology",
    )

    def __init__(  # noqa: PLR0913 - it is the one place where these meet
        self,
        *,
        io: IO[Any],  # of blocking or asyncio backends: the client builds the port and the members
        topology: Topology,
        members: Mapping[str, Member],
        keys: KeySpace,
        payloads: Payloads,
        timeout: float,
        default_ttl: float | None,
        on_error: Literal["miss", "raise"],
        observers: Observers,
        ejector: Ejector,
        lock_provider: LockProvider,
        failover: Failover | None = None,
        note_swallowed: Callable[[NodeError], None] = lambda _: None,
        note_refused: Callable[[Member, NodeError], None] = lambda _member, _error: None,
        note_lock_failure: Callable[[LockProviderFailed], None] = lambda _: None,
    ) -> None:
        self.topology = topology
        self.members = members
        self.keys = keys
        self.payloads = payloads
        self.timeout = timeout
        self.default_ttl = default_ttl
        self.raises = on_error == "raise"
        self.observers = observers
        self.observed = bool(observers)  # once: each call asks
        self.observes_operations = OperationFinished in observers.heard
        self.use_io(io)
        self.ejector = ejector
        self.lock_provider = lock_provider
        self.note_swallowed = note_swallowed
        self.note_refused = note_refused
        self.note_lock_failure = note_lock_failure
        self.locks: Cluster | None = None  # the cluster of nodes that serve only locks
        self.moving: Moving | None = None  # set while keys move to other nodes: see `MovingCluster`
        self.use_failover(failover)

    def with_nodes(self, topology: Topology, members: Mapping[str, Member]) -> Cluster:
        """Return a cluster of another topology, with everything else unchanged."""
        cluster = copy(self)
        cluster.topology = topology
        cluster.members = members
        cluster.use_failover(self.failover and self.failover.over(topology, members))
        return cluster

    def use_io(self, io: IO[Any]) -> None:
        """Use another port, and decide whether the usual call about a key needs no more than its backend.

        It needs more where a subclass has its own `ask`, or an observer hears of whole operations.
        """
        self.io = io
        own = type(self).ask is Cluster.ask
        self.straight = own and io.straight and not self.observes_operations

    def use_failover(self, failover: Failover | None) -> None:
        """Choose the route to keys: `home` is that to their own members, whatever their health."""
        self.failover = failover
        self.home: Route = router(self.topology, self.members, self.keys)
        self.route: Route = self.home
        self.group: Grouping = grouper(self.topology, self.members, self.keys)
        if failover is not None:
            self.route = detouring(self.home, failover)
            self.group = grouping_detours(self.group, self.route)

    def of_locks(self, topology: Topology, members: Mapping[str, Member]) -> Cluster:
        """Return a cluster of nodes that serve only locks, for which no other stands in."""
        cluster = copy(self)
        cluster.use_failover(None)
        return cluster.with_nodes(topology, members)

    @property
    def move(self) -> Move | None:
        """The change of nodes in progress, if there is one."""
        return None if self.moving is None else self.moving.move

    @property
    def all_members(self) -> dict[str, Member]:
        """All nodes by the name that operators see.

        `lock` precedes one that serves only locks, `gutter` one that only stands in for others, `old`
        or `next` one of a change in progress.
        """
        locks = {} if self.locks is None else self.locks.members
        named = {f"lock {name}": member for name, member in locks.items()}
        return {**self.members, **named, **self.value_members}

    @property
    def value_members(self) -> dict[str, Member]:
        """All of them that keep values, by the same names: those that serve only locks are left out."""
        others = {} if self.move is None else self.move.others(self.members)
        spares = {f"gutter {name}": member for name, member in self.spares.items()}
        return {**self.members, **spares, **others}

    @property
    def spares(self) -> Mapping[str, Member]:
        """The members that do nothing but stand in for others."""
        return {} if self.failover is None else self.failover.spares

    def counters_of(self, member: Member) -> dict[str, int | float]:
        """Return the counters of a member, with what it keeps for others."""
        return member.counters() if self.failover is None else self.failover.counters_of(member)

    @property
    def reachable(self) -> list[Member]:
        """All members that a route may name now, stand-ins too."""
        members = list(self.members.values())
        if self.failover is None:
            return members
        out = [member for member in members if member.health.ejected]
        return [*members, *(each for member in out for each in self.failover.all_for(member))]

    @property
    def locking(self) -> Cluster:
        """The cluster on which locks are taken."""
        return self if self.locks is None else self.locks

    def hashed(self, key: Key) -> bytes:
        """Return the bytes of `key` that the strategy hashes."""
        _, _, hashed = self.route(key)
        return hashed

    def preferred(self, hashed: bytes, count: int) -> list[Member]:
        """Return up to `count` members in the order of preference of a place; its owner is first."""
        return [self.members[node.name] for node in self.topology.preference(hashed, count)]

    def voters(self, hashed: bytes) -> list[Member]:
        """Return the members whose majority decides about a place, its owner first."""
        return self.preferred(hashed, lock_node_count(len(self.members)))

    def holders(self, name: bytes, member: Member) -> Sequence[Member]:  # noqa: ARG002 - see `MovingCluster`
        """Return the members that may have a key now, its own node last."""
        return [member]

    def deadline(self) -> float:
        """Return the deadline of a call that begins now, for all of its nodes and steps."""
        return self.io.now() + self.timeout

    async def ask(self, member: Member, command: Command, deadline: float | None = None) -> Reply:
        """Return the reply of a key's node to `command`; when the node fails, its `NodeError`.

        The error is counted. A call of several steps passes its own `deadline`.
        """
        io = self.io
        started = io.now()
        until = started + self.timeout if deadline is None else deadline
        if member.health.ejected:
            return await self.ask_member(member, command, until)
        try:
            reply = await io.call(member.backend, command, until)
        except NodeError as error:
            reply = error
        seconds = io.now() - started
        if self.observed or member.health.watched or isinstance(reply, NodeError):
            return await self.conclude(member, command, started, seconds, until, reply)
        member.answered += 1
        member.seconds += seconds
        return reply

    async def conclude(  # noqa: PLR0913, PLR0917 - all facts of one call
        self,
        member: Member,
        command: Command,
        started: float,
        seconds: float,
        until: float,
        reply: Reply,
    ) -> Reply:
        """End a call that needs more than two counts; return its reply, or that of a second try."""
        self.record(member, command, started, seconds, until, reply)
        if self.failover is not None and isinstance(reply, NodeError):
            return await try_again(self, self.failover, member, command, reply, until)
        return reply

    async def ask_many(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,
        enough: Enough | None = None,
    ) -> list[Reply]:
        """Ask the nodes of many keys at once; return each reply, or the `NodeError` of a failed node.

        Once `enough` holds for the replies so far, the call waits a moment longer for the others.
        The late ones are `UNANSWERED`, and do not count as failures of their nodes.
        """
        return [reply for reply, _ in await self.ask_timed(asks, deadline, enough)]

    def ask_timed(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,
        enough: Enough | None = None,
        *,
        ejected_too: bool = False,
    ) -> Coroutine[Any, Any, list[tuple[Reply, float]]]:
        """Ask many nodes at once; return each reply with the seconds it took.

        A call for an ejected node is refused, unless `ejected_too`.
        """
        if self.failover is None or ejected_too:
            return self.ask_members_timed(asks, deadline, enough, ejected_too=ejected_too)
        return ask_twice(self, self.failover, asks, deadline, enough)

    async def ask_member(
        self, member: Member, command: Command, deadline: float | None = None
    ) -> Reply:
        """Ask this very member, as `ask` does for a key."""
        ((reply, _),) = await self.ask_members_timed([(member, command)], deadline)
        return reply

    async def ask_members(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,
        enough: Enough | None = None,
    ) -> list[Reply]:
        """Ask these very members at once, as `ask_many` does for keys."""
        return [reply for reply, _ in await self.ask_members_timed(asks, deadline, enough)]

    async def ask_members_timed(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,
        enough: Enough | None = None,
        *,
        ejected_too: bool = False,
    ) -> list[tuple[Reply, float]]:
        """Ask these very members at once, as `ask_timed` does for keys, and never any other."""
        io, started = self.io, self.io.now()
        until = started + self.timeout if deadline is None else deadline
        answers: list[tuple[Reply, float]] = [(UNANSWERED, 0.0)] * len(asks)
        sent: Sequence[int] = range(len(asks))
        for member, _ in asks:
            if member.health.ejected:
                asks, sent = self._redirect(asks, answers, ejected_too=ejected_too)
                break
        if not sent:
            await io.give_way()  # a caller that retries in a loop must not starve the others
            return answers
        calls = [(asks[place][0].backend, asks[place][1]) for place in sent]
        if enough is not None and len(sent) < len(asks):
            enough = _on_all([reply for reply, _ in answers], sent, enough)
        for place, (reply, arrived) in zip(
            sent, await io.call_many(calls, until, enough), strict=True
        ):
            member, command = asks[place]
            seconds = arrived - started
            answers[place] = reply, seconds
            if reply is UNANSWERED:
                continue
            if type(reply) is not list:
                good = type(reply) in _GOOD
            else:
                # Writes all have the same answer, as a rule, and to count that takes a fifth of the time.
                replies: list[Any] = reply
                same = replies[:1] == [True] and replies.count(True) == len(replies)
                good = same or _GOOD.issuperset(map(type, replies))
            if self.observed or member.health.watched or not good:
                self.record(member, command, started, seconds, until, reply)
            else:  # it needs no more than two counts, as in `ask`
                member.answered += 1
                member.seconds += seconds
        return answers

    def invalidated(self, *names: bytes) -> None:
        """Forget the values of these names, in every part of this process that knows one.

        Every delete of a caller's key passes here before it is sent, and every write that can replace
        its value: not an `add`, a `touch` or the store of a recompute, whose followers are to get
        that very value. Today single flight listens: no caller joins a recompute that began before.
        A part that keeps values must keep none that was read before the deadline of that call.
        """
        self.io.single_flight.forget(*names)

    def invalidated_all(self) -> None:
        """Do the same for all names: a tag, a generation or a whole node was invalidated."""
        self.io.single_flight.forget_all()

    def stamp(self, command: Command) -> Command:
        """Return a command about callers' keys with the keys as they are sent."""
        return command

    def own_name(self, name: bytes) -> bytes:
        """Return the canonical name of a key whose name was changed to be sent."""
        return name.removeprefix(DETOURED)

    def route_name(self, name: bytes) -> Place:
        """Return the place of a caller's key by its canonical name."""
        return self.route(self.keys.raw(name))

    def _redirect(
        self,
        asks: Sequence[tuple[Member, Command]],
        answers: list[tuple[Reply, float]],
        *,
        ejected_too: bool,
    ) -> tuple[Sequence[tuple[Member, Command]], Sequence[int]]:
        """Return the calls as they are sent, those to stand-ins redirected, and their places.

        Answer the others, to ejected nodes, with errors; there are none with `ejected_too`.
        """
        redirected = [
            detour(self, member, command) if isinstance(member, StandIn) else (member, command)
            for member, command in asks
        ]
        sent = []
        for place, (member, command) in enumerate(redirected):
            if member.health.ejected and not ejected_too:
                answers[place] = self.refuse(member, command), 0.0
            else:
                sent.append(place)
        return redirected, sent

    def refuse(self, member: Member, command: Command) -> NodeError:
        """Count a call that is not sent because its node is ejected; return its error."""
        error, cause = refusal(member), member.health.error
        member.refused += 1
        self.ejector.note_writes(member, command, error)
        if not self.raises:
            self.note_refused(member, error if cause is None else cause)
        self.ejector.refuse(member)
        self._notify_call(member, command, self.io.now(), 0.0, error, error)
        self.record_error(member, error)
        return error

    def record(  # noqa: PLR0913, PLR0917 - all facts of one call
        self,
        member: Member,
        command: Command,
        started: float,
        seconds: float,
        until: float,
        reply: Reply,
    ) -> None:
        """Count a call that was sent; notify the observers and the ejector of its end."""
        member.seconds += seconds
        error = _error_in(reply)
        self._notify_call(member, command, started, seconds, reply, error)
        if error is not None:
            self.record_error(member, error)
            if not self._reaches_caller(error):
                self.note_swallowed(error)
            self.ejector.record_failure(member, error, started, until - started)
            self.ejector.note_writes(member, command, reply)
            if error is reply or failure_kind(error) is not FailureKind.NONE:
                return
        elif member.health.watched:
            self.ejector.note_writes(member, command, reply)
        member.answered += 1
        if member.health.ejected:
            self.ejector.record_success(member, command)

    def _notify_call(  # noqa: PLR0913, PLR0917 - as above
        self,
        member: Member,
        command: Command,
        started: float,
        seconds: float,
        reply: Reply,
        error: NodeError | None,
    ) -> None:
        if not self.observed:
            return
        observers = self.observers
        if self.clearable or self.failover is not None:
            command = with_keys(command, [self.own_name(key) for key in keys_of(command)])
        if CallFinished in observers.heard:
            name = type(command).__name__.lower()
            hits, misses = hits_and_misses(command, reply)
            keys = len(keys_of(command))
            observers.notify(
                CallFinished(name, member.node, seconds, error, hits, misses, keys, started)
            )
        if KeysAccessed in observers.heard:
            for each, its_reply in single_commands(command, reply):
                accesses = keys_accessed(each, its_reply, member.node)
                if accesses is not None:
                    observers.notify(accesses)

    def record_error(self, member: Member, error: NodeError) -> None:
        """Count a node's error, and notify the observers."""
        swallowed = not self._reaches_caller(error)
        member.errors += 1
        member.swallowed += swallowed
        if self.observers:
            self.observers.notify(NodeFailed(member.node, error, swallowed=swallowed))

    def _reaches_caller(self, error: NodeError) -> bool:
        """Return whether a caller sees an error, as `on_error` says; always for a value that is no number."""
        return self.raises or isinstance(error, NotACounterError)

    def unwrap(self, reply: Any, default: Any) -> Any:  # the reply is of its command's type
        """Return `reply`. In place of an error return `default`, or raise it if it reaches the caller."""
        if not isinstance(reply, NodeError):
            return reply
        if self._reaches_caller(reply):
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
        """Return the value of a stored payload, or `default` for a miss; count either at its node.

        Every value of a node is decoded here, whether one key was read or many. `decode` is another
        decoder than that of `payloads`: for a payload that is verified already, or for one of many.
        """
        # Decoded first, because a hit must be quick. No decoder takes a mark, but memcached's own.
        if payload is None or (not payload[1] and payload == BARE_STUB):
            member.misses += 1
            return default
        try:
            value = (decode or self.payloads.decode)(name, payload)
        except DecodeError as error:
            if is_mark(payload):
                member.misses += 1
                return default
            return self.undecodable(member, name, error, default)
        member.hits += 1
        return value

    def undecodable(self, member: Member, name: bytes, error: DecodeError, default: Any) -> Any:
        """Count undecodable bytes as a miss; raise the error, or return `default`."""
        member.misses += 1
        self.note_undecodable(member, name, error)
        if self.raises:
            raise error
        return default

    def note_undecodable(self, member: Member, name: bytes, error: DecodeError) -> None:
        """Count undecodable bytes, and notify the observers."""
        member.decode_failures += 1
        if self.observers:
            self.observers.notify(DecodeFailed(member.node, name, error))


def _on_all(answers: Sequence[Reply], sent: Sequence[int], enough: Enough) -> Enough:
    """Return `enough` as a condition on the replies to the calls that were sent.

    `answers` has the replies to the others; `sent` are the places of the calls that were sent.
    """

    def holds(replies: Sequence[Reply]) -> bool:
        heard = list(answers)
        for place, reply in zip(sent, replies, strict=True):
            heard[place] = reply
        return enough(heard)

    return holds


def _error_in(reply: Reply) -> NodeError | None:
    """Return the error in a reply, `None` without one; the gravest in a reply about many keys.

    A batch that came only in part has timeouts in its gaps. They tell as much about the node as any
    other late reply.
    """
    if isinstance(reply, NodeError):
        return reply
    if not isinstance(reply, list) or _GOOD.issuperset(map(type, reply)):
        return None
    errors = [each for each in reply if isinstance(each, NodeError)]
    grave = (error for error in errors if failure_kind(error) is not FailureKind.NONE)
    return next(grave, errors[0] if errors else None)
