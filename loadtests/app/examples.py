"""The applications of docs/examples, each under the web server that people use, with a report that expires soon.

::

    with serving(EXAMPLES["Django"], urls, ttl=2) as served:
        ask(served.url + "/reports/7")
        served.runs()  # of the report's function, in all workers
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.serving import (
    KEEP_ALIVE_SECONDS,
    LOADTESTS,
    PROTOCOL,
    Serving,
    check_dependencies,
    temporary_directory,
    worker_at,
)
from app.webserver import WebServer
from shardcache.testing.servers import LOOPBACK

DOCS: Final = LOADTESTS.parent / "docs" / "examples"
PLUGINS: Final = LOADTESTS.parent / "plugins"
WORKERS: Final = 2
PATIENCE: Final = (
    10.0  # seconds for a call of a cache: a worker that has to wait for a core is no fault
)

GUNICORN: Final = (
    *("gunicorn", "--worker-class=gthread", "--threads=8", f"--keep-alive={KEEP_ALIVE_SECONDS}"),
    *("--graceful-timeout=1", "--bind={host}:{port}"),
)
UVICORN: Final = (
    *("uvicorn", "--no-access-log", f"--http={PROTOCOL}", "--host={host}", "--port={port}"),
    f"--timeout-keep-alive={KEEP_ALIVE_SECONDS}",
)


@dataclass(frozen=True, slots=True)
class Example:
    """An application of docs/examples: the file in its folder, the application in that, and its web server."""

    folder: str
    file: str
    variable: str
    server: Sequence[str]
    needed: Sequence[str]

    @property
    def application(self) -> str:
        """Return its name for a web server."""
        return f"{self.file.removesuffix('.py')}:{self.variable}"

    def command(self, port: int) -> list[str]:
        """Return the command line of its web server."""
        module, *options = self.server
        return [
            *(sys.executable, "-m", module, f"--workers={WORKERS}"),
            *(option.format(host=LOOPBACK, port=port) for option in options),
            self.application,
        ]


EXAMPLES: Final[Mapping[str, Example]] = {
    "Django": Example("django", "shop.py", "application", GUNICORN, ("django", "gunicorn")),
    "Flask": Example("flask", "main.py", "app", GUNICORN, ("flask_caching", "gunicorn")),
    "FastAPI": Example("fastapi", "main.py", "app", UVICORN, ("fastapi", "uvicorn")),
}


@contextmanager
def serving(name: str, urls: Sequence[str], *, ttl: float) -> Iterator[Serving]:
    """Serve an example over the cache nodes `urls`; its report is fresh for `ttl` seconds.

    Runs of the report's function are in the ledger, for the page `name`. Raise
    `DependencyMissingError` without what it needs, and `ServerFailedError`, which shows what was
    printed, when it does not answer.
    """
    example = EXAMPLES[name]
    check_dependencies(example.needed)
    with temporary_directory() as directory:
        ledger = directory / "runs"
        (directory / example.file).write_text(counted_source(name, ttl), encoding="utf-8")
        environment = {
            **os.environ,
            "SECRET_KEY": "only for load tests, and long enough",
            "SHARDCACHE_URL": " ".join(urls),
            "SHARDCACHE_TIMEOUT": str(PATIENCE),
            # Else two examples on the same nodes would share a report: their modules have one name.
            "SHARDCACHE_NAMESPACE": example.folder,
            "APP_LEDGER": str(ledger),
            "PYTHONPATH": _path(directory, example),
        }
        log = directory / "output.log"
        server = WebServer(name, example.command, worker_at, environment, log)
        with server.running() as (url, pid):
            yield Serving(url, pid, ledger)


def counted_source(name: str, ttl: float) -> str:
    """Return the source of an example whose report expires soon, and whose runs are counted.

    Raise `ValueError` if the example has not what is to be changed.
    """
    example = EXAMPLES[name]
    text = (DOCS / example.folder / example.file).read_text(encoding="utf-8")
    for before, after in (
        ("@cached(ttl=30, stale=60, lock=True", f"@cached(ttl={ttl:g}, stale=60, lock=True"),
        ("import time\n", "import time\n\nfrom app.ledger import append_run\n"),
        (
            "    time.sleep(0.2)\n",
            f'    append_run(os.environ["APP_LEDGER"], "{name}")\n    time.sleep(0.2)\n',
        ),
    ):
        if text.count(before) != 1:
            raise ValueError(f"{example.folder}/{example.file} has not one {before!r}")
        text = text.replace(before, after)
    return text


def _path(directory: Path, example: Example) -> str:
    """Return where Python finds the example, the ledger and the adapter of its framework."""
    adapter = PLUGINS / f"shardcache-{example.folder}"
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join(filter(None, (str(directory), inherited, str(LOADTESTS), str(adapter))))
