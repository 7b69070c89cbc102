"""The clients of a process: one of each kind for a configuration, shared by all backend objects.

Django creates a backend object for each thread and each context, and closes it after each request.
Connections and the health of nodes must outlive that.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from shardcache import AsyncClient, Client, ConfigurationError
from shardcache.core.secrecy import takes_secrets
from shardcache_django.configuration import client_arguments, derive_secrets


class Clients(NamedTuple):
    """The clients of one configuration, and their views that raise when a node fails.

    The views are for calls that must not take a dead node for a missing key.
    """

    blocking: Client
    strict: Client
    asyncio: AsyncClient
    strict_asyncio: AsyncClient
    clearable: bool


# A plain dict, because each of its steps is atomic: a lock could stay locked after a fork.
_clients: Final[dict[Hashable, Clients]] = {}


@takes_secrets
def clients_of(location: object, options: Mapping[str, Any]) -> Clients:
    """Return the clients of a configuration; raise `ImproperlyConfigured` listing every fault."""
    key = (_hashable(location), _hashable(options), tuple(derive_secrets()))
    found = _clients.get(key)
    if found is None:
        try:
            created = _create(client_arguments(location, options))
        except ConfigurationError as error:
            raise ImproperlyConfigured(f"CACHES: {error}") from error
        found = _clients.setdefault(key, created)  # another thread may have been faster
    return found


def _create(arguments: Mapping[str, Any]) -> Clients:
    """Return new clients; they connect to nothing before their first calls."""
    blocking, asyncio = Client(**arguments), AsyncClient(**arguments)
    return Clients(
        blocking,
        blocking.view(on_error="raise"),
        asyncio,
        asyncio.view(on_error="raise"),
        clearable=arguments.get("clearable", False),
    )


def _hashable(value: Any) -> Hashable:
    """Return a value of settings as one that can be a key: lists and dicts as tuples.

    Of what has no hash, as an observer that is a dataclass, each object is a configuration of its own.
    """
    if isinstance(value, Mapping):
        return tuple((name, _hashable(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Hashable) else _Same(value)


class _Same:
    """An object as a key. It is kept, so that no later object can have its identity."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)
