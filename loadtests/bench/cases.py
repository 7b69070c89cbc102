"""The cases: what is measured, against which client, and the claimed ratio."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import pylibmc
import redis.asyncio
from pymemcache.client.hash import HashClient

from bench import own_types
from bench.rounds import Subject, Timing, run_interleaved
from shardcache import AsyncClient, Client, Node
from shardcache.plugin.manager import load
from shardcache.testing.servers import Server, start_memcached, start_redis

NODES = 8
VALUE = b"v" * 100
KEYS = [f"user:{number:08d}:profile" for number in range(1500)]
BATCHES = [KEYS[start : start + 100] for start in range(0, len(KEYS), 100)] * 10


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed ratio: `subject` against `base`, at most or at least `bound`."""

    case: str
    subject: str
    base: str
    bound: float
    faster: bool  # True: base / subject must be at least the bound

    def measured(self, timings: dict[str, Timing]) -> float:
        """Return the ratio, in the sense of the claim."""
        ours, theirs = timings[self.subject], timings[self.base]
        return theirs.ratio(ours) if self.faster else ours.ratio(theirs)

    def holds(self, timings: dict[str, Timing]) -> bool:
        """Return whether the measured ratio is within the bound."""
        value = self.measured(timings)
        return value >= self.bound if self.faster else value <= self.bound

    def words(self, timings: dict[str, Timing]) -> tuple[str, str]:
        """Return the measured and the claimed figure as text."""
        sense = "times as fast as" if self.faster else "times the time of"
        return (
            f"{self.subject}: {self.measured(timings):.2f} {sense} {self.base}",
            f"at {'least' if self.faster else 'most'} {self.bound:g}",
        )


@dataclass(frozen=True, slots=True)
class Surplus:
    """A claimed difference: `subject` takes at most `bound` seconds more than `base`."""

    subject: str
    base: str
    bound: float

    def measured(self, timings: dict[str, Timing]) -> float:
        """Return the difference in seconds a call."""
        return timings[self.subject].seconds - timings[self.base].seconds

    def holds(self, timings: dict[str, Timing]) -> bool:
        """Return whether the measured difference is within the bound."""
        return self.measured(timings) <= self.bound

    def words(self, timings: dict[str, Timing]) -> tuple[str, str]:
        """Return the measured and the claimed figure as text."""
        return (
            f"{self.subject}: {self.measured(timings) * 1e6:.2f} µs above {self.base}",
            f"at most {self.bound * 1e6:g} µs",
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of work: what to run, and what is claimed of the result."""

    name: str
    run: Callable[[int], dict[str, Timing]]
    claims: tuple[Claim | Surplus, ...] = ()


@contextmanager
def run_servers(start: Callable[[], Server]) -> Iterator[list[Server]]:
    """Run eight servers of a kind, stopped at the end."""
    servers = [start() for _ in range(NODES)]
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


def _memcached() -> Server:
    return start_memcached("-t", "1")


class RawSockets:
    """The floor: plain blocking sockets sending and receiving the bytes of the meta protocol."""

    def __init__(self, servers: list[Server]) -> None:
        self.sockets = [socket.create_connection((s.host, s.port)) for s in servers]
        for connection in self.sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests = [
            (self.sockets[zlib.crc32(key.encode()) % NODES], b"mg %s v f\r\n" % key.encode())
            for key in KEYS
        ]

    def fill(self) -> None:
        """Store every key where `get` will ask for it."""
        for key, (connection, _) in zip(KEYS, self.requests, strict=True):
            connection.sendall(b"ms %s 100\r\n%s\r\n" % (key.encode(), VALUE))
            connection.recv(64)

    def get(self) -> None:
        """Read every key, one round trip each."""
        for connection, request in self.requests:
            connection.sendall(request)
            connection.recv(4096)

    def close(self) -> None:
        """Close all connections."""
        for connection in self.sockets:
            connection.close()


def memcached_get(rounds: int) -> dict[str, Timing]:
    """Measure the blocking `get` over eight memcached nodes."""
    with run_servers(_memcached) as servers, closing(RawSockets(servers)) as raw:
        ours, hashed, native = _memcached_clients(servers)
        raw.fill()
        subjects: dict[str, Subject] = {
            "raw": raw.get,
            "shardcache": _gets(ours.get),
            "HashClient": _gets(hashed.get),
            "pylibmc": _gets(native.get),
        }
        with ours:
            return run_interleaved(subjects, calls=len(KEYS), rounds=rounds)


def memcached_get_many(rounds: int) -> dict[str, Timing]:
    """Measure the blocking `get_many` of 100 keys over eight memcached nodes."""
    with run_servers(_memcached) as servers:
        ours, hashed, native = _memcached_clients(servers)
        subjects: dict[str, Subject] = {
            "shardcache": _batches(ours.get_many),
            "HashClient": _batches(hashed.get_many),
            "pylibmc": _batches(native.get_multi),
        }
        with ours:
            return run_interleaved(subjects, calls=len(BATCHES), rounds=rounds)


def cached_hit(rounds: int) -> dict[str, Timing]:
    """Measure a hit of a cached function, and a bare `get`, over in-process nodes: client CPU only."""
    with Client([f"memory://{number}" for number in range(NODES)]) as client:

        @client.cached(ttl=3600, lock=True, namespace="plain")
        def plain(number: int) -> bytes:
            return VALUE + b"%d" % number

        @client.cached(ttl=3600, lock=True, stale=60, namespace="aged")
        def aged(number: int) -> bytes:
            return VALUE + b"%d" % number

        numbers = range(len(KEYS))
        for key, number in zip(KEYS, numbers, strict=True):
            client.set(key, plain(number))
            aged(number)
        subjects: dict[str, Subject] = {
            "get": _gets(client.get),
            "cached": lambda: [plain(number) for number in numbers],
            "cached, with stale=60": lambda: [aged(number) for number in numbers],
        }
        return run_interleaved(subjects, calls=len(KEYS), rounds=rounds)


def redis_async_get(rounds: int) -> dict[str, Timing]:
    """Measure the asyncio `get` of 500 tasks over eight Redis nodes."""
    with run_servers(start_redis) as servers, closing(asyncio.new_event_loop()) as loop:
        ours = AsyncClient([f"redis://{s.host}:{s.port}" for s in servers], timeout=30)
        theirs = [
            redis.asyncio.Redis(host=s.host, port=s.port, max_connections=1000) for s in servers
        ]
        loop.run_until_complete(_fill_async(ours, theirs))
        subjects: dict[str, Subject] = {
            "shardcache": lambda: loop.run_until_complete(_tasks(ours.get)),
            "redis.asyncio": lambda: loop.run_until_complete(
                _tasks(lambda key: theirs[zlib.crc32(key.encode()) % NODES].get(key))
            ),
        }
        try:
            return run_interleaved(subjects, calls=len(KEYS), rounds=rounds)
        finally:
            loop.run_until_complete(_close_all(ours, theirs))


def owner(rounds: int) -> dict[str, Timing]:
    """Measure `owner(key)` on bytes keys for each strategy at 3 and 1,000 nodes."""
    keys = [key.encode() for key in KEYS] * 20  # a round of less would measure the caches it fills
    subjects: dict[str, Subject] = {}
    for count in (3, 1000):
        nodes = [Node(f"memcached://10.0.{n // 250}.{n % 250}:11211") for n in range(count)]
        for name in ("rendezvous", "maglev", "ketama"):
            find = load().strategies[name]().build(nodes).owner
            subjects[f"{name}, {count} nodes"] = _gets(find, keys)
    return run_interleaved(subjects, calls=len(keys), rounds=rounds)


def ready(rounds: int) -> dict[str, Timing]:
    """Measure creating a client of 1,000 nodes."""
    urls = [f"memcached://10.0.{n // 250}.{n % 250}:11211" for n in range(1000)]
    return run_interleaved({"Client of 1,000 nodes": lambda: Client(urls)}, calls=1, rounds=rounds)


def importing(rounds: int) -> dict[str, Timing]:
    """Measure `import shardcache` and the import of its client in a new interpreter."""

    def run(code: str) -> Subject:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    subjects = {
        "bare interpreter": run("pass"),
        "import shardcache": run("import shardcache"),
        "from shardcache import Client": run("from shardcache import Client"),
    }
    return run_interleaved(subjects, calls=1, rounds=rounds)


CASES = (
    Case(
        "get, 8 memcached",
        memcached_get,
        (
            Claim("get, 8 memcached", "shardcache", "raw", 1.8, faster=False),
            Claim("get, 8 memcached", "shardcache", "HashClient", 3, faster=True),
        ),
    ),
    Case(
        "get_many(100), 8 memcached",
        memcached_get_many,
        (Claim("get_many(100), 8 memcached", "shardcache", "HashClient", 12, faster=True),),
    ),
    Case(
        "async get, 500 tasks, 8 Redis",
        redis_async_get,
        (Claim("async get, 500 tasks, 8 Redis", "shardcache", "redis.asyncio", 5, faster=True),),
    ),
    Case(
        "a hit of a cached function",
        cached_hit,
        (Surplus("cached", "get", 6e-6), Surplus("cached, with stale=60", "get", 6e-6)),
    ),
    Case("own types, a hit of 1 row", partial(own_types.hits, 1)),
    Case("own types, a hit of 50 rows", partial(own_types.hits, 50)),
    Case("own types, a recompute of 1 row", partial(own_types.recomputes, 1)),
    Case("own types, a recompute of 50 rows", partial(own_types.recomputes, 50)),
    Case("owner(key)", owner),
    Case("ready", ready),
    Case("import", importing),
)


def _memcached_clients(
    servers: list[Server],
) -> tuple[Client, HashClient, pylibmc.Client]:
    ours = Client([f"memcached://{s.host}:{s.port}" for s in servers], timeout=5)
    hashed = HashClient([(s.host, s.port) for s in servers])
    native = pylibmc.Client(
        [f"{s.host}:{s.port}" for s in servers],
        binary=False,
        behaviors={"ketama_weighted": True, "tcp_nodelay": True},
    )
    for key in KEYS:
        ours.set(key, VALUE)
        hashed.set(key, VALUE)
        native.set(key, VALUE)
    return ours, hashed, native


def _gets(get: Callable[..., object], keys: list[str] | list[bytes] = KEYS) -> Subject:
    def run() -> None:
        for key in keys:
            get(key)

    return run


def _batches(get_many: Callable[[list[str]], object]) -> Subject:
    def run() -> None:
        for batch in BATCHES:
            get_many(batch)

    return run


async def _tasks(get: Callable[..., object]) -> None:
    """Read all keys from 500 tasks, three keys each in turn."""

    async def worker(start: int) -> None:
        for key in KEYS[start : start + 3]:
            await get(key)

    await asyncio.gather(*(worker(start) for start in range(0, len(KEYS), 3)))


async def _fill_async(ours: AsyncClient, theirs: list[redis.asyncio.Redis]) -> None:
    for key in KEYS:
        await ours.set(key, VALUE)
        await theirs[zlib.crc32(key.encode()) % NODES].set(key, VALUE)


async def _close_all(ours: AsyncClient, theirs: list[redis.asyncio.Redis]) -> None:
    await ours.aclose()
    for client in theirs:
        await client.aclose()
