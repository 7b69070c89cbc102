"""The servers of a case: some are killed or stopped, all are asked what they were sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from shardcache import Node
from shardcache.testing.servers import Server, start_memcached, start_redis
from stampede import counting
from stampede.counting import Seen

NODES = 5
CONNECTIONS = "4096"
LOG = "worker_logbuf_size=4096,watcher_logbuf_size=4096"  # kB, so that no line is dropped

STARTS: dict[str, Callable[[], Server]] = {
    "memcached": lambda: start_memcached("-c", CONNECTIONS, "-o", LOG),
    "redis": start_redis,
}
KINDS = tuple(STARTS)


class Servers:
    """Five servers of one kind."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = servers
        self._down: set[Server] = set()

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the URLs of all, those that are down too."""
        return tuple(server.url for server in self._servers)

    def kill(self, nodes: Iterable[Node]) -> None:
        """Let nodes refuse connections."""
        for server in self._of(nodes):
            server.kill()
            self._down.add(server)

    def pause(self, nodes: Iterable[Node]) -> None:
        """Let nodes accept connections and answer nothing."""
        for server in self._of(nodes):
            server.pause()
            self._down.add(server)

    def count_commands(self) -> Counter[str]:
        """Return how often each command was run on those that are up."""
        return sum((counting.count_commands(server) for server in self._up), Counter())

    def stored(self) -> list[bytes]:
        """Return all keys on those that are up."""
        return [key for server in self._up for key in counting.keys(server)]

    def watch_commands(self) -> AbstractContextManager[list[Seen]]:
        """Log what is run on those that are up."""
        return counting.watch_commands(self._up)

    @property
    def _up(self) -> list[Server]:
        return [server for server in self._servers if server not in self._down]

    def _of(self, nodes: Iterable[Node]) -> list[Server]:
        by_url = {server.url: server for server in self._servers}
        return [by_url[node.url] for node in nodes]


@contextmanager
def running(kind: str, count: int = NODES) -> Iterator[Servers]:
    """Run servers of a kind, stopped at the end, however it comes."""
    with ExitStack() as stack:
        servers = []
        for _ in range(count):
            servers.append(STARTS[kind]())
            stack.callback(servers[-1].stop)
        yield Servers(servers)
