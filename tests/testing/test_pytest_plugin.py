"""The fixtures that users have: servers that a test stops, kills and starts again."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from shardcache import Client, Node
from shardcache.testing.clusters import ServerCluster, running
from shardcache.testing.servers import start_memcached, start_redis

PLUGIN = 'pytest_plugins = ["shardcache.testing.pytest_plugin"]\n'
TESTS = """
from pathlib import Path
import pytest
from shardcache import Client

def test_a_cluster_is_this_tests_own(memcached_cluster):
    memcached_cluster.stop(0)
    memcached_cluster.kill(1)
    Path("pids").write_text(" ".join(str(server.pid) for server in memcached_cluster))

def test_another_test_has_another(memcached_cluster):
    with Client(memcached_cluster.urls, timeout=10, on_error="raise") as client:
        assert client.set_many(dict.fromkeys(map(str, range(50)), 1)) == []

def test_shared_servers_hold_something(memcached_servers):
    with Client(memcached_servers.urls, timeout=10) as client:
        assert client.set("k", 1)

def test_shared_servers_are_empty(memcached_servers):
    with Client(memcached_servers.urls, timeout=10) as client:
        assert client.get("k") is None

def test_each_kind(server_cluster, make_server, server_kind):
    urls = [*server_cluster.urls, make_server().url]
    assert [url.partition(":")[0] for url in urls] == [server_kind] * 4

def test_redis(redis_cluster, redis_servers, make_redis):
    assert len({*redis_cluster.urls, *redis_servers.urls, make_redis().url}) == 7
"""
COUNT = """
import pytest

@pytest.fixture(scope="session")
def server_count():
    return 1

def test_one(memcached_cluster, memcached_servers):
    assert len(memcached_cluster) == len(memcached_servers) == 1
"""


@pytest.fixture
def run(tmp_path):
    """Return what runs tests of a user, and returns what pytest printed."""

    def run(tests, **environment):
        (tmp_path / "conftest.py").write_text(PLUGIN)
        (tmp_path / "test_users.py").write_text(tests)
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        command = [sys.executable, "-W", "error", "-m", "pytest", "-v", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "-p", "no:xdist"],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    return run


@pytest.mark.servers
def test_one_line_brings_the_fixtures(run, tmp_path):
    """Of servers for one test alone, of shared ones, and of each kind; none of them is left over."""
    output = run(TESTS)
    assert "7 passed" in output, output
    for pid in (tmp_path / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.servers
def test_the_number_of_servers_is_the_users(run):
    """By a fixture of the same name."""
    assert "1 passed" in run(COUNT)


def test_a_server_that_is_not_installed_is_an_error(run):
    """It says what to install, and nothing is skipped."""
    places = "shardcache.testing.servers.BINARY_PATH"
    missing = "def test_one(memcached_servers): pass\n"
    output = run(f"import shardcache.testing.servers\n{places} = ''\n{missing}")
    assert re.search(r"ServerMissingError: no memcached on this machine; .*apt-get install", output)
    assert "1 error" in output
    assert "skipped" not in output


@pytest.fixture
def cluster(memcached_cluster):
    """Return a cluster whose first server has a value, and a client of it."""
    with Client(memcached_cluster.urls, timeout=0.5) as client:
        yield memcached_cluster, client


def key_of(client, server):
    """Return a key of a server."""
    keys = map("k{}".format, range(1000))
    return next(key for key in keys if client.node_for(key).url == server.url)


def test_the_node_of_a_key_can_be_stopped(cluster):
    """It answers nothing until it goes on, with all that it had; the others answer."""
    servers, client = cluster
    key, other = key_of(client, servers[0]), key_of(client, servers[1])
    assert client.set_many({key: 1, other: 2}) == []
    servers.stop(client.node_for(key))
    assert client.get_many([key, other]) == {other: 2}
    servers.resume(client.node_for(key))
    with Client(servers.urls, timeout=10) as fresh:
        assert fresh.ping()
        assert fresh.get(key) == 1


def test_a_killed_server_comes_back_empty(cluster):
    """At the same address."""
    servers, client = cluster
    key = key_of(client, servers[2])
    assert client.set(key, 1)
    address = servers.urls[2]
    servers.kill(address)
    assert client.get(key) is None
    servers.restart(2)
    assert servers.urls[2] == address
    with Client(address, timeout=10, on_error="raise") as fresh:
        assert fresh.get(key) is None


@pytest.mark.servers
def test_servers_of_each_kind_are_one_cluster():
    """They are emptied, and ended, together."""
    with running(start_memcached, start_redis) as servers:
        with Client(servers.urls, timeout=10) as client:
            assert client.set_many(dict.fromkeys(map(str, range(20)), 1)) == []
            servers.empty()
            assert client.get_many(map(str, range(20))) == {}
        assert servers[:1] == (servers[0],)
        assert repr(servers) == f"<ServerCluster {servers.urls[0]}, {servers.urls[1]}>"
        pids = [server.pid for server in servers]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_unknown_server_is_refused():
    """The error says which there are."""
    with pytest.raises(LookupError, match=r"no server 10\.0\.0\.1:11211 \(known: \)"):
        ServerCluster([]).stop(Node("memcached://10.0.0.1"))
