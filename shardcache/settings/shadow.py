"""Other nodes that answer the same reads beside a client's own, to be compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shardcache.core.lifetimes import positive_seconds
from shardcache.core.numeric import real, whole
from shardcache.core.placement.nodes import MEMORY, Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.secrecy import takes_secrets
from shardcache.errors import ConfigurationError
from shardcache.settings.nodes import node_list

MIN_SAMPLE: Final = 0.000_001
MAX_WAIT: Final = 3_600.0  # seconds


@dataclass(frozen=True, slots=True, init=False)
class Shadow:
    """Compare a sample of all reads with what other nodes have, before you switch to those.

    `nodes` are read, and never written. `sample` is the share of the keys that are compared, at
    most 1. `strategy` places keys on `nodes`; `None` is the client's own strategy. A difference
    counts if it is still there `settle` seconds later, as a write may be on its way to both sides.
    Times to live may differ by `ttl_tolerance` seconds, as memcached counts whole ones. At most `queue`
    keys wait to be compared; more are dropped.

    >>> Shadow("redis://10.0.0.9", sample=0.1).nodes
    (Node('redis://10.0.0.9:6379', name='10.0.0.9:6379', weight=1),)
    """

    nodes: tuple[Node, ...]
    sample: float
    strategy: str | Strategy | None
    settle: float
    ttl_tolerance: float
    queue: int

    @takes_secrets
    def __init__(  # noqa: PLR0913 - each is a field
        self,
        nodes: str | Node | Iterable[str | Node],
        *,
        sample: float = 0.01,
        strategy: str | Strategy | None = None,
        settle: float | timedelta = 2.0,
        ttl_tolerance: float | timedelta = 2.0,
        queue: int = 10_000,
    ) -> None:
        """Check all fields; raise `ConfigurationError` listing every fault."""
        faults: list[str] = []
        for name, read, value in (
            ("nodes", _nodes, nodes),
            ("sample", _sample, sample),
            ("strategy", _strategy, strategy),
            ("settle", _wait, settle),
            ("ttl_tolerance", _wait, ttl_tolerance),
            ("queue", _queue, queue),
        ):
            try:
                object.__setattr__(self, name, read(value))
            except ConfigurationError as error:
                faults += [f"{name}: {fault}" for fault in error.faults]
        if faults:
            raise ConfigurationError(*faults)


def _nodes(value: object) -> tuple[Node, ...]:
    nodes = node_list(value)
    if any(node.address.scheme == MEMORY for node in nodes):
        raise ConfigurationError("a memory node is empty until its client writes to it")
    return nodes


def _sample(value: object) -> float:
    share = real(value)
    if share is None or not MIN_SAMPLE <= share <= 1:
        raise ConfigurationError(f"must be a number from {MIN_SAMPLE:f} to 1")
    return share


def _strategy(value: object) -> object:
    if value is not None and not isinstance(getattr(value, "name", value), str):
        raise ConfigurationError("must be the name of a strategy, or a strategy")
    return value


def _wait(value: object) -> float:
    return 0.0 if value == 0 else positive_seconds(value, MAX_WAIT)


def _queue(value: object) -> int:
    size = whole(value)
    if size is None or size < 1:
        raise ConfigurationError("must be a whole number of at least 1")
    return size
