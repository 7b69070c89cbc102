"""From a timeout, as users of cachelib write it, to the seconds that a value lives."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import TypeAlias

from shardcache.core.lifetimes import ttl_of_any_length

Timeout: TypeAlias = "float | Decimal | str | timedelta"


def seconds_to_live(timeout: Timeout) -> float | None:
    """Return a timeout in seconds; `None`, no expiry, for 0 and for more than ten years.

    Zero and ten years are cachelib's meaning and the servers' limit. A timeout below zero is over.
    Raise `TypeError` if it is neither a number, the text of one, nor a `timedelta`.

    >>> seconds_to_live(60), seconds_to_live("60"), seconds_to_live(timedelta(minutes=1))
    (60.0, 60.0, 60.0)
    >>> seconds_to_live(0), seconds_to_live(10**10), seconds_to_live(-1)
    (None, None, 0.0)
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else _number(timeout)
    return None if seconds == 0 else ttl_of_any_length(max(0.0, seconds))


def _number(timeout: float | Decimal | str) -> float:
    try:
        seconds = float(timeout)
    except OverflowError:  # a whole number beyond all floats
        return math.inf if timeout > 0 else -math.inf  # type: ignore[operator] # no text overflows
    except (TypeError, ValueError):
        seconds = math.nan
    if math.isnan(seconds):
        raise TypeError(f"timeout must be seconds as a number, or a timedelta, not {timeout!r}")
    return seconds
