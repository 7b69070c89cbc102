"""A thread or hub that was held up ejects no node."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest

from backends.fakes import fake_node, token_of
from shardcache import Node
from shardcache.testing.driving import MODES, make_client

GEVENT = """
    from gevent import monkey
    monkey.patch_all()
    import time
    import gevent
    from shardcache import Client

    hold_up = monkey.get_original("time", "sleep")
    client = Client({urls!r}, timeout=0.3)
    keys = [f"k{{number}}" for number in range(20)]
    assert client.set_many(dict.fromkeys(keys, 1)) == []
    misses = []

    def read():
        for key in keys:
            misses.append(client.get(key) is None)
            misses.append(len(client.get_many(keys)) < len(keys))
            gevent.sleep(0.01)

    readers = [gevent.spawn(read) for _ in range(50)]
    for _ in range(3):
        gevent.sleep(0.02)
        hold_up(1.2)  # code that never gives way: the hub stands still
    gevent.joinall(readers)
    few = sum(misses) <= 3 * len(readers)  # those that were under way
    print(few, len(misses), client)
"""


@pytest.mark.slow
def test_a_busy_hub_ejects_no_node(memcached_servers):
    """Replies that came while the hub stood still are read before a call times out."""
    urls = [server.url for server in memcached_servers]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GEVENT).format(urls=urls)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True 2000 <Client [3 nodes] rendezvous>\n", done.stderr


POLLS = """
    from gevent import monkey
    monkey.patch_all()
    import os
    import signal
    import time
    import gevent
    from shardcache import Client

    client = Client({url!r}, timeout=0.1)
    client.set("k", 1)
    os.kill({pid}, signal.SIGSTOP)
    while not client.ejected:
        client.get("k")
    os.kill({pid}, signal.SIGCONT)
    turns = []

    def other():
        while True:
            turns.append(1)
            gevent.sleep(0)

    gevent.spawn(other)
    began, polls = time.monotonic(), 0
    while client.get("k") is None and time.monotonic() - began < 30:
        polls += 1
    print(client.get("k"), len(turns) >= polls)
"""


@pytest.mark.slow
def test_refused_calls_let_other_greenlets_run(make_memcached):
    """The prober is one of them."""
    server = make_memcached()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(POLLS).format(url=server.url, pid=server.pid)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "1 True\n", done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_that_keeps_arriving_ends_at_its_deadline(mode):
    """With what has arrived by then: the clock is read while data flows."""
    value = b"x" * 65_536

    def behave(connection, _):
        for line in connection.makefile("rb"):
            if line.startswith(b"mg"):
                head = b"VA %d f0 %s\r\n" % (len(value), token_of(line))
                connection.sendall(head + value + b"\r\n")

    with fake_node(behave) as one, fake_node(behave) as other:
        nodes = [Node(f"memcached://{one}"), Node(f"memcached://{other}")]
        client = make_client(mode, nodes, timeout=0.3)
        began = time.monotonic()
        found = client.get_many([f"k{number}" for number in range(8_000)])  # half a GB
        took = time.monotonic() - began
        assert took < 0.6
        assert 0 < len(found) < 8_000
        assert client.ejected == ()
        client.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_stalls_within_its_replies_is_ejected(mode):
    """Bytes from long ago are no sign of life."""

    def behave(connection, _):
        while request := connection.recv(65_536):
            connection.sendall(b"VA 100 f0 %s\r\nx" % token_of(request))

    with fake_node(behave) as address:
        client = make_client(mode, f"memcached://{address}", timeout=0.2)
        for _ in range(8):
            client.get("k")
        assert client.ejected
        client.close()
