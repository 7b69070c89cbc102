"""How costs grow with keys, nodes, tasks, threads, and in memory: one picture of each, and JSON beside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import blocking, joiners, tasks, threads
from bench.bench import Bench
from bench.costs import memory_of_clients, memory_of_connections
from bench.floors import Multiplexer
from bench.machine import run_servers
from bench.peers import Client
from bench.pictures import draw_curves
from bench.placing import nodes_of
from bench.rounds import Figure
from bench.workload import TTL, VALUE, batches_of, each, keys_of
from shardcache import AsyncClient
from shardcache import Client as Shardcache
from shardcache.plugin.manager import load

KEYS: Final = (1, 10, 100, 1_000, 10_000, 100_000)
REAL_NODES: Final = (1, 2, 4, 8, 16)
NODES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TASKS: Final = (1, 10, 100, 500, 1_000, 5_000, 20_000)
THREADS: Final = (1, 2, 4, 8, 16)
WAITING: Final = (100, 1_000, 5_000, 20_000)
STRATEGIES: Final = ("rendezvous", "maglev", "ketama", "jump")

Curve = list[tuple[float, float]]
Curves = dict[str, Curve]


class Picture(NamedTuple):
    """One picture: its name, what is measured, and the words at its axes."""

    name: str
    measure: Callable[[Bench], Curves]
    title: str
    across: str
    up: str


def draw(bench: Bench, directory: Path, say: Callable[[str], object]) -> Iterator[Path]:
    """Measure and draw each picture; write all points to `growth.json`."""
    directory.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for picture in PICTURES:
        say(f"measuring: {picture.title}")
        curves = picture.measure(bench)
        found[picture.name] = {"title": picture.title, "up": picture.up, "curves": curves}
        path = directory / f"growth-{picture.name}.svg"
        draw_curves(path, picture.title, picture.across, picture.up, curves)
        yield path
    points = directory / "growth.json"
    points.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    yield points


def keys(bench: Bench) -> Curves:
    """Measure `get_many` by the number of its keys, in µs a key."""
    curves: Curves = {}
    for kind in ("memcached", "redis"):
        with run_servers(kind) as servers, ExitStack() as stack:
            clients = [(f"shardcache, 8 {kind}", blocking.shardcache_client(servers))]
            if kind == "memcached" and bench.attendance.has("pylibmc"):
                clients.append(("pylibmc, 8 memcached", blocking.pylibmc_client(servers)))
            for _, client in clients:
                stack.callback(client.release)
                for batch in batches_of(keys_of(client.name, _most(bench, KEYS)), 1000):
                    client.calls["set_many"](dict.fromkeys(batch, VALUE), TTL)
            for count in _points(bench, KEYS):
                figures = bench.interleave(
                    {
                        name: each(client.calls["get_many"], [keys_of(client.name, count)])
                        for name, client in clients
                    }
                )
                _add(curves, figures, count, per=count)
    return curves


def nodes(bench: Bench) -> Curves:
    """Measure `get_many` of 100 keys by the number of nodes, in µs a key; many nodes are in-process ones."""
    curves: Curves = {}
    texts = keys_of("node", 100)
    for count in _points(bench, REAL_NODES):
        with run_servers("memcached", count) as servers:
            client = blocking.shardcache_client(servers)
            client.calls["set_many"](dict.fromkeys(texts, VALUE), TTL)
            figures = bench.interleave({"memcached": each(client.calls["get_many"], [texts])})
            client.release()
        _add(curves, figures, count, per=len(texts))
    for count in _points(bench, NODES):
        with Shardcache([f"memory://{number}" for number in range(count)]) as embedded:
            embedded.set_many(dict.fromkeys(texts, VALUE), TTL)
            figures = bench.interleave({"in-process nodes": each(embedded.get_many, [texts])})
        _add(curves, figures, count, per=len(texts))
    return curves


def placement(bench: Bench) -> Curves:
    """Measure `owner(key)` by the number of nodes, in µs, once its tables are filled."""
    curves: Curves = {}
    texts = [key.encode() for key in keys_of("any", bench.plan.calls)]
    for count in _points(bench, NODES):
        owners = {
            name: load().strategies[name]().build(nodes_of(count)).owner for name in STRATEGIES
        }
        _add(
            curves,
            bench.interleave({name: each(own, texts) for name, own in owners.items()}),
            count,
        )
    return curves


def many_tasks(bench: Bench) -> Curves:
    """Measure the asyncio `get` by the number of tasks, in µs of CPU."""
    curves: Curves = {}
    for kind in ("memcached", "redis"):
        with (
            run_servers(kind) as servers,
            closing(asyncio.new_event_loop()) as loop,
            ExitStack() as stack,
        ):
            floor = Multiplexer(kind, servers, bench.plan.calls, loop)
            stack.callback(floor.close)
            clients = [(f"shardcache, 8 {kind}", tasks.shardcache_client(servers, loop))]
            if kind == "redis":
                clients.append(("a multiplexer that parses nothing", _client_of(floor)))
                if bench.attendance.has("valkey-glide"):
                    clients.append(("valkey-glide, 1 node", tasks.glide_client(servers, loop)))
            for _, client in clients:
                stack.callback(client.release)
                if "set" in client.calls:
                    loop.run_until_complete(tasks.fill(client, bench.plan.calls))
            for count in _points(bench, TASKS):
                figures = bench.interleave(
                    {
                        name: tasks.subject(client, "get", count, bench.plan.calls, loop)
                        for name, client in clients
                    },
                    calls=max(count, bench.plan.calls),
                    step=count,
                )
                _add(curves, figures, count, cpu=True)
    return curves


def many_threads(bench: Bench) -> Curves:
    """Measure the blocking `get` by the number of threads that share a client, in µs of CPU."""
    curves: Curves = {}
    for kind in ("memcached", "redis"):
        with run_servers(kind) as servers, ExitStack() as stack:
            clients = {f"shardcache, 8 {kind}": blocking.shardcache_client(servers)}
            if kind == "redis" and bench.attendance.has("redis-py"):
                clients["redis-py, 1 node"] = blocking.redis_client(servers)
            texts = {}
            for name, client in clients.items():
                stack.callback(client.release)
                texts[name] = keys_of(client.name, bench.plan.calls)
                for key in texts[name]:
                    client.calls["set"](key, VALUE, TTL)
            for count in _points(bench, THREADS):
                with ThreadPoolExecutor(count) as workers:
                    figures = bench.interleave(
                        {
                            name: threads.share(client.calls["get"], texts[name], count, workers)
                            for name, client in clients.items()
                        },
                        step=count,
                    )
                _add(curves, figures, count, cpu=True)
    return curves


def client_memory(bench: Bench) -> Curves:
    """Measure the memory of idle clients by the number of their nodes, in KiB."""
    curves: Curves = {}
    for count in _points(bench, NODES):
        more, first = memory_of_clients(count)
        curves.setdefault("the first client, used", []).append((count, first / 1024))
        curves.setdefault("one more, of equal nodes", []).append((count, more / 1024))
    with run_servers("memcached") as servers:
        each_ = memory_of_connections([server.url for server in servers]) / 1024
    curves["one connection"] = [(count, each_) for count in (1, 8)]
    return curves


def caller_memory(bench: Bench) -> Curves:
    """Measure the memory of each caller who waits for a recompute, by how many wait, in KiB."""
    curves: Curves = {}
    with run_servers("memcached") as servers, closing(asyncio.new_event_loop()) as loop:
        client = AsyncClient([server.url for server in servers], timeout=60)
        for count in _points(bench, WAITING):
            held = loop.run_until_complete(joiners.memory_of_waiting(client, count))
            curves.setdefault("a caller of a cached function", []).append((count, held / 1024))
            bare = loop.run_until_complete(joiners.memory_of_tasks(count))
            curves.setdefault("a bare task", []).append((count, bare / 1024))
        loop.run_until_complete(client.aclose())
    return curves


PICTURES: Final = (
    Picture("keys", keys, "get_many, by the number of its keys", "keys", "µs a key"),
    Picture("nodes", nodes, "get_many of 100 keys, by the number of nodes", "nodes", "µs a key"),
    Picture("placement", placement, "owner(key), by the number of nodes", "nodes", "µs"),
    Picture("tasks", many_tasks, "asyncio get, by the number of tasks", "tasks", "µs of CPU"),
    Picture("threads", many_threads, "get, by the number of threads", "threads", "µs of CPU"),
    Picture("client-memory", client_memory, "memory of a client", "nodes", "KiB"),
    Picture("caller-memory", caller_memory, "memory of a caller who waits", "callers", "KiB"),
)


def _points(bench: Bench, points: Sequence[int]) -> Sequence[int]:
    return points[: bench.plan.scaled(len(points), 2)]


def _most(bench: Bench, points: Sequence[int]) -> int:
    return max(_points(bench, points))


def _add(
    curves: Curves, figures: dict[str, Figure], place: int, *, per: int = 1, cpu: bool = False
) -> None:
    for name, figure in figures.items():
        seconds = figure.cpu if cpu and figure.cpu is not None else figure.value
        curves.setdefault(name, []).append((place, seconds * 1e6 / per))


def _client_of(floor: Multiplexer) -> Client:
    return Client("multiplexer", {"get": floor.get})
