"""Keys are found where pymemcache put them, whatever their type, prefix and alphabet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pymemcache.client.hash import HashClient as TheirHashClient
from pymemcache.serde import pickle_serde

from shardcache.compat.pymemcache import HashClient
from shardcache.compat.pymemcache.cluster import KeyRules
from shardcache.core.placement.topology import Topology
from shardcache.strategies.pymemcache import Pymemcache

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "pymemcache.json").read_text(encoding="utf-8")
)
KEYS = [f"user:{number}:profile" for number in range(200)]


def placed(servers, **settings):
    """Return the function from a key to the name of the server that a `HashClient` asks for it."""
    client = HashClient(servers, **settings)
    route = client._client._cluster.route
    return lambda key: route(key)[1].node.name


@pytest.mark.parametrize(
    "configuration", VECTORS["configurations"], ids=lambda each: len(each["nodes"])
)
def test_places_are_those_that_pymemcache_computed(configuration):
    """The golden placements hold through the whole client, names of servers included."""
    servers = [(node["host"], node["port"]) for node in configuration["nodes"]]
    keys = [
        (key, servers[index])
        for key, index in zip(
            VECTORS["key_sets"][configuration["keys"]], configuration["owners"], strict=True
        )
        if len(key.encode()) <= 250 and not any(letter.isspace() for letter in key) and key
    ]
    place = placed(servers, allow_unicode_keys=True)
    assert len(keys) > 100
    assert [key for key, (host, port) in keys if place(key) != f"{host}:{port}"] == []


@pytest.mark.parametrize(
    "servers",
    [
        ["10.0.0.1", "10.0.0.2:11212", ("10.0.0.3", 11211)],
        ["[::1]", "[fe80::2]:11212", ("::3", 11211)],
        ["Cache-A.Example", "cache_b", ("LOCALHOST", 11211)],
        ["/run/a.sock", "unix:/run/b.sock", "localhost"],
        [("10.0.0.1", "11211"), "10.0.0.1", "10.0.0.1:11211", "10.0.0.2"],
    ],
    ids=lambda servers: str(servers[0]),
)
@pytest.mark.parametrize("kind", [str, str.encode], ids=["str", "bytes"])
def test_places_are_those_of_a_real_client(servers, kind):
    """However servers are written, and whether keys are text or bytes."""
    theirs, place = TheirHashClient(servers), placed(servers)
    keys = [kind(key) for key in KEYS]
    assert [key for key in keys if place(key) != theirs.hasher.get_node(key)] == []
    assert len({place(key) for key in keys}) == len(theirs.clients)


@pytest.mark.parametrize("prefix", [b"", b"shop:"], ids=["plain", "prefix"])
@pytest.mark.parametrize(("writer", "reader"), [("theirs", "ours"), ("ours", "theirs")])
def test_what_one_writes_the_other_reads(make, writer, reader, prefix):
    """Text and bytes, plain and beyond ASCII, names that we would escape: none is missed."""
    settings = {"serde": pickle_serde, "key_prefix": prefix, "allow_unicode_keys": True}
    keys = [
        *KEYS,
        *(f"raw:{number}".encode() for number in range(50)),
        *(f"ключ:{number}" for number in range(50)),
        "4:shop:cart",
        "~sc:k:key",
        "k" * (250 - len(prefix)),
        "control\x01",
    ]
    values = {key: f"value of {key!r}" for key in keys}
    assert make(writer, **settings).set_many(values) == []
    assert make(reader, **settings).get_many(keys) == values


def test_text_and_bytes_of_one_name_do_not_mix(make):
    """Both are named alike, but most are on two servers: each has the value that was given for it."""
    values = {key: f"of {key!r}" for text in KEYS for key in (text, text.encode())}
    place = make("theirs").hasher.get_node
    apart = [key for key in KEYS if place(key) != place(key.encode())]
    ours = make("ours", serde=pickle_serde)
    assert ours.set_many(values) == []
    found = ours.get_many(values)
    assert len(apart) > 100
    assert all(found[key] == values[key] for text in apart for key in (text, text.encode()))


def test_a_long_name_beyond_ascii_is_missed_once(make):
    """It travels in base64, where memcached has room for 186 bytes: the guide names this exception."""
    fits, long = "ж" * 93, "ж" * 94
    make("theirs", allow_unicode_keys=True).set_many({fits: "v", long: "v"})
    ours = make("ours", allow_unicode_keys=True)
    assert ours.get_many([fits, long]) == {fits: b"v"}
    ours.set(long, "w")
    assert ours.get(long) == b"w"


def test_a_prefix_is_sent_but_not_hashed():
    """It names the key on the server, and moves it nowhere."""
    rules = KeyRules(b"shop:", unicode_keys=False)
    assert rules.name("k") == b"shop:k"
    assert rules.name("k").key == "k"
    servers = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    plain, prefixed = placed(servers), placed(servers, key_prefix=b"shop:")
    assert [plain(key) for key in KEYS] == [prefixed(key) for key in KEYS]


def test_servers_come_and_go(make, hosts):
    """After a server was added or removed, keys are where a client of that list has them."""
    client = make("ours", hosts[:2])
    client.add_server(*hosts[2])
    client.add_server(hosts[2])  # it is there already
    route = client._client._cluster.route
    whole = placed(hosts)
    assert [route(key)[1].node.name for key in KEYS] == [whole(key) for key in KEYS]
    client.remove_server(hosts[0])
    route, rest = client._client._cluster.route, placed(hosts[1:])
    assert [route(key.encode())[1].node.name for key in KEYS] == [
        rest(key.encode()) for key in KEYS
    ]
    assert client.set("k", "v") is True


def test_the_strategy_is_the_client_s():
    """The face adds names to the strategy `pymemcache`, and no placement of its own."""
    client = HashClient(["10.0.0.1", "10.0.0.2"])
    topology = client._client.topology
    assert topology.fingerprint == Topology(topology.nodes, Pymemcache()).fingerprint
