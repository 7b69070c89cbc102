"""The demo's stampede: many processes ask for one missing key, and one of them recomputes it.

Without real servers, threads of one process ask instead.
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
TIMEOUT: Final = 2.0  # of a call, in seconds: this machine will be busy
LOOK: Final = 0.01  # seconds
PATIENCE: Final = 30.0  # seconds after which something is wrong with the demo itself

Options = dict[str, Any]  # of `get_or_set`
UNPROTECTED: Final[Options] = {"lock": False, "coalesce": False}
PROTECTED: Final[Options] = {"lock": LOCK}


class Order(NamedTuple):
    """An order to a process: have all threads ask for a key at a moment."""

    key: str
    options: Options
    at: float  # of the monotonic clock, which processes of a machine share


class Report(NamedTuple):
    """The result of an order: how many callers got the value, and the longest wait in seconds."""

    right: int
    longest: float


def installed_server() -> str | None:
    """Return the kind of server that is installed, memcached first; `None` without any."""
    for kind, binary in (("memcached", "memcached"), ("redis", "redis-server")):
        if shutil.which(binary, path=BINARY_PATH):
            return kind
    return None


def among_threads() -> dict[str, Any]:
    """Return the figures of one process with as many threads as the crowd has."""
    with Client("memory://a,b,c,d,e") as client:
        figures = {}
        for name, options in (("unprotected", UNPROTECTED), ("protected", PROTECTED)):
            runs: list[float] = []
            order = Order(name, options, time.monotonic() + 0.1)
            report = _ask_all(client, order, PROCESSES * THREADS, runs.append)
            figures[name] = {"runs": len(runs), **report._asdict()}
    return {"processes": 1, "threads": PROCESSES * THREADS, **figures}


def among_processes(urls: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a crowd over real servers, and of one whose leader is killed."""
    with _crowd(urls) as crowd:
        return {
            "processes": PROCESSES,
            "threads": THREADS,
            "unprotected": crowd.ask("unprotected", UNPROTECTED),
            "protected": crowd.ask("protected", PROTECTED),
            "killed": crowd.kill_leader("killed", PROTECTED),
        }


class Member(NamedTuple):
    """A process of the crowd: one pipe takes orders, another reports each run of the function."""

    process: BaseProcess
    orders: Connection
    runs: Connection


class Crowd:
    """The processes that wait for orders."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    def ask(self, key: str, options: Options) -> dict[str, Any]:
        """Make all processes ask for a key at once."""
        at = time.monotonic() + 0.2
        for member in self._members:
            member.orders.send(Order(key, options, at))
        report = self._collect(self._members)
        return {"runs": len(self._runs()), **report}

    def kill_leader(self, key: str, options: Options) -> dict[str, Any]:
        """Start one process as leader, let the others wait for it, and kill it half-way."""
        leader, *others = self._members
        leader.orders.send(Order(key, options, time.monotonic()))
        if not leader.runs.poll(PATIENCE):
            raise TimeoutError("the leader of the demo's crowd did not begin")
        began = leader.runs.recv()
        for member in others:
            member.orders.send(Order(key, options, time.monotonic()))
        time.sleep(max(0.0, began + SECONDS / 2 - time.monotonic()))
        leader.process.kill()
        killed = time.monotonic()
        report = self._collect(others)
        again = self._runs()
        return {
            "runs": 1 + len(again),
            "again_after": min(again, default=killed) - killed,
            **report,
        }

    def _collect(self, members: Sequence[Member]) -> dict[str, Any]:
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
        """Return the moments at which the function began, since the last call of this."""
        moments = []
        for member in self._members:
            while member.process.is_alive() and member.runs.poll():
                moments.append(member.runs.recv())
        return moments


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: they inherit the blocked signal.

    A terminal sends the signal to them as well, and each would print a traceback. The crowd is killed.
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
                target=_serve_orders, args=(list(urls), theirs, their_runs), daemon=True
            )
            with _ignore_interrupts():
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


def _serve_orders(urls: Sequence[str], orders: Connection, runs: Connection) -> None:
    """Carry out orders until the demo ends."""
    sending = threading.Lock()

    def report_run(moment: float) -> None:
        with sending:
            runs.send(moment)

    with Client(urls, timeout=TIMEOUT) as client:
        client.get("warm")  # dials before anything is measured
        orders.send("ready")
        while True:
            orders.send(_ask_all(client, orders.recv(), THREADS, report_run))


def _ask_all(
    client: Client, order: Order, threads: int, report_run: Callable[[float], None]
) -> Report:
    """Make `threads` threads ask for a key at once."""

    def slow() -> str:
        report_run(time.monotonic())
        time.sleep(SECONDS)
        return "the report"

    waits: list[float] = []

    def ask() -> None:
        time.sleep(max(0.0, order.at - time.monotonic()))
        began = time.monotonic()
        if client.get_or_set(order.key, slow, ttl=60, **order.options) == "the report":
            waits.append(time.monotonic() - began)

    crowd = [threading.Thread(target=ask, daemon=True) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return Report(len(waits), max(waits, default=PATIENCE))
