"""The URL of a Redis node."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shardcache.backends.base import BackendOptions
from shardcache.backends.redis import Redis
from shardcache.backends.redis.options import MAX_VALUE_BYTES, read_options
from shardcache.core.placement.nodes import Node
from shardcache.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "greeting"),
    [
        ("redis://h", []),
        ("redis://h/0", []),
        ("redis://h/7", [("SELECT", "7")]),
        ("redis://h?db=7", [("SELECT", "7")]),
        ("redis+unix:///run/redis.sock?db=7", [("SELECT", "7")]),
        ("redis://:pass%40word@h", [("AUTH", "pass@word")]),
        ("redis://app:p+w%2Fx@h/2", [("AUTH", "app", "p+w/x"), ("SELECT", "2")]),
        ("redis://h?username=app&password=p%20w", [("AUTH", "app", "p w")]),
        ("redis+unix://app:pw@/run/redis.sock", [("AUTH", "app", "pw")]),
        ("rediss://h?client_name=shop", [("CLIENT", "SETNAME", "shop")]),
        ("REDIS://:pw@h", [("AUTH", "pw")]),
    ],
)
def test_urls_are_read_as_redis_py_reads_them(url, greeting):
    """User, password and database stand where redis-py wants them."""
    assert read_options(Node(url)).greeting() == greeting


def test_options_of_redis_py_that_a_client_decides_are_taken():
    """A URL that works there need not be rewritten."""
    node = Node("redis://h/1?socket_timeout=5&max_connections=10&decode_responses=True&protocol=3")
    assert read_options(node).db == 1
    assert read_options(node).max_value_bytes == MAX_VALUE_BYTES


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis://h/1?db=2", "database is given twice"),
        ("redis://app@h?username=other", "user is given twice"),
        ("redis://:hunter2@h?password=hunter3", "password is given twice"),
        ("redis://h?db=x", "db"),
        ("redis://h?db=-1", "db"),
        ("redis://h?max_value_bytes=0", "max_value_bytes"),
        ("redis://h?max_value_bytes=1e6", "max_value_bytes"),
        ("redis://h?client_name=two%20words", "client_name"),
        ("redis://h?colour=red", "no option 'colour'"),
        ("redis://h?ssl_ca_certs=x", "no option 'ssl_ca_certs'"),
        ("redis://h?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_faults_are_named(url, fault):
    """What cannot work is refused when the node is made, and says which node."""
    with pytest.raises(ConfigurationError, match=fault) as raised:
        read_options(Node(url, name="cache1"))
    assert "cache1" in str(raised.value)
    assert "hunter" not in str(raised.value)


def test_all_faults_are_listed_and_no_secret():
    """One error tells everything that is wrong, and nothing that is private."""
    url = "redis://app:hunter2@h?password=hunter3&colour=red&max_value_bytes=none"
    with pytest.raises(ConfigurationError) as raised:
        read_options(Node(url))
    assert len(raised.value.faults) == 3
    assert "hunter2" not in str(raised.value)


def test_reprs_hold_no_secret():
    """Options and the factory are shown without credentials."""
    assert "hunter2" not in repr(read_options(Node("redis://app:hunter2@h")))
    assert "hunter2" not in repr(Redis(Rotating("hunter2")))


def test_a_file_that_is_not_there_is_a_fault_of_the_settings():
    """A certificate is looked for when the node is made, not at the first call."""
    node = Node("rediss://h?ssl_ca_certs=/nowhere.pem", name="cache1")
    with pytest.raises(ConfigurationError, match="cache1"):
        Redis().blocking(node, BackendOptions())


class Rotating:
    """Credentials that change with each connection."""

    def __init__(self, *passwords):
        self.passwords = list(passwords)

    def get_credentials(self):
        """Give the next password."""
        return (self.passwords.pop(0),)

    def __repr__(self):
        return f"<Rotating {self.passwords}>"


def test_credentials_are_asked_for_each_connection():
    """A provider takes the place of the URL's password, and may change its mind."""
    options = read_options(Node("redis://:old@h"), Rotating("first", "second"))
    assert options.greeting() == [("AUTH", "first")]
    assert options.greeting() == [("AUTH", "second")]


def test_no_library_is_loaded_before_the_first_node():
    """The factories load redis-py, hiredis and pymemcache when a node is made, and not before."""
    program = (
        "import sys; import shardcache.backends.redis, shardcache.backends.pymemcache;"
        "sys.exit(sum(name in sys.modules for name in ('redis', 'hiredis', 'pymemcache')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0
