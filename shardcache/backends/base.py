"""What a backend author implements: how a client talks to one node.

1. A `BackendFactory` for a URL scheme. A plugin registers it by the hook
   `shardcache_register_backends`.
2. A `Backend` for `Client` and an `AsyncBackend` for `AsyncClient`. Each has one verb: `execute`
   takes a command (`core.commands`) and answers with the reply that the command's docstring names.
3. `supports`: the commands that the backend can do. `core.capabilities` has the sets to choose from,
   and what a client loses without each. `PLAIN` is enough to begin with.

`handlers.Handlers` finds the function for a command, and answers all others by `UnsupportedError`.
A server with its own protocol needs only a `wire.Wire`: `SocketBackend` and
`MultiplexedBackend` of `transport` make both backends from it. The contract that every backend
passes is `shardcache.testing.backend`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from shardcache.core.commands import Command, Reply
from shardcache.core.placement.nodes import Node
from shardcache.errors import NodeTimeoutError

if TYPE_CHECKING:  # a program with blocking clients alone never loads asyncio
    import asyncio
    import ssl


LAST_WAIT: Final = 0.4  # seconds for which a closing client waits for a silent node


class BackendOptions(NamedTuple):
    """The options that a client passes to every backend, besides those in the node's URL.

    `pool_size` bounds blocking connections. `connect_timeout` bounds one dial, in seconds, within
    the call's deadline. `call_timeout` is the usual length of a call, in seconds, so that a backend
    can prepare its sockets. `ssl_context` replaces the context that a backend would create for TLS.
    With `bare_bytes` a backend whose server keeps no flags stores bytes and text without a header,
    so that other programs can read them; with `bare_json` values without a header are JSON.
    """

    pool_size: int = 32
    call_timeout: float = 0.5
    connect_timeout: float = 0.5
    ssl_context: ssl.SSLContext | None = None
    bare_bytes: bool = False
    bare_json: bool = False


class BackendFactory(Protocol):
    """A factory of backends for a URL scheme, which a plugin registers.

    Both methods raise `ConfigurationError` for bad options in the node's URL. Neither connects yet.
    """

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Return the blocking backend of a node."""

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Return the asyncio backend of a node; no event loop may be running yet."""


class Backend(Protocol):
    """One node for blocking callers, who use it from many threads.

    Deadlines are `time.monotonic()` seconds. A failure of the node is raised as a `NodeError` with
    the library's own error as its cause. A refusal that concerns one command, after which the
    connection still works, may also be returned as the reply.

    A backend may have three more attributes. `whole_seconds` is true if the server rounds expiries
    to whole seconds, so that a value with a ttl of 2 may live for little more than 1.
    `refused_connections` counts the connections that the server refused while others of this client
    were open. `pool_use` tells how many are open, as a `PoolUse`.
    """

    @property
    def supports(self) -> frozenset[type]:
        """Return the commands that it can do: a union of sets of `core.capabilities`."""

    def execute(self, command: Command, deadline: float) -> Reply:
        """Send `command` and return its reply; raise a `NodeError` if there is none by `deadline`.

        Raise `UnsupportedError` for a command that is not in `supports`.
        """

    def begin(self, command: Command, deadline: float) -> Exchange:
        """Start `command` without waiting, so that many nodes are asked at once.

        It must not wait for a free connection either: threads that hold connections of some nodes
        and wait here for those of others would deadlock. A backend that never waits returns a
        `FinishedExchange`.
        """

    def eject(self) -> None:
        """Drop idle connections and wake every thread that waits for one: the node was ejected.

        The next call is a probe, over a new connection.
        """

    def close(self) -> None:
        """Drop idle connections, and each busy one when its call ends.

        A later call, which began on an older topology, is still served; its connection is closed
        after it. A second `close` does nothing.
        """


class AsyncBackend(Protocol):
    """One node for asyncio, used by the tasks of any event loop.

    Deadlines, errors and optional attributes are those of `Backend`.
    """

    @property
    def supports(self) -> frozenset[type]:
        """Return the commands that it can do: a union of sets of `core.capabilities`."""

    def execute(self, command: Command, deadline: float) -> asyncio.Future[Reply]:
        """Send `command` in this turn of the loop; return a future of its reply.

        Not a coroutine function: when it returns, the command is on its way, so a fan-out starts all
        commands and then awaits each reply. Cancelling the future discards only that reply.
        """

    def eject(self) -> None:
        """Close the connections of all loops and fail their calls: the node was ejected.

        The next call is made over a new connection. Any thread may call this, with a loop or
        without: another client of the process may have met the failure.
        """

    async def aclose(self) -> None:
        """Close this loop's connections once their calls are answered or late.

        It waits for a silent node for at most `LAST_WAIT` seconds.
        """


class Wait(NamedTuple):
    """What is waited for: a descriptor, and the events of `select.poll` that end the wait.

    It ends in monotonic seconds `until`, for instance of a dial, or at the call's deadline.
    """

    descriptor: int
    mask: int
    until: float | None = None


class Exchange(Protocol):
    """One command in flight to one node, driven without blocking.

    The driver polls as `wait` says, calls `advance` when the events occur and `expire` when the wait
    is over, until `finished`, and then calls `result`. It may have an attribute `eager`: then `advance`
    may also be called before the events occur, and finds nothing.
    """

    @property
    def finished(self) -> bool:
        """Return whether `result()` is ready."""

    @property
    def wait(self) -> Wait:
        """Return what it waits for now; another connection that takes over has another descriptor."""

    def advance(self) -> None:
        """Send and receive what can be done without waiting."""

    def expire(self) -> None:
        """Stop waiting for the current step, which usually finishes the exchange.

        A command over many keys keeps what has arrived, with a `NodeTimeoutError` in each gap.
        """

    def result(self) -> Reply:
        """Return the reply once `finished`; raise the error that ended the exchange."""

    def abandon(self) -> None:
        """Stop now, and close the connection."""


class FinishedExchange:
    """An exchange that finished when it began, for backends that never wait."""

    __slots__ = ("_reply",)

    finished = True
    wait = Wait(-1, 0)  # for nothing

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def advance(self) -> None:
        """Do nothing: it is finished."""

    def expire(self) -> None:
        """Do nothing: it is finished."""

    def result(self) -> Reply:
        """Return the reply."""
        return self._reply

    def abandon(self) -> None:
        """Do nothing: it is finished."""


def excuse(reply: Reply) -> None:
    """Mark the timeouts in a reply as no fault of the node."""
    for each in reply if isinstance(reply, list) else (reply,):
        if isinstance(each, NodeTimeoutError):
            each.excused = True


def cut_off_error(node: str) -> NodeTimeoutError:
    """Return the error of a call that was not answered before its client was closed."""
    error = NodeTimeoutError("did not answer before the connection was closed", node)
    excuse(error)
    return error
