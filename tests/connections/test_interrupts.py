"""Interrupts of every kind leave no connection out of step, and no slot lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

from connections.fakes import fake_node
from interrupting import interrupted
from shardcache import AsyncClient, Client
from shardcache.backends.base import BackendOptions
from shardcache.backends.redis import Redis
from shardcache.backends.transport.pool import Slot
from shardcache.core.commands import Get, Gets
from shardcache.core.placement.nodes import Node
from shardcache.errors import EncodeError, UncacheableResultError
from shardcache.operations.cluster.prober import clients_of
from shardcache.testing.waiting import eventually

KEYS = [f"k{number}" for number in range(200)]


class Interrupt(BaseException):
    """Raised by a signal handler, in the middle of anything."""


class SoftInterrupt(Exception):  # noqa: N818 - named as the other
    """The same, of a class that a careless `except` would catch: Celery's time limit is so."""


@pytest.fixture(params=["memcached", "redis"])
def urls(request, memcached_servers, redis_servers):
    """Give three nodes of each kind in turn."""
    servers = memcached_servers if request.param == "memcached" else redis_servers
    return [server.url for server in servers]


@pytest.fixture
def mixed(memcached_servers, redis_servers):
    """Give three memcached and three Redis nodes."""
    return [server.url for server in (*memcached_servers, *redis_servers)]


# Of an interrupt between the making of a socket and its first owner Python's own finalizers tell;
# they also close what there is to close, so nothing is lost.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_signals_leave_no_connection_out_of_step(urls):
    """500 interrupts at random moments: every value read is right, every slot is there."""
    client = Client(urls, pool_size=2, on_error="raise", timeout=5)
    client.set_many({key: f"value of {key}" for key in KEYS})
    interrupts = 0

    def interrupt(*_):
        nonlocal interrupts
        interrupts += 1
        raise Interrupt

    chance = random.Random(7)

    def ask_until_interrupted(seen):
        while interrupts == seen:  # one that a finalizer swallows is over as well
            key = chance.choice(KEYS)
            assert client.get(key) == f"value of {key}"
            some = chance.sample(KEYS, 20)
            assert client.get_many(some) == {key: f"value of {key}" for key in some}
            client.delete("absent")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while interrupts < 500:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(5e-5, 2e-3))
                ask_until_interrupted(interrupts)
            except Interrupt:
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    for member in client._cluster.members.values():
        pool = member.backend.pool
        lent = [pool.reserve(time.monotonic() + 5) for _ in range(2)]  # raises if a slot is lost
        for held in lent:
            (pool.release if isinstance(held, Slot) else pool.put)(held)
    assert client.get_many(KEYS) == {key: f"value of {key}" for key in KEYS}
    client.close()


class Storm:
    """Calls that signals interrupt, each at a moment of chance."""

    def __init__(self, calls, interrupts):
        self.interrupts = 0
        self._kinds = itertools.cycle((Interrupt, SoftInterrupt))
        self._armed = False
        chance = random.Random(13)
        before = signal.signal(signal.SIGALRM, self._interrupt)
        try:
            while self.interrupts < interrupts:
                self._one(chance.choice(calls), chance.uniform(2e-5, 6e-4))
        finally:
            signal.signal(signal.SIGALRM, before)

    def _one(self, call, seconds):
        try:
            try:
                self._armed = True
                signal.setitimer(signal.ITIMER_REAL, seconds)
                call()
            finally:
                self._armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except (Interrupt, SoftInterrupt):
            return
        except (EncodeError, UncacheableResultError) as error:
            # Raised in a codec, a `SoftInterrupt` is taken for an error of the codec's.
            if "SoftInterrupt" not in str(error):
                raise

    def _interrupt(self, *_):
        if self._armed:
            self.interrupts += 1
            raise next(self._kinds)


def double(number):
    """Give what is to be cached."""
    return 2 * number


def test_interrupted_calls_leave_no_coroutine(memcached_servers, monkeypatch):
    """4,000 interrupts, and Python has no word to say of what was never awaited."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    client = Client(memcached_servers[0].url, timeout=5)
    cached = client.cached(ttl=0.001)(double)
    calls = [
        lambda: client.get("k1"),
        lambda: client.get_many(KEYS[:10]),
        lambda: client.set_many({"a": 1, "b": 2}),
        lambda: client.incr("n"),
        lambda: cached(1),
        lambda: client.get_or_set("x", dict, ttl=0.001),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Storm(calls, 4000)
    assert [str(each.message) for each in caught if "awaited" in str(each.message)] == []
    client.close()


def descriptors():
    """Give how many descriptors this process has open."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_a_storm_of_signals_loses_nothing(memcached_servers, redis_servers, scheme, monkeypatch):
    """After 3,000 interrupts no place, descriptor or thread is lost, and all is found."""
    # pytest's own would keep what an interrupted finalizer was working on.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    servers = redis_servers if scheme == "redis" else memcached_servers
    others = set(threading.enumerate())
    urls = [f"{scheme}://{server.host}:{server.port}" for server in servers]
    client = Client(urls, pool_size=2, timeout=5)
    some = {f"k{number}": number for number in range(20)}
    assert client.set_many(some) == []
    gc.disable()  # so that nobody finds by chance what an interrupt has left
    try:
        before = descriptors()
        Storm(
            [
                lambda: client.get_many(some),
                lambda: client.get("k1"),
                lambda: client.incr("n"),
                lambda: client.delete("absent"),
            ],
            3000,
        )
        for _ in range(20):
            assert client.get_many(some) == some
        members = client._cluster.members.values()
        # As many connections and threads more as there may be, and none besides.
        assert descriptors() - before <= 2 * len(members)
        assert client.ejected == ()
        for member in members:
            pool = member.backend.pool
            lent = [pool.reserve(time.monotonic() + 5) for _ in range(2)]
            for held in lent:
                (pool.release if isinstance(held, Slot) else pool.put)(held)
    finally:
        gc.enable()
    client.close()
    # Only those that run: one whose start was interrupted before it began to run stays in Python's
    # list of threads, though there is none.
    eventually(
        lambda: (
            not [
                each
                for each in set(threading.enumerate()) - others
                if scheme in each.name and each.is_alive()
            ]
        ),
        within=4,
    )


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_signals_leave_no_node_out_for_either_client(make_memcached, monkeypatch):
    """Whatever an ejection or a close was interrupted in, the node is probed and comes back to all."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    server = make_memcached()
    clients = [Client(server.url, timeout=2), Client(server.url, timeout=2)]
    prober = clients[0]._cluster.ejector.prober

    def come_and_go():
        with Client(server.url, timeout=2) as passing:
            passing.get("k")

    for _ in range(3):
        server.kill()
        Storm([lambda: clients[0].get("k"), lambda: clients[1].get("k"), come_and_go], 300)
        for client in clients:
            client.get("k")
            client.get("k")
            assert client.ejected
        server.restart()
        eventually(lambda: not clients[0].ejected and not clients[1].ejected, within=20)
        Storm([*(client.ping for client in clients), come_and_go], 100)
        for client in clients:
            assert client.set("k", 1)
    for client in clients:
        client.close()
    gc.collect()  # those whose `close` was interrupted
    eventually(lambda: not prober._out, within=5)
    assert [health for health in prober._known.values() if clients_of(health)] == []


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gc, gevent, os, random, sys
from shardcache import Client
client = Client(sys.argv[1:], pool_size=4, timeout=5)
some = {f"k{number}": number for number in range(20)}
assert client.set_many(some) == []
calls = [
    lambda: client.get_many(some), lambda: client.get("k1"), lambda: client.incr("n"),
    lambda: client.delete("absent"),
]
came = 0

def disturb(seed):
    global came
    chance = random.Random(seed)
    for _ in range(150):
        with gevent.Timeout(chance.uniform(0, 2e-3), False):
            while True:
                chance.choice(calls)()
        came += 1

def count():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

before = count()
gevent.joinall([gevent.spawn(disturb, seed) for seed in range(20)], raise_error=True)
assert came == 3000, came
assert client.get_many(some) == some
assert count() - before <= 4 * len(sys.argv[1:]), (before, count())
for member in client._cluster.members.values():
    gevent.sleep(0.1)
    assert member.backend.pool.open <= 4
assert client.ejected == (), client.ejected
client.close()
print("done")
"""


@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_greenlets_that_time_out_lose_nothing(memcached_servers, redis_servers, scheme):
    """After 3,000 of gevent's timeouts in 20 greenlets, no place or descriptor is lost."""
    servers = redis_servers if scheme == "redis" else memcached_servers
    urls = [f"{scheme}://{server.host}:{server.port}" for server in servers[:2]]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", GEVENT, *urls],
        timeout=100,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


SENDER = """
import os, signal, sys, time
for _ in range(250):
    os.kill(int(sys.argv[1]), signal.SIGALRM)
    time.sleep(0.02)
"""


@contextmanager
def ticking_timer():
    """Have a timer send a signal every 20 ms, for 5 seconds at most."""
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    watchdog = threading.Timer(5, signal.setitimer, (signal.ITIMER_REAL, 0))
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        watchdog.join()
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def ticking_process():
    """Have another process do so."""
    came = len(ticks)
    with subprocess.Popen([sys.executable, "-c", SENDER, str(os.getpid())]) as sender:
        try:
            eventually(lambda: len(ticks) > came, within=10)
            yield
        finally:
            sender.kill()


ticks = []


@pytest.mark.parametrize("ticking", [ticking_timer, ticking_process])
@pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
def test_ticking_signals_prolong_no_deadline(make_memcached, scheme, ticking):
    """Signals that interrupt every wait do not keep a call beyond its deadline."""
    server = make_memcached()
    client = Client(f"{scheme}://{server.host}:{server.port}", timeout=0.3)
    client.set("k", 1)
    server.pause()
    before = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    try:
        with ticking():
            started = time.monotonic()
            assert client.get("k") is None
            assert time.monotonic() - started < 2
    finally:
        signal.signal(signal.SIGALRM, before)
        client.close()


def test_cancelling_at_random_moments_mixes_nothing_up(urls):
    """3,000 calls cancelled at random moments: what others read is right, nothing is left over."""

    async def main():
        chance = random.Random(11)
        async with AsyncClient(urls, on_error="raise", timeout=10) as client:
            await client.set_many({key: f"value of {key}" for key in KEYS})

            async def read():
                key = chance.choice(KEYS)
                if chance.random() < 0.5:
                    assert await client.get(key) == f"value of {key}"
                else:
                    some = chance.sample(KEYS, 10)
                    assert await client.get_many(some) == {key: f"value of {key}" for key in some}

            for _ in range(60):
                tasks = [asyncio.create_task(read()) for _ in range(100)]
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                for task in chance.sample(tasks, 50):
                    task.cancel()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert result is None or isinstance(result, asyncio.CancelledError), result
            assert await client.get_many(KEYS) == {key: f"value of {key}" for key in KEYS}
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others

    asyncio.run(main())


def test_children_forked_after_connecting_have_connections_of_their_own(mixed):
    """Four children and their parent read and write at once, and nobody reads another's reply."""
    client = Client(mixed, on_error="raise", timeout=10)
    client.set_many({key: key for key in KEYS})
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for turn in range(300):
                    key = KEYS[turn % len(KEYS)]
                    assert client.get(key) == key
                    client.set(f"{number}:{turn}", turn)
                    assert client.get(f"{number}:{turn}") == turn
                assert client.get_many(KEYS) == {key: key for key in KEYS}
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(pid)
    for turn in range(300):
        assert client.get(KEYS[turn % len(KEYS)]) == KEYS[turn % len(KEYS)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    client.close()


def test_sixteen_threads_share_one_client(mixed):
    """Every thread reads what it wrote, through a pool smaller than their number."""
    client = Client(mixed, pool_size=4, on_error="raise", timeout=20)
    wrong = []

    def work(number):
        for turn in range(150):
            key, value = f"{number}:{turn}", [number, turn]
            client.set(key, value)
            if client.get(key) != value:
                wrong.append(key)
            some = {f"{number}:{turn}:{n}": n for n in range(8)}
            client.set_many(some)
            if client.get_many(some) != some:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(member.backend.pool.open <= 4 for member in client._cluster.members.values())
    client.close()


def test_one_client_serves_three_loops_one_after_another(mixed):
    """A client outlives the loops it is used in, closed or not; warnings are errors here."""
    client = AsyncClient(mixed, on_error="raise", timeout=10)

    async def use(turn):
        await client.set("k", turn)
        return await client.get("k")

    assert [asyncio.run(use(turn)) for turn in range(3)] == [0, 1, 2]

    async def end():
        await use(3)
        await client.aclose()

    asyncio.run(end())


def test_five_thousand_gets_at_once(mixed):
    """There is no pool to exhaust: 5,000 tasks read through one client."""

    async def main():
        async with AsyncClient(mixed, on_error="raise", timeout=30) as client:
            await client.set_many({key: key for key in KEYS})
            found = await asyncio.gather(*(client.get(KEYS[n % 200]) for n in range(5000)))
            assert found == [KEYS[n % 200] for n in range(5000)]

    asyncio.run(main())


def test_calls_of_one_turn_leave_together(memcached_servers):
    """However many tasks ask in one turn of the loop, each node gets one write."""

    async def main():
        async with AsyncClient(memcached_servers[0].url, on_error="raise", timeout=10) as client:
            await client.get("warm")
            backend = next(iter(client._cluster.members.values())).backend
            channel = backend._channels[asyncio.get_running_loop()]
            writes = []
            sock = channel._sock

            class Counting:
                def __getattr__(self, name):
                    return getattr(sock, name)

                def send(self, data):
                    writes.append(len(data))
                    return sock.send(data)

            channel._sock = Counting()
            await asyncio.gather(*(client.get(key) for key in KEYS))
            channel._sock = sock
            assert len(writes) == 1

    asyncio.run(main())


def test_closing_while_dialing_leaves_nothing_behind():
    """A client closed before its node answered the dial leaves no task and no watched socket."""

    async def main(address):
        client = AsyncClient(f"redis://:secret@{address}", on_error="raise", timeout=30)
        call = asyncio.create_task(client.get("k"))
        await asyncio.sleep(0.05)  # connected, and waiting for an answer to the password
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await client.aclose()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with fake_node(lambda connection, _: connection.recv(4096) and time.sleep(2)) as address:
        asyncio.run(main(address))


def test_a_call_that_meets_a_closing_connection_is_answered(memcached_servers):
    """Calls on a node that retires are served to the end: none hangs, none fails."""

    async def main():
        client = AsyncClient(memcached_servers[0].url, on_error="raise", timeout=10)
        backend = next(iter(client._cluster.members.values())).backend
        for _ in range(50):
            calls = [asyncio.ensure_future(client.get("k")) for _ in range(3)]
            closing = asyncio.ensure_future(backend.aclose())
            for _ in range(4):
                await asyncio.sleep(0)
                calls.append(asyncio.ensure_future(client.get("k")))
            assert await asyncio.wait_for(asyncio.gather(*calls), 5) == [None] * 7
            await closing
        await client.aclose()

    asyncio.run(main())


def test_a_cancelled_dial_is_dialed_again(memcached_servers):
    """Cancelling every task of a loop, as servers do on the way down, kills no channel."""

    async def main():
        client = AsyncClient(memcached_servers[0].url, on_error="raise", timeout=10)
        for turns in range(6):
            call = asyncio.ensure_future(client.get("k"))
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert await client.set("k", turns) is True
            await next(iter(client._cluster.members.values())).backend.aclose()
        await client.aclose()

    asyncio.run(main())


def named_values(connection, _):
    """Answer each `GET` of Redis with the name of its key."""
    while request := connection.recv(65_536):
        keys = request.split(b"\r\n")[4::5]
        connection.sendall(b"".join(b"$%d\r\n%b\r\n" % (len(key), key) for key in keys))


TURN = 0.3  # seconds for a call that is interrupted before it is sent


STEPS = ("_encode", "_expect", "_flush", "_send", "readable", "_take", "_ask", "feed", "read")


@pytest.mark.parametrize(
    ("kind", "steps"), [(Interrupt, STEPS), (SoftInterrupt, ("_expect", "_ask"))]
)
def test_an_interrupted_loop_mixes_up_no_replies(kind, steps, monkeypatch):
    """Whatever step on the connection a signal breaks off: each later reply is its own call's."""
    monkeypatch.setattr("interrupting.Interrupt", kind)
    loop = asyncio.new_event_loop()
    numbers = itertools.count()
    raised = []
    loop.set_exception_handler(lambda _, context: raised.append(context.get("exception")))

    async def ask(backend, command):
        keys = [b"%d" % next(numbers) for _ in range(3)]
        deadline = time.monotonic() + TURN
        calls = [backend.execute(command(key), deadline) for key in keys]
        await asyncio.wait(calls)
        return keys, [call.exception() or call.result()[1] for call in calls]

    def use(backend):
        raised.clear()
        _, replies = loop.run_until_complete(ask(backend, Gets))
        for reply in (*raised, *replies):
            if isinstance(reply, kind):
                raise reply

    def is_step(code):
        return "shardcache/backends" in code.co_filename and code.co_name in steps

    with fake_node(named_values) as address, contextlib.closing(loop):
        backend = Redis().asyncio(Node(f"redis://{address}"), BackendOptions(call_timeout=TURN))
        loop.run_until_complete(ask(backend, Get))
        interrupts = 0
        for _ in interrupted(lambda: use(backend), is_step):
            interrupts += 1
            for _ in range(2):
                keys, values = loop.run_until_complete(ask(backend, Get))
                assert values == keys
        assert interrupts > 5
        loop.run_until_complete(backend.aclose())
