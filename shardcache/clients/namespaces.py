"""What the handles on one client share about a namespace."""

from __future__ import annotations

from shardcache.clients.prefixes import PrefixRegistry
from shardcache.core.keys import KeySpace
from shardcache.operations.invalidation.generations import Generations


class Namespace:
    """The keys of a namespace, their generations, and the functions that are cached in it.

    A client and its views of the same namespace share one, so that what one of them clears or
    invalidates is gone for the others at once.
    """

    __slots__ = ("__weakref__", "generations", "keys", "prefixes")

    def __init__(self, name: str) -> None:
        self.keys = KeySpace(name)
        self.generations = Generations(self.keys)
        self.prefixes = PrefixRegistry()
