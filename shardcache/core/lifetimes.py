"""Lengths of time in seconds: how long a value lives, and any other that a caller passes."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final, SupportsIndex, TypeAlias, TypeVar

from shardcache.core.numeric import real
from shardcache.errors import ConfigurationError

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")

MAX_SECONDS: Final = 10 * 365 * 24 * 3600  # ten years; beyond, servers disagree or overflow


class Default(Enum):
    """The type of `DEFAULT`, which stands for a TTL that was left out."""

    DEFAULT = "the client's default_ttl"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT


class Keep(Enum):
    """The type of `KEEP`, which stands for the expiry that a value has already."""

    KEEP = "the expiry of the stored value"

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Keep.KEEP

TTL: TypeAlias = "float | SupportsIndex | Decimal | timedelta | Default | None"


def lifetime(ttl: TTL, default: float | None) -> float | None:
    """Return a TTL in seconds: above zero, `None` for no expiry, 0.0 if the value expires at once.

    For `DEFAULT` it is `default`, which is already in seconds. Raise `TypeError` if `ttl` is not a
    duration, `ValueError` for NaN, infinity and more than ten years.

    >>> lifetime(timedelta(minutes=1), None), lifetime(-5, None), lifetime(DEFAULT, 300.0)
    (60.0, 0.0, 300.0)
    """
    if ttl is DEFAULT:
        return default
    if ttl is None:
        return None
    if (type(ttl) is int or type(ttl) is float) and 0 < ttl <= MAX_SECONDS:  # nearly always
        return float(ttl)
    seconds = _seconds(ttl)
    if math.isnan(seconds) or math.isinf(seconds):
        raise ValueError(f"ttl must be finite, not {seconds}")
    if seconds > MAX_SECONDS:
        raise ValueError(f"ttl must be at most ten years ({MAX_SECONDS} s), not {seconds:.12g} s")
    return max(0.0, seconds)


def ttl_of_any_length(ttl: T) -> T | None:
    """Return a framework's ttl, which may be of any length: `None`, no expiry, for more than ten years.

    What is no length of time is returned, to be refused by `lifetime`.

    >>> ttl_of_any_length(60), ttl_of_any_length(10**10), ttl_of_any_length(timedelta(weeks=5000))
    (60, None, None)
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else real(ttl)
    return None if seconds is not None and seconds > MAX_SECONDS else ttl


def positive_seconds(value: object, most: float) -> float:
    """Return a length of time in seconds, above zero; raise `ConfigurationError` above `most`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else real(value)
    if seconds is None:
        raise ConfigurationError("must be seconds as a number")
    if not seconds > 0:  # also true of NaN
        raise ConfigurationError("must be above zero")
    if seconds > most:
        raise ConfigurationError(f"must be at most {most:.12g} seconds")
    return seconds


def seconds_or_zero(value: object, most: float) -> float:
    """Return a length of time in seconds, or zero; raise `ConfigurationError` above `most`.

    >>> seconds_or_zero(0, 60.0), seconds_or_zero(timedelta(seconds=2), 60.0)
    (0.0, 2.0)
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else real(value)
    if seconds is not None and not seconds >= 0:  # also true of NaN
        raise ConfigurationError("must be zero or more")
    return 0.0 if seconds == 0 else positive_seconds(value, most)


def _seconds(ttl: object) -> float:
    if isinstance(ttl, timedelta):
        return ttl.total_seconds()
    seconds = real(ttl)
    if ttl is KEEP:
        raise TypeError(
            "ttl=KEEP is for cas alone, which replaces the value that was read; read it with gets, and"
            " store it with cas(key, value, token, ttl=KEEP)"
        )
    if seconds is None:
        kind = type(ttl).__name__
        raise TypeError(f"ttl must be seconds as a number, a timedelta or None, not {kind}")
    return seconds
