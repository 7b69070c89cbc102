"""What the tests of the operations share: one harness, one log of events, and instants with names.

A harness holds model nodes and the processes that ask them, in virtual time. Every subject has the same
verbs: `start` and `run` an operation of a process, `ask` a node, `kill` and `silence` nodes, `advance`
the time. A subclass adds what its subject calls: a lock, two clients of one process, or a cached function
(`cached_harness.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from operations.simulation import TIMEOUT, Process, SimulatedNode, Task, World
from shardcache.core import health
from shardcache.core.commands import Command, Get, Ping
from shardcache.core.events import (
    METHODS,
    ClientCreated,
    Event,
    KeysAccessed,
    NodeEjected,
    NodeRestored,
)
from shardcache.core.leases import LockPolicy
from shardcache.core.reserved_keys import LOCKS, own_key
from shardcache.operations.cluster import ejection, members, prober
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import ProberLog
from shardcache.operations.locks.acquire import attempt
from shardcache.operations.locks.backoff import FIRST, SLOWEST, SPREAD
from shardcache.operations.locks.redlock import lock_nodes

# Kinds of five nodes: whether each counts whole seconds and cannot compare values, as memcached does.
REDIS = (False,) * 5
MEMCACHED = (True,) * 5
MIXED = (True, False, True, False, True)

# Instants of a call to a healthy model node, in seconds from its first command.
ONE_WAY = 0.001  # a command arrives
ROUND_TRIP = 2 * ONE_WAY  # its reply is here
ON_THE_WAY = ONE_WAY / 2  # the command has left and has not arrived
ON_THE_WAY_BACK = ONE_WAY + ONE_WAY / 2  # the node has executed it, and its reply has not arrived
A_FEW_ROUND_TRIPS = 0.02

# Of a miss with a lock over five nodes: it reads the value, asks the gate, then the other four.
AFTER_MAJORITY = (
    2 * ROUND_TRIP + ON_THE_WAY_BACK
)  # they have agreed, and their replies are on the way
# Of a miss that finds another process's stub: it reads, leaves no stub of its own, pauses and looks.
AFTER_FIRST_LOOK = 2 * ROUND_TRIP + 1.2 * FIRST
LONGEST_PAUSE = SLOWEST * (1 + SPREAD)  # between two looks of one that waits

# The code that an ejection and a return go through.
EJECTING = frozenset(module.__file__ for module in (health, ejection, members, prober))

GET = Get(b"k")
NODE_CHANGES = (NodeEjected, NodeRestored)
# An observer of accesses has every reply looked into, and some tests make replies up.
# That a client was created is told once, before anything happens.
OBSERVED = tuple(kind for kind in METHODS if kind not in {KeysAccessed, ClientCreated})


class EventLog:
    """The events that an observer received, in order: of some kinds, or of all."""

    def __init__(self, *kinds: type[Event]) -> None:
        self.events: list[Event] = []
        for kind, method in METHODS.items():
            if not kinds or kind in kinds:
                setattr(self, method, self.events.append)

    def of(self, *kinds: type[Event]) -> list[Any]:
        """Return the events of some kinds."""
        return [event for event in self.events if isinstance(event, kinds)]

    def types(self, *kinds: type[Event]) -> list[type[Event]]:
        """Return the types of all events, or of those of some kinds."""
        return [type(event) for event in (self.of(*kinds) if kinds else self.events)]


class ActAfter:
    """Acts once, after a number of events of a world."""

    def __init__(self, events: int, act: Callable[[], None]) -> None:
        self.left = events
        self.act = act

    def __call__(self) -> None:
        """Count one more event."""
        self.left -= 1
        if self.left == 0:
            self.act()


class Harness:
    """Model nodes, and the processes that ask them, in virtual time.

    `kinds` says of each node whether it counts whole seconds; without it there are `nodes` that do not.
    """

    settling = 0.0  # seconds that `run` leaves to what an operation started in the background

    def __init__(  # noqa: PLR0913 - each of one subject or another
        self,
        nodes: int = 1,
        processes: int = 1,
        *,
        kinds: Sequence[bool] | None = None,
        skews: Iterable[float] = (),
        timeout: float = TIMEOUT,
        seed: int = 0,
    ) -> None:
        self.world = World(seed)
        kinds = (False,) * nodes if kinds is None else kinds
        self.nodes = [SimulatedNode(self.world, whole_seconds=kind) for kind in kinds]
        self.received: list[list[Command]] = [[] for _ in self.nodes]  # what each node was sent
        for node, commands in zip(self.nodes, self.received, strict=True):
            node.ask = _noted(node.ask, commands)
        self.timeout = timeout
        self.events = EventLog(*OBSERVED)  # of all processes
        self.processes: list[Process] = []
        for _, skew in itertools.zip_longest(range(processes), skews, fillvalue=0.0):
            self.add_process(skew)

    def add_process(self, skew: float = 0.0) -> int:
        """Start one more process, and return its number."""
        self.processes.append(self.make_process(skew))
        return len(self.processes) - 1

    def make_process(self, skew: float) -> Process:
        """Return a process with a client of all nodes."""
        return Process(
            self.world, self.nodes, skew=skew, timeout=self.timeout, observers=[self.events]
        )

    @property
    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self.world.now

    def advance(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, at most until something is so."""
        self.world.advance(seconds, until)

    def finish(self, *tasks: Task, within: float = 30.0) -> None:
        """Let time pass until tasks have ended."""
        self.advance(within, lambda: all(task.done for task in tasks))

    def start(self, work: Coroutine[Any, Any, Any], process: int | Process = 0) -> Task:
        """Start an operation of a process, which is named by its number or given itself."""
        process = self.processes[process] if isinstance(process, int) else process
        return process.run(work)

    def run(self, work: Coroutine[Any, Any, Any], process: int | Process = 0) -> Any:
        """Run an operation of a process to its end, and return its result or raise its error."""
        task = self.start(work, process)
        self.finish(task)
        self.advance(self.settling)  # what it started in the background runs
        if task.error is not None:
            raise task.error
        return task.result

    def seconds(self, work: Coroutine[Any, Any, Any], process: int | Process = 0) -> float:
        """Run an operation to its end, and return how long it took."""
        began = self.now
        task = self.start(work, process)
        self.finish(task)
        assert task.error is None
        return self.now - began

    # The first process and its nodes.

    @property
    def process(self) -> Process:
        """Return the first process."""
        return self.processes[0]

    @property
    def cluster(self) -> Cluster:
        """Return the cluster of the first process."""
        return self.process.cluster

    @property
    def members(self) -> list[Member]:
        """Return what the first process knows of each node."""
        return [self.member(place) for place in range(len(self.nodes))]

    def member(self, node: int = 0, process: int = 0) -> Member:
        """Return what a process knows of a node."""
        return self.processes[process].cluster.members[f"n{node}"]

    def start_ask(
        self, node: int = 0, command: Command = GET, within: float | None = None, process: int = 0
    ) -> Task:
        """Start to ask a node, by a deadline of its own if it has one."""
        deadline = None if within is None else self.now + within
        cluster = self.processes[process].cluster
        return self.start(cluster.ask(self.member(node, process), command, deadline), process)

    def ask(
        self, node: int = 0, command: Command = GET, within: float | None = None, process: int = 0
    ) -> Any:
        """Ask a node, and return its reply, or the error that stands for one."""
        task = self.start_ask(node, command, within, process)
        self.finish(task, within=10.0)
        if task.error is not None:
            raise task.error
        return task.result

    def answer(self, reply: Any, node: int = 0) -> None:
        """Have a node answer every command with one reply."""
        self.nodes[node].store.execute = lambda _: reply

    def silence(self, *nodes: int) -> None:
        """Stop nodes, and ask each until it is ejected."""
        for node in nodes:
            self.nodes[node].stopped = True
            for _ in range(3):
                self.ask(node)
            assert self.ejected(node)

    def kill(self, *nodes: int, process: int = 0) -> None:
        """Kill nodes, and have a process ask each, which ejects it."""
        for node in nodes:
            self.nodes[node].up = False
            self.ask(node, process=process)
            assert self.ejected(node, process)

    def ejected(self, node: int = 0, process: int = 0) -> bool:
        """Return whether a process has ejected a node."""
        return self.member(node, process).health.ejected

    def calls(self, node: int = 0) -> int:
        """Return how many commands a node was sent, probes apart."""
        return sum(type(command) is not Ping for command in self.received[node])

    def probes(self, node: int = 0) -> int:
        """Return how many probes a node was sent."""
        return len(self.received[node]) - self.calls(node)

    @property
    def node_changes(self) -> list[type[Event]]:
        """Return the types of the ejections and restorations that observers were told of."""
        return self.events.types(*NODE_CHANGES)

    def record_commands(
        self, *kinds: type[Command], nodes: Iterable[SimulatedNode] | None = None
    ) -> list[Command]:
        """Return a list that fills with the commands that nodes execute from now on."""
        commands: list[Command] = []
        for node in self.nodes if nodes is None else nodes:
            node.store.execute = _recorded(node.store.execute, commands, kinds)
        return commands

    def close(self) -> None:
        """Close all clients, and let what goes on end."""
        for process in self.processes:
            process.cluster.ejector.stop()
        self.world.finish(self.nodes, self.processes)


class TwoClients(Harness):
    """Two clients of one process: they share what they know of a node, and each has its own log."""

    def __init__(self, nodes: int = 1) -> None:
        self.lines: list[str] = []
        self.logs: list[EventLog] = []
        super().__init__(nodes, processes=1)
        self.prober = self.process.prober
        log = ProberLog(self.lines.append, *[lambda *line: self.lines.append(line)] * 3)
        self.prober._log = self.prober._replayer._log = log
        self.add_process()

    def make_process(self, skew: float) -> Process:
        """Return a client that shares the prober of the first."""
        shared = self.process.prober if self.processes else None
        self.logs.append(EventLog(*OBSERVED))
        return Process(self.world, self.nodes, skew=skew, observers=[self.logs[-1]], prober=shared)

    def close_client(self, client: int) -> None:
        """Close one client."""
        self.processes[client].cluster.ejector.stop()

    def changes_told(self, client: int) -> list[type[Event]]:
        """Return the types of the ejections and restorations that a client's observer was told of."""
        return self.logs[client].types(*NODE_CHANGES)


class LockHarness(Harness):
    """Nodes that hold one lock, and the processes that want it."""

    NAME = "report"
    KEY = own_key(LOCKS, NAME.encode())

    def __init__(
        self,
        kinds: Sequence[bool] = REDIS,
        processes: int = 3,
        *,
        timeout: float = TIMEOUT,
        seed: int = 0,
    ) -> None:
        super().__init__(kinds=kinds, processes=processes, timeout=timeout, seed=seed)

    def attempt(self, process: int | Process, policy: LockPolicy) -> Any:
        """Try the lock once, and return the lock or `None`."""
        process = self.processes[process] if isinstance(process, int) else process
        return self.run(attempt(process.cluster, self.NAME, policy), process)

    @property
    def ranked(self) -> list[SimulatedNode]:
        """Return the nodes in the lock's order of preference."""
        nodes = lock_nodes(self.cluster, self.NAME)
        return [self.cluster.members[node.name].backend for node in nodes]

    @property
    def writes(self) -> list[int]:
        """Return how many writes each node has seen."""
        return [node.store._writes for node in self.nodes]

    @property
    def held(self) -> list[Any]:
        """Return what each node has under the lock's key."""
        return [node.held(self.KEY) for node in self.nodes]


def closing(kind: Callable[..., Harness]) -> Iterator[Callable[..., Harness]]:
    """Yield a maker of harnesses, and close at the end what it made: the body of a fixture."""
    made: list[Harness] = []

    def make(*args: Any, **kwargs: Any) -> Harness:
        made.append(kind(*args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _noted(ask: Callable[..., None], commands: list[Command]) -> Callable[..., None]:
    """Return `ask`, which notes the commands."""

    def asked(process: Process, command: Command, deadline: float, reply: Any) -> None:
        commands.append(command)
        ask(process, command, deadline, reply)

    return asked


def _recorded(
    execute: Callable[[Command], Any], commands: list[Command], kinds: tuple[type[Command], ...]
) -> Callable[[Command], Any]:
    """Return `execute`, which records the commands of some kinds, or all."""

    def executed(command: Command) -> Any:
        if not kinds or isinstance(command, kinds):
            commands.append(command)
        return execute(command)

    return executed
