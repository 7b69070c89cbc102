"""The application of the load tests: what it counts, what it survives, and that it ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from app import serving as module
from app import webserver
from app.ledger import Run, append_run, count_by_page, read_runs
from app.serving import DependencyMissingError, Serving, serving
from shardcache.errors import ConfigurationError
from shardcache.testing.servers import PortTakenError, Server, ServerFailedError
from shardcache.testing.waiting import eventually

LOADTESTS = Path(module.__file__).parents[1]
WORKERS = 2
CROWD = 40
PATIENCE = 60.0

# Nobody listens there.
UNREACHABLE = ("memcached://127.0.0.1:1", "redis://127.0.0.1:2/0")


class Answer(NamedTuple):
    """What a page said, and when it had arrived (monotonic)."""

    status: int
    body: Any
    arrived: float


@pytest.fixture(autouse=True)
def patient_clients(monkeypatch):
    """Let no cache node of a busy machine be taken for one that fails."""
    monkeypatch.setenv("SHARDCACHE_TIMEOUT", "10")


@pytest.fixture
def _uvicorn():
    """Skip where the group `load` is not installed."""
    for package in module.NEEDED:
        pytest.importorskip(package, reason=f"{package} comes with: pip install --group load")


@pytest.fixture(params=["memcached", "redis"])
def urls(request, _uvicorn) -> list[str]:
    """Return the URLs of three nodes of a kind."""
    servers: Sequence[Server] = request.getfixturevalue(f"{request.param}_servers")
    return [server.url for server in servers]


@pytest.fixture
def open_connections() -> Iterator[Callable[[Serving, int], list[HTTPConnection]]]:
    """Return what opens connections, half of them to each worker; they are closed at the end."""
    with ExitStack() as stack:
        yield partial(open_to_each_worker, stack)


def open_to_each_worker(stack: ExitStack, served: Serving, count: int) -> list[HTTPConnection]:
    """Return `count` connections that stay open; the workers take turns in the list."""
    by_worker: dict[int, list[HTTPConnection]] = defaultdict(list)
    while len(by_worker) < WORKERS or min(map(len, by_worker.values())) < count // WORKERS:
        connection = connect(served)
        mine = by_worker[ask(connection, "/healthz").body["pid"]]
        if len(mine) < count // WORKERS:
            stack.callback(connection.close)
            mine.append(connection)
        else:
            connection.close()
    return list(itertools.chain(*zip(*by_worker.values(), strict=True)))


def connect(served: Serving) -> HTTPConnection:
    """Return a connection; the first request decides which worker has it."""
    return HTTPConnection(str(urlsplit(served.url).netloc), timeout=PATIENCE)


def ask(connection: HTTPConnection, path: str) -> Answer:
    """Return the answer to a GET on a connection, which stays open."""
    connection.request("GET", path)
    response = connection.getresponse()
    return Answer(response.status, json.load(response), time.monotonic())


def ask_at_once(connections: Sequence[HTTPConnection], path: str) -> list[Answer]:
    """Return the answers to one GET on each connection, all sent at the same moment."""
    start = Barrier(len(connections))

    def ask_with_all(connection: HTTPConnection) -> Answer:
        start.wait()
        return ask(connection, path)

    with ThreadPoolExecutor(len(connections)) as threads:
        return list(threads.map(ask_with_all, connections))


def bodies(answers: Sequence[Answer]) -> list[Any]:
    """Return the different bodies, and see that every answer is a page."""
    assert {answer.status for answer in answers} == {200}
    return list({json.dumps(answer.body): answer.body for answer in answers}.values())


def alive(pid: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def refuses(port: int) -> bool:
    """Return whether no process, neither uvicorn nor a worker, has the port open."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return False
    except OSError:
        return True


def port_of(served: Serving) -> int:
    """Return the port that all workers listen on."""
    port = urlsplit(served.url).port
    assert port is not None
    return port


def test_a_line_that_is_being_written_is_no_run_yet(tmp_path):
    """Whoever reads the ledger during a write sees the runs before."""
    ledger = tmp_path / "runs"
    assert read_runs(ledger) == []
    append_run(ledger, "protected")
    with ledger.open("a") as file:
        file.write("protected 4711 12.")
    (run,) = read_runs(ledger)
    assert (run.page, run.pid) == ("protected", os.getpid())


def test_runs_are_read_in_the_order_in_which_they_began(tmp_path):
    """The ledger has them as they were written, and processes overtake each other."""
    ledger = tmp_path / "runs"
    ledger.write_text("protected 7 2.5\nunprotected 8 1.5\nprotected 9 3.5\n")
    runs = read_runs(ledger)
    assert runs[0] == Run("unprotected", 8, 1.5)
    assert count_by_page(runs) == {"protected": 2, "unprotected": 1}


@pytest.mark.slow
def test_a_crowd_at_a_cold_protected_page_runs_the_source_once(urls, open_connections):
    """All callers of both workers get what the one run made."""
    with serving(urls, ttl=60, stale=0, source_seconds=1) as served:
        crowd = open_connections(served, CROWD)
        answers = ask_at_once(crowd, "/reports/7")
        assert [run.page for run in served.runs()] == ["protected"]
    (report,) = bodies(answers)
    assert report["number"] == 7


@pytest.mark.slow
def test_a_crowd_at_a_cold_unprotected_page_runs_the_source_again_and_again(urls, open_connections):
    """The comparison does have the stampede that the protection is to prevent."""
    with serving(urls, ttl=60, stale=0, source_seconds=1) as served:
        crowd = open_connections(served, CROWD)
        answers = ask_at_once(crowd, "/unprotected/reports/7")
        runs = served.runs()
    assert count_by_page(runs)["unprotected"] > 1
    assert len({run.pid for run in runs}) == WORKERS
    assert len(bodies(answers)) > 1


@pytest.mark.slow
def test_the_old_report_is_served_while_one_caller_refreshes_it(urls, open_connections):
    """After the ttl nobody waits, the source runs once more, and then the new report is served."""
    ttl, seconds = 3, 2
    with serving(urls, ttl=ttl, stale=600, source_seconds=seconds) as served:
        crowd = open_connections(served, CROWD)
        old = ask(crowd[0], "/reports/7").body
        time.sleep(ttl + 0.1)
        answers = ask_at_once(crowd, "/reports/7")
        first, second = served.runs()
        assert second.moment > first.moment + seconds
        meanwhile = [answer.body for answer in answers if answer.arrived < second.moment + seconds]
        assert meanwhile
        assert all(body == old for body in meanwhile)
        eventually(lambda: ask(crowd[0], "/reports/7").body != old, within=PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memcached", "redis"])
@pytest.mark.usefixtures("_uvicorn")
def test_a_killed_node_costs_misses_and_no_page(kind, request, open_connections):
    """The workers stay healthy, say which node they ejected, and serve every page."""
    nodes: list[Server] = [request.getfixturevalue(f"make_{kind}")() for _ in range(3)]
    with serving([node.url for node in nodes], ttl=60, stale=0, source_seconds=0) as served:
        workers = open_connections(served, WORKERS)
        assert [ask(worker, "/healthz").body["ejected"] for worker in workers] == [[], []]
        nodes[0].kill()
        for worker in workers:
            for number, page in itertools.product(range(40), ("reports", "unprotected/reports")):
                answer = ask(worker, f"/{page}/{number}")
                assert (answer.status, answer.body["number"]) == (200, number)
            health = ask(worker, "/healthz")
            name = f"127.0.0.1:{nodes[0].port}"
            assert (health.status, health.body["ejected"]) == (200, [name])
            figures = ask(worker, "/stats").body["nodes"]
            assert [name for name in figures if figures[name]["ejected"]] == [name]


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_without_any_node_pages_are_computed():
    """The application starts, and each worker computes what it is asked for."""
    with (
        serving(UNREACHABLE, ttl=60, stale=30, source_seconds=0) as served,
        closing(connect(served)) as worker,
    ):
        for _ in range(2):
            assert ask(worker, "/reports/7").body["number"] == 7
            assert ask(worker, "/unprotected/reports/7").body["number"] == 7
        assert len(ask(worker, "/healthz").body["ejected"]) == len(UNREACHABLE)
        assert count_by_page(served.runs()) == {"protected": 2, "unprotected": 2}


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_stats_are_those_of_a_worker_and_of_all(memcached_servers, redis_servers, open_connections):
    """A worker reports its own counters, and from the ledger the runs in all workers."""
    mixed = [memcached_servers[0].url, redis_servers[0].url, memcached_servers[1].url]
    with serving(mixed, ttl=60, stale=30, source_seconds=0) as served:
        one, other = open_connections(served, WORKERS)
        nothing = {"protected": 0, "unprotected": 0}
        stats = ask(one, "/stats").body
        assert stats["recomputes"] == stats["recomputes_of_all_workers"] == nothing
        for page in ("/reports/7", "/unprotected/reports/7"):
            assert ask(one, page).body == ask(one, page).body
        ask(other, "/reports/7")
        ask(other, "/unprotected/reports/8")
        stats = ask(one, "/stats").body
        assert stats["pid"] != ask(other, "/stats").body["pid"]
    assert stats["recomputes"] == {"protected": 1, "unprotected": 1}
    assert stats["recomputes_of_all_workers"] == {"protected": 1, "unprotected": 2}
    info = stats["cache_info"]
    assert (info["misses"], info["hits"], info["recomputes"]) == (1, 1, 1)
    assert len(stats["nodes"]) == len(mixed)
    assert sum(node["hits"] for node in stats["nodes"].values()) == 2
    assert not any(node["ejected"] for node in stats["nodes"].values())


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_answers_on_an_open_connection_leave_at_once(open_connections):
    """With Nagle's algorithm each answer but the first would wait 40 ms for an acknowledgement."""
    with serving(["memory://a"], ttl=60, stale=0, source_seconds=0) as served:
        (worker, _) = open_connections(served, WORKERS)
        moments = [ask(worker, "/healthz").arrived for _ in range(60)]
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert sum(pause < 0.04 for pause in pauses) > 20


class BlockFailedError(Exception):
    """What the block of a test raises."""


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, BlockFailedError(), KeyboardInterrupt()])
@pytest.mark.usefixtures("_uvicorn")
def test_nothing_is_left_however_the_block_ends(error, open_connections):
    """Uvicorn, its workers and its files are gone, also after an error in the block."""
    with (
        suppress(BlockFailedError, KeyboardInterrupt),
        serving(["memory://a"], ttl=60, stale=0, source_seconds=0) as served,
    ):
        workers = open_connections(served, WORKERS)
        pids = [served.pid, *(ask(worker, "/healthz").body["pid"] for worker in workers)]
        assert len(set(pids)) == 1 + WORKERS
        assert all(map(alive, pids))
        if error is not None:
            raise error
    assert not any(map(alive, pids))
    assert refuses(port_of(served))
    assert not served.ledger.parent.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_a_uvicorn_that_does_not_end_is_killed_with_its_workers(monkeypatch):
    """One that ignores SIGTERM leaves no worker behind either."""
    monkeypatch.setattr(webserver, "STOP_SECONDS", 0.5)
    with serving(["memory://a"], ttl=60, stale=0, source_seconds=0) as served:
        os.kill(served.pid, signal.SIGSTOP)
    assert not alive(served.pid)
    eventually(lambda: refuses(port_of(served)), within=PATIENCE)


STARTER = """
import os, sys
from app.serving import serving
with serving(["memory://a"], ttl=60, stale=0, source_seconds=0) as served:
    print(served.url, served.ledger.parent, flush=True)
    sys.stdin.read()
try:
    os.kill(served.pid, 0)
except ProcessLookupError:
    print("stopped", flush=True)
"""


def start(program: str) -> subprocess.Popen[str]:
    """Start a program that serves the application until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(LOADTESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_the_application_ends_with_the_process_that_started_it():
    """A load test that is killed leaves neither workers nor files behind."""
    with start(STARTER) as starter:
        url, directory = starter.stdout.readline().split()
        port = urlsplit(url).port
        assert not refuses(port)
        starter.kill()
    eventually(lambda: refuses(port), within=PATIENCE)
    eventually(lambda: not Path(directory).exists(), within=PATIENCE)


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_the_application_is_served_from_a_process_that_gevent_patched():
    """Locust patches the process before it starts anything."""
    pytest.importorskip("gevent", reason="gevent comes with: pip install --group load")
    with start(f"from gevent import monkey\nmonkey.patch_all()\n{STARTER}") as starter:
        url, directory = starter.stdout.readline().split()
        assert not refuses(urlsplit(url).port)
        starter.stdin.close()
        assert starter.stdout.readline() == "stopped\n"
        assert starter.wait(PATIENCE) == 0
    assert refuses(urlsplit(url).port)
    assert not Path(directory).exists()


class OtherApplication(BaseHTTPRequestHandler):
    """One that has a port before us, and is healthy."""

    def do_GET(self) -> None:
        """Answer as our own would."""
        body = json.dumps({"status": "ok", "pid": os.getpid(), "ejected": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Return a port where another application answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherApplication) as other:
        thread = Thread(target=other.serve_forever)
        thread.start()
        yield other.server_port
        other.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_a_taken_port_is_left_for_another(taken_port, monkeypatch):
    """Losing the race for a port costs another try, and the application that answers is ours."""
    ports = [taken_port]
    free_port = webserver.free_port
    monkeypatch.setattr(webserver, "free_port", lambda: ports.pop() if ports else free_port())
    with serving(["memory://a"], ttl=60, stale=0, source_seconds=0) as served:
        assert not ports
        assert port_of(served) != taken_port


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_no_free_port_at_all_is_a_failure(taken_port, monkeypatch):
    """A port that stays taken is given up after some tries."""
    monkeypatch.setattr(webserver, "ATTEMPTS", 2)
    monkeypatch.setattr(webserver, "free_port", lambda: taken_port)
    with (
        pytest.raises(PortTakenError, match="in use"),
        serving(["memory://a"], ttl=60, stale=0, source_seconds=0),
    ):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_an_application_that_cannot_be_loaded_says_why(monkeypatch):
    """The message of a failed start holds what uvicorn had to say."""
    monkeypatch.setattr(module, "APPLICATION", "app.ledger:app")
    with (
        pytest.raises(ServerFailedError, match=r"(?s)ended with status .*\"app\" not found"),
        serving(["memory://a"], ttl=60, stale=0, source_seconds=0),
    ):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("_uvicorn")
def test_an_application_that_does_not_answer_is_given_up(monkeypatch):
    """Uvicorn replaces a worker that fails for ever; we do not wait as long, and say why it fails."""
    monkeypatch.setenv("SHARDCACHE_STRATEGY", "nonesuch")
    monkeypatch.setattr(webserver, "START_SECONDS", 10.0)
    with (
        pytest.raises(ServerFailedError, match=r"(?s)did not answer .*no such strategy"),
        serving(["memory://a"], ttl=60, stale=0, source_seconds=0),
    ):
        pass


@pytest.mark.parametrize("package", module.NEEDED)
def test_a_missing_package_names_its_group(package, monkeypatch):
    """Without fastapi or uvicorn nothing is started, and the error says what to install."""
    for needed in module.NEEDED:
        monkeypatch.setitem(sys.modules, needed, None if needed == package else module)
    with (
        pytest.raises(DependencyMissingError, match=rf"no {package} .*pip install --group load"),
        serving(["memory://a"], ttl=60, stale=0, source_seconds=0),
    ):
        pass


@pytest.mark.parametrize(
    ("urls", "ttl", "fault"),
    [(["memcached://"], 60, "host"), ([], 60, "nodes"), (["memory://a"], -1, "ttl")],
)
@pytest.mark.usefixtures("_uvicorn")
def test_what_shardcache_does_not_take_is_refused_before_the_start(urls, ttl, fault):
    """A fault in nodes or times is told at once, not by workers that fail again and again."""
    with (
        pytest.raises(ConfigurationError, match=fault),
        serving(urls, ttl=ttl, stale=0, source_seconds=0),
    ):
        pass
