"""A world in virtual time: model nodes that fail, clients that pause, and no server, clock or loop.

Operations run as they are over `SimulatedIO`. Nothing here sleeps: `World.advance` does in order
what falls due.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from operations.later import Cancelled, Later
from operations.simulated_io import SimulatedIO
from shardcache.backends.memory import Bounds, Store
from shardcache.clients.function_cache import CacheContext
from shardcache.core.capabilities import COMPARE, EVERYTHING
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.commands import Acquire, CommandList, GetOrStub, Renew, Set
from shardcache.core.events import Observers
from shardcache.core.keys import KeySpace
from shardcache.core.lock_providers import LockProvider
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.core.values.flags import BARE_STUB, stub
from shardcache.core.values.payloads import Payloads
from shardcache.errors import NodeTimeoutError, NodeUnavailableError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.ejection import Ejector
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import Prober
from shardcache.operations.invalidation.clearing import ClearableCluster
from shardcache.operations.invalidation.generations import Generations
from shardcache.operations.locks.redlock import Redlock
from shardcache.operations.recompute.protection import Protection
from shardcache.strategies.rendezvous import Rendezvous

TIMEOUT = 0.1


class Task(Later):
    """A coroutine that runs in the world, on behalf of a client that may be paused or dead."""

    def __init__(
        self, world: World, client: Process, work: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        super().__init__()
        self._world = world
        self._client = client
        self._begin = work  # no earlier, or Python would warn of what a test's end leaves unbegun
        self._work: Coroutine[Any, Any, Any] | None = None
        self._steps = 0
        self._cancelled = False
        self.error: BaseException | None = None
        world.at(0.0, self._go_on)

    def cancel(self) -> None:
        """Raise `Cancelled` where it is waiting, at once."""
        if not self.done:
            self._cancelled = True
            self._steps += 1
            self._world.at(0.0, self._go_on)

    def _step(self, number: int) -> None:
        """Go on unless that has been done since."""
        if number == self._steps:
            self._go_on()

    def _go_on(self) -> None:
        if self.done:
            return
        if self._client.dead:
            if self._work is not None:
                self._work.close()
            return
        paused = self._client.paused_until - self._world.now
        if paused > 0:
            self._world.at(paused, self._go_on)
            return
        cancelled, self._cancelled = self._cancelled, False
        if self._work is None:
            self._work = self._begin()
        try:
            awaited = self._work.throw(Cancelled()) if cancelled else self._work.send(None)
        except StopIteration as done:
            self.set(done.value)
        except (Exception, Cancelled) as error:  # noqa: BLE001 - the test looks at it
            self.error = error
            self.set(None)
        else:
            self._steps += 1
            number = self._steps
            awaited.watchers.append(lambda: self._world.at(0.0, lambda: self._step(number)))


class World:
    """Virtual time, and what falls due in it."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 1000.0
        self.chance = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.owners: dict[Any, Process] = {}  # of what was set, by its payload
        self.touched: list[str] = []  # what of another's was changed
        self.watch: Callable[[], None] = lambda: None  # called after each event

    def at(self, delay: float, act: Callable[[], None]) -> None:
        """Do something after some seconds."""
        heapq.heappush(self._due, (self.now + max(0.0, delay), next(self._count), act))

    def finish(self, nodes: Sequence[SimulatedNode], processes: Sequence[Process]) -> None:
        """Let all that was begun come to its end, with nodes that answer."""
        self.watch = lambda: None
        for process in processes:
            process.paused_until = 0.0
        for node in nodes:
            node.up, node.delay, node.loses = True, 0.001, ""
            node.resume()
        self.advance(1000.0)

    def advance(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, and do what falls due, until something is so."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end and not until():
            self.now, _, act = heapq.heappop(self._due)
            act()
            self.watch()
        if not until():
            self.now = max(self.now, end)


class SimulatedNode:
    """A node that can crash, be stopped, answer late, and lose what it had.

    One that counts `whole_seconds` behaves as memcached does: what is to live for two seconds is
    gone after one to two, it cannot compare values, its CAS numbers start again with it and are new
    with each renewal, and its stubs say whose they are from the first renewal on.
    """

    def __init__(self, world: World, *, whole_seconds: bool = False) -> None:
        self.world = world
        self.whole_seconds = whole_seconds
        self.supports = EVERYTHING - COMPARE if whole_seconds else EVERYTHING
        self.up = True
        self.stopped = False
        self.delay = 0.001  # seconds there, and as many back
        self.rate = 1.0  # of its clock
        self.loses: Literal["", "commands", "replies"] = ""  # as connections break on the way
        self.ordered = False  # whether no command overtakes an earlier one
        self._latest = 0.0  # arrival of all commands so far
        self.drops = 0  # how many times its connections were to be dropped
        self._waiting: list[Callable[[], None]] = []
        self.forget()

    def forget(self) -> None:
        """Lose all, as in a restart."""
        self.store = Store(Bounds(), self._clock)

    def eject(self) -> None:
        """Drop no connections, for there are none; note that they were to be dropped."""
        self.drops += 1

    def resume(self) -> None:
        """Go on after a stop; what came meanwhile is done now."""
        self.stopped = False
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act()

    def ask(self, process: Process, command: Any, deadline: float, reply: Later) -> None:
        """Take a command of a process, and answer after a while."""
        world = self.world

        def delay() -> float:
            return self.delay if process.delay is None else process.delay

        def arrive() -> None:
            if self.stopped:
                self._waiting.append(arrive)
            elif not self.up or self.loses == "commands":
                world.at(delay(), lambda: reply.set(NodeUnavailableError("refused", "node")))
            else:
                answer = self._execute(process, command)
                if self.loses:
                    answer = NodeUnavailableError("lost the connection", "node")
                    answer.__cause__ = ConnectionResetError()
                world.at(delay(), lambda: reply.set(answer))

        arrival = world.now + delay()
        if self.ordered:
            arrival = self._latest = max(arrival, self._latest)
        world.at(arrival - world.now, arrive)
        world.at(deadline - world.now, lambda: reply.set(NodeTimeoutError("late", "node")))

    def held(self, key: bytes) -> Any:
        """Return what is kept under a key now, with its expiry; `None` when there is nothing."""
        entry = self.store._entries.get(key)
        if entry is None or entry.expires <= self._clock():
            return None
        return entry.payload, entry.expires

    def _execute(self, process: Process, command: Any) -> Any:
        """Do it, and note when that changes what another process has put there."""
        if isinstance(command, CommandList):
            return [self._execute(process, each) for each in command.commands]
        key = getattr(command, "key", b"")
        before = self.held(key)
        answer = self.store.execute(self._coarse(command))
        if (
            self.whole_seconds
            and isinstance(command, GetOrStub)
            and getattr(answer, "leads", False)
        ):
            self._change(key, payload=BARE_STUB)
            answer = answer._replace(stub=BARE_STUB)
        if self.whole_seconds and isinstance(command, Renew) and answer is not None:
            answer = self._renumbered(key)
            self._change(key, payload=stub(command.mark))
        if isinstance(command, (Set, Acquire)) and answer is not False:
            self.world.owners[command.payload] = process
        if before is not None and self.held(key) != before:
            owner = self.world.owners.get(before[0])
            if owner is not None and owner is not process:
                self.world.touched.append(f"{command} changed {before}")
        return answer

    def _renumbered(self, key: bytes) -> int:
        store = self.store
        store._writes += 1
        self._change(key, token=store._writes)
        return store._writes

    def _change(self, key: bytes, **fields: Any) -> None:
        self.store._entries[key] = self.store._entries[key]._replace(**fields)

    def _coarse(self, command: Any) -> Any:
        ttl = getattr(command, "ttl", None)
        if not self.whole_seconds or ttl is None:
            return command
        now = self._clock()
        return command._replace(ttl=math.floor(now) + math.ceil(ttl) - now)

    def _clock(self) -> float:
        return self.world.now * self.rate


@dataclass
class Process:
    """A process with one client: it can be paused, killed, and have a clock of another rate."""

    world: World
    nodes: Sequence[SimulatedNode]
    rate: float = 1.0
    skew: float = 0.0  # seconds that its clock of the wall is ahead
    paused_until: float = 0.0
    dead: bool = False
    delay: float | None = None  # seconds to its nodes, and as many back; by default theirs
    timeout: float = TIMEOUT
    observers: Sequence[object] = ()
    prober: Prober | None = None  # that of another client, if this one shares a process with it
    clearable: bool = False  # whether its keys' names carry a generation
    lock_provider: LockProvider = field(default_factory=Redlock)
    cluster: Cluster = field(init=False)
    protection: Protection = field(default_factory=Protection)
    generations: Generations = field(init=False)

    def __post_init__(self) -> None:
        io = SimulatedIO(self.world, self)
        named = {f"n{place}": node for place, node in enumerate(self.nodes)}
        topology = Topology([Node("memory://x", name=name) for name in named], Rendezvous())
        if self.prober is None:
            self.prober = Prober(io, self.timeout)
        observers = Observers(self.observers)
        ejector = Ejector(self.prober, observers)
        self.generations = Generations(KeySpace())
        kind = (
            partial(ClearableCluster, generations=self.generations) if self.clearable else Cluster
        )
        self.cluster = kind(
            io=io,
            topology=topology,
            members={node.name: Member(node, named[node.name]) for node in topology.nodes},
            keys=KeySpace(),
            payloads=Payloads(Msgpack()),
            timeout=self.timeout,
            default_ttl=None,
            on_error="miss",
            observers=observers,
            ejector=ejector,
            lock_provider=self.lock_provider,
        )
        for member in self.cluster.members.values():
            ejector.add(member, member.node.name)

    @property
    def caches(self) -> CacheContext:
        """Return what the cached functions of the client have in common."""
        return CacheContext(
            lambda: self.cluster,
            self.protection,
            self.generations,
            lambda results: Payloads(Msgpack(), None, results.declared),
        )

    def run(self, work: Coroutine[Any, Any, Any]) -> Task:
        """Begin an operation."""
        return Task(self.world, self, lambda: work)

    def begin(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Task:
        """Start an operation whose coroutine is made when it starts."""
        return Task(self.world, self, work)

    def pause(self, seconds: float) -> None:
        """Do nothing for so long, as a process that was stopped; its clock goes on."""
        self.paused_until = max(self.paused_until, self.world.now + seconds)
