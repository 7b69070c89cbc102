"""From a key to its canonical name and the member that owns it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shardcache.core.keys import KeySpace
from shardcache.core.placement.topology import Topology
from shardcache.operations.cluster.members import Member

Key = str | bytes


Route = Callable[[Key], tuple[bytes, Member]]


def router(topology: Topology, members: Mapping[str, Member], keys: KeySpace) -> Route:
    """Give the function from a caller's key to its canonical name and the member of its owner.

    Built once per topology: on the way of a `get` it is one call and two look-ups.
    """
    owner, encode, canonical = topology.owner, keys.encode, keys.canonical
    if topology.strategy.hashes_namespace:

        def route(key: Key) -> tuple[bytes, Member]:
            name = canonical(encode(key))
            return name, members[owner(name).name]
    else:

        def route(key: Key) -> tuple[bytes, Member]:
            raw = encode(key)
            return canonical(raw), members[owner(raw).name]

    return route
