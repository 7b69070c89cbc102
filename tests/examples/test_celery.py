"""The tasks of the guide to Celery, in workers of each pool, over real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardcache.testing.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-it-in-workers.md"
TASKS = 40  # as many as the page tells
SEND = "import sys, tasks; [tasks.report.delay(sys.argv[1]) for _ in range(int(sys.argv[2]))]"
POOLS = {
    "prefork": ("--pool", "prefork", "--concurrency", "4"),
    "threads": ("--pool", "threads", "--concurrency", "8"),
    "gevent": ("--pool", "gevent", "--concurrency", "50"),
    "solo": ("--pool", "solo"),
}
# Each query leaves a line, and is slow.
QUERY = """\
    with open(os.environ["QUERIES"], "a") as queries:
        queries.write(f"{day} {os.getpid()}\\n")
    __import__("time").sleep(0.5)
"""


def tasks() -> str:
    """Return the module of the page, with a query."""
    (module,) = re.findall(
        r"^```python\n(# tasks\.py\n.*?)^```",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    before, found, after = module.partition('    return {"day": day}  # a slow query\n')
    assert found
    return f"{before}{QUERY}{found}{after}"


@contextmanager
def working(folder: Path, options: tuple[str, ...], environment: dict[str, str]) -> Iterator[Path]:
    """Run a worker, as on the page; yield its log."""
    log = folder / "log"
    command = ["-m", "celery", "-A", "tasks", "worker", *options, "--loglevel", "INFO"]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            eventually(lambda: " ready." in log.read_text(errors="replace"), within=60)
            yield log
        finally:
            worker.terminate()
            worker.wait(30)


def results(log: Path) -> list[str]:
    """Return the day in the result of each task that succeeded."""
    lines = log.read_text(errors="replace")
    return re.findall(r"Task tasks\.report\[.*\] succeeded .*\{'day': '(\w+)'\}", lines)


@pytest.mark.parametrize("pool", POOLS)
def test_forty_tasks_run_one_query(pool, make_redis, make_memcached, tmp_path):
    """They are sent at once; one runs the query, and the others get its result."""
    (tmp_path / "tasks.py").write_text(tasks(), encoding="utf-8")
    queries = tmp_path / "queries"
    queries.touch()
    broker = make_redis()
    nodes = ",".join(f"{node.host}:{node.port}" for node in (make_memcached() for _ in range(3)))
    environment = {
        "BROKER_URL": f"{broker.url}/1",
        "SHARDCACHE_URL": f"memcached://{nodes}",
        "QUERIES": str(queries),
    }
    with working(tmp_path, POOLS[pool], environment) as log:
        for day in ("monday", "tuesday"):
            command = [sys.executable, "-c", SEND, day, str(TASKS)]
            subprocess.run(command, cwd=tmp_path, env={**os.environ, **environment}, check=True)
        eventually(lambda: len(results(log)) == 2 * TASKS, within=60)
    assert sorted(results(log)) == ["monday"] * TASKS + ["tuesday"] * TASKS
    ran = [line.split()[0] for line in queries.read_text(encoding="utf-8").splitlines()]
    assert sorted(ran) == ["monday", "tuesday"]
