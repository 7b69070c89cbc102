"""A store for Litestar: sessions, rate limits and cached responses on the nodes of an asyncio client."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from shardcache import AsyncClient, ConfigurationError
from shardcache.core.lifetimes import ttl_of_any_length
from shardcache.core.secrecy import takes_secrets
from shardcache.settings.releases import require

try:
    from litestar.stores.base import Store
except ModuleNotFoundError as error:
    if error.name != "litestar":  # something that Litestar needs
        raise
    raise ModuleNotFoundError(
        "shardcache_fastapi.litestar needs the extra `litestar`: pip install 'litestar>=2.8'",
        name="litestar",
    ) from None

DEFAULT_NAMESPACE = "litestar"


class ShardCacheStore(Store):
    """A Litestar store in one namespace of an asyncio client.

    `client` must be `clearable`, because `delete_all` clears the namespace: never a server. What a
    failing node means is the client's `on_error`: a miss, or its error. A rate limit needs the error,
    as of `client.view(on_error="raise")`, because it lets everybody in on a miss. The client stays open
    when the application ends, unless `with_client` created it. Raise `ConfigurationError` for another
    client, and when Litestar is too old.

    >>> from litestar.stores.registry import StoreRegistry
    >>> client = AsyncClient("memory://a,b,c", clearable=True)
    >>> registry = StoreRegistry(default_factory=lambda name: ShardCacheStore(client, name))
    """

    __slots__ = ("_client", "_create", "_namespace", "_owned")

    def __init__(self, client: AsyncClient, namespace: str = DEFAULT_NAMESPACE) -> None:
        require("shardcache-fastapi", "litestar", "2.8")
        if not isinstance(client, AsyncClient):
            raise ConfigurationError(
                f"ShardCacheStore: client must be a shardcache.AsyncClient, not {type(client).__name__}"
            )
        if not client.clearable:
            raise ConfigurationError(
                "ShardCacheStore: the client's keys cannot be cleared, which `delete_all` needs:"
                " create it with AsyncClient(…, clearable=True)"
            )
        self._client = client.view(namespace=namespace)
        self._namespace = namespace
        self._owned: AsyncClient | None = None
        self._create: Callable[[], AsyncClient] | None = None

    @classmethod
    @takes_secrets
    def with_client(
        cls,
        nodes: Any,  # as `AsyncClient` takes them
        namespace: str = DEFAULT_NAMESPACE,
        **options: Any,  # as above
    ) -> Self:
        """Return a store over a client of its own, which Litestar closes when the application ends.

        An application that starts again, as in each test, has a new client with the same settings.
        `options` are settings of `AsyncClient`. Raise `ConfigurationError` listing every fault in them.
        """
        again = tuple(nodes) if isinstance(nodes, Iterator) else nodes
        create = partial(AsyncClient, again, clearable=True, **options)
        client = create()
        store = cls(client, namespace)
        store._owned, store._create = client, create
        return store

    async def set(
        self, key: str, value: str | bytes, expires_in: int | timedelta | None = None
    ) -> None:
        """Store a value for `expires_in` seconds; `None`, or more than ten years, means no expiry."""
        data = value.encode() if isinstance(value, str) else value
        await self._client.set(key, data, ttl=ttl_of_any_length(expires_in))

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """Return the value, or `None`. With `renew_for`, a value that expires lives so long from now."""
        value: bytes | None = await self._client.get(key)
        if renew_for is not None and value is not None and await self.expires_in(key) is not None:
            await self._client.touch(key, ttl_of_any_length(renew_for))
        return value

    async def delete(self, key: str) -> None:
        """Delete the value; a missing one is no error."""
        await self._client.delete(key)

    async def delete_all(self) -> None:
        """Delete all values of this namespace."""
        await self._client.clear()

    async def exists(self, key: str) -> bool:
        """Return whether there is a value."""
        return await self._client.exists(key)

    async def expires_in(self, key: str) -> int | None:
        """Return the whole seconds until the value expires; `None` if it is missing or never expires."""
        seconds = await self._client.ttl(key)
        return None if seconds is None or math.isinf(seconds) else int(seconds)

    async def __aenter__(self) -> None:
        if self._create is not None and self._owned is None:  # closed with the application
            self._owned = self._create()
            self._client = self._owned.view(namespace=self._namespace)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        owned, self._owned = self._owned, None
        if owned is not None:
            await owned.aclose()
