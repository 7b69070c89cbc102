"""Run Django's own tests of caches, sessions and middleware over this backend.

    python plugins/shardcache-django/tests/django_suite/run.py 5.2.9 --servers memcached --calls sync

downloads the source of that release, starts two servers and runs the tests. By default it does so for
two memcached, two Redis and one of each, through the sync methods and the `a…` methods. It prints what
passed and what did not, and ends with 1 if a test failed, was skipped without being named here, or passed
though it is named here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import NamedTuple

from shardcache import Client
from shardcache.testing.servers import Server, start_memcached, start_redis

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[3] / "tests" / "tools"))

from fetch_source import fetch  # noqa: E402 - a tool of the repository

SERVERS: dict[str, tuple[Callable[[], Server], ...]] = {
    "memcached": (start_memcached, start_memcached),
    "redis": (start_redis, start_redis),
    "mixed": (start_memcached, start_redis),
}
CALLS = ("sync", "async")
SOURCES = Path(tempfile.gettempdir()) / "shardcache-frameworks"

LABELS = (
    "suite_cases",
    *(
        f"cache.tests.{name}"
        for name in (
            "CacheUtils",
            "PrefixedCacheUtils",
            "CacheHEADTest",
            "CacheI18nTest",
            "PrefixedCacheI18nTest",
            "TestWithTemplateResponse",
            "CacheHandlerTest",
        )
    ),
    *(
        f"sessions_tests.tests.{name}"
        for name in (
            "CacheSessionTests",
            "CacheDBSessionTests",
            "CacheDBSessionWithTimeZoneTests",
            "SessionMiddlewareTests",
        )
    ),
    "template_tests.syntax_tests.test_cache",
)

# Tests that contradict what this backend promises, or the settings of this run, each with the reason.
NAMED = {
    "SessionMiddlewareTests.test_empty_session_saved": (
        "it looks for the session in the table of the database engine, and sessions are in the cache here"
    ),
}

# Tests that skip themselves, each with the reason.
EVICTION = "servers evict by themselves; MAX_ENTRIES is refused"
SKIPPED = {
    "ShardCacheTests.test_cull": EVICTION,
    "ShardCacheTests.test_zero_cull": EVICTION,
    "ShardCacheTests.test_cull_delete_when_store_empty": EVICTION,
}

# How many tests pass, by release: a test that is lost in silence would make it fewer.
PASSED = {"5.2": 417, "6.0": 417, "6.1": 439}


class Outcome(NamedTuple):
    """What became of the tests of one run."""

    servers: str
    calls: str
    seconds: float
    passed: list[str]
    failed: dict[str, str]
    skipped: dict[str, str]
    output: str
    unused: list[str]

    def faults(self, release: str) -> Iterator[str]:
        """Yield what is not as it should be."""
        for name, text in self.failed.items():
            if name not in NAMED:
                yield f"{name} failed:\n{text}"
        for name, reason in self.skipped.items():
            if name not in SKIPPED:
                yield f"{name} was skipped: {reason}"
        for name in NAMED.keys() & set(self.passed):
            yield f"{name} passed: it contradicts nothing, and must not be named"
        if not self.passed:
            yield f"no test ran:\n{self.output}"
        expected = PASSED.get(release.rpartition(".")[0])
        if expected not in (None, len(self.passed)):
            yield f"{len(self.passed)} tests passed, not {expected}"
        for name in self.unused:
            yield f"node {name} was not used"


def run(source: Path, servers: str, calls: str) -> Outcome:
    """Run the tests over new servers."""
    began = time.monotonic()
    with ExitStack() as stack:
        started = []
        for start in SERVERS[servers]:
            started.append(start())
            stack.callback(started[-1].stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results = folder / "results.json"
        urls = [server.url for server in started]
        path = [str(source), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "runtests.py", "--settings=suite_settings", "--parallel=1", *LABELS],
            cwd=source / "tests",
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                "SUITE_URLS": " ".join(urls),
                "SUITE_CALLS": calls,
                "SUITE_RESULTS": str(results),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = {"passed": [], "failed": {}, "skipped": {}}
        if results.exists():
            told = json.loads(results.read_text(encoding="utf-8"))
        unused = _unused(urls)
    return Outcome(
        servers, calls, time.monotonic() - began, **told, output=done.stdout, unused=unused
    )


def _unused(urls: Sequence[str]) -> list[str]:
    """Return the names of the nodes on which no key was ever found."""
    with Client(urls, timeout=10) as client:
        return [name for name, stats in client.stats().items() if not _hits(stats.server)]


def _hits(figures: object) -> int:
    """Return how many reads found their key, by the figures of a memcached or a Redis."""
    if not isinstance(figures, dict):
        return 0
    return int(figures.get("get_hits", figures.get("keyspace_hits", 0)))


def report(release: str, outcome: Outcome) -> bool:
    """Print an outcome; return whether it is as it should be."""
    named = NAMED.keys() & outcome.failed.keys()
    sys.stdout.write(
        f"django {release} over {outcome.servers}, {outcome.calls}: {len(outcome.passed)} passed,"
        f" {len(outcome.skipped)} skipped, {len(named)} named exceptions ({outcome.seconds:.0f} s)\n"
    )
    for name in sorted(named):
        sys.stdout.write(f"  {name}: {NAMED[name]}\n")
    faults = list(outcome.faults(release))
    for fault in faults:
        sys.stdout.write(f"  FAULT {fault}\n")
    return not faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; return the status of the program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("release", help="a release of Django, such as 5.2.9")
    parser.add_argument("--servers", choices=SERVERS, nargs="+", default=[*SERVERS])
    parser.add_argument("--calls", choices=CALLS, nargs="+", default=CALLS)
    parser.add_argument("--sources", type=Path, default=SOURCES, help="where sources are kept")
    parser.add_argument("--jobs", type=int, default=3, help="runs at once; they mostly sleep")
    chosen = parser.parse_args(arguments)
    source = fetch(f"django=={chosen.release}", chosen.sources)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        pairs = product(chosen.servers, chosen.calls)
        outcomes = list(pool.map(lambda pair: run(source, *pair), pairs))
    good = [report(chosen.release, outcome) for outcome in outcomes]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
