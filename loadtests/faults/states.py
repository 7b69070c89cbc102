"""A caller that meets a Redis in a state of its own, and tells what it was told."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from faults.loops import Loop
from faults.players import Part
from faults.single import Lines
from shardcache import AsyncClient, CheckFailedError, Client

TIMES: Final = 5  # of each call, with each `on_error`
KEYS: Final = [f"state:{number}" for number in range(20)]
ACTS: Final[dict[str, Callable[[Any], Any]]] = {
    "get": lambda client: client.get(KEYS[0]),
    "set": lambda client: client.set(KEYS[0], "value"),
    "get_many": lambda client: client.get_many(KEYS),
    "gets": lambda client: client.gets(KEYS[0]),
    "list": lambda client: client.get("state:list"),
}

# Clients and answers are of either kind, hence `Any`.


class Met(NamedTuple):
    """The errors of calls by name, whether the node was left out all the time, lines of the log."""

    errors: tuple[str, ...]
    out: bool
    lines: int
    check_fails: bool


class States(ABC):
    """One caller of one Redis after another."""

    def __init__(self, part: Part) -> None:
        self._timeout = part.timeout
        self._lines = Lines()
        log = logging.getLogger("shardcache")
        log.addHandler(self._lines)
        log.propagate = False
        self._clients: Sequence[Any] = ()

    def open(self, url: str) -> None:
        """Call this node from now on, and no other."""
        for client in self._clients:
            self._await(self._closing(client))
        self._clients = self._open(url, "miss"), self._open(url, "raise")

    def meet(self, act: str, seconds: float) -> Met:
        """Make a call some times, and see for how long the node is left out; return what came of it."""
        self._lines.texts.clear()
        errors = {error for _ in range(TIMES) for error in self._errors(act)}
        for _ in range(TIMES):
            self._swallow(act)
        out, until = True, time.monotonic() + seconds
        while out and time.monotonic() < until:
            out = bool(self._clients[1].ejected)
            time.sleep(0.01)
        lines = sum("read as a miss" in text or " ejected: " in text for text in self._lines.texts)
        return Met(tuple(sorted(errors)), out, lines, self._check_fails())

    def wait_closed(self, seconds: float) -> float | None:
        """Wait until it is asked again; return the seconds it took, `None` if that was too long."""
        began = time.monotonic()
        while any(client.ejected for client in self._clients):
            if time.monotonic() - began > seconds:
                return None
            time.sleep(0.01)
        return time.monotonic() - began

    def _errors(self, act: str) -> Sequence[str]:
        try:
            self._await(lambda: ACTS[act](self._clients[1]))
        except Exception as error:  # noqa: BLE001 - it is what is asked for
            return [type(error).__name__]
        return []

    def _swallow(self, act: str) -> None:
        """Call with `on_error="miss"`, under which faults of configuration are raised too."""
        try:
            self._await(lambda: ACTS[act](self._clients[0]))
        except Exception as error:  # noqa: BLE001 - the raising client has told of it
            self._lines.texts.append(type(error).__name__)

    def _check_fails(self) -> bool:
        try:
            self._await(self._clients[1].check)
        except CheckFailedError:
            return True
        return False

    @abstractmethod
    def _open(self, url: str, way: str) -> Any: ...

    @abstractmethod
    def _closing(self, client: Any) -> Callable[[], Any]: ...

    @abstractmethod
    def _await(self, call: Callable[[], Any]) -> Any: ...


class ThreadStates(States):
    """Calls with the blocking client."""

    def _open(self, url: str, way: str) -> Client:
        return Client(url, timeout=self._timeout, on_error=way)

    def _closing(self, client: Client) -> Callable[[], Any]:
        return client.close

    def _await(self, call: Callable[[], Any]) -> Any:
        return call()


class TaskStates(States):
    """Calls with the asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _open(self, url: str, way: str) -> AsyncClient:
        return AsyncClient(url, timeout=self._timeout, on_error=way)

    def _closing(self, client: AsyncClient) -> Callable[[], Any]:
        return client.aclose

    def _await(self, call: Callable[[], Any]) -> Any:
        return self._loop.run(call)
