"""The asyncio port as it is, on an event loop in virtual time, over model nodes."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from operations.cached_harness import DELTA
from operations.harness import REDIS
from operations.later import Later
from operations.simulation import SimulatedNode, World
from shardcache.core.cache_policy import CachePolicy
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
from shardcache.operations.invalidation import tags
from shardcache.operations.locks.redlock import Redlock
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.protection import Protection
from shardcache.operations.recompute.request import Request
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


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop that passes the time without waiting."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


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
        """Have the loop do something after some seconds."""
        self._loop.call_later(max(0.0, delay), act)


class VirtualBackend:
    """A model node as the asyncio port asks one."""

    def __init__(self, loop: VirtualLoop, node: SimulatedNode, caller: Caller) -> None:
        self._loop = loop
        self._node = node
        self._caller = caller
        self.supports = node.supports
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
) -> Cluster:
    """Return the cluster of one client, which shares nothing with others but the nodes."""
    io = VirtualIO(world, delay)
    observers = Observers(())
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
        lock_provider=Redlock(),
    )
    for member in members.values():
        ejector.add(member, member.node.name)
    return cluster


class LoopHarness:
    """Five nodes, clients of one loop that share nothing else, one key, and one slow source.

    It has the verbs of `operations.harness`, for calls that share flights over the asyncio port.
    """

    KEY = "report"
    TAG = "t"

    def __init__(  # noqa: PLR0913 - what differs from test to test
        self,
        clients=2,
        kinds=REDIS,
        *,
        seed=0,
        tags=("t",),
        result_tags=(),
        delays=(None,),
        **terms,
    ):
        self.loop = VirtualLoop()
        self.world = LoopWorld(self.loop, seed)
        self.nodes = [SimulatedNode(self.world, whole_seconds=kind) for kind in kinds]
        self.clusters = [
            virtual_cluster(self.loop, self.world, self.nodes, delays[place % len(delays)])
            for place in range(clients)
        ]
        self.policy = CachePolicy(**{"ttl": 60.0, "jitter": 0.0, **terms})
        self.tags = tags
        self.result_tags = result_tags
        self.payloads: Payloads | None = None  # of the function, in place of the clients'
        self.version = 0
        self.error = None  # what the source raises in place of a version
        self.factory = None  # a function that is called in place of the source
        self.calls = 0
        self.busy = [0] * clients
        self.protections = [Protection() for _ in range(clients)]
        self.most_busy = 0
        self.delta = DELTA

    def request(self, place):
        """Return one call of a client."""

        async def load():
            self.calls += 1
            self.busy[place] += 1
            self.most_busy = max(self.most_busy, self.busy[place])
            version = self.version
            try:
                await asyncio.sleep(self.delta)
            finally:
                self.busy[place] -= 1
            if self.error is not None:
                raise self.error
            return version

        cluster = self.clusters[place]
        protection = self.protections[place]
        request = Request(
            cluster,
            self.KEY,
            self.factory or load,
            self.policy,
            protection,
            protection.direct,
            self.tags,
            payloads=self.payloads,
        )
        if self.result_tags:
            request.result_tags = lambda _: self.result_tags
        return request

    @property
    def now(self):
        """Return the virtual time in seconds."""
        return self.world.now

    def advance(self, seconds):
        """Let time pass."""
        self.loop.advance(seconds)

    def start_call(self, place=0):
        """Begin a call of a client."""
        return self.loop.create_task(cached_value.get(self.request(place)))

    def void(self, place, way):
        """Change the source, and invalidate what was made of it before."""
        self.version += 1
        if way == "invalidate":
            self.loop.run(cached_value.invalidate(self.request(place)))
        else:
            self.loop.run(tags.invalidate(self.clusters[place], self.TAG))

    def count(self, counter):
        """Return a counter, summed over all clients."""
        return sum(each.counters.counts[counter] for each in self.protections)

    def results(self, tasks):
        """Return what came of calls."""

        async def all_of_them():
            return await asyncio.gather(*tasks, return_exceptions=True)

        return self.loop.run(all_of_them())

    @property
    def shard(self):
        """Return the node that has the key."""
        return self.nodes[int(self.clusters[0].route(self.KEY)[1].node.name[1:])]

    def close(self):
        """Let all come to its end; check that nothing is left of any flight."""
        try:
            for node in self.nodes:
                node.up = True
            self.loop.advance(200.0)
            for cluster in self.clusters:
                assert len(cluster.io.single_flight) == 0
            assert self.busy == [0] * len(self.clusters)
            assert not asyncio.all_tasks(self.loop)
        finally:
            self.loop.close()
