"""A TCP proxy that causes network faults in the connections through it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self, TypeVar

from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError
from shardcache.testing.faults.line import Drip
from shardcache.testing.faults.listener import Refusal
from shardcache.testing.faults.network import Cut, Ending
from shardcache.testing.faults.relay import EndedError, Relay
from shardcache.testing.faults.target import Target
from shardcache.testing.faults.tunnel import Direction
from shardcache.testing.servers import LOOPBACK

T = TypeVar("T")

MAX_SECONDS: Final = 86_400.0


class FaultProxy:
    """A TCP proxy to one server, with faults that are switched on while it runs.

    `target` is the URL of a node, of any scheme but `memory://`, or `host:port`. The proxy listens on
    a free port of 127.0.0.1, and `url` is the same URL with that address. TLS passes through unread.
    A server on a Unix socket is reached over TCP. The server need not run yet: a connection that cannot
    be forwarded is reset.

    A fault applies to open connections at once, and to new ones, until `heal()`. `delay`, `drip` and
    `cut_after` add up; the last call of each counts. When a method returns, its fault is in force: bytes
    that the client sent before have been read, and no byte passes that should not. Every method may be
    called from any thread. It raises `ConfigurationError` for bad arguments, and `RuntimeError` when the
    proxy is closed or belongs to the parent of this process.

    It runs in its own native thread, under gevent as well, and ends with `close()`, with its `with` block,
    or with the process. In a forked child it is closed, and goes on in the parent.
    """

    def __init__(self, target: str) -> None:
        """Listen for `target`; raise `ConfigurationError` if that is not the address of a server."""
        self._target = Target.parse(target)
        self._pid = os.getpid()
        self._relay = Relay(self._target.addresses)
        self._network = self._relay.network
        weakref.finalize(self, self._relay.stop).atexit = False

    @property
    def url(self) -> str:
        """Return the target as it was given, with this proxy's address in place of the server's."""
        return self._target.with_authority(f"{self.host}:{self.port}")

    @property
    def host(self) -> str:
        """Return the address the proxy listens on."""
        return LOOPBACK

    @property
    def port(self) -> int:
        """Return the port the proxy listens on; it never changes."""
        return self._network.port

    @property
    def connections(self) -> int:
        """Return how many connections are open: closed neither by the client nor by a fault."""
        return self._read(lambda: self._network.open)

    @property
    def accepted(self) -> int:
        """Return how many connections were accepted so far; refused ones do not count."""
        return self._read(lambda: self._network.accepted)

    @property
    def sent(self) -> int:
        """Return how many bytes of requests have passed to the server, on all connections."""
        return self._read(lambda: self._network.sent)

    @property
    def received(self) -> int:
        """Return how many bytes of replies have passed to clients, on all connections."""
        return self._read(lambda: self._network.received)

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """Pass everything `seconds` later, in order and at full speed; 0 ends it.

        `"requests"` are what clients send, `"replies"` what the server sends. With `"both"` a round
        trip takes twice `seconds` longer. A dial is not delayed: the kernel answers it.
        """
        faults = [*_seconds_faults(seconds), *_direction_faults(direction)]
        self._change(faults, lambda: self._network.delay(seconds, direction))

    def drip(self, size: int, every: float, direction: Direction = "replies") -> None:
        """Pass `size` bytes at a time, and the next ones `every` seconds later."""
        faults = [
            *_count_faults("size", size, 1),
            *_seconds_faults(every),
            *_direction_faults(direction),
        ]
        self._change(faults, lambda: self._network.drip(Drip(size, every), direction))

    def cut_after(self, size: int, how: Ending = "rst", connections: int | None = None) -> None:
        """End each connection once `size` more bytes of its replies have passed.

        With 0, the first byte of a reply ends it. `"rst"` resets the connection, `"fin"` closes it,
        and `"stall"` keeps it open but passes no more replies. `connections` is the number of connections
        to end; `None` means all, new ones too. The connection to the server is reset, except by `"stall"`.
        """
        faults = [
            *_count_faults("size", size, 0),
            *_choice_faults("how", how, ("rst", "fin", "stall")),
            *([] if connections is None else _count_faults("connections", connections, 1)),
        ]
        self._change(faults, lambda: self._network.arm(Cut(size, how, connections)))

    def blackhole(self, *, dials: bool = False) -> None:
        """Pass nothing and close nothing, as a network without a route.

        New connections are still accepted, because the kernel does that. With `dials` they are not: a
        dial waits for an answer. That is a full backlog, and needs Linux.

        As with TCP no byte is lost: bytes sent meanwhile arrive after `heal()`. A waiting dial is then
        answered when the kernel repeats it, after one second or more.
        """
        self._change([], lambda: self._network.blackhole(dials=dials))

    def half_open(self) -> None:
        """Lose the server silently: requests are read, no reply comes, nothing is closed.

        The client's close is not answered either. `heal()` resets these connections, as a restarted
        server does, which does not know them.
        """
        self._change([], self._network.half_open)

    def refuse(self, how: Refusal = "refused") -> None:
        """Refuse new connections; open ones go on.

        `"refused"` is the answer of a port without a server (on Linux; elsewhere it is `"rst"`).
        `"rst"` accepts each connection and resets it at once.
        """
        faults = _choice_faults("how", how, ("refused", "rst"))
        self._change(faults, lambda: self._network.set_dials(how))

    def heal(self) -> None:
        """End all faults: everything passes again, held-back bytes at once.

        Connections whose server was lost by `half_open()` are reset.
        """
        self._change([], self._network.heal)

    def close(self) -> None:
        """Close all connections and end the thread. Closing twice does nothing more."""
        if os.getpid() == self._pid:
            self._relay.stop()
            self._relay.join()

    def _read(self, value: Callable[[], T]) -> T:
        self._check_process()
        try:
            return self._relay.ask(value)
        except EndedError:
            return value()

    def _change(self, faults: Iterable[str], change: Callable[[], None]) -> None:
        if found := list(faults):
            raise ConfigurationError(*found)
        self._check_process()
        try:
            self._relay.ask(change)
        except EndedError:
            raise RuntimeError(f"{self!r} is closed") from None

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self!r} runs in process {self._pid}, not in this child of it")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FaultProxy {self.host}:{self.port} to {self._target.label}>"


def _seconds_faults(value: object) -> Iterator[str]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SECONDS:  # type: ignore[operator]  # as NaN is not, either
        yield f"seconds must be a number from 0 to {MAX_SECONDS:.0f}, not {redact(value)}"


def _count_faults(name: str, value: object, least: int) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        yield f"{name} must be a whole number from {least}, not {redact(value)}"


def _choice_faults(name: str, value: object, known: tuple[str, ...]) -> Iterator[str]:
    if value not in known:
        yield f"{name} must be one of {', '.join(known)}, not {redact(value)}"


def _direction_faults(value: object) -> Iterator[str]:
    return _choice_faults("direction", value, ("both", "requests", "replies"))
