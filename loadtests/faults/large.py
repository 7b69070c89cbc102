"""Tasks that read large values while others read small ones."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import cache
from typing import Any, Final

from faults.players import TasksPlayer

LARGE: Final = 8 * 1024 * 1024


def large_key(number: int) -> str:
    """Return the key of a large value."""
    return f"large:{number}"


@cache
def large_value(number: int, size: int) -> bytes:
    """Return a large value, which repeats its key."""
    name = f"{large_key(number)} ".encode()
    return (name * (size // len(name) + 1))[:size]


class LargePlayer(TasksPlayer):
    """The usual tasks, and some that read large values all the time."""

    def read_large(self, readers: int, seconds: float) -> Counter[str]:
        """Read large values for `seconds`; return the results."""
        return self.loop.run(lambda: self._read_large(readers, seconds))

    async def _read_large(self, readers: int, seconds: float) -> Counter[str]:
        tally: Counter[str] = Counter()
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._read_one(n, until, tally) for n in range(readers)))
        return tally

    async def _read_one(self, number: int, until: float, tally: Counter[str]) -> None:
        while time.monotonic() < until:
            try:
                value: Any = await self.clients[0].get(large_key(number))
            except Exception:  # noqa: BLE001 - it is what is looked for
                tally["leaked"] += 1
                continue
            right = value is None or value == large_value(number, LARGE)
            tally["wrong" if not right else "missed" if value is None else "read"] += 1
