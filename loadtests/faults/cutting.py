"""One call at a time whose reply is cut, and the call after it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from faults.loops import Loop
from faults.players import Part
from shardcache import AsyncClient, Client, NodeError, PartialFailureError

# Answers are of the type that each operation returns, hence `Any`.

VALUE: Final = "value of cut:one, " * 3
MANY: Final = {f"cut:many:{number}": f"value of cut:many:{number}" for number in range(5)}
MORE: Final = 2
WITNESS: Final = "value of the witness"


def make_operations(client: Client | AsyncClient) -> dict[str, Callable[[], Any]]:
    """Return the operations on either client, by name."""
    return {
        "get hit": lambda: client.get("cut:one"),
        "get miss": lambda: client.get("cut:none"),
        "set": lambda: client.set("cut:one", VALUE),
        "get_many": lambda: client.get_many(list(MANY)),
        "delete": lambda: client.delete("cut:none"),
        "incr": lambda: client.incr("cut:count"),
    }


class Cutter(ABC):
    """Makes a call whose reply is cut, then the next, and judges both answers."""

    def __init__(self, part: Part) -> None:
        self._counted = 0
        self._client, self._raising = self._open(part, "miss"), self._open(part, "raise")
        self._done(lambda: self._client.set_many({**MANY, "cut:one": VALUE, "witness": WITNESS}))
        self._done(lambda: self._client.incr("cut:count", initial=0))
        self._operations = [make_operations(each) for each in (self._client, self._raising)]
        self._turn = 0

    def operations(self) -> list[str]:
        """Return the names of the operations."""
        return list(self._operations[0])

    def attempt(self, name: str) -> tuple[str, float]:
        """Call it with each `on_error` in turn; return the answer and the seconds."""
        self._turn += 1
        raises = self._turn % 2
        began = time.monotonic()
        try:
            answer = self._done(self._operations[raises][name])
        except (NodeError, PartialFailureError):
            outcome = "failed" if raises else "leaked"
        except Exception:  # noqa: BLE001 - it is what is looked for
            outcome = "leaked"
        else:
            outcome = "right" if self._may_be(name, answer) else "wrong"
        return outcome, time.monotonic() - began

    def follow(self) -> str:
        """Make the next call on that client; return whether it is right.

        More calls follow it, so that the node does not fail in half of them, and is left out.
        """
        client = self._raising if self._turn % 2 else self._client
        following = self._read(client)
        for _ in range(MORE):
            self._read(client)
        return following

    def _read(self, client: Any) -> str:
        try:
            answer = self._done(lambda: client.get("witness"))
        except Exception as error:  # noqa: BLE001 - as above
            return type(error).__name__
        return "right" if answer == WITNESS else "missed" if answer is None else "wrong"

    def wait_closed(self, seconds: float) -> float | None:
        """Wait until the node is asked again; return the seconds it took, `None` if that was too long."""
        began = time.monotonic()
        while self._client.ejected or self._raising.ejected:
            if time.monotonic() - began > seconds:
                return None
            time.sleep(0.005)
        return time.monotonic() - began

    def _may_be(self, name: str, answer: Any) -> bool:
        if name == "get hit":
            return answer in (VALUE, None)
        if name == "get miss":
            return answer is None
        if name == "get_many":
            return answer.items() <= MANY.items()
        if name == "incr":
            if answer is None:
                return True
            earlier, self._counted = self._counted, answer
            return answer > earlier
        return answer in (True, False)

    @abstractmethod
    def _open(self, part: Part, way: str) -> Any: ...

    @abstractmethod
    def _done(self, call: Callable[[], Any]) -> Any:
        """Make a call, and return its answer."""


class ThreadsCaller(Cutter):
    """Calls with the blocking client."""

    def _open(self, part: Part, way: str) -> Client:
        return Client(part.urls, timeout=part.timeout, on_error=way)

    def _done(self, call: Callable[[], Any]) -> Any:
        return call()


class TasksCaller(Cutter):
    """Calls with the asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _open(self, part: Part, way: str) -> AsyncClient:
        return AsyncClient(part.urls, timeout=part.timeout, on_error=way)

    def _done(self, call: Callable[[], Any]) -> Any:
        return self._loop.run(call)
