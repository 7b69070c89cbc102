"""The asyncio clients, with one task to 5,000 that call at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from bench.bench import Bench
from bench.floors import Multiplexer
from bench.machine import run_servers, unpinned
from bench.peers import Client, Maker, makers_of
from bench.rounds import Figures, Subject
from bench.workload import TTL, VALUE, batches_of, count_of, keys_of
from shardcache import AsyncClient
from shardcache.testing.servers import Server

GETS: Final = (1, 50, 500, 5000)  # tasks
SETS: Final = (50, 500)
BATCHES: Final = (1, 10)
CONNECTIONS: Final = 16  # a node, of clients that take a connection for each call
PATIENCE: Final = 60  # seconds

Loop = asyncio.AbstractEventLoop
Call = Callable[..., Awaitable[Any]]


def shardcache_client(servers: Sequence[Server], loop: Loop) -> Client:
    """Return ours over all servers."""
    return _ours("shardcache", servers, loop)


def shardcache_of_one(servers: Sequence[Server], loop: Loop) -> Client:
    """Return ours over the first server, as peers that do not shard have it."""
    return _ours("shardcache, 1 node", servers[:1], loop)


def redis_client(servers: Sequence[Server], loop: Loop) -> Client:
    """Return redis.asyncio with hiredis, over the first server."""
    import redis.asyncio  # noqa: PLC0415 - each peer is imported by what needs it

    pool = redis.asyncio.BlockingConnectionPool(
        host=servers[0].host, port=servers[0].port, max_connections=CONNECTIONS, timeout=None
    )
    client = redis.asyncio.Redis(connection_pool=pool)
    return _redis_like("redis.asyncio, 1 node", client, loop, client.aclose)


def coredis_client(servers: Sequence[Server], loop: Loop) -> Client:
    """Return coredis, over the first server."""
    import coredis  # noqa: PLC0415

    client = coredis.Redis(host=servers[0].host, port=servers[0].port, max_connections=CONNECTIONS)
    closing_it = _enter(client, loop)
    return Client(
        "coredis, 1 node",
        {
            "get": client.get,
            "set": lambda key, value: client.set(key, value, ex=TTL),
            "get_many": client.mget,
        },
        closing_it,
    )


def glide_client(servers: Sequence[Server], loop: Loop) -> Client:
    """Return valkey-glide, in Rust, over the first server."""
    import glide  # noqa: PLC0415

    configuration = glide.GlideClientConfiguration(
        [glide.NodeAddress(servers[0].host, servers[0].port)],
        request_timeout=PATIENCE * 1000,
        inflight_requests_limit=50_000,
    )
    client = loop.run_until_complete(glide.GlideClient.create(configuration))
    expiry = glide.ExpirySet(glide.ExpiryType.SEC, TTL)
    return Client(
        "valkey-glide, 1 node",
        {
            "get": client.get,
            "set": lambda key, value: client.set(key, value, expiry=expiry),
            "get_many": client.mget,
        },
        lambda: loop.run_until_complete(client.close()),
    )


def aiomcache_client(servers: Sequence[Server], loop: Loop) -> Client:
    """Return aiomcache, over the first server."""
    import aiomcache  # noqa: PLC0415

    client = aiomcache.Client(servers[0].host, servers[0].port, pool_size=CONNECTIONS)
    return Client(
        "aiomcache, 1 node",
        {
            "get": client.get,
            "set": lambda key, value: client.set(key, value, TTL),
            "get_many": lambda keys: client.multi_get(*keys),
            "bytes": client.get,
        },
        lambda: loop.run_until_complete(client.close()),
    )


def emcache_client(servers: Sequence[Server], loop: Loop) -> Client:
    """Return emcache over all servers."""
    import emcache  # noqa: PLC0415

    nodes = [emcache.MemcachedHostAddress(s.host, s.port) for s in servers]
    client = loop.run_until_complete(
        emcache.create_client(nodes, timeout=PATIENCE, max_connections=CONNECTIONS)
    )
    return Client(
        "emcache",
        {
            "get": client.get,
            "set": lambda key, value: client.set(key, value, exptime=TTL),
            "get_many": client.get_many,
            "bytes": client.get,
        },
        lambda: loop.run_until_complete(client.close()),
    )


MAKERS: Final = {
    "redis": (
        Maker("shardcache", shardcache_client),
        Maker("shardcache, 1 node", shardcache_of_one),
        Maker("valkey-glide, 1 node", glide_client, "valkey-glide"),
        Maker("redis.asyncio, 1 node", redis_client, "redis-py"),
        Maker("coredis, 1 node", coredis_client, "coredis"),
    ),
    "memcached": (
        Maker("shardcache", shardcache_client),
        Maker("shardcache, 1 node", shardcache_of_one),
        Maker("emcache", emcache_client, "emcache"),
        Maker("aiomcache, 1 node", aiomcache_client, "aiomcache"),
    ),
}


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure reads, writes and batches of many tasks, on one core; one case on all cores."""
    for kind in MAKERS:
        yield from _measure_kind(bench, kind)
        with unpinned():
            yield from _measure_kind(
                bench, kind, only=bench.plan.scaled(500, 50), suffix=", all cores"
            )


def _measure_kind(
    bench: Bench, kind: str, only: int | None = None, suffix: str = ""
) -> Iterator[tuple[str, Figures]]:
    with (
        run_servers(kind) as servers,
        closing(asyncio.new_event_loop()) as loop,
        ExitStack() as stack,
    ):
        clients, count = _clients(bench, kind, servers, loop, stack), bench.plan.calls
        for tasks in _gets(bench) if only is None else (only,):
            yield (
                f"async get, {count_of(tasks, 'task')}, 8 {kind}{suffix}",
                bench.interleave(
                    _subjects(clients, "get", tasks, count, loop),
                    calls=max(tasks, count),
                    step=tasks,
                ),
            )
        for tasks in SETS[: bench.plan.scaled(2, 1)] if only is None else ():
            yield (
                f"async set, {count_of(tasks, 'task')}, 8 {kind}",
                bench.interleave(_subjects(clients, "set", tasks, count, loop), step=tasks),
            )
        for tasks in BATCHES if only is None else ():
            yield (
                f"async get_many(100), {count_of(tasks, 'task')}, 8 {kind}",
                bench.interleave(
                    _subjects(clients, "get_many", tasks, count, loop), calls=30, step=tasks
                ),
            )


def _gets(bench: Bench) -> Sequence[int]:
    return GETS[: bench.plan.scaled(len(GETS), 3)]


def _clients(
    bench: Bench, kind: str, servers: Sequence[Server], loop: Loop, stack: ExitStack
) -> list[Client]:
    floor = Multiplexer(kind, servers, bench.plan.calls, loop)
    stack.callback(floor.close)
    clients = [Client("multiplexer", {"get": floor.get})]
    for maker in makers_of(MAKERS[kind], bench.attendance):
        with bench.attendance.noting(maker.name):
            client = maker.make(servers, loop)
            stack.callback(client.release)
            loop.run_until_complete(fill(client, bench.plan.calls))
            clients.append(client)
    return clients


def _subjects(
    clients: Sequence[Client], operation: str, tasks: int, count: int, loop: Loop
) -> dict[str, Subject]:
    return {
        client.name: subject(client, operation, tasks, count, loop)
        for client in clients
        if operation in client.calls
    }


def subject(client: Client, operation: str, tasks: int, count: int, loop: Loop) -> Subject:
    """Return a subject whose calls are made by so many tasks, over `count` keys of a client."""
    keys = _keys(client, count)
    rows: Sequence[tuple[Any, ...]]
    if operation == "get_many":
        rows = [(batch,) for batch in batches_of(keys, 100)]
    elif operation == "set":
        rows = [(key, VALUE) for key in keys]
    else:
        rows = [(key,) for key in keys]
    return _run(client.calls[operation], rows, tasks, loop)


def _run(call: Call, rows: Sequence[tuple[Any, ...]], tasks: int, loop: Loop) -> Subject:
    """Return a subject whose calls are made by so many tasks, each its share one after another."""

    async def work(first: int, count: int) -> None:
        for number in range(first, first + count):
            await call(*rows[number % len(rows)])

    async def work_all(calls: int) -> None:
        share = calls // tasks
        await asyncio.gather(*(work(number * share, share) for number in range(tasks)))

    return lambda calls: loop.run_until_complete(work_all(calls))


def _ours(name: str, servers: Sequence[Server], loop: Loop) -> Client:
    ours = AsyncClient([server.url for server in servers], timeout=PATIENCE)
    return Client(
        name,
        {
            "get": ours.get,
            "set": lambda key, value: ours.set(key, value, TTL),
            "get_many": ours.get_many,
        },
        lambda: loop.run_until_complete(ours.aclose()),
    )


def _redis_like(name: str, client: Any, loop: Loop, aclose: Callable[[], Any]) -> Client:
    return Client(
        name,
        {
            "get": client.get,
            "set": lambda key, value: client.set(key, value, ex=TTL),
            "get_many": client.mget,
        },
        lambda: loop.run_until_complete(aclose()),
    )


def _enter(manager: Any, loop: Loop) -> Callable[[], None]:
    """Enter an asynchronous context in a task that stays; return what leaves it."""
    leave = asyncio.Event()
    entered = loop.create_future()

    async def stay() -> None:
        async with manager:
            entered.set_result(None)
            await leave.wait()

    task = loop.create_task(stay())
    task.add_done_callback(lambda done: entered.done() or entered.set_exception(done.exception()))
    loop.run_until_complete(entered)

    def close() -> None:
        leave.set()
        loop.run_until_complete(task)

    return close


async def fill(client: Client, count: int) -> None:
    """Store the keys of a client; raise `AssertionError` if it does not read what it wrote."""
    keys = _keys(client, count)
    for key in keys:
        await client.calls["set"](key, VALUE)
    read = await client.calls["get"](keys[0])
    if getattr(read, "value", read) != VALUE:
        raise AssertionError("it does not read what it wrote")


def _keys(client: Client, count: int) -> list[Any]:
    """Return the keys of a client: text, or bytes where it takes nothing else."""
    tag = client.name[:4] if "1 node" not in client.name else f"1{client.name[:3]}"
    keys = keys_of("raw" if client.name == "multiplexer" else tag, count)
    return [key.encode() for key in keys] if "bytes" in client.calls else list(keys)
