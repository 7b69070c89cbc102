"""`@cached(lock=True)` in eight processes of 25 threads: one recompute, whatever happens to a server."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

PROCESSES = 8
CALLERS = 25
SECONDS = 1.0
LONG = 4.0  # seconds in which the others get the lock of an ensemble that is back
PATIENCE = 60.0
AT_WORK = 0.05  # seconds in which all have tried the lock
TIMES = 5
SESSION = 5.0  # seconds: a lock of a cached function is for no less


class Crowd:
    """Processes of threads that call one cached function."""

    def __init__(self, processes, ledger) -> None:
        self._processes = processes
        self._ledger = ledger

    def connect(self) -> None:
        """Have each process take a lock, so that it has a session."""
        until = time.monotonic() + PATIENCE
        for number, process in enumerate(self._processes):
            while not isinstance(process.ask("acquire", f"own {number}", SESSION), int):
                assert time.monotonic() < until
        for process in self._processes:
            process.ask("release")

    def call(self, happens: Callable[[], object] | None = None, *, at_once: bool = False) -> int:
        """Have all call for a new value; return how many recomputed it, with what happens then.

        It happens while one recomputes, or `at_once`, when all try the lock.
        """
        self._ledger.write_text("")
        key = f"value {time.monotonic()}"
        for process in self._processes:
            process.tell("crowd", key, CALLERS, SECONDS, str(self._ledger))
        if happens is not None and at_once:
            time.sleep(random.uniform(0, AT_WORK))
            happens()
        until = time.monotonic() + PATIENCE
        while not self._ledger.read_text():
            assert time.monotonic() < until
            time.sleep(0.005)
        if happens is not None and not at_once:
            time.sleep(SECONDS / 3)  # all wait for the value now; an attempt may need the server
            happens()
        return self._count()

    def call_before_and_after(self, happens: Callable[[], object]) -> int:
        """Have one process call, and while it recomputes the others, after what happens then."""
        self._ledger.write_text("")
        call = "crowd", f"value {time.monotonic()}", CALLERS, LONG, str(self._ledger)
        first, *others = self._processes
        first.tell(*call)
        until = time.monotonic() + PATIENCE
        while not self._ledger.read_text():
            assert time.monotonic() < until
            time.sleep(0.005)
        happens()
        for process in others:
            process.tell(*call)
        return self._count()

    def _count(self) -> int:
        """Return how many have recomputed, when all have their value."""
        assert [process.answer() for process in self._processes] == [CALLERS] * PROCESSES
        return len(self._ledger.read_text().splitlines())


@pytest.fixture(scope="module")
def _crowd(_ensemble, _memcached, start_process, tmp_path_factory):
    directory = tmp_path_factory.mktemp("crowd")
    url = f"{_ensemble.url}/{directory.name}?session_timeout={SESSION}"
    with ExitStack() as stack:
        processes = []
        for _ in range(PROCESSES):
            processes.append(start_process(url, _memcached.url))
            stack.callback(processes[-1].stop)
        yield Crowd(processes, directory / "ledger")


@pytest.fixture
def crowd(ensemble, _crowd):  # noqa: ARG001 - it is healed
    """Return the crowd, connected to an ensemble of which all servers serve."""
    _crowd.connect()
    return _crowd


def test_one_recompute(crowd):
    """All others wait for the value."""
    assert crowd.call() == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_one_recompute_while_a_server_fails(crowd, ensemble, fault, role):
    """The leader of the ensemble, or another one."""
    server = ensemble.leader() if role == "leader" else ensemble.followers()[0]
    assert crowd.call(getattr(server, fault)) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_one_recompute_when_a_server_fails_at_once(crowd, ensemble, fault, role):
    """In the instant in which all try the lock.

    While the leader is paused, and while the others choose another one, none gets the lock in time:
    the node of the value decides. Who gets the lock later waits for the one that has begun without it.
    """
    for _ in range(TIMES):
        server = ensemble.leader() if role == "leader" else ensemble.followers()[0]
        assert crowd.call(getattr(server, fault), at_once=True) == 1
        ensemble.heal()
        crowd.connect()


@pytest.mark.slow
def test_one_recompute_after_a_server_was_killed(crowd, ensemble):
    """Its clients have gone to the others by then."""
    ensemble.followers()[0].kill()
    ensemble.await_leader()
    time.sleep(1)
    assert crowd.call() == 1


@pytest.mark.slow
def test_without_a_majority_one_process_recomputes(crowd, ensemble):
    """At once: no caller waits for a lock, and the node of the value decides."""
    for server in ensemble.servers[:2]:
        server.kill()
    began = time.monotonic()
    assert crowd.call() == 1
    assert time.monotonic() - began < PATIENCE / 4


@pytest.mark.slow
def test_one_recompute_when_the_ensemble_is_back_meanwhile(crowd, ensemble):
    """Who gets the lock waits for the process that has begun without it."""
    for server in ensemble.servers[:2]:
        server.pause()
    assert crowd.call_before_and_after(ensemble.heal) == 1
