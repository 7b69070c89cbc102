"""Keys stay where other software put them: exact, key by key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymemcache.client.rendezvous import RendezvousHash

from shardcache.core.placement.hashing import crc16
from shardcache.core.placement.nodes import Node
from shardcache.strategies.base import split_port
from shardcache.strategies.crc16 import SLOTS, Crc16
from shardcache.strategies.jump import bucket
from shardcache.strategies.ketama import Ketama
from shardcache.strategies.maglev import Maglev
from shardcache.strategies.modulo import Modulo
from shardcache.strategies.pymemcache import Pymemcache

VECTORS = Path(__file__).parents[1] / "vectors"


def golden(name):
    """Give a file of golden placements."""
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def configurations(name):
    """Give a file's configurations as test parameters, each with its own keys."""
    content = golden(name)
    return [
        pytest.param(
            configuration | {"keys": content["key_sets"][configuration["keys"]]},
            id=f"{configuration['profile']}-{len(configuration['nodes'])}-{number}",
        )
        for number, configuration in enumerate(content["configurations"])
    ]


def nodes_of(configuration):
    """Give a configuration's nodes, named where the other software lets one name them."""
    return [
        Node(f"memcached://{in_brackets(node['host'])}:{node['port']}", name, node["weight"])
        for node, name in zip(configuration["nodes"], names_of(configuration), strict=True)
    ]


def names_of(configuration):
    """Give the names to set, `None` where the name is that of the address.

    spymemcached's resolved addresses read `host/ip:port`, which only a name can say.
    """
    if configuration["profile"] == "spymemcached":
        return configuration["node_names"]
    return [node.get("name") for node in configuration["nodes"]]


def in_brackets(host):
    """Give a host as a URL writes it."""
    return f"[{host}]" if ":" in host else host


def misplaced(strategy, configuration):
    """Give the keys that the strategy puts elsewhere than the other software did."""
    nodes = nodes_of(configuration)
    owner = strategy.build(nodes).owner
    return [
        key
        for key, index in zip(configuration["keys"], configuration["owners"], strict=True)
        if owner(key.encode()) is not nodes[index]
    ]


@pytest.mark.parametrize("configuration", configurations("ketama"))
def test_ketama_places_keys_as_its_profile_says(configuration):
    """Each profile is its software, also for keys beyond ASCII and keys that hit a point."""
    options = {"hash": configuration["hash"]} if configuration["profile"] == "twemproxy" else {}
    assert misplaced(Ketama(profile=configuration["profile"], **options), configuration) == []


@pytest.mark.parametrize("configuration", configurations("maglev"))
def test_maglev_places_keys_as_envoy(configuration):
    """The table and the hash are Envoy's, weights included."""
    assert misplaced(Maglev(table=configuration["M"]), configuration) == []


@pytest.mark.parametrize("configuration", configurations("modulo"))
def test_modulo_places_keys_as_its_profile_says(configuration):
    """python-memcached lists servers by weight; libmemcached's modula has a choice of hash."""
    profile, _, key_hash = configuration["profile"].partition(", hash ")
    options = {"hash": key_hash} if key_hash else {}
    assert misplaced(Modulo(profile=profile, **options), configuration) == []


@pytest.mark.parametrize("configuration", configurations("pymemcache"))
def test_pymemcache_places_keys_as_its_hash_client(configuration):
    """Switching from `HashClient` moves no key."""
    assert misplaced(Pymemcache(), configuration) == []


@pytest.mark.parametrize(
    "pool",
    golden("twemproxy")["pools"],
    ids=lambda pool: "-".join((pool["distribution"], pool["hash"])),
)
def test_every_hash_of_twemproxy_is_exact(pool):
    """All twelve hashes, on the ring and modulo, place keys as nutcracker did."""
    content = golden("twemproxy")
    nodes = [
        Node("memcached://127.0.0.1", name, weight)
        for name, weight in zip(content["names"], content["weights"], strict=True)
    ]
    factory = {"ketama": Ketama, "modula": Modulo}[pool["distribution"]]
    owner = factory(profile="twemproxy", hash=pool["hash"]).build(nodes).owner
    owners = "".join(str(nodes.index(owner(key.encode()))) for key in content["keys"])
    assert owners == pool["owners"]


def test_crc16_has_the_slots_of_redis_cluster():
    """With a node for each slot, a key's node is its slot, hash tags included."""
    content = golden("crc16")
    nodes = [Node("redis://127.0.0.1", name=str(slot)) for slot in range(SLOTS)]
    owner = Crc16().build(nodes).owner
    keys = content["keys"] + content["special_keys"]
    slots = content["slots"] + content["special_slots"]
    assert [int(owner(key.encode()).name) for key in keys] == slots


@given(st.binary(max_size=300))
def test_crc16_is_the_function_of_its_definition(key):
    """Bit by bit, by the polynomial x^16 + x^12 + x^5 + 1, it is the same."""
    remainder = 0
    for byte in key:
        remainder ^= byte << 8
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x11021 if remainder & 0x8000 else 0)
    assert crc16(key) == remainder


def test_crc16_has_the_check_value_of_its_catalogue():
    """CRC-16/XMODEM of the nine digits is 0x31C3, as Redis' own source says."""
    assert crc16(b"123456789") == 0x31C3


def test_jump_gives_the_published_buckets():
    """The bucket of a 64-bit key is that of the paper's function, up to 2**31 - 1 buckets."""
    content = golden("jump")
    for count, buckets in content["results"].items():
        assert [bucket(int(key), int(count)) for key in content["keys"]] == buckets


HOSTS = st.sampled_from(["10.0.0.1", "cache.example.com", "[::1]", "[fd00::a]"])
ADDRESSES = st.lists(st.tuples(HOSTS, st.integers(1, 65535)), min_size=1, max_size=6, unique=True)


@given(ADDRESSES, st.text(min_size=1))
def test_pymemcache_agrees_with_pymemcache(addresses, key):
    """Any text key has the node that pymemcache's own code gives, IPv6 without its brackets."""
    nodes = [Node(f"memcached://{host}:{port}") for host, port in addresses]
    labels = [f"{host.strip('[]')}:{port}" for host, port in addresses]
    chosen = RendezvousHash(nodes=list(labels)).get_node(key)
    owner = Pymemcache().build(nodes).owner(key.encode("utf-8", "surrogateescape"))
    assert owner is nodes[labels.index(chosen)]


ROUNDED = {25, 47, 50, 55, 61, 71, 94, 100}


@pytest.mark.slow
@pytest.mark.parametrize("count", range(1, 101))
def test_libmemcached_rounds_in_single_precision(count):
    """At some sizes equal nodes have 156 points, not 160; libketama and spymemcached differ."""
    nodes = [Node(f"memcached://10.0.0.{number}:11211") for number in range(count)]

    def points(profile):
        return {len(of_node) for of_node in Ketama(profile=profile)._points(nodes)}

    assert points("libmemcached") == points("twemproxy") == {156 if count in ROUNDED else 160}
    assert points("libketama") == {156 if count == 61 else 160}
    assert points("spymemcached") == {160}
    assert points("pylibmc") == {100}


@pytest.mark.parametrize(
    ("name", "host", "port"),
    [
        ("10.0.0.1:11211", "10.0.0.1", "11211"),
        ("[fd00::1]:11211", "fd00::1", "11211"),
        ("fd00::11211", "fd00::11211", ""),
        ("[fd00::1]", "[fd00::1]", ""),
        ("shard-1", "shard-1", ""),
        ("shard:a", "shard:a", ""),
        (":11211", ":11211", ""),
        ("/run/memcached.sock", "/run/memcached.sock", ""),
    ],
)
def test_a_label_comes_from_the_name(name, host, port):
    """Only a name that reads `host:port` has a port, whatever the address is."""
    assert split_port(Node("memcached://10.9.9.9:999", name)) == (host, port)


def test_twemproxy_takes_a_given_name_as_it_is():
    """A name that was given keeps its default port on the ring, as libketama's labels do."""
    nodes = [Node("memcached://127.0.0.1", f"10.0.0.{number}:11211") for number in range(3)]
    named = Ketama(profile="twemproxy", hash="md5").build(nodes)
    as_written = Ketama(profile="libketama").build(nodes)
    keys = [b"key:%d" % number for number in range(100)]
    assert list(map(named.owner, keys)) == list(map(as_written.owner, keys))
