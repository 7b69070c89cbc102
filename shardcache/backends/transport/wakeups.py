"""How one thread wakes another: one that polls descriptors, or one that waits for nothing else."""

from __future__ import annotations

import _socket
import contextlib
import queue


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

    def clear(self) -> bool:
        """Make ready to be set once more; return whether it was set."""
        # Reads first, and whether it was set or not: the byte of one that is set in this moment may
        # come behind `is_set`, and would keep the descriptor ready for ever.
        with contextlib.suppress(BlockingIOError):
            self._inner.recv(16)
        if not self.is_set:
            return False
        self.is_set = False
        return True

    # Not a `weakref.finalize`: an interrupt inside that would keep the descriptors for ever.
    def __del__(self) -> None:
        try:
            self._inner.close()
            self._outer.close()
        except AttributeError:  # the interrupt came before it had them
            return


class ThreadWakeup:
    """The same for a thread that waits for nothing else: it takes no descriptor."""

    __slots__ = ("__weakref__", "_queue", "is_set")

    def __init__(self) -> None:
        # Not a Condition: an interrupt in its Python code could leave its lock held for ever.
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.is_set = False

    def set(self) -> None:
        """Wake who waits."""
        self.is_set = True
        self._queue.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait up to so many seconds; return whether it was woken."""
        try:
            self._queue.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def clear(self) -> bool:
        """Make ready to be set once more; return whether it was set."""
        if not self.is_set:
            return False
        self.is_set = False
        return True
