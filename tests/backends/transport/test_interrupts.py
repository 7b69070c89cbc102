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

import hiredis
import pytest

from backends.fakes import fake_node
from interrupting import interrupted
from shardcache import Client
from shardcache.backends.base import BackendOptions
from shardcache.backends.redis import Redis
from shardcache.backends.transport.channel import TOGETHER
from shardcache.backends.transport.pool import Slot
from shardcache.core.commands import Get, Gets
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.placement.nodes import Node
from shardcache.errors import EncodeError, NodeError, UncacheableResultError
from shardcache.operations.cluster.prober import clients_of
from shardcache.testing.waiting import eventually

KEYS = [f"k{number}" for number in range(200)]


class Interrupt(BaseException):
    """Raised by a signal handler, in the middle of anything."""


class SoftInterrupt(Exception):  # noqa: N818 - named as the other
    """The same, of a class that a careless `except` would catch: Celery's time limit is so."""


@pytest.fixture(params=["memcached", "redis"])
def urls(request, memcached_servers, redis_servers):
    """Return three nodes of each kind in turn."""
    servers = memcached_servers if request.param == "memcached" else redis_servers
    return [server.url for server in servers]


@pytest.fixture
def forget_unraisable(monkeypatch):
    """Forget what an interrupted finalizer raised: pytest would keep what that was working on."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


# Of an interrupt between the making of a socket and its first owner Python's own finalizers tell;
# they also close what there is to close, so nothing is lost.
@pytest.mark.slow
@pytest.mark.usefixtures("forget_unraisable")
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
    """Return what is to be cached."""
    return 2 * number


@pytest.mark.slow
@pytest.mark.usefixtures("forget_unraisable")
def test_interrupted_calls_leave_no_coroutine(memcached_servers):
    """After 4,000 interrupts Python warns of no coroutine that was never awaited."""
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
    """Return how many descriptors this process has open."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.usefixtures("forget_unraisable")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_a_storm_of_signals_loses_nothing(memcached_servers, redis_servers, scheme):
    """After 3,000 interrupts no slot, descriptor or thread is lost, and all keys are found."""
    servers = redis_servers if scheme == "redis" else memcached_servers
    others = set(threading.enumerate())
    urls = [f"{scheme}://{server.host}:{server.port}" for server in servers]
    client = Client(urls, pool_size=2, timeout=5)
    some = {f"k{number}": number for number in range(20)}
    assert client.set_many(some) == []
    gc.disable()  # so that no collection finds by chance what an interrupt has left
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


@pytest.mark.slow
@pytest.mark.usefixtures("forget_unraisable")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_signals_leave_no_node_ejected_forever(make_memcached):
    """Whatever an ejection or close was interrupted in, the node comes back to both clients."""
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
from shardcache import AsyncClient, Client
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


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_greenlets_that_time_out_lose_nothing(memcached_servers, redis_servers, scheme):
    """After 3,000 of gevent's timeouts in 20 greenlets, no slot or descriptor is lost."""
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
def test_ticking_signals_extend_no_deadline(make_memcached, scheme, ticking):
    """Signals that interrupt every wait do not delay the end of a call."""
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


def named_values(connection, _):
    """Answer each `GET` and script of Redis with the name of its key."""
    reader = hiredis.Reader()
    while data := connection.recv(65_536):
        reader.feed(data)
        while words := reader.gets():
            key = words[3] if words[0] == b"EVAL" else words[1]
            connection.sendall(b"$%d\r\n%b\r\n" % (len(key), key))


TURN = 0.3  # seconds for a call that is interrupted before it is sent

ENCODING = ("_encode_queued", "_encode_gets", "_encode_each", "encode_gets", "filled", "_ask")
STEPS = ("submit", *ENCODING, "_flush", "_write", "_send", "readable", "_take", "feed", "read")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Interrupt, SoftInterrupt])
@pytest.mark.parametrize("command", [Gets, Get])
def test_an_interrupted_loop_mixes_up_no_replies(kind, command, monkeypatch):
    """Whatever step a signal breaks off, each later reply is its own call's, and no node is blamed."""
    monkeypatch.setattr("interrupting.Interrupt", kind)
    loop = asyncio.new_event_loop()
    numbers = itertools.count()
    raised, blamed = [], []
    loop.set_exception_handler(lambda _, context: raised.append(context.get("exception")))

    async def ask(backend, command):
        keys = [b"%d" % next(numbers) for _ in range(TOGETHER)]
        deadline = time.monotonic() + TURN
        calls = [backend.execute(command(key), deadline) for key in keys]
        await asyncio.wait(calls)
        return keys, [call.exception() or call.result()[1] for call in calls]

    def use(backend):
        raised.clear()
        _, replies = loop.run_until_complete(ask(backend, command))
        blamed.extend(failure_kind(reply) for reply in replies if isinstance(reply, NodeError))
        for reply in (*raised, *replies):
            if isinstance(reply, kind):
                raise reply

    def is_step(code):
        return "shardcache/backends" in code.co_filename and code.co_name in STEPS

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
        assert set(blamed) == {FailureKind.NONE}
        loop.run_until_complete(backend.aclose())
