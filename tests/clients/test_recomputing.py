"""Callers of one process recompute once and share the result: on every kind of node, in both clients."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
import traceback
from datetime import timedelta

import pytest

import shardcache
from clients.sources import as_called
from shardcache import AsyncClient, Client, ConfigurationError, UncacheableResultError
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually

LONG = 30.0
LOCKS = [False, "shard", True]


def in_thread(call):
    """Begin a call in a thread; return the thread and where its result will be."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("way", ["invalidate", "invalidate_tag"])
class TestVoidFlights:
    """A call after an invalidation in another process gets no older value."""

    def test_each_thread_has_its_own_generator(self, urls, lock, way):
        """No other thread has read of it."""
        source, go, begun = ["old"], threading.Event(), threading.Event()

        def cached(client):
            @client.cached(ttl=60, lock=lock, tags=["t"], namespace="f")
            def f():
                value = source[0]
                if value == "old":
                    begun.set()
                    go.wait(LONG)
                return value

            return f

        with Client(urls, timeout=2.0) as here, Client(urls, timeout=2.0) as there:
            f, g = cached(here), cached(there)
            thread, results = in_thread(g)
            assert begun.wait(LONG)
            source[0] = "new"
            f.invalidate() if way == "invalidate" else f.invalidate_tag("t")
            assert g() == "new"
            go.set()
            thread.join(LONG)
            assert results == ["old"]
            assert g.get() == "new"

    @pytest.mark.slow
    async def test_tasks_that_waited_call_side_by_side(self, urls, lock, way):
        """Not one after another."""
        source, go, begun = ["old"], asyncio.Event(), asyncio.Event()

        def cached(client):
            @client.cached(ttl=60, lock=lock, tags=["t"], namespace="f")
            async def f():
                value = source[0]
                if value == "old":
                    begun.set()
                    await go.wait()
                return value

            return f

        async with AsyncClient(urls, timeout=2.0) as here, AsyncClient(urls, timeout=2.0) as there:
            f, g = cached(here), cached(there)
            leader = asyncio.create_task(g())
            await begun.wait()
            source[0] = "new"
            await (f.invalidate() if way == "invalidate" else f.invalidate_tag("t"))
            assert await g() == "new"
            go.set()
            assert await leader == "old"
            assert await g.get() == "new"


def test_later_threads_join_their_leader(urls):
    """They find its stub, also on memcached, whose stubs have no names."""
    go, calls = threading.Event(), []
    with Client(urls, timeout=2.0) as client:

        @client.cached(ttl=60, wait=LONG, namespace="f")
        def f():
            calls.append(1)
            go.wait(LONG)
            return len(calls)

        threads = []
        for _ in range(5):
            threads.append(in_thread(f)[0])
            eventually(lambda: calls, within=LONG)
        eventually(lambda: f.cache_info().misses == 5, within=LONG)
        go.set()
        for thread in threads:
            thread.join(LONG)
        assert len(calls) == 1


class TestWhatIsNotShared:
    """A result that is neither stored nor copied belongs to the caller that computed it."""

    @pytest.mark.parametrize("lock", LOCKS)
    def test_each_thread_has_its_own_generator(self, all_urls, lock):
        """No other thread has read of it."""
        barrier, calls = threading.Barrier(4), []
        with Client(all_urls, timeout=2.0) as client:

            @client.cached(
                ttl=60, lock=lock, condition=lambda rows: isinstance(rows, dict), namespace="rows"
            )
            def rows():
                calls.append(1)
                if len(calls) == 1:  # the others wait for this call
                    eventually(lambda: rows.cache_info().misses == 4, within=LONG)
                return (number for number in range(3))

            def read():
                barrier.wait(LONG)
                return list(rows())

            started = [in_thread(read) for _ in range(4)]
            for thread, _ in started:
                thread.join(LONG)
            assert [results for _, results in started] == [[[0, 1, 2]]] * 4
            assert len(calls) == 4

    @pytest.mark.slow
    @pytest.mark.parametrize("lock", LOCKS)
    async def test_tasks_that_waited_call_side_by_side(self, all_urls, lock):
        """Not one after another."""
        busy = [0, 0]
        async with AsyncClient(all_urls, timeout=2.0) as client:

            @client.cached(
                ttl=60, lock=lock, condition=lambda rows: isinstance(rows, dict), namespace="rows"
            )
            async def rows():
                busy[0] += 1
                busy[1] = max(busy)
                await asyncio.sleep(0.2)
                busy[0] -= 1
                return (number for number in range(3))

            results = await asyncio.gather(*(rows() for _ in range(4)))
            assert [list(each) for each in results] == [[0, 1, 2]] * 4
            assert busy == [0, 3]

    async def test_a_result_that_can_be_copied_is(self, all_urls):
        """One that `condition` refuses goes to all followers, to each as a copy."""
        calls = []
        async with AsyncClient(all_urls, timeout=2.0) as client:

            @client.cached(ttl=60, condition=lambda _: False, namespace="f")
            async def f():
                calls.append(1)
                await asyncio.sleep(0.1)
                return [1]

            results = await asyncio.gather(*(f() for _ in range(4)))
            assert results == [[1]] * 4
            assert len({id(each) for each in results}) == 4
            assert len(calls) == 1


class TestWhatTheFunctionDoes:
    """A cached function may do what a plain one may."""

    @pytest.mark.parametrize("coalesce", [True, False])
    def test_stop_iteration_reaches_the_caller(self, all_urls, coalesce):
        """As it was raised, with its value, stored or not."""
        calls = []
        with Client(all_urls, timeout=2.0) as client:
            for terms in ({}, {"cache_errors": StopIteration, "error_ttl": 30}):

                @client.cached(ttl=60, coalesce=coalesce, namespace=str(terms), **terms)
                def f():
                    calls.append(1)
                    raise StopIteration(7)

                for _ in range(2):
                    with pytest.raises(StopIteration) as raised:
                        f()
                    assert raised.value.value == 7
                    assert "in f" in "".join(traceback.format_exception(raised.value)) or terms
        assert len(calls) == 3

    async def test_stop_async_iteration_reaches_the_callers(self, all_urls):
        """All that wait for a coroutine function get it."""
        async with AsyncClient(all_urls, timeout=2.0) as client:

            @client.cached(ttl=60, namespace="f")
            async def f():
                await asyncio.sleep(0.05)
                raise StopAsyncIteration

            errors = await asyncio.gather(*(f() for _ in range(3)), return_exceptions=True)
            assert [type(error) for error in errors] == [StopAsyncIteration] * 3

    def test_followers_see_where_an_error_was_raised(self, all_urls):
        """The trace of a shared exception ends where the function raised it."""
        calls = []
        with Client(all_urls, timeout=2.0) as client:

            def inner():
                raise KeyError("user") from ValueError("row")

            @client.cached(ttl=60, namespace="f")
            def f():
                calls.append(1)
                eventually(lambda: f.cache_info().misses == 3, within=LONG)
                inner()

            def traced():
                try:
                    f()
                except KeyError as error:
                    return error

            started = [in_thread(traced) for _ in range(3)]
            for thread, _ in started:
                thread.join(LONG)
            errors = [results[0] for _, results in started]
            assert len(calls) == 1
            assert len({id(error) for error in errors}) == 3
            for error in errors:
                assert "in inner" in "".join(traceback.format_exception(error))
                assert isinstance(error.__cause__, ValueError)

    @pytest.mark.parametrize("lock", LOCKS)
    def test_a_function_may_call_itself_deeply(self, lock):
        """About a fifth as deep as a plain function."""
        with Client("memory://a,b,c") as client:

            @client.cached(ttl=60, lock=lock, namespace="f")
            def f(number):
                return 0 if number == 0 else f(number - 1) + 1

            deep = (sys.getrecursionlimit() - len(inspect.stack())) // 6
            assert f(deep) == deep

    def test_an_interrupt_in_the_function_leaves_nothing(self):
        """Neither a flight nor a stub, wherever the signal raises."""
        with Client("memory://a,b,c") as client:

            @client.cached(ttl=60, wait=LONG, namespace="f")
            def f():
                raise KeyboardInterrupt

            began = time.monotonic()
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt):
                    f()
            assert time.monotonic() - began < LONG / 2
            assert len(client._cluster.io.single_flight) == 0


@pytest.mark.parametrize("mode", MODES)
class TestOptions:
    """The options of `cached` and `get_or_set`."""

    def test_unknown_options_are_named_with_the_known_ones(self, mode):
        """As a `TypeError` of the call that was written, not of one within."""
        client = make_client(mode, "memory://a,b,c")
        for call in (client.cached, shardcache.cached):
            with pytest.raises(TypeError, match=r"^cached\(\) .*'timeout' \(known: .*ignore.*wait"):
                call(ttl=60, timeout=5)
        with pytest.raises(TypeError, match=r"^get_or_set\(\) .*'timeout' \(known: .*tags.*wait"):
            client.get_or_set("k", lambda: 1, ttl=60, timeout=5)
        client.close()

    def test_tags_of_one_value(self, all_urls, mode):
        """`get_or_set` takes them by name, one or many."""
        client = make_client(mode, all_urls, timeout=2.0)
        calls = []

        def made():
            calls.append(1)
            return len(calls)

        for tags in ("t", ["s", b"t"]):
            calls.clear()
            key = f"k{len(tags)}"
            assert [client.get_or_set(key, made, ttl=60, tags=tags) for _ in range(2)] == [1, 1]
            client.invalidate_tag("t")
            assert client.get_or_set(key, made, ttl=60, tags=tags) == 2
        with pytest.raises(ValueError, match="256 tags"):
            client.get_or_set("k", made, ttl=60, tags=[f"t{number}" for number in range(256)])
        client.close()

    def test_a_ttl_of_zero_stores_nothing(self, all_urls, mode):
        """A setting for development."""
        client = make_client(mode, all_urls, timeout=2.0)
        calls = []

        def made(number=1):
            calls.append(number)
            return number

        for ttl in (0, 0.0, timedelta(0)):
            f = as_called(client, made, ttl=ttl, version=str(ttl))
            assert [f(1), f(1), client.get_or_set("k", made, ttl=ttl)] == [1] * 3
        assert len(calls) == 9
        with pytest.raises(ConfigurationError, match="ttl"):
            client.cached(ttl=-1)
        client.close()

    def test_a_none_that_the_codec_refuses_is_explained(self, mode):
        """The error names the way out."""
        client = make_client(mode, "memory://a,b,c", codec="raw")
        with pytest.raises(UncacheableResultError, match="cache_none=False"):
            client.get_or_set("k", lambda: None, ttl=60)
        assert client.get_or_set("k", lambda: None, ttl=60, cache_none=False) is None
        client.close()
