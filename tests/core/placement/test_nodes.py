"""The parts of a node's URL, and what a node shows of them."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache import Client
from shardcache.core.placement.nodes import MAX_WEIGHT, Address, Node
from shardcache.errors import ConfigurationError, TopologyError

NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
WEIGHTS = st.integers(1, MAX_WEIGHT) | st.floats(0, MAX_WEIGHT, exclude_min=True)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("memcached://10.0.0.1", "10.0.0.1:11211"),
        ("memcached://10.0.0.1:11212", "10.0.0.1:11212"),
        ("memcacheds://cache.example", "cache.example:11211"),
        ("MEMCACHED://Cache.Example", "cache.example:11211"),
        ("pymemcache://cache_1", "cache_1:11211"),
        ("memcached://[2001:DB8::1]", "[2001:db8::1]:11211"),
        ("memcached://[::1]:11212", "[::1]:11212"),
        ("memcached://[fe80::1%25eth0]:1", "[fe80::1%eth0]:1"),
        ("redis://10.0.0.1/3", "10.0.0.1:6379"),
        ("rediss://u:p@h:06380", "h:6380"),
        ("redis+unix:///run/redis.sock?db=2", "/run/redis.sock"),
        ("redis+unix://u:p@/run/redis.sock", "/run/redis.sock"),
        ("memcached+unix:///run/my%20cache.sock", "/run/my cache.sock"),
        ("memory://", "memory"),
        ("memory://North", "North"),
        ("other://h", "h"),
        ("other://h:99/a/b", "h:99"),
    ],
)
def test_name_of_a_node_is_its_address(url, name):
    """Without a name a node is called `host:port`, its socket's path or its word."""
    node = Node(url)
    assert node.name == str(node) == name
    assert not node.named
    assert node == Node(url, name)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("memcached://", "a memcached:// URL needs a host"),
        ("memcached://:11211", "a host is made of"),
        ("memcached://a,b", "a node has one host"),
        ("memcached://h*2", "a host is made of"),
        ("memcached://h:", "a port is a number from 1 to 65535"),
        ("memcached://h:0", "a port is"),
        ("memcached://h:65536", "a port is"),
        ("memcached://h:1_1", "a port is"),
        ("memcached://h:+1", "a port is"),
        ("memcached://h:\u0661", "a port is"),
        ("memcached://::1:11211", "must be in brackets"),
        ("memcached://[::1", "brackets must hold"),
        ("memcached://[::1]11211", "brackets must hold"),
        ("memcached://[10.0.0.1]", "brackets must hold"),
        ("memcached://[::1]:x", "a port is"),
        ("memcached://h%41", "a host is made of"),
        ("memcached+unix://tmp/x.sock", "has no host: write the path"),
        ("memcached+unix:///", "needs the path of its socket"),
        ("redis+unix:///a%0ab", "must be printable"),
        ("memory://a/b", "has no path"),
        ("memory://a\u200bb", "must be printable"),
        ("memcached://h/3", "memcached:// URL has no path, because memcached has no databases"),
        ("memcacheds://h/tenant7", "memcacheds:// URL has no path"),
        ("pymemcache://h:22121/a/b", "pymemcache:// URL has no path"),
        ("redis://h/abc", "number of a database"),
        ("redis://h/1/2", "number of a database"),
        ("rediss://h/-1", "number of a database"),
        *(
            (f"{scheme}://{user}@{place}", f"a {re.escape(scheme)}:// URL has no user or password")
            for scheme, place in (
                ("memory", "a"),
                ("memcached", "h"),
                ("memcacheds", "h"),
                ("memcached+unix", "/run/memcached.sock"),
                ("pymemcache", "h"),
            )
            for user in ("app", ":hunter2", "app:hunter2")
        ),
        ("redis://h?db=1&db=2", "option 'db' of a URL is given more than once"),
        ("redis://u:%ff@h", "not UTF-8"),
    ],
)
def test_malformed_urls_are_refused(url, fault):
    """When the node is made, not at the first call."""
    with pytest.raises(ConfigurationError, match=fault) as caught:
        Node(url)
    assert "hunter2" not in str(caught.value)
    assert "tenant7" not in str(caught.value)


def test_all_parts_that_a_scheme_ignores_are_named():
    """Neither login nor path is used, and neither is quoted."""
    with pytest.raises(ConfigurationError) as caught:
        Node("memcached://app:hunter2@h/tenant7")
    assert len(caught.value.faults) == 2
    assert "hunter2" not in str(caught.value)
    assert "tenant7" not in str(caught.value)


def test_address_has_the_parts_decoded():
    """Backends read user, password and options from the address, free of percent-escapes."""
    address = Node("redis://us%3Aer:p%40s+s%2F@h/1?ssl_ca=/a%20b&x").address
    assert (address.username, address.password) == ("us:er", "p@s+s/")
    assert address.options == (("ssl_ca", "/a b"), ("x", ""))
    assert (address.host, address.port, address.path) == ("h", 6379, "1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://app:p@h", "redis://h:6379"),
        ("redis://app:p@h/2?ssl=1", "redis://h:6379/2"),
        ("redis+unix://app:p@/run/redis.sock?db=2", "redis+unix:///run/redis.sock"),
        ("memcached://[2001:DB8::1]", "memcached://[2001:db8::1]:11211"),
        ("memory://a:b", "memory://a:b"),
        ("other://h/a/b/", "other://h/a/b"),
    ],
)
def test_an_address_is_shown_as_a_url(url, shown):
    """Without what it logs in with, and such that it gives the same place again."""
    address = Address.parse(url)
    assert str(address) == shown
    again = Address.parse(shown)
    assert (again.host, again.port, again.path) == (address.host, address.port, address.path)


def test_an_unknown_scheme_is_not_quoted():
    """It may be the beginning of a password."""
    with pytest.raises(ConfigurationError, match=r"^a URL of this scheme needs a host$"):
        Address.parse("hunter2://")


@pytest.mark.parametrize("user", ["", "@", ":@"])
def test_empty_credentials_are_none(user):
    """An empty user name or password is as none at all."""
    address = Address.parse(f"redis://{user}h")
    assert address.username is None
    assert address.password is None


def test_repr_hides_user_password_and_options():
    """Neither a node nor its address shows what it logs in with."""
    node = Node("redis://app:hunter2@h/0?password=hunter3", "a")
    for text in (repr(node), str(node), repr(node.address), str(node.address)):
        assert "hunter" not in text
        assert "app" not in text
    assert repr(node) == "Node('redis://h:6379/0', name='a', weight=1)"


@given(NAMES, WEIGHTS)
def test_repr_of_a_node_makes_it_again(name, weight):
    """The repr of a node without credentials is the expression that makes an equal one."""
    node = Node("memcached://h:1", name, weight)
    assert eval(repr(node)) == node


@given(NAMES, WEIGHTS)
def test_a_node_survives_copies(name, weight):
    """A pickled or copied node is equal, with equal hash and its own name."""
    node = Node("redis://u:p@h:1", name, weight)
    for twin in (pickle.loads(pickle.dumps(node)), copy.copy(node), copy.deepcopy(node)):
        assert twin == node
        assert hash(twin) == hash(node)
        assert twin.named


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 10**400, True, "3", None])
def test_impossible_weights_are_refused(weight):
    """A weight is a number above zero that can be summed up."""
    with pytest.raises(TopologyError, match=r"^node h:11211: its weight must be"):
        Node("memcached://h", weight=weight)


@pytest.mark.parametrize("name", ["", "a\nb", 3, b"a"])
def test_impossible_names_are_refused(name):
    """A name is printable text, for log lines and the ring."""
    with pytest.raises(TopologyError, match="its name must be"):
        Node("memcached://h", name)


def test_a_bad_name_and_a_bad_weight_are_one_error():
    """It does not show a URL that was passed as the name."""
    with pytest.raises(TopologyError) as caught:
        Node("memcached://h", "redis://u:hunter2@h\n", weight=0)
    assert len(caught.value.faults) == 2
    assert "hunter2" not in str(caught.value)


def test_an_address_is_parsed_once(monkeypatch):
    """A node parses its URL when it is made, and never again: not for a client, nor for a call."""
    parsed = []
    parse = Address.parse
    monkeypatch.setattr(Address, "parse", lambda url: parsed.append(url) or parse(url))
    node = Node("memory://a")
    with Client([node, "memory://b"]) as client:
        client.get("k")
    assert node.address.host == pickle.loads(pickle.dumps(node)).address.host == "a"
    assert parsed == ["memory://a", "memory://b"]
