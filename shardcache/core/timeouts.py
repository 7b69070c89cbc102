"""How long a client waits, and what it does when a node fails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from shardcache.core.lifetimes import positive_seconds
from shardcache.errors import ConfigurationError

OnError: TypeAlias = Literal["miss", "raise"]
OnOverflow: TypeAlias = Literal["warn", "flush"]

DEFAULT_CALL: Final = 0.5  # seconds
TTL_CAP: Final = 60.0  # seconds for which a node keeps values of one that is down, at most
MAX_TIMEOUT: Final = 86_400.0  # a day; `select.poll` overflows above 24 of them


@dataclass(frozen=True, slots=True, init=False)
class TimeoutPolicy:
    """Bound every call, so that a silent node cannot block its callers.

    `call` is the time for a whole call, including everything it fans out to. `connect` bounds one
    dial within it; `None` means the same as `call`. Both are seconds or a `timedelta`.

    >>> TimeoutPolicy(call=timedelta(milliseconds=200), connect=0.05)
    TimeoutPolicy(call=0.2, connect=0.05)
    """

    call: float = DEFAULT_CALL
    connect: float | None = None

    def __init__(
        self,
        call: float | timedelta = DEFAULT_CALL,
        connect: float | timedelta | None = None,
    ) -> None:
        """Check the lengths; raise `ConfigurationError` if one is not a time above zero."""
        faults: list[str] = []
        object.__setattr__(self, "call", _seconds("call", call, faults))
        object.__setattr__(
            self, "connect", None if connect is None else _seconds("connect", connect, faults)
        )
        if faults:
            raise ConfigurationError(*faults)

    @property
    def connect_seconds(self) -> float:
        """Return the bound of one dial in seconds."""
        return self.call if self.connect is None else self.connect


def _seconds(name: str, value: object, faults: list[str]) -> float | None:
    """Return a length of time in seconds; for another value add a fault, and return `None`."""
    try:
        return positive_seconds(value, MAX_TIMEOUT)
    except ConfigurationError as error:
        faults.extend(f"{name}: {fault}" for fault in error.faults)
        return None
