"""What a project may write into `CACHES`, and what the errors say of the rest."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import traceback

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from shardcache_django import ShardCache
from shardcache_django.configuration import KNOWN, client_arguments, derive_secrets

from shardcache import Node
from shardcache.core.codecs import Msgpack

URL = "memcached://10.0.0.1,10.0.0.2"


def names_of(location):
    """Return the names of the nodes of a location."""
    return [node.name for node in client_arguments(location, {})["nodes"]]


@pytest.mark.parametrize(
    "location",
    [
        URL,
        "memcached://10.0.0.1 memcached://10.0.0.2",
        ["memcached://10.0.0.1", "memcached://10.0.0.2"],
        ("memcached://10.0.0.1", Node("memcached://10.0.0.2")),
        [{"url": "memcached://10.0.0.1"}, "memcached://10.0.0.2"],
    ],
)
def test_location_is_urls_and_nodes(location):
    """One URL with several hosts, several URLs, or what a client takes."""
    assert names_of(location) == ["10.0.0.1:11211", "10.0.0.2:11211"]


def test_settings_may_stand_in_the_url_and_options_override_them():
    """What neither names is as Django's users expect."""
    location = f"{URL}?strategy=pymemcache&timeout=2&pool_size=5"
    arguments = client_arguments(location, {"pool_size": 9, "namespace": "shop"})
    assert arguments["strategy"] == "pymemcache"
    assert arguments["timeout"].call == 2.0
    assert (arguments["pool_size"], arguments["namespace"]) == (9, "shop")
    assert (arguments["codec"], arguments["read_unsigned"]) == ("pickle", "plain")
    assert client_arguments(f"{URL}?codec=json&read_unsigned=no", {})["codec"] == "json"


@pytest.mark.parametrize("location", [f"{URL}?timeout=2", URL])
def test_connect_timeout_is_part_of_the_timeout(location):
    """In a URL, and in the options."""
    timeout = client_arguments(location, {"connect_timeout": 0.1})["timeout"]
    assert (timeout.call, timeout.connect) == (2.0 if "?" in location else 0.5, 0.1)
    timeout = client_arguments(f"{URL}?connect_timeout=0.2", {})["timeout"]
    assert timeout.connect == 0.2


def test_every_option_is_a_parameter_of_a_client(use):
    """With one more, which a client takes as a part of `timeout`."""
    cache = use(URL, OPTIONS={"codec": Msgpack(), "strategy": "jump", "on_error": "raise"})
    assert repr(cache.client) == "<Client [2 nodes] jump>"
    assert {"strategy", "pool_size", "ssl_context", "secret", "observers"} < KNOWN
    assert "connect_timeout" in KNOWN


@pytest.mark.parametrize(
    ("location", "options", "message"),
    [
        (URL, {"strateggy": "jump"}, r"OPTIONS: strateggy: no such option \(known: clearable, .*did you mean 'strategy'"),
        (URL, {"CLIENT_CLASS": "x"}, r"OPTIONS: CLIENT_CLASS: no such option \(known: "),
        (URL, {"MAX_ENTRIES": 9}, "OPTIONS: MAX_ENTRIES: memcached and Redis evict by themselves"),
        (URL, {"default_ttl": 9}, "OPTIONS: default_ttl: write TIMEOUT"),
        (URL, {"nodes": URL}, "OPTIONS: nodes: LOCATION names the nodes"),
        (URL, {"pool_size": 0}, "pool_size: must be at least 1"),
        (f"{URL}?default_ttl=9", {}, r"LOCATION: \?default_ttl=: write TIMEOUT"),
        ("127.0.0.1:11211", {}, "LOCATION: a URL needs a scheme, as in memcached://"),
        ("", {}, "LOCATION: names no nodes: write URLs"),
        ([], {}, "LOCATION: names no nodes: write URLs"),
        (None, {}, "LOCATION: must be a list of URLs, not NoneType"),
        ("memory://a,b", {}, "LOCATION: a memory:// node .*LocMemCache"),
        ([Node("memory://a")], {}, "LOCATION: a memory:// node .*LocMemCache"),
        (URL, {"codec": "pickle", "secret": None}, "needs a secret"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(use, location, options, message):
    """With what is known, and where it belongs."""
    with pytest.raises(ImproperlyConfigured, match=f"CACHES: .*{message}"):
        use(location, OPTIONS=options)


@pytest.mark.parametrize("options", [None, ["strategy=jump"], "strategy=jump"])
def test_options_that_are_no_dict_are_named(options):
    """Django's own class would raise an `AttributeError` for them."""
    kind = type(options).__name__
    with pytest.raises(
        ImproperlyConfigured, match=f"^CACHES: OPTIONS: must be a dict, not {kind}$"
    ):
        ShardCache(URL, {"OPTIONS": options})


def test_no_variable_of_ours_shows_a_secret(use):
    """An error reporter that collects local variables finds neither the password nor the key."""
    with pytest.raises(ImproperlyConfigured) as caught:
        use("redis://:hunter2@10.0.0.1", OPTIONS={"pool_size": 0, "secret": "hunter2" * 3})
    error: BaseException | None = caught.value
    ours = []
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        ours += [frame for frame in frames if frame.f_globals["__name__"].startswith("shardcache")]
        error = error.__cause__
    assert len(ours) > 3
    assert [frame for frame in ours if "hunter2" in repr(frame.f_locals)] == []


def test_all_faults_are_listed_at_once(use):
    """One look is enough to correct them."""
    with pytest.raises(ImproperlyConfigured) as caught:
        use("", OPTIONS={"strateggy": 1, "nodes": 2})
    assert all(word in str(caught.value) for word in ("LOCATION", "strateggy", "nodes"))


@override_settings(SECRET_KEY="x", SECRET_KEY_FALLBACKS=["", b""])
def test_an_empty_fallback_signs_nothing():
    """Everybody knows the secret that is derived from it."""
    assert derive_secrets() == [hashlib.sha256(b"shardcache:x").digest()]


@override_settings(SECRET_KEY="x", SECRET_KEY_FALLBACKS=[b"old"])
def test_secrets_are_derived_from_djangos(use):
    """A short key is enough for Django, and a cache's secret tells nothing about it."""
    new, old = (hashlib.sha256(b"shardcache:" + key).digest() for key in (b"x", b"old"))
    assert derive_secrets() == [new, old]
    assert client_arguments(URL, {})["secret"] == [new, old]
    assert client_arguments(URL, {"secret": "sixteen bytes or more"})["secret"] != [new, old]
    use(URL)


def test_a_short_secret_of_its_own_is_derived(caplog):
    """As by the other adapters, with a line in the log that names it, and not the key of Django."""
    assert client_arguments(URL, {"secret": "short"})["secret"] == [
        hashlib.sha256(b"shardcache:short").digest()
    ]
    assert [each.partition(":")[0] for each in caplog.messages] == ["secret"]


@pytest.mark.parametrize(
    ("key", "fallbacks", "named"),
    [
        ("short", [], ["SECRET_KEY"]),
        (b"a long one, made up at random", ["", "short"], ["SECRET_KEY_FALLBACKS"]),
        ("short", ["shorter"], ["SECRET_KEY", "SECRET_KEY_FALLBACKS"]),
        ("a long one, made up at random", [b"and its predecessor"], []),
    ],
)
def test_a_short_key_of_djangos_is_logged(use, caplog, key, fallbacks, named):
    """Once for a configuration, not for each thread and request, and without the key."""
    with override_settings(SECRET_KEY=key, SECRET_KEY_FALLBACKS=fallbacks):
        for _ in range(3):
            use(URL)
    assert [each.partition(":")[0] for each in caplog.messages] == named
    assert "short" not in caplog.text.replace("shorter than", "")
    assert {record.levelname for record in caplog.records} <= {"WARNING"}
    use(URL, OPTIONS={"secret": ["short", "sixteen bytes or more"]})


def test_too_old_a_django_is_refused():
    """In words, before anything else fails."""
    program = (
        "from shardcache.settings import releases\n"
        "releases.version = {'Django': '4.2.9'}.get\n"
        "import shardcache_django"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    words = (
        "ImproperlyConfigured: shardcache-django needs Django 5.2 or newer, and 4.2.9 is installed"
    )
    assert words in done.stderr


def test_nothing_is_asked_before_the_first_call(use):
    """A cache whose nodes do not exist can be configured, and closed."""
    cache = use("memcached://no-such-host.invalid")
    cache.close()
    assert caches["default"] is cache
