"""Starts the kit as a user does: Locust imports gevent, which no test process could bear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardcache.testing import servers

ROOT = Path(__file__).parents[2]
LOCUSTFILE = ROOT / "loadtests" / "locust" / "locustfile.py"
CRIPPLED = Path(__file__).parent / "crippled"
PATIENCE = 100.0


@dataclass(frozen=True)
class Played:
    """A Locust that has ended: its exit status, and all that it printed."""

    status: int
    output: str

    @property
    def verdict(self) -> str:
        """Return what follows `verdict:`, in one line."""
        _, _, rest = self.output.partition("verdict: ")
        lines = []
        for line in rest.splitlines():  # a terminal is 80 columns wide
            if line.startswith("["):
                break
            lines.append(line)
        return " ".join(" ".join(lines).split())


class Locust:
    """A Locust that is running, in a process group of its own."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "locust", *arguments],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._read: list[str] = []

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def await_line(self, part: str) -> str:
        """Return the next line that has `part` in it; fail when there is none."""
        for line in self._process.stdout:
            self._read.append(line)
            if part in line:
                return line
        pytest.fail(f"no line with {part!r} in:\n{''.join(self._read)}")

    def signal(self, number: int) -> None:
        """Send a signal to the process that was started, and to no child of it."""
        self._process.send_signal(number)

    def ended(self) -> Played:
        """Wait for the end; return what came of it."""
        rest, _ = self._process.communicate(timeout=PATIENCE)
        return Played(self._process.returncode, "".join(self._read) + rest)

    def close(self) -> None:
        """Kill whatever is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Locust]]:
    """Yield a function that starts Locust with the kit; `crippled` names faults to plant in it."""
    running = []

    def begin(*arguments: str, crippled: Sequence[str] = (), **environment: str) -> Locust:
        if "--processes" in arguments:  # else two tests at a time share the workers of one master
            port = str(servers.free_port())
            bind = ("--master-bind-host", servers.LOOPBACK, "--master-bind-port", port)
            arguments = (*arguments, *bind, "--master-port", port)
        files = [LOCUSTFILE, *(CRIPPLED / f"{name}.py" for name in crippled)]
        line = ["-f", ",".join(map(str, files)), "--only-summary", *arguments]
        running.append(Locust(line, environment))
        return running[-1]

    yield begin
    for locust in running:
        locust.close()


@pytest.fixture
def play(start: Callable[..., Locust]) -> Callable[..., Played]:
    """Yield a function that lets Locust play without a web page, and waits for its end."""

    def played(*arguments: str, **options: object) -> Played:
        return start("--headless", *arguments, **options).ended()

    return played


@pytest.fixture
def free_port() -> int:
    """Return a port that nobody listens on."""
    return servers.free_port()
