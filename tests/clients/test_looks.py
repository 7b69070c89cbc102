"""The looks for invalidations, counted at the servers."""

from __future__ import annotations

import socket
import time

import pytest

from shardcache.clients.base import caches_of
from shardcache.testing.driving import MODES, make_client

FUNCTIONS = 40
CLIENTS = 3


def made_of(mode, client, number):
    """Return a cached function as one that blocks, which takes the place of one of many."""
    if mode == "blocking":
        return client.cached(ttl=600, namespace=f"f{number}")(lambda: number)

    async def compute():
        return number

    function = client.cached(ttl=600, namespace=f"f{number}")(compute)
    return lambda: client.loop.run_until_complete(function())


def commands(servers):
    """Return how many commands the Redis servers have had of each kind that a client sends here."""
    totals = dict.fromkeys(("get", "mget", "set"), 0)
    for server in servers:
        with socket.create_connection((server.host, server.port), 5.0) as connection:
            connection.sendall(b"INFO commandstats\r\nPING\r\n")
            told = b""
            while not told.endswith(b"+PONG\r\n"):
                told += connection.recv(65536)
        for line in told.decode().splitlines():
            name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
            if name in totals:
                totals[name] += int(rest.split(",")[0])
    return totals


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_many_functions_share_one_look_a_second(mode, redis_servers):
    """Each client asks each node once a second, however many functions; never while none is called."""
    urls = [server.url for server in redis_servers]
    clients = [make_client(mode, urls, timeout=5.0) for _ in range(CLIENTS)]
    functions = [made_of(mode, client, n) for client in clients for n in range(FUNCTIONS)]
    for function in functions:
        function()
    before, began, hits = commands(redis_servers), time.monotonic(), 0
    while time.monotonic() < began + 2.5:
        for function in functions:
            function()
            hits += 1
    seconds = time.monotonic() - began
    after = commands(redis_servers)
    spent = {name: after[name] - before[name] for name in after}
    assert spent["get"] == hits
    assert spent["set"] == 0
    assert 0 < spent["mget"] <= CLIENTS * len(urls) * (seconds + 1)
    time.sleep(1.5)  # of rest
    assert commands(redis_servers) == after
    for client in clients:
        client.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_hit_after_a_pause_takes_one_round_trip(mode, kind, request):
    """The read and the look leave together, and no node is asked twice."""
    servers = request.getfixturevalue(f"{kind}_servers")
    client = make_client(mode, [server.url for server in servers], timeout=5.0)
    function = made_of(mode, client, 1)
    function()
    cluster = getattr(client, "twin", client)._cluster
    rounds = []
    io = cluster.io
    call_many, call = type(io).call_many, type(io).call

    class Counted:
        def __getattr__(self, name):
            return getattr(io, name)

        def call(self, *terms):
            rounds.append("one")
            return call(io, *terms)

        def call_many(self, *terms):
            rounds.append(len(terms[0]))
            return call_many(io, *terms)

    cluster.io = Counted()
    for _ in range(5):
        caches_of(getattr(client, "twin", client)).generations.due = io.now()  # as after a rest
        function()
    assert rounds == [1 + len(servers)] * 5
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_clearable_client_looks_once_a_second(mode, redis_servers):
    """Each of its calls is still one command."""
    urls = [server.url for server in redis_servers]
    client = make_client(mode, urls, timeout=5.0, clearable=True)
    client.set("k", 1)
    before, began, gets = commands(redis_servers), time.monotonic(), 0
    while time.monotonic() < began + 2.2:
        assert client.get("k") == 1
        gets += 1
    seconds = time.monotonic() - began
    after = commands(redis_servers)
    assert after["get"] - before["get"] == gets
    assert 0 < after["mget"] - before["mget"] <= len(urls) * (seconds + 1)
    client.close()
