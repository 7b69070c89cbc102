"""The fault proxy does to a connection what its methods say, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from shardcache import Client, ConfigurationError
from shardcache.testing import FaultProxy
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually
from testing.lines import ASK, BIG, PROMPT, assert_silent, read, read_all


def test_both_clients_work_through_a_healthy_proxy(mode, kind, proxy):
    """Only the address differs."""
    client = make_client(mode, proxy.url, on_error="raise", timeout=10)
    assert proxy.url == f"{kind}://127.0.0.1:{proxy.port}"
    assert client.set_many({f"k{n}": n for n in range(500)}) == []
    assert client.get_many([f"k{n}" for n in range(500)]) == {f"k{n}": n for n in range(500)}
    assert client.set("large", BIG[:900_000])
    assert client.get("large") == BIG[:900_000]
    assert client.delete("k1")
    assert client.get("k1") is None
    client.close()


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("127.0.0.1:11211", "{}"),
        ("[::1]:11211", "{}"),
        ("memcached://127.0.0.1", "memcached://{}"),
        (
            "redis://app:s%40e@127.0.0.1:7000/2?client_name=x",
            "redis://app:s%40e@{}/2?client_name=x",
        ),
        ("rediss://127.0.0.1", "rediss://{}"),
        ("pymemcache://[::1]:22121", "pymemcache://{}"),
        ("redis+unix://:pw@/run/redis.sock?db=2", "redis://:pw@{}?db=2"),
        ("memcached+unix:///run/memcached.sock", "memcached://{}"),
    ],
)
def test_the_url_is_the_targets_at_another_address(target, url):
    """Scheme, credentials, database and options stay; no password is shown."""
    with FaultProxy(target) as proxy:
        assert proxy.url == url.format(f"127.0.0.1:{proxy.port}")
        assert "s%40e" not in repr(proxy)
        assert "pw" not in repr(proxy)


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("", "needs a host"),
        ("127.0.0.1", "URL or host:port, not '127.0.0.1'"),
        ("127.0.0.1:port", "a port is a number"),
        ("127.0.0.1:11211/2", "URL or host:port"),
        ("memory://a", "are in this process"),
        ("redis://a,b", "one host"),
        ("other://127.0.0.1", "needs a port"),
        ("no-such-host.invalid:1", "cannot be looked up"),
        (11211, "must be text"),
        (None, "must be text"),
    ],
)
def test_an_impossible_target_is_refused(target, fault):
    """The error says what is wrong with it."""
    with pytest.raises(ConfigurationError, match=fault):
        FaultProxy(target)


def test_a_server_on_a_unix_socket_is_reached_over_tcp(mode, make_memcached, tmp_path):
    """So that its connections can be reset as well."""
    server = make_memcached(unix=tmp_path / "memcached")
    with FaultProxy(server.url) as proxy:
        client = make_client(mode, proxy.url, on_error="raise", timeout=10)
        assert client.set("k", 1)
        assert client.get("k") == 1
        client.close()


def test_tls_passes_unread(mode, make_redis, tls):
    """The client talks to the server's certificate."""
    server = make_redis(tls=tls)
    with FaultProxy(f"{server.url}?ssl_ca_certs={tls.authority}") as proxy:
        client = make_client(mode, proxy.url, on_error="raise", timeout=10)
        assert client.set("k", 1)
        assert client.get("k") == 1
        client.close()


def test_a_half_closed_client_still_gets_its_reply(proxy, dial, kind, reply):
    """Each direction ends on its own, as in TCP."""
    connection = dial(proxy)
    connection.sendall(ASK[kind])
    connection.shutdown(socket.SHUT_WR)
    got, how = read_all(connection)
    assert (got or reply, how) == (reply, "fin")  # memcached leaves with the client
    eventually(lambda: proxy.connections == 0, within=PROMPT)


def test_a_server_learns_that_a_client_left(make_redis, dial):
    """By FIN or by RST."""
    server = make_redis()
    with FaultProxy(server.url) as proxy, Client(server.url) as direct:

        def connected():
            (figures,) = direct.stats().values()
            return int(figures.server["connected_clients"])

        for cut_after in (None, "rst"):
            before = connected()
            connection = dial(proxy)
            connection.sendall(ASK["redis"])
            assert read(connection, 7) == b"+PONG\r\n"
            assert connected() == before + 1
            if cut_after:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            eventually(lambda before=before: connected() == before, within=PROMPT)


def test_a_client_learns_that_the_server_is_gone(make_memcached, dial):
    """Its end passes to the client, and a dial to it is reset; the proxy goes on."""
    server = make_memcached()
    with FaultProxy(server.url) as proxy:
        connection = dial(proxy)
        connection.sendall(b"version\r\n")
        assert connection.recv(100)
        server.kill()
        assert read_all(connection)[1] in ("fin", "rst")
        with contextlib.suppress(ConnectionResetError):  # perhaps while it is dialed
            assert read_all(dial(proxy)) == (b"", "rst")
        server.restart()
        connection = dial(proxy)
        connection.sendall(b"version\r\n")
        assert connection.recv(100)


def test_the_last_words_of_a_server_arrive(dial):
    """A client that writes to a server that has closed reads them first."""
    words = b"-ERR max number of clients reached\r\n"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy(f"127.0.0.1:{listener.getsockname()[1]}") as proxy,
    ):
        proxy.delay(0.2, "replies")
        connection = dial(proxy)
        accepted, _ = listener.accept()
        accepted.sendall(words)
        accepted.close()
        for _ in range(5):
            connection.sendall(b"PING\r\n")
            time.sleep(0.02)
        assert read_all(connection) == (words, "rst")


def test_counters_count_bytes_and_connections(memcached, dial):
    """Bytes that passed, connections that are open and that were."""
    version = b"version\r\n"
    assert (memcached.connections, memcached.accepted) == (0, 0)
    first, second = dial(memcached), dial(memcached)
    assert (memcached.connections, memcached.accepted) == (2, 2)
    first.sendall(version)
    reply = first.recv(100)
    assert (memcached.sent, memcached.received) == (len(version), len(reply))
    second.sendall(version * 2)
    assert read(second, 2 * len(reply)) == reply * 2
    assert (memcached.sent, memcached.received) == (3 * len(version), 3 * len(reply))
    first.close()
    assert (memcached.connections, memcached.accepted) == (1, 2)
    memcached.close()
    assert (memcached.connections, memcached.accepted) == (0, 2)
    assert (memcached.sent, memcached.received) == (3 * len(version), 3 * len(reply))


def test_two_proxies_share_no_fault(memcached_servers, dial):
    """Though their server is the same."""
    url = memcached_servers[0].url
    with FaultProxy(url) as ill, FaultProxy(url) as well:
        ill.blackhole()
        for proxy in (ill, well):
            connection = dial(proxy)
            connection.sendall(b"version\r\n")
            if proxy is ill:
                assert_silent(connection)
            else:
                assert connection.recv(100).startswith(b"VERSION")
        assert (ill.sent, well.sent) == (0, 9)


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda proxy: proxy.delay(-1), "seconds must be a number from 0"),
        (lambda proxy: proxy.delay(float("nan")), "not nan"),
        (lambda proxy: proxy.delay("1"), "not '1'"),
        (lambda proxy: proxy.delay(1, "up"), "one of both, requests, replies"),
        (lambda proxy: proxy.drip(0, 1), "size must be a whole number from 1"),
        (lambda proxy: proxy.drip(1, -1), "seconds"),
        (lambda proxy: proxy.cut_after(-1), "size must be a whole number from 0"),
        (lambda proxy: proxy.cut_after(1.5), "not 1.5"),
        (lambda proxy: proxy.cut_after(1, "FIN"), "one of rst, fin, stall"),
        (lambda proxy: proxy.cut_after(1, connections=0), "connections must be"),
        (lambda proxy: proxy.refuse("fin"), "one of refused, rst"),
    ],
)
def test_impossible_arguments_are_refused(memcached, call, fault):
    """At the call, and nothing changes."""
    with pytest.raises(ConfigurationError, match=fault):
        call(memcached)
