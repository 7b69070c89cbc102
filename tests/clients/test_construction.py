"""A client is made from URLs, files and variables, shown and closed."""

from __future__ import annotations

import pytest

from shardcache import (
    AsyncClient,
    Client,
    ClientClosedError,
    ConfigurationError,
    EncodeError,
    Node,
    Settings,
    TopologyError,
    UnknownPluginError,
)
from shardcache.core.codecs import Msgpack
from shardcache.strategies.maglev import Maglev
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

SECRET = "sixteen bytes or more"


def test_a_url_names_nodes_and_settings():
    """One URL makes a whole client."""
    client = Client.from_url("memory://a,b,c?strategy=ketama:profile=twemproxy&namespace=shop")
    assert repr(client) == "<Client [3 nodes] ketama:profile=twemproxy>"
    assert [node.name for node in client.nodes] == ["a", "b", "c"]


def test_a_file_names_nodes_and_settings(tmp_path):
    """A TOML file makes the client that the arguments would."""
    path = tmp_path / "shardcache.toml"
    path.write_text('nodes = ["memory://a", "memory://b"]\nstrategy = "maglev"\ndefault_ttl = 60\n')
    client = Client.from_settings(Settings.load(path))
    twin = Client(["memory://a", "memory://b"], strategy="maglev", default_ttl=60)
    assert client.fingerprint == twin.fingerprint


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("value", [None, "", " "])
def test_an_environment_without_nodes_is_an_error(monkeypatch, kind, value):
    """A forgotten variable must not make each worker cache for itself."""
    monkeypatch.delenv("SHARDCACHE_CONFIG", raising=False)
    monkeypatch.delenv("SHARDCACHE_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("SHARDCACHE_URL", value)
    with pytest.raises(ConfigurationError, match=r"SHARDCACHE_URL.*SHARDCACHE_CONFIG"):
        kind.from_env()
    assert len(kind.from_env(default="memory://a,b").nodes) == 2
    monkeypatch.setenv("SHARDCACHE_URL", "memory://a")
    assert len(kind.from_env(default="memory://a,b").nodes) == 1


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        ([["memory://a"]], {"strategy": "kettle"}, "no such strategy .*rendezvous"),
        ([["memory://a"]], {"strategy": "ketama:profil=x"}, "profil"),
        ([["memory://a"]], {"codec": "yaml"}, "no such codec .*msgpack"),
        ([["memory://a"]], {"codec": "pickle"}, "secret"),
        ([["gopher://a"]], {}, "no such backend for the URL scheme.*memcached"),
        ([["memory://a?colour=red"]], {}, "colour"),
        ([["memory://a"]], {"failover": "last"}, "failover: no such choice"),
        ([["memory://a"]], {"pool_size": 0}, "pool_size"),
        ([[]], {}, "at least one node"),
        ([["memory://a", "memory://a"]], {}, "'a'"),
    ],
)
def test_bad_settings_are_named(mode, arguments, settings, words):
    """They are refused when the client is made, and the error lists the known ones."""
    with pytest.raises(ConfigurationError, match=words):
        make_client(mode, *arguments, **settings)


def test_unknown_names_and_impossible_topologies_have_their_own_errors():
    """Unknown names and impossible topologies have errors of their own."""
    with pytest.raises(UnknownPluginError):
        Client("memory://a", strategy="kettle")
    with pytest.raises(TopologyError):
        Client([])


def test_objects_stand_in_for_names():
    """A strategy or codec may be an object."""
    client = Client(["memory://a", "memory://b"], strategy=Maglev(), codec=Msgpack())
    client.set("k", {1, 2})
    assert client.get("k") == {1, 2}
    assert "maglev" in repr(client)


def test_a_value_that_the_codec_refuses_is_not_sent(mode):
    """An `EncodeError` names the type, and the old value stays."""
    client = make_client(mode, "memory://a")
    client.set("k", 1)
    with pytest.raises(EncodeError, match="range"):
        client.set("k", range(3))
    with pytest.raises(EncodeError, match="range"):
        client.set_many({"other": 1, "k": range(3)})
    assert client.get_many(["k", "other"]) == {"k": 1}


def test_a_closed_client_raises(mode):
    """Closing twice is fine."""
    client = make_client(mode, "memory://a")
    inner = getattr(client, "twin", client)
    if mode == "blocking":
        client.close()
        client.close()
        calls = [lambda: client.get("k"), client.ping, lambda: client.add_node("memory://b")]
    else:
        run = client.loop.run_until_complete
        run(inner.aclose())
        run(inner.aclose())
        calls = [lambda: run(inner.get("k")), lambda: run(inner.ping())]
    for call in calls:
        with pytest.raises(ClientClosedError):
            call()
    assert repr(inner) == f"<{type(inner).__name__} [closed]>"


def test_default_ttl_is_for_calls_without_a_ttl(mode):
    """It applies where a TTL is left out, not where it is `None`."""
    client = make_client(mode, "memory://a", default_ttl=0.05)
    client.set("brief", 1)
    client.set("kept", 1, ttl=None)
    eventually(lambda: client.get("brief") is None, within=5)
    assert client.get("kept") == 1


def test_a_client_says_where_a_key_lives(mode):
    """It names the node of a key, and the next one."""
    nodes = [Node(f"memory://{name}") for name in "abc"]
    client = make_client(mode, nodes)
    assert client.nodes == tuple(nodes)
    preferred = client.nodes_for("k", 3)
    assert preferred[0] == client.node_for("k")
    assert {node.name for node in preferred} == {"a", "b", "c"}


def test_a_namespace_is_hashed_by_our_strategies_alone():
    """Compatibility profiles hash the caller's key, as the clients they follow do."""
    nodes = [f"memory://n{number}" for number in range(20)]
    keys = [f"k{number}" for number in range(50)]

    def owners(**settings):
        client = Client(nodes, **settings)
        return [client.node_for(key).name for key in keys]

    assert owners(strategy="ketama") == owners(strategy="ketama", namespace="shop")
    assert owners() != owners(namespace="shop")
