"""dogpile.cache's own tests of a backend pass, those of the release that is installed."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from run_suite import run_suite

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SUITE = Path(__file__).parent / "suites" / "dogpile_suite.py"

# Tests by release; of a release that is not listed, at least as many as of the newest one.
COUNTS = {"1.3.0": 54, "1.5.0": 56}


@pytest.fixture(params=["memcached", pytest.param("redis", marks=pytest.mark.slow)])
def server_kind(request):
    """Return memcached for every run, and Redis for those of slow tests."""
    return request.param


def test_dogpile(tmp_path, urls):
    """A backend, a backend with a serializer, and a mutex: all tests, none skipped."""
    shutil.copy(SUITE, tmp_path / "test_shardcache.py")
    outcome = run_suite(tmp_path, SUITE_URLS=" ".join(urls))
    release = version("dogpile.cache")
    print(f"dogpile.cache {release}: {outcome.passed} passed")  # noqa: T201 - the figure to show
    assert not outcome.skipped | outcome.failed, outcome.output
    if release in COUNTS:
        assert outcome.passed == COUNTS[release], outcome.output
    else:
        assert outcome.passed >= max(COUNTS.values()), outcome.output
