"""Run pymemcache's integration tests against our `HashClient`, and compare the counts with what is promised.

    python tests/compat/judge.py [VERSION]

Their tests take three kinds of clients. Each is ours here: `Client` is a `HashClient` over three
servers, `PooledClient` one over one server with `use_pooling`, and `HashClientSingle` one over one
server. The source of pymemcache is fetched for the run; nothing of it is kept in the repository.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pymemcache.client.base
import pymemcache.client.hash
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

from fetch_source import fetch  # noqa: E402 - it is a script beside this one
from shardcache.compat.pymemcache import HashClient  # noqa: E402 - as above
from shardcache.testing.servers import Server, start_memcached  # noqa: E402 - as above

VERSION = "4.0.0"  # the oldest that shardcache is for, and the newest there is

# Cases that ask for what `HashClient` does not promise, by the beginning of their names.
CONTRADICTIONS = {
    "test_misc": "cache_memlimit and `stats cachedump` are commands to one server: neither their"
    " HashClient nor ours has them",
}
# `outcome: number` of a run. pymemcache skips its three cases of TLS itself (its issue 39).
PROMISED = {"passed": 94, "xfailed": 6, "skipped": 3}


class Judge:
    """A pytest plugin that replaces their clients by ours, and counts."""

    def __init__(self, servers: list[Server]) -> None:
        hosts = [(server.host, server.port) for server in servers]
        self.counts: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}

        class Spread(HashClient):
            def __init__(self, _server: object, **settings: Any) -> None:
                super().__init__(hosts, **settings, timeout=10)

        class Pooled(HashClient):
            def __init__(self, server: Any, **settings: Any) -> None:
                super().__init__([server], **settings, use_pooling=True, timeout=10)

        # Their conftest subclasses the third one for a single server.
        pymemcache.client.base.Client = Spread
        pymemcache.client.base.PooledClient = Pooled
        pymemcache.client.hash.HashClient = HashClient
        # With gevent they pass its sockets without its patches, which ours refuses: see
        # `test_a_setting_that_cannot_work_is_refused`.
        sys.modules["gevent"] = None  # type: ignore[assignment]  # so that it cannot be imported

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Expect the failure of what is not promised."""
        for item in items:
            for name, reason in CONTRADICTIONS.items():
                if item.name.startswith(name):
                    item.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a case by its outcome."""
        if report.when == "call" or report.outcome != "passed":
            expected = hasattr(report, "wasxfail")
            outcome = "xfailed" if expected and report.skipped else report.outcome
            self.counts[outcome] += report.when == "call" or outcome != "passed"
            if outcome != "passed":
                skipped = (
                    report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
                )
                case = report.nodeid.partition("::")[2]
                self.reasons[case] = str(report.wasxfail if expected else skipped)


def judge(version: str) -> Judge:
    """Return the judge of a run of the tests of one version of pymemcache."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = fetch(f"pymemcache=={version}", directory)
        servers = [start_memcached() for _ in range(3)]
        for server in servers:
            stack.callback(server.stop)
        of_ours = Judge(servers)
        stack.enter_context(contextlib.chdir(source))
        arguments = [
            "-q",
            *(
                "-p",
                "no:cacheprovider",
                "-p",
                "no:asyncio",
                "--import-mode=importlib",
                "-c",
                os.devnull,
            ),
            *(
                "--rootdir",
                str(source),
                "--server",
                servers[0].host,
                "--port",
                str(servers[0].port),
            ),
            str(source / "pymemcache" / "test" / "test_integration.py"),
        ]
        pytest.main(arguments, plugins=[of_ours])
    return of_ours


def main() -> int:
    """Print what was found; return 1 if it is not what is promised."""
    version = sys.argv[1] if len(sys.argv) > 1 else VERSION
    found = judge(version)
    for case, reason in found.reasons.items():
        sys.stdout.write(f"{case}: {reason}\n")
    counts = dict(found.counts)
    verdict = "as promised" if counts == PROMISED else f"NOT as promised: {PROMISED}"
    sys.stdout.write(f"pymemcache {version}: {counts}, {verdict}\n")
    return int(counts != PROMISED)


if __name__ == "__main__":
    sys.exit(main())
