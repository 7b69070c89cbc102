"""What a type checker tells a user of the clients; checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

from shardcache import (
    KEEP,
    AsyncClient,
    AsyncLease,
    Client,
    Lease,
    Node,
    NodeCheck,
    NodeError,
    Settings,
    Topology,
    TopologyChange,
)
from shardcache.core.codecs import Codec, ValueFormat


def blocking_results(client: Client) -> None:
    """Every call says what it gives; values are the caller's own, so `Any`."""
    assert_type(client.get("k"), Any)
    assert_type(client.get_many(["a", b"b"]), dict[str | bytes, Any])
    assert_type(client.set("k", {"any": object()}, ttl=timedelta(minutes=1)), bool)
    assert_type(client.set_many({"k": 1}, ttl=0.5), list[str | bytes])
    assert_type(client.add("k", 1), bool)
    assert_type(client.replace("k", 1, ttl=None), bool)
    assert_type(client.delete(b"k"), bool)
    assert_type(client.delete_many({"a", "b"}), int)
    assert_type(client.touch("k", 60), bool)
    assert_type(client.incr("k", 2, initial=0), int | None)
    assert_type(client.decr("k", floor=None), int | None)
    assert_type(client.exists("k"), bool)
    assert_type(client.ttl("k"), float | None)
    assert_type(client.gets("k"), tuple[Any, Hashable | None])
    assert_type(client.cas("k", 1, "token", ttl=KEEP), bool | None)
    assert_type(client.ping(), dict[str, float | NodeError])
    assert_type(client.check(), dict[str, NodeCheck])
    assert_type(client.flush_all(), bool)
    assert_type(client.flush_node("a"), bool)
    assert_type(client.close(), None)


def codecs(client: Client, codec: Codec, value_format: ValueFormat) -> None:
    """Take a codec by name or as an object, or a value format in its place."""
    assert_type(Client("memory://a", codec=codec), Client)
    assert_type(Client("memory://a", codec=value_format), Client)
    assert_type(client.view(codec="json"), Client)
    assert_type(client.view(codec=value_format), Client)


async def awaited_results(client: AsyncClient) -> None:
    """Await the same results of the asyncio twin."""
    assert_type(await client.get("k"), Any)
    assert_type(await client.get_many(["a", b"b"]), dict[str | bytes, Any])
    assert_type(await client.set("k", 1), bool)
    assert_type(await client.set_many({"k": 1}), list[str | bytes])
    assert_type(await client.delete_many(["a"]), int)
    assert_type(await client.incr("k", floor=0), int | None)
    assert_type(await client.ttl("k"), float | None)
    assert_type(await client.gets("k"), tuple[Any, Hashable | None])
    assert_type(await client.cas("k", 1, "token"), bool | None)
    assert_type(await client.aclose(), None)


async def fetched(number: int) -> str:
    """Stand for what a factory awaits."""
    return str(number)


def made() -> dict[str, int]:
    """Stand for a factory that blocks."""
    return {}


async def awaited() -> bytes:
    """Stand for a factory that is awaited."""
    return b""


def either() -> str | Awaitable[str]:
    """Stand for a factory whose result may have to be awaited."""
    return fetched(1)


def sizes(keys: list[str]) -> dict[str, int]:
    """Stand for a factory of many values."""
    return {key: len(key) for key in keys}


async def fetched_sizes(keys: list[str]) -> Mapping[str, int]:
    """Stand for a factory of many values that is awaited."""
    return sizes(keys)


def blocking_factories(client: Client) -> None:
    """Get what the factory returns, of any form."""
    assert_type(client.get_or_set("k", made, ttl=5), dict[str, int])
    assert_type(client.get_or_set("k", lambda: made()["k"], 5, lock=True), int)
    assert_type(client.get_or_set("k", partial(str, 7)), str)
    assert_type(client.get_or_set("k", dict[str, int]), dict[str, int])
    annotated: str = client.get_or_set("k", lambda: "text")
    assert_type(client.get_or_set_many(["k", "l"], sizes, 5, lock="shard"), dict[str, int])
    client.set("k", annotated)


async def awaited_factories(client: AsyncClient) -> None:
    """Get what it returns, or what comes of awaiting that."""
    value = await client.get_or_set("k", lambda: fetched(1), ttl=5)
    assert_type(value, str)
    assert_type(await client.get_or_set("k", awaited, lock="shard"), bytes)
    assert_type(await client.get_or_set("k", lambda: asyncio.ensure_future(fetched(1))), str)
    assert_type(await client.get_or_set("k", partial(fetched, 1)), str)
    assert_type(await client.get_or_set("k", made, ttl=timedelta(minutes=1)), dict[str, int])
    assert_type(await client.get_or_set("k", lambda: made()["k"]), int)
    assert_type(await client.get_or_set("k", either), str)
    annotated: str = await client.get_or_set("k", lambda: fetched(1))
    assert_type(await client.get_or_set_many(["k"], fetched_sizes, tags=["t"]), dict[str, int])
    assert_type(await client.get_or_set_many(["k"], sizes), dict[str, int])
    await client.set("k", annotated)


def what_a_client_knows(client: Client) -> None:
    """Questions that ask no node give plain values."""
    assert_type(client.node_for("k"), Node)
    assert_type(client.nodes_for("k", 2), Sequence[Node])
    assert_type(client.nodes, tuple[Node, ...])
    assert_type(client.topology, Topology)
    assert_type(client.fingerprint, str)
    assert_type(client.add_node("memory://d"), TopologyChange)
    assert_type(client.remove_node("d"), TopologyChange)
    assert_type(client.set_nodes([Node("memory://d")]), TopologyChange)
    assert_type(client.set_nodes("memory://d", strategy="ketama", warm_for=60), TopologyChange)
    assert_type(client.announce_nodes(["memory://d"], strategy="ketama"), TopologyChange)


async def locks(client: Client, twin: AsyncClient) -> None:
    """Get leases of the lock's own world; wait without end."""
    lock = client.lock("k", ttl=timedelta(seconds=5))
    assert_type(lock.acquire(wait=None), Lease)
    assert_type(lock.try_acquire(), Lease | None)
    assert_type(lock.held(), bool)
    with lock.hold(wait=1) as lease:
        assert_type(lease.extend(), float)
    async_lock = twin.lock("k")
    assert_type(await async_lock.acquire(wait=None), AsyncLease)
    assert_type(await async_lock.held(), bool)


class Subclass(Client):
    """A user's own client."""


def ways_to_make_one(settings: Settings) -> None:
    """Each way of making a client gives the class it was asked of."""
    assert_type(Subclass.from_url("memory://a,b"), Subclass)
    assert_type(Subclass.from_env(), Subclass)
    assert_type(Subclass.from_settings(settings), Subclass)
    assert_type(Subclass.from_env().view(namespace="v", default_ttl=None), Subclass)
    with Subclass(["memory://a", Node("memory://b")]) as client:
        assert_type(client, Subclass)


def mistakes(client: Client) -> None:
    """Find, before it runs, what can never work."""
    client.get(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no key
    client.set("k", 1, ttl="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no ttl
    Client("memory://a", on_error="panic")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no policy
