"""The default clients as parameters of FastAPI's path functions."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends

from shardcache import AsyncClient, Client, default_async_client, default_client


# FastAPI runs a plain function in a thread. These return at once, so they are coroutine functions.
async def _async_client() -> AsyncClient:
    return default_async_client()


async def _client() -> Client:
    return default_client()


Cache: TypeAlias = Annotated[AsyncClient, Depends(_async_client)]
"""The asyncio client, for `async def` path functions."""

BlockingCache: TypeAlias = Annotated[Client, Depends(_client)]
"""The blocking client, for `def` path functions, which FastAPI runs in threads."""
