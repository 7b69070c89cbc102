"""`flush` and `stats --watch`: what an operator does with a running pool."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime

import pytest

from shardcache import Client
from shardcache.cli.readings import Interval, interval_of

COMMAND = (sys.executable, "-P", "-m", "shardcache.cli")
KEYS = [f"key:{number}" for number in range(60)]


@pytest.fixture
def pool(memcached_servers):
    """Give two nodes that are full of keys: their URLs in one text, and their names."""
    urls = [server.url for server in memcached_servers[:2]]
    with Client(urls) as client:
        client.set_many(dict.fromkeys(KEYS, 1), ttl=60)
    return " ".join(urls), [url.partition("://")[2] for url in urls]


def held(urls):
    """Return the names of the nodes that hold keys."""
    with Client(urls.split()) as client:
        return {client.node_for(key).name for key in client.get_many(KEYS)}


def test_flush_empties_one_node(typed, pool):
    """With `--yes`, without a question; the other node keeps its keys."""
    urls, (first, second) = pool
    assert typed("flush", first, "--yes", "--url", urls)[:2] == (0, f"{first}: flushed\n")
    assert held(urls) == {second}
    status, out, _ = typed("flush", second, "--yes", "--json", "--url", urls)
    assert (status, json.loads(out)) == (0, {"node": second, "flushed": True})
    assert held(urls) == set()


def test_flush_deletes_nothing_without_a_confirmation(typed, pool):
    """A script has to say `--yes`, and a name has to be known."""
    urls, names = pool
    for stdin in ("", "y\n"):
        status, _, errors = typed("flush", names[0], "--url", urls, stdin=stdin)
        assert (status, "--yes" in errors) == (2, True)
    assert typed("flush", names[0], "--json", "--url", urls)[0] == 2
    status, _, errors = typed("flush", "10.0.0.1:1", "--yes", "--url", urls)
    assert (status, f"known: {names[0]}, {names[1]}" in errors) == (2, True)
    assert held(urls) == set(names)


@pytest.mark.parametrize(("answer", "flushed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_flush_asks_first(on_terminal, pool, answer, flushed):
    """On a terminal it names the node, and no answer is a no."""
    urls, names = pool
    shown = "\n".join(on_terminal("flush", names[0], "--url", urls, answer=answer, columns=200))
    assert f"delete everything on {names[0]} (memcached://{names[0]})?" in shown
    assert ("not flushed" in shown) is not flushed
    assert (held(urls) == set(names)) is not flushed


def test_flush_of_a_node_that_is_down(typed):
    """It says why, and exits with 1."""
    status, _, errors = typed("flush", "127.0.0.1:1", "--yes", "--url", "memcached://127.0.0.1:1")
    assert (status, "Connection refused" in errors) == (1, True)


def test_watch_shows_the_hit_rate_of_the_interval(pool):
    """The first look has none yet; each further one has what came in between."""
    urls, names = pool
    process = subprocess.Popen(
        [*COMMAND, "stats", "--watch", "0.5", "--count", "2", "--json", "--url", urls],
        stdout=subprocess.PIPE,
        text=True,
    )
    first = json.loads(process.stdout.readline())
    with Client(urls.split()) as client:
        client.get_many([*KEYS, *(f"missing:{number}" for number in range(60))])
    second = json.loads(process.communicate(timeout=30)[0])
    assert process.returncode == 0
    assert [first[name]["interval"] for name in names] == [None, None]
    intervals = [second[name]["interval"] for name in names]
    assert [sum(each[what] for each in intervals) for what in ("hits", "misses")] == [60, 60]
    assert all(0 < each["hit_rate"] < 1 for each in intervals)
    assert sum(each["calls"] for each in intervals) == 120
    assert [each["evictions"] for each in intervals] == [0, 0]


def test_watch_is_a_table_for_people(typed, on_terminal, pool):
    """In place on a terminal, within 80 columns; `--count` alone means nothing."""
    urls, names = pool
    shown = on_terminal("stats", "--watch", "0.1", "--count", "2", "--url", urls)
    assert any("hit rate now" in line and "evictions" in line for line in shown)
    assert any(names[0] in line for line in shown)
    assert max(map(len, shown)) <= 80
    assert typed("stats", "--count", "2", "--url", urls)[0] == 2


def test_watch_is_a_line_for_each_node_in_a_pipe(typed, pool, redis_servers):
    """With the time, so that a file of them tells when; the first has no interval yet."""
    urls, (first, second) = pool
    redis = redis_servers[0].url
    words = ("stats", "--watch", "0.1", "--count", "2", "--url", f"{urls} {redis}")
    status, out, _ = typed(*words)
    lines = [line.split() for line in out.splitlines()]
    names = [first, second, redis.partition("://")[2]]
    assert (status, [line[1] for line in lines]) == (0, names * 2)
    assert all(datetime.fromisoformat(line[0]).tzinfo for line in lines)
    assert [line[2:] for line in lines[:2]] == [
        ["calls/s", "–", "hit", "rate", "now", "–", "evictions", "–"]
    ] * 2
    assert [line[2:] for line in lines[3:5]] == [
        ["calls/s", "0", "hit", "rate", "now", "–", "evictions", "0"]
    ] * 2
    assert lines[5][-2:] == ["evictions", "0"]
    assert float(lines[5][3]) >= 1  # a reading is a call of Redis itself


def test_watch_of_a_node_that_is_down(typed):
    """Its line says why, and the status is 1."""
    words = ("stats", "--watch", "0.1", "--count", "1", "--url", "memcached://127.0.0.1:1")
    status, out, _ = typed(*words)
    assert (status, len(out.splitlines())) == (1, 1)
    assert "127.0.0.1:1  cannot be reached: Connection refused" in out


def test_what_a_server_does_not_tell_is_unknown():
    """And a server that restarted has no interval."""
    assert interval_of({"hits": "1"}, {"hits": "3"}, 2.0) == Interval(2, 0, 2.0)
    assert interval_of({"hits": "1"}, {"hits": "3"}, 2.0).calls_per_second is None
    before, after = {"cmd_get": "5", "evictions": "9"}, {"cmd_get": "8", "evictions": "0"}
    assert interval_of(before, after, 2.0) is None
    assert interval_of(before, {**before, "cmd_get": "8"}, 2.0) == Interval(0, 0, 2.0, 3, 0)


def test_watch_ends_with_ctrl_c(pool):
    """With 130, and nothing on standard error."""
    process = subprocess.Popen(
        [*COMMAND, "stats", "--watch", "--url", pool[0]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "hit rate now" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(typed, shell):
    """Each shell gets a script, as the page and `--help` say."""
    status, out, _ = typed(_SHARDCACHE_COMPLETE=f"{shell}_source")
    assert (status, "_SHARDCACHE_COMPLETE" in out) == (0, True)
    assert f"{shell}_source" in typed("--help")[1]
