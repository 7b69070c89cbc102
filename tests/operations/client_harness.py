"""A harness for plain calls: reads and writes of keys on nodes that answer as a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from operations.harness import EventLog, Harness
from operations.simulation import Process, SimulatedNode
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.commands import Command, Payload, When
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.values.payloads import SignedPayloads
from shardcache.errors import NodeRefusedError
from shardcache.operations.keys import counters, many, single

REFUSED = NodeRefusedError("out of memory")
SECRETS = [b"s" * 32]


class ClientHarness(Harness):
    """One client that reads and writes keys of nodes, which answer as a test says."""

    def __init__(  # noqa: PLR0913 - each of one subject or another
        self,
        nodes: int = 1,
        *,
        kinds: Sequence[bool] | None = None,
        raises: bool = False,
        signed: bool = False,
        clearable: bool = False,
        log: EventLog | None = None,
    ) -> None:
        self.log = log
        self.clearable = clearable
        super().__init__(nodes, kinds=kinds)
        self.cluster.raises = raises
        if signed:
            self.cluster.payloads = SignedPayloads(Msgpack(), SECRETS, self.cluster.io.wall)

    def make_process(self, skew: float) -> Process:
        """Return a process whose client has the log as its observer, or none."""
        observers = [] if self.log is None else [self.log]
        return Process(
            self.world, self.nodes, skew=skew, observers=observers, clearable=self.clearable
        )

    def answer_to(self, kind: type[Command], reply: Any, *nodes: int) -> None:
        """Have nodes, by default all, answer commands of a kind with a reply.

        A function returns the reply to a command; it gets the node's own `execute` as well.
        """
        for place in nodes or range(len(self.nodes)):
            store = self.nodes[place].store
            store.execute = _answering(store.execute, kind, reply)

    def sent(self, node: int = 0) -> list[str]:
        """Return the kinds of the commands that a node was sent, in order, and forget them."""
        names = [type(command).__name__ for command in self.received[node]]
        self.received[node].clear()
        return names

    def owner(self, key: str = "k") -> SimulatedNode:
        """Return the node of a key."""
        node: SimulatedNode = self.cluster.route(key)[1].backend
        return node

    def keys_of(self, node: int, count: int = 2) -> list[str]:
        """Return some keys of one node."""
        owned = (
            key for key in map("k{}".format, range(1000)) if self.owner(key) is self.nodes[node]
        )
        return [next(owned) for _ in range(count)]

    def plant(self, payload: Payload, key: str = "k") -> None:
        """Put a payload under a key, as another program would."""
        name, member, _ = self.cluster.route(key)
        store = member.backend.store
        store._write(name, payload, store._expiry(None))

    def held(self, key: str = "k") -> Any:
        """Return what the node of a key keeps there, with its expiry, or `None`."""
        name, member, _ = self.cluster.route(key)
        return member.backend.held(name)

    # The calls of a client.

    def get(self, key: str = "k", default: Any = None) -> Any:
        """Return the value of a key."""
        return self.run(single.get(self.cluster, key, default))

    def gets(self, key: str = "k", default: Any = None) -> Any:
        """Return the value of a key with its token."""
        return self.run(single.gets(self.cluster, key, default))

    def store(
        self, value: Any, ttl: Any = None, when: When = When.ALWAYS, *, key: str = "k"
    ) -> Any:
        """Store a value under a key."""
        return self.run(single.store(self.cluster, key, value, ttl, when))

    def cas(self, value: Any, token: Any, ttl: Any = None) -> Any:
        """Store a value if the key has not changed since its token was read."""
        return self.run(single.cas(self.cluster, "k", value, token, ttl))

    def delete(self, key: str = "k") -> Any:
        """Remove a key."""
        return self.run(single.delete(self.cluster, key))

    def touch(self, ttl: Any = None) -> Any:
        """Set the expiry of the key."""
        return self.run(single.touch(self.cluster, "k", ttl))

    def incr(
        self, delta: Any = 1, initial: Any = None, ttl: Any = DEFAULT, floor: int | None = 0
    ) -> Any:
        """Add to the counter."""
        return self.run(counters.incr(self.cluster, "k", delta, initial, ttl, floor))

    def decr(
        self, delta: Any = 1, initial: Any = None, ttl: Any = DEFAULT, floor: int | None = 0
    ) -> Any:
        """Subtract from the counter."""
        return self.run(counters.decr(self.cluster, "k", delta, initial, ttl, floor))

    def get_many(self, *keys: str) -> Any:
        """Return the values of keys."""
        return self.run(many.get_many(self.cluster, keys))

    def set_many(self, items: Mapping[str, Any], ttl: Any = None) -> Any:
        """Store values under keys."""
        return self.run(many.set_many(self.cluster, items, ttl))

    def delete_many(self, *keys: str) -> Any:
        """Remove keys."""
        return self.run(many.delete_many(self.cluster, keys))


def _answering(
    execute: Callable[[Command], Any], kind: type[Command], reply: Any
) -> Callable[[Command], Any]:
    """Return `execute`, but with the reply to commands of a kind."""

    def executed(command: Command) -> Any:
        if not isinstance(command, kind):
            return execute(command)
        return reply(command, execute) if callable(reply) else reply

    return executed
