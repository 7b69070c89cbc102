"""A proxy ends with its owner, its process or its loop, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import subprocess
import sys
import threading

import pytest

from shardcache.testing import FaultProxy
from shardcache.testing.waiting import eventually
from testing.lines import PROMPT, descriptors, read_all, threads


def test_closing_leaves_nothing(memcached_servers, dial):
    """No thread, no descriptor, and clients see the end."""
    gc.collect()  # what other tests have left must not count
    before = descriptors(), threads()
    proxy = FaultProxy(memcached_servers[0].url)
    assert threads() > before[1]
    connections = [dial(proxy) for _ in range(10)]
    for connection in connections:
        connection.sendall(b"version\r\n")
        assert connection.recv(100)
    for fault in (proxy.refuse, proxy.half_open, lambda: proxy.blackhole(dials=True)):
        fault()
    proxy.close()
    for connection in connections:
        assert read_all(connection)[1] == "fin"
        connection.close()
    assert descriptors() <= before[0]
    eventually(lambda: threads() <= before[1], within=PROMPT)


def test_closing_twice_does_nothing_more(memcached_servers):
    """From any thread, and from several at once; later faults raise, counters do not."""
    proxy = FaultProxy(memcached_servers[0].url)
    closers = [threading.Thread(target=proxy.close, daemon=True) for _ in range(5)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(PROMPT)
        assert not closer.is_alive()
    proxy.close()
    with pytest.raises(RuntimeError, match="is closed"):
        proxy.delay(1)
    assert proxy.accepted == 0


def test_closing_while_other_threads_set_faults(memcached_servers):
    """Every call returns or raises; none waits for ever."""
    for _ in range(20):
        proxy = FaultProxy(memcached_servers[0].url)
        ended = []

        def steer(proxy=proxy, ended=ended):
            try:
                while True:
                    proxy.delay(0.01)
            except RuntimeError:
                ended.append(True)

        steering = [threading.Thread(target=steer, daemon=True) for _ in range(3)]
        for thread in steering:
            thread.start()
        proxy.close()
        for thread in steering:
            thread.join(PROMPT)
        assert ended == [True] * 3


def test_a_dropped_proxy_ends(memcached_servers):
    """Without a close, its thread and descriptors go with it."""
    gc.collect()
    before = descriptors(), threads()
    proxy = FaultProxy(memcached_servers[0].url)
    proxy.delay(1)
    assert descriptors() > before[0]
    del proxy
    gc.collect()
    eventually(lambda: descriptors() <= before[0] and threads() <= before[1], within=PROMPT)


def test_a_proxy_lives_through_a_lack_of_descriptors(memcached, dial):
    """A connection that cannot be accepted waits until it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    connection = socket.socket()
    connection.settimeout(PROMPT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(socket.socket())
        connection.connect((memcached.host, memcached.port))
        connection.sendall(b"version\r\n")
        assert memcached.accepted == 0
    finally:
        for one in taken:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with connection:
        assert connection.recv(100).startswith(b"VERSION")
    dial(memcached)
    assert memcached.accepted == 2


def run(program, *arguments):
    """Run a program of its own with every warning an error; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_process_ends_with_its_proxy_open(memcached_servers):
    """Nothing waits for the thread, and nothing is written to stderr."""
    program = """
import socket, sys
from shardcache.testing import FaultProxy
proxy = FaultProxy(sys.argv[1])
proxy.half_open()
connection = socket.create_connection((proxy.host, proxy.port))
connection.sendall(b"version\\r\\n")
print(proxy.connections)
connection.close()
"""
    assert run(program, memcached_servers[0].url) == "1\n"


def test_a_forked_child_has_no_part_in_a_proxy(memcached_servers):
    """It runs no thread, keeps no socket open, and cannot set faults; the parent can."""
    program = """
import os, socket, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from shardcache.testing import FaultProxy

proxy = FaultProxy(sys.argv[1])
connection = socket.create_connection((proxy.host, proxy.port), timeout=30)
connection.sendall(b"version\\r\\n")
reply = connection.recv(100)
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    sockets = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{n}")]
    assert sum(name.startswith("socket:") for name in sockets) == 1, sockets  # the client's own
    assert len(os.listdir("/proc/self/task")) == 1
    for act in (proxy.heal, lambda: proxy.connections, lambda: proxy.delay(1)):
        try:
            act()
        except RuntimeError as error:
            assert "not in this child" in str(error)
        else:
            raise AssertionError(act)
    proxy.close()
    os.write(ready[1], b"!")
    os.read(go[0], 1)
    os._exit(0)
assert os.read(ready[0], 1) == b"!"
connection.sendall(b"version\\r\\n")
assert connection.recv(100) == reply
proxy.cut_after(3, "fin")
connection.sendall(b"version\\r\\n")
assert connection.recv(100) == reply[:3]
assert connection.recv(100) == b""  # though the child is alive
os.write(go[1], b"!")
assert os.waitpid(child, 0)[1] == 0
proxy.close()
connection.close()
print("done")
"""
    assert run(program, memcached_servers[0].url) == "done\n"


def test_a_proxy_runs_under_gevent(memcached_servers):
    """In a native thread: it and the greenlets do not wait for each other."""
    program = """
from gevent import monkey
monkey.patch_all()
import os, socket, sys, time
import _socket
import gevent
from shardcache import Client, NodeTimeoutError
from shardcache.testing import FaultProxy

with FaultProxy(sys.argv[1]) as proxy:
    client = Client(proxy.url, on_error="raise", timeout=2)
    client.set("k", 1)
    assert client.get("k") == 1
    proxy.blackhole()
    def get():
        try:
            return client.get("k")
        except NodeTimeoutError as error:
            return error

    late = gevent.spawn(get)
    turns = 0
    while not late.dead:
        turns += 1
        gevent.sleep(0.01)
    assert isinstance(late.value, NodeTimeoutError), late.value
    assert turns > 5, turns
    proxy.heal()
    blocking = _socket.socket()
    blocking.connect((proxy.host, proxy.port))
    blocking.send(b"version\\r\\n")
    assert blocking.recv(100).startswith(b"VERSION")  # nothing else runs in this thread meanwhile
    blocking.close()
    proxy.refuse()
    try:
        socket.create_connection((proxy.host, proxy.port))
    except ConnectionRefusedError:
        print("refused")
    assert len(os.listdir("/proc/self/task")) >= 2
    client.close()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, memcached_servers[0].url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\ndone\n", "")


async def test_a_proxy_needs_no_loop(memcached):
    """It is used and closed from a running loop."""
    reader, writer = await asyncio.open_connection(memcached.host, memcached.port)
    writer.write(b"version\r\n")
    assert (await reader.read(100)).startswith(b"VERSION")
    memcached.cut_after(0, "fin")
    writer.write(b"version\r\n")
    assert await reader.read(100) == b""
    writer.close()
    await writer.wait_closed()
    memcached.close()
