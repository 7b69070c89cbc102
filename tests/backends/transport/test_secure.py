"""TLS and Unix sockets, where the servers have them."""

from __future__ import annotations

import pytest

from shardcache import Client, ConfigurationError, NodeUnavailableError
from shardcache.testing.driving import make_client

LARGE = {f"k{number}": "x" * 20_000 for number in range(100)}


@pytest.fixture(params=["memcached", "redis"])
def make(request, make_memcached, make_redis):
    """Return what starts a server of each kind in turn."""
    return make_memcached if request.param == "memcached" else make_redis


def test_tls_with_a_known_authority_works(mode, make, tls):
    """Large batches included."""
    server = make(tls=tls)
    client = make_client(
        mode, f"{server.url}?ssl_ca_certs={tls.authority}", on_error="raise", timeout=20
    )
    assert client.set_many(LARGE) == []
    assert client.get_many(LARGE) == LARGE
    for number in range(50):
        assert client.get(f"k{number}") == LARGE[f"k{number}"]
    client.close()


def test_tls_of_an_unknown_authority_is_refused(mode, make, tls):
    """A server is verified unless the options say otherwise."""
    server = make(tls=tls)
    client = make_client(mode, server.url, on_error="raise", timeout=5)
    with pytest.raises(NodeUnavailableError, match="certificate"):
        client.get("k")
    client.close()
    trusting = make_client(mode, f"{server.url}?ssl_cert_reqs=none", on_error="raise", timeout=5)
    assert trusting.get("k") is None
    trusting.close()


@pytest.mark.parametrize("scheme", ["memcacheds", "rediss"])
@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("ssl_ca_certs=/nowhere", "ssl_ca_certs cannot be read: No such file"),
        ("ssl_ca_certs={empty}", "ssl_ca_certs cannot be read: "),
        ("ssl_certfile=/nowhere", "ssl_certfile cannot be loaded: No such file"),
        ("ssl_certfile={empty}", "ssl_certfile cannot be loaded: "),
        ("ssl_certfile={good}&ssl_keyfile=/nowhere", ".* with ssl_keyfile cannot"),
        ("ssl_keyfile={good}", "ssl_keyfile is given without its ssl_certfile"),
        ("ssl_cert_reqs=nonee", "ssl_cert_reqs must be none, optional or required"),
        ("ssl_check_hostname=maybe", "ssl_check_hostname must be true or false"),
    ],
)
def test_bad_tls_options_are_faults_of_the_settings(scheme, query, fault, tls, tmp_path):
    """They are refused when the client is made, with node and option."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    url = f"{scheme}://127.0.0.1:1?" + query.format(empty=empty, good=tls.certificate)
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:1: {fault}"):
        Client(url)


def test_all_faults_of_tls_are_reported_at_once(mode):
    """One error lists them."""
    url = "memcacheds://h?ssl_ca_certs=/nowhere&ssl_certfile=/nowhere&ssl_cert_reqs=nonee"
    with pytest.raises(ConfigurationError) as raised:
        make_client(mode, url)
    assert len(raised.value.faults) == 3


def test_a_server_on_a_unix_socket_is_a_node(mode, make, tmp_path):
    """A server on a Unix socket is a node like any other."""
    server = make(unix=tmp_path / "s")
    client = make_client(mode, server.url, on_error="raise", timeout=5)
    assert client.set_many(LARGE) == []
    assert client.get_many(LARGE) == LARGE
    client.close()


def test_an_ipv6_address_stands_in_brackets(mode, make):
    """An IPv6 address must be in brackets."""
    server = make(host="::1")
    client = make_client(mode, server.url, on_error="raise", timeout=5)
    assert client.set("k", 1)
    assert client.get("k") == 1
    assert client.nodes[0].name == f"[::1]:{server.port}"
    client.close()
