"""The nodes of a fleet of gunicorn workers change through the file of settings, without a restart."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request

import pytest

from app.webserver import WebServer
from shardcache.testing.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]

WORKERS = 3
SOON = 30  # seconds, on a busy machine
PROGRAM = """
import json
import os

from shardcache import Client

cache = Client.from_env()
cache.follow_config(every=0.1)
{first_call}

def app(environ, start_response):
    cache.get("k")
    nodes = [node.name for node in cache.nodes]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({{"pid": os.getpid(), "nodes": nodes}}).encode()]
"""


def ask(address):
    """Return what one worker, whichever answers, says of itself."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def workers(address):
    """Return the nodes of each worker that answers one of many requests, by process."""
    answers = [ask(address) for _ in range(8 * WORKERS)]
    return {answer["pid"]: answer["nodes"] for answer in answers}


def worker_at(port):
    """Return the process that answers on a port."""
    try:
        return ask(f"http://127.0.0.1:{port}")["pid"]
    except OSError:
        return None


def write(path, urls):
    """Write a file of settings with these nodes, in one step."""
    written = path.with_suffix(".new")
    written.write_text(f"nodes = {json.dumps(urls)}\n")
    written.replace(path)


def agree(address, names, *, without=()):
    """Wait until all workers have these nodes, and none is one of `without`; return their processes."""
    found = {}

    def all_do():
        found.clear()
        found.update(workers(address))
        told = list(found.values())
        return len(told) == WORKERS and told == [names] * WORKERS and not {*found} & {*without}

    eventually(all_do, within=SOON)
    return set(found)


@pytest.mark.parametrize("preload", [True, False], ids=["preload", "each"])
@pytest.mark.parametrize("first_call", ["", 'cache.get("k")'], ids=["idle", "called"])
def test_workers_follow_the_file(memcached_servers, tmp_path, preload, first_call):
    """Also those forked from a master that loaded the application, and whether it made a call or not."""
    urls = [server.url for server in memcached_servers]
    names = [url.partition("://")[2] for url in urls]
    path = tmp_path / "shardcache.toml"
    write(path, urls[:2])
    (tmp_path / "wsgi.py").write_text(PROGRAM.format(first_call=first_call))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "SHARDCACHE_URL"},
        "SHARDCACHE_CONFIG": str(path),
        "PYTHONPATH": os.pathsep.join((str(tmp_path), *filter(None, sys.path))),
    }
    server = WebServer(
        "gunicorn",
        lambda port: [
            *(sys.executable, "-m", "gunicorn", "wsgi:app"),
            *(f"--workers={WORKERS}", f"--bind=127.0.0.1:{port}"),
            *(["--preload"] if preload else []),
        ],
        worker_at,
        environment,
        tmp_path / "log",
    )
    with server.running() as (address, master):
        began = agree(address, names[:2])
        write(path, urls)
        assert agree(address, names) == began
        path.write_text("nodes = [")  # broken: nothing changes
        assert agree(address, names) == began
        write(path, urls[1:])
        assert agree(address, names[1:]) == began
        os.kill(master, signal.SIGHUP)  # gunicorn's own signal: new workers, which read the file
        agree(address, names[1:], without=began)
