"""One node as a client knows it: its backend, its health, and what was asked of it."""

from __future__ import annotations

from typing import Any
from weakref import ref

from shardcache.core.health import Health
from shardcache.core.nodes import Node
from shardcache.errors import NodeError


class Link:
    """One node as this client knows it: its backend, its health, and counters of what was asked.

    `answered` counts calls that got a valid reply, `refused` those not sent because the node is
    ejected.

    Counters are plain integers: CPython switches threads only at calls and jumps, and `x.n += 1`
    has neither between its load and its store, so no count is lost.
    """

    __slots__ = (
        "answered",
        "backend",
        "blamed",
        "decode_failures",
        "ejections",
        "errors",
        "health",
        "hits",
        "lacks",
        "misses",
        "node",
        "refused",
        "seconds",
        "swallowed",
        "whole_seconds",
    )

    def __init__(self, node: Node, backend: Any) -> None:  # Backend or AsyncBackend: io knows which
        self.node = node
        self.backend = backend
        self.lacks: frozenset[type] = getattr(backend, "lacks", frozenset())
        self.whole_seconds: bool = getattr(backend, "whole_seconds", False)
        self.health = Health()
        self.blamed: ref[NodeError] | None = None  # the last error it was blamed for
        self.answered = 0
        self.refused = 0
        self.ejections = 0
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self.swallowed = 0
        self.decode_failures = 0
        self.seconds = 0.0

    @property
    def suspect(self) -> bool:
        """Say whether the node has kept silent since it last answered."""
        return self.health.silent(self.answered)

    def counters(self) -> dict[str, int | float]:
        """Give this client's counters for the node; `mean_seconds` is over all calls so far."""
        calls = self.answered + self.errors
        return {
            "calls": calls,
            "hits": self.hits,
            "misses": self.misses,
            "errors": self.errors,
            "swallowed_errors": self.swallowed,
            "decode_failures": self.decode_failures,
            "refused_calls": self.refused,
            "ejections": self.ejections,
            "refused_connections": getattr(self.backend, "limited", 0),
            "mean_seconds": self.seconds / calls if calls else 0.0,
        }
