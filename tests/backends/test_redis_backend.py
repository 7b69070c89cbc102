"""Redis through both transports: TLS, sockets' paths, passwords, and what a cluster says."""

from __future__ import annotations

import asyncio
import time

import pytest

from shardcache.backends.base import BackendOptions
from shardcache.backends.redis import Redis
from shardcache.core.commands import Get, GetMany, Ping, Set
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import TEXT_FLAGS
from shardcache.errors import ConfigurationError, NodeError, NodeRefusedError, NodeUnavailableError

TEXT = (TEXT_FLAGS, b"text")
OPTIONS = BackendOptions(call_timeout=5, connect_timeout=5)


def ask_blocking(url, *commands):
    """Give the replies to commands over the blocking transport."""
    backend = Redis().blocking(Node(url), OPTIONS)
    try:
        return [backend.execute(command, time.monotonic() + 5) for command in commands]
    finally:
        backend.close()


def ask_asyncio(url, *commands):
    """Give the replies to commands over the asyncio transport."""

    async def run():
        backend = Redis().asyncio(Node(url), OPTIONS)
        try:
            return [await backend.execute(command, time.monotonic() + 5) for command in commands]
        finally:
            await backend.aclose()

    return asyncio.run(run())


@pytest.fixture(params=[ask_blocking, ask_asyncio], ids=["blocking", "asyncio"])
def ask(request):
    """Give each transport in turn."""
    return request.param


def test_tls(make_redis, tls, ask):
    """A trusted certificate is taken, another one is not."""
    url = make_redis(tls=tls).url
    assert url.startswith("rediss://")
    assert ask(f"{url}/1?ssl_ca_certs={tls.authority}", Set(b"k", TEXT), Get(b"k")) == [True, TEXT]
    assert ask(f"{url}?ssl_cert_reqs=none", Ping()) == [True]
    with pytest.raises(NodeUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(url, Ping())


def test_a_unix_socket(make_redis, tmp_path, ask):
    """The path of a socket is as good as a port."""
    url = make_redis(unix=tmp_path / "redis.sock").url
    assert ask(f"{url}?db=3", Set(b"k", TEXT), Get(b"k")) == [True, TEXT]
    assert ask(url, Get(b"k")) == [None]


def test_a_password(make_redis, ask):
    """The connection logs in before the first command; with a wrong password it is none."""
    host = make_redis("--requirepass", "secret").url.partition("://")[2]
    assert ask(f"redis://:secret@{host}", Ping()) == [True]
    with pytest.raises(NodeUnavailableError, match="refused the greeting") as raised:
        ask(f"redis://:hunter2@{host}", Ping())
    assert "hunter2" not in str(raised.value)
    with pytest.raises(NodeRefusedError):
        ask(f"redis://{host}", Ping())


def test_a_member_of_a_cluster_is_an_error_of_configuration(make_redis, ask):
    """It reaches the caller whatever `on_error` says, for it is no `NodeError`."""
    url = make_redis("--cluster-enabled", "yes").url
    server = make_redis("--cluster-enabled", "yes")
    server.ask(b"CLUSTER ADDSLOTSRANGE 0 16383\r\n", b"+OK")
    with pytest.raises(NodeUnavailableError, match="CLUSTERDOWN"):
        ask(url, Get(b"k"))
    with pytest.raises(ConfigurationError, match="Redis Cluster"):
        ask(server.url, GetMany([b"a", b"b", b"c"]))


def test_a_server_of_another_kind(make_memcached, ask):
    """Memcached under a Redis URL is an error of the node, at once."""
    url = make_memcached().url.replace("memcached://", "redis://")
    with pytest.raises(NodeError):
        ask(url, Get(b"k"))
