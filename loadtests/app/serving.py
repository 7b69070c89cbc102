"""The application under uvicorn, on a free port, for as long as a block runs.

::

    with serving(urls, ttl=5, stale=30, source_seconds=0.2) as served:
        ask(served.url + "/reports/7")
        served.runs()  # of the source, in all workers
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from app.ledger import Run, read_runs
from app.webserver import Command, WebServer, directory_for_files
from shardcache import CachePolicy, Settings
from shardcache.testing.servers import LOOPBACK

LOADTESTS: Final = Path(__file__).parents[1]
APPLICATION: Final = "app.main:app"
PROTOCOL: Final = "app.nodelay:NoDelayProtocol"
NEEDED: Final = ("fastapi", "uvicorn")
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
    """An application while it runs: `pid` is the web server's own, the parent of the workers."""

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
    check_dependencies(NEEDED)
    CachePolicy(ttl=ttl, stale=stale)
    with temporary_directory() as directory:
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
        log = directory / "output.log"
        server = WebServer("uvicorn", _command(workers), worker_at, environment, log)
        with server.running() as (url, pid):
            yield Serving(url, pid, ledger)


def check_dependencies(needed: Iterable[str]) -> None:
    """Raise `DependencyMissingError` for the first package that is not installed."""
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise DependencyMissingError(package)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a directory for the files of an application, which is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="app-", dir=directory_for_files()))
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


def _command(workers: int) -> Command:
    """Return the command line of uvicorn for a port."""

    def command(port: int) -> list[str]:
        options = {
            "app-dir": LOADTESTS,
            "http": PROTOCOL,
            "host": LOOPBACK,
            "port": port,
            "workers": workers,
            "timeout-keep-alive": KEEP_ALIVE_SECONDS,
        }
        return [
            *[sys.executable, "-m", "uvicorn", APPLICATION, "--no-access-log"],
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    return command


def worker_at(port: int) -> int | None:
    """Return the process that answers `/healthz` on a port, if it is a worker of an application."""
    try:
        with closing(HTTPConnection(LOOPBACK, port, timeout=1)) as connection:
            connection.request("GET", "/healthz")
            return int(json.load(connection.getresponse())["pid"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None
