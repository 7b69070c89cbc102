"""One client that many threads share, on one core and on all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from bench import blocking
from bench.bench import Bench
from bench.machine import run_servers, unpinned
from bench.peers import Client, Maker, makers_of
from bench.rounds import Figures, Subject
from bench.workload import TTL, VALUE, count_of, keys_of
from shardcache.testing.servers import Server

COUNTS: Final = (1, 4, 16)
SMALL_POOL: Final = 4


def _pylibmc_pool(servers: Sequence[Server]) -> Client:
    import pylibmc  # noqa: PLC0415

    addresses = [f"{server.host}:{server.port}" for server in servers]
    first = pylibmc.Client(addresses, behaviors={"ketama_weighted": True, "tcp_nodelay": True})
    pool = pylibmc.ThreadMappedPool(first)

    def get(key: str) -> Any:
        with pool.reserve() as client:
            return client.get(key)

    return Client("pylibmc", {"get": get, "set": first.set}, pool.relinquish)


MAKERS: Final = {
    "memcached": (
        Maker("shardcache", blocking.shardcache_client),
        Maker("shardcache, pool_size=4", partial(blocking.shardcache_client, pool_size=SMALL_POOL)),
        Maker("pylibmc ThreadMappedPool", _pylibmc_pool, "pylibmc"),
        Maker(
            "meta-memcache",
            partial(blocking.meta_memcache_client, pool=max(COUNTS)),
            "meta-memcache",
        ),
        Maker("python-memcached", blocking.python_memcached_client, "python-memcached"),
        Maker(
            "HashClient, use_pooling",
            partial(blocking.hash_client, use_pooling=True),
            "pymemcache",
        ),
    ),
    "redis": (
        Maker("shardcache", blocking.shardcache_client),
        Maker("redis-py, 1 node", blocking.redis_client, "redis-py"),
        Maker("glide-sync, 1 node", blocking.glide_client, "valkey-glide-sync"),
    ),
}


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure `get` of 1 to 16 threads over eight nodes of each kind."""
    for kind in MAKERS:
        yield from _measure_kind(bench, kind, "")
        with unpinned():
            yield from _measure_kind(bench, kind, ", all cores")


def _measure_kind(bench: Bench, kind: str, suffix: str) -> Iterator[tuple[str, Figures]]:
    with run_servers(kind) as servers, ExitStack() as stack:
        clients: dict[str, Client] = {}
        for maker in makers_of(MAKERS[kind], bench.attendance):
            with bench.attendance.noting(f"{maker.name}, threads"):
                client = maker.make(servers)
                for key in keys_of(client.name, bench.plan.calls):
                    client.calls["set"](key, VALUE, TTL)
                clients[maker.name] = client
                stack.callback(client.release)
        for count in COUNTS:
            with ThreadPoolExecutor(count) as threads:
                subjects = {
                    name: share(
                        each.calls["get"], keys_of(each.name, bench.plan.calls), count, threads
                    )
                    for name, each in clients.items()
                }
                name = f"get, {count_of(count, 'thread')}, 8 {kind}{suffix}"
                yield name, bench.interleave(subjects, step=count)


def share(
    call: Callable[..., Any], keys: Sequence[str], count: int, threads: ThreadPoolExecutor
) -> Subject:
    """Return a subject whose calls are made by so many threads at once."""

    def work(first: int, calls: int) -> None:
        for number in range(first, first + calls):
            call(keys[number % len(keys)])

    def work_all(calls: int) -> None:
        part = calls // count
        parts = [threads.submit(work, number * part, part) for number in range(count)]
        for done in wait(parts).done:
            done.result()

    return work_all
