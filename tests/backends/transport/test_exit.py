"""Calls while a program ends do not hang, and work where they can."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

SOON = (
    25.0  # seconds: above what a busy machine takes to start and end an interpreter, below a call
)


@pytest.fixture
def servers(request, scheme):
    """Return three servers that speak the test's scheme."""
    kind = "redis" if scheme == "redis" else "memcached"
    return request.getfixturevalue(f"{kind}_servers")


def ended(program, *arguments):
    """Run a program to its end; give what it wrote, and how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        timeout=90,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, time.monotonic() - began


# The reference to itself keeps it until the garbage collector of the interpreter's end comes.
FINALIZER = """
import sys, time
from shardcache import Client

class Session:
    def __init__(self):
        self.cache = Client(sys.argv[1:], timeout=60)
        {warm}
        self.me = self

    def __del__(self, monotonic=time.monotonic):
        began = monotonic()
        {call}
        assert monotonic() - began < 5
        print("done")

kept = Session()
"""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
@pytest.mark.parametrize("warm", ["pass", 'self.cache.set("a", 1)'], ids=["cold", "warm"])
def test_a_call_while_the_interpreter_ends_does_not_hang(servers, scheme, host, warm):
    """A finalizer that runs last may get an answer or an error, at once."""
    program = FINALIZER.format(warm=warm, call='self.cache.delete("a")')
    output, _ = ended(program, f"{scheme}://{host}:{servers[0].port}")
    assert output == "done\n"


@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_a_batch_while_the_interpreter_ends_does_not_hang(servers, scheme):
    """Over `pymemcache://` it would need threads."""
    urls = [f"{scheme}://{server.host}:{server.port}" for server in servers]
    keys = "[str(number) for number in range(20)]"
    output, _ = ended(
        FINALIZER.format(warm=f"self.cache.get_many({keys})", call=f"self.cache.get_many({keys})"),
        *urls,
    )
    assert output == "done\n"


HANDLER = """
import atexit, sys
from shardcache import Client

def flush():
    print(cache.set("total", 41), cache.get("total"), cache.ejected)

atexit.register(flush)
cache = Client(sys.argv[1])
cache.set("a", 1)
"""


@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_handlers_of_the_exit_still_write(servers, scheme):
    """A handler registered before the client was made uses good connections."""
    server = servers[0]
    output, _ = ended(HANDLER, f"{scheme}://{server.host}:{server.port}")
    assert output == "True 41 ()\n"


ASYNC_HANDLERS = """
import asyncio, atexit, sys
from shardcache import AsyncClient

async def write():
    print(await cache.set("total", 41), await cache.get("total"), cache.ejected)

async def drop():
    for number in range(3):
        short = AsyncClient(sys.argv[2])
        print(await short.set("a", number), await short.get("a"))
        del short
        await asyncio.sleep(0.01)  # until the loop has let go of its connection

def flush():
    {flush}

atexit.register(flush)
cache = AsyncClient(sys.argv[2])
loop = asyncio.new_event_loop()
{warm}
"""


@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
@pytest.mark.parametrize("warm", ["loop.run_until_complete", "asyncio.run"])
@pytest.mark.parametrize("flush", ["loop.run_until_complete", "asyncio.run"])
def test_handlers_of_the_exit_still_write_from_event_loops(servers, scheme, warm, flush):
    """Over the connection of a loop that went on, or of a new loop."""
    server = servers[0]
    program = ASYNC_HANDLERS.format(warm=f'{warm}(cache.set("a", 1))', flush=f"{flush}(write())")
    output, seconds = ended(program, "-", f"{scheme}://{server.host}:{server.port}")
    assert output == "True 41 ()\n"
    assert seconds < SOON


@pytest.mark.parametrize("scheme", ["memcached", "redis"])
def test_clients_dropped_by_handlers_of_the_exit_leave_the_loop_in_order(servers, scheme):
    """The loop forgets each connection before its number is used again."""
    server = servers[0]
    program = ASYNC_HANDLERS.format(
        warm='loop.run_until_complete(cache.set("a", 1))', flush="loop.run_until_complete(drop())"
    )
    output, seconds = ended(program, "-", f"{scheme}://{server.host}:{server.port}")
    assert output == "True 0\nTrue 1\nTrue 2\n"
    assert seconds < SOON


ASYNC_FINALIZER = """
import asyncio, sys, time
from shardcache import AsyncClient

class Session:
    def __init__(self):
        self.cache = AsyncClient(sys.argv[1:], timeout=60)
        self.loop = asyncio.new_event_loop()
        {warm}
        self.me = self

    def __del__(self, monotonic=time.monotonic):
        began = monotonic()
        self.loop.run_until_complete({call})
        assert monotonic() - began < 5
        print("done")

kept = Session()
"""


@pytest.mark.slow
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
@pytest.mark.parametrize("warm", ["pass", 'self.loop.run_until_complete(self.cache.set("a", 1))'])
@pytest.mark.parametrize("call", ['self.cache.delete("a")', 'self.cache.get_many(["a", "b", "c"])'])
def test_a_call_from_a_loop_while_the_interpreter_ends_does_not_hang(
    servers, scheme, host, warm, call
):
    """It ends at once, answered or not."""
    urls = [f"{scheme}://{host}:{server.port}" for server in servers]
    output, _ = ended(ASYNC_FINALIZER.format(warm=warm, call=call), *urls)
    assert output == "done\n"


@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_a_loop_waits_for_no_stopped_node_at_the_exit(make_memcached, make_redis, scheme):
    """A program ends within seconds though a task has a minute left for its call."""
    server = (make_redis if scheme == "redis" else make_memcached)()
    url = f"{scheme}://{server.host}:{server.port}"
    server.pause()
    program = (
        "import asyncio, sys\n"
        "from shardcache import AsyncClient\n"
        "cache = AsyncClient(sys.argv[1], timeout=60)\n"
        "async def main():\n"
        "    task = asyncio.create_task(cache.get('a'))\n"
        "    await asyncio.sleep(0.2)\n"
        "    print('ends')\n"
        "asyncio.run(main())\n"
    )
    output, seconds = ended(program, url)
    assert output == "ends\n"
    assert seconds < SOON


STOPPED = """
import sys, threading, time
from shardcache import Client

cache = Client(sys.argv[2:], timeout=60)
begun = threading.Barrier(5)

def call():
    begun.wait()
    getattr(cache, sys.argv[1])(["a", "b", "c"] if sys.argv[1] == "get_many" else "a")

for _ in range(4):
    threading.Thread(target=call, daemon=True).start()
begun.wait()
time.sleep(0.2)
print("ends")
"""


@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
@pytest.mark.parametrize("call", ["get", "get_many"])
def test_the_exit_waits_for_no_stopped_node(make_memcached, make_redis, scheme, call):
    """A program ends within seconds though calls have a minute left."""
    servers = [(make_redis if scheme == "redis" else make_memcached)() for _ in range(2)]
    for server in servers:
        server.pause()
    urls = [f"{scheme}://{server.host}:{server.port}" for server in servers]
    output, seconds = ended(STOPPED, call, *urls)
    assert output == "ends\n"
    assert seconds < SOON
