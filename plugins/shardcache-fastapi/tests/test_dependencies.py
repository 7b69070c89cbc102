"""The default clients as parameters, and over the life of an application."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from shardcache_fastapi import BlockingCache, Cache, lifespan

import shardcache
from lock_service import LockService, running
from shardcache import ConfigurationError
from shardcache.settings import releases


@asynccontextmanager
async def visiting(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start an application, visit it, and end it."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as web,
    ):
        yield web


@pytest.fixture
def app() -> Iterator[FastAPI]:
    """Yield an application with a path function of each kind, over memory nodes."""
    shardcache.configure("memory://a,b,c")
    app = FastAPI(lifespan=lifespan)
    calls = []

    @app.get("/async/{number}")
    async def read_async(number: int, cache: Cache) -> dict[str, object]:
        calls.append(number)
        thread = threading.current_thread().name
        value = await cache.get_or_set(f"n:{number}", lambda: number * 2, ttl=60)
        return {"value": value, "thread": thread, "kind": type(cache).__name__}

    @app.get("/blocking/{number}")
    def read_blocking(number: int, cache: BlockingCache) -> dict[str, object]:
        value = cache.get_or_set(f"b:{number}", lambda: number * 3, ttl=60)
        return {"value": value, "kind": type(cache).__name__}

    yield app
    shardcache.configure("memory://a,b,c")


async def test_each_kind_of_function_gets_its_client(app):
    """An `async def` the asyncio client, in the thread of the loop; a `def` the blocking one."""
    async with visiting(app) as web:
        first = (await web.get("/async/7")).json()
        assert (first["value"], first["kind"]) == (14, "AsyncClient")
        assert (await web.get("/blocking/3")).json() == {"value": 9, "kind": "Client"}


async def test_another_service_keeps_the_locks(app):
    """Of both clients, named by the client's own setting."""

    @app.get("/lock")
    async def lock(cache: Cache, blocking: BlockingCache) -> list[int | None]:
        async with cache.lock("report") as lease:
            fences = [lease.fence]
        with blocking.lock("report") as lease:
            return [*fences, lease.fence]

    with running(LockService()) as locks:
        shardcache.configure("memory://a", locks=locks)
        async with visiting(app) as web:
            assert (await web.get("/lock")).json() == [1, 2]


async def test_the_client_is_one_for_all_requests(app):
    """Requests of one application share connections and health."""
    seen = []

    @app.get("/which")
    async def which(cache: Cache) -> None:
        seen.append(cache)

    async with visiting(app) as web:
        await web.get("/which")
        await web.get("/which")
    assert seen[0] is seen[1]


async def test_the_end_of_the_application_closes_both(app):
    """And its next start, as in the next test of a suite, opens new ones."""
    async with visiting(app) as web:
        await web.get("/async/1")
        clients = shardcache.default_async_client(), shardcache.default_client()
    for client in clients:
        with pytest.raises(shardcache.ClientClosedError):
            client.node_for("k")
    async with visiting(app) as web:
        assert (await web.get("/async/1")).json()["value"] == 2
        assert shardcache.default_async_client() is not clients[0]


async def test_a_node_that_cannot_serve_is_logged_and_the_application_starts(caplog):
    """Its keys are misses; the log says what is wrong before the first visitor comes."""
    shardcache.configure(["redis://127.0.0.1:1", "memory://b"], timeout=0.2)
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def read(cache: Cache) -> object:
        return await cache.get_or_set("k", lambda: 1, ttl=60)

    caplog.set_level(logging.WARNING, logger="shardcache")
    async with visiting(app) as web:
        assert "1 of 2 nodes cannot serve this client" in caplog.text
        assert "127.0.0.1:1" in caplog.text
        assert (await web.get("/")).json() == 1


async def test_settings_that_cannot_be_used_stop_the_application(monkeypatch):
    """A typing error in the environment is seen at the start, not by a visitor."""
    monkeypatch.setattr(shardcache.decorators, "_defaults", shardcache.decorators.Defaults())
    monkeypatch.setenv("SHARDCACHE_URL", "rediss//127.0.0.1")
    with pytest.raises(ConfigurationError):
        async with visiting(FastAPI(lifespan=lifespan)):
            pass


async def test_an_old_fastapi_gets_words(monkeypatch):
    """At the start, where an installation has not checked what it needs."""
    monkeypatch.setattr(releases, "version", lambda _: "0.95.2")
    with pytest.raises(ConfigurationError, match=r"needs fastapi 0.115 or newer, and 0.95.2 is"):
        async with visiting(FastAPI(lifespan=lifespan)):
            pass
