"""A harness for many cached values at once: clients over five nodes, and one slow factory of items."""

from __future__ import annotations

import asyncio

from operations.harness import REDIS
from operations.virtual import LoopHarness
from shardcache.core.commands import CommandList
from shardcache.core.values.flags import is_mark
from shardcache.operations.recompute import cached_value, many
from shardcache.operations.recompute.many import ItemRequest

KEYS = [f"k{number}" for number in range(12)]  # on all nodes


class ManyHarness(LoopHarness):
    """Clients of one loop that share nothing else. The factory returns its version for each key."""

    def __init__(self, clients=2, kinds=REDIS, *, tags=(), **terms):
        super().__init__(clients, kinds, tags=tags, **terms)
        self.batches = []  # the keys of each call of the factory
        self.left_out = set()
        self.received = []  # commands, as the nodes execute them
        for node in self.nodes:
            node._execute = self._noted(node._execute)

    def _noted(self, execute):
        def noted(process, command):
            if not isinstance(command, CommandList):
                self.received.append(command)
            return execute(process, command)

        return noted

    async def load_many(self, keys):
        """Return the version of the moment of the call for each key, a while later."""
        self.batches.append(keys)
        version = self.version
        await asyncio.sleep(self.delta)
        if self.error is not None:
            raise self.error
        return {key: f"{key}:{version}" for key in keys if key not in self.left_out}

    def many(self, place=0, keys=KEYS, factory=None):
        """Return a call of a client for many values."""
        return many.get(
            self.clusters[place], keys, self.make_request(place), factory or self.load_many
        )

    def make_request(self, place):
        """Return what makes the requests of a client."""
        protection = self.protections[place]
        return lambda cluster, key: ItemRequest(
            cluster, key, dict, self.policy, protection, protection.direct, self.tags
        )

    def start_many(self, place=0, keys=KEYS, factory=None):
        """Begin a call of a client for many values."""
        return self.loop.create_task(self.many(place, keys, factory))

    def values(self, keys=KEYS, version=0):
        """Return what a call gets."""
        return {key: f"{key}:{version}" for key in keys}

    def each(self, operation, place=0, keys=KEYS):
        """Run an operation for each key in lockstep."""
        work = many.each(
            self.clusters[place], keys, self.make_request(place), self.load_many, operation
        )
        return self.loop.run(work)

    def invalidate(self, keys, place=0):
        """Change the source, and invalidate keys."""
        self.version += 1
        self.each(cached_value.invalidate, place, keys)

    def node_of(self, key):
        """Return the node that has a key."""
        return self.nodes[int(self.clusters[0].route(key)[1].node.name[1:])]

    def held(self, key):
        """Return what the node of a key has under it: `None`, `"stub"` or `"value"`."""
        held = self.node_of(key).held(self.clusters[0].route(key)[0])
        if held is None:
            return None
        return "stub" if is_mark(held[0]) else "value"

    @property
    def in_flight(self):
        """Return how many flights there are."""
        return sum(len(cluster.io.single_flight) for cluster in self.clusters)
