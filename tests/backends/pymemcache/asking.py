"""A pymemcache backend that a test asks, and a server that answers as the test says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from shardcache.backends.base import BackendOptions
from shardcache.backends.pymemcache import Pymemcache
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import RAW_FLAGS, TEXT_FLAGS

TEXT = (TEXT_FLAGS, b"text")
OTHER = (RAW_FLAGS, b"\r\nEND\r\n\x00")


def make_backend(server_or_port, query="", **options):
    """Return a blocking backend for a server, or for a port of this machine."""
    if isinstance(server_or_port, int):
        location = f"127.0.0.1:{server_or_port}"
    else:
        location = server_or_port.url.partition("://")[2]
    node = Node(f"pymemcache://{location}{query}", name="cache1")
    return Pymemcache().blocking(node, BackendOptions(**options))


def ask(backend, command, seconds=5.0):
    """Return the reply to a command."""
    return backend.execute(command, time.monotonic() + seconds)


@contextlib.contextmanager
def fake_server(*answers):
    """Return the port of a server that sends one answer after each thing it receives, then waits.

    A callable among them is handed the socket instead.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=exchange, args=(connection,), daemon=True).start()

        def exchange(connection):
            with contextlib.suppress(OSError), connection:
                for answer in answers:
                    if not connection.recv(65536):
                        return
                    if callable(answer):
                        answer(connection)
                    else:
                        connection.sendall(answer)
                while connection.recv(65536):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield port
        listener.shutdown(socket.SHUT_RDWR)


def hang_up(connection):
    """Close the connection instead of answering."""
    connection.shutdown(socket.SHUT_RDWR)
