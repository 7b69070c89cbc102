"""A node that answers as a test says: for faults that no real server can be made to show."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Behaviour = Callable[[socket.socket, int], None]  # a connection, and its number from 0


@contextmanager
def fake_node(behave: Behaviour) -> Iterator[str]:
    """Listen on a free port, and give each connection to `behave` in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    served: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            served.append(connection)
            arguments = (connection, len(served) - 1)
            threading.Thread(target=_behaving, args=(behave, *arguments), daemon=True).start()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join()  # which may have accepted one more
        for connection in served:
            connection.close()


def _behaving(behave: Behaviour, connection: socket.socket, number: int) -> None:
    try:
        behave(connection, number)
    except OSError:
        connection.close()


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def token_of(request: bytes) -> bytes:
    """Return the opaque token of a meta command's first line."""
    line = request.split(b"\r\n", 1)[0]
    return next(word for word in line.split(b" ") if word.startswith(b"O"))
