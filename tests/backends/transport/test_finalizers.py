"""Finalizers may call clients while a lock of the package is held: none deadlocks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import shardcache

PACKAGE = Path(shardcache.__file__).parent
ELSEWHERE = {"cli", "testing"}  # programs of their own, and what no finalizer calls
MAKER = "backends/locking.py"  # makes locks for others

# Every lock made within the package lets an object die, with a finalizer that calls clients, at
# each line of its own module that is run while it is held: as the garbage collector may.
FINALIZING = """
import asyncio, faulthandler, gc, os, sys, threading, time
faulthandler.dump_traceback_later(100, exit=True)

made, met = set(), set()
makers = {threading.Lock: threading.Lock, threading.RLock: threading.RLock}
holding = threading.local()

def place(frame):
    return os.path.relpath(frame.f_code.co_filename, package), frame.f_lineno

class Lock:
    def __init__(self, make, at):
        self.lock, self.at = make(), at
        made.add(at)

    def __enter__(self):
        self.lock.acquire()
        holding.locks = (*getattr(holding, "locks", ()), self.at)

    def __exit__(self, *_):
        holding.locks = holding.locks[:-1]
        self.lock.release()

    def acquire(self, blocking=True):
        return self.lock.acquire(blocking)

    def release(self):
        self.lock.release()

def maker(make):
    def lock():
        caller = sys._getframe(1)
        if caller.f_code.co_filename.endswith("locking.py"):  # which makes them for others
            caller = sys._getframe(2)
        ours = caller.f_code.co_filename.startswith(package)
        return Lock(make, place(caller)) if ours else make()
    return lock

package = sys.argv[1]
threading.Lock, threading.RLock = maker(threading.Lock), maker(threading.RLock)

finalizing = over = False
seen = set()
finalized = 0

class Dying:
    def __init__(self):
        self.me = self

    def __del__(self):
        global finalized
        use_all()
        finalized += 1

def trace(frame, event, _):
    global finalizing
    if not frame.f_code.co_filename.startswith(package):
        return None
    held = getattr(holding, "locks", ())
    here = place(frame)
    if over or event != "line" or not held or here[0] not in (held[-1][0], "backends/live_objects.py"):
        return trace
    if not finalizing and (here, held[-1]) not in seen:
        finalizing = True
        seen.add((here, held[-1]))
        met.add(held[-1])
        Dying()
        before = finalized
        gc.collect()
        assert finalized > before
        finalizing = False
    return trace

from shardcache import AsyncClient, Client, cached, configure
from shardcache.compat.pymemcache import HashClient
memcached, redis = sys.argv[2:5], sys.argv[5:8]
nodes = [memcached[0], redis[0], memcached[1].replace("memcached", "pymemcache"),
         memcached[2].replace("memcached", "pymemcache"), "memory://a", "memory://b"]

def computed(number):
    return 2 * number

def use(client, lock, function, number):
    keys = {f"k{n}": n for n in range(40)}
    assert client.set_many(keys) == []
    assert client.get_many(keys) == keys
    assert client.set(f"own{number}", number) and client.get(f"own{number}") == number
    assert client.incr(f"n{number}", initial=1) == 1
    assert function(number) == 2 * number
    with lock(f"lock {number}") as lease:
        assert lease.extend() > 0
    assert defaults(number) == 2 * number

class Unkept(Exception):
    def __init__(self, number):
        self.thing = object()

def fail():
    raise Unkept(1)

def use_all():
    global number
    number += 1
    own = number
    use(client, locker.lock, function, own)
    assert not small.set("large", "x" * 2_000)  # which is noted for the log
    try:
        small.get_or_set("fails", fail, ttl=60, cache_errors=Unkept)  # as this is
    except Unkept:
        pass
    changing.add_node(f"memory://added{own}")
    changing.remove_node(f"added{own}")
    with Client("memory://a") as other:
        assert other.get("k") is None

async def dial():
    async with AsyncClient(memcached, timeout=20) as fresh:
        assert await fresh.set("fresh", 1)

number = 0
client = Client(nodes, timeout=20, namespace=str(time.time_ns()), on_error="raise")
small = Client("memory://a?max_bytes=1000", on_error="miss")
function = client.cached(ttl=60, lock=True, namespace="f", refresh="background", stale=60)(computed)
locker = Client(redis, timeout=20)
changing = Client("memory://a")  # alone, so that no key of another thread moves
defaults = cached(ttl=60, namespace="d", stale=60)(computed)
configure("memory://d,e")

gc.collect()
gc.freeze()  # a collection is of what is made from here on
threading.settrace(trace)
sys.settrace(trace)
brief = client.cached(ttl=0.05, stale=60, namespace="g", refresh="background")(computed)
rounds = 0
while not rounds or (made - met and rounds < 50):  # one thread finalizes, so others pass a lock by
    rounds += 1
    os.environ["SHARDCACHE_PLUGINS"] = f"-absent{rounds}"  # so that all are loaded again
    configure("memory://d,e")
    assert defaults(-rounds) == -2 * rounds
    use_all()
    with Client(memcached, timeout=20) as fresh:  # which dials
        assert fresh.set("fresh", 1)
    first, second, *_ = (url.removeprefix("memcached://") for url in memcached)
    hashed = HashClient([first], timeout=20, connect_timeout=20)
    hashed.add_server(second)
    assert hashed.set("fresh", b"1")
    hashed.remove_server(first)
    hashed.close()
    asyncio.run(dial())
    lease = locker.lock("renewed", ttl=0.3, renew=True).acquire()
    time.sleep(0.2)
    lease.release()
    assert brief(1) == 2
over = True
while finalizing:  # in another thread
    time.sleep(0.01)
assert client.ejected == (), client.ejected
client.close()
sys.settrace(None)
threading.settrace(None)
print(*sorted({path for path, _ in met}), sep="\\n")
"""


def with_locks():
    """Return the modules that make locks."""
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")} - {Path(MAKER)}
    return {
        str(module)
        for module in modules
        if module.parts[0] not in ELSEWHERE
        and re.search(r"(threading\.R?|Process)Lock\(\)", (PACKAGE / module).read_text())
    }


@pytest.mark.slow
def test_a_finalizer_may_call_clients_while_a_lock_is_held(memcached_servers, redis_servers):
    """At each line that runs with a lock of the package, it neither waits nor fails."""
    urls = [server.url for server in (*memcached_servers, *redis_servers)]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", FINALIZING, str(PACKAGE), *urls],
        timeout=115,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(ended.stdout.split()) == with_locks()
