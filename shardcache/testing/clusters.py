"""Several real servers as the nodes of one cluster, to be stopped, killed and started again by a test.

::

    with running(start_memcached, start_memcached, start_redis) as servers:
        client = Client(servers.urls)
        servers.stop(client.node_for("k"))      # the node of this key hangs
        servers.resume(client.node_for("k"))
        servers.kill(0)                         # the first one refuses connections
        servers.restart(0)                      # it is back, empty
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias, overload

from shardcache.core.placement.nodes import Node
from shardcache.testing.servers import Server

# A server by its place, by its URL, or as the node that `client.node_for` returns.
Which: TypeAlias = "int | str | Node"


class ServerCluster(Sequence[Server]):
    """The servers of a cluster, each found by its place, its URL, or the `Node` of a client."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)

    @property
    def urls(self) -> list[str]:
        """Return the URL of each server: the nodes of a client."""
        return [server.url for server in self._servers]

    def stop(self, which: Which) -> None:
        """Stop a server where it is (SIGSTOP): it accepts connections, and answers nothing."""
        self.find(which).pause()

    def resume(self, which: Which) -> None:
        """Resume a stopped server (SIGCONT), with all that it had."""
        self.find(which).resume()

    def kill(self, which: Which) -> None:
        """End a server at once (SIGKILL): it refuses connections."""
        self.find(which).kill()

    def restart(self, which: Which) -> None:
        """Start a server again, empty, at the same address; return when it answers."""
        self.find(which).restart()

    def empty(self) -> None:
        """Remove all that the servers hold."""
        for server in self._servers:
            server.empty()

    def find(self, which: Which) -> Server:
        """Return a server; raise `LookupError`, which lists all, if there is no such one."""
        if isinstance(which, int):
            return self._servers[which]
        url = which.url if isinstance(which, Node) else which
        for server in self._servers:
            if server.url == url:
                return server
        raise LookupError(f"no server {which!s} (known: {', '.join(self.urls)})")

    @overload
    def __getitem__(self, place: int) -> Server: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Server]: ...

    def __getitem__(self, place: int | slice) -> Server | Sequence[Server]:
        return self._servers[place]

    def __len__(self) -> int:
        return len(self._servers)

    def __repr__(self) -> str:
        return f"<ServerCluster {', '.join(self.urls)}>"


@contextmanager
def running(*starts: Callable[[], Server]) -> Iterator[ServerCluster]:
    """Start a server with each of `starts`, such as `start_redis`; stop all of them at the end."""
    with stopping() as stop_at_end:
        yield ServerCluster([stop_at_end(start()) for start in starts])


@contextmanager
def stopping() -> Iterator[Callable[[Server], Server]]:
    """Yield a function that takes a server, to be stopped at the end, and returns it."""
    with ExitStack() as stack:

        def stop_at_end(server: Server) -> Server:
            stack.callback(server.stop)
            return server

        yield stop_at_end
