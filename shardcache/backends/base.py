"""What a backend promises: one node, one verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from shardcache.core.commands import Command, Reply
from shardcache.core.placement.nodes import Node
from shardcache.errors import NodeTimeoutError

if TYPE_CHECKING:  # a blocking program never loads it
    import asyncio
    import ssl


LAST_WAIT: Final = 0.4  # seconds for which a client that is closed waits for a node that is silent


class BackendOptions(NamedTuple):
    """What every backend is told beside its node.

    `pool_size` bounds blocking connections; `connect_timeout` bounds one dial, in seconds, inside
    the call's deadline; `call_timeout` is the usual length of a call, in seconds, so that a
    backend can prepare its sockets for it. `ssl_context`, if there is one, takes the place of what a
    backend would make for TLS. With `bare_bytes` a backend whose server keeps no flags stores bytes
    and text without a header, as other programs read them; with `bare_json` what it stores without
    one is JSON.
    """

    pool_size: int = 32
    call_timeout: float = 0.5
    connect_timeout: float = 0.5
    ssl_context: ssl.SSLContext | None = None
    bare_bytes: bool = False
    bare_json: bool = False


class Exchange(Protocol):
    """One command on its way to one node, driven without blocking.

    Whoever drives it polls `fileno()` for `events()`, calls `advance` when they come or `expire`
    when `deadline` (monotonic seconds) does, until `finished`; then asks for the `result`.
    """

    @property
    def finished(self) -> bool:
        """Say that `result()` is ready."""

    @property
    def deadline(self) -> float:
        """Give when waiting ends: the call's deadline, or the earlier one of a dial."""

    def fileno(self) -> int:
        """Give the descriptor to poll, which changes when a connection gives way to another."""

    def events(self) -> int:
        """Give the `select.poll` events that let `advance` get further."""

    def advance(self) -> None:
        """Send and receive what can be done without waiting."""

    def expire(self) -> None:
        """End the waiting for what is awaited now; mostly that finishes the exchange.

        For a command over many keys what did arrive is kept, and each gap is a `NodeTimeoutError`.
        """

    def result(self) -> Reply:
        """Give the reply, once `finished`; raise the error that ended it."""

    def abandon(self) -> None:
        """Stop now, and close the connection."""


def excuse(reply: Reply) -> None:
    """Mark the timeouts of a reply, or in it, as none of the node's faults."""
    for each in reply if isinstance(reply, list) else (reply,):
        if isinstance(each, NodeTimeoutError):
            each.excused = True


def cut_off(node: str) -> NodeTimeoutError:
    """Return the error of a call that was not answered before its client was closed."""
    error = NodeTimeoutError("did not answer before the connection was closed", node)
    excuse(error)
    return error


class Backend(Protocol):
    """One node, asked by threads that block. Deadlines are `time.monotonic()` seconds.

    A backend may have an attribute `lacks`, a frozenset of the commands (of `CompareAndDelete` and
    `CompareAndExpire`) that its server cannot do in one step: they are then done in two, by CAS. It may
    have an attribute `whole_seconds`, true when its server counts expiries so: what is to live for
    two seconds may then be gone after little more than one. It may have an attribute `limited`, of how
    many connections the server refused while others of this client were open.
    """

    def execute(self, command: Command, deadline: float) -> Reply:
        """Send `command` and give its reply; raise a `NodeError` when there is none by `deadline`."""

    def begin(self, command: Command, deadline: float) -> Exchange:
        """Start `command` without waiting, so that many nodes are asked at once.

        Nor for a connection, if all are in use: threads that waited here with those of other nodes
        in hand would wait for each other.
        """

    def eject(self) -> None:
        """Drop idle connections and let nobody wait for one: the node is not asked for a while.

        The next call, a probe, is made over a new connection.
        """

    def close(self) -> None:
        """Drop idle connections, and each busy one as it comes back.

        A call that still comes (it began on an older topology) is served, and its connection
        closed behind it. Closing twice does nothing more.
        """


class AsyncBackend(Protocol):
    """One node, asked by the tasks of event loops. Deadlines are `time.monotonic()` seconds."""

    def execute(self, command: Command, deadline: float) -> asyncio.Future[Reply]:
        """Send `command` in this turn of the loop; the future gives the reply or raises `NodeError`.

        Not a coroutine function: the command is on its way when this returns, so a fan-out starts
        all, then awaits each. Cancelling the future discards that reply and nothing else.
        """

    def eject(self) -> None:
        """Close the connections of all loops, and fail their calls: the node is not asked for a while.

        The next call is made over a new connection. Called from any thread, with a loop or without:
        another client of this process may have met the failure.
        """

    async def aclose(self) -> None:
        """Close this loop's connections once their calls in flight are answered or late.

        A node that says nothing for `LAST_WAIT` seconds is not waited for any longer.
        """


class BackendFactory(Protocol):
    """Makes backends for a URL scheme: what a plugin registers."""

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Make the blocking backend; connects to nothing yet."""

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Make the asyncio backend; connects to nothing yet, needs no running loop."""
