"""Hits of cached functions: above a bare `get`, with tags, after a rest, and those of other caches."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from bench.bench import Bench
from bench.machine import NODES, run_servers
from bench.rounds import Figure, Figures, Subject
from bench.workload import TTL, VALUE, count_of, each, keys_of
from shardcache import AsyncClient, Client
from shardcache.testing.servers import Server

KINDS: Final = ("memory", "memcached", "redis")
NUMBERS: Final = range(200)
FUNCTIONS: Final = 100
REST: Final = 10.0  # seconds
IDLE: Final = 3.0  # seconds in which commands are counted
TASKS: Final = (1, 100)

Loop = asyncio.AbstractEventLoop


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure hits over in-process and real nodes, blocking and asyncio."""
    for kind in KINDS:
        if kind == "memory":
            yield from _measure_kind(bench, kind, [], _memory_urls())
            continue
        with run_servers(kind) as servers:
            urls = [server.url for server in servers]
            yield from _measure_kind(bench, kind, servers, urls)
            yield from _measure_async(bench, kind, servers, urls)
            if kind == "memcached":
                yield from _measure_rest(bench, urls)
                yield from _count_background(bench, servers, urls)


def _memory_urls() -> list[str]:
    return [f"memory://{number}" for number in range(NODES)]


def _measure_kind(
    bench: Bench, kind: str, servers: Sequence[Server], urls: Sequence[str]
) -> Iterator[tuple[str, Figures]]:
    with Client(urls, timeout=10) as client:
        functions = _functions(client)
        keys = keys_of("bare", len(NUMBERS))
        client.set_many(dict.fromkeys(keys, VALUE), TTL)
        for function in functions.values():
            for number in NUMBERS:
                function(number)
        subjects: dict[str, Subject] = {"get": each(client.get, keys)}
        subjects |= {name: each(function, NUMBERS) for name, function in functions.items()}
        for name, peer, make in _dogpile(kind):
            if bench.attendance.has("dogpile.cache") and (
                peer is None or bench.attendance.has(peer)
            ):
                with bench.attendance.noting(name):
                    function = make(servers)
                    for number in NUMBERS:
                        function(number)
                    subjects[name] = each(function, NUMBERS)
        yield f"a hit of a cached function, {_nodes(kind)}", bench.interleave(subjects)


def _functions(client: Client) -> dict[str, Callable[[int], bytes]]:
    @client.cached(ttl=TTL, namespace="plain")
    def plain(number: int) -> bytes:
        return VALUE + b"%d" % number

    @client.cached(ttl=TTL, lock=True, namespace="locked")
    def locked(number: int) -> bytes:
        return VALUE + b"%d" % number

    @client.cached(ttl=TTL, lock=True, stale=60, namespace="aged")
    def aged(number: int) -> bytes:
        return VALUE + b"%d" % number

    @client.cached(ttl=TTL, namespace="tagged", tags=["number:{number}", "all"])
    def tagged(number: int) -> bytes:
        return VALUE + b"%d" % number

    return {
        "cached": plain,
        "cached, lock": locked,
        "cached, lock and stale": aged,
        "cached, two tags": tagged,
    }


def _dogpile(kind: str) -> list[tuple[str, str | None, Callable[[Sequence[Server]], Any]]]:
    """Return dogpile.cache's backends for a kind of nodes: name, the peer it needs, and a function."""

    def cached(backend: str, arguments: dict[str, Any]) -> Any:
        from dogpile.cache import make_region  # noqa: PLC0415 - it may not be installed

        region = make_region().configure(backend, expiration_time=TTL, arguments=arguments)

        @region.cache_on_arguments()
        def value(number: int) -> bytes:
            return VALUE + b"%d" % number

        return value

    if kind == "memory":
        return [("dogpile over memory", None, lambda _: cached("dogpile.cache.memory", {}))]
    if kind == "memcached":

        def over_pylibmc(servers: Sequence[Server]) -> Any:
            addresses = [f"{server.host}:{server.port}" for server in servers]
            behaviors = {"ketama_weighted": True, "tcp_nodelay": True}
            return cached("dogpile.cache.pylibmc", {"url": addresses, "behaviors": behaviors})

        return [("dogpile over pylibmc", "pylibmc", over_pylibmc)]

    def over_redis(servers: Sequence[Server]) -> Any:
        where = {"host": servers[0].host, "port": servers[0].port}
        return cached("dogpile.cache.redis", where)

    return [("dogpile over redis-py, 1 node", "redis-py", over_redis)]


def _measure_async(
    bench: Bench, kind: str, servers: Sequence[Server], urls: Sequence[str]
) -> Iterator[tuple[str, Figures]]:
    with closing(asyncio.new_event_loop()) as loop, ExitStack() as stack:
        functions = {}
        for name, peer, make in _async_caches(kind):
            if peer is None or bench.attendance.has(peer):
                with bench.attendance.noting(f"{name}, {kind}"):
                    function, close = loop.run_until_complete(make(servers, urls))
                    stack.callback(_close, loop, close)
                    loop.run_until_complete(_call_all(function))
                    functions[name] = function
        for tasks in TASKS:
            subjects = {name: _gather(each_, tasks, loop) for name, each_ in functions.items()}
            yield (
                f"a hit of a cached function, {count_of(tasks, 'task')}, {_nodes(kind)}",
                bench.interleave(subjects, step=tasks),
            )


def _async_caches(kind: str) -> list[tuple[str, str | None, Any]]:
    async def ours(_: Sequence[Server], urls: Sequence[str]) -> Any:
        client = AsyncClient(urls, timeout=30)

        @client.cached(ttl=TTL, lock=True, namespace="tasks")
        async def value(number: int) -> bytes:
            return VALUE + b"%d" % number

        return value, client.aclose

    async def by_aiocache(servers: Sequence[Server], _: Sequence[str]) -> Any:
        from aiocache import Cache, cached  # noqa: PLC0415 - it may not be installed
        from aiocache.serializers import PickleSerializer  # noqa: PLC0415

        cache = Cache.REDIS if kind == "redis" else Cache.MEMCACHED
        decorate = cached(
            ttl=TTL,
            key_builder=lambda _, number: f"aiocache:{number}",
            cache=cache,
            serializer=PickleSerializer(),
            endpoint=servers[0].host,
            port=servers[0].port,
        )

        async def value(number: int) -> bytes:
            return VALUE + b"%d" % number

        return decorate(value), decorate.cache.close if hasattr(decorate, "cache") else _nothing

    async def by_cashews(servers: Sequence[Server], _: Sequence[str]) -> Any:
        from cashews import Cache  # noqa: PLC0415 - it may not be installed

        cache = Cache()
        cache.setup(f"redis://{servers[0].host}:{servers[0].port}")
        await cache.init()

        @cache(ttl=TTL, key="cashews:{number}")
        async def value(number: int) -> bytes:
            return VALUE + b"%d" % number

        return value, cache.close

    caches = [("shardcache", None, ours), ("aiocache, 1 node", "aiocache", by_aiocache)]
    if kind == "redis":
        caches.append(("cashews, 1 node", "cashews", by_cashews))
    return caches


async def _nothing() -> None:
    """Close nothing."""


def _close(loop: Loop, close: Callable[[], Any]) -> None:
    async def run() -> None:
        result = close()
        if asyncio.iscoroutine(result):
            await result

    loop.run_until_complete(run())


async def _call_all(function: Callable[[int], Awaitable[Any]]) -> None:
    for number in NUMBERS:
        if await function(number) != _value(number):
            raise AssertionError("it does not return what was computed")


def _gather(function: Callable[[int], Awaitable[Any]], tasks: int, loop: Loop) -> Subject:
    async def work(first: int, count: int) -> None:
        for number in range(first, first + count):
            await function(number % len(NUMBERS))

    async def work_all(calls: int) -> None:
        part = calls // tasks
        await asyncio.gather(*(work(number * part, part) for number in range(tasks)))

    return lambda calls: loop.run_until_complete(work_all(calls))


def _measure_rest(bench: Bench, urls: Sequence[str]) -> Iterator[tuple[str, Figures]]:
    """Measure the first hit of each of many functions after they have all rested, and the second one.

    A rest cannot be repeated often, so these are medians over the functions.
    """
    with Client(urls, timeout=10) as client:
        functions = _many_functions(client)
        for function in functions:
            function(1)
        time.sleep(bench.plan.scaled(1, 0) * REST)
        rested = [_seconds(function) for function in functions]
        again = [_seconds(function) for function in functions]
    yield (
        "a hit after a rest of 10 s, 8 memcached",
        {
            "after a rest": Figure(statistics.median(rested)),
            "a hit": Figure(statistics.median(again)),
        },
    )


def _count_background(
    bench: Bench, servers: Sequence[Server], urls: Sequence[str]
) -> Iterator[tuple[str, Figures]]:
    """Count the commands that a process sends beside its hits, and when nothing is called."""
    seconds = bench.plan.scaled(1, 0) * IDLE + 0.2
    with Client(urls, timeout=10) as client:
        functions = _many_functions(client)
        for function in functions:
            function(1)
        before, calls, until = _commands(servers), 0, time.monotonic() + seconds
        while time.monotonic() < until:
            for function in functions:
                function(1)
            calls += len(functions)
        beside = (_commands(servers) - before - calls) / seconds
        time.sleep(0.1)
        before = _commands(servers)
        time.sleep(seconds)
        idle = (_commands(servers) - before) / seconds
    yield (
        f"commands a second beside {FUNCTIONS} functions, 8 memcached",
        {
            "beside hits": Figure(max(0.0, beside), unit="commands a second"),
            "idle": Figure(idle, unit="commands a second"),
        },
    )


def _many_functions(client: Client) -> list[Callable[[int], bytes]]:
    return [
        client.cached(ttl=TTL, lock=True, namespace=f"f{number}")(_value)
        for number in range(FUNCTIONS)
    ]


def _value(number: int) -> bytes:
    return VALUE + b"%d" % number


def _seconds(function: Callable[[int], Any]) -> float:
    began = time.perf_counter()
    function(1)
    return time.perf_counter() - began


def _commands(servers: Sequence[Server]) -> int:
    """Return how many keys the servers were asked for or told, by their own statistics."""
    total = 0
    for server in servers:
        with server.listener.connect(timeout=5) as connection:
            connection.sendall(b"stats\r\n")
            told = b""
            while not told.endswith(b"END\r\n"):
                told += connection.recv(65_536)
        words = [line.split() for line in told.decode().splitlines()]
        figures = {row[1]: row[2] for row in words if len(row) == 3}
        total += sum(int(figures[name]) for name in ("cmd_get", "cmd_set", "cmd_touch"))
    return total


def _nodes(kind: str) -> str:
    return f"{NODES} in-process nodes" if kind == "memory" else f"{NODES} {kind}"
