"""The backend's own promises: its arguments, its values, and what happens when nodes fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest
from dogpile.cache import CacheRegion, make_region
from dogpile.cache.api import NO_VALUE
from shardcache_dogpile import ShardCacheBackend

from lock_service import LockService, running
from shardcache import AsyncClient, Client, ConfigurationError, EncodeError
from shardcache.settings import releases
from shardcache.testing.servers import Server

URL = "memory://a,b,c"


class Thing:
    """An object that only pickle takes."""


def make(**arguments: object) -> CacheRegion:
    """Return a region with our backend, found by its entry point."""
    return make_region().configure("shardcache", arguments=arguments)


def test_the_entry_point_is_found():
    """Installing the distribution is all there is to do."""
    assert type(make(url=URL).backend) is ShardCacheBackend


def test_arguments_from_a_file_are_texts():
    """As a region reads them from a configuration."""
    config = {
        "r.backend": "shardcache",
        "r.arguments.url": f"{URL}?namespace=shop",
        "r.arguments.lock_ttl": "5",
        "r.arguments.max_hold": "600",
        "r.arguments.strategy": "ketama",
        "r.arguments.default_ttl": "40",
    }
    backend = make_region().configure_from_config(config, "r.").backend
    policy = backend.get_mutex("k")._lock.policy
    assert (policy.ttl, policy.max_hold, policy.renew) == (5, 600, True)
    assert repr(backend.client.view()) == "<Client view [3 nodes] ketama namespace='shop'>"
    backend.set("k", b"x")
    assert backend.client.ttl("k") == pytest.approx(40, abs=5)


def test_another_service_keeps_the_mutexes():
    """Named by the client's own setting."""
    service = LockService()
    with running(service) as locks:
        region = make(url=URL, locks=locks)
        assert region.get_or_create("k", lambda: 1) == 1
    assert service.calls == ["attempt", "release"]


def test_values_keep_their_type():
    """Without a secret there are no pickles, and the error tells the way out."""
    region = make(url=URL)
    for value in (None, (1, {2}), b"bytes", "text"):
        region.set("k", value)
        assert region.get("k") == value
    with pytest.raises(EncodeError, match="'pickle' with a secret"):
        region.set("k", Thing())


@pytest.mark.parametrize("secret", ["x", ["x", b"older"], "long enough to be used as it is"])
def test_with_a_secret_any_object_is_stored(secret: object):
    """It is pickled, and signed."""
    region = make(url=URL, secret=secret)
    region.set("k", Thing())
    assert type(region.get("k")) is Thing


@pytest.mark.parametrize("stored", ["text", 7, [1], [1, 2], [1, {"ct": 1.0}]])
def test_what_a_region_has_not_stored_is_missing(stored: object):
    """Another program's value under the same key."""
    region = make(url=URL)
    region.backend.client.set("k", stored)
    assert region.get("k") is NO_VALUE


def test_a_client_that_is_given():
    """It is shared, and keeps its settings."""
    with Client(URL) as client:
        make(client=client).set("k", 1)
        assert client.get("k")[0] == 1
        with pytest.raises(ConfigurationError, match="namespace: is set in the client"):
            make(client=client, namespace="shop")


def test_a_lock_of_the_program_is_another_one():
    """A value can be created by a caller who holds a lock of the value's name."""
    with Client(URL) as client, client.lock("k", ttl=60):
        assert make(client=client).backend.get_mutex("k").acquire(wait=False)


def test_wrong_arguments_are_named():
    """Before a region is used."""
    for arguments in ({}, {"url": URL, "client": Client(URL)}):
        with pytest.raises(ConfigurationError, match="give a url such as"):
            make(**arguments)
    with pytest.raises(ConfigurationError, match="strategy"):
        make(url=URL, strategy="none")
    with pytest.raises(ConfigurationError, match="max_hold"):
        make(url=URL, max_hold=0)
    with pytest.raises(ConfigurationError, match="distributed_lock: must be true or false"):
        make(url=URL, distributed_lock="no")
    with pytest.raises(ConfigurationError, match="url: must be a URL or a list of URLs, not int"):
        make(url=5)
    for client in (URL, AsyncClient(URL)):
        with pytest.raises(ConfigurationError, match=r"client: must be a shardcache\.Client, not"):
            make(client=client)


def test_an_empty_secret_is_refused():
    """What is derived from it everybody knows, and a pickle of a stranger would run."""
    with pytest.raises(
        ConfigurationError, match="secret: must be text or bytes that are not empty"
    ):
        make(url=URL, secret="")


def test_unknown_arguments_are_logged(caplog: pytest.LogCaptureFixture):
    """dogpile.cache's backends ignore them, so that a region can change its backend."""
    make(url=URL, redis_expiration_time=60)
    assert "arguments 'redis_expiration_time' are ignored (known: clearable, " in caplog.text


def test_an_old_framework_gets_words(monkeypatch: pytest.MonkeyPatch):
    """Where an installation has not checked what it needs."""
    monkeypatch.setattr(releases, "version", lambda _: "1.2.2")
    with pytest.raises(ConfigurationError, match=r"needs dogpile.cache 1.3 or newer, and 1.2.2 is"):
        make(url=URL)


@pytest.mark.servers
def test_one_region_of_all_processes_creates_a_value(urls: Sequence[str]):
    """The others see that it is locked."""
    creator, other = make(url=urls), make(url=urls)
    mutex = creator.backend.get_mutex("k")
    assert mutex.acquire()
    assert other.key_is_locked("k")
    assert not other.backend.get_mutex("k").acquire(wait=False)
    mutex.release()
    assert not other.key_is_locked("k")


def test_without_a_distributed_lock_the_region_has_its_own():
    """dogpile.cache then takes a lock of threads."""
    assert make(url=URL, distributed_lock=False).backend.get_mutex("k") is None


@pytest.mark.servers
def test_a_region_goes_on_when_a_node_dies(urls: Sequence[str], servers: Sequence[Server]):
    """The keys of the node are missing, and each process creates their values for itself."""
    region, other = make(url=urls, timeout=0.25), make(url=urls, timeout=0.25)
    keys = [f"key-{number}" for number in range(20)]
    region.set_multi(dict.fromkeys(keys, 1))
    lost = [key for key in keys if region.backend.client.node_for(key).url == servers[0].url]
    assert 0 < len(lost) < len(keys)
    servers[0].kill()
    for each in (region, other):
        assert each.get_multi(keys) == [NO_VALUE if key in lost else 1 for key in keys]
    mutex = other.backend.get_mutex(lost[0])
    mutex.acquire()
    for key in keys:
        assert region.get_or_create(key, lambda: 2) == (2 if key in lost else 1)
    mutex.release()


@pytest.mark.servers
def test_a_region_goes_on_without_its_lock(
    make_server: Callable[[], Server], caplog: pytest.LogCaptureFixture
):
    """One of three lock nodes is no majority: it is logged, once a minute."""
    servers = [make_server() for _ in range(3)]
    region = make(url=URL, timeout=0.25, lock_nodes=[server.url for server in servers])
    for server in servers[:2]:
        server.kill()
    assert [region.get_or_create(str(number), lambda: 2) for number in range(5)] == [2] * 5
    assert not region.key_is_locked("0")
    lines = [r for r in caplog.records if "each process creates values" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].levelno == logging.WARNING


@pytest.mark.parametrize("call", ["get_multi", "delete_multi"])
def test_text_is_no_list_of_keys(call: str):
    """It would be a list of its letters."""
    with pytest.raises(TypeError, match=f"^{call}: keys must be a list, not str"):
        getattr(make(url=URL), call)("user:7")


@pytest.mark.parametrize("arguments", [["url"], "url", 7])
def test_arguments_that_are_no_dict_are_named(arguments: object):
    """With their type."""
    kind = type(arguments).__name__
    with pytest.raises(ConfigurationError, match=f"arguments: must be a dict, not {kind}"):
        make_region().configure("shardcache", arguments=arguments)
