"""From URLs and tables to nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.placement.nodes import Node
from shardcache.errors import ConfigurationError, TopologyError
from shardcache.settings import node_list, parse_node, parse_nodes

HOSTS = st.lists(
    st.sampled_from(
        ["10.0.0.1", "cache_1", "[::1]", "[2001:db8::2]:99", "h.example:1", "b-2:65535"]
    ),
    min_size=1,
    unique=True,
)
WEIGHTS = st.none() | st.integers(1, 999_999_999) | st.sampled_from([0.5, 2.25])


@given(
    scheme=st.sampled_from(["memcached", "redis", "rediss", "other"]),
    user=st.sampled_from(["", "u:p%40ss@", ":p@"]),
    hosts=HOSTS,
    weights=st.lists(WEIGHTS, min_size=6, max_size=6),
    rest=st.sampled_from(["", "/0", "/0?ssl_ca=/a%20b&db=1", "?db=1"]),
)
def test_hosts_share_all_but_their_place(scheme, user, hosts, weights, rest):
    """Each host of a URL gives the node that its own URL would give, with its weight."""
    if scheme == "memcached":  # which has neither login nor path
        user, rest = "", rest.removeprefix("/0")
    written = [
        host if weight is None else f"{host}*{weight}"
        for host, weight in zip(hosts, weights, strict=False)
    ]
    nodes, settings = parse_nodes(f"{scheme}://{user}{','.join(written)}{rest}")

    assert settings == {}
    assert list(nodes) == [
        Node(f"{scheme}://{user}{host}{rest}", weight=1 if weight is None else weight)
        for host, weight in zip(hosts, weights, strict=False)
    ]
    assert not any(node.named for node in nodes)


@pytest.mark.parametrize(
    ("url", "nodes", "settings"),
    [
        ("memory://", [Node("memory://")], {}),
        ("memory://a,B*2", [Node("memory://a"), Node("memory://B", weight=2)], {}),
        (
            "memory://a,b?max_entries=100",
            [Node("memory://a?max_entries=100"), Node("memory://b?max_entries=100")],
            {},
        ),
        (
            "redis://h/0?strategy=ketama:profile=twemproxy,hash=md5&db=3&timeout=0.2",
            [Node("redis://h/0?db=3")],
            {"strategy": "ketama:profile=twemproxy,hash=md5", "timeout": "0.2"},
        ),
        ("memcached://h?namespace=a%26b+c", [Node("memcached://h")], {"namespace": "a&b+c"}),
        (
            "memcached+unix:///run/a,b*2.sock",
            [Node("memcached+unix:///run/a,b*2.sock")],
            {},
        ),
    ],
)
def test_query_is_shared_out(url, nodes, settings):
    """Parameters of a client leave the URL; what is for the backend stays with each node."""
    assert parse_nodes(url) == (tuple(nodes), settings)


@pytest.mark.parametrize(
    ("url", "faults"),
    [
        ("memcached://a,,b:x", ["host 2: is empty", "host 3: a port is a number from 1 to 65535"]),
        (
            "memcached://a*0,b*-1,c*x,d*",
            [f"host {n}: a weight is a number above" for n in range(1, 5)],
        ),
        (
            "memcached://:1?strateggy=jump&namespace=a&namespace=b",
            [
                (
                    "?strateggy=: no such option (known: clearable, codec, connect_timeout, default_ttl,"
                    " failover, namespace, on_error, on_overflow, pool_size, read_compressed,"
                    " read_unsigned, strategy, timeout; did you mean"
                    " 'strategy'?)"
                ),
                "?namespace=: is given more than once",
                "a host is made of",
            ],
        ),
        ("redis+unix://*2/run/redis.sock", ["a redis+unix:// URL has no host"]),
        ("memory://a?secret=hunter2", ["?secret=: a secret does not belong in a URL"]),
    ],
)
def test_every_fault_of_a_url_is_reported(url, faults):
    """Faulty hosts are told by their place, faulty fields by their name, all in one error."""
    with pytest.raises(ConfigurationError) as caught:
        parse_nodes(url)
    assert len(caught.value.faults) == len(faults)
    for told, expected in zip(caught.value.faults, faults, strict=True):
        assert told.startswith(expected)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("memory://a,b", [Node("memory://a"), Node("memory://b")]),
        (Node("memory://a"), [Node("memory://a")]),
        (("memory://a", "memory://b,c"), [Node(f"memory://{name}") for name in "abc"]),
        (iter([Node("memory://a", "n", 2)]), [Node("memory://a", "n", 2)]),
        ([{"url": "memory://a"}], [Node("memory://a")]),
        ([{"url": "memory://a", "name": "n", "weight": 2.5}], [Node("memory://a", "n", 2.5)]),
    ],
)
def test_nodes_may_be_written_in_many_ways(nodes, expected):
    """URLs of one or several hosts, nodes and tables may stand in one list, or alone."""
    assert list(node_list(nodes)) == expected


# What is said of a client's setting in the URL of a node.
OF_THE_CLIENT = (
    "?{name}=: is a setting of the client, not of a node: give it as `{name}`, or the whole"
    " URL to `from_url`"
)


def test_every_fault_of_a_list_is_reported():
    """One error tells the fault of each entry, by its place."""
    with pytest.raises(ConfigurationError) as caught:
        node_list(
            [
                "memory://a?timeout=1",
                3,
                {"url": "memory://b", "wieght": 2},
                {"name": "b"},
                Node("memory://c?codec=raw"),
                {"url": "memory://d", "weight": True},
                {"url": "memory://d?codec=raw"},
                Node("memory://e"),
                "memory://e",
            ]
        )
    assert caught.value.faults == (
        f"entry 1: {OF_THE_CLIENT.format(name='timeout')}",
        "entry 2: a node is a URL or a Node, not int",
        "entry 3: 'wieght': no such option (known: name, url, weight; did you mean 'weight'?)",
        "entry 4: a node needs a URL, as `url`",
        f"entry 5: {OF_THE_CLIENT.format(name='codec')}",
        "entry 6: node d: its weight must be a number",
        f"entry 7: {OF_THE_CLIENT.format(name='codec')}",
        "two nodes are called 'e'",
    )


@pytest.mark.parametrize(
    "nodes", [[], ["memory://a", "memory://a"], [{"url": "x://h", "weight": 0}]]
)
def test_nodes_that_cannot_hold_keys_are_a_topology_error(nodes):
    """No node, two of one name and a weight of zero are told apart from malformed settings."""
    with pytest.raises(TopologyError):
        node_list(nodes)


@pytest.mark.parametrize("nodes", [None, 3, b"memory://a"])
def test_what_is_no_list_is_refused(nodes):
    """Nodes are a list, and bytes are no URL."""
    with pytest.raises(ConfigurationError, match="must be a list of URLs and nodes"):
        node_list(nodes)


def test_parse_node_gives_exactly_one():
    """Where one node is wanted, a URL of two hosts is refused."""
    assert parse_node("memory://a*2") == parse_node(Node("memory://a", weight=2))
    with pytest.raises(ConfigurationError, match="expected one node, not 2"):
        parse_node("memory://a,b")
