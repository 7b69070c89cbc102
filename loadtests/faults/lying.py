"""A server that lies, and a client that calls it once for each lie."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from typing import Any, Final

from faults.crippling import cripple
from faults.lies import FLOOD, Lie, lies
from faults.loops import Loop
from faults.players import Part
from shardcache import AsyncClient, Client, NodeError, NodeProtocolError, PartialFailureError

CHUNK: Final = 65_536
LOOK: Final = 0.001  # seconds for which more requests are awaited
LAST: Final = 10.0  # seconds
ENDLESS: Final = 64 * 1024 * 1024  # bytes, which is without end to a client that has a limit
LIMIT: Final = "?max_value_bytes=1000000"
KEYS: Final = [f"lie:{number}" for number in range(5)]

# Answers are those of each call, hence `Any`.


class Liar:
    """A server that answers the first request of each connection with the present lie.

    `told` is whether anybody has heard it, `again` whether a connection was used after that.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.lie = Lie(b"")
        self.told = self.again = False
        threading.Thread(target=self._serve, name="liar", daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(LAST)
        request = connection.recv(CHUNK)
        if not request:
            return
        lie, self.told = self.lie, True
        connection.sendall(lie.reply.replace(b"%t", _token_of(request)))
        for _ in range(ENDLESS // len(FLOOD) if lie.floods else 0):
            connection.sendall(FLOOD)
        connection.settimeout(LOOK)
        try:
            more = connection.recv(CHUNK)
        except TimeoutError:  # it awaits the rest, which never comes
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(LAST)
            more = connection.recv(CHUNK)
        self.again = self.again or bool(more)


def _token_of(request: bytes) -> bytes:
    """Return the token of the first command of the meta protocol, if there is one."""
    words = request.partition(b"\r\n")[0].split()
    return next((word for word in words if word.startswith(b"O")), b"O1")


class Lied(ABC):
    """One caller, whose only node lies."""

    def __init__(self, part: Part) -> None:
        cripple(("ejection",))  # so that it is asked for each lie
        (self._kind,) = part.urls
        self._part = part
        self._liar = Liar()
        self._client = self._open(f"{self._kind}://{self._liar.address}{LIMIT}")

    def hear(self, count: int) -> Counter[str]:
        """Call once for each of so many lies; return the counts."""
        tally: Counter[str] = Counter()
        calls = cycle((lambda: self._client.get(KEYS[0]), lambda: self._client.get_many(KEYS)))
        tally["before"] = _peak()
        must_close = False
        for lie in lies(self._kind, count, self._part.seed):
            self._liar.lie, self._liar.told, self._liar.again = lie, False, False
            error = self._call(next(calls), tally)
            tally["lies"] += self._liar.told
            tally["used again"] += must_close and self._liar.again
            must_close = _is_protocol_error(error)
        tally["after"] = _peak()
        return tally

    def _call(self, call: Callable[[], Any], tally: Counter[str]) -> Exception | None:
        try:
            tally["believed"] += bool(self._await(call))
        except (NodeError, PartialFailureError) as error:
            tally["refused"] += 1
            return error
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            tally["leaked"] += 1
            tally[f"leaked: {type(error).__name__}: {error}"] += 1
            return error
        return None

    @abstractmethod
    def _open(self, url: str) -> Any: ...

    @abstractmethod
    def _await(self, call: Callable[[], Any]) -> Any: ...


class ThreadLied(Lied):
    """Calls with the blocking client."""

    def _open(self, url: str) -> Client:
        return Client(url, timeout=self._part.timeout, on_error="raise")

    def _await(self, call: Callable[[], Any]) -> Any:
        return call()


class TaskLied(Lied):
    """Calls with the asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _open(self, url: str) -> AsyncClient:
        return AsyncClient(url, timeout=self._part.timeout, on_error="raise")

    def _await(self, call: Callable[[], Any]) -> Any:
        return self._loop.run(call)


def _is_protocol_error(error: Exception | None) -> bool:
    """Return whether a connection must not be used after an error."""
    each = error.failed.values() if isinstance(error, PartialFailureError) else [error]
    return any(isinstance(one, NodeProtocolError) for one in each)


def _peak() -> int:
    """Return how many KiB of memory this process has had at most."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - no file of ours
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
