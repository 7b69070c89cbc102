"""The names of generations, and which of them is in force when nodes say different things.

A name is 16 hexadecimal digits: milliseconds since 1970 in the first 12, then chance. The newest is
the greatest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from shardcache.core.commands import Payload
from shardcache.core.leases import quorum
from shardcache.core.payloads import MARK_FLAGS

FIRST: Final = ""  # the name of the generation before any other
MOST_AHEAD: Final = 24 * 3600.0  # seconds that the clock of whoever began it may be ahead

_is_name = re.compile(rb"[0-9a-f]{16}").fullmatch
_CHANCE_BITS: Final = 16
_MILLISECONDS: Final = 1000


def believed(payload: Payload | None, wall: float) -> str:
    """Return the generation that a node keeps; `FIRST` for none, and for what cannot be one.

    That is anything but a name, and a name more than a day ahead of `wall`, the time of our clock:
    no generation would come after it.

    >>> believed((MARK_FLAGS, b"018c5f3e2a10beef"), 1702500000.0)
    '018c5f3e2a10beef'
    >>> believed((MARK_FLAGS, b"ffffffffffffffff"), 1702500000.0), believed(None, 0.0)
    ('', '')
    """
    if payload is None or payload[0] != MARK_FLAGS or not _is_name(payload[1]):
        return FIRST
    name = payload[1].decode()
    return FIRST if _began(name) > wall + MOST_AHEAD else name


def in_force(heard: Sequence[str], nodes: int) -> str:
    """Return the generation in force, of those `heard` from some of so many nodes.

    It is the newest that a majority may have, those counted that were not heard: a newer one that
    is in force is never missed, and what a majority denies is not believed.

    >>> in_force(["2", "2", "1"], 3), in_force(["9", "1", "1"], 3), in_force(["2", "1"], 3)
    ('2', '1', '2')
    """
    return _held_by(quorum(nodes) - (nodes - len(heard)), heard)


def is_decided(heard: Sequence[str], nodes: int) -> bool:
    """Return whether those not heard yet could not change which generation is in force.

    >>> is_decided(["1", "1"], 3), is_decided(["2", "1"], 3), is_decided(["1"], 3)
    (True, False, False)
    """
    wanted = quorum(nodes)
    return len(heard) >= wanted and _held_by(wanted, heard) == in_force(heard, nodes)


def _held_by(count: int, names: Sequence[str]) -> str:
    """Return the newest name that at least so many have, or a newer one."""
    return sorted([*names, FIRST], reverse=True)[max(0, count - 1)]


def newer(known: Sequence[str], heard: Sequence[str], wall: float, chance: bytes) -> str:
    """Return the name of a generation after all that are `known`, also when clocks differ.

    It is after those `heard` from single nodes as well, but for those so far ahead that it might not
    be believed itself: they were planted.

    >>> newer(["018c5f3e2a10beef"], [], 0.0, bytes(2))
    '018c5f3e2a10bef0'
    """
    now = int(wall * _MILLISECONDS) << _CHANCE_BITS | int.from_bytes(chance[:2], "big")
    near = [name for name in heard if _began(name) <= wall + MOST_AHEAD / 2]
    return f"{max(now, int(max([*known, *near]) or '0', 16) + 1):016x}"


def _began(name: str) -> float:
    """Return when a generation began, by the clock of whoever began it."""
    return (int(name or "0", 16) >> _CHANCE_BITS) / _MILLISECONDS
