"""Wakeups from one thread to another, which polls descriptors or waits for nothing else."""

from __future__ import annotations

import _socket
import contextlib
import queue


class Wakeup:
    """A descriptor that a thread polls together with sockets, and that another thread makes ready.

    It is closed when no reference to it is left, and not earlier. A thread that sets it holds a
    reference, so it never writes to another file that got the same descriptor number.
    """

    __slots__ = ("__weakref__", "_inner", "_outer", "is_set")

    def __init__(self) -> None:
        # `socket.socketpair` takes several steps, between which an interrupt would leak descriptors.
        self._inner, self._outer = _socket.socketpair()
        self._inner.setblocking(False)  # noqa: FBT003 - its signature
        self._outer.setblocking(False)  # noqa: FBT003 - as above
        self.is_set = False

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._inner.fileno()

    def set(self) -> None:
        """Wake the thread that polls."""
        self.is_set = True
        # The buffer is full of wakeups, or a weak reference has outlived `__del__`.
        with contextlib.suppress(OSError):
            self._outer.send(b"\0")

    def clear(self) -> bool:
        """Reset it; return whether it was set."""
        # Reads first, whether it was set or not: a thread that sets it right now may write its byte
        # after `is_set`, and an unread byte would keep the descriptor ready for ever.
        with contextlib.suppress(BlockingIOError):
            self._inner.recv(16)
        if not self.is_set:
            return False
        self.is_set = False
        return True

    # Not a `weakref.finalize`: an interrupt inside it would leak the descriptors.
    def __del__(self) -> None:
        try:
            self._inner.close()
            self._outer.close()
        except AttributeError:  # an interrupt came before they were created
            return


class ThreadWakeup:
    """A wakeup for a thread that waits for nothing else; it needs no descriptor."""

    __slots__ = ("__weakref__", "_queue", "is_set")

    def __init__(self) -> None:
        # Not a Condition: an interrupt in its Python code could leave its lock held for ever.
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.is_set = False

    def set(self) -> None:
        """Wake the thread that waits."""
        self.is_set = True
        self._queue.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; return whether the wakeup was set."""
        try:
            self._queue.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def clear(self) -> bool:
        """Reset it; return whether it was set."""
        if not self.is_set:
            return False
        self.is_set = False
        return True
