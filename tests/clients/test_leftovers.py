"""Nodes keep no lock without a holder, after callers were stopped and nodes were silent."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time

import pytest

from shardcache import AsyncClient, Client, LockError, LockUnavailable
from shardcache.testing import FaultProxy
from shardcache.testing.waiting import eventually

TTL = 30.0  # seconds: a lock that is free long before that was taken back
SOON = 10.0  # seconds, for a machine that is busy


@pytest.fixture(params=["memcached", "redis", "pymemcache"])
def make_server(request, make_memcached, make_redis):
    """Return a function to start a node of each kind, by its URL and itself."""

    def make():
        server = make_redis() if request.param == "redis" else make_memcached()
        url = server.url.replace("memcached://", f"{request.param}://")
        return url, server

    return make


@pytest.fixture
def delayed(make_server):
    """Return a function to start nodes behind proxies that delay."""
    with contextlib.ExitStack() as stack:

        def make(count, round_trip):
            proxies = [stack.enter_context(FaultProxy(make_server()[0])) for _ in range(count)]
            for proxy in proxies:
                proxy.delay(round_trip / 2)
            return [proxy.url for proxy in proxies]

        yield make


def assert_free(urls):
    """Wait until another client can take the lock, which is long before its ttl."""
    with Client(urls, timeout=5.0) as other:
        lock = other.lock("report", ttl=TTL)
        lease = eventually_taken(lock)
        lease.release()


def eventually_taken(lock):
    """Take a lock soon."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        with contextlib.suppress(LockUnavailable):
            lease = lock.try_acquire()
            if lease is not None:
                return lease
        time.sleep(0.01)
    raise AssertionError("somebody has it who is not there")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("round_trip", [0.001, 0.004, 0.02])
async def test_a_cancelled_acquire_keeps_no_lock(delayed, count, round_trip):
    """At any point: before the gate's reply, or before the replies of the others."""
    urls = delayed(count, round_trip)
    async with AsyncClient(urls, timeout=5.0) as client:
        lock = client.lock("report", ttl=TTL)
        await client.ping()
        for share in (0.5, 1.5):
            task = asyncio.create_task(lock.acquire())
            await asyncio.sleep(share * round_trip)
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(outcome, asyncio.CancelledError):
                await outcome.release()
            await (await lock.acquire(wait=SOON)).release()


async def test_a_closed_client_releases_its_locks_first(delayed):
    """After a cancelled task, and before the program ends."""
    urls = delayed(3, 0.02)
    async with AsyncClient(urls, timeout=5.0) as client:
        await client.ping()
        task = asyncio.create_task(client.lock("report", ttl=TTL).acquire())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.to_thread(assert_free, urls)


@pytest.mark.slow
async def test_a_call_cancelled_while_it_locks_does_not_delay_the_next(
    delayed,
):
    """The next caller waits for one call's time, not for a whole `wait`."""
    urls = delayed(3, 0.02)
    async with AsyncClient(urls, timeout=1.0) as client:
        await client.ping()
        for steps in range(1, 6):  # it begins on the key's node after three round trips
            cached = client.cached(ttl=60, lock=True, namespace=f"n{steps}")(double)
            task = asyncio.create_task(cached(21))
            await asyncio.sleep(steps * 0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            began = time.monotonic()
            assert await cached(21) == 42
            assert time.monotonic() - began < 2.5  # of `wait`'s 6 s


async def double(number):
    """Take a while."""
    await asyncio.sleep(0.05)
    return 2 * number


@pytest.mark.slow
@pytest.mark.parametrize(("count", "stopped"), [(2, 2), (3, 2), (5, 3)])
def test_resumed_nodes_keep_nothing_of_a_failed_attempt(make_server, count, stopped):
    """They store the commands that they got while stopped, and are asked again."""
    made = [make_server() for _ in range(count)]
    urls = [url for url, _ in made]
    with Client(urls, timeout=0.3) as client:
        lock = client.lock("report", ttl=TTL)
        lock.acquire().release()
        for _, server in made[:stopped]:
            server.pause()
        with pytest.raises(LockError):
            lock.acquire(wait=0.5)
        for _, server in made[:stopped]:
            server.resume()
        eventually_taken(lock).release()
        assert_free(urls)


@pytest.mark.slow
async def test_resumed_nodes_keep_nothing_of_a_failed_attempt_of_tasks(make_server):
    """Their connections were closed when the nodes were ejected."""
    made = [make_server() for _ in range(3)]
    async with AsyncClient([url for url, _ in made], timeout=0.3) as client:
        lock = client.lock("report", ttl=TTL)
        await (await lock.acquire()).release()
        for _, server in made[:2]:
            server.pause()
        for _ in range(4):
            with contextlib.suppress(LockUnavailable):
                assert await lock.try_acquire() is None
        for _, server in made[:2]:
            server.resume()
        end = time.monotonic() + SOON
        lease = None
        while lease is None:
            assert time.monotonic() < end
            with contextlib.suppress(LockUnavailable):
                lease = await lock.try_acquire()
            await asyncio.sleep(0.01)
        await lease.release()


def test_a_node_that_is_silent_at_the_release_keeps_nothing(make_server):
    """The other nodes are free at once, and this one when it goes on."""
    made = [make_server() for _ in range(3)]
    with Client([url for url, _ in made], timeout=0.3) as client:
        lock = client.lock("report", ttl=TTL)
        lease = lock.acquire()
        made[2][1].pause()
        lease.release()
        made[2][1].resume()
        with Client(made[2][0], timeout=5.0) as alone:
            eventually(lambda: not alone.lock("report").held(), within=SOON)


class Interrupt(BaseException):
    """What the handler of a signal raises."""


@pytest.mark.slow
def test_an_interrupted_acquire_keeps_no_lock(delayed):
    """By Ctrl-C or gevent's timeout, while a blocking client waits for its nodes."""
    urls = delayed(3, 0.2)

    def interrupt(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Client(urls, timeout=5.0) as client:
            client.ping()
            lock = client.lock("report", ttl=TTL)
            for seconds in (0.1, 0.3):
                with pytest.raises(Interrupt):  # noqa: PT012 - the timer belongs to the call
                    signal.setitimer(signal.ITIMER_REAL, seconds)
                    lock.acquire()
                    signal.pause()
                eventually_taken(lock).release()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


PROGRAM = """
import signal, sys
from shardcache import Client

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
client = Client(sys.argv[1:], timeout=5.0)
client.ping()
signal.setitimer(signal.ITIMER_REAL, 0.05)
client.lock("report", ttl=30).acquire()
"""


@pytest.mark.slow
def test_an_interrupted_program_releases_its_locks_before_it_ends(delayed):
    """It leaves no lock that only its ttl would end."""
    urls = delayed(3, 0.1)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *urls],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert_free(urls)


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, sys
from shardcache import Client

client = Client(sys.argv[1:], timeout=5.0)
client.ping()
lock = client.lock("report", ttl=30)
for seconds in (0.02, 0.05, 0.12):
    with gevent.Timeout(seconds, False):
        lock.acquire()
        raise AssertionError("it takes two round trips")
    lock.acquire(wait=10).release()
"""


@pytest.mark.slow
def test_a_greenlet_that_times_out_keeps_no_lock(delayed):
    """A timeout of gevent raises wherever its greenlet waits."""
    urls = delayed(3, 0.1)
    subprocess.run([sys.executable, "-c", GREENLETS, *urls], timeout=90, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("renews", [True, False])
def test_a_rolling_restart_loses_no_lock(make_server, renews):
    """Each node comes back empty, and gets the token again before the next one goes."""
    made = [make_server() for _ in range(3)]
    with Client([url for url, _ in made], timeout=2.0) as client:
        lease = client.lock("report", ttl=TTL if not renews else 6.0, renew=renews).acquire()
        for url, server in made:
            server.kill()
            server.restart()
            with Client(url, timeout=5.0) as alone:

                def is_back(node=alone):
                    if not renews:
                        lease.extend()
                    with contextlib.suppress(LockUnavailable):
                        return node.lock("report").held()
                    return False

                eventually(is_back, within=30)
            assert lease.valid
            assert client.lock("report").try_acquire() is None
        assert lease.release() is True
