"""Warnings of URLs: options without effect, and options that weaken connections."""

from __future__ import annotations

import pytest

from shardcache import Node
from shardcache.core.placement.url_warnings import (
    DECIDED_BY_CLIENT,
    sends_password_in_clear,
    url_warnings,
)

ANY_SERVER = "ssl_cert_reqs=none: any server is accepted, whatever its certificate says"
ANY_NAME = "ssl_check_hostname=false: a server with a certificate for any other name is accepted"


@pytest.mark.parametrize(
    ("url", "warnings"),
    [
        ("memory://a", []),
        ("redis://h/1?db=1", []),
        ("rediss://h?ssl_cert_reqs=required&ssl_check_hostname=true", []),
        ("rediss://h?ssl_cert_reqs=none", [ANY_SERVER]),
        ("memcacheds://h?ssl_cert_reqs=NONE", [ANY_SERVER]),
        ("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false", [ANY_SERVER]),
        *((f"memcacheds://h?ssl_check_hostname={no}", [ANY_NAME]) for no in ("False", "no", "0")),
        # Without TLS these options have no meaning, and a backend refuses them.
        ("redis://h?ssl_cert_reqs=none", []),
        ("memcached://h?ssl_check_hostname=false", []),
    ],
)
def test_options_that_weaken_tls_are_named(url, warnings):
    """The option that accepts any server hides the one that accepts any name."""
    assert list(url_warnings(Node(url))) == warnings


@pytest.mark.parametrize("scheme", ["redis://h", "rediss://h", "redis+unix:///run/redis.sock"])
def test_options_of_redis_py_that_the_client_decides_are_named(scheme):
    """All in one warning, in the order of the alphabet."""
    query = "&".join(f"{name}=1" for name in ("timeout", "protocol", "db"))
    assert list(url_warnings(Node(f"{scheme}?{query}"))) == [
        "protocol, timeout in its URL: without effect, because the client decides this"
    ]
    every = "&".join(f"{name}=1" for name in DECIDED_BY_CLIENT)
    (warning,) = url_warnings(Node(f"{scheme}?{every}"))
    assert warning.startswith(", ".join(sorted(DECIDED_BY_CLIENT)))


def test_other_schemes_have_such_options_to_themselves():
    """`timeout` of a memcached URL is not redis-py's."""
    assert list(url_warnings(Node("memcached://h?timeout=1"))) == []


@pytest.mark.parametrize(
    ("url", "in_clear"),
    [
        ("redis://:p@10.0.0.1", True),
        ("redis://cache.example?password=p", True),
        ("redis://10.0.0.1", False),
        ("redis://user@10.0.0.1", False),
        ("redis://:p@127.0.0.1", False),
        ("redis://:p@127.9.9.9", False),
        ("redis://:p@[::1]", False),
        ("redis://:p@localhost", False),
        ("redis://:p@localhost.example", True),
        ("rediss://:p@10.0.0.1", False),
        ("redis+unix://:p@/run/redis.sock", False),
    ],
)
def test_a_password_without_tls_stays_on_this_machine(url, in_clear):
    """Only a password that leaves the machine in clear is worth a warning."""
    assert sends_password_in_clear(Node(url)) is in_clear
