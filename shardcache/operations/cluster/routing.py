"""From a caller's key to its place: its name, its owner, and the bytes that are hashed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from shardcache.core.keys import KeySpace
from shardcache.core.placement.topology import Topology
from shardcache.core.reserved_keys import TAGS
from shardcache.operations.cluster.failover import Failover
from shardcache.operations.cluster.members import Member

Key = str | bytes

# Where a key belongs: its canonical name, the member of its owner, and the bytes that the strategy
# hashes, from which `Cluster.preferred` finds the nodes after the owner. It is a plain tuple because
# every operation builds one: a NamedTuple costs 0.2 µs more, which a `get_many` pays for each key.
Place: TypeAlias = tuple[bytes, Member, bytes]
Route: TypeAlias = Callable[[Key], Place]
OwnerOf: TypeAlias = Callable[[bytes], Member]
HashedOf: TypeAlias = Callable[[bytes], bytes]

# For each node, the canonical names of the callers' keys that it holds.
Groups: TypeAlias = dict[Member, dict[Key, bytes]]
Grouping: TypeAlias = Callable[[Iterable[Key]], Groups]


def router(topology: Topology, members: Mapping[str, Member], keys: KeySpace) -> Route:
    """Return the function from a caller's key to its place.

    It is built once per topology: a `get` pays for one call and two look-ups.
    """
    owner, encode, canonical = topology.owner, keys.encode, keys.canonical
    if topology.strategy.hashes_namespace:

        def route(key: Key) -> Place:
            name = canonical(encode(key))
            return name, members[owner(name).name], name
    else:

        def route(key: Key) -> Place:
            raw = encode(key)
            return canonical(raw), members[owner(raw).name], raw

    return route


def detouring(route: Route, failover: Failover) -> Route:
    """Return `route` with a stand-in in place of the owner, while that is ejected."""
    stand_in = failover.stand_in

    def detouring_route(key: Key) -> Place:
        place = route(key)
        name, member, hashed = place
        return (name, stand_in(member, hashed), hashed) if member.health.ejected else place

    return detouring_route


def grouping(route: Route) -> Grouping:
    """Return the function that groups callers' keys by the members that `route` names, each key once."""

    def group(keys: Iterable[Key]) -> Groups:
        groups: Groups = {}
        for key in keys:
            name, member, _ = route(key)
            groups.setdefault(member, {})[key] = name
        return groups

    return group


def grouper(topology: Topology, members: Mapping[str, Member], keys: KeySpace) -> Grouping:
    """Return what `grouping` returns for the route of `router`, as one loop: that takes half the time."""
    owners, encode_all = topology.owners, keys.encode_all
    if len(members) == 1:
        return _grouping_of_one(next(iter(members.values())), keys)
    hashes_namespace = topology.strategy.hashes_namespace

    def group(keys: Iterable[Key]) -> Groups:
        listed = list(keys)
        raws, names = encode_all(listed)
        nodes = owners(names if hashes_namespace else raws)
        groups: defaultdict[str, dict[Key, bytes]] = defaultdict(dict)
        for key, name, node in zip(listed, names, nodes, strict=True):
            groups[node.name][key] = name
        return {members[node]: of_node for node, of_node in groups.items()}

    return group


def _grouping_of_one(member: Member, keys: KeySpace) -> Grouping:
    """Return the grouping of the only member, in half the time: no key is hashed."""
    encode_all = keys.encode_all

    def group(keys: Iterable[Key]) -> Groups:
        listed = list(keys)
        _, names = encode_all(listed)
        return {member: dict(zip(listed, names, strict=True))} if listed else {}

    return group


def grouping_detours(group: Grouping, route: Route) -> Grouping:
    """Return `group` while no node is ejected, else what `grouping` returns for `route`."""
    one_by_one = grouping(route)

    def detouring_group(keys: Iterable[Key]) -> Groups:
        listed = list(keys)
        groups = group(listed)
        ejected = any(member.health.ejected for member in groups)
        return one_by_one(listed) if ejected else groups

    return detouring_group


def hashed_by_name(topology: Topology, keys: KeySpace) -> HashedOf:
    """Return the function from the canonical name of a key, or of a tag's version, to what is hashed.

    Commands carry names, not the callers' keys. While keys move, it finds their other node.
    """
    raw = keys.raw
    if topology.strategy.hashes_namespace:
        return lambda name: name.removeprefix(TAGS)
    return lambda name: raw(name.removeprefix(TAGS))


def owner_by_name(topology: Topology, members: Mapping[str, Member], hashed: HashedOf) -> OwnerOf:
    """Return the function from such a name to its owner."""
    owner = topology.owner
    return lambda name: members[owner(hashed(name)).name]


def reached_by_name(owner: OwnerOf, hashed: HashedOf, failover: Failover | None) -> OwnerOf:
    """Return the function from such a name to its owner, or to the stand-in while that is ejected."""
    if failover is None:
        return owner
    stand_in = failover.stand_in

    def reached(name: bytes) -> Member:
        member = owner(name)
        return stand_in(member, hashed(name)) if member.health.ejected else member

    return reached
