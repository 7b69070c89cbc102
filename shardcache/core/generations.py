"""The names of generations, and which is the current one when nodes disagree.

A name is 16 hexadecimal digits: milliseconds since 1970 in the first 12, then random bits. The
newest name is the greatest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from shardcache.core.commands import Payload
from shardcache.core.leases import quorum
from shardcache.core.values.flags import MARK_FLAGS

FIRST: Final = ""  # the name of the generation before any other
MAX_AHEAD: Final = 24 * 3600.0  # seconds by which the clock of another process may be ahead

_is_name = re.compile(rb"[0-9a-f]{16}").fullmatch
_CHANCE_BITS: Final = 16
_MILLISECONDS: Final = 1000


def parse_generation(payload: Payload | None, wall: float) -> str:
    """Return the generation that a node keeps; `FIRST` if it keeps none, or an impossible one.

    Impossible is anything that is not a name, and a name more than a day ahead of `wall`, this
    process's clock: no new generation could come after it.

    >>> parse_generation((MARK_FLAGS, b"018c5f3e2a10beef"), 1702500000.0)
    '018c5f3e2a10beef'
    >>> parse_generation((MARK_FLAGS, b"ffffffffffffffff"), 1702500000.0), parse_generation(None, 0.0)
    ('', '')
    """
    if payload is None or payload[0] != MARK_FLAGS or not _is_name(payload[1]):
        return FIRST
    name = payload[1].decode()
    return FIRST if _began(name) > wall + MAX_AHEAD else name


def current_generation(answers: Sequence[str], nodes: int) -> str:
    """Return the current generation, given the answers of some of `nodes` nodes.

    It is the newest generation that a majority may have if the silent nodes have it too. So a newer
    current generation is never missed, and one that a majority does not have is ignored.

    >>> current_generation(["2", "2", "1"], 3), current_generation(["9", "1", "1"], 3)
    ('2', '1')
    >>> current_generation(["2", "1"], 3)
    '2'
    """
    return _held_by(quorum(nodes) - (nodes - len(answers)), answers)


def is_decided(answers: Sequence[str], nodes: int) -> bool:
    """Return whether the nodes that have not answered cannot change the current generation.

    >>> is_decided(["1", "1"], 3), is_decided(["2", "1"], 3), is_decided(["1"], 3)
    (True, False, False)
    """
    majority = quorum(nodes)
    return len(answers) >= majority and (
        _held_by(majority, answers) == current_generation(answers, nodes)
    )


def _held_by(count: int, names: Sequence[str]) -> str:
    """Return the newest name such that at least `count` nodes have it or a newer one."""
    return sorted([*names, FIRST], reverse=True)[max(0, count - 1)]


def next_generation(
    known: Sequence[str], answers: Sequence[str], wall: float, chance: bytes
) -> str:
    """Return the name of a generation after all that are `known`, even if clocks differ.

    It is also after the `answers` of single nodes, except for those so far ahead that the result
    might be ignored itself: they were planted.

    >>> next_generation(["018c5f3e2a10beef"], [], 0.0, bytes(2))
    '018c5f3e2a10bef0'
    """
    now = int(wall * _MILLISECONDS) << _CHANCE_BITS | int.from_bytes(chance[:2], "big")
    plausible = [name for name in answers if _began(name) <= wall + MAX_AHEAD / 2]
    return f"{max(now, int(max([*known, *plausible]) or '0', 16) + 1):016x}"


def _began(name: str) -> float:
    """Return when a generation began, by the clock of the process that began it."""
    return (int(name or "0", 16) >> _CHANCE_BITS) / _MILLISECONDS
