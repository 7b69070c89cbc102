"""The arithmetic of a lock over many nodes: how many must agree, and for how long it then holds.

Source: Redis' description of the Redlock algorithm, with the clock of memcached taken into account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from shardcache.core.reserved import LOCKS
from shardcache.core.timeouts import positive_seconds
from shardcache.errors import ConfigurationError

if TYPE_CHECKING:  # it takes as long to load as all of shardcache
    from tenacity import RetryCallState

WaitStrategy: TypeAlias = "Callable[[RetryCallState], float]"

MOST_NODES: Final = 5

DRIFT: Final = 0.01  # of the time to live: how far the clocks of nodes may run apart
DRIFT_CONSTANT: Final = 0.002  # seconds, for expiries in whole milliseconds
WORTHWHILE: Final = 0.1  # of the time to live: a lease of less is not worth having
COARSE: Final = 1.0  # seconds by which a node that counts whole ones may be early
COARSE_TTL: Final = 2.0  # seconds; such a node is asked for no less, which may be gone at once
MAX_TTL: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPolicy:
    """Hold a lock long enough, and no longer when its holder has died.

    `ttl` is for how many seconds nodes keep it for a holder of whom nothing more is heard: so long
    others wait for one that was killed. With `renew` it is prolonged in the background, every third
    of that, until it has been held for `max_hold` seconds: a slow holder keeps it. `backoff` is
    how long those who wait pause between two looks: any wait strategy of tenacity, by default 10 ms
    growing to 100 ms, each a quarter more or less.
    """

    ttl: float = 5.0
    renew: bool = True
    max_hold: float = 60.0
    backoff: WaitStrategy | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` listing every field that makes no sense."""
        faults = [*self._with_seconds("ttl"), *self._with_seconds("max_hold")]
        if self.backoff is not None and not callable(self.backoff):
            faults.append(f"backoff must be a wait strategy of tenacity, not {self.backoff!r}")
        if faults:
            raise ConfigurationError(*(f"lock: {fault}" for fault in faults))

    def _with_seconds(self, name: str) -> Iterator[str]:
        try:
            object.__setattr__(self, name, positive_seconds(getattr(self, name), MAX_TTL))
        except ConfigurationError as error:
            yield f"{name} {error.faults[0]}"


OnLost: TypeAlias = Literal["raise", "ignore"]


def lock_key(name: bytes, prefix: bytes = LOCKS) -> bytes:
    """Return the key under which a lock is kept; no caller's key is like it.

    >>> lock_key(b"report")
    b'~sc:l:report'
    """
    return prefix + name


def nodes_wanted(nodes: int) -> int:
    """Return on how many of so many nodes a lock is taken: the largest odd number, at most five.

    >>> [nodes_wanted(count) for count in (1, 2, 3, 4, 5, 100)]
    [1, 1, 3, 3, 5, 5]
    """
    return min(MOST_NODES, nodes - (nodes % 2 == 0))


def quorum(nodes: int) -> int:
    """Return how many of so many nodes are a majority.

    >>> [quorum(count) for count in (1, 3, 5)]
    [1, 2, 3]
    """
    return nodes // 2 + 1


def node_ttl(ttl: float, *, whole_seconds: bool) -> float:
    """Return for how many seconds a node is asked to keep what is to be held for `ttl` of them.

    One that counts `whole_seconds` may drop it up to a second early.

    >>> [node_ttl(ttl, whole_seconds=True) for ttl in (0.5, 1.0, 2.5)], node_ttl(0.5, whole_seconds=False)
    ([2.0, 2.0, 3.0], 0.5)
    """
    return max(COARSE_TTL, float(math.ceil(ttl))) if whole_seconds else ttl


def validity(ttl: float, elapsed: float, *, whole_seconds: bool) -> float:
    """Return for how many seconds from now a lock holds, asked for `elapsed` seconds ago.

    `whole_seconds` is whether one of its nodes counts so: then no longer than that is sure to keep it.

    >>> [round(validity(10.0, 0.5, whole_seconds=coarse), 3) for coarse in (False, True)]
    [9.398, 8.398]
    >>> round(validity(1.0, 0.1, whole_seconds=True), 3)  # the node was asked for two
    0.888
    """
    kept = node_ttl(ttl, whole_seconds=True) - COARSE if whole_seconds else ttl
    return min(ttl, kept) - elapsed - DRIFT * ttl - DRIFT_CONSTANT


def long_enough(seconds: float, ttl: float) -> bool:
    """Return whether a lock that holds for so long yet is worth having."""
    return seconds >= WORTHWHILE * ttl
