"""Servers that take no more connections, while those that are open work."""

import logging
import threading
import time

import pytest

from shardcache import Client, Observer, TooManyConnectionsError
from shardcache.testing.servers import start_memcached, start_redis

THREADS = 50
SECONDS = 2.0


class Ejections(Observer):
    """Counts ejections."""

    def __init__(self):
        self.count = 0

    def node_ejected(self, _event):
        """Count one."""
        self.count += 1


@pytest.fixture(params=["memcached", "pymemcache", "redis"])
def limited_url(request):
    """Start a server with room for a few connections; give its URL."""
    if request.param == "redis":
        server = start_redis("--maxclients", "5")
    else:
        server = start_memcached("-c", "24")
    yield server.url.replace("memcached://", f"{request.param}://")
    server.stop()


def hammered(client, seconds):
    """Ask from many threads, 10 ms apart; return how many calls there were, and how many hits."""
    figures = []

    def ask(number):
        calls = hits = 0
        key = f"k{number}"
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            client.set(key, number)
            hits += client.get(key) == number
            calls += 1
            time.sleep(0.01)
        figures.append((calls, hits))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 30)
    return [sum(column) for column in zip(*figures, strict=True)]


def test_open_connections_are_kept_and_used(limited_url, caplog):
    """Many threads share them: nothing is ejected, all is found, and dials are few."""
    ejections = Ejections()
    with (
        caplog.at_level(logging.WARNING, "shardcache"),
        Client(limited_url, timeout=5.0, observers=[ejections]) as client,
    ):
        calls, hits = hammered(client, SECONDS)
        assert (ejections.count, hits) == (0, calls)
        pool = next(iter(client._cluster.links.values())).backend.pool
        assert 0 < pool.limited <= THREADS
    lines = [line for line in caplog.messages if "takes no more connections" in line]
    assert len(lines) == 1


@pytest.fixture
def full_url():
    """Start a server with room for one connection; give its URL."""
    server = start_redis("--maxclients", "1")
    yield server.url
    server.stop()


def test_without_an_open_connection_the_error_says_so(full_url):
    """The node is of no use to this client then."""
    with Client(full_url) as holder:
        holder.set("k", 1)
        with (
            Client(full_url, on_error="raise") as client,
            pytest.raises(TooManyConnectionsError, match="max number of clients"),
        ):
            client.get("k")
