"""Processes under test, which start together and take orders at the same moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shardcache.testing import servers
from stampede.workers import Call, Calls, Part, Tell, main

# Forked from one process that has loaded everything: 200 start within two seconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["stampede.workers"])

LEAD = 0.3  # seconds until all begin, so that each has received the order
LEAD_EACH = 0.005  # seconds more for every process


class Member:
    """One process under test."""

    def __init__(self, part: Part, seconds: float) -> None:
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(target=main, args=(part, theirs, seconds), daemon=True)
        self._process.start()
        self.paused = False
        theirs.close()

    @property
    def pid(self) -> int:
        """Return the process id."""
        pid = self._process.pid
        assert pid is not None  # it was started
        return pid

    def order(self, order: Calls | Tell) -> None:
        """Send an order; the answer is awaited by `answer`."""
        self._pipe.send(order)

    def answer(self) -> Any:
        """Return the answer to the oldest order; the watchdog ends an endless wait."""
        return self._pipe.recv()

    def answers(self, deadline: float | None) -> bool:
        """Return whether there is an answer by then, in monotonic seconds."""
        return self._pipe.poll(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def tell(self, method: str, *arguments: object) -> Any:
        """Call a method of its subject, and return the result."""
        self.order(Tell(method, arguments))
        return self.answer()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()
        self._process.join()

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP)."""
        # A paused process notices neither our end nor its time limit: the watcher of the servers ends it.
        servers._workspace().remember(self.pid)
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """Resume it (SIGCONT)."""
        servers._workspace().forget(self.pid)
        os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def hang_up(self) -> None:
        """Close its pipe, so that it ends."""
        self._pipe.close()

    def join(self, seconds: float) -> None:
        """Wait for its end, then kill it."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self.kill()


class Crowd:
    """Some processes that play the same part."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.silent = 0  # members that were not done in time

    def of(self, pid: int) -> Member:
        """Return the member with a process id."""
        return next(member for member in self.members if member.pid == pid)

    def without(self, gone: Member) -> Crowd:
        """Return all but one."""
        return Crowd([member for member in self.members if member is not gone])

    def call(self, **calls: Any) -> list[Call]:
        """Make all members call at once; return the result of each call."""
        self.begin(**calls)
        return self.results()

    def begin(self, **calls: Any) -> float:
        """Make all members call at once; return that moment."""
        at = self.moment()
        for member in self.members:
            member.order(Calls(at=at, **calls))
        return at

    def results(self, seconds: float | None = None) -> list[Call]:
        """Return the results of calls that were begun, of members that finish in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        done = [member for member in self.members if member.answers(deadline)]
        self.silent = len(self.members) - len(done)
        return [call for member in done for call in member.answer()]

    def tell(self, method: str, *arguments: object) -> list[Any]:
        """Call a method of every subject; return the results."""
        for member in self.members:
            member.order(Tell(method, arguments))
        return [member.answer() for member in self.members]

    def moment(self) -> float:
        """Return a moment for which all can be ready."""
        return time.monotonic() + LEAD + LEAD_EACH * len(self.members)


@contextmanager
def start_crowd(part: Part, processes: int, seconds: float) -> Iterator[Crowd]:
    """Start processes, ready to be told; they have ended when the block has, however it ends."""
    members: list[Member] = []
    try:
        for _ in range(processes):
            # Those that did start are ended when one does not.
            members.append(Member(part, seconds))  # noqa: PERF401
        for member in members:
            member.answer()
        yield Crowd(members)
    finally:
        _end_all(members)


def _end_all(members: Iterable[Member]) -> None:
    for member in members:
        with suppress(OSError):
            member.hang_up()
        if member.paused:
            member.resume()
    deadline = time.monotonic() + 2
    for member in members:
        member.join(max(0.0, deadline - time.monotonic()))
