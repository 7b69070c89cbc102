"""What the demo shows of a stampede: a crowd of processes that want one key, and who computes it.

Without servers to share, the crowd is one of threads.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple

from shardcache.clients.blocking import Client
from shardcache.core.leases import LockPolicy
from shardcache.testing.servers import BINARY_PATH

PROCESSES: Final = 8
THREADS: Final = 25
SECONDS: Final = 0.2  # that the slow function takes
LOCK: Final = LockPolicy(ttl=2.0)
TIMEOUT: Final = 2.0  # of a call, in seconds: this machine is about to be busy
LOOK: Final = 0.01  # seconds
PATIENCE: Final = 30.0  # seconds after which something is wrong with the demo itself

Terms = dict[str, Any]  # of `get_or_set`
UNPROTECTED: Final[Terms] = {"lock": False, "coalesce": False}
PROTECTED: Final[Terms] = {"lock": LOCK}


class Order(NamedTuple):
    """What a process is to do: have all its threads ask for a key, at a moment."""

    key: str
    terms: Terms
    at: float  # of the monotonic clock, which processes of a machine share


class Report(NamedTuple):
    """What came of it: how many got the value, and the longest wait in seconds."""

    right: int
    longest: float


def installed() -> str | None:
    """Give the kind of server that is on this machine, memcached first; `None` without any."""
    for kind, binary in (("memcached", "memcached"), ("redis", "redis-server")):
        if shutil.which(binary, path=BINARY_PATH):
            return kind
    return None


def among_threads() -> dict[str, Any]:
    """Give the figures of one process with as many threads as the crowd would have."""
    with Client("memory://a,b,c,d,e") as client:
        scenes = {}
        for name, terms in (("unprotected", UNPROTECTED), ("protected", PROTECTED)):
            runs: list[float] = []
            order = Order(name, terms, time.monotonic() + 0.1)
            report = _asked(client, order, PROCESSES * THREADS, runs.append)
            scenes[name] = {"runs": len(runs), **report._asdict()}
    return {"processes": 1, "threads": PROCESSES * THREADS, **scenes}


def among_processes(urls: Sequence[str]) -> dict[str, Any]:
    """Give the figures of a crowd of processes over real servers, and of one whose leader dies."""
    with _crowd(urls) as crowd:
        return {
            "processes": PROCESSES,
            "threads": THREADS,
            "unprotected": crowd.asks("unprotected", UNPROTECTED),
            "protected": crowd.asks("protected", PROTECTED),
            "killed": crowd.loses_its_leader("killed", PROTECTED),
        }


class Member(NamedTuple):
    """A process of the crowd: told by one pipe, and heard of each run of the function by another."""

    process: BaseProcess
    orders: Connection
    runs: Connection


class Crowd:
    """Processes that wait for orders."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    def asks(self, key: str, terms: Terms) -> dict[str, Any]:
        """Have all ask for a key at once."""
        at = time.monotonic() + 0.2
        for member in self._members:
            member.orders.send(Order(key, terms, at))
        report = self._reported(self._members)
        return {"runs": len(self._runs()), **report}

    def loses_its_leader(self, key: str, terms: Terms) -> dict[str, Any]:
        """Have one begin, the others wait for it, and kill it when it is half done."""
        leader, *others = self._members
        leader.orders.send(Order(key, terms, time.monotonic()))
        if not leader.runs.poll(PATIENCE):
            raise TimeoutError("the leader of the demo's crowd did not begin")
        began = leader.runs.recv()
        for member in others:
            member.orders.send(Order(key, terms, time.monotonic()))
        time.sleep(max(0.0, began + SECONDS / 2 - time.monotonic()))
        leader.process.kill()
        killed = time.monotonic()
        report = self._reported(others)
        again = self._runs()
        return {
            "runs": 1 + len(again),
            "again_after": min(again, default=killed) - killed,
            **report,
        }

    def _reported(self, members: Sequence[Member]) -> dict[str, Any]:
        awaited = {member.orders for member in members}
        reports: list[Report] = []
        until = time.monotonic() + PATIENCE
        while awaited and time.monotonic() < until:
            for member in members:
                if member.orders in awaited and member.orders.poll(LOOK):
                    awaited.discard(member.orders)
                    reports.append(member.orders.recv())
        return {
            "right": sum(report.right for report in reports),
            "longest": max((report.longest for report in reports), default=PATIENCE),
        }

    def _runs(self) -> list[float]:
        """Give when the function was begun, since this was asked last."""
        moments = []
        for member in self._members:
            while member.process.is_alive() and member.runs.poll():
                moments.append(member.runs.recv())
        return moments


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: they inherit that the signal is blocked.

    A terminal sends it to them as well, and each would print a traceback. The crowd is killed.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Python 3.11 unblocks the signal when it starts this one
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _crowd(urls: Sequence[str]) -> Iterator[Crowd]:
    context = multiprocessing.get_context("spawn")
    members = []
    try:
        for _ in range(PROCESSES):
            orders, theirs = context.Pipe()
            runs, their_runs = context.Pipe(duplex=False)
            process = context.Process(
                target=_obey, args=(list(urls), theirs, their_runs), daemon=True
            )
            with _uninterrupted():
                process.start()
            theirs.close()
            their_runs.close()
            members.append(Member(process, orders, runs))
        for member in members:
            if not member.orders.poll(PATIENCE) or member.orders.recv() != "ready":
                raise TimeoutError("a process of the demo's crowd did not start")
        yield Crowd(members)
    finally:
        for member in members:
            member.process.kill()
            member.process.join(PATIENCE)
            member.orders.close()
            member.runs.close()


def _obey(urls: Sequence[str], orders: Connection, runs: Connection) -> None:
    """Do what is ordered, until the demo is over."""
    speaking = threading.Lock()

    def told(moment: float) -> None:
        with speaking:
            runs.send(moment)

    with Client(urls, timeout=TIMEOUT) as client:
        client.get("warm")  # dials before anything is measured
        orders.send("ready")
        while True:
            orders.send(_asked(client, orders.recv(), THREADS, told))


def _asked(client: Client, order: Order, threads: int, told: Callable[[float], None]) -> Report:
    """Have so many threads ask for a key at once."""

    def slow() -> str:
        told(time.monotonic())
        time.sleep(SECONDS)
        return "the report"

    waits: list[float] = []

    def ask() -> None:
        time.sleep(max(0.0, order.at - time.monotonic()))
        began = time.monotonic()
        if client.get_or_set(order.key, slow, ttl=60, **order.terms) == "the report":
            waits.append(time.monotonic() - began)

    crowd = [threading.Thread(target=ask, daemon=True) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return Report(len(waits), max(waits, default=PATIENCE))
