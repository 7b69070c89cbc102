"""Where the keys of a node that is down are kept meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from shardcache.core.lifetimes import MAX_SECONDS, positive_seconds
from shardcache.core.placement.nodes import Node
from shardcache.core.secrecy import takes_secrets
from shardcache.core.timeouts import TTL_CAP
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import Faults, unknown
from shardcache.settings.nodes import node_list

_TABLE_KEYS: Final = ("nodes", "ttl_cap")


@dataclass(frozen=True, slots=True, init=False)
class Gutter:
    """Spare nodes that keep the keys of nodes that are down, each value for at most `ttl_cap` seconds.

    Without spare nodes those keys go to the other nodes (`failover="next"`), which then have more to
    do and to store. The name is that of Facebook's memcache (Nishtala et al., NSDI 2013).

    >>> Gutter("memory://spare1,spare2", ttl_cap=30).nodes[0].name
    'spare1'
    """

    nodes: tuple[Node, ...]
    ttl_cap: float = TTL_CAP

    @takes_secrets
    def __init__(
        self,
        nodes: str | Node | Iterable[str | Node],
        ttl_cap: float | timedelta = TTL_CAP,
    ) -> None:
        """Check URLs or `Node`s, and a time in seconds; raise `ConfigurationError` for all faults."""
        faults = Faults()
        with faults.of("nodes"):
            object.__setattr__(self, "nodes", node_list(nodes))
        with faults.of("ttl_cap"):
            object.__setattr__(self, "ttl_cap", positive_seconds(ttl_cap, MAX_SECONDS))
        faults.report()


Failover: TypeAlias = Literal["miss", "next"] | Gutter


def read_failover(value: object) -> Failover:
    """Return a choice, a `Gutter`, or the gutter of a table or of URLs between blanks."""
    if isinstance(value, Gutter):
        return value
    if value == "miss":
        return "miss"
    if value == "next":
        return "next"
    if isinstance(value, Mapping):
        return _from_table(value)
    if isinstance(value, str) and "://" in value:
        return Gutter(value.split())
    raise ConfigurationError("no such choice (known: miss, next, a Gutter or URLs of spare nodes)")


def _from_table(table: Mapping[object, object]) -> Gutter:
    """Return the gutter of `{nodes = […], ttl_cap = …}`; the second is optional."""
    faults = Faults()
    for key in table:
        if key not in _TABLE_KEYS:
            with faults.of(redact(key)):
                raise unknown(key, _TABLE_KEYS)
    if "nodes" not in table:
        faults.add("nodes", ConfigurationError("is missing (a list of URLs)"))
    faults.report()
    return Gutter(**table)  # type: ignore[arg-type]  # Gutter checks the types
