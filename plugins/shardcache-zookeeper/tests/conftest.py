"""An ensemble for all tests, healed before each, and processes that hold locks of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from shardcache_zookeeper import session as sessions
from shardcache_zookeeper.ensemble import parse_url
from shardcache_zookeeper.session import Session

from shardcache.testing.driving import MODES, Mode, make_client
from shardcache.testing.servers import Server, start_memcached
from shardcache.testing.zookeeper import Ensemble, start_zookeeper_ensemble

PROCESS = Path(__file__).with_name("process.py")
SESSION = 3.0  # seconds: no shorter, as a busy machine may be slow


@pytest.fixture(scope="session")
def _ensemble() -> Iterator[Ensemble]:
    ensemble = start_zookeeper_ensemble()
    yield ensemble
    ensemble.stop()


@pytest.fixture
def ensemble(_ensemble) -> Ensemble:
    """Return an ensemble of three servers, all of them serving; a test may stop and kill them."""
    _ensemble.heal()
    return _ensemble


@pytest.fixture
def url(ensemble, request) -> str:
    """Return the URL of locks for this test alone."""
    return f"{ensemble.url}/tests/{abs(hash(request.node.nodeid)):x}?session_timeout={SESSION}"


@pytest.fixture
def root(url) -> str:
    """Return the path below which the locks of this test are."""
    return parse_url(url).root


@pytest.fixture
def session_of(root) -> Callable[[], Session]:
    """Return a function that returns the session of this process with the locks of this test."""

    def session_of() -> Session:
        (session,) = [each for each in sessions._sessions.values() if each.ensemble.root == root]
        return session

    return session_of


@pytest.fixture
def kazoo(ensemble) -> Iterator[KazooClient]:
    """Return a client of kazoo's, to see what is there."""
    client = KazooClient(hosts=ensemble.url.partition("://")[2], timeout=SESSION)
    client.start()
    yield client
    client.stop()
    client.close()


@pytest.fixture(params=MODES)
def mode(request) -> Mode:
    """Return each of the two clients in turn."""
    return request.param


@pytest.fixture
def make(mode, url) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a client of each kind, whose calls may take five seconds."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Any:
            client = make_client(
                mode, **{"nodes": "memory://a", "locks": url, "timeout": 5.0, **settings}
            )
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture(scope="session")
def _memcached() -> Iterator[Server]:
    server = start_memcached()
    yield server
    server.stop()


@pytest.fixture
def cache(_memcached) -> str:
    """Return the URL of a memcached for values, empty."""
    _memcached.ask(b"flush_all\r\n", b"OK\r\n")
    return _memcached.url


class Process:
    """A process of `process.py`, which obeys at its stdin and answers a line of JSON for each call."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", PROCESS, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: object) -> Any:
        """Have it do something, and return its answer."""
        self.tell(*words)
        return self.answer()

    def tell(self, *words: object) -> None:
        """Have it do something."""
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return its next answer."""
        line = self._process.stdout.readline()
        assert line, f"the process ended with status {self._process.wait()}"
        return json.loads(line)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture(scope="session")
def start_process() -> type[Process]:
    """Return what starts a process, for fixtures that stop it themselves."""
    return Process


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Return a function that starts a process; all are killed at the end."""
    with ExitStack() as stack:

        def start(*arguments: object) -> Process:
            process = Process(*arguments)
            stack.callback(process.stop)
            return process

        yield start
