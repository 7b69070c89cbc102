"""`watch`: the nodes of a running pool, second by second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime

import pytest

from shardcache import Client
from shardcache.cli.watch import STYLES
from shardcache.core.health import Circuit

COMMAND = (sys.executable, "-P", "-m", "shardcache.cli")
KEYS = [f"key:{number}" for number in range(60)]
DOWN = "memcached://127.0.0.1:1"
QUICK = ("--interval", "0.1", "--count", "2")


def test_each_state_of_a_circuit_has_its_color():
    """A reading must not end the view."""
    assert STYLES.keys() == {circuit.value for circuit in Circuit}


@pytest.fixture
def urls(memcached_servers):
    """Return the URLs of two nodes."""
    return [server.url for server in memcached_servers[:2]]


@pytest.fixture
def names(urls):
    """Return the names of the nodes."""
    return [url.partition("://")[2] for url in urls]


def write(path, urls):
    """Write a file of settings with these nodes, in one step."""
    written = path.with_suffix(".new")
    written.write_text(f"nodes = {json.dumps(urls)}\n")
    written.replace(path)
    return path


def test_a_table_for_people(on_terminal, urls, names):
    """In place, within 80 columns: node, circuit, ping, share of the keys, and what it does."""
    shown = on_terminal("watch", *QUICK, "--url", " ".join(urls))
    heading = next(line for line in shown if line.startswith("node"))
    titles = ["node", "circuit", "ping", "share", "calls/s", "hit rate", "evictions"]
    assert [title for title in map(str.strip, heading.split("  ")) if title] == titles
    for name in names:
        row = next(line.split() for line in shown if line.startswith(name))
        assert (row[1], row[3], row[5]) == ("closed", "ms", "%")
    assert any("all nodes: 0 calls/s, hit rate –; no key has moved" in line for line in shown)
    assert max(map(len, shown)) <= 80


def test_a_node_that_is_down(on_terminal, typed, urls):
    """Its circuit is open, the reason stands there, and the status is 1."""
    shown = on_terminal("watch", *QUICK, "--url", f"{urls[0]} {DOWN}")
    assert any(line.startswith("127.0.0.1:1 ") and "open" in line for line in shown)
    assert any("Connection refused" in line for line in shown)
    status, out, _ = typed("watch", *QUICK, "--url", f"{urls[0]} {DOWN}")
    lines = [line.split("  ") for line in out.splitlines()]
    assert (status, [line[1] for line in lines]) == (1, ["1 of 2 up"] * 2)
    told = "127.0.0.1:1 open: cannot be reached: Connection refused"
    assert all(line[-1] == told for line in lines)


def test_a_line_for_each_reading_in_a_pipe(typed, urls):
    """With the time, and all nodes together."""
    status, out, _ = typed("watch", *QUICK, "--url", " ".join(urls))
    first, second = (line.split("  ") for line in out.splitlines())
    assert (status, first[1:]) == (
        0,
        ["2 of 2 up", "calls/s –", "hit rate –", "no key has moved"],
    )
    assert second[2] == "calls/s 0"
    assert datetime.fromisoformat(first[0]).tzinfo


@pytest.fixture
def watching():
    """Run `watch --json` in a process; yield what starts it, and end it with Ctrl-C."""
    processes = []

    def start(*words, **env):
        command = [*COMMAND, "watch", "--interval", "0.1", *words]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, env={**os.environ, **env}, text=True, **streams))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def reading(process, fits):
    """Return the next reading that fits."""
    for _ in range(200):
        found = json.loads(process.stdout.readline())
        if fits(found):
            return found
    raise AssertionError("no such reading")


def test_what_a_reading_has(watching, urls, names):
    """Hits and misses since the one before, as JSON."""
    process = watching("--json", "--url", urls[0])
    first = reading(process, lambda _: True)
    with Client(urls[:1]) as client:
        client.set_many(dict.fromkeys(KEYS[:30], 1), ttl=60)
        client.get_many(KEYS)
    seen = []

    def are_all_seen(found):
        interval = found["nodes"][names[0]]["interval"]
        seen.append((interval["hits"], interval["misses"]))
        return sum(map(sum, seen)) == len(KEYS)

    reading(process, are_all_seen)
    assert [sum(each) for each in zip(*seen, strict=True)] == [30, 30]
    assert (first["moved"], first["change"], first["fault"]) == (0, "same nodes", None)
    (node,) = first["nodes"].values()
    assert node.pop("seconds") > 0
    assert node == {"circuit": "closed", "error": None, "share": 1.0, "interval": None}


@pytest.mark.parametrize("by_variable", [False, True])
def test_it_follows_the_file(watching, tmp_path, urls, names, by_variable):
    """The share of keys that have moved is of the whole change; a broken file is told of."""
    path = write(tmp_path / "shardcache.toml", urls[:1])
    process = (
        watching("--json", SHARDCACHE_CONFIG=str(path))
        if by_variable
        else watching("--json", "--config", str(path))
    )
    reading(process, lambda found: list(found["nodes"]) == names[:1])
    write(path, urls)
    found = reading(process, lambda found: list(found["nodes"]) == names)
    assert (found["change"], 0.4 < found["moved"] < 0.6) == (f"+{names[1]}", True)
    path.write_text("nodes = [")
    found = reading(process, lambda found: found["fault"])
    assert "is not TOML" in found["fault"]
    assert list(found["nodes"]) == names
    write(path, urls[:1])
    found = reading(process, lambda found: list(found["nodes"]) == names[:1])
    assert (found["moved"], found["fault"]) == (0, None)


def test_a_broken_file_is_reported_in_a_pipe(typed, tmp_path, urls, monkeypatch):
    """At the end of the line; the nodes stay."""
    path = write(tmp_path / "shardcache.toml", urls)
    pause, pauses, own = time.sleep, [], threading.get_ident()

    def sleep(seconds):
        pause(seconds)
        if threading.get_ident() != own:  # a thread that another test has left
            return
        pauses.append(seconds)
        if len(pauses) == 2:  # the first one was that of the first look at the file
            path.write_text("nodes = [")

    monkeypatch.setattr(time, "sleep", sleep)
    _, out, _ = typed("watch", "--interval", "0.1", "--count", "3", "--config", path)
    assert "is not TOML" in out.splitlines()[-1]


def test_it_ends_with_ctrl_c(watching, urls):
    """With 130, and nothing on standard error."""
    process = watching("--url", urls[0])
    assert "1 of 1 up" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, "")


def test_an_ascii_terminal(on_terminal, urls, names):
    """Dashes are drawn in ASCII, also in `stats --watch`."""
    for words in (("watch", *QUICK), ("stats", "--watch", "0.1", "--count", "2")):
        shown = "\n".join(on_terminal(*words, "--url", urls[0], PYTHONIOENCODING="ascii"))
        assert names[0] in shown
        assert shown.isascii()
        assert "\\u" not in shown


def test_what_makes_no_sense_is_refused(typed, urls):
    """As everywhere."""
    for words in (("--count", "0"), ("--interval", "0")):
        assert typed("watch", *words, "--url", urls[0])[0] == 2
