"""A harness for keys that move: processes that change from some of the nodes to others, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from operations.harness import EventLog, Harness
from operations.simulation import Process, SimulatedNode
from shardcache.core.commands import Command, Payload, When
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.moves import Move
from shardcache.operations.cluster.warming import with_move
from shardcache.operations.keys import many, single
from shardcache.strategies.rendezvous import Rendezvous

WARM_FOR = 600.0


class UnevenNode(SimulatedNode):
    """A node to which each command takes another time, and each reply as well."""

    @property
    def delay(self) -> float:
        """Return seconds by the world's chance: most are short, a few long."""
        chance = self.world.chance
        return chance.uniform(0.0005, 0.03 if chance.random() < 0.2 else 0.003)

    @delay.setter
    def delay(self, _: float) -> None:
        """Leave it as it is: the world decides."""


class MovingHarness(Harness):
    """Processes on the nodes `old`, which learn of the nodes `new` one after the other.

    By default there is one node of each, so that every key moves from `n0` to `n1`. `schemes` are those
    of the nodes' URLs.
    """

    def __init__(  # noqa: PLR0913 - each of one subject or another
        self,
        old: Sequence[int] = (0,),
        new: Sequence[int] = (1,),
        processes: int = 1,
        *,
        kinds: Sequence[bool] = (False, False),
        schemes: Sequence[str] = ("memory", "memory"),
        seed: int = 0,
        uneven: bool = False,
        clearable: bool = False,
        log: EventLog | None = None,
    ) -> None:
        self.clearable = clearable
        self.log = log
        self.topologies = [
            Topology([_node(place, schemes) for place in places], Rendezvous())
            for places in (old, new)
        ]
        self.ended: list[Move] = []
        super().__init__(kinds=kinds, processes=processes, seed=seed)
        if uneven:
            for node in self.nodes:
                node.__class__ = UnevenNode

    def make_process(self, skew: float) -> Process:
        """Return a process that knows only the old nodes."""
        observers = [] if self.log is None else [self.log]
        process = Process(
            self.world, self.nodes, skew=skew, observers=observers, clearable=self.clearable
        )
        self._use(process, 0)
        return process

    def announce(self, process: int = 0) -> None:
        """Let a process know the next nodes."""
        cluster = self._use(self.processes[process], 0)
        move = Move(self.topologies[1], self._members(process, 1), cluster.io.now())
        self.processes[process].cluster = with_move(cluster, move)

    def switch(self, process: int = 0, warm_for: float = WARM_FOR) -> Move:
        """Let a process use the new nodes."""
        cluster = self._use(self.processes[process], 1)
        old = self._members(process, 0)
        move = Move(self.topologies[0], old, cluster.io.now(), warm_for, self.ended.append)
        self.processes[process].cluster = with_move(cluster, move)
        return move

    def sent(self, node: int) -> list[str]:
        """Return the kinds of the commands that a node was sent, in order, and forget them."""
        names = [type(command).__name__ for command in self.received[node]]
        self.received[node].clear()
        return names

    def held(self, node: int, key: str = "k") -> Any:
        """Return what a node keeps under a key, with its expiry, or `None`."""
        return self.nodes[node].held(self.cluster.keys.canonical(key.encode()))

    def plant(
        self, node: int, payload: Payload, key: bytes = b"k", ttl: float | None = None
    ) -> None:
        """Put a payload on a node, as another program would."""
        store = self.nodes[node].store
        store._write(key, payload, store._expiry(ttl))

    def before(self, node: int, kind: type[Command], act: Callable[[], object]) -> None:
        """Do something just before a node executes its next command of a kind."""
        store, left = self.nodes[node].store, [act]
        execute = store.execute

        def executed(command: Command) -> Any:
            if isinstance(command, kind) and left:
                left.pop()()
            return execute(command)

        store.execute = executed

    # The calls of a client.

    def get(self, key: str = "k", process: int = 0) -> Any:
        """Return the value of a key."""
        return self.run(single.get(self.processes[process].cluster, key, None), process)

    def set(self, value: Any, key: str = "k", ttl: Any = None, process: int = 0) -> Any:
        """Store a value under a key."""
        cluster = self.processes[process].cluster
        return self.run(single.store(cluster, key, value, ttl, When.ALWAYS), process)

    def delete(self, key: str = "k", process: int = 0) -> Any:
        """Remove a key."""
        return self.run(single.delete(self.processes[process].cluster, key), process)

    def get_many(self, *keys: str) -> Any:
        """Return the values of keys."""
        return self.run(many.get_many(self.cluster, keys))

    def _use(self, process: Process, place: int) -> Cluster:
        """Have a process use a topology, without a move."""
        topology = self.topologies[place]
        known = process.__dict__.setdefault("known", dict(process.cluster.members))
        members = {node.name: known[node.name] for node in topology.nodes}
        for member in members.values():
            member.node = topology.node(member.node.name)
        process.cluster = process.cluster.with_nodes(topology, members)
        return process.cluster

    def _members(self, process: int, place: int) -> dict[str, Any]:
        known = self.processes[process].__dict__["known"]
        for node in self.topologies[place].nodes:
            known[node.name].node = node
        return {node.name: known[node.name] for node in self.topologies[place].nodes}


def _node(place: int, schemes: Sequence[str]) -> Node:
    scheme = schemes[place] if place < len(schemes) else schemes[-1]
    return Node(f"{scheme}://x", name=f"n{place}")
