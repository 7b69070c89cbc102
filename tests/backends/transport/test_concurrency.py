"""Threads, tasks, loops and forked processes share a client, and none reads the reply of another."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time

import pytest

from backends.fakes import fake_node
from shardcache import AsyncClient, Client
from shardcache.backends.transport.channel import TOGETHER
from shardcache.errors import ValueTooLargeError

KEYS = [f"k{number}" for number in range(200)]


@pytest.fixture(params=["memcached", "redis"])
def urls(request, memcached_servers, redis_servers):
    """Return three nodes of each kind in turn."""
    servers = memcached_servers if request.param == "memcached" else redis_servers
    return [server.url for server in servers]


@pytest.fixture
def mixed(memcached_servers, redis_servers):
    """Return three memcached and three Redis nodes."""
    return [server.url for server in (*memcached_servers, *redis_servers)]


def test_cancelling_at_random_moments_mixes_up_no_replies(urls):
    """Of 3,000 calls the others read their own values, and nothing is left."""

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
    """Four children and their parent read and write at once, and none reads another's reply."""
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


@pytest.mark.slow
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


def test_commands_of_one_turn_get_their_own_replies(mixed):
    """Gets among other commands, a key in a foreign form, and a value that no node takes."""

    async def main():
        nodes = [f"{url}?max_value_bytes=1000" for url in mixed]
        async with AsyncClient(nodes, on_error="raise", timeout=10) as client:
            await client.set_many({key: key for key in KEYS})
            calls = []
            for number, key in enumerate(KEYS):
                calls += [client.get(key), client.get("two words"), client.get(f"{key} none")]
                if number % 3 == 0:
                    calls += [client.set(key, key), client.get_many(KEYS[:2]), client.delete("no")]
            huge = client.set("huge", b"x" * 2000)
            *replies, error = await asyncio.gather(*calls, huge, return_exceptions=True)
            expected = []
            for number, key in enumerate(KEYS):
                expected += [key, None, None]
                if number % 3 == 0:
                    expected += [True, dict(zip(KEYS[:2], KEYS[:2], strict=True)), False]
            assert replies == expected
            assert isinstance(error, ValueTooLargeError)

    asyncio.run(main())


@pytest.mark.parametrize("together", [True, False])
def test_an_error_while_commands_are_encoded_reaches_their_callers(memcached_servers, together):
    """Such as a signal handler's: nobody waits for ever, and the next call has a new connection."""

    async def main():
        async with AsyncClient(memcached_servers[0].url, on_error="raise", timeout=10) as client:
            await client.set("k", "v")
            backend = next(iter(client._cluster.members.values())).backend
            channel = backend._channels[asyncio.get_running_loop()]

            def fail(*_):
                raise MemoryError

            class Failing:
                encode = encode_gets = staticmethod(fail)
                partial_reply = idle = None

            channel._wire = Failing()
            calls = [client.get("k") for _ in range(TOGETHER)]
            if not together:
                calls.append(client.delete("k"))
            replies = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in replies} == {MemoryError}
            assert await client.get("k") == "v"
            assert backend._channels[asyncio.get_running_loop()] is not channel

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
    """Calls on a removed node are served to the end: none hangs, none fails."""

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
    """Cancelling every task of a loop, as servers do when they stop, kills no channel."""

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
