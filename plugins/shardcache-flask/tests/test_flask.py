"""A Flask application uses the cache by its configuration alone."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence

import pytest
from flask import Flask, jsonify
from flask_caching import Cache
from shardcache_flask import FlaskCache, ShardCache

from lock_service import LockService, running
from shardcache import Client, ConfigurationError
from shardcache.settings import releases
from shardcache.testing.servers import Server

URL = "memory://a,b,c"


def make(**config: object) -> tuple[Flask, Cache]:
    """Return an application with our cache, and Flask-Caching's face of it."""
    app = Flask(__name__)
    app.config.update(CACHE_TYPE="shardcache_flask.FlaskCache", **config)
    return app, Cache(app)


def backend(app: Flask, cache: Cache) -> ShardCache:
    """Return our cache of an application."""
    return app.extensions["cache"][cache]


def test_the_configuration_is_all_it_needs():
    """With Flask-Caching's own names for what it hands over."""
    app, cache = make(
        CACHE_SHARDCACHE_URL=[URL, "memory://d"],
        CACHE_KEY_PREFIX="web:",
        CACHE_DEFAULT_TIMEOUT=40,
        CACHE_IGNORE_ERRORS=True,
        CACHE_OPTIONS={"strategy": "ketama"},
    )
    ours = backend(app, cache)
    assert isinstance(ours, FlaskCache)
    assert repr(ours.client) == "<Client [4 nodes] ketama>"
    assert ours.key_prefix == "web:"
    assert ours.ignore_delete_many_errors
    with app.app_context():
        cache.set("k", 1)
    assert ours.client.ttl("k") == pytest.approx(40, abs=5)


def test_arguments_by_position():
    """`CACHE_ARGS` are the first ones of a `ShardCache`."""
    app, cache = make(CACHE_ARGS=[URL, 40], SECRET_KEY="x")
    assert backend(app, cache).default_timeout == 40
    with app.app_context():
        assert cache.set("k", {object})


def test_a_client_of_the_application():
    """One client for the cache, for cached functions and for locks."""
    with Client(URL, clearable=True) as client:
        app, cache = make(CACHE_OPTIONS={"client": client}, SECRET_KEY="x")
        with app.app_context():
            cache.set("k", 1)
        assert client.get("flask_cache_k") == 1


def test_another_service_keeps_the_locks():
    """Named by the client's own setting."""
    with running(LockService()) as locks:
        app, cache = make(CACHE_SHARDCACHE_URL=URL, CACHE_OPTIONS={"locks": locks})
        with backend(app, cache).client.lock("report") as lease:
            assert lease.fence == 1


@pytest.mark.servers
@pytest.mark.parametrize("key", ["dev", b"dev"])
def test_the_secret_key_signs(key: str | bytes, urls: Sequence[str]):
    """Nothing that another secret signed is read, and so no pickle of a stranger is."""
    values = {}
    for name, secret in [("ours", key), ("same", key), ("other", "guess")]:
        app, cache = make(CACHE_SHARDCACHE_URL=urls, SECRET_KEY=secret)
        with app.app_context():
            if name == "ours":
                assert cache.set("k", {"any": {int}})
            values[name] = cache.get("k")
    assert values == {"ours": {"any": {int}}, "same": {"any": {int}}, "other": None}


@pytest.mark.servers
def test_a_secret_key_is_changed_without_a_cold_cache(urls: Sequence[str]):
    """The former one, among the fallbacks, still reads, and the new one signs."""
    old, cache = make(CACHE_SHARDCACHE_URL=urls, SECRET_KEY="old")
    with old.app_context():
        cache.set("before", [1])
    new, cache = make(CACHE_SHARDCACHE_URL=urls, SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"])
    with new.app_context():
        assert cache.get("before") == [1]
        cache.set("after", [2])
    last, cache = make(CACHE_SHARDCACHE_URL=urls, SECRET_KEY="new")
    with last.app_context():
        assert cache.get("before") is None
        assert cache.get("after") == [2]


@pytest.mark.parametrize("fallbacks", ["former", ["former", ""], [None], [7]])
def test_fallbacks_that_everybody_can_guess_are_refused(fallbacks: object):
    """Text is a list of its letters, and an empty secret is known."""
    with pytest.raises(ConfigurationError, match="SECRET_KEY_FALLBACKS: must be a list"):
        make(CACHE_SHARDCACHE_URL=URL, SECRET_KEY="new", SECRET_KEY_FALLBACKS=fallbacks)


@pytest.mark.parametrize(
    ("key", "fallbacks", "named"),
    [
        ("short", [], ["SECRET_KEY"]),
        (b"a long one, made up at random", ["short"], ["SECRET_KEY_FALLBACKS"]),
        ("a long one, made up at random", [b"and its predecessor"], []),
    ],
)
def test_a_short_secret_key_is_logged(
    caplog: pytest.LogCaptureFixture, key: str | bytes, fallbacks: list[object], named: list[str]
):
    """Once for an application, and without the key; it is derived all the same."""
    app, cache = make(CACHE_SHARDCACHE_URL=URL, SECRET_KEY=key, SECRET_KEY_FALLBACKS=fallbacks)
    with app.app_context():
        assert cache.set("k", {object})
    assert [each.partition(":")[0] for each in caplog.messages] == named
    assert "short" not in caplog.text.replace("shorter than", "")
    assert {record.levelname for record in caplog.records} <= {"WARNING"}


def test_a_secret_key_that_is_no_text_is_named():
    """A number, as from a file of settings."""
    with pytest.raises(ConfigurationError, match="SECRET_KEY: must be text or bytes, not int"):
        make(CACHE_SHARDCACHE_URL=URL, SECRET_KEY=7)


@pytest.mark.servers
def test_another_codec_is_not_signed(urls: Sequence[str]):
    """The application's secret is for pickles: other programs read its JSON."""
    options = {"codec": "json", "clearable": False}
    app, cache = make(CACHE_SHARDCACHE_URL=urls, CACHE_OPTIONS=options, SECRET_KEY="x")
    with app.app_context():
        cache.set("k", {"a": 1})
    with Client(urls, codec="json") as other:
        assert other.get("flask_cache_k") == {"a": 1}


@pytest.mark.parametrize("options", [{"codec": "pickle"}, {"codec": "pickle", "secret": "y"}])
def test_a_codec_of_pickles_has_the_secret(options: dict[str, object]):
    """The application's, unless it has one for the cache."""
    app, cache = make(CACHE_SHARDCACHE_URL=URL, CACHE_OPTIONS=options, SECRET_KEY="x")
    with app.app_context():
        assert cache.set("k", {int})


@pytest.mark.parametrize(
    ("config", "ignored"), [({"CACHE_IGNORE_ERRORS": True}, True), ({}, False)]
)
def test_errors_are_ignored_as_configured(config: dict[str, object], *, ignored: bool):
    """Also by releases that do not hand it over among the options."""
    cache = FlaskCache(None, {"CACHE_SHARDCACHE_URL": URL, **config}, [], {})
    assert cache.ignore_delete_many_errors is ignored


@pytest.mark.servers
def test_pages_stay_up_when_a_node_dies(
    urls: Sequence[str], servers: Sequence[Server], caplog: pytest.LogCaptureFixture
):
    """Views that return text and responses, memoized functions, and a fragment of a template."""
    app, cache = make(CACHE_SHARDCACHE_URL=urls, SECRET_KEY="x")
    runs = itertools.count()

    @app.get("/page/<int:number>")
    @cache.cached()
    def page(number: int) -> object:
        return jsonify(number=number, run=next(runs))

    @cache.memoize()
    def square(number: int) -> int:
        next(runs)
        return number * number

    browser = app.test_client()
    answers = [browser.get(f"/page/{n}").json for n in range(20)]
    assert [browser.get(f"/page/{n}").json for n in range(20)] == answers
    with app.app_context():
        assert [square(n) for n in range(20)] == [square(n) for n in range(20)]
    assert next(runs) == 40
    servers[0].kill()
    assert [browser.get(f"/page/{n}").json["number"] for n in range(20)] == list(range(20))
    with app.app_context():
        assert [square(n) for n in range(20)] == [n * n for n in range(20)]
    assert 41 < next(runs) < 81
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_without_a_secret_key_pages_are_text(caplog: pytest.LogCaptureFixture):
    """A response object is served all the same, and the log tells how to store it."""
    app, cache = make(CACHE_SHARDCACHE_URL=URL)
    runs = itertools.count()
    views: dict[str, Callable[[], object]] = {
        "text": lambda: f"run {next(runs)}",
        "response": lambda: jsonify(run=next(runs)),
    }
    for name, view in views.items():
        app.add_url_rule(f"/{name}", name, cache.cached()(view))
    browser = app.test_client()
    assert browser.get("/text").text == browser.get("/text").text == "run 0"
    assert [browser.get("/response").json["run"] for _ in range(2)] == [1, 2]
    assert "cannot store flask.wrappers.Response" in caplog.text
    assert "with app.config['SECRET_KEY'], set before the cache is initialised" in caplog.text


def test_wrong_configuration_is_named(monkeypatch: pytest.MonkeyPatch):
    """When the application is created."""
    with pytest.raises(ConfigurationError, match="CACHE_SHARDCACHE_URL is missing"):
        make()
    with pytest.raises(ConfigurationError, match=r"no such option: 'colour' \(known: "):
        make(CACHE_SHARDCACHE_URL=URL, CACHE_OPTIONS={"colour": "red"})
    old = {"cachelib": "0.17.0", "Flask-Caching": "1.10.1"}
    monkeypatch.setattr(releases, "version", old.__getitem__)
    with pytest.raises(ConfigurationError, match=r"needs Flask-Caching 2.1 or newer, and 1.10.1"):
        make(CACHE_SHARDCACHE_URL=URL)
