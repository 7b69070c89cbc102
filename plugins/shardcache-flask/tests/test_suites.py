"""cachelib's and Flask-Caching's own tests pass, those of the release that is installed.

They are taken from the source distributions, which are downloaded. Which tests do not pass, and why,
is written here, and nothing else is left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from fetch_source import fetch
from run_suite import Outcome, run_suite

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SUITES = Path(__file__).parent / "suites"

# Both import it to start servers of their own, which we have already.
XPROCESS = "class ProcessStarter: ..."

# Tests by release; of a release that is not listed, at least as many pass as of the newest one.
CACHELIB = {"0.9.0": 44, "0.17.0": 84}
FLASK_CACHING = {"2.1.0": 96, "2.5.1": 172}

# Flask-Caching's modules about its own backends, which are not about ours: their constructors
# (`test_init`), `CACHE_TYPE = "cachelib.…"` (`test_cachelib`), RedisCache and others (`test_backend_cache`,
# whose generic tests `flask_caching_backend` runs), and annotations of Python 3.14.
NOT_OURS = {
    "test_init.py",
    "test_cachelib.py",
    "test_backend_cache.py",
    "test_py314_annotations.py",
}

# The tests that do not pass, and why.
OWN_REDIS = "about Flask-Caching's RedisCache"
EXCEPTIONS = {
    "test_basic_app::test_init_app_multi_apps": OWN_REDIS,
    "test_basic_app::test_app_redis_cache_backend_url_default_db": OWN_REDIS,
    "test_basic_app::test_app_redis_cache_backend_url_custom_db": OWN_REDIS,
    "test_basic_app::test_app_redis_cache_backend_url_explicit_db_arg": OWN_REDIS,
    "test_cache::test_cache_unlink": OWN_REDIS,
    "test_serializer::test_default_keeps_the_cachelib_serializer": "the default is the codec",
    "test_serializer::test_values_are_stored_in_the_configured_format": "looks into SimpleCache",
    # Of Flask-Caching before 2.5, whose `delete_many` stops at the first key that is missing. Ours
    # deletes every key, as cachelib's own caches and later releases do.
    "test_cache::test_cache_delete_many": "wants the keys after a missing one kept",
}


@pytest.fixture(params=["memcached", pytest.param("redis", marks=pytest.mark.slow)])
def server_kind(request):
    """Return memcached for every run, and Redis for those of slow tests."""
    return request.param


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Return the directory for what is downloaded."""
    return tmp_path_factory.mktemp("sources")


def test_cachelib(sources, tmp_path, urls):
    """Its mixins for all caches, with and without a secret and a prefix."""
    source = fetch(f"cachelib=={version('cachelib')}", sources)
    shutil.copytree(source / "tests", tmp_path, dirs_exist_ok=True)
    (tmp_path / "xprocess.py").write_text(XPROCESS)
    shutil.copy(SUITES / "cachelib_mixins.py", tmp_path / "test_shardcache.py")
    judge(
        "cachelib", run_suite(tmp_path, "test_shardcache.py", SUITE_URLS=" ".join(urls)), CACHELIB
    )


def test_flask_caching(sources, tmp_path, urls):
    """Its generic tests of a backend, and those of its application, decorators and templates."""
    source = fetch(f"Flask-Caching=={version('Flask-Caching')}", sources)
    shutil.copytree(source / "tests", tmp_path, dirs_exist_ok=True)
    (tmp_path / "xprocess.py").write_text(XPROCESS)
    ours = tmp_path / "ours"  # below its `conftest.py`, some of whose fixtures ours replaces
    ours.mkdir()
    shutil.copy(SUITES / "flask_caching_conftest.py", ours / "conftest.py")
    shutil.copy(SUITES / "flask_caching_backend.py", ours / "test_flask_cache.py")
    for module in tmp_path.glob("test_*.py"):
        if module.name not in NOT_OURS:
            shutil.copy(module, ours)
    outcome = run_up_to(3, lambda: run_suite(tmp_path, "ours", SUITE_URLS=" ".join(urls)))
    judge("Flask-Caching", outcome, FLASK_CACHING)


def run_up_to(times: int, run: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of a run without a failure that has no reason, or of the last one.

    memcached counts whole seconds, and tests such as `test_cached_view` look at a value whose last
    second has begun.
    """
    for _ in range(times):
        outcome = run()
        if outcome.failed <= EXCEPTIONS.keys():
            break
    return outcome


def judge(framework: str, outcome: Outcome, counts: dict[str, int]) -> None:
    """Print the figures of a suite; fail if they are not those that are written above."""
    release = version(framework)
    print(f"{framework} {release}: {outcome.passed} passed")  # noqa: T201 - the figure to show
    for name in sorted(outcome.skipped | outcome.failed):
        print(f"not passed: {name}: {EXCEPTIONS.get(name, 'no reason')}")  # noqa: T201 - as above
    assert outcome.skipped | outcome.failed <= EXCEPTIONS.keys(), outcome.output
    if release in counts:
        assert outcome.passed == counts[release], outcome.output
    else:
        assert outcome.passed >= max(counts.values()), outcome.output
