"""`bench`: what it measures on real nodes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from shardcache import Client, Node, Observer
from shardcache.cli.bench import Size
from shardcache.cli.floor import Floor, FloorError
from shardcache.cli.measuring import RANDOM, Load, Measurement, Step, _value_of
from shardcache.errors import NodeError
from shardcache.testing.servers import start_redis

COMMAND = (sys.executable, "-P", "-m", "shardcache.cli")
SHORT = ("--keys", "20", "--batch", "10", "--seconds", "0.1")
OPERATIONS = ["get", "set", "get_many", "set_many"]


@pytest.fixture
def pool(make_memcached, make_redis):
    """Return the URLs of two memcached and a Redis, all new, in one text.

    A memcached that was emptied counts its flushed keys for about another second.
    """
    return " ".join(each.url for each in (make_memcached(), make_memcached(), make_redis()))


def held(urls):
    """Return how many keys the nodes hold."""
    with Client(urls.split()) as client:
        figures = [figure.server for figure in client.stats().values()]
    databases = [text for each in figures for name, text in each.items() if name == "db0"]
    in_redis = sum(int(text.split(",")[0].partition("=")[2]) for text in databases)
    return in_redis + sum(int(each.get("curr_items", 0)) for each in figures)


def test_each_operation_is_measured_on_each_kind_and_size(typed, pool):
    """Against plain sockets where they can ask the nodes; every key is deleted at the end."""
    sizes = ("--size", "100B", "--size", "2KiB")
    words = ("bench", *SHORT, *sizes, "--json", "--url", f"{pool} memory://a")
    status, out, _ = typed(*words)
    rows = json.loads(out)
    assert status == 0
    assert [(row["kind"], row["size"], row["operation"]) for row in rows] == [
        (kind, size, operation)
        for kind in ("memcached", "redis", "memory")
        for size in (100, 2048)
        for operation in OPERATIONS
    ]
    for row in rows:
        assert row["calls"] > 0
        assert row["operations_per_second"] > 0
        assert 0 < row["p50_seconds"] <= row["p99_seconds"]
        assert row["cpu_seconds"] > 0
        assert row["batch"] == (10 if row["operation"].endswith("many") else 1)
        assert (row["raw"] is None) == (row["kind"] == "memory")
        assert (row["over_raw"] is None) == (row["kind"] == "memory")
    assert held(pool) == 0


def test_people_see_a_table(typed, on_terminal, pool):
    """A row for each, within 80 columns on a terminal."""
    words = ("bench", *SHORT, "--size", "100", "--threads", "3", "--url", pool)
    status, out, errors = typed(*words)
    lines = out.splitlines()
    assert (status, errors) == (0, "")
    assert lines[0].split() == [
        "call",
        "on",
        "value",
        "calls/s",
        "p50",
        "p99",
        "CPU",
        "over",
        "raw",
    ]
    assert [line.split()[0] for line in lines[1:5]] == [
        "get",
        "set",
        "get_many(10)",
        "set_many(10)",
    ]
    assert all("100 B" in line and line.endswith("×") for line in lines[1:])
    shown = on_terminal(*words)
    assert max(map(len, shown)) <= 80
    assert any("set_many(10)" in line for line in shown)


def test_nodes_that_hold_keys_are_refused(typed, pool):
    """A script has to say `--yes`; what others stored is still there after a measurement."""
    with Client(pool.split()) as client:
        client.set_many(dict.fromkeys(map(str, range(30)), 1), ttl=60)
        status, _, errors = typed("bench", *SHORT, "--url", pool)
        assert (status, "the nodes hold 30 keys" in errors, "--yes" in errors) == (2, True, True)
        assert typed("bench", *SHORT, "--json", "--url", pool)[0] == 2
        assert typed("bench", *SHORT, "--size", "100", "--yes", "--url", pool)[0] == 0
        assert len(client.get_many(map(str, range(30)))) == 30
    assert held(pool) == 30


@pytest.mark.parametrize(("answer", "measured"), [("y\n", True), ("\n", False)])
def test_a_terminal_is_asked(on_terminal, pool, answer, measured):
    """No answer is a no."""
    with Client(pool.split()) as client:
        client.set("theirs", 1, ttl=60)
    words = ("bench", *SHORT, "--size", "1KiB", "--url", pool)
    shown = "\n".join(on_terminal(*words, answer=answer, columns=200))
    if not measured:  # else the progress bar has taken the line
        assert "the nodes hold 1 key;" in shown
        assert "stores up to 20 KiB of each kind, which may evict values: measure?" in shown
    assert ("set_many(10)" in shown) is measured
    assert ("not measured" in shown) is not measured


@pytest.mark.parametrize("threads", ["1", "4"])
def test_ctrl_c_deletes_the_keys(redis_servers, threads):
    """While it runs all keys are its own and expire; after Ctrl-C, 130, none is left."""
    url = redis_servers[0].url
    process = subprocess.Popen(
        [*COMMAND, "bench", "--seconds", "60", "--threads", threads, "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    import redis  # noqa: PLC0415 - to look at the server as others do

    with redis.Redis.from_url(url) as server:
        until = time.monotonic() + 30
        while len(keys := server.keys()) < 1000 and time.monotonic() < until:
            time.sleep(0.05)
        assert len(keys) == 1000
        assert all(b"shardcache-bench-" in key for key in keys)
        assert all(0 < server.ttl(key) <= 200 for key in keys)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
        assert (process.returncode, out, errors.strip()) == (130, "", "")
        assert server.keys() == []


def test_plain_sockets_log_in():
    """A Redis with a password, and another database, is asked as the client asks it."""
    server = start_redis("--requirepass", "hunter2hunter2")
    try:
        url = server.url.replace("://", "://:hunter2hunter2@") + "/3"
        process = subprocess.run(
            [*COMMAND, "bench", *SHORT, "--size", "100", "--json", "--url", url],
            capture_output=True,
            check=True,
        )
        assert all(row["over_raw"] for row in json.loads(process.stdout))
        with pytest.raises(FloorError, match="refused a login"):
            Floor([Node(url.replace("hunter2hunter2", "other"))])
    finally:
        server.stop()


@pytest.mark.parametrize("batch", [None, "30"])
def test_large_values_are_stored_in_pieces(typed, pool, batch):
    """A thousand values of a megabyte would fit neither a node nor a deadline: there are fewer, unless told."""
    many = () if batch is None else ("--batch", batch)
    words = ("bench", "--seconds", "0.1", "--size", "1MB", *many, "--json", "--url", pool)
    status, out, _ = typed(*words)
    rows = json.loads(out)
    assert status == 0
    assert {row["batch"] for row in rows} == {1, 2 if batch is None else 16}
    assert held(pool) == 0


def test_values_may_be_larger_than_python_draws_at_once():
    """More than 256 MiB, which is the most that `randbytes` gives."""
    assert len(set(_value_of(3 * RANDOM + 1)[::RANDOM])) > 1
    assert len(_value_of(257 * 1024**2)) == 257 * 1024**2


def test_evicted_values_are_reported(typed, make_memcached):
    """A `get` of what is gone is faster than one that finds a value, and is no figure of the nodes."""
    url = make_memcached("-m", "4").url
    words = ("bench", "--seconds", "0.1", "--size", "100KiB", "--keys", "200", "--url", url)
    status, out, errors = typed(*words)
    assert status == 0, errors
    told = [line for line in out.splitlines() if "of the keys were gone" in line]
    assert [line.split(" of 100 KiB on memcached: ")[0] for line in told] == ["get", "get_many(20)"]
    assert all(line.endswith("use fewer --keys") for line in told)
    rows = json.loads(typed(*words, "--yes", "--json")[1])
    assert [0 < row["missed"] < 1 for row in rows] == [True, False, True, False]


@pytest.mark.parametrize(("pauses_after", "counts"), [(0, False), (100, True)])
def test_a_reply_that_is_late_ends_no_run(make_memcached, pauses_after, counts):
    """Values are stored again; of calls that are measured, those that failed are counted."""
    server = make_memcached()
    load = Load([100], 20, 10, 1, 0.5)

    class Pausing(Observer):
        answered = 0

        def call_finished(self, event):
            self.answered += event.error is None
            if self.answered == pauses_after:
                server.pause()

        def node_failed(self, _):
            self.answered += pauses_after == 0  # it is paused once
            server.resume()

    if pauses_after == 0:
        server.pause()
    with Client([server.url], timeout=0.2, on_error="raise", observers=[Pausing()]) as client:
        measurement = Measurement(client, load)
        with measurement.cleaned_up():
            result = measurement.measure(Step("memcached", 100, "get"))
    assert 0 <= result.failed < result.timing.calls
    assert (result.failed > 0, isinstance(result.error, NodeError)) == (counts, counts)
    assert not result.missed


def test_a_node_that_is_down_is_an_error(typed):
    """It is named, and nothing is measured."""
    status, out, errors = typed("bench", *SHORT, "--url", "memcached://127.0.0.1:1")
    assert (status, out) == (1, "")
    assert "127.0.0.1:1: cannot be reached" in errors


def test_plain_sockets_that_read_nothing_are_no_floor(memcached_servers):
    """A value that was evicted meanwhile has no length that could be awaited."""
    node = Node(memcached_servers[0].url)
    floor = Floor([node])
    with pytest.raises(FloorError, match="did not return the value"):
        floor.get({b"missing": node.name})
    floor.close()


@pytest.mark.parametrize(
    ("text", "size"),
    [("500", 500), ("100B", 100), ("10 KiB", 10_240), ("10kb", 10_000), ("1MB", 10**6)],
)
def test_sizes_have_units(text, size):
    """Of 1,000 and of 1,024, in any case."""
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "10XB", "1.5KB", "1000MB", "KiB"])
def test_what_is_no_size_is_bad_usage(typed, text):
    """The error tells how to write one, or the bounds."""
    status, _, errors = typed("bench", "--size", text, "--url", "memory://a")
    assert (status, "write 500" in errors or "between 1 B and" in errors) == (2, True)
