"""The listening socket of a proxy: dials are accepted, refused, reset or left unanswered."""

from __future__ import annotations

import errno
import math
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Literal

from shardcache.testing.faults.native import native
from shardcache.testing.faults.sockets import READABLE, RETRY_SECONDS
from shardcache.testing.servers import ATTEMPTS, LOOPBACK, free_port

Refusal = Literal["refused", "rst"]
Dials = Literal["taken", "unanswered", "refused", "rst"]

BACKLOG: Final = 1024
FILL_SECONDS: Final = 1.0  # for the kernel to queue one connection to ourselves


class Listener:
    """A listening socket, and what it does to dials."""

    def __init__(self, socket_type: type[socket.socket], poll: select.poll) -> None:
        self.dials: Dials = "taken"
        self.opens_again = math.inf  # when to accept again after running out of descriptors
        self._socket_type = socket_type
        self._poll = poll
        self._filler: socket.socket | None = None
        self._socket = self._bind()
        self._socket.listen(BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self.watch()

    @property
    def number(self) -> int:
        """Return the descriptor that is polled."""
        return self._socket.fileno()

    @property
    def listens(self) -> bool:
        """Return whether dials are accepted, even if only to be reset."""
        return self.dials in ("taken", "rst")

    def set_dials(self, dials: Dials) -> None:
        """Treat dials like this from now on."""
        if dials == self.dials:
            return
        if not self.listens:
            self._socket.listen(BACKLOG)
            self.watch()
        self.dials = dials
        if dials == "unanswered":
            self._fill_backlog()
        elif dials == "refused":
            self._stop_listening()

    def accept(self) -> Iterator[socket.socket]:
        """Accept all waiting clients; yield their sockets."""
        while True:
            try:
                number, place = self._socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - accept() makes sockets of gevent's
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            client = self._socket_type(fileno=number)
            if self._filler is not None and place == self._filler.getsockname():
                client.close()
                self._drop_filler()
            else:
                yield client

    def watch(self) -> None:
        """Poll for dials."""
        self.opens_again = math.inf
        self._poll.register(self._socket, READABLE)

    def close(self) -> None:
        """Accept no more."""
        self._drop_filler()
        self._socket.close()

    def _bind(self) -> socket.socket:
        for attempt in range(ATTEMPTS):
            listener = self._socket_type(socket.AF_INET, socket.SOCK_STREAM)
            listener.settimeout(0)
            # So that it can listen again while earlier connections are open.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, free_port()))
            except OSError:
                listener.close()
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return listener
        raise AssertionError("unreachable")

    def _fill_backlog(self) -> None:
        self._unwatch()
        # Room for one connection, which we take. While it waits, Linux drops other dials.
        self._socket.listen(0)
        self._drop_filler()
        self._filler = self._socket_type(socket.AF_INET, socket.SOCK_STREAM)
        self._filler.settimeout(0)
        self._filler.connect_ex((LOOPBACK, self.port))
        queued: select.poll = native("select", "poll")()
        queued.register(self._socket, READABLE)
        queued.poll(FILL_SECONDS * 1000)

    def _drop_filler(self) -> None:
        if self._filler is not None:
            self._filler.close()
            self._filler = None

    def _stop_listening(self) -> None:
        self._drop_filler()
        try:
            # Linux then refuses connections, and keeps the port for us.
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            self.dials = "rst"
        else:
            self._unwatch()

    def _pause(self, error: OSError) -> None:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            raise error
        self._unwatch()
        self.opens_again = time.monotonic() + RETRY_SECONDS

    def _unwatch(self) -> None:
        self.opens_again = math.inf
        with suppress(KeyError):
            self._poll.unregister(self._socket)
