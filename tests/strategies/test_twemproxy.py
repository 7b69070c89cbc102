"""Behind twemproxy and beside it: a key is where the proxy put it."""

from __future__ import annotations

import socket

import pytest

from shardcache.core.placement.nodes import Node
from shardcache.strategies.ketama import Ketama

KEYS = [f"user:{number}:é{{{number % 7}}}" for number in range(60)]


def ask(url, line):
    """Give what a server answers to one line."""
    host, port = url.rpartition("//")[2].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(line)
        return connection.makefile("rb").readline()


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"hash": "murmur"}, {"hash": "murmur"}),
        ({"hash_tags": True}, {"hash": "fnv1a_64", "hash_tag": '"{}"'}),
    ],
    ids=["hash", "hash tags"],
)
def test_keys_set_through_the_proxy_are_found_directly(
    memcached_servers, make_nutcracker, options, settings
):
    """A real nutcracker writes, and the node that the strategy names has the key."""
    nodes = [
        Node(server.url, f"shard-{index}", weight=index + 1)
        for index, server in enumerate(memcached_servers)
    ]
    servers = [
        f"{node.address.host}:{node.address.port}:{node.weight} {node.name}" for node in nodes
    ]
    proxy = make_nutcracker({"servers": servers, "distribution": "ketama", **settings})
    owner = Ketama(profile="twemproxy", **options).build(nodes).owner
    for key in KEYS:
        name = key.encode()
        assert ask(proxy.url, b"set %s 0 0 1\r\nv\r\n" % name) == b"STORED\r\n"
        assert ask(owner(name).url, b"get %s\r\n" % name).startswith(b"VALUE")
