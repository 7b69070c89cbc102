"""Servers with TLS, and users that log in by SASL."""

from __future__ import annotations

import logging
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from shardcache_zookeeper.connection import _Handler

from shardcache import Client, LockUnavailable
from shardcache.testing.driving import make_client
from shardcache.testing.lock_calls import extend, release, take, try_take
from shardcache.testing.servers import Tls
from shardcache.testing.zookeeper import start_zookeeper_ensemble

TTL = 5.0


@pytest.fixture(scope="module")
def authority():
    """Return the authority that signs the certificates of the servers."""
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(authority, tmp_path_factory):
    """Return a server with TLS, the file of its authority, and two users."""
    directory = tmp_path_factory.mktemp("tls")
    tls = Tls(directory / "server.pem", directory / "server.key", directory / "authority.pem")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    tls.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    tls.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    tls.authority.write_bytes(authority.cert_pem.bytes())
    users = {"shop": "hunter2", "other": "hunter3"}
    ensemble = start_zookeeper_ensemble(servers=1, tls=tls, users=users)
    yield ensemble.url, tls.authority
    ensemble.stop()


@pytest.fixture
def make(mode):
    """Return a function that makes a client of each kind, with locks of a URL."""
    clients = []

    def make(url, **settings):
        clients.append(make_client(mode, nodes="memory://a", locks=url, timeout=10, **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_locks_over_tls(make, secured):
    """As options of the URL say, or the context of the client."""
    url, authority = secured
    one = make(f"{url}/tls?ssl_ca_certs={authority}")
    other = make(f"{url}/tls", ssl_context=ssl.create_default_context(cafile=str(authority)))
    for number in range(20):  # many replies in a row: TLS reads ahead
        lease = take(one, f"report {number}", TTL)
        assert try_take(other, f"report {number}", TTL) is None
        assert extend(one, lease, TTL) > 0
        assert release(one, lease) is True
    assert release(other, take(other, "report", TTL)) is True


def test_what_tls_has_read_ahead_counts_as_readable(authority):
    """No socket tells of it: kazoo would wait for the next reply."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(accepting)
    dialing = ssl.create_default_context()
    authority.configure_trust(dialing)
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accepting.wrap_socket, theirs, server_side=True)
        connection = dialing.wrap_socket(ours, server_hostname="localhost")
        server = accepted.result()
    handler = _Handler(1.0, dialing)
    with connection, server:
        server.sendall(b"two replies")
        assert connection.recv(4) == b"two "
        assert handler.select([connection], [], [], 0)[0] == [connection]
        assert connection.recv(100) == b"replies"
        assert handler.select([connection], [], [], 0)[0] == []


def test_a_server_that_cannot_be_verified_gets_no_request(mode, secured):
    """The error says why; a cached function is called all the same."""
    url, _ = secured
    client = make_client(mode, nodes="memory://a", locks=f"{url}/tls", timeout=1.0)
    with pytest.raises(
        LockUnavailable, match="can be reached: TLS failed: CERTIFICATE_VERIFY_FAILED"
    ):
        take(client, "report", TTL)
    assert client.get_or_set("value", lambda: 1, ttl=60, lock=True) == 1
    client.close()


def test_a_server_without_tls_is_an_error(mode, ensemble):
    """Within the time of the call."""
    url = ensemble.url.replace("zookeeper://", "zookeepers://")
    client = make_client(mode, nodes="memory://a", locks=url, timeout=1.0)
    with pytest.raises(LockUnavailable, match=r"no server of zookeepers://.* can be reached"):
        take(client, "report", TTL)
    client.close()


def test_a_user_logs_in_by_sasl(make, secured, caplog):
    """What it makes is for that user alone; no password is shown."""
    caplog.set_level(logging.DEBUG, "shardcache")
    url, authority = secured
    query = f"ssl_ca_certs={authority}&auth=sasl"
    scheme, _, rest = url.partition("://")
    one = make(f"{scheme}://shop:hunter2@{rest}/sasl?{query}")
    lease = take(one, "report", TTL)
    assert release(one, lease) is True
    other = make(f"{scheme}://other:hunter3@{rest}/sasl?{query}")
    with pytest.raises(LockUnavailable, match="refuses access"):
        take(other, "report", TTL)
    assert "hunter" not in caplog.text
    assert "SASL(" not in caplog.text  # from what is sent a password can be guessed


def test_a_wrong_password_is_reported(mode, secured, caplog):
    """By the first call and by later ones, without the password."""
    caplog.set_level(logging.DEBUG, "shardcache")
    url, authority = secured
    scheme, _, rest = url.partition("://")
    locks = f"{scheme}://shop:hunter4@{rest}/sasl?ssl_ca_certs={authority}&auth=sasl"
    client = make_client(mode, nodes="memory://a", locks=locks, timeout=1.0)
    for _ in range(3):
        with pytest.raises(LockUnavailable, match="not accept the user and password") as raised:
            take(client, "report", TTL)
        assert "hunter" not in str(raised.value)
    assert "hunter" not in caplog.text
    client.close()


def test_clients_that_verify_alike_share_a_session(secured):
    """Although each has read the options of its own URL."""
    url, authority = secured
    url = f"{url}/shared?ssl_ca_certs={authority}"
    with (
        Client("memory://a", locks=url, timeout=10) as one,
        Client("memory://a", locks=url) as other,
    ):
        for client in (one, other):
            client.lock("report", ttl=TTL).acquire().release()
        assert one._cluster.lock_provider._session is other._cluster.lock_provider._session
