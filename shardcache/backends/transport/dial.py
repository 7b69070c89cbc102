"""How a connection to a node comes about: resolve, connect, shake hands, greet.

`dial` is one text for both worlds: a generator that yields what it waits for and is
resumed when that is ready. Blocking callers poll, event loops watch the descriptor.
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
from typing import Any, Final, NamedTuple

from shardcache.backends.threads import NoThreadError, start_thread
from shardcache.backends.transport.wakeups import Wakeup
from shardcache.backends.wire import Incarnation, Wire
from shardcache.core.placement.nodes import Node
from shardcache.core.secrecy import clear_frames
from shardcache.errors import (
    ConnectTimeoutError,
    NodeError,
    NodeRefusedError,
    NodeUnavailableError,
)

AddressInfo = tuple[socket.AddressFamily, Any]  # a family, and an address of it
Answer = Sequence[AddressInfo] | OSError  # of a name service


class Wait(NamedTuple):
    """What stands between a generator and its next step; `until` is earlier than the deadline."""

    descriptor: int
    mask: int  # of `select.poll`
    until: float | None = None


NOT_REACHED: Final = "could not be reached in time"


class Expired(Exception):  # noqa: N818 - an order to stop, thrown into a generator that waits
    """The time for waiting is over."""


KEEPALIVE_IDLE: Final = 30  # seconds
USER_TIMEOUT_MS: Final = 10_000  # a backstop: a call's deadline closes its connection long before


@dataclass(slots=True)
class Target:
    """Where a node's server listens, and how it is spoken to.

    `last_good` is kept for the time when the name cannot be resolved: the server may be up while
    the name service is not.
    """

    node: Node
    tls: ssl.SSLContext | None = None
    make_wire: Callable[[], Wire] = field(kw_only=True)
    lacks: frozenset[type] = frozenset()  # commands that its server cannot do in one step
    whole_seconds: bool = False  # whether its server counts expiries so
    incarnation: Incarnation = field(default_factory=Incarnation)
    last_good: Sequence[AddressInfo] = ()

    def known_addresses(self) -> Sequence[AddressInfo] | None:
        """Give the addresses that need no look-up; `None` for a name."""
        address = self.node.address
        if address.scheme.endswith("+unix"):
            return [(socket.AF_UNIX, address.path)]
        try:
            return _looked_up(address.host, address.port or 0, socket.AI_NUMERICHOST)
        except (OSError, UnicodeError, LookupError):  # the last for a codec
            return None

    def learned(self, answer: Answer) -> Sequence[AddressInfo]:
        """Give the addresses to try, by a name service's answer: the last good ones if it failed."""
        if not isinstance(answer, OSError):
            self.last_good = answer
        elif not self.last_good:
            raise NodeUnavailableError(f"cannot be resolved: {answer}", self.node.name) from answer
        return self.last_good

    def look_up(self, report: Callable[[Answer], object]) -> None:
        """Look the node's name up in a daemon thread, which calls `report` with the answer.

        The system's look-up cannot be interrupted, so a late one is left behind. `report` may also
        be called at once, by this thread, when no other is to be had.
        """
        address = self.node.address

        def run() -> None:
            try:
                report(_looked_up(address.host, address.port or 0, 0))
            except OSError as error:
                report(error)
            except UnicodeError as error:  # an empty label, or one above 63 characters
                report(OSError(f"no legal host name: {error}"))

        try:
            start_thread(run, f"resolve {address.host}")
        except NoThreadError as error:
            report(error)


def dial(target: Target, until: float) -> Generator[Wait, None, tuple[socket.socket, Wire]]:
    """Give a non-blocking socket on which the hello has been answered with yes, and its wire.

    The addresses of the node's name are tried in turn, each for an equal share of the time left.
    Raise `NodeUnavailableError` when none takes the connection, `ConnectTimeoutError` when told that
    its time is over, or the hello's own error.
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
        # Told that it is over long after it was: this process was held up, not the node.
        late.excused = time.monotonic() - until > (until - began) / 2
        raise late
    reason = "its name has no address" if failure is None else failure.strerror or str(failure)
    raise NodeUnavailableError(f"cannot be reached: {reason}", target.node.name) from failure


def _addresses(target: Target, until: float) -> Generator[Wait, None, Sequence[AddressInfo]]:
    """Give the node's addresses; a name is looked up in a thread, and waited for like a socket."""
    known = target.known_addresses()
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

    target.look_up(report)
    with contextlib.suppress(Expired):
        yield Wait(wakeup.fileno(), select.POLLIN, _look_up_until(target, until))
    late = TimeoutError("the name service did not answer in time")
    return target.learned(answers[0] if answers else late)


def _look_up_until(target: Target, until: float) -> float:
    """Return when a name service has had its time: half of the dial's, if an address is known."""
    # One that hangs, rather than fails, must not kill a node whose last address works.
    return (time.monotonic() + until) / 2 if target.last_good else until


def _dial_one(
    target: Target, family: socket.AddressFamily, address: Any, until: float
) -> Generator[Wait, None, tuple[socket.socket, Wire]]:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        yield from _connect(sock, address, until)
        _tune(sock)
        if target.tls is not None:
            sock = secure = _wrapped(sock, target.tls, target.node.address.host)
            yield from _shake_hands(secure, until)
        return sock, (yield from _greet(sock, target.make_wire(), until))
    except BaseException as error:
        sock.close()
        clear_frames(error)  # those that sent or received credentials
        raise


def _connect(sock: socket.socket, address: Any, until: float) -> Generator[Wait, None, None]:
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:  # EAGAIN is a no: a full backlog, or no port to call from
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


def _wrapped(sock: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
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
    _say(sock, wire.hello())
    while not wire.greeted:
        yield Wait(sock.fileno(), select.POLLIN, until)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            _hear(sock, wire)
    return wire


# Functions, not a part of the generator above: what an error leaves in their frames can be cleared.


def _say(sock: socket.socket, hello: bytes) -> None:
    if hello:
        sock.sendall(hello)  # a few hundred bytes into an empty buffer never wait


def _hear(sock: socket.socket, wire: Wire) -> None:
    """Take what comes before the greeting is over; a no, as to a password, is no node for us."""
    data = sock.recv(4096)
    if not data:
        raise ConnectionResetError(errno.ECONNRESET, "closed during the greeting")
    try:
        wire.feed(data)
    except NodeRefusedError as error:
        said = str(error).removeprefix(f"{error.node}: ")
        raise NodeUnavailableError(f"refused the greeting: {said}", error.node) from error


def _looked_up(host: str, port: int, flags: int) -> Sequence[AddressInfo]:
    # Bytes need no codec: that of names cannot be loaded any more while the interpreter ends.
    numeric = flags == socket.AI_NUMERICHOST and host.isascii()
    name = host.encode("ascii") if numeric else host
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]
