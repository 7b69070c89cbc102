"""To reach a node every address gets its share of the time, and no other node is delayed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from shardcache import NodeUnavailableError
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually


@pytest.fixture
def black_hole():
    """Return an address that takes no connection and refuses none: its backlog is full."""
    with socket.socket() as listener, contextlib.ExitStack() as callers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.settimeout(0)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def names(monkeypatch):
    """Return a dict from host name to a function that gives its addresses, as a name service does."""
    known = {}
    real = socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        if host not in known or kwargs.get("flags") == socket.AI_NUMERICHOST:
            return real(host, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", addr) for addr in known[host]()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
def test_a_silent_address_leaves_time_for_the_next(mode, scheme, names, black_hole, make_memcached):
    """One of a name's addresses may be silent: the others are still tried."""
    server = make_memcached()
    names["pool.test"] = lambda: [black_hole, (server.host, server.port)]
    client = make_client(mode, f"{scheme}://pool.test:1", on_error="raise", timeout=2)
    assert client.set("k", 1)
    client.close()


def test_a_slow_look_up_does_not_delay_the_other_nodes(mode, names, make_memcached):
    """A batch asks them while one node's name is looked up."""
    servers = {f"pool{number}.test": make_memcached() for number in range(2)}

    def slow(server):
        def answer():
            time.sleep(0.5)
            return [(server.host, server.port)]

        return answer

    names.update({name: slow(server) for name, server in servers.items()})
    urls = [f"memcached://{name}:1" for name in servers]
    client = make_client(mode, urls, on_error="raise", timeout=5)
    started = time.monotonic()
    assert client.set_many({f"k{number}": number for number in range(50)}) == []
    assert time.monotonic() - started < 0.95  # both look-ups at once
    client.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_name_service_that_hangs_kills_no_node(mode, names, make_memcached):
    """The last address still works: half of a dial's time is left for it."""
    server = make_memcached()
    over = threading.Event()
    names["pool.test"] = lambda: [(server.host, server.port)]
    client = make_client(mode, "memcached://pool.test:1", timeout=1)
    assert client.set("k", 1)

    def hang():
        over.wait(60)
        return []

    names["pool.test"] = hang
    server.restart()
    try:
        eventually(lambda: client.set("k", 2), within=20)
    finally:
        over.set()
    client.close()


def test_a_full_backlog_of_a_unix_socket_is_an_error_at_once(mode, tmp_path):
    """The server is unavailable."""
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as callers:
        listener.bind(path)
        listener.listen(0)
        for _ in range(4):
            caller = callers.enter_context(socket.socket(socket.AF_UNIX))
            caller.settimeout(0)
            caller.connect_ex(path)
        client = make_client(mode, f"memcached+unix://{path}", on_error="raise", timeout=5)
        with pytest.raises(NodeUnavailableError, match="cannot be reached"):
            client.get("k")
        client.close()
