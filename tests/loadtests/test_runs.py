"""The kit under Locust: its files, its workers, how it ends, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from shardcache import Client
from shardcache.testing.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]

KEPT = "(as it was given)"
SHORT = ("-u", "6", "-r", "6", "-t", "4s")


def total_of(path: Path) -> int:
    """Return the requests of all names in Locust's table."""
    with path.open(encoding="utf-8", newline="") as file:
        return next(
            int(row["Request Count"]) for row in csv.DictReader(file) if row["Name"] == "Aggregated"
        )


def names_of(path: Path) -> set[str]:
    """Return the names of requests in Locust's table."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["Name"] for row in csv.DictReader(file)} - {"Aggregated"}


def calls_of(output: str) -> int:
    """Return the calls of all processes as the verdict has them."""
    return int(re.search(r"^(\d+) calls in all", output, re.MULTILINE)[1])


def ask(url: str, form: dict[str, object] | None = None) -> str | None:
    """Return what a page answers, to a form if there is one; `None` while it is not there."""
    data = None if form is None else urllib.parse.urlencode(form).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=30) as reply:
            return reply.read().decode()
    except urllib.error.URLError:
        return None


def items_on(server) -> set[bytes]:
    """Return the keys that a memcached holds."""
    with server._listener.connect(timeout=10) as connection:
        connection.sendall(b"lru_crawler metadump all\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n"):
            answer += connection.recv(1 << 16)
    return set(re.findall(rb"^key=(\S+)", answer, re.MULTILINE))


def test_it_works_as_it_stands(play, tmp_path):
    """The command of the README writes Locust's files, with the verdict in its page."""
    page, table = tmp_path / "run.html", tmp_path / "run"
    played = play("-u", "20", "-r", "20", "-t", "10s", "--html", str(page), "--csv", str(table))
    assert (played.status, played.verdict) == (0, "holds"), played.output
    assert "shardcache: holds" in page.read_text(encoding="utf-8")
    assert total_of(tmp_path / "run_stats.csv") == calls_of(played.output) > 1000
    expected = {"get hit", "get miss", "get_many(24)", "add", "cas", "cached(lock)", "lock"}
    assert names_of(tmp_path / "run_stats.csv") - {"refill", "lock held"} == expected


def test_the_table_holds_the_last_calls(play, tmp_path):
    """Locust writes it now and then, and not at the end."""
    played = play(*SHORT, "--csv", str(tmp_path / "run"), crippled=["tables_seldom_written"])
    assert total_of(tmp_path / "run_stats.csv") == calls_of(played.output)
    assert "Traceback" not in played.output


def test_figures_of_two_processes_are_merged(play, tmp_path):
    """With `--processes 2` the verdict is on the calls of both."""
    played = play(*SHORT, "--processes", "2", "--csv", str(tmp_path / "run"))
    assert (played.status, played.verdict) == (0, "holds"), played.output
    assert total_of(tmp_path / "run_stats.csv") == calls_of(played.output)


def test_the_total_is_the_sum_of_the_workers(start, tmp_path, free_port):
    """One master and two workers: what the master tells is what the workers counted."""
    port = str(free_port)
    workers = [start("--worker", "--master-port", port) for _ in range(2)]
    master = start(
        *("--headless", *SHORT, "--master", "--expect-workers", "2"),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
        *("--csv", str(tmp_path / "run")),
    ).ended()
    assert (master.status, master.verdict) == (0, "holds"), master.output
    counted = [
        int(re.search(r"(\d+) calls of this worker", worker.ended().output)[1])
        for worker in workers
    ]
    assert all(counted)
    assert sum(counted) == calls_of(master.output) == total_of(tmp_path / "run_stats.csv")


@pytest.mark.parametrize("line", ["All users spawned", "4 s of 8"], ids=["early", "later"])
def test_a_worker_that_dies_is_a_missed_verdict(start, free_port, make_memcached, line):
    """The verdict names it, whether it had reported or not, and no key of the run is left."""
    server, port = make_memcached(), str(free_port)
    workers = [start("--worker", "--master-port", port) for _ in range(2)]
    master = start(
        *("--headless", "-u", "6", "-r", "6", "-t", "8s", "--master", "--expect-workers", "2"),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
        SHARDCACHE_URL=server.url,
    )
    master.await_line(line)
    os.kill(workers[0].pid, signal.SIGKILL)
    ended = master.ended()
    assert ended.status == 1, ended.output
    assert "no worker lost" in ended.verdict
    assert re.search(r"worker [01], last heard of at \d+\.\d s", ended.output)
    assert items_on(server) == set()


def test_a_worker_that_comes_too_late_ends_the_run(start, free_port):
    """It would count seconds of its own: there is no verdict on such figures."""
    port = str(free_port)
    start("--worker", "--master-port", port)
    master = start(
        *("--headless", "-u", "4", "-t", "60s", "--master", "--expect-workers", "1"),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
    )
    master.await_line("2 s of 60")
    start("--worker", "--master-port", port)
    ended = master.ended()
    assert ended.status == 2, ended.output
    assert "a worker joined while the run was on" in ended.output
    assert "verdict" not in ended.output


def test_a_worker_that_cannot_reach_the_servers_says_so(start, free_port):
    """As from another machine the servers of the master's own loopback: no verdict on nothing."""
    port = str(free_port)
    start("--worker", "--master-port", port, crippled=["servers_out_of_reach"])
    master = start(
        *("--headless", *SHORT, "--master", "--expect-workers", "1"),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
    ).ended()
    assert master.status == 2, master.output
    assert "worker 0 cannot take part: 127.0.0.1:1: cannot be reached" in master.output
    assert "verdict" not in master.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_run_deletes_its_keys(start, make_memcached, number):
    """What was there stays, what the run wrote goes, however the run ends."""
    server = make_memcached()
    with Client(server.url) as client:
        client.set("theirs", 1)
    before = items_on(server)
    run = start("--headless", "-u", "6", "-t", "60s", "--yes", SHARDCACHE_URL=server.url)
    run.await_line("2 s of 60")
    assert len(items_on(server)) > 1000
    run.signal(number)
    ended = run.ended()
    assert ended.status == 1
    assert ended.verdict.startswith("MISSED: the run went to its end")
    assert items_on(server) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_is_not_lost_in_a_thread(start, number):
    """Under gevent threads take turns: one that is at work swallows what a signal raises."""
    run = start("--headless", "-u", "1", "-t", "60s", crippled=["thread_at_work"])
    run.await_line("2 s of 60")
    run.signal(number)
    ended = run.ended()
    assert ended.verdict.startswith("MISSED: the run went to its end")
    assert "Exception in thread" not in ended.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_run_of_the_page_deletes_its_keys(start, make_memcached, free_port, number):
    """The same for a run that was started through the form."""
    server = make_memcached()
    with Client(server.url) as client:
        client.set("theirs", 1)
    before = items_on(server)
    url = f"http://127.0.0.1:{free_port}"
    web = ("--web-host", "127.0.0.1", "--web-port", str(free_port))
    run = start(*web, "--yes", SHARDCACHE_URL=server.url)
    run.await_line("Starting web interface")
    form = {"user_count": 6, "spawn_rate": 6, "run_time": "60s", "cache_url": KEPT}
    eventually(lambda: ask(f"{url}/swarm", form) is not None, within=30)
    run.await_line("2 s of 60")
    assert len(items_on(server)) > 1000
    run.signal(number)
    assert "verdict: MISSED: the run went to its end" in run.ended().output
    assert items_on(server) == before


def test_the_page_does_not_hold_the_password(start, free_port):
    """Whoever can open it could read it: it has no login."""
    web = ("--web-host", "127.0.0.1", "--web-port", str(free_port))
    run = start(*web, SHARDCACHE_URL="redis://app:s3cret@127.0.0.1:1")
    run.await_line("Starting web interface")
    url = f"http://127.0.0.1:{free_port}"
    eventually(lambda: ask(url) is not None, within=30)
    assert KEPT in ask(url)
    assert "s3cret" not in ask(url)
    form = {"user_count": 1, "spawn_rate": 1, "cache_url": KEPT}
    ask(f"{url}/swarm", form)
    run.await_line("127.0.0.1:1: cannot be reached")
    run.signal(signal.SIGINT)
    assert "s3cret" not in run.ended().output


@pytest.mark.parametrize("scenario", ["steady", "stampede"])
def test_servers_of_one_s_own_are_left_as_they_were(play, make_memcached, scenario):
    """A run on `--cache-url` judges, and deletes every key that it wrote."""
    server = make_memcached()
    with Client(server.url) as client:
        client.set("theirs", 1)
    before = items_on(server)
    arguments = ("--scenario", scenario, *SHORT, "--profile", "counters", "--yes")
    played = play(*arguments, "--cache-url", server.url)
    assert (played.status, played.verdict) == (0, "holds"), played.output
    assert items_on(server) == before


def test_keys_of_others_are_not_written_over_without_leave(play, make_memcached):
    """Without `--yes` a run on servers that hold keys does not begin."""
    server = make_memcached()
    with Client(server.url) as client:
        client.set_many({f"theirs:{number}": 1 for number in range(5)})
    before = items_on(server)
    played = play(*SHORT, "--cache-url", server.url)
    assert played.status == 2, played.output
    assert f"127.0.0.1:{server.port} holds 5 keys" in played.output
    assert "--yes" in played.output
    assert "Traceback" not in played.output
    assert items_on(server) == before


def test_redis_says_what_it_holds(play, make_redis):
    """The same for Redis."""
    server = make_redis()
    with Client(server.url) as client:
        client.set("theirs", 1)
    played = play(*SHORT, "--cache-url", server.url)
    assert played.status == 2
    assert f"127.0.0.1:{server.port} holds 1 keys" in played.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scenario", "kettle"), "choose from 'steady', 'stampede', 'app'"),
        (("--profile", "kettle"), "no profile 'kettle' (known: counters, "),
        (("--profile", "/nowhere/mine.toml"), "/nowhere/mine.toml"),
        (("--cache-url", "memcached://127.0.0.1:1"), "127.0.0.1:1: cannot be reached"),
        (("--cache-url", "kettle://127.0.0.1"), "no such backend for the URL scheme"),
        (("--cache-url", "memory://a", "--scenario", "node-killed"), "leave out --cache-url"),
        (("--cache-url", "memory://a", "--scenario", "app"), "leave out --cache-url"),
        (("--rate", "-1"), "--rate must be above zero, not -1"),
        (("--rate", "nan"), "--rate must be above zero, not nan"),
        (("--scenario", "node-killed"), "needs at least 18 s"),
        (("--scenario", "slow-node", "-t", "20s", "--shape", "ramp"), "leave out --shape ramp"),
    ],
)
def test_bad_input_is_refused_in_a_line(play, arguments, said):
    """The line names what is wrong and what is known; the status is 2, and there is no verdict."""
    played = play(*SHORT, *arguments)
    assert played.status == 2, played.output
    assert said in played.output
    assert "Traceback" not in played.output
    assert "verdict" not in played.output


def test_the_environment_chooses_as_the_options_do(play):
    """Every option has its variable."""
    played = play(
        *SHORT,
        SHARDCACHE_SCENARIO="stampede",
        SHARDCACHE_OWN_SERVERS="redis",
        SHARDCACHE_PROFILE="hot-keys",
    )
    assert "stampede on redis: profile hot-keys, 6 users, 4 s" in played.output


def test_a_report_has_figures_a_picture_and_a_page(play, tmp_path):
    """Two runs into one directory make one page of two pictures, the fault marked."""
    for scenario, seconds in (("stampede", "4s"), ("node-killed", "18s")):
        play("--scenario", scenario, "-u", "6", "-t", seconds, "--report", str(tmp_path))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for name in ("stampede-memcached", "node-killed-memcached"):
        assert f'<img src="{name}.svg"' in page
        assert (tmp_path / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    figures = json.loads((tmp_path / "node-killed-memcached.figures.json").read_text("utf-8"))
    assert figures["fault"][0] == pytest.approx(6.0, abs=0.5)
    assert figures["repaired"][0] == pytest.approx(12.0, abs=1.0)
    assert len(figures["series"]) == 18


def test_nothing_is_left_running(play):
    """The servers that a run started are gone when it is over."""
    played = play(*SHORT)
    ports = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+) [\d.]+%", played.output)}
    assert len(ports) == 3
    listening = {
        int(line.split()[1].rpartition(":")[2], 16)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    assert not ports & listening
