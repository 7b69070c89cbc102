"""`lock` on every kind of node, blocking and asyncio, on real servers."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from tenacity import wait_fixed

import shardcache
from clients.sources import BACKENDS, Driven, urls_of
from interrupting import interrupted
from shardcache import (
    Client,
    ConfigurationError,
    InvalidKeyError,
    Lock,
    LockLost,
    LockTimeout,
    LockUnavailable,
    Observer,
)
from shardcache.testing.driving import MODES, DrivenClient, make_client

PACKAGE = os.path.dirname(shardcache.__file__)  # noqa: PTH120 - compared with names of code


@pytest.fixture(params=MODES)
def make_lock(request, nodes):
    """Return a function to describe a lock of a client of each kind, on nodes of each kind."""
    client = make_client(request.param, nodes, timeout=5.0)

    def make(name="report", **terms):
        lock = client.lock(name, **terms)
        return Driven(lock, client.loop) if isinstance(client, DrivenClient) else lock

    yield make
    client.close()


@pytest.fixture
def make_all_locks(memcached_servers, redis_servers):
    """Return a function to describe a lock of each client on each kind of nodes, each of its own name."""
    with ExitStack() as stack:

        def make(**terms):
            locks = {}
            for mode, kind in itertools.product(MODES, BACKENDS):
                urls = urls_of(kind, memcached_servers, redis_servers)
                client = make_client(mode, urls, timeout=5.0)
                stack.callback(client.close)
                lock = client.lock(f"{mode} {kind}", **terms)
                driven = isinstance(client, DrivenClient)
                locks[mode, kind] = Driven(lock, client.loop) if driven else lock
            return locks

        yield make


def side_by_side(scenario, locks):
    """Run a scenario that takes seconds with each lock, all at once; raise what fails."""
    with ThreadPoolExecutor(len(locks)) as pool:
        runs = {kind: pool.submit(scenario, lock) for kind, lock in locks.items()}
    for kind, run in runs.items():
        if (error := run.exception()) is not None:
            error.add_note(f"with {kind}")
            raise error


def rest(lease, seconds):
    """Let time pass, on the loop of an async lease."""
    if isinstance(lease, Driven):
        lease._loop.run_until_complete(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def test_one_caller_holds_the_lock_at_a_time(make_lock):
    """The next caller waits until it is released, or does without."""
    lock = make_lock()
    lease = lock.acquire(wait=1)
    assert lease.valid
    assert 7.5 < lease.remaining() < 10
    assert lock.try_acquire() is None
    with pytest.raises(LockTimeout):
        lock.acquire(wait=0.05)
    assert make_lock("another").try_acquire() is not None
    assert lease.release() is True
    assert (lease.release(), lease.valid, lease.lost) == (False, False, False)
    again = lock.try_acquire()
    assert again.token != lease.token
    assert len(again.token) == 32
    assert len(again.nodes) == 3


def test_a_valid_lease_can_be_extended(make_lock):
    """And an expired one never."""
    lease = make_lock(ttl=3).acquire()
    assert lease.extend(20) > 15
    assert 15 < lease.remaining() < 20
    assert lease.extend() < 3
    lease.release()
    with pytest.raises(LockLost, match="released"):
        lease.extend()
    with pytest.raises(LockLost, match="released"):
        lease.check()


@pytest.mark.slow
def test_an_expired_lease_is_lost(make_all_locks):
    """Another caller takes the lock, and the first can neither extend nor release it."""
    side_by_side(expire, make_all_locks(ttl=2))


def expire(lock):
    """Acquire a lock, let it expire and be taken, and check both leases."""
    lease = lock.acquire()
    end = time.monotonic() + 5.0
    while (other := lock.try_acquire()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert (lease.valid, lease.lost, other.valid) == (False, True, True)
    with pytest.raises(LockLost, match="it expired"):
        lease.extend()
    assert lease.release() is False
    assert lease.lost
    with pytest.raises(LockLost, match="it expired"):
        lease.check()
    assert other.valid
    assert lock.try_acquire() is None
    assert other.release() is True


@pytest.mark.slow
def test_a_lease_is_renewed_in_the_background(make_all_locks):
    """For as long as the lock is held, and not longer."""
    # memcached may keep it for a second less, and a busy machine may be late by another.
    side_by_side(hold_for_long, make_all_locks(ttl=4, renew=True))


def hold_for_long(lock):
    """Hold a lock beyond its ttl, then release it."""
    lease = lock.acquire()
    rest(lease, 4.5)
    assert lease.valid
    assert lock.try_acquire() is None
    assert lease.release() is True
    assert lock.try_acquire() is not None


def test_a_forked_child_does_not_hold_its_parents_lock(memcached_servers):
    """In the child the lease is invalid and does nothing; the parent keeps it."""
    with Client([server.url for server in memcached_servers], timeout=5.0) as client:
        lease = client.lock("report", renew=True).acquire()
        child = os.fork()
        if not child:
            right = (lease.valid, lease.lost, lease.release()) == (False, False, False)
            os._exit(0 if right and client.lock("report").try_acquire() is None else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert lease.valid
        assert lease.release() is True


def test_without_a_majority_the_error_names_each_node(make_memcached):
    """It comes at once."""
    servers = [make_memcached() for _ in range(5)]
    with Client([server.url for server in servers], timeout=0.2) as client:
        for server in servers[:3]:
            server.kill()
        began = time.monotonic()
        with pytest.raises(LockUnavailable, match="3 of 5 nodes failed") as raised:
            client.lock("report").acquire(wait=30)
        assert time.monotonic() - began < 2.0
        assert len(raised.value.errors) == 3


def test_a_restarted_node_keeps_the_lock_of_the_next_holder(make_memcached):
    """CAS numbers start again with a server: another holder's token is left alone."""
    server = make_memcached()
    with Client(server.url, timeout=5.0) as client:
        first = client.lock("report").acquire()
        server.kill()
        server.restart()
        end = time.monotonic() + 10.0
        while True:
            try:
                second = client.lock("report").try_acquire()
                break
            except LockUnavailable:
                assert time.monotonic() < end
                time.sleep(0.05)
        assert second is not None
        first.release()
        assert client.lock("report").try_acquire() is None
        assert second.release() is True


def test_a_short_ttl_lasts_on_every_node(make_lock):
    """A server that counts whole seconds is asked for more; the lease lasts as asked."""
    lock = make_lock(ttl=1.9)
    lease = lock.acquire()
    assert 0.1 < lease.remaining() < 1.9
    assert lock.try_acquire() is None
    assert 0.1 < lease.extend(1.8) < 1.8
    assert lease.release() is True
    assert lock.try_acquire() is not None


@pytest.mark.slow
def test_a_short_ttl_can_be_renewed(make_all_locks):
    """Every third of it, for longer than any node would keep it."""
    side_by_side(outlast_every_node, make_all_locks(ttl=1.5, renew=True))


def outlast_every_node(lock):
    """Hold a lock for longer than a node that counts whole seconds keeps it."""
    lease = lock.acquire()
    rest(lease, 2.5)
    assert lease.valid
    assert lock.try_acquire() is None


def test_held_is_what_the_nodes_say(make_lock):
    """Whichever client holds the lock; asking takes nothing and blocks no caller."""
    lock = make_lock()
    assert lock.held() is False
    lease = lock.acquire()
    assert lock.held() is True
    assert make_lock().held() is True
    assert make_lock("another").held() is False
    lease.release()
    assert lock.held() is False
    assert lock.try_acquire() is not None


@pytest.mark.parametrize("mode", MODES)
def test_held_needs_a_majority_that_answers(make_memcached, mode):
    """Without one it is `LockUnavailable`, as for the lock itself."""
    servers = [make_memcached() for _ in range(3)]
    client = make_client(mode, [server.url for server in servers], timeout=2.0)
    lock = client.lock("report")
    held = Driven(lock, client.loop).held if isinstance(client, DrivenClient) else lock.held
    servers[0].kill()
    assert held() is False
    servers[1].kill()
    with pytest.raises(LockUnavailable, match="2 of 3 nodes failed") as raised:
        held()
    assert len(raised.value.errors) == 2
    client.close()


@pytest.mark.parametrize("wait", ["", False, "1", float("nan"), -1])
def test_a_wait_that_is_no_time_is_refused(make_lock, wait):
    """With the same words wherever a lock is waited for."""
    lock = make_lock()
    with pytest.raises(ConfigurationError, match="lock: wait must be"):
        lock.acquire(wait=wait)
    assert lock.held() is False


@pytest.mark.parametrize("take", [Lock.acquire, lambda lock, wait: enter(lock.hold(wait))])
def test_a_wait_of_none_ends_with_the_lock(take):
    """`None` means what it means in `threading`."""
    with Client("memory://a,b,c") as client, ThreadPoolExecutor(1) as threads:
        lock = client.lock("report")
        lease = lock.acquire()
        waiting = threads.submit(take, lock, None)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        lease.release()
        taken = waiting.result(30)
        assert lock.held()
        assert taken is not None


def test_bad_options_are_named():
    """All of them at once."""
    with Client("memory://a,b,c") as client:
        with pytest.raises(ConfigurationError, match=r"(?s)ttl.*max_hold.*backoff") as raised:
            client.lock("report", ttl=0, max_hold=-1, backoff=7)
        assert len(raised.value.faults) == 3
        with pytest.raises(ConfigurationError, match="on_lost must be"):
            client.lock("report", on_lost="explode")
        with pytest.raises(InvalidKeyError):
            client.lock("")


def test_backoff_may_be_any_strategy_of_tenacity():
    """Any of its wait strategies."""
    with Client("memory://a,b,c") as client:
        client.lock("report").acquire()
        began = time.monotonic()
        with pytest.raises(LockTimeout):
            client.lock("report", backoff=wait_fixed(0.02)).acquire(wait=0.1)
        assert time.monotonic() - began >= 0.1


def test_a_lost_lock_is_an_event():
    """Observers hear that a renewal has failed."""
    heard = []

    class Listener(Observer):
        def lease_lost(self, event):
            heard.append((event.name, event.seconds))

    with Client("memory://a,b,c", observers=[Listener()]) as client:
        lease = client.lock("report", ttl=0.3, renew=True).acquire()
        end = time.monotonic() + 10.0
        while not heard:
            assert time.monotonic() < end
            client.flush_all()
            client.lock("report").try_acquire()  # or it would be put back
            time.sleep(0.01)
        assert lease.lost
        assert heard[0][0] == b"report"
        assert 0.05 < heard[0][1] < 10.0


def test_a_collected_lease_asks_no_node():
    """The nodes keep the lock until its ttl is over."""
    with Client("memory://a,b,c") as client:
        client.lock("report").acquire()
        gc.collect()
        assert client.lock("report").try_acquire() is None


def test_reprs_are_for_operators():
    """Short, and true."""
    with Client("memory://a,b,c") as client:
        lock = client.lock("report", ttl=10)
        assert repr(lock) == "<Lock 'report', ttl 10 s>"
        lease = lock.acquire()
        assert repr(lease) == "<Lease b'report': 9.9 s>"
        lease.release()
        assert repr(lease) == "<Lease b'report': it was released>"


def test_locks_may_have_nodes_of_their_own(memcached_servers, redis_servers):
    """The cache nodes then hold no locks of either kind."""
    cache = [server.url for server in memcached_servers]
    locks = [server.url for server in redis_servers]
    with Client(cache, lock_nodes=locks, timeout=5.0) as client:
        lock = client.lock("report")
        assert {node.url for node in lock.nodes} == set(locks)
        lease = lock.acquire()
        assert {node.url for node in lease.nodes} == set(locks)
        with Client(locks, timeout=5.0) as other:
            assert other.lock("report").try_acquire() is None
        lease.release()
        names = {f"lock {server.host}:{server.port}" for server in redis_servers}
        before = {name: client.stats()[name].client["calls"] for name in names}
        client.get_or_set("report", lambda: 1, ttl=60, lock=True)
        after = client.stats()
        assert all(after[name].client["calls"] >= before[name] + 2 for name in names)
        assert names < set(client.ping())
        assert names < set(client.stats())
        client.add_node("memory://x")
        assert {node.url for node in client.lock("report").nodes} == set(locks)


@pytest.mark.parametrize("use", ["lock", "cached"])
def test_few_lock_nodes_are_warned_about_once(caplog, use):
    """One or two nodes are no majority to rely on."""
    with Client("memory://a,b") as client:
        for _ in range(2):
            if use == "lock":
                client.lock("report")
            else:
                client.cached(ttl=60, lock=True)
    assert [record.getMessage() for record in caplog.records] == [
        "locks are stored on 2 node(s): losing one node loses them; use three or more"
    ]
    caplog.clear()
    with Client("memory://a,b,c") as client:
        client.lock("report")
    assert caplog.records == []


def test_an_observer_may_release_a_lost_lock():
    """Renewals of other locks go on."""
    leases = []

    class Listener(Observer):
        def lease_lost(self, event):
            del event
            leases[0].release()

    with Client("memory://a,b,c", observers=[Listener()]) as client:
        leases.append(client.lock("lost", ttl=0.3, renew=True).acquire())
        end = time.monotonic() + 10.0
        while not leases[0].lost:
            assert time.monotonic() < end
            client.flush_all()
            client.lock("lost").try_acquire()  # or it would be put back
            time.sleep(0.01)
        other = client.lock("kept", ttl=0.3, renew=True).acquire()
        time.sleep(1.0)
        assert other.valid
        other.release()


def enter(lock):
    """Enter a block that holds the lock, and leave it with what `close` gives."""
    stack = ExitStack()
    stack.enter_context(lock)
    return stack


def enter_hold(lock):
    """Do so by `hold`."""
    return enter(lock.hold())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # by moments that no signal knows
@pytest.mark.parametrize("take", [Lock.try_acquire, Lock.acquire, enter, enter_hold])
def test_an_interrupted_acquire_keeps_no_lock(take):
    """A signal may raise at any step before the caller has the lease."""
    with Client("memory://a,b,c") as client:
        lock = client.lock("report")
        taken = []
        moments = 0
        for _ in interrupted(
            lambda: taken.append(take(lock)), lambda code: code.co_filename.startswith(PACKAGE)
        ):
            moments += 1
            if taken:
                taken.clear()
                continue
            lease = lock.try_acquire()
            assert lease is not None
            lease.release()
        assert moments > 100
        assert lock.try_acquire() is None  # but that of the uninterrupted call


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # as above
def test_an_interrupted_recompute_keeps_no_lock():
    """A signal may raise anywhere in a function cached with a lock: its next call recomputes at once."""
    with Client("memory://a,b,c") as client:
        cached = client.cached(ttl=60, lock=True, wait=30, namespace="n")(lambda number: 2 * number)
        numbers = [0]
        for _ in interrupted(
            lambda: cached(numbers[-1]), lambda code: code.co_filename.startswith(PACKAGE)
        ):
            assert cached(numbers[-1]) == 2 * numbers[-1]
            numbers.append(len(numbers))
        assert len(numbers) > 100
        assert cached.cache_info().lock_waits == 0
