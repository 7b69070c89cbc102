"""Event loops that end, stand still or are busy eject no node, and cost their own calls alone."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest

from backends.fakes import fake_node, token_of
from operations.harness import EventLog
from shardcache import AsyncClient, NodeEjected
from shardcache.testing.waiting import eventually

TIMEOUT = 0.3
PAUSE = 0.45  # longer than the timeout
FEW = 5


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.fixture(params=["memcached", "redis"])
def server(request, make_memcached, make_redis):
    """Return a server of this test's own."""
    return {"memcached": make_memcached, "redis": make_redis}[request.param]()


class TestShortLoops:
    """A loop a request, as with `async_to_sync` in a view, Celery tasks or Lambda handlers."""

    def test_a_killed_node_comes_back(self, server):
        """Within its probe delays, though no loop lives longer than a refused call."""
        client = AsyncClient(server.url, timeout=TIMEOUT)

        def store():
            return asyncio.run(client.set("k", 1))

        assert store()
        server.kill()
        assert not store()
        assert client.ejected
        server.restart()
        eventually(store, within=15)

    def test_a_stopped_node_comes_back(self, server):
        """The same for a node that was silent for a while."""
        client = AsyncClient(server.url, timeout=TIMEOUT)
        assert asyncio.run(client.set("k", 1))
        server.pause()
        while not client.ejected:
            asyncio.run(client.get("k"))
        server.resume()
        eventually(lambda: asyncio.run(client.get("k")) == 1, within=15)

    @pytest.mark.slow
    def test_a_connection_that_was_closed_meanwhile_is_noticed(self, make_redis):
        """No write is lost to a server that hung up while the loop stood still."""
        server = make_redis("--timeout", "1")
        loop = asyncio.new_event_loop()
        client = AsyncClient(server.url, timeout=5)
        counts = []
        for _ in range(3):
            counts.append(loop.run_until_complete(client.incr("n", initial=1)))
            time.sleep(2.2)  # as a frozen process: nothing runs on the loop
        loop.run_until_complete(client.aclose())
        loop.close()
        assert counts == [1, 2, 3]


class TestPauses:
    """Code that blocks the loop is no timeout of a node."""

    @pytest.mark.slow
    @pytest.mark.parametrize("warm", [True, False])
    async def test_calls_of_the_turn_that_blocks_are_answered(self, server, warm):
        """They get the time of the pause again, up to a tenth of a second."""
        log = EventLog(NodeEjected)
        async with AsyncClient(server.url, timeout=5) as other:
            await other.set("k", "v")
        async with AsyncClient(server.url, timeout=TIMEOUT, observers=[log]) as client:
            if warm:
                await client.ping()
            for _ in range(FEW):
                calls = [asyncio.create_task(client.get("k", "MISS")) for _ in range(3)]
                await asyncio.sleep(0)  # they have been submitted in this turn
                time.sleep(PAUSE)
                assert await asyncio.gather(*calls) == ["v"] * 3
        assert log.events == []

    async def test_a_batch_over_nodes_is_answered(self, memcached_servers):
        """Each of its nodes gets the time."""
        log = EventLog(NodeEjected)
        urls = [server.url for server in memcached_servers]
        async with AsyncClient(urls, timeout=TIMEOUT, observers=[log]) as client:
            keys = [f"k{number}" for number in range(50)]
            await client.set_many(dict.fromkeys(keys, 1))
            found = asyncio.create_task(client.get_many(keys))
            await asyncio.sleep(0)
            time.sleep(PAUSE)
            assert len(await found) == len(keys)
        assert log.events == []

    async def test_a_node_that_is_stopped_as_well_is_still_noticed(self, server):
        """Only the calls that the pause explains are excused."""
        async with AsyncClient(server.url, timeout=TIMEOUT) as client:
            await client.set("k", "v")
            server.pause()
            call = asyncio.create_task(client.get("k"))
            await asyncio.sleep(0)
            time.sleep(PAUSE)
            await call
            assert not client.ejected
            for _ in range(3):
                await client.get("k")
            assert client.ejected
            server.resume()


class TestRefusals:
    """A call that is refused at once."""

    async def test_a_refused_call_lets_other_tasks_run(self, server):
        """A task that asks again and again does not keep the loop to itself."""
        async with AsyncClient(server.url, timeout=TIMEOUT) as client:
            server.kill()
            await client.get("k")
            assert client.ejected
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(count())
            for _ in range(100):
                await client.get("k")
                await client.get_many(["k", "l"])
            counting.cancel()
            assert turns >= 200


class TestArriving:
    """Bytes that arrive are a sign of life."""

    async def test_replies_behind_a_large_one_eject_no_node(self):
        """They time out, and the large reply arrives."""
        size = 400_000

        def behave(connection, _):
            while request := connection.recv(65_536):
                for line in request.splitlines():
                    if b"big" not in line:
                        connection.sendall(b"EN %s\r\n" % token_of(line + b"\r\n"))
                        continue
                    connection.sendall(b"VA %d f0 %s\r\n" % (size, token_of(line + b"\r\n")))
                    for _ in range(40):  # a second in all
                        connection.sendall(b"x" * (size // 40))
                        time.sleep(0.025)
                    connection.sendall(b"\r\n")

        log = EventLog(NodeEjected)
        with fake_node(behave) as address:
            async with AsyncClient(
                f"memcached://{address}", timeout=TIMEOUT, observers=[log]
            ) as client:
                await client.get("small")
                big = asyncio.create_task(client.get("big"))
                await asyncio.sleep(0)
                for _ in range(FEW):
                    assert await client.get("small") is None
                await big
        assert log.events == []


class TestDropped:
    """A client that is dropped without a close."""

    @pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
    async def test_a_dropped_client_leaves_no_descriptor_and_warns(self, memcached_servers, scheme):
        """Although its loop goes on."""
        url = memcached_servers[0].url.replace("memcached", scheme)
        before = descriptors()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(20):
                await AsyncClient(url, timeout=5).get("k")
            gc.collect()
            await asyncio.sleep(0.05)
            gc.collect()
        after = descriptors()
        assert after - before < FEW
        dropped = [one for one in seen if "dropped without aclose()" in str(one.message)]
        assert len(dropped) >= 20 - FEW

    @pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
    async def test_a_closed_client_does_not_warn(self, memcached_servers, scheme):
        """It was closed: there is nothing to say."""
        url = memcached_servers[0].url.replace("memcached", scheme)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            async with AsyncClient(url, timeout=5) as client:
                await client.get("k")
            del client
            gc.collect()
        assert [str(one.message) for one in seen if "aclose" in str(one.message)] == []

    @pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
    def test_a_client_of_an_ended_loop_does_not_warn(self, memcached_servers, scheme):
        """No task could close it, and its loop has dropped its connections."""
        url = memcached_servers[0].url.replace("memcached", scheme)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            client = AsyncClient(url, timeout=5)
            asyncio.run(client.get("k"))
            del client
            gc.collect()
        assert [str(one.message) for one in seen if "aclose" in str(one.message)] == []


PROGRAM = """
    import asyncio, atexit
    from shardcache import AsyncClient, Client

    def blocking():
        print(client.set("total", 41))

    def awaited():
        print(loop.run_until_complete(other.set("total", 42)))

    atexit.register(blocking)  # at import, before a client is used
    atexit.register(awaited)
    client, other = Client("{url}", timeout=5), AsyncClient("{url}", timeout=5)
    loop = asyncio.new_event_loop()
    client.set("a", 1)
    loop.run_until_complete(other.set("a", 1))
"""


def test_handlers_at_exit_still_write(server):
    """A handler that the program registered before its first call runs after ours."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM).format(url=server.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == (["True", "True"], 0), done.stderr
    assert "ejected" not in done.stderr


class Session:
    """A part of a reference cycle, whose finalizer asks its client."""

    def __init__(self, url, loop, found):
        self.loop = loop
        self.cache = AsyncClient(url, timeout=20, on_error="raise")
        self.loop.run_until_complete(self.cache.set("a", 41))
        self.found = found
        self.me = self

    def __del__(self):
        self.found.append(self.loop.run_until_complete(self.cache.get("a")))
        self.loop.run_until_complete(self.cache.aclose())


# Python closes the sockets of a pool that is garbage itself, with a warning, where they come first.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("scheme", ["memcached", "redis", "pymemcache"])
def test_a_finalizer_of_a_reference_cycle_is_answered(memcached_servers, redis_servers, scheme):
    """The collector has cleared all weak references by then."""
    server = (redis_servers if scheme == "redis" else memcached_servers)[0]
    loop, found = asyncio.new_event_loop(), []
    Session(f"{scheme}://{server.host}:{server.port}", loop, found)
    gc.collect()
    loop.close()
    assert found == [41]


def test_closing_in_one_loop_closes_the_connections_of_the_others(server):
    """Each in the next turn of its own loop; none is left to the garbage collector."""
    client = AsyncClient(server.url)
    loops = [asyncio.new_event_loop() for _ in range(3)]
    before = descriptors()
    for loop in loops:
        loop.run_until_complete(client.set("k", 1))
    assert descriptors() == before + len(loops)
    loops[0].run_until_complete(client.aclose())
    for loop in loops[1:]:
        loop.run_until_complete(asyncio.sleep(0))
    assert descriptors() == before
    for loop in loops:
        loop.close()
