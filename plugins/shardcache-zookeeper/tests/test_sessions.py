"""One session for a process and an ensemble, from the first lock to the last client."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time

import pytest
from shardcache_zookeeper import session as sessions

from shardcache import AsyncClient, Client, LockUnavailable
from shardcache.testing.lock_calls import release, take, try_take
from shardcache.testing.waiting import eventually

PATIENCE = 20.0  # seconds in which what must come to pass has come to pass
SESSION = 3.0  # seconds, as in the fixture `url`


def opened(url):
    """Return the sessions of this process with the locks of a URL."""
    root = "/" + url.partition("://")[2].partition("/")[2].partition("?")[0]
    return [each for each in sessions._sessions.values() if each.ensemble.root == root]


def test_a_session_begins_with_the_first_lock(make, url):
    """Not with the client; both clients share it, and the last one ends it."""
    one, other = make(), make()
    assert opened(url) == []
    for client in (one, other):
        release(client, take(client, "report", SESSION))
    (session,) = opened(url)
    one.close()
    assert opened(url) == [session]
    release(other, take(other, "report", SESSION))
    other.close()
    assert opened(url) == []
    assert session._connection.kazoo.connected is False
    third = make()
    release(third, take(third, "report", SESSION))
    assert opened(url) not in ([], [session])


def test_a_reply_takes_no_detour_by_another_thread(make, session_of, monkeypatch):
    """The thread that receives it wakes the caller; a busy machine would be slow to start a third."""
    client = make()
    release(client, take(client, "report", SESSION))
    replies = session_of()._connection.kazoo.handler.completion_queue
    monkeypatch.setattr(replies, "put", lambda _: None)
    assert session_of().stat("/").result(PATIENCE) is not None
    assert release(client, take(client, "report", SESSION)) is True


def test_a_closed_client_takes_no_lock(make, url):
    """At once, with an error; another client's session is not its own."""
    one, other = make(), make()
    release(one, take(one, "report", SESSION))
    lease = take(other, "report", SESSION)
    provider = opened(url)[0]
    one.close()
    assert provider.users
    assert try_take(other, "report", SESSION) is None
    assert release(other, lease) is True


def test_a_client_that_was_dropped_ends_its_session(url):
    """Without `close`, by the collector."""
    client = Client("memory://a", locks=url, timeout=5)
    client.lock("report", ttl=60).acquire()
    del client
    gc.collect()
    eventually(lambda: opened(url) == [], within=PATIENCE)


def test_threads_and_tasks_share_it(url):
    """One after another holds the lock, whichever way they wait."""
    holding = threading.Lock()
    fences = []

    def hold(lease):
        assert holding.acquire(blocking=False)
        fences.append(lease.fence)
        holding.release()

    def thread(client):
        for _ in range(5):
            with client.lock("report", ttl=60) as lease:
                hold(lease)

    async def tasks():
        async with AsyncClient("memory://a", locks=url, timeout=5) as client:

            async def task():
                for _ in range(5):
                    async with client.lock("report", ttl=60) as lease:
                        hold(lease)

            await asyncio.gather(*(task() for _ in range(3)))

    with Client("memory://a", locks=url, timeout=5) as client:
        threads = [threading.Thread(target=thread, args=[client]) for _ in range(3)]
        for each in threads:
            each.start()
        asyncio.run(tasks())
        for each in threads:
            each.join()
    assert len(fences) == 30
    assert sorted(set(fences)) == fences


def test_a_waiting_task_does_not_block_its_loop(url, ensemble):
    """Not while it connects, nor while no server answers."""

    async def longest_pause():
        longest, last = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            yield longest

    async def main():
        pauses = longest_pause()
        done = False

        async def measure():
            longest = 0.0
            async for longest in pauses:
                if done:
                    return longest
            return longest

        async with AsyncClient("memory://a", locks=url, timeout=1) as client:
            measuring = asyncio.create_task(measure())
            lease = await client.lock("report", ttl=60).acquire()
            await lease.release()
            for server in ensemble.servers:
                server.pause()
            with pytest.raises(LockUnavailable):
                await client.lock("report", ttl=60).acquire()
            ensemble.heal()
            done = True
            return await measuring

    assert asyncio.run(main()) < 0.8


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_session_of_its_own(url, start):
    """It ends in order, and leaves its parent's lock alone."""
    process = start(url)
    fence = process.ask("acquire", "report", SESSION)
    child_fence, valid, released = process.ask("fork", "another", SESSION)
    assert (valid, released) == (False, False)
    assert child_fence > fence
    time.sleep(1.5 * SESSION)
    assert process.ask("state") == [True, False, 0]
    assert process.ask("release") is True


def test_the_end_of_a_process_ends_its_session(url, start):
    """Without `close`: no other process waits until the session's timeout."""
    process, other = start(url), start(url)
    process.ask("acquire", "report", 60)
    other.ask("acquire", "another", 60)
    process._process.stdin.close()
    assert process._process.wait(PATIENCE) == 0
    began = time.monotonic()
    assert other.ask("acquire", "report", 60) > 0
    assert time.monotonic() - began < SESSION / 2


GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, time
import gevent
from shardcache import Client

client = Client("memory://a", locks=sys.argv[1], timeout=5)
ticks, fences = [], []

def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)

def hold():
    for _ in range(5):
        with client.lock("report", ttl=60) as lease:
            fences.append(lease.fence)
            gevent.sleep(0.002)

ticking = gevent.spawn(tick)
gevent.joinall([gevent.spawn(hold) for _ in range(4)], raise_error=True)
ticking.kill()
client.close()
assert fences == sorted(set(fences)) and len(fences) == 20, fences
assert max(b - a for a, b in zip(ticks, ticks[1:])) < 0.8
"""


def test_under_gevent(url):
    """Greenlets wait without blocking each other."""
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", GEVENT, url],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
