"""A web server on a free port, with its workers, for as long as a block runs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

from shardcache.testing.servers import (
    ATTEMPTS,
    LOOPBACK,
    START_SECONDS,
    PortTakenError,
    ServerFailedError,
    Workspace,
    free_port,
)

STOP_SECONDS: Final = 5.0

Command: TypeAlias = Callable[[int], Sequence[str]]
Worker: TypeAlias = Callable[[int], int | None]


@dataclass(frozen=True, slots=True)
class WebServer:
    """A web server: `command` returns its command line for a port, `worker` asks a port who answers.

    `worker` returns the process that answered, or `None` while the application does not answer.
    `log` is a file for all that is printed.
    """

    name: str
    command: Command
    worker: Worker
    environment: Mapping[str, str]
    log: Path

    @contextmanager
    def running(self) -> Iterator[tuple[str, int]]:
        """Run the server; yield its URL, and its process, the parent of the workers.

        Raise `ServerFailedError`, which shows what was printed, when it does not answer.
        """
        process, port = self._start()
        try:
            yield f"http://{LOOPBACK}:{port}", process.pid
        finally:
            _stop(process)

    def _start(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start on a free port; try others when a process binds it first."""
        for _ in range(ATTEMPTS - 1):
            with suppress(PortTakenError):
                return self._start_at(free_port())
        return self._start_at(free_port())

    def _start_at(self, port: int) -> tuple[subprocess.Popen[bytes], int]:
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                self.command(port),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _workspace().remember(_group(process))
        try:
            self._await_answer(process, port)
        except BaseException:
            _stop(process)
            raise
        return process, port

    def _await_answer(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(process, port):
            if process.poll() is not None:
                raise self._failure(f"ended with status {process.returncode}", port)
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer in {START_SECONDS:.0f} s", port)
            time.sleep(0.02)

    def _answers(self, process: subprocess.Popen[bytes], port: int) -> bool:
        """Return whether a worker of this server answers, and not another process on the port."""
        worker = self.worker(port)
        try:
            return worker is not None and os.getpgid(worker) == process.pid
        except ProcessLookupError:
            return False

    def _failure(self, what: str, port: int) -> ServerFailedError:
        printed = self.log.read_text(errors="replace")[-2_000:]
        taken = os.strerror(errno.EADDRINUSE).lower() in printed.lower()
        kind = PortTakenError if taken else ServerFailedError
        return kind(f"{self.name} at {LOOPBACK}:{port} {what}; it printed:\n{printed}")


def _group(process: subprocess.Popen[bytes]) -> int:
    """Return the number by which kill(2) knows the server with its workers, which outlive it."""
    return -process.pid


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server by SIGTERM, and by SIGKILL whatever is left of it and its workers."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.kill(_group(process), signal.SIGKILL)
    process.wait()
    _workspace().forget(_group(process))


@cache
def _workspace() -> Workspace:
    return Workspace()


def directory_for_files() -> Path:
    """Return a directory that is removed with all servers, however this process ends."""
    return _workspace().root
