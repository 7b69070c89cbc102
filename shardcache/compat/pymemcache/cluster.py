"""The nodes of a `HashClient`, with keys under pymemcache's names and in pymemcache's places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pymemcache.client.base import check_key_helper  # type: ignore[import-untyped]  # it has no types
from pymemcache.exceptions import MemcacheIllegalInputError  # type: ignore[import-untyped]  # as above

from shardcache.compat.pymemcache.values import Name
from shardcache.core.commands import Payload
from shardcache.core.placement.topology import Topology
from shardcache.core.values.flags import BARE_STUB, RAW_FLAGS
from shardcache.core.values.payloads import Decode, Payloads
from shardcache.errors import NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.failover import Failover
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key, Place, Route, detouring, grouping

_EMPTY: Final[Payload] = (RAW_FLAGS, b"")  # empty bytes that no stub looks like


class KeyRules(NamedTuple):
    """How pymemcache names a key and hashes it: the prefix is sent, but not hashed."""

    prefix: bytes
    unicode_keys: bool

    def name(self, key: Key) -> Name:
        """Return the name of a key; raise `MemcacheIllegalInputError` if pymemcache refuses it."""
        if not isinstance(key, (str, bytes)):
            raise TypeError(f"a key must be str or bytes, not {type(key).__name__}")
        try:
            checked = check_key_helper(key, self.unicode_keys, self.prefix)
        except UnicodeEncodeError as error:
            raise MemcacheIllegalInputError(f"the key is not Unicode: {error.reason}") from error
        if not checked:
            raise MemcacheIllegalInputError("the key is empty")
        name = Name(checked)
        name.key = key
        return name

    def router(self, topology: Topology, members: Mapping[str, Member]) -> Route:
        """Return the function from a caller's key to its place."""
        owner, name_of = topology.owner, self.name

        def route(key: Key) -> Place:
            name = name_of(key)
            # pymemcache hashes the text of a bytes key as Python prints it, with b and quotes.
            hashed = (key if isinstance(key, str) else repr(key)).encode()
            return name, members[owner(hashed).name], hashed

        return route


class SerdeCluster(Cluster):
    """The nodes of a `HashClient`. Whatever `on_error` is, the failure of a node is raised.

    `on_error="miss"` lets failures be counted and logged as swallowed. It is `HashClient` that
    swallows them, because a failed `incr` must not look like a missing counter.
    """

    __slots__ = ("_rules",)

    def __init__(self, *, rules: KeyRules, values: Payloads, **parts: Any) -> None:
        """Take the parts of a `Cluster`, with other names, places and values."""
        self._rules = rules
        super().__init__(**{**parts, "payloads": values})

    def use_failover(self, failover: Failover | None) -> None:
        """Choose the route to keys, by pymemcache's names and places."""
        self.failover = failover
        self.home = self._rules.router(self.topology, self.members)
        self.route = self.home if failover is None else detouring(self.home, failover)
        self.group = grouping(self.route)

    def own_name(self, name: bytes) -> bytes:
        """Return the canonical name of a key; one that knows its key stays as it is."""
        return name if isinstance(name, Name) else super().own_name(name)

    def route_name(self, name: bytes) -> Place:
        """Return the place of a key by its name."""
        return self.route(name.key) if isinstance(name, Name) else super().route_name(name)

    def unwrap(self, reply: Any, default: Any) -> Any:  # the reply is of its command's type
        """Return `reply`; raise an error in its place."""
        if isinstance(reply, NodeError):
            raise reply
        return super().unwrap(reply, default)

    def value(
        self,
        member: Member,
        name: bytes,
        payload: Payload | None,
        default: Any,
        decode: Decode | None = None,
    ) -> Any:
        """Return the value of a payload, or `default`; empty bytes without flags are a value, no stub."""
        if payload == BARE_STUB:
            read = decode or self.payloads.decode
            return super().value(
                member, name, _EMPTY, default, lambda name, _: read(name, BARE_STUB)
            )
        return super().value(member, name, payload, default, decode)
