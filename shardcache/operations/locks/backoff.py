"""The pauses between tries: tenacity's wait strategies, with randomness from the port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shardcache.core.leases import WaitStrategy
from shardcache.operations.port import IO

if TYPE_CHECKING:
    from tenacity import RetryCallState

FIRST: Final = 0.01  # seconds
SLOWEST: Final = 0.1
FACTOR: Final = 1.6
SPREAD: Final = 0.25  # of the pause, either way: waiters for the same key must not ask all at once


class Backoff:
    """The pauses of one waiter: by default 10 ms, growing by a factor of 1.6 to 100 ms, ±25 %.

    A `strategy` of tenacity's replaces them, its spread included.
    """

    __slots__ = ("_following", "_io", "_state", "_strategy", "_tries")

    def __init__(
        self,
        io: IO[Any],  # of blocking or asyncio backends
        strategy: WaitStrategy | None = None,
    ) -> None:
        self._io = io
        self._strategy = strategy
        self._state: RetryCallState | None = None
        self._tries = 0
        self._following = FIRST

    def pause(self) -> float:
        """Return the seconds to wait before the next try."""
        self._tries += 1
        if self._strategy is not None:
            return max(0.0, float(self._strategy(self._retry_state())))
        seconds, self._following = self._following, min(SLOWEST, self._following * FACTOR)
        return seconds * (1 - SPREAD + 2 * SPREAD * self._io.random())

    def _retry_state(self) -> RetryCallState:
        # Imported with the first pause of such a strategy: it takes as long as all of shardcache.
        from tenacity import RetryCallState, Retrying  # noqa: PLC0415

        if self._state is None:
            self._state = RetryCallState(Retrying(), None, (), {})
        self._state.attempt_number = self._tries
        return self._state
