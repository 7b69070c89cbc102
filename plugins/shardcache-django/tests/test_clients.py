"""Backend objects come and go; the clients of a process stay."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished
from django.test import override_settings
from shardcache_django import clients

from lock_service import LockService, running
from shardcache import DecodeError

pytestmark = pytest.mark.servers


@dataclass
class Counter:
    """An observer whose counters can be compared, and which therefore has no hash."""

    calls: int = 0

    def call_finished(self, _event):
        """Count a call."""
        self.calls += 1


def in_thread(work):
    """Return what `work` returns in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(30)


def open_files():
    """Return how many files and sockets this process has open, where the system tells."""
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.is_dir() else 0


def test_threads_and_contexts_share_the_clients(use, urls):
    """Django makes a backend object for each of them."""
    cache = use(urls)
    theirs = in_thread(lambda: caches["default"])
    other = contextvars.Context().run(lambda: caches["default"])
    assert theirs is not cache
    assert len({backend.client for backend in (cache, theirs, other)}) == 1
    assert len({backend.async_client for backend in (cache, theirs, other)}) == 1
    theirs.set("k", 1)
    assert cache.get("k") == 1


def test_aliases_with_one_configuration_share_the_clients(use, urls):
    """A prefix, a version and a timeout are the backend object's own."""
    first = use(urls)
    second = use(list(urls), KEY_PREFIX="other", VERSION=2, TIMEOUT=9)
    third = use(urls, OPTIONS={"namespace": "third"})
    assert first.client is second.client is not third.client
    assert len(clients._clients) == 2


def test_another_service_keeps_the_locks(use, urls):
    """Of both clients, named by the client's own setting."""

    async def lock(client):
        async with client.lock("report") as lease:
            return lease.fence

    with running(LockService()) as locks:
        cache = use(urls, OPTIONS={"locks": locks})
        with cache.client.lock("report") as lease:
            assert lease.fence == 1
        assert asyncio.run(lock(cache.async_client)) == 2


def test_threads_that_come_at_once_get_the_same_clients(use, urls):
    """One of those that they make is kept."""
    cache = use(urls)
    clients._clients.clear()
    together = threading.Barrier(8)

    def client():
        together.wait(10)
        return clients.clients_of(urls, {"timeout": 10.0})

    with ThreadPoolExecutor(8) as pool:
        found = [future.result(30) for future in [pool.submit(client) for _ in range(8)]]
    assert len({id(each) for each in found}) == 1
    cache.client.close()


def test_an_option_without_a_hash_is_a_configuration_of_its_own(use, urls):
    """Such as an observer that is a dataclass: equal ones count apart."""
    first, second = Counter(), Counter()
    cache = use(urls, OPTIONS={"observers": [first]})
    assert in_thread(lambda: caches["default"].client) is cache.client
    assert use(urls, OPTIONS={"observers": [second]}).client is not cache.client
    with pytest.raises(ImproperlyConfigured, match="secret: must be text or bytes"):
        use(urls, OPTIONS={"secret": {"sixteen bytes or more"}})


def test_the_end_of_a_request_closes_nothing(use, urls):
    """Django closes its caches then; the next request finds the connections open."""
    cache = use(urls)
    cache.set("k", 1)
    request_finished.send(sender=None)
    assert cache.get("k") == 1
    asyncio.run(cache.aclose())
    assert asyncio.run(cache.aget("k")) == 1


def test_event_loops_one_after_another_work(use, urls):
    """As under `async_to_sync`, which runs one for each call, and in several threads at once."""
    cache = use(urls)

    def count():
        for _ in range(50):
            asyncio.run(caches["default"].aincr("n"))

    cache.set("n", 0)
    before = open_files()
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(count) for _ in range(4)]:
            future.result(60)
    assert cache.get("n") == 200
    assert open_files() < before + 20  # of 200 loops


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_cache_made_before_a_fork_works_in_parent_and_children(use, urls):
    """As under `gunicorn --preload`: no process reads another's replies."""
    cache = use(urls)
    cache.set_many({f"k{number}": number for number in range(20)})
    children = []
    for child in range(3):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                for number in range(20):
                    assert cache.get(f"k{number}") == number
                    cache.set(f"c{child}-{number}", number)
                    assert asyncio.run(cache.aget(f"c{child}-{number}")) == number
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    for number in range(20):
        assert cache.get(f"k{number}") == number
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert cache.get("c2-19") == 19


def test_a_changed_secret_key_loses_nothing_while_the_old_is_a_fallback(use, urls):
    """What the old one signed is read; without it, it is a miss, never an error."""
    with override_settings(SECRET_KEY="old"):
        use(urls).set("k", {"a": 1})
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
        assert use(urls).get("k") == {"a": 1}
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[]):
        assert use(urls).get("k") is None


def test_get_or_set_replaces_what_cannot_be_read(use, urls, face):
    """A value of another key is a miss once, and not until it expires, which may be never."""
    with override_settings(SECRET_KEY="old"):
        use(urls).set("k", {"a": 1}, timeout=None)
    with override_settings(SECRET_KEY="new"):
        cache = face(use(urls))
        assert cache.get_or_set("k", {"a": 2}) == {"a": 2}
        assert cache.get_or_set("k", {"a": 3}) == {"a": 2}
        assert 0 < cache.ttl("k") <= 300


def test_a_pickle_of_a_stranger_is_not_read(use, memcached_servers):
    """Only what is signed with the secret runs; text that is not, is read as text."""
    cache = use([memcached_servers[0].url])
    memcached_servers[0].ask(b"set :1:p 1 0 5\r\n\x80\x05K\x01.\r\n", b"STORED\r\n")
    memcached_servers[0].ask(b"set :1:t 16 0 4\r\ntext\r\n", b"STORED\r\n")
    assert cache.get_many(["p", "t"]) == {"t": "text"}
    with pytest.raises(DecodeError, match="read_unsigned"):
        cache.client.view(on_error="raise").get(":1:p")


def test_functions_can_be_cached_with_the_same_client(use, urls):
    """With all that `cached` offers, over the same nodes and connections."""
    cache = use(urls)
    runs = []

    @cache.client.cached(ttl=60, lock=True, namespace="report")
    def report(day):
        runs.append(day)
        return {"day": day}

    assert [report("monday"), in_thread(lambda: report("monday"))] == [{"day": "monday"}] * 2
    assert runs == ["monday"]
