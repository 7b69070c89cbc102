"""`nodes` and `where` show which nodes keep the keys of one that is down."""

from __future__ import annotations

import json

import pytest

DOWN = "memcached://127.0.0.1:1"  # no server listens on this port
NAME = "127.0.0.1:1"
KEYS = [f"k{number}" for number in range(12)]


@pytest.fixture(params=["next", "memory://spare"])
def urls(request):
    """Return the options for two nodes, one of which is down, with a failover of each kind."""
    return ["--url", DOWN, "--url", f"memory://b?failover={request.param}&timeout=0.3"]


@pytest.fixture
def stand_in(urls):
    """Return the node that keeps the keys of the one that is down."""
    return "spare" if "spare" in urls[-1] else "b"


def test_where_names_the_node_that_keeps_a_key(typed, urls, stand_in):
    """The key's own node stays the first of its order of preference."""
    status, out, _ = typed("where", *KEYS, "--json", *urls)
    assert status == 0
    found = {entry["nodes"][0]: entry["stand_in"] for entry in json.loads(out)}
    assert found == {NAME: stand_in, "b": None}
    _, out, _ = typed("where", *KEYS, *urls)
    assert "now on" in out
    assert stand_in in out


def test_nodes_names_the_nodes_that_keep_its_keys(typed, urls, stand_in):
    """Spare nodes are listed by themselves."""
    status, out, _ = typed("nodes", "--json", *urls)
    told = json.loads(out)
    assert status == 0
    assert {node["name"]: node["stand_ins"] for node in told["nodes"]} == {
        NAME: [stand_in],
        "b": [],
    }
    assert told["gutter"] == [name for name in [stand_in] if name == "spare"]
    _, out, _ = typed("nodes", *urls)
    assert "keys now on" in out
    assert ("gutter spare" in out) is (stand_in == "spare")


def test_a_spare_node_is_flushed_by_the_name_that_nodes_shows(typed, urls, stand_in):
    """Without spare nodes no node has such a name."""
    status, out, err = typed("flush", "gutter spare", "--yes", *urls)
    if stand_in == "spare":
        assert (status, out) == (0, "spare: flushed\n")
    else:
        assert status != 0
        assert "gutter spare" in err


def test_without_a_failover_no_node_is_asked(typed):
    """As many nodes as there are, down or not: the answer is at once."""
    status, out, _ = typed("where", *KEYS, "--json", "--url", f"{DOWN},127.0.0.1:2")
    assert status == 0
    assert {entry["stand_in"] for entry in json.loads(out)} == {None}
    assert "now on" not in typed("nodes", "--url", f"{DOWN},127.0.0.1:2")[1]
