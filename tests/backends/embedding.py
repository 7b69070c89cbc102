"""An in-process memory node whose clock a test sets."""

from __future__ import annotations

from shardcache.backends.base import BackendOptions
from shardcache.backends.memory import Memory
from shardcache.core.commands import Payload, ServerStats
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import INTEGER_FLAGS, TEXT_FLAGS

DEADLINE = 0.0  # long past: an embedded node never waits


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class MemoryNode:
    """A memory node with a clock of its own."""

    def __init__(self, **options: int) -> None:
        self.clock = Clock()
        query = "&".join(f"{name}={value}" for name, value in options.items())
        node = Node(f"memory://n?{query}" if query else "memory://n")
        self.backend = Memory(self.clock).blocking(node, BackendOptions())

    def __call__(self, command):
        """Return the node's reply."""
        return self.backend.execute(command, DEADLINE)

    def stat(self, name: str) -> int:
        """Return one of the node's figures."""
        return int(self(ServerStats())[name])


def text(data: bytes) -> Payload:
    """Return the payload of a text."""
    return TEXT_FLAGS, data


def number(count: int) -> Payload:
    """Return the payload of a whole number."""
    return INTEGER_FLAGS, str(count).encode()
