"""Spare nodes as a setting: in code, a file, a URL and the environment."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta

import pytest

from shardcache import ConfigurationError, Gutter, Node
from shardcache.settings import Settings

SPARES = ("memcached://10.0.0.8", "memcached://10.0.0.9")
GUTTER = Gutter(SPARES)


def faults_of(make, *args, **given):
    """Return the faults of settings that are refused."""
    with pytest.raises(ConfigurationError) as raised:
        make(*args, **given)
    return raised.value.faults


@pytest.fixture
def load(tmp_path):
    """Return what loads the settings of a file with this text."""

    def loaded(text):
        path = tmp_path / "shardcache.toml"
        path.write_text(text)
        return Settings.load(path)

    return loaded


def test_its_nodes_are_written_as_a_clients_are():
    """One URL or several, or nodes; a minute is the longest life of a value there."""
    assert Gutter("memcached://10.0.0.8,10.0.0.9") == GUTTER
    assert Gutter([Node(SPARES[0]), SPARES[1]]) == GUTTER
    assert [node.name for node in GUTTER.nodes] == ["10.0.0.8:11211", "10.0.0.9:11211"]
    assert GUTTER.ttl_cap == 60.0
    assert Gutter(SPARES, ttl_cap=timedelta(minutes=2)).ttl_cap == 120.0
    assert pickle.loads(pickle.dumps(GUTTER)) == GUTTER


def test_all_faults_are_reported():
    """Of the nodes and of the life."""
    assert faults_of(Gutter, [], ttl_cap=0) == (
        "nodes: a topology needs at least one node",
        "ttl_cap: must be above zero",
    )


def test_a_file_has_it_as_a_table_or_a_text(load):
    """A table names its life as well."""
    nodes = 'nodes = ["memcached://10.0.0.1"]\n'
    spares = json.dumps(SPARES)
    assert load(f"{nodes}[failover]\nnodes = {spares}\nttl_cap = 30\n").failover == Gutter(
        SPARES, 30
    )
    assert load(f'{nodes}failover = "{" ".join(SPARES)}"\n').failover == GUTTER
    assert load(f'{nodes}failover = "next"\n').failover == "next"
    first, second = faults_of(load, f"{nodes}[failover]\nurls = 3\n")
    assert first.endswith("failover: 'urls': no such option (known: nodes, ttl_cap)")
    assert second.endswith("failover: nodes: is missing (a list of URLs)")


def test_the_environment_has_urls_between_blanks():
    """As `SHARDCACHE_URL` has."""
    environ = {"SHARDCACHE_URL": "memcached://10.0.0.1"}
    told = Settings.from_env({**environ, "SHARDCACHE_FAILOVER": " ".join(SPARES)})
    assert told.failover == GUTTER
    told = Settings.from_env({**environ, "SHARDCACHE_FAILOVER": "next"})
    assert told.failover == "next"


def test_a_url_has_it_in_its_query():
    """A choice as it is, spare nodes as well."""
    url = "memcached://10.0.0.1?failover="
    assert Settings.from_url(f"{url}next").failover == "next"
    assert Settings.from_url(f"{url}memcached://10.0.0.8,10.0.0.9").failover == GUTTER


def test_a_spare_node_keeps_nothing_else():
    """A node that is also one of the cache's would keep keys twice, and fail with them."""
    (fault,) = faults_of(Settings.of, nodes=SPARES[:1], failover=GUTTER)
    assert fault.startswith("failover: 10.0.0.8:11211: no spare node, as it is one of `nodes`")


def test_no_password_is_shown():
    """Neither in the settings nor in an error."""
    gutter = Gutter("redis://u:hunter2@spare")
    assert "hunter2" not in repr(Settings.of(nodes="memory://a", failover=gutter))
    with pytest.raises(ConfigurationError) as raised:
        Gutter("redis://u:hunter2@spare:x")
    assert "hunter2" not in str(raised.value)
