"""URLs of ensembles, and the paths of locks."""

from __future__ import annotations

import ssl

import pytest
from shardcache_zookeeper import ensemble as ensembles
from shardcache_zookeeper.ensemble import (
    Ensemble,
    first,
    holders_among,
    is_the_first,
    lock_name,
    parse_url,
)

from shardcache import Client, ConfigurationError
from shardcache.core.lock_providers import LockScope, NamedLock


def test_a_url_names_servers_a_path_and_options():
    """Ports, the path and the session's timeout have defaults."""
    assert parse_url("zookeeper://h1,h2:2182,[::1],[::1]:3/a/b?session_timeout=8") == Ensemble(
        "h1:2181,h2:2182,[::1]:2181,[::1]:3", "/a/b", 8.0
    )
    assert parse_url("zookeeper://h/") == Ensemble("h:2181", "/shardcache", 5.0)
    assert parse_url("zookeeper://a%3Ab:p%40ss@h/c").credentials == ("a:b", "p@ss", "digest")
    assert parse_url("zookeeper://a:b@h?auth=sasl").credentials == ("a", "b", "sasl")


def test_servers_with_tls_have_a_scheme_of_their_own():
    """With ZooKeeper's usual port for it; clients that verify alike share a session."""
    secure, same, other = (
        parse_url(f"zookeepers://h/shop{query}") for query in ("", "", "?ssl_cert_reqs=none")
    )
    assert secure.hosts == "h:2281"
    assert str(secure) == "zookeepers://h:2281/shop"
    assert secure == same != other
    context = ssl.create_default_context()
    given = parse_url("zookeepers://h/shop", context)
    assert given.tls.context is context
    assert given != secure
    assert parse_url("zookeeper://h", context).tls is None


def test_an_option_that_weakens_tls_is_reported(caplog):
    """As one of a node is."""
    with Client("memory://a", locks="zookeepers://h?ssl_cert_reqs=none"):
        assert "locks: ssl_cert_reqs=none: any server is accepted" in caplog.text


def test_sasl_needs_a_package(monkeypatch):
    """The error says which."""
    monkeypatch.setattr(ensembles, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="needs the package pure-sasl"):
        parse_url("zookeeper://a:b@h?auth=sasl")


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("zookeeper:///shop", "each server is host or host:port"),
        ("zookeeper://h1,,h2", "each server is host or host:port"),
        ("zookeeper://::1", "an IPv6 address in brackets"),
        ("zookeeper://h:0", "port must be a number from 1 to 65535"),
        ("zookeeper://h:65536", "port must be a number from 1 to 65535"),
        ("zookeeper://h:x", "port must be a number from 1 to 65535"),
        ("zookeeper://h/a//b", "names that ZooKeeper does not take"),
        ("zookeeper://h/../b", "names that ZooKeeper does not take"),
        ("zookeeper://h/a%00", "names that ZooKeeper does not take"),
        ("zookeeper://h/zookeeper/a", "names that ZooKeeper does not take"),
        ("zookeeper://h?session_timeout=0", "session_timeout must be seconds above 0"),
        ("zookeeper://h?session_timeout=nan", "session_timeout must be seconds above 0"),
        ("zookeeper://h?session_timeout=x", "session_timeout must be seconds above 0"),
        ("zookeeper://h?session_timeout=3&session_timeout=4", "is given twice"),
        ("zookeeper://h?timeout=3", r"no such option \(known: session_timeout, auth\)"),
        ("zookeeper://h?ssl_certfile=/x", "ssl_certfile is for the scheme zookeepers://"),
        (
            "zookeepers://h?ssl_ca_certs=/hunter2",
            "locks: ssl_ca_certs cannot be read: No such file",
        ),
        ("zookeepers://h?ssl_min_version=hunter2", "locks: ssl_min_version must be 1.2 or 1.3"),
        ("zookeeper://h?auth=digest", "auth=digest needs credentials"),
        ("zookeeper://a:b@h?auth=hunter2", "auth must be digest or sasl"),
        ("zookeeper://user@h", "credentials are user:password"),
        ("zookeeper://:hunter2@h", "credentials are user:password"),
    ],
)
def test_a_bad_url_is_refused(url, fault):
    """When the client is made, with every fault and without a secret."""
    with pytest.raises(ConfigurationError, match=fault) as raised:
        Client("memory://a", locks=url)
    assert "hunter2" not in str(raised.value)


def test_no_secret_is_shown():
    """Neither by the ensemble nor in the text of errors."""
    ensemble = parse_url("zookeeper://user:hunter2@h/shop")
    assert "hunter2" not in f"{ensemble} {ensemble!r}"
    assert str(ensemble) == "zookeeper://h:2181/shop"


@pytest.mark.parametrize(
    "name", [b"report", b"a/b", b".", b"..", b"\x00\xff /", b"%2F", "☃".encode()]
)
def test_a_path_keeps_the_name(name):
    """ZooKeeper takes it, and operators get the name back."""
    path = Ensemble("h").directory(NamedLock(name, LockScope.CALLER, None, name))
    folder, _, last = path.rpartition("/")
    assert folder == "/shardcache/lock"
    assert last not in {".", ".."}
    assert last.isascii()
    assert last.isprintable()
    assert lock_name(path) == name


def test_scopes_are_apart():
    """A lock of a caller is another than that of a value."""
    paths = {Ensemble("h").directory(NamedLock(b"a", scope, None, b"a")) for scope in LockScope}
    assert len(paths) == 2


def test_the_first_node_holds_the_lock():
    """Numbers decide, not guids, also when they have just wrapped; other programs' nodes do not count."""

    def node(guid, number):
        return f"{guid * 32}-{number:010d}"

    assert first([node("b", 2), node("a", 10)]) == node("b", 2)
    assert first([node("b", -(2**31)), node("a", 2**31 - 1)]) == node("a", 2**31 - 1)
    assert first([node("b", 7), "another"]) == node("b", 7)
    assert holders_among(["another", node("g", 1)]) == []
    assert is_the_first(f"/shop/lock/report/{node('b', 2)}", [node("b", 2), node("a", 10)])
    assert not is_the_first(f"/shop/lock/report/{node('b', 2)}", [node("a", 10)])
    assert not is_the_first(f"/shop/lock/report/{node('b', 2)}", [])
