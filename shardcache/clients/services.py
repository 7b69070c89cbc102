"""Background services of a client: they start at its first call to a node, and stop when it is closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from shardcache.core.commands import Command, Reply
from shardcache.log import log
from shardcache.operations.port import IO, Enough


class Service(Protocol):
    """Work in the background of a client, such as the discovery of its nodes.

    A service must not hold a strong reference to the client: a client that is dropped stops its services
    as `close` does. It brings its own thread: event loops of an asyncio client come and go.
    """

    def start(self) -> None:
        """Begin, without blocking: the client's first call to a node runs this.

        In a forked child, whose parent's threads are gone, the child's first call runs it again.
        """

    def stop(self) -> None:
        """End. Called once for each `start`, when the client is closed or dropped."""


class Services:
    """The services of one client, and whether they run.

    Without a lock, which an interrupt could leave locked: lists change in atomic steps, and the thread
    that takes a service off a list starts or stops it.
    """

    __slots__ = ("_running", "_stopped", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Service] = []
        self._running: list[Service] = []
        self._stopped = False

    def add(self, service: Service) -> None:
        """Add a service that waits for the next call to a node."""
        self._waiting.append(service)

    def start(self) -> None:
        """Start every service that waits; one that fails is logged, and left out."""
        while self._waiting:
            try:
                service = self._waiting.pop(0)
            except IndexError:  # another thread was faster
                return
            self._running.append(service)
            try:
                service.start()
            except Exception:
                log.exception(
                    "background service %r failed to start; calls go on without it", service
                )
                self._running.remove(service)
        if self._stopped:  # the client was closed meanwhile
            self.stop()

    def stop(self) -> None:
        """Stop every service that runs, the last one first; none starts after that."""
        self._stopped = True
        self._waiting.clear()
        while self._running:
            try:
                service = self._running.pop()
            except IndexError:  # as above
                return
            try:
                service.stop()
            except Exception:
                log.exception("background service %r failed to stop", service)

    def forget_inherited(self) -> None:
        """In a forked child, let every service wait again: the threads of the parent are not here."""
        if not self._stopped:
            self._waiting[:0] = self._running
        self._running.clear()


class StartingIO:
    """A port that runs `start` before its first command, and else is the port it stands for.

    Clusters have it only until then, so that a client without services, or with running ones, pays
    nothing.
    """

    __slots__ = ("_io", "_start")

    straight = False

    def __init__(self, io: IO[Any], start: Callable[[], None]) -> None:  # as `Cluster` takes it
        self._io = io
        self._start = start

    def __getattr__(self, name: str) -> Any:  # whatever the port has
        return getattr(self._io, name)

    def call(self, backend: Any, command: Command, deadline: float) -> Awaitable[Reply]:  # as above
        """Start the services, then ask one node."""
        self._start()
        return self._io.call(backend, command, deadline)

    def call_many(
        self, asks: Sequence[tuple[Any, Command]], deadline: float, enough: Enough | None = None
    ) -> Awaitable[list[tuple[Reply, float]]]:
        """Start the services, then ask all nodes at once."""
        self._start()
        return self._io.call_many(asks, deadline, enough)
