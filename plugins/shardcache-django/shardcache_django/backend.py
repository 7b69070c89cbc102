"""The cache backend: Django's calls, over the clients of a configuration."""

# ruff: noqa: ASYNC109 - `timeout` is the life of a value, and Django's name for it

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.exceptions import SynchronousOnlyOperation

from shardcache import AsyncClient, AsyncLock, Client, EncodeError, Lock
from shardcache.core.keys import check_items, check_keys
from shardcache.core.lifetimes import ttl_of_any_length
from shardcache.core.secrecy import takes_secrets
from shardcache_django.clients import clients_of

T = TypeVar("T")

# Keys, versions and values are of whatever type Django's users give, hence `Any`. A timeout may also be
# `DEFAULT_TIMEOUT`, a plain `object`.
Timeout: TypeAlias = Any

_MISSING: Final[Any] = object()  # in place of a value
_NO_PATTERNS: Final = (
    "shardcache does not list keys: memcached cannot, and Redis reads all of them for it. To drop many"
    " values at once, give them a tag (cache.client.get_or_set(key, factory, tags=[…])) and call"
    " cache.client.invalidate_tag(…), raise VERSION, or call clear() with OPTIONS['clearable']"
)


class ShardCache(BaseCache):  # type: ignore[misc]  # Django has no types
    """Django's cache over many nodes, with the same calls for sync and async code.

    A node that fails is a miss for `get`, `set`, `touch` and `delete`. `add`, `incr`, `decr` and
    `incr_version` raise its `NodeError`, because their callers must not take it for a missing key.
    """

    @takes_secrets
    def __init__(self, location: object, params: Mapping[str, Any]) -> None:
        # First, because Django's own class takes it for granted that the options are a dict.
        self._clients = clients_of(location, params.get("OPTIONS", {}))
        super().__init__(params)

    @property
    def client(self) -> Client:
        """Return the client, for `cached` functions, tags, locks and counters.

        It knows no prefix and no version: `make_key` returns a key with both. All threads share it, so
        do not close it.
        """
        return self._clients.blocking

    @property
    def async_client(self) -> AsyncClient:
        """Return the asyncio client, as `client` is for sync code."""
        return self._clients.asyncio

    def raising(self) -> ShardCache:
        """Return the same cache with calls that each raise the `NodeError` when a node fails."""
        other, clients = copy(self), self._clients
        strict = clients._replace(blocking=clients.strict, asyncio=clients.strict_asyncio)
        other._clients = strict  # noqa: SLF001 - of this class
        return other

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Return the key's value, or `default`."""
        return self._clients.blocking.get(self._name(key, version), default)

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """See `get`."""
        return await self._clients.asyncio.get(self._name(key, version), default)

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Return the values of the keys found; all nodes are asked at once."""
        names = self._names("get_many", keys, version)
        found = self._clients.blocking.get_many(names)
        return {names[name]: value for name, value in found.items()}

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """See `get_many`."""
        names = self._names("aget_many", keys, version)
        found = await self._clients.asyncio.get_many(names)
        return {names[name]: value for name, value in found.items()}

    def set(
        self, key: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        """Store a value."""
        with _picklings_own_errors():
            self._clients.blocking.set(self._name(key, version), value, self._ttl(timeout))

    async def aset(
        self, key: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        """See `set`."""
        name, ttl = self._name(key, version), self._ttl(timeout)
        await _store(self._clients.asyncio.set, self._clients.blocking.set, name, value, ttl)

    def set_many(
        self, data: Mapping[Any, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """Store many values, all nodes at once; return the keys that could not be stored."""
        names, values = self._named_items("set_many", data, version)
        with _picklings_own_errors():
            failed = self._clients.blocking.set_many(values, self._ttl(timeout))
        return [names[name] for name in failed]

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """See `set_many`."""
        names, values = self._named_items("aset_many", data, version)
        calls = self._clients.asyncio.set_many, self._clients.blocking.set_many
        failed = await _store(*calls, values, self._ttl(timeout))
        return [names[name] for name in failed]

    def add(
        self, key: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        """Store a value if the key is missing; return whether it was. Raise when its node fails."""
        with _picklings_own_errors():
            return self._clients.strict.add(self._name(key, version), value, self._ttl(timeout))

    async def aadd(
        self, key: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        """See `add`."""
        name, ttl = self._name(key, version), self._ttl(timeout)
        calls = self._clients.strict_asyncio.add, self._clients.strict.add
        return await _store(*calls, name, value, ttl)

    def get_or_set(
        self, key: Any, default: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> Any:
        """Return the key's value; store `default`, or its result, if there is none that can be read.

        When the node fails, the result is returned and not stored.
        """
        name, client = self._name(key, version), self._clients.blocking
        value = client.get(name, _MISSING)
        if value is not _MISSING:
            return value
        value = default() if callable(default) else default
        ttl = self._ttl(timeout)
        with _picklings_own_errors():
            if client.add(name, value, ttl):
                return value
            found = client.get(name, _MISSING)
            if found is not _MISSING:  # another caller was faster
                return found
            # What is there cannot be read, and would stay until it expires.
            client.replace(name, value, ttl)
        return value

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> Any:
        """See `get_or_set`; the result of `default` is awaited if it can be."""
        name, client = self._name(key, version), self._clients.asyncio
        value = await client.get(name, _MISSING)
        if value is not _MISSING:
            return value
        value = default() if callable(default) else default
        if inspect.isawaitable(value):
            value = await value
        twin, ttl = self._clients.blocking, self._ttl(timeout)
        if await _store(client.add, twin.add, name, value, ttl):
            return value
        found = await client.get(name, _MISSING)
        if found is not _MISSING:
            return found
        await _store(client.replace, twin.replace, name, value, ttl)  # as above
        return value

    def touch(self, key: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Set the key's expiry; return whether the key was there."""
        return self._clients.blocking.touch(self._name(key, version), self._ttl(timeout))

    async def atouch(
        self, key: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        """See `touch`."""
        return await self._clients.asyncio.touch(self._name(key, version), self._ttl(timeout))

    def delete(self, key: Any, version: Any = None) -> bool:
        """Delete the key; return whether it was there."""
        return self._clients.blocking.delete(self._name(key, version))

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """See `delete`."""
        return await self._clients.asyncio.delete(self._name(key, version))

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Delete every key, all nodes at once."""
        self._clients.blocking.delete_many(self._names("delete_many", keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """See `delete_many`."""
        await self._clients.asyncio.delete_many(self._names("adelete_many", keys, version))

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Return whether the key has a value."""
        return self.get(key, _MISSING, version) is not _MISSING

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """See `has_key`."""
        return await self.aget(key, _MISSING, version) is not _MISSING

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Add `delta`, which may be below zero; return the new value.

        Raise `ValueError` for a missing key, and a `NodeError` when the node fails or the value is not
        a whole number.
        """
        client = self._clients.strict
        count = client.incr if delta >= 0 else client.decr
        return _counted(count(self._name(key, version), abs(delta), floor=None), key)

    async def aincr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """See `incr`."""
        client = self._clients.strict_asyncio
        count = client.incr if delta >= 0 else client.decr
        return _counted(await count(self._name(key, version), abs(delta), floor=None), key)

    def decr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Subtract `delta`; see `incr`."""
        return self.incr(key, -delta, version)

    async def adecr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """See `decr`."""
        return await self.aincr(key, -delta, version)

    def incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move a value to another version; return that. Raise `ValueError` for a missing key."""
        version = self.version if version is None else version
        name, client = self._name(key, version), self._clients.strict
        value = _found(client.get(name, _MISSING), key)
        client.set(self._name(key, version + delta), value, self._ttl(DEFAULT_TIMEOUT))
        client.delete(name)
        return version + delta

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See `incr_version`."""
        version = self.version if version is None else version
        name, client = self._name(key, version), self._clients.strict_asyncio
        value = _found(await client.get(name, _MISSING), key)
        await client.set(self._name(key, version + delta), value, self._ttl(DEFAULT_TIMEOUT))
        await client.delete(name)
        return version + delta

    def decr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move a value to an earlier version; see `incr_version`."""
        return self.incr_version(key, -delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See `decr_version`."""
        return await self.aincr_version(key, -delta, version)

    def clear(self) -> bool:
        """Empty the servers, for all their users; a `clearable` cache only its own namespace.

        Return whether all nodes have done so.
        """
        client = self._clients.blocking
        return client.clear() if self._clients.clearable else client.flush_all()

    async def aclear(self) -> bool:
        """See `clear`."""
        client = self._clients.asyncio
        return await (client.clear() if self._clients.clearable else client.flush_all())

    def close(self, **kwargs: Any) -> None:
        """Do nothing: the clients and their connections outlive the request."""

    async def aclose(self, **kwargs: Any) -> None:
        """See `close`."""

    # As in django-redis.

    def ttl(self, key: Any, version: Any = None) -> int | None:
        """Return the seconds until the key expires, `None` if it never does, 0 if it is missing."""
        return _seconds_left(self._clients.blocking.ttl(self._name(key, version)))

    async def attl(self, key: Any, version: Any = None) -> int | None:
        """See `ttl`."""
        return _seconds_left(await self._clients.asyncio.ttl(self._name(key, version)))

    def lock(
        self, key: Any, timeout: float | timedelta = 10.0, version: Any = None, **options: Any
    ) -> Lock:
        """Return a lock over a majority of the nodes, to be used in `with`.

        Nodes keep it for `timeout` seconds; `options` are those of `Client.lock`, as `renew=True`.
        """
        return self._clients.blocking.lock(self._name(key, version), ttl=timeout, **options)

    def alock(
        self, key: Any, timeout: float | timedelta = 10.0, version: Any = None, **options: Any
    ) -> AsyncLock:
        """Return a lock to be used in `async with`; see `lock`."""
        return self._clients.asyncio.lock(self._name(key, version), ttl=timeout, **options)

    def delete_pattern(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `NotImplementedError`, which names what to use instead."""
        raise NotImplementedError(_NO_PATTERNS)

    keys: Callable[..., NoReturn] = delete_pattern
    iter_keys: Callable[..., NoReturn] = delete_pattern

    def _name(self, key: Any, version: Any) -> Any:
        """Return the key with its prefix and version; warn of one that memcached would refuse."""
        return self.make_and_validate_key(key, version)

    def _names(self, call: str, keys: Iterable[Any], version: Any) -> dict[Any, Any]:
        """Return the callers' keys by their names; raise `TypeError` for text, a list of its letters."""
        check_keys(call, keys)
        return {self._name(key, version): key for key in keys}

    def _named_items(
        self, call: str, data: Mapping[Any, Any], version: Any
    ) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Return the callers' keys and the values, each by name; raise `TypeError` for no mapping."""
        check_items(call, data)
        names = self._names(call, data, version)
        return names, {name: data[key] for name, key in names.items()}

    def _ttl(self, timeout: Timeout) -> float | Decimal | timedelta | None:
        """Return a timeout as the client takes it; `None` for one above ten years.

        `True` is one second. Zero and less delete.
        """
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        ttl: float | Decimal | timedelta | None = ttl_of_any_length(
            int(timeout) if isinstance(timeout, bool) else timeout
        )
        return ttl


@contextmanager
def _picklings_own_errors() -> Iterator[None]:
    """Raise what pickling raised, as Django's own backends do."""
    try:
        yield
    except EncodeError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


async def _store(call: Callable[..., Awaitable[T]], twin: Callable[..., T], *args: Any) -> T:
    """Store by a call of the asyncio client, or by its blocking twin in a thread.

    The thread is for what asks the database while it is pickled, such as a `QuerySet`.
    """
    with _picklings_own_errors():
        try:
            return await call(*args)
        except EncodeError as error:
            if not isinstance(error.__cause__, SynchronousOnlyOperation):
                raise
        stored: T = await sync_to_async(twin)(*args)
        return stored


def _counted(count: int | None, key: Any) -> int:
    """Return a counter's value; raise `ValueError` if the key is missing."""
    if count is None:
        raise ValueError(f"Key '{key}' not found")
    return count


def _found(value: Any, key: Any) -> Any:
    """Return the value of a key; raise `ValueError` if the key is missing."""
    if value is _MISSING:
        raise ValueError(f"Key '{key}' not found")
    return value


def _seconds_left(seconds: float | None) -> int | None:
    if seconds is None:
        return 0
    return None if math.isinf(seconds) else math.ceil(seconds)
