"""The arithmetic of a lock over many nodes: how many must agree, and for how long the lock holds.

Source: Redis' description of the Redlock algorithm. memcached, which counts whole seconds, is
allowed for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from shardcache.core.lifetimes import positive_seconds
from shardcache.errors import ConfigurationError

if TYPE_CHECKING:  # tenacity takes as long to load as all of shardcache
    from tenacity import RetryCallState

WaitStrategy: TypeAlias = "Callable[[RetryCallState], float]"

MAX_LOCK_NODES: Final = 5

DRIFT: Final = 0.01  # of the time to live: how far the clocks of nodes may run apart
DRIFT_CONSTANT: Final = 0.002  # seconds, for expiries in whole milliseconds
MIN_VALIDITY: Final = 0.1  # of the time to live: a shorter lease is not worth holding
COARSE: Final = 1.0  # seconds: how early a node that counts whole seconds may expire a key
COARSE_TTL: Final = 2.0  # seconds: the least that such a node is asked for; less may expire at once
MAX_TTL: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPolicy:
    """Keep a lock for a slow holder, and free it soon after the holder dies.

    `ttl` is for how many seconds nodes keep the lock unless it is renewed; if the holder is killed,
    other clients wait that long. With `renew` the lock is renewed in the background, every third of
    the ttl, for up to `max_hold` seconds: a slow holder keeps it. `backoff` is how long a waiting
    client pauses between attempts: any wait strategy of tenacity, by default 10 ms growing to
    100 ms, each up to a quarter longer or shorter.
    """

    ttl: float = 5.0
    renew: bool = True
    max_hold: float = 60.0
    backoff: WaitStrategy | None = None

    def __post_init__(self) -> None:
        """Convert lengths of time to seconds; raise `ConfigurationError` listing every bad field."""
        faults = [*self._convert_seconds("ttl"), *self._convert_seconds("max_hold")]
        if self.backoff is not None and not callable(self.backoff):
            faults.append(f"backoff must be a wait strategy of tenacity, not {self.backoff!r}")
        if faults:
            raise ConfigurationError(*(f"lock: {fault}" for fault in faults))

    def _convert_seconds(self, name: str) -> Iterator[str]:
        try:
            object.__setattr__(self, name, positive_seconds(getattr(self, name), MAX_TTL))
        except ConfigurationError as error:
            yield f"{name} {error.faults[0]}"


OnLost: TypeAlias = Literal["raise", "ignore"]


def lock_node_count(nodes: int) -> int:
    """Return on how many of `nodes` nodes a lock is taken: the largest odd number, at most five.

    >>> [lock_node_count(count) for count in (1, 2, 3, 4, 5, 100)]
    [1, 1, 3, 3, 5, 5]
    """
    return min(MAX_LOCK_NODES, nodes - (nodes % 2 == 0))


def quorum(nodes: int) -> int:
    """Return how many of `nodes` nodes are a majority.

    >>> [quorum(count) for count in (1, 3, 5)]
    [1, 2, 3]
    """
    return nodes // 2 + 1


def node_ttl(ttl: float, *, whole_seconds: bool) -> float:
    """Return for how many seconds a node is asked to keep a key that must last `ttl` seconds.

    A node that counts `whole_seconds` may expire it up to a second early.

    >>> [node_ttl(ttl, whole_seconds=True) for ttl in (0.5, 1.0, 2.5)], node_ttl(0.5, whole_seconds=False)
    ([2.0, 2.0, 3.0], 0.5)
    """
    return max(COARSE_TTL, float(math.ceil(ttl))) if whole_seconds else ttl


def validity(ttl: float, elapsed: float, *, whole_seconds: bool) -> float:
    """Return for how many seconds from now a lock holds that was requested `elapsed` seconds ago.

    `whole_seconds` is whether any of its nodes counts whole seconds: it may expire the lock early.

    >>> [round(validity(10.0, 0.5, whole_seconds=coarse), 3) for coarse in (False, True)]
    [9.398, 8.398]
    >>> round(validity(1.0, 0.1, whole_seconds=True), 3)  # the node was asked for two
    0.888
    """
    node_life = node_ttl(ttl, whole_seconds=True) - COARSE if whole_seconds else ttl
    return min(ttl, node_life) - elapsed - DRIFT * ttl - DRIFT_CONSTANT


def long_enough(seconds: float, ttl: float) -> bool:
    """Return whether a lock that still holds for `seconds` is worth holding."""
    return seconds >= MIN_VALIDITY * ttl
