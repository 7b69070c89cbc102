"""The fixtures, markers and Hypothesis profiles of all tests.

The fixtures of servers are those that users have: `shardcache.testing.pytest_plugin`. Besides them:

| fixture | what it is |
|---|---|
| `tls` | a certificate for 127.0.0.1, ::1 and localhost, its key and its authority, as files |
| `mode` | each of the two clients in turn: `make_client(mode, …)` |

A missing server is a failure that says how to install it, never a skip. `-m "not servers"` runs the
tests that need none. A test is marked `servers` when it depends on one of these fixtures. A test
that asks for one by a computed name is skipped instead; one that starts a server in any other way
carries the marker in its own file, or fails.

Hypothesis runs under the profile `ci`. `--hypothesis-profile dev`, or `HYPOTHESIS_PROFILE=dev`, tries a
tenth of the examples.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import NoReturn

import hypothesis
import pytest
import trustme

from shardcache.testing import servers
from shardcache.testing.driving import MODES, Mode
from shardcache.testing.pytest_plugin import *  # noqa: F403 - fixtures
from shardcache.testing.servers import Tls

EXAMPLES = 100

# They need a browser, and are run when they are named: `pytest tests/browser`.
collect_ignore = ["browser"]
if importlib.util.find_spec("pylibmc") is None:
    # It has no wheels for Python 3.12 and later; there nutcracker is asked the same questions.
    collect_ignore.append("compatibility/test_pylibmc.py")

# How fast a busy machine is today must not decide whether a property holds.
hypothesis.settings.register_profile(
    "ci",
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "dev", hypothesis.settings.get_profile("ci"), max_examples=EXAMPLES // 10
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_finish() -> None:
    """Leave all that is loaded so far out of garbage collections: many tests ask for one."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark tests by their fixtures, and scale the state machines to the profile."""
    for item in items:
        if "_may_start_servers" in getattr(item, "fixturenames", ()):
            item.add_marker("servers")
    for machine in {item.cls for item in items if isinstance(item, pytest.Function)}:
        own = getattr(machine, "settings", None)
        if isinstance(own, hypothesis.settings):
            machine.settings = hypothesis.settings(own, max_examples=_scale(own.max_examples))


def _scale(examples: int) -> int:
    """Return how many of the examples that a test states the profile tries, at least its own number."""
    profile = hypothesis.settings.default.max_examples
    return min(examples, max(profile, examples * profile // EXAMPLES))


@pytest.fixture(scope="session", autouse=True)
def _servers_are_wanted(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Yield whether this run may start servers; when it may not, starting one is a failure."""
    wanted = "not servers" not in request.config.getoption("markexpr")
    with pytest.MonkeyPatch.context() as patch:
        if not wanted:
            patch.setattr(servers, "find_binary", _refuse)
        yield wanted


def _refuse(binary: str) -> NoReturn:
    pytest.fail(f"this test starts {binary}, but is not marked `servers`")


@pytest.fixture(scope="session")
def _may_start_servers(*, _servers_are_wanted: bool) -> None:
    if not _servers_are_wanted:
        pytest.skip("starts servers")


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Return a server certificate and the authority that signed it."""
    directory = tmp_path_factory.mktemp("tls")
    files = Tls(directory / "server.pem", directory / "server.key", directory / "authority.pem")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "::1", "localhost")
    files.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    files.key.write_bytes(issued.private_key_pem.bytes())
    files.authority.write_bytes(authority.cert_pem.bytes())
    return files


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    """Return each of the two clients in turn."""
    return request.param
