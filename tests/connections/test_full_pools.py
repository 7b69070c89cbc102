"""A pool whose connections are all in use concerns the keys of its own node alone."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref

import pytest

from shardcache import Client, NodeError, PartialFailureError, PoolTimeoutError
from shardcache.backends.pool import Connection, Place, Pool

KEYS = [f"k{number}" for number in range(60)]
ITEMS = {key: f"value of {key}" for key in KEYS}


@pytest.fixture(params=["memcached", "redis", "pymemcache"])
def urls(request, memcached_servers, redis_servers):
    """Give three nodes of each kind in turn."""
    if request.param == "redis":
        return [server.url for server in redis_servers]
    return [f"{request.param}://{server.host}:{server.port}" for server in memcached_servers]


def taken(pool):
    """Take all places of a pool of one."""
    return pool.reserve(time.monotonic() + 5)


def given_back(pool, held):
    """Give it back."""
    (pool.release if isinstance(held, Place) else pool.give)(held)


def test_the_keys_of_other_nodes_are_found(urls):
    """Whichever node has no connection left, the others are asked, and its keys are late."""
    client = Client(urls, pool_size=1, timeout=5)
    assert client.set_many(ITEMS) == []
    client._cluster.timeout = 0.2
    for node in client.nodes:
        pool = client._cluster.links[node.name].backend.pool
        held = taken(pool)
        others = {key: value for key, value in ITEMS.items() if client.node_for(key) != node}
        assert client.get_many(KEYS) == others
        assert client.ejected == ()
        given_back(pool, held)
        client._cluster.timeout = 5
        assert client.get_many(KEYS) == ITEMS
        client._cluster.timeout = 0.2
    client.close()


def test_a_place_that_comes_free_is_taken(urls):
    """Who waits beside other nodes gets the connection as soon as it is given back."""
    client = Client(urls, pool_size=1, timeout=10, on_error="raise")
    client.set_many(ITEMS)
    pools = [link.backend.pool for link in client._cluster.links.values()]
    for pool in pools:
        threading.Timer(0.2, given_back, (pool, taken(pool))).start()
    started = time.monotonic()
    assert client.get_many(KEYS) == ITEMS
    assert time.monotonic() - started < 5
    client.close()


def test_crossing_batches_all_end(urls):
    """Threads that share one connection to each node never wait for one another's for ever."""
    client = Client(urls, pool_size=1, timeout=20, on_error="raise")
    client.set_many(ITEMS)
    wrong = []

    def read(keys):
        for _ in range(50):
            try:
                assert client.get_many(keys) == ITEMS
            except (AssertionError, NodeError, PartialFailureError) as error:
                wrong.append(error)

    orders = [KEYS, KEYS[::-1], KEYS[20:] + KEYS[:20], KEYS[40:] + KEYS[:40]]
    threads = [threading.Thread(target=read, args=(keys,)) for keys in orders * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(link.backend.pool._waiting == 0 for link in client._cluster.links.values())
    client.close()


def test_an_ejection_sends_away_who_waits_beside_other_nodes(urls):
    """Nobody goes on waiting for a connection to a node that is not asked any more."""
    client = Client(urls, pool_size=1, timeout=10)
    client.set_many(ITEMS)
    node = client.nodes[0]
    backend = client._cluster.links[node.name].backend
    held = taken(backend.pool)
    timer = threading.Timer(0.2, backend.eject)
    timer.start()
    started = time.monotonic()
    found = client.get_many(KEYS)
    assert time.monotonic() - started < 5
    assert found == {key: value for key, value in ITEMS.items() if client.node_for(key) != node}
    given_back(backend.pool, held)
    client.close()


def test_one_key_of_a_full_pool_is_late_by_the_pool(urls):
    """A call for one key says that it was our own pool that kept it waiting."""
    client = Client(urls[:1], pool_size=1, timeout=0.1, on_error="raise")
    pool = next(iter(client._cluster.links.values())).backend.pool
    held = taken(pool)
    with pytest.raises(PoolTimeoutError):
        client.get("k")
    given_back(pool, held)
    client.close()


@pytest.mark.parametrize("connects", [False, True])
def test_what_was_dropped_takes_no_place(connects):
    """A place or connection that nobody holds is not counted, whatever became of its finalizer."""
    pool = Pool("cache1", 2)
    for _ in range(10):
        held = pool.reserve(time.monotonic() + 5)
        if connects:
            pool.adopt(Connection(socket.socket(), None), held)
        # As when an interrupt hits the callback that would take note of its end.
        references = pool._living._references
        references[-len(references)] = weakref.ref(Place())
        del held
    assert pool.open == 0


def test_what_was_dropped_in_a_cycle_takes_no_place():
    """A full pool collects garbage before it says no, however large its reference cycles are."""
    pool = Pool("cache1", 2)
    gc.disable()
    try:
        for _ in range(2):
            cycle = [pool.reserve(time.monotonic() + 5)]
            cycle.append(cycle)
            del cycle
        assert pool.open == 2
        pool.release(pool.reserve(time.monotonic() + 30))
    finally:
        gc.enable()


def test_a_full_pool_does_not_collect_garbage_all_the_time(monkeypatch):
    """Threads that wait for what others hold are not kept from their work by it."""
    pool = Pool("cache1", 1)
    collections = []
    monkeypatch.setattr(gc, "collect", lambda: (collections.append(1), time.sleep(0.02)))
    held = pool.reserve(time.monotonic() + 5)
    for _ in range(3):
        with pytest.raises(PoolTimeoutError):
            pool.reserve(time.monotonic() + 0.2)
    assert len(collections) <= 1
    pool.release(held)
