"""The application under uvicorn, on a free port, for as long as a block runs.

::

    with serving(urls, ttl=5, stale=30, source_seconds=0.2) as served:
        ask(served.url + "/reports/7")
        served.runs()  # of the source, in all workers
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from app.ledger import Run, read_runs
from shardcache import CachePolicy, Settings
from shardcache.testing.servers import (
    ATTEMPTS,
    LOOPBACK,
    START_SECONDS,
    PortTakenError,
    ServerFailedError,
    Workspace,
    free_port,
)

LOADTESTS: Final = Path(__file__).parents[1]
APPLICATION: Final = "app.main:app"
PROTOCOL: Final = "app.nodelay:NoDelayProtocol"
NEEDED: Final = ("fastapi", "uvicorn")
STOP_SECONDS: Final = 5.0
# Users of a load test pause longer than uvicorn's 5 s, and would meet connections just closed.
KEEP_ALIVE_SECONDS: Final = 60


class DependencyMissingError(RuntimeError):
    """A package that the application needs is not installed; says how it gets there."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"no {package} in this environment; it comes with the dependency group 'load'"
            " (in a clone of the repository: pip install --group load)"
        )


@dataclass(frozen=True, slots=True)
class Serving:
    """The application while it runs: `pid` is uvicorn's own, the parent of the workers."""

    url: str
    pid: int
    ledger: Path

    def runs(self) -> list[Run]:
        """Return the runs of the source in all workers, in the order in which they began."""
        return read_runs(self.ledger)


@contextmanager
def serving(
    urls: Sequence[str],
    *,
    ttl: float,
    stale: float,
    source_seconds: float,
    workers: int = 2,
) -> Iterator[Serving]:
    """Serve the application over the cache nodes `urls`; stop it at the end, however that comes.

    All lengths of time are seconds. The nodes need not be reachable, and may be of several kinds.
    Other settings of the client are those of our environment. Raise `ConfigurationError` for what
    shardcache does not take, `DependencyMissingError` without fastapi or uvicorn, and
    `ServerFailedError`, which shows what was printed, when `/healthz` does not answer.
    """
    _check_dependencies()
    CachePolicy(ttl=ttl, stale=stale)
    with _directory() as directory:
        ledger = directory / "runs"
        environment = {
            **_inherited(),
            "SHARDCACHE_CONFIG": str(_config(directory, urls)),
            "APP_TTL": str(ttl),
            "APP_STALE": str(stale),
            "APP_SOURCE_SECONDS": str(source_seconds),
            "APP_LEDGER": str(ledger),
        }
        Settings.from_env(environment)  # refuses here what each worker would refuse for ever
        process, port = _start(directory / "output.log", environment, workers)
        try:
            yield Serving(f"http://{LOOPBACK}:{port}", process.pid, ledger)
        finally:
            _stop(process)


def _check_dependencies() -> None:
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise DependencyMissingError(package)


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="app-", dir=_workspace().root))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _inherited() -> dict[str, str]:
    """Return our environment without the variable that would win over the configuration file."""
    return {name: value for name, value in os.environ.items() if name != "SHARDCACHE_URL"}


def _config(directory: Path, urls: Sequence[str]) -> Path:
    """Write the nodes to a file: a URL has but one scheme, and they may be of several."""
    file = directory / "shardcache.toml"
    # A list of strings is written in TOML as it is in JSON.
    file.write_text(f"nodes = {json.dumps(list(urls))}\n", encoding="utf-8")
    return file


def _start(
    log: Path, environment: Mapping[str, str], workers: int
) -> tuple[subprocess.Popen[bytes], int]:
    """Start uvicorn on a free port; try others when a process binds it first."""
    for _ in range(ATTEMPTS - 1):
        with suppress(PortTakenError):
            return _start_at(free_port(), log, environment, workers)
    return _start_at(free_port(), log, environment, workers)


def _start_at(
    port: int, log: Path, environment: Mapping[str, str], workers: int
) -> tuple[subprocess.Popen[bytes], int]:
    options = {
        "app-dir": LOADTESTS,
        "http": PROTOCOL,
        "host": LOOPBACK,
        "port": port,
        "workers": workers,
        "timeout-keep-alive": KEEP_ALIVE_SECONDS,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *[sys.executable, "-m", "uvicorn", APPLICATION, "--no-access-log"],
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _workspace().remember(_group(process))
    try:
        _await_answer(process, port, log)
    except BaseException:
        _stop(process)
        raise
    return process, port


def _group(process: subprocess.Popen[bytes]) -> int:
    """Return the number by which kill(2) knows uvicorn with its workers, which outlive it."""
    return -process.pid


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(process, port):
        if process.poll() is not None:
            raise _failure(f"ended with status {process.returncode}", port, log)
        if time.monotonic() > deadline:
            raise _failure(f"did not answer /healthz in {START_SECONDS:.0f} s", port, log)
        time.sleep(0.02)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Return whether a worker of this uvicorn answers, and not another process on the port."""
    try:
        with closing(HTTPConnection(LOOPBACK, port, timeout=1)) as connection:
            connection.request("GET", "/healthz")
            worker = json.load(connection.getresponse())["pid"]
            return os.getpgid(worker) == process.pid
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return False


def _failure(what: str, port: int, log: Path) -> ServerFailedError:
    printed = log.read_text(errors="replace")[-2_000:]
    taken = os.strerror(errno.EADDRINUSE).lower() in printed.lower()
    kind = PortTakenError if taken else ServerFailedError
    return kind(f"uvicorn at {LOOPBACK}:{port} {what}; it printed:\n{printed}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End uvicorn by SIGTERM, and by SIGKILL whatever is left of it and its workers."""
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
