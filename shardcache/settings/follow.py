"""How a client that follows its file of settings changes its nodes: the file's table `[follow]`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, NamedTuple

from shardcache.core.lifetimes import seconds_or_zero
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import Faults, unknown

TABLE: Final = "follow"
MOST_WARM: Final = 7 * 24 * 3600.0  # seconds for which old nodes may be read
MOST_ANNOUNCED: Final = 3600.0  # seconds


class Follow(NamedTuple):
    """The seconds for which next nodes are announced before the switch, and old ones read after it."""

    warm_for: float = 0.0
    announce_for: float = 0.0


_MOST: Final = {"warm_for": MOST_WARM, "announce_for": MOST_ANNOUNCED}


def read_follow(table: object) -> Follow:
    """Return the times of a table; raise `ConfigurationError` listing every fault."""
    if not isinstance(table, Mapping):
        raise ConfigurationError("must be a table")
    faults, found = Faults(), {}
    for name, value in table.items():
        with faults.of(str(name)):
            if name not in _MOST:
                raise unknown(name, _MOST)
            found[name] = seconds_or_zero(value, _MOST[name])
    faults.report()
    return Follow(**found)


def follow_seconds(name: str, value: float | timedelta) -> float:
    """Return one of the times as an argument; the error names it."""
    try:
        return seconds_or_zero(value, _MOST[name])
    except ConfigurationError as error:
        raise ConfigurationError(f"{name} {error}") from None
