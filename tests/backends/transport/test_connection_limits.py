"""Servers that take no more connections, while those that are open work."""

import asyncio
import logging
import socket
import threading
import time

import pytest

from operations.harness import EventLog
from shardcache import AsyncClient, Client, Node, NodeEjected, TooManyConnectionsError

THREADS = 50
SECONDS = 2.0
DIALS_LATER = 20  # within so long, or a few times that on a busy machine


@pytest.fixture(params=["memcached", "pymemcache", "redis"])
def limited_url(request, make_memcached, make_redis):
    """Return the URL of a server with room for a few connections."""
    if request.param == "redis":
        server = make_redis("--maxclients", "5")
    else:
        server = make_memcached("-c", "24")
    return server.url.replace("memcached://", f"{request.param}://")


def hammered(ask_once, seconds):
    """Ask from many threads, 10 ms apart; return how many calls there were, and how many hits."""
    figures = []

    def ask(number):
        calls = hits = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            hits += ask_once(f"k{number}", number)
            calls += 1
            time.sleep(0.01)
        figures.append((calls, hits))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    return [sum(column) for column in zip(*figures, strict=True)]


class Meter:
    """Counts a server's connections, over one of its own: those it took, and those it refused."""

    def __init__(self, url):
        self._redis = url.startswith("redis")
        node = Node(url).address
        self._socket = socket.create_connection((node.host, node.port), timeout=30)
        self._before = self._total()

    def dials(self):
        """Return how many there have been since the meter was made."""
        return self._total() - self._before

    def close(self):
        """Close its connection."""
        self._socket.close()

    def _total(self):
        self._socket.sendall(b"INFO stats\r\n" if self._redis else b"stats\r\n")
        names = (b"total_connections_received", b"rejected_connections", b"total_connections")
        figures = {}
        text = b""
        while not self._whole(text):
            text += self._socket.recv(65_536)
        for line in text.splitlines():
            name, _, figure = line.removeprefix(b"STAT ").replace(b":", b" ").partition(b" ")
            figures[name] = figure
        return sum(int(figures[name]) for name in names if name in figures)

    def _whole(self, text):
        if not self._redis:
            return text.endswith(b"END\r\n")
        size, _, rest = text.partition(b"\r\n")
        return len(rest) > 2 and len(rest) == int(size[1:]) + 2


@pytest.fixture
def meter(limited_url):
    """Return a meter of the server."""
    meter = Meter(limited_url)
    yield meter
    meter.close()


def counted(client):
    """Return how many connections a client's only node has refused, by its statistics."""
    return next(iter(client.stats().values())).client["refused_connections"]


@pytest.mark.slow
def test_open_connections_are_kept_and_used(limited_url, meter, caplog):
    """Many threads share them: no node is ejected, all keys are found, and dials are few."""
    ejections = EventLog(NodeEjected)
    with (
        caplog.at_level(logging.WARNING, "shardcache"),
        Client(limited_url, timeout=5.0, observers=[ejections]) as client,
    ):

        def ask_once(key, value):
            client.set(key, value)
            return client.get(key) == value

        calls, hits = hammered(ask_once, SECONDS)
        assert (len(ejections.events), hits) == (0, calls)
        assert 0 < counted(client) <= THREADS
        # At first one for each thread, which cannot know; then one at a time, with pauses.
        assert meter.dials() <= THREADS + DIALS_LATER
    lines = [line for line in caplog.messages if "takes no more connections" in line]
    assert len(lines) == 1


async def test_tasks_need_one_connection(limited_url, meter):
    """However many tasks there are."""
    ejections = EventLog(NodeEjected)
    async with AsyncClient(limited_url, timeout=5.0, observers=[ejections]) as client:

        async def ask(number):
            for _ in range(20):
                assert await client.set(f"k{number}", number)
                assert await client.get(f"k{number}") == number

        await asyncio.gather(*(ask(number) for number in range(THREADS)))
        assert len(ejections.events) == 0
    if "pymemcache" not in limited_url:  # whose tasks have threads
        assert meter.dials() == 1


@pytest.mark.slow
@pytest.mark.parametrize("limited_url", ["memcached", "redis"], indirect=True)
def test_loops_without_a_connection_eject_no_node(limited_url, meter, caplog):
    """Loops that have one go on, and dials are few."""
    ejections = EventLog(NodeEjected)
    client = AsyncClient(limited_url, timeout=5.0, observers=[ejections])
    loops = {}

    def ask_once(key, value):
        loop = loops.get(key) or loops.setdefault(key, asyncio.new_event_loop())
        loop.run_until_complete(client.set(key, value))
        return loop.run_until_complete(client.get(key)) == value

    with caplog.at_level(logging.WARNING, "shardcache"):
        calls, hits = hammered(ask_once, SECONDS)
    for loop in loops.values():
        loop.run_until_complete(client.aclose())
        loop.close()
    assert len(ejections.events) == 0
    assert 0 < hits < calls
    assert meter.dials() <= THREADS + DIALS_LATER
    lines = [line for line in caplog.messages if "takes no more connections:" in line]
    assert len(lines) == 1


@pytest.fixture
def full_url(make_redis):
    """Return the URL of a server with room for one connection."""
    return make_redis("--maxclients", "1").url


def test_without_an_open_connection_the_error_says_so(full_url):
    """The node cannot serve this client then."""
    with Client(full_url) as holder:
        holder.set("k", 1)
        with (
            Client(full_url, on_error="raise") as client,
            pytest.raises(TooManyConnectionsError, match="max number of clients"),
        ):
            client.get("k")
