"""A pool without a free connection delays the keys of its own node alone."""

from __future__ import annotations

import gc
import os
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import pytest

from interrupting import interrupted
from shardcache import Client, NodeError, PartialFailureError, PoolTimeoutError
from shardcache.backends.transport import pool as pools
from shardcache.backends.transport.dial import Expired
from shardcache.backends.transport.pool import Connection, Pool, Slot
from shardcache.backends.transport.wakeups import Wakeup

KEYS = [f"k{number}" for number in range(60)]
ITEMS = {key: f"value of {key}" for key in KEYS}


@pytest.fixture(params=["memcached", "redis", "pymemcache"])
def urls(request, memcached_servers, redis_servers):
    """Return three nodes of each kind in turn."""
    if request.param == "redis":
        return [server.url for server in redis_servers]
    return [f"{request.param}://{server.host}:{server.port}" for server in memcached_servers]


def taken(pool):
    """Take all places of a pool of one."""
    return pool.reserve(time.monotonic() + 5)


def given_back(pool, held):
    """Return it back."""
    (pool.release if isinstance(held, Slot) else pool.put)(held)


def test_the_keys_of_other_nodes_are_found(urls):
    """A node without a free connection delays its own keys alone."""
    client = Client(urls, pool_size=1, timeout=5)
    assert client.set_many(ITEMS) == []
    client._cluster.timeout = 0.2
    for node in client.nodes:
        pool = client._cluster.members[node.name].backend.pool
        held = taken(pool)
        others = {key: value for key, value in ITEMS.items() if client.node_for(key) != node}
        assert client.get_many(KEYS) == others
        assert client.ejected == ()
        given_back(pool, held)
        client._cluster.timeout = 5
        assert client.get_many(KEYS) == ITEMS
        client._cluster.timeout = 0.2
    client.close()


def test_a_connection_that_comes_back_is_taken(urls):
    """A call that waits for several nodes gets it at once."""
    client = Client(urls, pool_size=1, timeout=10, on_error="raise")
    client.set_many(ITEMS)
    pools = [member.backend.pool for member in client._cluster.members.values()]
    for pool in pools:
        threading.Timer(0.2, given_back, (pool, taken(pool))).start()
    started = time.monotonic()
    assert client.get_many(KEYS) == ITEMS
    assert time.monotonic() - started < 5
    client.close()


def test_crossing_batches_all_end(urls):
    """Threads that share one connection to each node never deadlock."""
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
    assert not any(member.backend.pool._waiters for member in client._cluster.members.values())
    client.close()


def test_an_ejection_ends_the_wait_for_a_connection(urls):
    """No call goes on waiting for a node that is not asked any more."""
    client = Client(urls, pool_size=1, timeout=10)
    client.set_many(ITEMS)
    node = client.nodes[0]
    backend = client._cluster.members[node.name].backend
    held = taken(backend.pool)
    timer = threading.Timer(0.2, backend.eject)
    timer.start()
    started = time.monotonic()
    found = client.get_many(KEYS)
    assert time.monotonic() - started < 5
    assert found == {key: value for key, value in ITEMS.items() if client.node_for(key) != node}
    given_back(backend.pool, held)
    client.close()


def test_a_timeout_in_a_full_pool_names_the_pool(urls):
    """A call for one key says that it was our own pool that kept it waiting."""
    client = Client(urls[:1], pool_size=1, timeout=0.1, on_error="raise")
    pool = next(iter(client._cluster.members.values())).backend.pool
    held = taken(pool)
    with pytest.raises(PoolTimeoutError):
        client.get("k")
    given_back(pool, held)
    client.close()


@pytest.mark.parametrize("connects", [False, True])
def test_a_dropped_connection_takes_no_slot(connects):
    """Whatever became of its finalizer."""
    pool = Pool("cache1", 2)
    for _ in range(10):
        held = pool.reserve(time.monotonic() + 5)
        if connects:
            pool.add(Connection(socket.socket(), None), held)
        # As when an interrupt hits the callback that would take note of its end.
        references = pool._living._references
        references[-len(references)] = weakref.ref(Slot())
        del held
    assert pool.open == 0


def test_a_connection_dropped_in_a_cycle_takes_no_slot():
    """A full pool collects garbage before it refuses."""
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


@pytest.fixture
def collections(monkeypatch):
    """Return the generations that are collected from now on, each of which takes 20 ms."""
    made = []
    monkeypatch.setattr(pools, "_next_collection", {})
    monkeypatch.setattr(gc, "collect", lambda number=2: (made.append(number), time.sleep(0.02)))
    return made


def test_a_full_pool_does_not_collect_garbage_all_the_time(collections):
    """Threads that wait for connections in use are not slowed by it."""
    pool = Pool("cache1", 1)
    held = pool.reserve(time.monotonic() + 5)
    for _ in range(3):
        with pytest.raises(PoolTimeoutError):
            pool.reserve(time.monotonic() + 0.2)
    assert collections == [1]
    pool.release(held)


def test_a_full_pool_leaves_the_large_heap_alone_while_connections_come_back(collections):
    """The full collection looks only for what has been away for long."""
    pool = Pool("cache1", 2)
    one, other = (pool.reserve(time.monotonic() + 5) for _ in range(2))
    with pytest.raises(PoolTimeoutError):
        pool.reserve(time.monotonic() + 0.2)
    assert 2 not in collections
    one.since -= pools.MISSED + 1
    with pytest.raises(PoolTimeoutError):
        pool.reserve(time.monotonic() + 0.2)
    assert 2 in collections
    pool.release(one)
    pool.release(other)


def test_a_connection_dropped_in_an_old_cycle_takes_no_slot(monkeypatch):
    """It is found a second later."""
    monkeypatch.setattr(pools, "_next_collection", {})
    pool = Pool("cache1", 1)
    gc.disable()
    try:
        cycle = [pool.reserve(time.monotonic() + 5)]
        cycle.append(cycle)
        for _ in range(3):
            gc.collect()
        del cycle
        assert pool.open == 1
        pool.release(pool.reserve(time.monotonic() + 30))
    finally:
        gc.enable()


def test_an_interrupted_collection_is_not_the_last(monkeypatch):
    """Wherever a signal raises, garbage is collected again seconds later."""
    now = [0.0]
    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(pools, "_next_collection", {})  # what is in it is of the real clock
    pool = Pool("cache1", 1)
    pool._living.add(lost := Slot())
    collections = []
    monkeypatch.setattr(gc, "collect", lambda *_: collections.append(1))
    for _ in interrupted(pool._find_dropped, lambda code: code.co_filename == pools.__file__):
        now[0] += 60
        collections.clear()
        pool._find_dropped()
        assert collections
    del lost


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_collects_garbage_of_its_own(monkeypatch):
    """A thread of its parent may have been collecting at the fork."""
    pool = Pool("cache1", 1)
    held = taken(pool)
    begun, go = threading.Event(), threading.Event()
    collect = gc.collect
    monkeypatch.setattr(gc, "collect", lambda *_: (begun.set(), go.wait(30)))
    monkeypatch.setattr(pools, "_next_collection", {})

    def wait():
        with pytest.raises(PoolTimeoutError):
            pool.reserve(time.monotonic() + 0.1)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert begun.wait(30)
    if (child := os.fork()) == 0:
        status = 1
        try:
            gc.disable()
            gc.collect = collect
            pools.MISSED = 60.0  # so that only the young are looked at
            cycle = [taken(pool)]
            cycle.append(cycle)
            del cycle
            taken(pool)
            status = 0
        finally:
            os._exit(status)
    go.set()
    waiting.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    given_back(pool, held)


FORKED = """
from gevent import monkey; monkey.patch_all()
import gevent, os, time
from shardcache import PoolTimeoutError
from shardcache.backends.transport import pool as pools

pool = pools.Pool("cache1", 1)
held = pool.reserve(time.monotonic() + 5)

def wait(seconds):
    try:
        pool.release(pool.reserve(time.monotonic() + seconds))
    except PoolTimeoutError:
        return False
    return True

inherited = gevent.spawn(wait, 0.5)
gevent.sleep(0.1)
if (child := os.fork()) == 0:
    own = pool.reserve(time.monotonic() + 5)
    inherited.join()
    pools._WAIT_SLICE = 30.0  # no waiter looks by itself
    waiting = gevent.spawn(wait, 10)
    gevent.sleep(0.1)
    pool.release(own)
    waiting.join(5)
    os._exit(0 if (inherited.value, waiting.value) == (False, True) else 1)
status = os.waitpid(child, 0)[1]
pool.release(held)
inherited.join()
assert os.waitstatus_to_exitcode(status) == 0
print("done")
"""


def test_a_child_forked_while_a_greenlet_waits_has_its_own_queue():
    """A waiter in the child is woken, though the greenlet waits there too."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", FORKED],
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def looks_during(pool, wait):
    """Return how often the pool looked for a place while `wait` was called."""
    looks = []
    look = pool._slot
    pool._slot = lambda: looks.append(1) or look()
    try:
        wait()
    finally:
        pool._slot = look
    return len(looks)


def test_past_traffic_wakes_no_waiter():
    """However many calls came and went, a waiter of a full pool sleeps."""
    pool = Pool("cache1", 2)
    interval = sys.getswitchinterval()

    def come_and_go():
        for _ in range(2000):
            pool.release(pool.reserve(time.monotonic() + 20))

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    held = [taken(pool) for _ in range(2)]

    def wait():
        with pytest.raises(PoolTimeoutError):
            pool.reserve(time.monotonic() + 0.2)

    assert looks_during(pool, wait) <= 8  # twice at first, then once in 50 ms
    for each in held:
        given_back(pool, each)
    assert not pool._waiters


class ClearedFirst:
    """A socket that writes a moment late: the waiter has cleared its wakeup by then."""

    def __init__(self, wakeup):
        self._wakeup = wakeup
        self._socket = wakeup._outer
        self.close = self._socket.close

    def send(self, data):
        """Send after the waiter has cleared."""
        self._wakeup.clear()
        return self._socket.send(data)


def go_on(waiting, wait):
    """Wait for what the steps ask for, and go on, until they end."""
    while True:
        poll = select.poll()
        poll.register(wait.descriptor, wait.mask)
        ready = poll.poll(max(0.0, wait.until - time.monotonic()) * 1000)
        wait = next(waiting) if ready else waiting.throw(Expired())


def test_a_wakeup_that_is_cleared_too_early_does_not_spin(monkeypatch):
    """A waiter beside other nodes that is woken while it clears looks once more, then sleeps."""
    pool = Pool("cache1", 1)
    held = taken(pool)

    def wakeup():
        made = Wakeup()
        made._outer = ClearedFirst(made)
        return made

    monkeypatch.setattr(pools, "Wakeup", wakeup)
    waiting = pool.reserved(time.monotonic() + 0.2)
    wait = next(waiting)
    pool._wake()

    def drive():
        with pytest.raises(PoolTimeoutError):
            go_on(waiting, wait)

    assert looks_during(pool, drive) <= 8
    given_back(pool, held)
