"""The asyncio port as it is, on an event loop in virtual time, over model nodes."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from operations.simulation import Later, SimulatedNode, World
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.events import Observers
from shardcache.core.keys import KeySpace
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.core.values.payloads import Payloads
from shardcache.io.asyncio import AsyncIO
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.ejection import Ejector
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import Prober
from shardcache.strategies.rendezvous import Rendezvous

TIMEOUT = 0.1


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that passes the time it would wait without waiting."""

    def __init__(self) -> None:
        self.passed = 1000.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.passed

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end."""
        return self.run_until_complete(work)

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what falls due."""
        self.run(asyncio.sleep(seconds))


class _Impatient(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """Return at once, with the clock set on."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        self._loop.passed += max(0.0, timeout)
        return super().select(0)


class LoopWorld(World):
    """A world whose time is that of a loop."""

    def __init__(self, loop: VirtualLoop, seed: int = 0) -> None:
        super().__init__(seed)
        self._loop = loop

    @property
    def now(self) -> float:
        """Return the time of the loop."""
        return self._loop.passed

    @now.setter
    def now(self, _: float) -> None:
        """Leave it as it is: the loop decides."""

    def at(self, delay: float, act: Callable[[], None]) -> None:
        """Have the loop do something in so many seconds."""
        self._loop.call_later(max(0.0, delay), act)


class VirtualBackend:
    """A model node as the asyncio port asks one."""

    def __init__(self, loop: VirtualLoop, node: SimulatedNode, caller: Caller) -> None:
        self._loop = loop
        self._node = node
        self._caller = caller
        self.lacks = node.lacks
        self.whole_seconds = node.whole_seconds

    def eject(self) -> None:
        """Have its node drop no connections."""
        self._node.eject()

    def execute(self, command: Any, deadline: float) -> asyncio.Future[Any]:
        """Ask the node; the future raises what stands in the way of a reply."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        reply = Later()

        def answered() -> None:
            if answer.done():
                return
            if isinstance(reply.result, Exception):
                answer.set_exception(reply.result)
            else:
                answer.set_result(reply.result)

        reply.watchers.append(answered)
        self._node.ask(self._caller, command, deadline, reply)
        return answer


@dataclass
class Caller:
    """Whose commands they are, and how many seconds from its nodes, each way."""

    delay: float | None = None


class VirtualIO(AsyncIO):
    """The asyncio port with the clocks and the chance of a world."""

    __slots__ = ("_world", "delay")

    def __init__(self, world: LoopWorld, delay: float | None) -> None:
        super().__init__()
        self._world = world
        self.delay = delay

    def now(self) -> float:
        """Return the time of the loop."""
        return self._world.now

    wall = now

    def random(self) -> float:
        """Return a number by the world's chance."""
        return self._world.chance.random()

    def token(self) -> bytes:
        """Return 16 bytes by the world's chance."""
        return self._world.chance.randbytes(16)


def virtual_cluster(
    loop: VirtualLoop,
    world: LoopWorld,
    nodes: Sequence[SimulatedNode],
    delay: float | None = None,
    observers: Sequence[object] = (),
) -> Cluster:
    """Return the cluster of one client, which shares nothing with others but the nodes."""
    io = VirtualIO(world, delay)
    observers = Observers(observers)
    topology = Topology([Node("memory://x", name=f"n{i}") for i in range(len(nodes))], Rendezvous())
    ejector = Ejector(Prober(io, TIMEOUT), observers)
    caller = Caller(delay)
    members = {
        f"n{i}": Member(topology.nodes[i], VirtualBackend(loop, node, caller))
        for i, node in enumerate(nodes)
    }
    cluster = Cluster(
        io=io,
        topology=topology,
        members=members,
        keys=KeySpace(),
        payloads=Payloads(Msgpack()),
        timeout=TIMEOUT,
        default_ttl=None,
        on_error="miss",
        observers=observers,
        ejector=ejector,
    )
    for member in members.values():
        ejector.add(member, member.node.name)
    return cluster
