"""The applications of docs/examples, under the web servers that people use, over real nodes."""

from __future__ import annotations

import json
import os
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from app.examples import DOCS, EXAMPLES, Example
from app.webserver import WebServer
from shardcache.testing.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]

CROWD = 50
COLD = 4  # reports that nobody has asked for yet
PATIENCE = 20  # seconds for a call: a worker that stands still for less recomputes nothing
GUNICORN = ("gunicorn", "--workers=2", "--bind=127.0.0.1:{port}")
COMMANDS = {
    "sync": (*GUNICORN, "--worker-class=sync"),
    "gthread": (*GUNICORN, "--worker-class=gthread", "--threads=8"),
    "gevent": (*GUNICORN, "--worker-class=gevent"),
    "preload": (*GUNICORN, "--worker-class=gthread", "--threads=8", "--preload"),
    "uvicorn": ("uvicorn", "--workers=2", "--host=127.0.0.1", "--port={port}"),
}


FLASK, DJANGO, FASTAPI = (EXAMPLES[name] for name in ("Flask", "Django", "FastAPI"))
# What a new visitor is counted as while a node is down: `None` if it is the node of the count.
UNREACHED = {FLASK: {1, None}, FASTAPI: {1, None}, DJANGO: {1}}
RUNS = [
    *((example, kind) for example in (FLASK, DJANGO) for kind in COMMANDS if kind != "uvicorn"),
    (FASTAPI, "uvicorn"),
]


class Visitor:
    """A browser with its own cookies."""

    def __init__(self, url: str) -> None:
        self._url = url
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._opener = urllib.request.build_opener(cookies)

    def read(self, path: str) -> str:
        """Return the text of a page; raise `HTTPError` for any other status than 200."""
        with self._opener.open(self._url + path, timeout=30) as answer:
            return answer.read().decode()

    def read_json(self, path: str) -> dict[str, object]:
        """Return the JSON of a page."""
        return json.loads(self.read(path))


def command_of(example: Example, kind: str) -> Callable[[int], Sequence[str]]:
    """Return the command line of a web server for a port."""
    module, *options = COMMANDS[kind]
    return lambda port: [
        *(sys.executable, "-m", module),
        *(option.format(port=port) for option in options),
        example.application,
    ]


def worker_at(port: int) -> int | None:
    """Return the process that answers on a port."""
    try:
        return int(Visitor(f"http://127.0.0.1:{port}").read_json("/healthz")["pid"])
    except (OSError, ValueError):
        return None


@contextmanager
def serving(example: Example, kind: str, url: str, log: Path) -> Iterator[str]:
    """Serve an example over the nodes of `url`; yield its address. Print its log at the end."""
    environment = {
        **os.environ,
        "SECRET_KEY": "only for this test, and long enough",
        "SHARDCACHE_URL": url,
        "PYTHONPATH": os.pathsep.join((str(DOCS / example.folder), *filter(None, sys.path))),
    }
    server = WebServer(kind, command_of(example, kind), worker_at, environment, log)
    try:
        with server.running() as (address, _):
            yield address
    finally:
        sys.stdout.write(log.read_text(errors="replace"))  # shown where a test fails


def read_at_once(address: str, path: str) -> list[dict[str, object]]:
    """Return what many visitors get who come in the same moment."""
    together = threading.Barrier(CROWD)
    answers: list[dict[str, object]] = []

    def visit() -> None:
        visitor = Visitor(address)
        together.wait()
        answers.append(visitor.read_json(path))

    threads = [threading.Thread(target=visit) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize(
    ("example", "kind"), RUNS, ids=[f"{example.folder}-{kind}" for example, kind in RUNS]
)
@pytest.mark.parametrize("servers", ["memcached", "redis"])
def test_it_serves_through_a_crowd_and_a_dead_node(example, kind, servers, request, tmp_path):
    """One recompute for a crowd, a page kept for all, sessions, and no request without its answer."""
    nodes = [request.getfixturevalue(f"make_{servers}")() for _ in range(3)]
    addresses = ",".join(f"{node.host}:{node.port}" for node in nodes)
    url = f"{servers}://{addresses}?timeout={PATIENCE}"
    with serving(example, kind, url, tmp_path / "log") as address:
        for number in range(COLD):
            crowd = read_at_once(address, f"/reports/{number}")
            assert len(crowd) == CROWD
            assert len({tuple(answer["computed"]) for answer in crowd}) == 1
        visitor = Visitor(address)
        assert len({visitor.read("/") for _ in range(8)}) == 1
        assert [visitor.read_json("/visits")["visits"] for _ in range(3)] == [1, 2, 3]
        nodes[0].kill()
        for number in range(40):
            assert visitor.read_json(f"/reports/{number}")["sales"] == 100 * number
            assert "Welcome" in visitor.read("/")
        for _ in range(12):
            assert Visitor(address).read_json("/visits")["visits"] in UNREACHED[example]
        assert visitor.read_json("/visits")["visits"] in {1, 4, *UNREACHED[example]}
        nodes[0].restart()
        eventually(lambda: visitor.read_json("/healthz")["ejected"] == [], within=30)
