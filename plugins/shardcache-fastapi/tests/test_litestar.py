"""The contract of a Litestar store, on memory, memcached and Redis, and Litestar's own users of it."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from importlib.metadata import version
from traceback import walk_tb
from types import ModuleType
from typing import Any

import pytest
from litestar import Litestar, Request, get
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.base import Store
from litestar.stores.registry import StoreRegistry
from litestar.testing import TestClient
from shardcache_fastapi.litestar import ShardCacheStore

from shardcache import AsyncClient, Client, ClientClosedError, ConfigurationError, NodeError
from shardcache.settings import releases

# Litestar's `TestClient` leaves two streams open before release 2.13, also without any store.
LEAKS = tuple(map(int, version("litestar").split(".")[:2])) < (2, 13)
if LEAKS:
    pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")


@pytest.fixture(autouse=True)
def _no_streams_left() -> Iterator[None]:
    """Collect these streams in the test that left them, and not in whichever is next."""
    yield
    if LEAKS:
        gc.collect()


class Broken(ModuleType):
    """A module whose import fails."""

    def __init__(self, error: ModuleNotFoundError) -> None:
        super().__init__("broken")
        self._error = error

    def __getattr__(self, name: str) -> object:
        raise self._error


@pytest.fixture
async def client(urls) -> AsyncIterator[AsyncClient]:
    """Yield a client whose namespaces can be cleared."""
    async with AsyncClient(urls, clearable=True) as client:
        yield client


@pytest.fixture
async def store(client) -> Store:
    """Return an empty store."""
    store = ShardCacheStore(client)
    await store.delete_all()
    return store


class TestContract:
    """What Litestar expects of a store."""

    async def test_what_is_set_is_found_as_bytes(self, store):
        """Text is stored as UTF-8."""
        await store.set("text", "grün")
        await store.set("bytes", b"\x00\xff")
        assert await store.get("text") == "grün".encode()
        assert await store.get("bytes") == b"\x00\xff"
        assert await store.get("missing") is None

    async def test_a_key_can_be_set_again(self, store):
        """The last value counts, with its own expiry."""
        await store.set("k", b"1", expires_in=60)
        await store.set("k", b"2")
        assert (await store.get("k"), await store.expires_in("k")) == (b"2", None)

    @pytest.mark.parametrize("seconds", [60, timedelta(minutes=1)], ids=["int", "timedelta"])
    async def test_values_expire(self, store, seconds):
        """After `expires_in`, in whole seconds."""
        await store.set("k", b"1", expires_in=seconds)
        assert 55 <= await store.expires_in("k") <= 60
        assert await store.expires_in("missing") is None

    @pytest.mark.parametrize("ages", [10**10, timedelta(days=36_500)], ids=["int", "timedelta"])
    async def test_more_than_ten_years_is_for_ever(self, store, ages):
        """Servers take no more, and an application that asks for it means no expiry."""
        await store.set("k", b"1", expires_in=ages)
        assert await store.expires_in("k") is None
        await store.set("k", b"2", expires_in=60)
        assert await store.get("k", renew_for=ages) == b"2"
        assert await store.expires_in("k") is None

    async def test_reading_renews_what_expires(self, store):
        """A value without an expiry stays without one."""
        await store.set("short", b"1", expires_in=30)
        await store.set("endless", b"1")
        assert await store.get("short", renew_for=90) == b"1"
        assert await store.get("endless", renew_for=timedelta(seconds=90)) == b"1"
        assert await store.get("missing", renew_for=90) is None
        assert 80 <= await store.expires_in("short") <= 90
        assert await store.expires_in("endless") is None

    async def test_delete_and_exists(self, store):
        """Deleting what is missing is no error."""
        await store.set("k", b"1")
        assert await store.exists("k") is True
        await store.delete("k")
        await store.delete("k")
        assert await store.exists("k") is False

    async def test_delete_all_spares_other_namespaces(self, client, store):
        """And what other users of the servers keep there."""
        other = ShardCacheStore(client, "other")
        await store.set("k", b"1")
        await other.set("k", b"2")
        await client.set("theirs", 3)
        await store.delete_all()
        assert await store.get("k") is None
        assert await other.get("k") == b"2"
        assert await client.get("theirs") == 3


class TestOwnership:
    """Whose client it is."""

    async def test_a_given_client_stays_open(self, client):
        """It may have other users."""
        async with ShardCacheStore(client):
            pass
        assert await client.set("k", 1) is True

    async def test_its_own_client_is_closed_with_the_application(self, urls):
        """Litestar leaves each store when the application ends."""
        store = ShardCacheStore.with_client(urls, default_ttl=60)
        async with store:
            await store.set("k", b"1")
        with pytest.raises(ClientClosedError):
            await store.get("k")

    @pytest.mark.parametrize("wrong", ["memory://a", Client("memory://a", clearable=True)])
    def test_another_kind_of_client_is_refused(self, wrong):
        """At once, and not by the first request."""
        with pytest.raises(ConfigurationError, match=r"must be a shardcache\.AsyncClient, not "):
            ShardCacheStore(wrong)

    def test_a_secret_is_in_no_traceback(self):
        """Error reporters collect local variables."""
        with pytest.raises(ConfigurationError) as caught:
            ShardCacheStore.with_client("redis://:hunter2@a", secret="hunter2" * 3, pool_size=0)
        ours = [frame for frame, _ in walk_tb(caught.value.__traceback__)][1:]
        assert [frame for frame in ours if "hunter2" in repr(frame.f_locals)] == []

    def test_unknown_settings_are_refused(self):
        """With what is known."""
        with pytest.raises(TypeError, match="no_such"):
            ShardCacheStore.with_client("memory://a", no_such=1)

    def test_a_client_that_cannot_be_cleared_is_refused(self):
        """At once, not by the first `delete_all`."""
        with pytest.raises(ConfigurationError, match="clearable=True"):
            ShardCacheStore(AsyncClient("memory://a"))

    def test_an_old_litestar_gets_words(self, monkeypatch):
        """Where an installation has not checked what it needs."""
        monkeypatch.setattr(releases, "version", lambda _: "2.0.1")
        with pytest.raises(ConfigurationError, match=r"needs litestar 2.8 or newer, and 2.0.1 is"):
            ShardCacheStore(AsyncClient("memory://a", clearable=True))

    def test_a_missing_litestar_gets_words(self, monkeypatch):
        """With the name of the extra; what Litestar itself lacks is its own error."""
        for name, words in (
            ("litestar", "the extra `litestar`: pip install"),
            ("other", "no other"),
        ):
            error = ModuleNotFoundError("no other", name=name)
            monkeypatch.setitem(sys.modules, "litestar.stores.base", Broken(error))
            monkeypatch.delitem(sys.modules, "shardcache_fastapi.litestar", raising=False)
            with pytest.raises(ModuleNotFoundError, match=words):
                importlib.import_module("shardcache_fastapi.litestar")

    async def test_a_failing_node_is_what_the_client_says(self):
        """A miss, or its error."""
        dead = "redis://127.0.0.1:1"
        missing = ShardCacheStore.with_client(dead, timeout=0.2)
        raising = ShardCacheStore.with_client(dead, timeout=0.2, on_error="raise")
        async with missing, raising:
            assert await missing.get("k") is None
            with pytest.raises(NodeError):
                await raising.get("k")


def application(store_of: Any, *handlers: Any, **options: Any) -> Litestar:
    """Return an application whose stores are created by `store_of`."""
    return Litestar(
        list(handlers),
        stores=StoreRegistry(default_factory=store_of),
        openapi_config=None,
        **options,
    )


def test_sessions_and_rate_limits(urls):
    """Litestar's own middleware works on it."""

    @get("/")
    async def count(request: Request) -> int:
        visits = int(request.session.get("visits", 0)) + 1
        request.set_session({"visits": visits})
        return visits

    client = AsyncClient(urls, clearable=True)
    app = application(
        lambda name: ShardCacheStore(client, name),
        count,
        middleware=[
            RateLimitConfig(rate_limit=("minute", 3)).middleware,
            ServerSideSessionConfig().middleware,
        ],
        on_shutdown=[client.aclose],
    )
    with TestClient(app) as web:
        assert [web.get("/").json() for _ in range(3)] == [1, 2, 3]
        assert web.get("/").status_code == 429


def test_cached_responses(urls):
    """A handler with `cache=` runs once."""
    runs = []

    @get("/", cache=60)
    async def page() -> str:
        runs.append(1)
        return f"page {len(runs)}"

    client = AsyncClient(urls, clearable=True, namespace="responses")
    app = application(lambda name: ShardCacheStore(client, name), page, on_shutdown=[client.aclose])
    with TestClient(app) as web:
        assert {web.get("/").text for _ in range(3)} == {"page 1"}


@pytest.mark.parametrize("of", [list, iter])
def test_an_application_starts_again(urls, of):
    """Each test of a program enters its `TestClient`, and has a store that is open."""

    @get("/")
    async def count(request: Request) -> int:
        visits = int(request.session.get("visits", 0)) + 1
        request.set_session({"visits": visits})
        return visits

    store = ShardCacheStore.with_client(of(urls))
    app = Litestar(
        [count],
        stores={"sessions": store},
        openapi_config=None,
        middleware=[ServerSideSessionConfig().middleware],
    )
    for _ in range(3):
        with TestClient(app) as web:
            assert [web.get("/").json() for _ in range(2)] == [1, 2]
