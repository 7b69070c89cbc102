"""The servers that a run starts, and its faults on them; other servers are never touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

import gevent
from gevent import monkey
from scenarios import Fault

from shardcache import Node
from shardcache.testing.servers import Server, start_memcached, start_redis

MEMORY: Final = "256"  # MiB a node, so that no value is evicted in a run
EACH: Final = 3  # nodes of a kind

SLOW: Final = 0.020  # seconds that a slow node is stopped for, again and again
AWAKE: Final = 0.002  # seconds that it runs in between

STARTS: Final[Mapping[str, Callable[[], Server]]] = {
    "memcached": partial(start_memcached, "-m", MEMORY),
    "redis": start_redis,
}
KINDS: Final = {"memcached": ("memcached",), "redis": ("redis",), "both": ("memcached", "redis")}


class OwnServers:
    """The servers of this run: three of a kind, and one more when a scenario adds it."""

    def __init__(
        self, kind: str, servers: Sequence[Server], start: Callable[[str], Server]
    ) -> None:
        self.kind = kind
        self._servers = list(servers)
        self._start = start

    @property
    def urls(self) -> list[str]:
        """Return the URLs of all servers."""
        return [server.url for server in self._servers]

    def add(self) -> str:
        """Start one more server; return its URL."""
        self._servers.append(self._start(KINDS[self.kind][0]))
        return self.urls[-1]

    def spare(self) -> str:
        """Start a server that is none of the nodes; return its URL."""
        return self._start(KINDS[self.kind][0]).url

    @contextmanager
    def fault(self, fault: Fault, node: Node) -> Iterator[None]:
        """Cause a fault at a node's server; undo it at the end of the block."""
        server = next(server for server in self._servers if server.url == node.url)
        with {"kill": _kill, "stop": _stop, "slow": _slow}[fault](server):
            yield


@contextmanager
def own_servers(kind: str) -> Iterator[OwnServers]:
    """Run servers of a kind, `memcached`, `redis` or `both`; stop them at the end."""
    with ExitStack() as stack:

        def start(name: str) -> Server:
            server = STARTS[name]()
            stack.callback(server.stop)
            return server

        yield OwnServers(kind, [start(name) for name in KINDS[kind] for _ in range(EACH)], start)


@contextmanager
def _kill(server: Server) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.restart()


@contextmanager
def _stop(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def _slow(server: Server) -> Iterator[None]:
    """Pause the server repeatedly for a moment, so that all its answers come late."""
    # A thread of the system: in a greenlet, a busy hub would lengthen what it measures.
    over: list[bool] = []
    pulse = gevent.get_hub().threadpool.spawn(_pulse, server.pid, over)
    try:
        yield
    finally:
        over.append(True)
        pulse.get()


def _pulse(pid: int, over: list[bool]) -> None:
    sleep = monkey.get_original("time", "sleep")
    while not over:
        os.kill(pid, signal.SIGSTOP)
        sleep(SLOW)
        os.kill(pid, signal.SIGCONT)
        sleep(AWAKE)
