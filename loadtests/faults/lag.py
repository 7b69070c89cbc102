"""How late sleepers wake: the part of a delay that the machine causes, not the node."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Final, NamedTuple, Self

NAP: Final = 0.005  # seconds
VOID: Final = 0.020  # seconds; above this lag times say nothing


class Lag(NamedTuple):
    """How late sleepers woke at worst, in seconds: one outside the calling process, one inside it."""

    machine: float
    crew: float = 0.0


class LagMeter:
    """Sleeps repeatedly, and keeps the longest delay of a wake-up."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="lag", daemon=True)

    def reset(self) -> None:
        """Start measuring again."""
        self.worst = 0.0

    def _measure(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            time.sleep(NAP)
            self.worst = max(self.worst, time.monotonic() - began - NAP)

    async def measure_loop(self) -> None:
        """Do the same as a task of an event loop, until it is cancelled."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(NAP)
            self.worst = max(self.worst, time.monotonic() - began - NAP)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
