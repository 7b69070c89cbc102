"""A descriptor by which one thread wakes another that polls."""

from __future__ import annotations

import _socket
import contextlib


class Wakeup:
    """A descriptor to poll, beside those of sockets, and the way to make it ready.

    It is closed when no reference to it is left, and never before. A thread that sets it holds such
    a reference, so the descriptor it writes to is never another's with the same number.
    """

    __slots__ = ("__weakref__", "_inner", "_outer", "is_set")

    def __init__(self) -> None:
        # The pair of `socket` is made in several steps, between which an interrupt would lose it.
        self._inner, self._outer = _socket.socketpair()
        self._inner.setblocking(False)  # noqa: FBT003 - its signature
        self._outer.setblocking(False)  # noqa: FBT003 - as above
        self.is_set = False

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._inner.fileno()

    def set(self) -> None:
        """Wake who polls."""
        self.is_set = True
        # It was set often enough, or a weak reference has outlived `__del__`.
        with contextlib.suppress(OSError):
            self._outer.send(b"\0")

    def clear(self) -> None:
        """Make ready to be set once more."""
        self.is_set = False
        with contextlib.suppress(BlockingIOError):  # it is set in this moment
            self._inner.recv(16)

    # Not a `weakref.finalize`: an interrupt inside that would keep the descriptors for ever.
    def __del__(self) -> None:
        try:
            self._inner.close()
            self._outer.close()
        except AttributeError:  # the interrupt came before it had them
            return
