"""The `Client` beneath a `HashClient`: its nodes, health and pools, with pymemcache's keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from shardcache.clients.blocking import Client
from shardcache.clients.namespaces import Namespace
from shardcache.compat.pymemcache import operations
from shardcache.compat.pymemcache.cluster import KeyRules, SerdeCluster
from shardcache.compat.pymemcache.errors import errors_in
from shardcache.compat.pymemcache.operations import Side
from shardcache.compat.pymemcache.values import Item
from shardcache.core.lifetimes import DEFAULT, TTL
from shardcache.core.placement.nodes import Node
from shardcache.core.values.payloads import Payloads
from shardcache.errors import NodeRefusedError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.routing import Key
from shardcache.operations.port import run
from shardcache.settings import Settings

# Values are the caller's own objects and tokens are opaque, hence `Any`.


class SerdeClient(Client):
    """A client whose calls take `Item`s in place of values, and raise whatever `on_error` is."""

    def __init__(
        self,
        nodes: Iterable[Node],
        *,
        rules: KeyRules,
        values: Payloads,
        **settings: Any,  # as `Client` takes them
    ) -> None:
        """Create a client with pymemcache's placement."""
        self._make_cluster = partial(SerdeCluster, rules=rules, values=values)
        super().__init__(nodes, strategy="pymemcache", **settings)

    def set_many(self, mapping: Mapping[Key, Any], ttl: TTL = DEFAULT) -> list[Key]:
        """Store every item. Text and bytes are stored apart: equal names may be on different nodes."""
        text: dict[Key, Any] = {key: item for key, item in mapping.items() if isinstance(key, str)}
        if len(text) in {0, len(mapping)}:
            return super().set_many(mapping, ttl)
        raw = {key: item for key, item in mapping.items() if key not in text}
        return super().set_many(text, ttl) + super().set_many(raw, ttl)

    def gets_many(self, keys: Iterable[Key]) -> dict[Key, tuple[Any, Any]]:
        """Return the keys found, each with its value and a token for `cas`."""
        return run(lambda: operations.gets_many(self._cluster, keys))

    def extend(self, key: Key, item: Item, side: Side) -> bool:
        """Add data at one side of a stored value; return whether there was one."""
        return run(lambda: operations.extend(self._cluster, key, item, side))

    def note_refusals(self, error: Exception) -> bool:
        """Count and log the errors of a call if all are refusals of nodes; return whether."""
        errors = errors_in(error)
        refusals = [each for each in errors if isinstance(each, NodeRefusedError)]
        if len(refusals) < len(errors):
            return False
        known = {**self._cluster.spares, **self._cluster.members}
        for refusal in refusals:
            known[refusal.node].swallowed += 1
            self._cluster.note_swallowed(refusal)
        return True

    def _cluster_type(self, _settings: Settings, _namespace: Namespace) -> Callable[..., Cluster]:
        return self._make_cluster
