"""`check`: what is wrong with each node, for people and for programs."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def nodes(make_redis, make_memcached):
    """Start one node that is well and one that wants a password; return their URLs and names."""
    well, locked = make_memcached(), make_redis("--requirepass", "hunter2")
    urls = f"{well.url} {locked.url}"
    return urls, f"127.0.0.1:{well.port}", f"127.0.0.1:{locked.port}"


def test_all_is_well(typed, memcached_servers, redis_servers):
    """A row for each node with its server, and 0; what should be known stands below."""
    memcached, redis = memcached_servers[0], redis_servers[0]
    status, out, errors = typed("check", "--url", f"{memcached.url} {redis.url}")
    head, first, second, note = out.splitlines()
    assert (status, errors) == (0, "")
    assert head.split() == ["node", "server", "answer"]
    assert first.split()[:3] == [f"127.0.0.1:{memcached.port}", "passed", "memcached"]
    assert second.split()[:2] == [f"127.0.0.1:{redis.port}", "passed"]
    assert note.startswith(f"127.0.0.1:{redis.port}: it evicts nothing")


def test_what_is_wrong_is_reported_and_exits_with_1(typed, nodes):
    """The node that is well is told as well; the password of no URL is."""
    urls, well, locked = nodes
    status, out, errors = typed("check", "--url", urls)
    assert (status, errors) == (1, "")
    _, first, second, fault = out.splitlines()
    assert first.split()[:2] == [well, "passed"]
    assert second.split()[:2] == [locked, "failed"]
    assert fault.startswith(
        f"{locked}: the server requires a password, and the node's URL has none"
    )
    wrong = f"redis://:hunter3@{locked}"
    status, out, errors = typed("check", "--url", wrong)
    assert (status, "hunter" in out + errors) == (1, False)


def test_json(typed, nodes):
    """Programs get an object for each node."""
    urls, well, locked = nodes
    status, out, _ = typed("check", "--json", "--url", urls)
    told = json.loads(out)
    assert status == 1
    assert told[well].keys() == {"passed", "server", "seconds", "notes"}
    assert told[well]["passed"] is True
    assert told[well]["server"].startswith("memcached 1.")
    assert (told[locked]["passed"], len(told[locked]["faults"])) == (False, 1)
    assert typed("check", "--json", "--url", "memory://a,b")[0] == 0


def test_it_fits_a_terminal(on_terminal, nodes):
    """Sentences are wrapped within 80 columns, and none is cut."""
    shown = on_terminal("check", "--url", nodes[0])
    assert max(map(len, shown)) <= 80
    assert "write redis://user:password@host" in " ".join(shown)


def test_what_a_server_says_acts_on_no_terminal(typed, make_liar):
    """Control characters and markup of a server are shown as they are."""
    url = make_liar(other=b"SERVER_ERROR [/red]\x1b[2J\r\n", stats=b"END\r\n")
    status, out, errors = typed("check", "--url", url)
    assert (status, errors) == (1, "")
    assert r"[/red]\x1b[2J" in out
    assert "\x1b" not in out
