"""The test servers do what tests of faults rely on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shardcache.testing import servers
from shardcache.testing.servers import (
    PortTakenError,
    Server,
    ServerFailedError,
    ServerMissingError,
    Tls,
)

# Many start servers without a fixture, to see how they start.
pytestmark = pytest.mark.servers

PROMPT = 10.0
STATS = (b"stats\r\n", b"STAT pid ")
INFO = (b"INFO\r\n", b"$")


@pytest.fixture(params=["memcached", "redis"])
def server(request, make_memcached, make_redis) -> Server:
    """Return a server for this test alone."""
    return {"memcached": make_memcached, "redis": make_redis}[request.param]()


def alive(server: Server) -> bool:
    """Return whether the server answers."""
    try:
        server.ask(*(INFO if server.url.startswith("redis") else STATS))
    except OSError:
        return False
    return True


def refuses(port: int) -> bool:
    """Return whether nothing listens on `port`."""
    try:
        with socket.create_connection((servers.LOOPBACK, port), 1):
            return False
    except OSError:
        return True


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Return whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_paused_server_accepts_and_says_nothing(server):
    """SIGSTOP leaves a server that can be connected to, and is silent until it is resumed."""
    server.pause()
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(b"\r\n")
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    server.resume()
    assert alive(server)


def test_a_killed_server_refuses_and_comes_back_at_its_port(server):
    """SIGKILL makes the port refuse at once; a restart is another process at the same URL."""
    url, pid = server.url, server.pid
    server.kill()
    assert not alive(server)
    server.restart()
    assert alive(server)
    assert server.url == url
    assert server.pid != pid


def test_a_paused_server_can_be_stopped(server):
    """Stopping ends a server whatever its state, and a second time does nothing."""
    server.pause()
    server.stop()
    server.stop()
    assert not alive(server)


def test_shared_servers_are_empty_and_store_at_once(memcached_servers):
    """A value stored right after the flush between two tests is not lost to it."""
    for server in memcached_servers:
        server.ask(b"get k\r\n", b"END")
        server.ask(b"set k 0 0 1\r\nv\r\n", b"STORED")
        server.ask(b"get k\r\n", b"VALUE")
        server.ask(b"flush_all\r\n", b"OK")
        server.ask(b"get k\r\n", b"END")
        server.ask(b"set k 0 0 1\r\nv\r\n", b"STORED")
        server.ask(b"get k\r\n", b"VALUE")


def test_servers_speak_tls_when_given_a_certificate(make_memcached, make_redis, tls: Tls):
    """Both kinds of server can be asked over TLS, and say so in their URLs."""
    for server, scheme in (
        (make_memcached(tls=tls), "memcacheds"),
        (make_redis(tls=tls), "rediss"),
    ):
        assert alive(server)
        assert server.url.startswith(f"{scheme}://")


def test_servers_listen_on_a_socket_of_the_file_system(make_memcached, make_redis, tmp_path: Path):
    """Both kinds of server can be asked through a Unix socket, and name it in their URLs."""
    for make, name in ((make_memcached, "memcached"), (make_redis, "redis")):
        server = make(unix=tmp_path / name)
        assert alive(server)
        assert server.url == f"{name}+unix://{tmp_path / name}"


def test_nutcracker_stands_before_nodes(memcached_servers, make_nutcracker):
    """A proxy of three nodes stores what it is given on one of them."""
    proxy = make_nutcracker(
        {
            "servers": [f"{node.host}:{node.port}:1" for node in memcached_servers],
            "hash": "fnv1a_64",
            "distribution": "ketama",
        }
    )
    proxy.ask(b"set k 0 0 1\r\nv\r\n", b"STORED")
    proxy.ask(b"get k\r\n", b"VALUE k 0 1\r\nv\r\nEND")


@pytest.mark.parametrize("start", [servers.start_memcached, servers.start_redis])
def test_a_taken_port_is_left_for_another(start, monkeypatch, server):
    """Losing the race for a port costs another try, and the server that answers is ours."""
    ports = [server.port]
    free_port = servers.free_port
    monkeypatch.setattr(
        servers, "free_port", lambda host: ports.pop() if ports else free_port(host)
    )
    other = start()
    try:
        assert not ports
        assert other.port != server.port
    finally:
        other.stop()


def test_no_free_port_at_all_is_a_failure(monkeypatch, server):
    """A port that stays taken is given up after some tries."""
    monkeypatch.setattr(servers, "free_port", lambda _host: server.port)
    with pytest.raises(PortTakenError, match="in use"):
        servers.start_memcached()


def test_a_server_that_will_not_start_says_why():
    """The message of a failed start holds what the server had to say."""
    with pytest.raises(ServerFailedError, match="Bad directive"):
        servers.start_redis("--no-such-directive", "1")


def test_a_missing_server_names_its_package(monkeypatch, tmp_path):
    """Without its binary a server's tests fail, and say what to install."""
    monkeypatch.setattr(servers, "BINARY_PATH", str(tmp_path))
    with pytest.raises(ServerMissingError, match=r"no memcached .*apt-get install memcached"):
        servers.start_memcached()


def test_servers_end_with_the_process_that_started_them():
    """A test run that is killed leaves no server and no file behind."""
    script = (
        "import sys\nfrom shardcache.testing import servers\n"
        "server = servers.start_memcached()\n"
        "server.pause()\n"
        "print(server.port, server._directory, flush=True)\n"
        "sys.stdin.read()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(servers.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with run:
        port, directory = run.stdout.readline().split()
        os.kill(run.pid, signal.SIGKILL)
    assert within(PROMPT, lambda: not Path(directory).exists())
    assert within(PROMPT, lambda: refuses(int(port)))
