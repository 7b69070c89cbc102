"""Options that weaken a node, or have no effect, are logged when the client is made."""

from __future__ import annotations

import logging

import pytest

from shardcache.testing.driving import make_client


@pytest.fixture
def lines(caplog):
    """Return a function that gives what was logged at WARNING."""
    caplog.set_level(logging.WARNING, logger="shardcache")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["rediss", "memcacheds"])
@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("ssl_cert_reqs=none", "any server is accepted"),
        ("ssl_cert_reqs=NONE&ssl_check_hostname=false", "ssl_cert_reqs=none"),
        ("ssl_check_hostname=false", "certificate for any other name"),
        ("ssl_check_hostname=0", "certificate for any other name"),
        ("ssl_check_hostname=No", "certificate for any other name"),
        ("ssl_cert_reqs=required", None),
        ("ssl_cert_reqs=optional&ssl_check_hostname=true", None),
        ("max_value_bytes=9", None),
    ],
)
def test_an_unverified_server_is_logged_once(mode, lines, scheme, option, told):
    """One line for each node, also for later nodes and for nodes of locks."""
    url = f"{scheme}://h1,h2?{option}"
    client = make_client(mode, url, lock_nodes=f"{scheme}://h3?{option}")
    client.add_node(f"{scheme}://h4?{option}")
    client.close()
    nodes = [line.split()[1].partition(":")[0] for line in lines()]
    assert nodes == ([] if told is None else ["h1", "h2", "h3", "h4"])
    assert all(told in line for line in lines())


def test_options_without_effect_are_logged(mode, lines):
    """A URL of redis-py is taken as it is; the options that the client decides are named."""
    make_client(mode, "redis://:hunter2@h?max_connections=5&decode_responses=true").close()
    (line,) = lines()
    assert "decode_responses, max_connections in its URL: without effect" in line
    assert "hunter2" not in line


def test_a_probe_does_not_repeat_a_warning(mode, lines, make_redis):
    """A client warns when it is made, not with each probe of an ejected node."""
    server = make_redis()
    client = make_client(mode, f"{server.url}?protocol=3", timeout=5)
    server.kill()
    for _ in range(3):
        client.get("k")
        client.ping()
    client.close()
    assert len([line for line in lines() if "without effect" in line]) == 1


def test_sound_nodes_are_not_warned_about(mode, lines):
    """Plain nodes, verified TLS and memory nodes log nothing."""
    nodes = ["memory://a", "memcached://h", "redis://h", "rediss://i", "pymemcache://j"]
    make_client(mode, nodes).close()
    assert lines() == []
