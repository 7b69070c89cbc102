"""How long a client waits, and what it does when a node fails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from shardcache.core.numeric import real
from shardcache.errors import ConfigurationError

OnError: TypeAlias = Literal["miss", "raise"]
Failover: TypeAlias = Literal["miss"]

DEFAULT_CALL: Final = 0.5  # seconds
MAX_TIMEOUT: Final = 86_400.0  # a day; `select.poll` overflows above 24 of them


@dataclass(frozen=True, slots=True, init=False)
class TimeoutPolicy:
    """Bound every call, so that no node's silence becomes the caller's.

    `call` is one deadline for a whole call, whatever it fans out to; `connect` bounds one dial
    inside it, and is the call's when `None`. Both are seconds, given as a number or a `timedelta`.

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
        """Make the policy; raise `ConfigurationError` for what is no length of time above zero."""
        faults: list[str] = []
        object.__setattr__(self, "call", _noted("call", call, faults))
        object.__setattr__(
            self, "connect", None if connect is None else _noted("connect", connect, faults)
        )
        if faults:
            raise ConfigurationError(*faults)

    @property
    def connect_seconds(self) -> float:
        """Return the bound of one dial in seconds."""
        return self.call if self.connect is None else self.connect


def _noted(name: str, value: object, faults: list[str]) -> float | None:
    """Return `value` in seconds, or add to `faults` why it is none."""
    try:
        return positive_seconds(value, MAX_TIMEOUT)
    except ConfigurationError as error:
        faults.extend(f"{name}: {fault}" for fault in error.faults)
        return None


def positive_seconds(value: object, most: float) -> float:
    """Return a length of time in seconds; raise `ConfigurationError` unless above zero, up to `most`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else real(value)
    if seconds is None:
        raise ConfigurationError("must be seconds as a number")
    if not seconds > 0:  # as NaN is not, either
        raise ConfigurationError("must be above zero")
    if seconds > most:
        raise ConfigurationError(f"must be at most {most:.12g} seconds")
    return seconds


def seconds_or_zero(value: object, most: float) -> float:
    """Return a length of time in seconds, zero included; raise `ConfigurationError` for all else.

    >>> seconds_or_zero(0, 60.0), seconds_or_zero(timedelta(seconds=2), 60.0)
    (0.0, 2.0)
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else real(value)
    if seconds is not None and not seconds >= 0:  # as NaN is not, either
        raise ConfigurationError("must be zero or more")
    return 0.0 if seconds == 0 else positive_seconds(value, most)
