"""The fixtures of the browser tests: a Chromium, and Locust with our kit for it to look at.

| fixture | value |
|---|---|
| `run_locust` | runs Locust with our kit, alone or with workers, during a block; returns the URL of its page |
| `page` | a headless Chromium, the same for all tests of a module, as a `Page` |

A plain `pytest` leaves this directory out (`tests/conftest.py`), because it needs Selenium, Locust and a
Chromium. Run `pytest tests/browser`: a program that is missing is a failure, never a skip.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from browser.pages import Page, open_page
from browser.runs import SHORT
from shardcache.testing.servers import LOOPBACK, free_port

LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locust" / "locustfile.py"
PATIENCE = 60.0
MARK = "SHARDCACHE_TEST_PROCESS"  # in the environment of all that a test starts, and of children

SCREENSHOTS = pytest.StashKey[Path]()
OPENED = pytest.StashKey[Page]()


@pytest.fixture(scope="session")
def run_locust(tmp_path_factory) -> Callable[..., AbstractContextManager[str]]:
    """Return a context manager that runs Locust during a block, and yields the address of its page."""

    @contextlib.contextmanager
    def run(*, workers: int = 0) -> Iterator[str]:
        port = free_port()
        home = tmp_path_factory.mktemp("locust")
        web = ["--web-host", LOOPBACK, "--web-port", str(port)]
        with running_locust(home, *SHORT, *web, *several(workers)) as process:
            url = f"http://{LOOPBACK}:{port}"
            wait_until_served(url, process, home / "output.log")
            yield url

    return run


@pytest.fixture(scope="module")
def page(request, tmp_path_factory) -> Iterator[Page]:
    """Yield a browser with an empty profile; it ends with the module, with all that it started."""
    profile = tmp_path_factory.mktemp("chromium")
    with marked() as environment, open_page(profile, environment) as page:
        request.config.stash[OPENED] = page
        yield page
        del request.config.stash[OPENED]


@pytest.fixture(scope="session", autouse=True)
def _screenshots(request, tmp_path_factory) -> None:
    request.config.stash[SCREENSHOTS] = tmp_path_factory.mktemp("screenshots")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Add the path of a screenshot to the report of a test that failed."""
    report = yield
    page = item.config.stash.get(OPENED, None)
    if report.failed and report.when != "teardown" and page is not None:
        path = item.config.stash[SCREENSHOTS] / f"{item.name}.png"
        saved = page.browser.save_screenshot(str(path))
        report.sections.append(("screenshot", str(path) if saved else "none could be taken"))
    return report


@contextlib.contextmanager
def running_locust(home: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run Locust with our kit, without the configuration of this machine or user."""
    with marked() as environment, (home / "output.log").open("ab") as output:
        foreign = ("SHARDCACHE_", "LOCUST_")
        kept = {name: value for name, value in environment.items() if not name.startswith(foreign)}
        process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", LOCUSTFILE, *arguments],
            cwd=home,
            env={**kept, MARK: environment[MARK], "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE / 2)
            process.kill()
            process.wait()


def several(workers: int) -> list[str]:
    """Return the options of a master with `workers` on this machine; none for a Locust alone."""
    if not workers:
        return []
    port = str(free_port())
    bind = ["--master-bind-host", LOOPBACK, "--master-bind-port", port, "--master-port", port]
    return ["--processes", str(workers), *bind]


@contextlib.contextmanager
def marked() -> Iterator[dict[str, str]]:
    """Yield an environment whose processes are killed at the end."""
    mark = str(uuid.uuid4())
    try:
        yield {**os.environ, MARK: mark}
    finally:
        kill_all(mark)


def kill_all(mark: str) -> None:
    """Kill all processes with a mark, and wait until they are gone."""
    deadline = time.monotonic() + PATIENCE
    while pids := pids_with(mark):
        assert time.monotonic() < deadline, f"processes that cannot be killed: {pids}"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def pids_with(mark: str) -> list[int]:
    """Return the processes that have a mark in their environment; one that has ended has none."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def wait_until_served(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until the page is served; fail with the output of Locust when it is not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"no page at {url}; Locust said:\n{output.read_text(errors='replace')}")
