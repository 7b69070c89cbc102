"""The blocking clients, one call at a time, over eight nodes; and single nodes where a client knows no more."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from bench.bench import Bench
from bench.floors import RawSockets
from bench.machine import run_servers
from bench.peers import Client, Maker, makers_of
from bench.rounds import Figures, Subject
from bench.workload import TTL, VALUE, batches_of, each, keys_of
from shardcache import Client as Shardcache
from shardcache.testing.servers import Server

SINGLE: Final = ("get", "miss", "set", "incr", "delete")
MANY: Final = ("get_many", "set_many", "delete_many")
SIZES: Final = (100, 1000)
TOO_SLOW: Final = {
    ("meta-memcache", "get_many", 1000): "it waits for delayed acknowledgements, a second a call"
}


def shardcache_client(servers: Sequence[Server], **options: Any) -> Client:
    """Return ours over all servers."""
    ours = Shardcache([server.url for server in servers], timeout=10, **options)
    names = (*SINGLE[2:], "get", *MANY)
    return Client("shardcache", {name: getattr(ours, name) for name in names}, ours.close)


def pylibmc_client(servers: Sequence[Server]) -> Client:
    """Return pylibmc, which is libmemcached, in C."""
    import pylibmc  # noqa: PLC0415 - each peer is imported by what needs it

    client = pylibmc.Client(
        _addresses(servers),
        binary=False,
        behaviors={"ketama_weighted": True, "tcp_nodelay": True},
    )
    return Client("pylibmc", _as_python_memcached(client), client.disconnect_all)


def python_memcached_client(servers: Sequence[Server]) -> Client:
    """Return python-memcached."""
    import memcache  # noqa: PLC0415

    client = memcache.Client(_addresses(servers))
    return Client("python-memcached", _as_python_memcached(client), client.disconnect_all)


def meta_memcache_client(servers: Sequence[Server], pool: int = 1) -> Client:
    """Return meta-memcache, whose protocol is in Rust."""
    from meta_memcache import CacheClient, ServerAddress  # noqa: PLC0415
    from meta_memcache.configuration import connection_pool_factory_builder  # noqa: PLC0415

    build = connection_pool_factory_builder(
        initial_pool_size=pool, max_pool_size=pool, recv_timeout=10
    )
    client = CacheClient.cache_client_from_servers(
        [ServerAddress(s.host, s.port) for s in servers], build
    )
    return Client(
        "meta-memcache",
        {
            "get": client.get,
            "set": client.set,
            "incr": client.delta,
            "delete": client.delete,
            "get_many": client.multi_get,
        },
    )


def hash_client(servers: Sequence[Server], **options: Any) -> Client:
    """Return pymemcache's HashClient."""
    from pymemcache.client.hash import HashClient  # noqa: PLC0415

    client = HashClient([(s.host, s.port) for s in servers], default_noreply=False, **options)
    names = {name: name for name in (*SINGLE[2:], "get", *MANY)}
    return Client(
        "HashClient", {key: getattr(client, name) for key, name in names.items()}, client.close
    )


def redis_client(servers: Sequence[Server]) -> Client:
    """Return redis-py with hiredis, over the first server."""
    import redis  # noqa: PLC0415

    client = redis.Redis(host=servers[0].host, port=servers[0].port)

    def set_many(mapping: Mapping[str, bytes], ttl: int) -> None:
        pipeline = client.pipeline(transaction=False)
        for key, value in mapping.items():
            pipeline.set(key, value, ttl)
        pipeline.execute()

    return Client(
        "redis-py, 1 node",
        {
            "get": client.get,
            "set": client.set,
            "incr": client.incr,
            "delete": client.delete,
            "get_many": client.mget,
            "set_many": set_many,
            "delete_many": lambda keys: client.delete(*keys),
        },
        client.close,
    )


def glide_client(servers: Sequence[Server]) -> Client:
    """Return valkey-glide's blocking client, in Rust, over the first server."""
    import glide_sync as glide  # noqa: PLC0415

    address = glide.NodeAddress(servers[0].host, servers[0].port)
    client = glide.GlideClient.create(
        glide.GlideClientConfiguration([address], request_timeout=10_000)
    )
    expiry = glide.ExpirySet(glide.ExpiryType.SEC, TTL)
    return Client(
        "glide-sync, 1 node",
        {
            "get": client.get,
            "set": lambda key, value, _: client.set(
                key, str(value) if value == 1 else value, expiry=expiry
            ),
            "incr": lambda key, _: client.incr(key),
            "delete": lambda key: client.delete([key]),
            "get_many": client.mget,
            "delete_many": client.delete,
        },
        client.close,
    )


def django_client(servers: Sequence[Server]) -> Client:
    """Return django-redis with its client that shards."""
    from django.conf import settings  # noqa: PLC0415
    from django_redis.cache import RedisCache  # noqa: PLC0415

    # It calls its own methods in a way of which it warns.
    warnings.filterwarnings("ignore", category=UserWarning, module="django_redis")
    if not settings.configured:
        settings.configure()
    cache = RedisCache(
        [f"redis://{s.host}:{s.port}/0" for s in servers],
        {"OPTIONS": {"CLIENT_CLASS": "django_redis.client.ShardClient"}},
    )
    return Client(
        "django-redis Shard",
        {
            "get": cache.get,
            "set": cache.set,
            "incr": cache.incr,
            "delete": cache.delete,
            "get_many": cache.get_many,
            "set_many": cache.set_many,
            "delete_many": cache.delete_many,
        },
        cache.close,
    )


MAKERS: Final = {
    "memcached": (
        Maker("shardcache", shardcache_client),
        Maker("pylibmc", pylibmc_client, "pylibmc"),
        Maker("meta-memcache", meta_memcache_client, "meta-memcache"),
        Maker("python-memcached", python_memcached_client, "python-memcached"),
        Maker("HashClient", hash_client, "pymemcache"),
    ),
    "redis": (
        Maker("shardcache", shardcache_client),
        Maker("redis-py, 1 node", redis_client, "redis-py"),
        Maker("glide-sync, 1 node", glide_client, "valkey-glide-sync"),
        Maker("django-redis Shard", django_client, "django-redis"),
    ),
}


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure each operation over eight nodes of each kind."""
    for kind, makers in MAKERS.items():
        with run_servers(kind) as servers, ExitStack() as stack:
            raw = RawSockets(kind, servers, bench.plan.calls)
            stack.callback(raw.close)
            clients = []
            for maker in makers_of(makers, bench.attendance):
                with bench.attendance.noting(maker.name):
                    client = maker.make(servers)
                    _fill(client, bench.plan.calls)
                    clients.append(client)
                    stack.callback(client.release)
            for operation in SINGLE:
                yield (
                    f"{operation}, 8 {kind}",
                    bench.interleave(_single(bench, operation, raw, clients)),
                )
            for operation in MANY:
                for size in SIZES:
                    for client in clients:
                        if why := TOO_SLOW.get((client.name, operation, size)):
                            name = f"{client.name}, {operation}({size:,})"
                            bench.attendance.left_out[name] = why
                    yield (
                        f"{operation}({size:,}), 8 {kind}",
                        bench.interleave(_many(bench, operation, size, raw, clients)),
                    )


def _single(
    bench: Bench, operation: str, raw: RawSockets, clients: Sequence[Client]
) -> dict[str, Subject]:
    call = raw.client().calls["call"]
    subjects: dict[str, Subject] = {}
    if operation != "miss":
        subjects["raw"] = each(call, *raw.requests(operation))
    for client in clients:
        columns = _columns(client, bench.plan.calls)[operation]
        done = client.calls["get" if operation == "miss" else operation]
        subjects[client.name] = each(done, *columns)
    return subjects


def _columns(client: Client, count: int) -> dict[str, tuple[Sequence[Any], ...]]:
    keys, missing = keys_of(client.name, count), keys_of("none", count)
    counters = [f"{client.name[:4]}:n:{number}" for number in range(count)]
    return {
        "get": (keys,),
        "miss": (missing,),
        "set": (keys, [VALUE] * len(keys), [TTL] * len(keys)),
        "incr": (counters, [1] * len(keys)),
        "delete": (missing,),
    }


def _many(
    bench: Bench, operation: str, size: int, raw: RawSockets, clients: Sequence[Client]
) -> dict[str, Subject]:
    subjects: dict[str, Subject] = {}
    if operation == "get_many":
        subjects["raw"] = each(raw.client().calls["read_many"], raw.shares(size))
    for client in clients:
        call = client.calls.get(operation)
        if call is None or (client.name, operation, size) in TOO_SLOW:
            continue
        tag = "none" if operation == "delete_many" else client.name
        keys = keys_of(tag, bench.plan.calls)
        batches = batches_of(keys, size)[: len(keys) // size]
        if operation == "set_many":
            mappings = [dict.fromkeys(batch, VALUE) for batch in batches]
            subjects[client.name] = each(call, mappings, [TTL] * len(mappings))
        else:
            subjects[client.name] = each(call, batches)
    return subjects


def _fill(client: Client, count: int) -> None:
    columns = _columns(client, count)
    for key in columns["get"][0]:
        client.calls["set"](key, VALUE, TTL)
    for counter in columns["incr"][0]:
        client.calls["set"](counter, 1, TTL)
    if client.calls["get"](columns["get"][0][0]) != VALUE:
        raise AssertionError("it does not read what it wrote")


def _addresses(servers: Sequence[Server]) -> list[str]:
    return [f"{server.host}:{server.port}" for server in servers]


def _as_python_memcached(client: Any) -> dict[str, Callable[..., Any]]:
    """Return the calls of a client with the names that python-memcached gave them."""
    return {
        "get": client.get,
        "set": client.set,
        "incr": client.incr,
        "delete": client.delete,
        "get_many": client.get_multi,
        "set_many": client.set_multi,
        "delete_many": client.delete_multi,
    }
