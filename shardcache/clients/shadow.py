"""The background service that compares a client's reads with what other nodes have."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, cast

from shardcache.backends.base import Backend, BackendOptions
from shardcache.backends.threads import start_thread
from shardcache.clients.construction import blocking_backends, build_strategy
from shardcache.clients.membership import Closed, Membership
from shardcache.core.commands import Command, CommandList, Get, GetMany, Gets, Reply
from shardcache.core.events import Observers, ShadowCompared
from shardcache.core.placement.nodes import MEMORY
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology
from shardcache.core.shadow import SampledReads
from shardcache.core.values.payloads import Payloads
from shardcache.io.blocking import BlockingIO
from shardcache.log import log
from shardcache.operations.cluster.members import GetStraight, Member
from shardcache.operations.keys.shadowing import Comparer, Rules, Side
from shardcache.operations.port import IO, Enough, run
from shardcache.plugin.manager import Plugins
from shardcache.settings import Shadow

TICK: Final = 0.1  # seconds between two looks for reads to compare


class ShadowService:
    """A daemon thread that asks both sides for a sample of what a client of either kind reads.

    The client only notes names in a queue, and never waits. The thread has its own connections to
    both sides, so that it needs no event loop. It does not keep the client alive.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a client is built from
        self,
        shadow: Shadow,
        plugins: Plugins,
        options: BackendOptions,
        strategy: Strategy,
        payloads: Payloads,
        observers: Observers,
    ) -> None:
        """Prepare the shadow's nodes; connect to none."""
        if shadow.strategy is not None:
            strategy = build_strategy(plugins, shadow.strategy)
        io = BlockingIO()
        self._connect = connect = blocking_backends(plugins, options)
        topology = Topology(shadow.nodes, strategy)
        members = {node.name: Member(node, connect(node)) for node in topology.nodes}
        self._observers = observers
        self._members: Callable[[], Membership[Any] | None] = lambda: None
        self._own: dict[Member, Backend] = {}  # the client's members, with a backend to each
        self._reads = SampledReads(shadow.sample, shadow.queue, io.random)
        self._there = Side(topology, members, lambda member: member.backend)
        rules = Rules(options.call_timeout, shadow.settle, shadow.ttl_tolerance, shadow.queue)
        self._comparer = Comparer(
            io,
            self._reads,
            here=self._here,
            there=self._there,
            payloads=payloads,
            rules=rules,
            notify=self._notify,
        )
        self._thread: object = None  # a mark of the one that runs
        self._process = 0
        self._has_failed = False

    def sampling(self, io: IO[Any]) -> IO[Any]:
        """Return a port that notes what is read, and else is the client's."""
        return cast("IO[Any]", SamplingIO(io, self._reads))

    def sampling_straight(self, get_straight: GetStraight) -> GetStraight:
        """Return the straight way of a member's reads, which passes no port, noting what is read."""
        reads = self._reads

        def sampling_get_straight(key: bytes, began: float, seconds: float) -> Reply:
            if reads.to_skip > 0:  # most calls
                reads.to_skip -= 1
            else:
                reads.note((key,))
            return get_straight(key, began, seconds)

        return sampling_get_straight

    def follow(self, membership: Membership[Any]) -> None:
        """Compare with the present nodes of a client; its first call starts the thread."""
        self._members = weakref.ref(membership)
        membership.add_service(self)

    def counts(self) -> dict[str, int]:
        """Return how many reads had each outcome, were dropped, or still wait."""
        return self._comparer.counts()

    def start(self) -> None:
        """Start the thread. A forked child compares what it reads itself."""
        if self._process not in {0, os.getpid()}:
            self._comparer.clear()
        self._process = os.getpid()
        self._thread = thread = object()
        start_thread(lambda: self._run(thread), "shardcache shadow")

    def stop(self) -> None:
        """End the thread, which closes its connections; keys that wait are not compared any more."""
        self._thread = None

    def _run(self, thread: object) -> None:
        try:
            while self._thread is thread:
                if not run(self._comparer.turn):
                    time.sleep(TICK)
        finally:
            self._close()

    def _close(self) -> None:
        for member in self._there.members.values():
            member.backend.close()
        self._forget_own(())

    def _here(self) -> Side | None:
        """Return the client's nodes; `None` when it is closed, or gone."""
        membership = self._members()
        cluster = None if membership is None else membership.cluster
        if cluster is None or isinstance(cluster, Closed):
            return None
        members = cluster.members
        if self._own.keys() != set(members.values()):
            self._forget_own(members.values())
            for member in members.values():
                if member not in self._own:
                    self._own[member] = self._reach(member)
        return Side(cluster.topology, members, self._own.__getitem__)

    def _reach(self, member: Member) -> Backend:
        """Return a backend of the thread's own, so that no caller waits for a connection."""
        if member.node.address.scheme == MEMORY:  # there is no other way to its memory
            same: Backend = getattr(member.backend, "blocking", member.backend)
            return same
        return self._connect(member.node)

    def _forget_own(self, kept: Iterable[Member]) -> None:
        for member in set(self._own).difference(kept):
            self._own.pop(member).close()

    def _notify(self, event: ShadowCompared) -> None:
        if event.error is not None and not self._has_failed:
            self._has_failed = True
            log.warning(
                "shadow: a key cannot be compared: %s; counted as failed, as all further ones",
                str(event.error),
            )
        if self._observers:
            self._observers.notify(event)


class SamplingIO:
    """A port that notes the names of the keys that are read, and else is the port it stands for."""

    __slots__ = ("_io", "_reads", "call", "now", "single_flight", "straight")

    def __init__(self, io: IO[Any], reads: SampledReads) -> None:  # as `Cluster` takes it
        self._io = io
        self._reads = reads
        # A blocking read notes its key on the straight way too (`sampling_straight`).
        self.straight = isinstance(io, BlockingIO)
        # What most calls need is looked up once.
        self.call = _sampling(io.call, reads)
        self.now = io.now
        self.single_flight = io.single_flight

    def __getattr__(self, name: str) -> Any:  # whatever the port has
        return getattr(self._io, name)

    def call_many(
        self, asks: Sequence[tuple[Any, Command]], deadline: float, enough: Enough | None = None
    ) -> Awaitable[list[tuple[Reply, float]]]:
        """Note what is read, and ask all nodes at once."""
        for _, command in asks:
            _note(self._reads, command)
        return self._io.call_many(asks, deadline, enough)


Call: TypeAlias = Callable[[Any, Command, float], Awaitable[Reply]]  # of a backend, as above


def _sampling(call: Call, reads: SampledReads) -> Call:
    """Return `call`, which notes what is read; a closure, because every `get` passes it."""

    def sampling_call(backend: Any, command: Command, deadline: float) -> Awaitable[Reply]:
        if type(command) is Get and reads.to_skip > 0:  # most calls
            reads.to_skip -= 1
        else:
            _note(reads, command)
        return call(backend, command, deadline)

    return sampling_call


def _note(reads: SampledReads, command: Command) -> None:
    if isinstance(command, GetMany):
        reads.note(command.keys)
    elif isinstance(command, (Get, Gets)):
        reads.note((command.key,))
    elif isinstance(command, CommandList):
        for each in command.commands:
            _note(reads, each)
