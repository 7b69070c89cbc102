"""Keys and values of other clients are found, or missed, as the guide on switching says."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import redis
from pymemcache.client.base import Client as PlainClient
from pymemcache.client.hash import HashClient
from pymemcache.serde import PickleSerde

from shardcache import Client, DecodeError, Node

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "migrate-from-another-client.md"
KEYS = [f"user:{number}:profile" for number in range(300)]
SECRET = "sixteen bytes or more"


@pytest.fixture
def ours(memcached_servers):
    """Yield our client of pymemcache's nodes."""
    urls = [server.url for server in memcached_servers]
    with Client(urls, strategy="pymemcache", timeout=10) as client:
        yield client


@pytest.fixture
def make_theirs(memcached_servers):
    """Yield a function that makes pymemcache's client of the same nodes."""
    made = []

    def make(**settings):
        hosts = [(server.host, server.port) for server in memcached_servers]
        # By default it does not wait for the answer to a write.
        made.append(HashClient(hosts, default_noreply=False, **settings))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_a_prefix_within_the_key_stays(ours, make_theirs):
    """A key written with its prefix is found by the same key."""
    keys = [f"shop:{key}" for key in KEYS]
    make_theirs(serde=PickleSerde()).set_many(dict.fromkeys(keys, "v"))
    assert len(ours.get_many(keys)) == len(keys)


def test_a_key_prefix_of_pymemcache_is_not_hashed(ours, make_theirs):
    """With three nodes, about a third of the keys is found by the whole name, none by another."""
    theirs = make_theirs(serde=PickleSerde(), key_prefix=b"shop:")
    theirs.set_many(dict.fromkeys(KEYS, "v"))
    assert 60 < len(ours.get_many(f"shop:{key}" for key in KEYS)) < 140
    assert ours.get_many(KEYS) == {}


def test_pymemcache_places_a_bytes_key_by_its_repr(ours, make_theirs):
    """What pymemcache stored under `bytes` is on another node for most keys."""
    make_theirs(serde=PickleSerde()).set_many({key.encode(): "v" for key in KEYS})
    assert 60 < len(ours.get_many(KEYS)) < 140


def test_a_namespace_finds_nothing_under_a_prefix(memcached_servers, ours, make_theirs):
    """A namespace is written in another form than a prefix; a key that looks like one is a miss."""
    theirs = make_theirs(serde=PickleSerde())
    theirs.set_many({f"shop:{key}": "v" for key in KEYS})
    theirs.set("4:shop:k", "v")
    urls = [server.url for server in memcached_servers]
    with Client(urls, strategy="pymemcache", namespace="shop", timeout=10) as shop:
        assert shop.get_many(KEYS) == {}
    assert ours.get("4:shop:k") is None


def test_values_that_come_back_changed(ours, make_theirs):
    """Text without a serde, pylibmc's bool and empty bytes are what the guide says."""
    make_theirs().set("text", "v")
    assert ours.get("text") == b"v"
    theirs = make_theirs(serde=PickleSerde())
    theirs.set_many({"no_bytes": b"", "no_text": ""})
    assert ours.get("no_bytes", "miss") == "miss"
    assert ours.get("no_text", "miss") == ""
    make_theirs().set("bool", b"1", flags=2)  # as pylibmc stores True
    assert ours.get("bool") == 1
    assert ours.get("bool") is not True


def test_to_other_clients_the_codec_s_bytes_are_bytes(ours, make_theirs):
    """To pymemcache a dict of ours is bytes, as it is stored, and no error."""
    ours.set("k", {"a": 1})
    assert make_theirs(serde=PickleSerde()).get("k") == b"\x81\xa1a\x01"


@pytest.mark.parametrize("hash_tags", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_modula_of_twemproxy_is_found_by_the_order_of_names(
    memcached_servers, make_nutcracker, named, hash_tags
):
    """A nutcracker sorts its servers by name, or by `host:port`, in whatever order its file is."""
    nodes = sorted(
        (
            Node(server.url, name=name if named else None)
            for server, name in zip(memcached_servers, ["c", "a", "b"], strict=True)
        ),
        key=lambda node: node.name,
    )
    settings = {"hash_tag": '"{}"'} if hash_tags else {}
    servers = [
        f"{node.address.host}:{node.address.port}:1" + (f" {node.name}" if named else "")
        for node in reversed(nodes)
    ]
    proxy = make_nutcracker(
        {
            "hash": "murmur",
            "distribution": "modula",
            "timeout": 2000,
            "servers": servers,
            **settings,
        }
    )
    keys = [f"{key}:{{user{number % 40}}}" for number, key in enumerate(KEYS[:120])]
    through = PlainClient((proxy.host, proxy.port), default_noreply=False)
    for key in keys:
        through.set(key, "v")
    through.close()
    options = f"hash=murmur,hash_tags={'yes' if hash_tags else 'no'}"
    with Client(nodes, strategy=f"modulo:profile=twemproxy,{options}", timeout=10) as client:
        assert len(client.get_many(keys)) == len(keys)


def test_of_django_redis_whole_numbers_stay(redis_servers):
    """Its pickles are misses whatever the codec; its counters are read and counted by both."""
    server = redis_servers[0]
    theirs = redis.Redis(server.host, server.port)
    theirs.set(":1:count", 41)
    theirs.set(":1:text", pickle.dumps("text"))
    for codec in ("msgpack", "json", "pickle"):
        secret = SECRET if codec == "pickle" else None
        with Client(
            server.url, codec=codec, secret=secret, read_unsigned=True, timeout=10
        ) as client:
            assert client.get(":1:count") == 41
            assert client.get(":1:text", "miss") == "miss"
    with Client(server.url, timeout=10) as client:
        client.incr(":1:count")
        client.set(":1:ours", "text")
    assert theirs.get(":1:count") == b"42"
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(theirs.get(":1:ours"))
    theirs.close()


REDIS_ROWS = [  # what the table says of a value that another client of one Redis stored
    (41, 41, 41, b"41"),
    (json.dumps({"a": 1}), "miss", {"a": 1}, b'{"a": 1}'),
    (json.dumps("Ada"), "miss", "Ada", b'"Ada"'),
    ("Ada", "miss", "miss", b"Ada"),
    (pickle.dumps({"a": 1}), "miss", "miss", pickle.dumps({"a": 1})),
    (1.5, "miss", 1.5, b"1.5"),
    ("42", 42, 42, b"42"),
]


@pytest.mark.parametrize("row", REDIS_ROWS, ids=lambda row: repr(row[0])[:20])
def test_of_a_client_of_one_redis_the_codec_decides(redis_servers, row):
    """Numbers, JSON and bare bytes are read as the table of redis.asyncio says."""
    server = redis_servers[0]
    stored, *read = row
    theirs = redis.Redis(server.host, server.port)
    theirs.set("k", stored)
    with Client(server.url, codec="json", timeout=10) as by_json:
        assert by_json.get("k", "miss") == read[1]
        assert by_json.view(codec="raw").get("k") == read[2]
    with Client(server.url, timeout=10) as client:
        assert client.get("k", "miss") == read[0]
    theirs.close()


@pytest.mark.parametrize("value", [41, "Ada", {"a": [1, None]}, 1.5, True])
def test_what_json_stores_on_redis_other_clients_read(redis_servers, value):
    """To aiocache and cashews with their JSON it is a value of their own."""
    server = redis_servers[0]
    theirs = redis.Redis(server.host, server.port)
    with Client(server.url, codec="json", timeout=10) as client:
        client.set("k", value)
    assert json.loads(theirs.get("k")) == value
    theirs.close()


def test_values_without_flags_are_bytes_unless_the_codec_is_json(memcached_servers):
    """So aiocache stores JSON and pickles on memcached: only `codec="json"` tells them apart."""
    server = memcached_servers[0]
    theirs = PlainClient((server.host, server.port), default_noreply=False)
    theirs.set("json", b'{"a": 1}')
    theirs.set("pickle", pickle.dumps({"a": 1}))
    theirs.close()
    with Client(server.url, timeout=10) as client:
        assert client.get("json") == b'{"a": 1}'
        assert client.get("pickle") == pickle.dumps({"a": 1})
    with Client(server.url, codec="json", timeout=10) as client:
        assert client.get("json") == {"a": 1}
        assert client.get("pickle", "miss") == "miss"


def test_a_value_that_cannot_be_read_is_raised(memcached_servers, make_theirs):
    """As the guide says: with `on_error="raise"` a foreign pickle is a `DecodeError`, not a miss."""
    make_theirs(serde=PickleSerde()).set("k", {"a": 1})
    urls = [server.url for server in memcached_servers]
    with (
        Client(urls, strategy="pymemcache", on_error="raise", timeout=10) as client,
        pytest.raises(DecodeError, match="pickle of another client"),
    ):
        client.get("k")


def test_every_strategy_of_the_guide_can_be_made():
    """Each strategy in the guide's table is one that a client takes."""
    text = GUIDE.read_text(encoding="utf-8").partition("## Choose the strategy\n")[2]
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line[:2] == "| "]
    strategies = [row.split("|")[2].split("`")[1] for row in rows if "strategy=" not in row]
    assert len(strategies) > 8
    for strategy in strategies:
        Client(["memcached://10.0.0.1", "memcached://10.0.0.2"], strategy=strategy).close()
