"""What must not happen to a cached value, whatever its function or the callers do."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from shardcache import AsyncClient, Client, RecomputeTimeoutError
from shardcache.core.commands import DeleteCas, GetOrStub
from shardcache.decorators import Defaults
from shardcache.io.blocking import REFRESHERS
from shardcache.settings import Settings
from shardcache.testing.waiting import eventually


async def blocked(end):
    """Keep the thread that does it."""
    end.wait(30)


class TestTrouble:
    """What must not happen, whatever the function or its callers do."""

    async def test_a_function_that_cancels_itself_is_called_once(self):
        """Its caller gets the cancellation, and no other caller repeats the call."""
        calls = []
        async with AsyncClient("memory://a,b,c") as client:

            @client.cached(ttl=60, namespace="f")
            async def f():
                calls.append(1)
                other = asyncio.get_running_loop().create_future()
                other.cancel()
                await other

            async with asyncio.timeout(10):
                with pytest.raises(asyncio.CancelledError):
                    await f()
        assert len(calls) == 1

    async def test_an_error_that_cannot_be_copied_has_a_trace_for_each_caller(self):
        """Its `__init__` wants more than its arguments, as in some SDKs."""

        class RefusedError(Exception):
            def __init__(self, *, code):
                super().__init__(f"refused with {code}")
                self.code = code

        async with AsyncClient("memory://a") as client:

            @client.cached(ttl=60, namespace="f")
            async def f():
                await asyncio.sleep(0.05)
                raise RefusedError(code=7)

            errors = await asyncio.gather(*(f() for _ in range(5)), return_exceptions=True)
        assert [(type(each), str(each), each.code) for each in errors] == [
            (RefusedError, "refused with 7", 7)
        ] * 5
        assert len({id(each) for each in errors}) == 5
        assert sum(each.__traceback__.tb_next is not None for each in errors) == 5

    async def test_each_caller_waits_its_own_time(self):
        """A timeout of the first follower does not end the wait of the others."""
        async with AsyncClient("memory://a") as client:

            @client.cached(ttl=60, lock="shard", wait=0.5, on_timeout="raise", namespace="n")
            async def f():
                return "made by the second"

            name = await f.key_for()
            cluster = client._cluster
            routed, member, _ = cluster.route(name)
            met = await cluster.ask(member, GetOrStub(routed, b"m" * 16, 30))
            first = asyncio.create_task(f())
            await asyncio.sleep(0.3)
            second = asyncio.create_task(f())
            with pytest.raises(RecomputeTimeoutError):
                await first
            assert not second.done()
            await cluster.ask(member, DeleteCas(routed, met.token))
            assert await second == "made by the second"

    async def test_closing_ends_the_recomputes_under_way(self, redis_servers):
        """No task is left, and no stub that others would wait for."""
        urls = [server.url for server in redis_servers]
        before = asyncio.all_tasks()
        async with AsyncClient(urls) as client, AsyncClient(urls) as other:
            began = asyncio.Event()

            @client.cached(ttl=60, lock=True, namespace="n")
            async def f():
                began.set()
                await asyncio.sleep(30)

            key = await f.key_for()
            call = asyncio.create_task(f())
            await began.wait()
            assert await other.add(key, 1) is False  # a stub is there
            await client.aclose()
            left = [task.get_name() for task in asyncio.all_tasks() - before]
            assert not [name for name in left if name.startswith("shardcache")]
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await other.add(key, 1) is True
            assert await other.lock(key).try_acquire() is not None
        assert asyncio.all_tasks() == before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has none")
    @pytest.mark.parametrize("lock", ["shard", True])
    def test_a_forked_child_abandons_nothing_of_its_parent(self, redis_servers, lock):
        """A function may fork, and the child exit within it."""
        urls = [server.url for server in redis_servers]
        with Client(urls, timeout=5.0) as client:

            @client.cached(ttl=60, lock=lock, namespace="n")
            def f():
                child = os.fork()
                if not child:
                    raise SystemExit(7)
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

            parent = os.getpid()
            try:
                status = f()
            finally:
                if os.getpid() != parent:
                    os._exit(7)
            assert status == 7
            assert f.get() == 7
            assert (f.cache_info().rejected, f.cache_info().locks_lost) == (0, 0)

    def test_a_value_too_large_leaves_no_older_one(self, memcached_servers):
        """When the node refuses the new value, the old one is gone too."""
        with Client([server.url for server in memcached_servers], codec="raw") as client:
            size = [1]

            @client.cached(ttl=60, namespace="f")
            def f():
                return b"x" * size[0]

            f()
            size[0] = 2_000_000
            assert len(f.refresh()) == 2_000_000
            assert f.get() is None
            assert f.set(b"small") is True
            assert f.set(b"x" * 2_000_000) is False
            assert f.get() is None

    @pytest.mark.parametrize("way", ["set", "touch", "cas", "flush_all"])
    def test_every_way_to_remove_a_value_voids_its_recompute(self, way):
        """A later caller does not join a recompute that began before."""
        with Client("memory://a") as client:
            version, began, end = [1], threading.Event(), threading.Event()

            @client.cached(ttl=60, namespace="n", wait=1, on_timeout="raise")
            def f():
                made = version[0]
                if made == 1:
                    began.set()
                    end.wait(30)
                return made

            key = f.key_for()
            thread = threading.Thread(target=f)
            thread.start()
            began.wait(30)
            version[0] = 2
            ways = {
                "set": lambda: client.set(key, 0, ttl=0),
                "touch": lambda: client.touch(key, 0),
                "cas": lambda: client.set(key, 0) and client.cas(key, 0, client.gets(key)[1], 0),
                "flush_all": client.flush_all,
            }
            assert ways[way]() is not None
            assert f() == 2
            end.set()
            thread.join(30)
            assert f() == 2

    def test_invalidate_all_is_noticed_while_all_refreshers_are_busy(self):
        """A call looks for it when no refresher is free."""
        with Client("memory://a,b,c") as client:
            f = client.cached(ttl=60, namespace="n")(lambda: "made")
            f()
            end = threading.Event()
            io = client._cluster.io
            offers = [io.try_spawn(lambda: blocked(end), "test") for _ in range(REFRESHERS)]
            assert all(offers)
            other = client.cached(ttl=60, namespace="n")(f.__wrapped__)
            other.invalidate_all()
            eventually(lambda: f() and f.cache_info().misses == 2, within=10)
            end.set()

    def test_a_default_client_with_few_lock_nodes_warns_once(self, caplog):
        """The log tells it when the client is made."""
        defaults = Defaults()
        defaults.note_locks()
        defaults.configure(Settings.from_url("memory://a"))
        assert defaults.client() is defaults.client()
        assert sum("three or more" in record.message for record in caplog.records) == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has none")
    def test_a_fork_while_the_default_client_is_made_blocks_no_child(self):
        """The child makes its own client, whatever lock its parent holds."""
        defaults = Defaults()
        defaults.configure(Settings.from_url("memory://a"))
        with defaults._creating.current():
            child = os.fork()
            if not child:
                signal.alarm(10)
                os._exit(0 if defaults.client().set("k", 1) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @pytest.mark.parametrize("lock", [False, "shard", True])
    def test_an_old_value_outlives_nested_calls(self, lock):
        """A call within another cached function does not drop the last resort."""
        with Client("memory://a,b,c") as client:
            down = []

            @client.cached(
                ttl=0.05,
                jitter=0.0,
                stale_if_error=600,
                error_backoff=30,
                lock=lock,
                namespace="source",
            )
            def source():
                if down:
                    raise ValueError("the source is down")
                return "old"

            @client.cached(ttl=0.01, jitter=0.0, condition=lambda _: False, namespace="page")
            def page():
                return source()

            assert page() == "old"
            down.append(1)
            time.sleep(0.1)
            assert [page() for _ in range(5)] == ["old"] * 5

    def test_the_first_callers_of_a_process_know_the_generation(self, memcached_servers):
        """None of many that call at once is served an invalidated value."""
        urls = [server.url for server in memcached_servers]
        version = [1]
        with Client(urls, timeout=5.0) as client:
            f = client.cached(ttl=60, namespace="n")(lambda: version[0])
            assert f() == 1
            f.invalidate_all()
            version[0] = 2
            assert f() == 2
        for _ in range(5):
            with Client(urls, timeout=5.0) as fresh:
                g = fresh.cached(ttl=60, namespace="n")(lambda: version[0])
                start = threading.Barrier(8)
                seen = []

                def call(g=g, start=start, seen=seen):
                    start.wait()
                    seen.append(g())

                threads = [threading.Thread(target=call) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(30)
                assert seen == [2] * 8

    @pytest.mark.parametrize("lock", [False, "shard"])
    def test_two_marks_of_abandoned_recomputes_differ(self, redis_servers, lock):
        """A late leader does not store over an invalidation because a mark looks like another."""
        urls = [server.url for server in redis_servers]
        with Client(urls, timeout=5.0) as client:
            fails = [True]

            @client.cached(ttl=60, lock=lock, namespace="n")
            def failing():
                raise ValueError("none")

            @client.cached(ttl=60, lock=lock, namespace="m", coalesce=False)
            def late():
                if fails:
                    fails.clear()
                    client.delete(failing.key_for())
                    with pytest.raises(ValueError, match="none"):
                        failing()
                return "old"

            with pytest.raises(ValueError, match="none"):
                failing()
            client.get_or_set(failing.key_for(), late.bypass, ttl=60, lock=lock)
            assert client.get(failing.key_for()) is None

    @pytest.mark.parametrize("how", ["delete", "delete_many", "invalidate", "invalidate_tag"])
    def test_an_invalidation_voids_the_flights_of_its_process(self, how):
        """A caller after an invalidation of any kind does not join an earlier recompute."""
        with Client("memory://a,b,c") as client:
            begun, go, calls, results = threading.Event(), threading.Event(), [], []

            @client.cached(ttl=60, tags=["t"], wait=60.0, namespace="f")
            def f():
                calls.append(1)
                if len(calls) > 1:
                    return "new"
                begun.set()
                go.wait(3)
                return "old"

            first = threading.Thread(target=lambda: results.append(f()))
            first.start()
            begun.wait(30)
            voids = {
                "delete": lambda: client.delete(f.key_for()),
                "delete_many": lambda: client.delete_many([f.key_for()]),
                "invalidate": f.invalidate,
                "invalidate_tag": lambda: client.invalidate_tag("t"),
            }
            voids[how]()
            assert f() == "new"
            go.set()
            first.join(30)
            assert results == ["old"]
            assert f.get() == "new"

    @pytest.mark.parametrize("on_timeout", ["raise", "compute"])
    def test_a_follower_that_times_out_obeys_the_policy(self, on_timeout):
        """It gets the error, or its own call."""
        with Client("memory://a,b,c") as client:
            begun, go, calls = threading.Event(), threading.Event(), []

            @client.cached(ttl=60, wait=0.05, on_timeout=on_timeout, namespace="f")
            def f():
                calls.append(1)
                if len(calls) == 1:
                    begun.set()
                    go.wait(30)
                return len(calls)

            first = threading.Thread(target=f)
            first.start()
            begun.wait(30)
            if on_timeout == "raise":
                with pytest.raises(RecomputeTimeoutError):
                    f()
            else:
                assert f() == 2
            go.set()
            first.join(30)
            assert len(calls) == (1 if on_timeout == "raise" else 2)

    def test_the_lock_of_a_user_is_not_the_lock_of_a_value(self):
        """A block that holds a lock may recompute a value of the same name."""
        with Client("memory://a,b,c") as client:
            began = time.monotonic()
            with client.lock("report"):
                assert client.get_or_set("report", lambda: 1, ttl=60, lock=True) == 1
            assert time.monotonic() - began < 3.0

    def test_a_tag_whose_node_is_down_leaves_no_stub(self, make_memcached):
        """The value is returned, not stored and counted, and no caller waits for it."""
        well, down = make_memcached(), make_memcached()
        with Client([well.url, down.url], timeout=0.2) as client:
            tag = next(f"t{n}" for n in range(100) if client.node_for(f"t{n}").url == down.url)
            down.kill()

            @client.cached(ttl=60, lock="shard", tags=[tag], key="{number}")
            def f(number):
                return number

            here = next(n for n in range(100) if client.node_for(f"{__name__}:{n}").url == well.url)
            began = time.monotonic()
            assert [f(here), f(here)] == [here, here]
            assert time.monotonic() - began < 3.0
            assert f.cache_info().cache_errors >= 2

    async def test_a_call_cancelled_at_its_start_leaves_no_stub(self, make_redis):
        """The next caller does not wait for it."""
        server = make_redis()
        async with AsyncClient(server.url, timeout=5.0) as client:

            @client.cached(ttl=60, lock="shard", namespace="f")
            async def f(number):
                return number

            await f(-1)
            for number in range(40):
                task = asyncio.create_task(f(number))
                for _ in range(number % 10):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                async with asyncio.timeout(3.0):
                    assert await f(number) == number

    async def test_a_closed_client_stops_its_recomputes(self):
        """Nothing goes on in the background."""
        client = AsyncClient("memory://a")
        begun, ended = asyncio.Event(), []

        @client.cached(ttl=60, namespace="f")
        async def f():
            begun.set()
            try:
                await asyncio.sleep(30)
            finally:
                ended.append(1)

        task = asyncio.create_task(f())
        await begun.wait()
        await client.aclose()
        await asyncio.gather(task, return_exceptions=True)
        assert ended == [1]

    def test_an_exception_with_its_own_constructor_is_not_stored(self):
        """It cannot be made again, and reaches the caller as it is."""

        class OddError(Exception):
            def __new__(cls, *, code):
                made = super().__new__(cls, code)
                made.code = code
                return made

            def __init__(self, *, code):
                pass

        with Client("memory://a") as client:

            @client.cached(ttl=60, cache_errors=OddError, error_ttl=30, namespace="f")
            def f():
                raise OddError(code=7)

            for _ in range(3):
                with pytest.raises(OddError):
                    f()
