"""A program's own `ssl.SSLContext`, in place of the options of the nodes' URLs."""

from __future__ import annotations

import ssl

import pytest
import redis

from shardcache import AsyncClient, Client, ConfigurationError, NodeUnavailableError, Settings
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually


@pytest.fixture(params=["memcached", "redis"])
def make(request, make_memcached, make_redis):
    """Return what starts a server of each kind in turn."""
    return make_memcached if request.param == "memcached" else make_redis


@pytest.fixture
def context(tls):
    """Return a context that knows the authority of the tests' servers."""
    return ssl.create_default_context(cafile=tls.authority)


def test_the_context_decides_which_servers_are_trusted(mode, make, tls, context):
    """Its authorities count, for nodes of either kind with TLS."""
    server = make(tls=tls)
    client = make_client(mode, server.url, ssl_context=context, on_error="raise", timeout=20)
    assert client.set("k", "v")
    assert client.get("k") == "v"
    client.close()
    stranger = ssl.create_default_context()
    client = make_client(mode, server.url, ssl_context=stranger, on_error="raise", timeout=5)
    with pytest.raises(NodeUnavailableError, match="certificate"):
        client.get("k")
    client.close()


def test_clients_with_other_contexts_share_no_health(make, tls, context):
    """A node that one client does not trust has not failed for the other."""
    server = make(tls=tls)
    stranger = Client(server.url, ssl_context=ssl.create_default_context(), timeout=5)
    trusting = Client(server.url, ssl_context=context, timeout=20)
    with stranger, trusting:
        assert stranger.get("k") is None
        eventually(lambda: stranger.ejected != (), within=20)
        assert trusting.set("k", "v")
        assert not trusting.ejected


def test_a_renewed_certificate_counts_from_the_next_connection_on(mode, make_redis, tls, context):
    """The program loads it into its context; the client looks for none."""
    server = make_redis(tls=tls)
    with redis.Redis.from_url(f"{server.url}?ssl_ca_certs={tls.authority}") as operator:
        operator.config_set("tls-auth-clients", "yes")
    client = make_client(mode, server.url, ssl_context=context, timeout=5)
    assert client.set("k", "v") is False
    context.load_cert_chain(tls.certificate, tls.key)
    eventually(lambda: client.set("k", "v"), within=20)
    client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("scheme", ["rediss", "memcacheds"])
@pytest.mark.parametrize("option", ["ssl_ca_certs=/x", "ssl_cert_reqs=none", "ssl_min_version=1.3"])
def test_a_context_and_options_are_refused_together(kind, scheme, option, context):
    """One of the two would be ignored."""
    with pytest.raises(
        ConfigurationError, match=r"ssl_\w+ in its URL: the ssl_context decides that"
    ):
        kind(f"{scheme}://h?{option}", ssl_context=context)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_context_that_nothing_would_use_is_refused(kind, context):
    """The program expects that its nodes are asked over TLS."""
    for nodes in ("redis://h", ["memcached://h", "memory://a"], "redis+unix:///s"):
        with pytest.raises(ConfigurationError, match="ssl_context: no node uses TLS"):
            kind(nodes, ssl_context=context)
    kind(["memory://a", "rediss://h"], ssl_context=context)
    kind("memory://a", lock_nodes="rediss://h", ssl_context=context)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("context", "ssl_context: must be an ssl.SSLContext, which only code can make, not str"),
        (True, "ssl_context: must be an ssl.SSLContext"),
        (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "ssl_context: is for servers"),
    ],
)
def test_only_a_client_context_is_accepted(given, fault):
    """From a file, a dict or code."""
    with pytest.raises(ConfigurationError, match=fault):
        Client("rediss://h", ssl_context=given)
    with pytest.raises(ConfigurationError, match=fault):
        Settings.from_dict({"nodes": ["rediss://h"], "ssl_context": given})


def test_no_url_or_variable_holds_a_context():
    """In a URL it is an unknown option; the environment has no variable of that name."""
    with pytest.raises(ConfigurationError, match="ssl_context"):
        Client.from_url("rediss://h?ssl_context=x")
    environ = {"SHARDCACHE_URL": "rediss://h", "SHARDCACHE_SSL_CONTEXT": "x"}
    assert Settings.from_env(environ).ssl_context is None


def test_settings_hold_a_context(context):
    """A client made from settings uses it, and so does a default client."""
    settings = Settings.of(nodes="rediss://h", ssl_context=context)
    assert settings.ssl_context is context
    client = Client.from_settings(settings)
    assert client._options.ssl_context is context
    client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_context_that_verifies_less_is_logged(kind, caplog, context):
    """As the options that do the same."""
    kind("rediss://h", ssl_context=context)
    assert caplog.records == []
    context.check_hostname = False
    kind("rediss://h", ssl_context=context)
    assert "ssl_context: check_hostname is false" in caplog.records[-1].getMessage()
    context.verify_mode = ssl.CERT_NONE
    kind("rediss://h", ssl_context=context)
    assert "ssl_context: verify_mode is CERT_NONE" in caplog.records[-1].getMessage()


def test_the_lowest_version_may_be_in_the_url(mode, make, tls):
    """A connection is of at least that version."""
    server = make(tls=tls)
    query = f"?ssl_ca_certs={tls.authority}&ssl_min_version=1.3"
    client = make_client(mode, server.url + query, on_error="raise", timeout=20)
    assert client.set("k", "v")
    client.close()


@pytest.mark.parametrize("scheme", ["rediss", "memcacheds"])
@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("ssl_min_version=1.1", "ssl_min_version must be 1.2 or 1.3"),
        ("ssl_min_version=", "ssl_min_version must be 1.2 or 1.3"),
        ("ssl_min_version=TLSv1", "ssl_min_version must be 1.2 or 1.3"),
    ],
)
def test_an_older_version_is_refused(scheme, option, fault):
    """When the client is made."""
    with pytest.raises(ConfigurationError, match=fault):
        Client(f"{scheme}://h?{option}")


def test_no_connection_is_of_an_older_version_than_asked_for(mode, make_redis, tls):
    """A server that has only the older one is refused."""
    server = make_redis("--tls-protocols", "TLSv1.2", tls=tls)
    url = f"{server.url}?ssl_ca_certs={tls.authority}"
    client = make_client(mode, url, on_error="raise", timeout=20)
    assert client.set("k", "v")
    client.close()
    strict = make_client(mode, f"{url}&ssl_min_version=1.3", on_error="raise", timeout=5)
    with pytest.raises(NodeUnavailableError):
        strict.get("k")
    strict.close()
