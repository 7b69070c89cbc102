"""Opening a connection to a node: resolve, connect, TLS handshake, greeting.

`dial` serves blocking callers and asyncio: a generator that yields a descriptor to wait for, and
is resumed when that is ready. Blocking callers poll, event loops watch the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shardcache.backends.base import Wait
from shardcache.backends.threads import NoThreadError, start_thread
from shardcache.backends.transport.resolver import NAMES, AddressInfo, Resolver
from shardcache.backends.transport.wakeups import Wakeup
from shardcache.backends.wire import Incarnation, Wire
from shardcache.core.capabilities import EVERYTHING
from shardcache.core.placement.nodes import Node
from shardcache.core.secrecy import clear_frames
from shardcache.errors import (
    ConnectTimeoutError,
    NodeError,
    NodeRefusedError,
    NodeUnavailableError,
    printable,
)

Answer = Sequence[AddressInfo] | Exception  # of a resolver


NOT_REACHED: Final = "could not be reached in time"


class Expired(Exception):  # noqa: N818 - thrown into a generator to stop its wait
    """The time for waiting is over."""


KEEPALIVE_IDLE: Final = 30  # seconds
USER_TIMEOUT_MS: Final = 10_000  # a backstop: a call's deadline closes its connection much earlier


@dataclass(slots=True)
class Target:
    """The server of a node: how to find it, and how to talk to it.

    `last_good` keeps the last addresses for a time when `resolver` fails: the server may be up while
    the name service is not.
    """

    node: Node
    tls: ssl.SSLContext | None = None
    make_wire: Callable[[], Wire] = field(kw_only=True)
    resolver: Resolver = NAMES
    supports: frozenset[type] = EVERYTHING  # the commands that its server can do
    whole_seconds: bool = False  # whether its server counts expiries so
    incarnation: Incarnation = field(default_factory=Incarnation)
    last_good: Sequence[AddressInfo] = ()

    def accept(self, answer: Answer) -> Sequence[AddressInfo]:
        """Return the addresses to try by the resolver's answer; the last good ones if it failed."""
        if not isinstance(answer, Exception):
            self.last_good = answer
        elif not self.last_good:
            reason = printable(str(answer))
            raise NodeUnavailableError(f"cannot be resolved: {reason}", self.node.name) from answer
        return self.last_good

    def resolve(self, report: Callable[[Answer], object]) -> None:
        """Run the resolver in a daemon thread, which calls `report` with the answer.

        A look-up cannot be interrupted, so a late one is left behind. If no thread can be started,
        `report` is called at once by this thread.
        """

        def run() -> None:
            try:
                report(self.resolver.resolve(self.node))
            except Exception as error:  # noqa: BLE001 - `accept` raises it in the caller
                report(error)

        try:
            start_thread(run, f"resolve {self.node.address.host}")
        except NoThreadError as error:
            report(error)


def dial(target: Target, until: float) -> Generator[Wait, None, tuple[socket.socket, Wire]]:
    """Open a non-blocking socket whose hello the server has accepted; return it with its wire.

    The node's addresses are tried in turn, each for an equal share of the time left. Raise
    `NodeUnavailableError` if none accepts the connection, `ConnectTimeoutError` after `Expired`, or
    the error of the hello.
    """
    began = time.monotonic()
    addresses = yield from _addresses(target, until)
    failure: OSError | None = None
    for tried, (family, address) in enumerate(addresses):
        now = time.monotonic()
        share = now + (until - now) / (len(addresses) - tried)
        try:
            return (yield from _dial_one(target, family, address, share))
        except Expired:
            failure = TimeoutError("no answer in time")
        except OSError as error:
            if isinstance(error, NodeError):
                raise
            failure = error
    if isinstance(failure, TimeoutError):
        late = ConnectTimeoutError(NOT_REACHED, target.node.name)
        # `Expired` came long after its time: this process was delayed, not the node.
        late.excused = time.monotonic() - until > (until - began) / 2
        raise late
    reason = "its name has no address" if failure is None else failure.strerror or str(failure)
    raise NodeUnavailableError(f"cannot be reached: {reason}", target.node.name) from failure


def _addresses(target: Target, until: float) -> Generator[Wait, None, Sequence[AddressInfo]]:
    """Return the node's addresses now; wait for the resolver's thread like for a socket."""
    known = target.resolver.known(target.node)
    if known is not None:
        return known
    answers: list[Answer] = []
    try:
        wakeup = Wakeup()
    except OSError as error:
        text = f"cannot be resolved: {error.strerror}"
        raise NodeUnavailableError(text, target.node.name) from error

    def report(answer: Answer) -> None:
        answers.append(answer)
        wakeup.set()

    target.resolve(report)
    with contextlib.suppress(Expired):
        yield Wait(wakeup.fileno(), select.POLLIN, _resolve_until(target, until))
    late = TimeoutError("the resolver did not answer in time")
    return target.accept(answers[0] if answers else late)


def _resolve_until(target: Target, until: float) -> float:
    """Return when the resolver is late: after half the time of the dial if an address is known."""
    # A resolver that hangs must not cost a node whose last address works.
    return (time.monotonic() + until) / 2 if target.last_good else until


def _dial_one(
    target: Target,
    family: socket.AddressFamily,
    address: Any,  # of the family's form
    until: float,
) -> Generator[Wait, None, tuple[socket.socket, Wire]]:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        yield from _connect(sock, address, until)
        _tune(sock)
        if target.tls is not None:
            sock = secure = _wrap_tls(sock, target.tls, target.node.address.host)
            yield from _shake_hands(secure, until)
        return sock, (yield from _greet(sock, target.make_wire(), until))
    except BaseException as error:
        sock.close()
        clear_frames(error)  # the frames that sent or received credentials
        raise


def _connect(sock: socket.socket, address: Any, until: float) -> Generator[Wait, None, None]:
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:  # EAGAIN is a failure: a full backlog, or no free local port
        yield Wait(sock.fileno(), select.POLLOUT, until)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _tune(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", KEEPALIVE_IDLE), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS)):
        option = getattr(socket, name, None)  # not every system has them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _wrap_tls(sock: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    return tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


def _shake_hands(sock: ssl.SSLSocket, until: float) -> Generator[Wait, None, None]:
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            yield Wait(sock.fileno(), select.POLLIN, until)
        except ssl.SSLWantWriteError:
            yield Wait(sock.fileno(), select.POLLOUT, until)


def _greet(sock: socket.socket, wire: Wire, until: float) -> Generator[Wait, None, Wire]:
    _send_hello(sock, wire.hello())
    while not wire.greeted:
        yield Wait(sock.fileno(), select.POLLIN, until)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            _receive_greeting(sock, wire)
    return wire


# Functions, so that credentials in their frames can be cleared when an error is raised.


def _send_hello(sock: socket.socket, hello: bytes) -> None:
    if hello:
        sock.sendall(hello)  # a few hundred bytes into an empty buffer never block


def _receive_greeting(sock: socket.socket, wire: Wire) -> None:
    """Receive a part of the greeting; if the server refuses it, raise `NodeUnavailableError`."""
    data = sock.recv(4096)
    if not data:
        raise ConnectionResetError(errno.ECONNRESET, "closed during the greeting")
    try:
        wire.feed(data)
    except NodeRefusedError as error:
        reason = str(error).removeprefix(f"{error.node}: ")
        raise NodeUnavailableError(f"refused the greeting: {reason}", error.node) from error
