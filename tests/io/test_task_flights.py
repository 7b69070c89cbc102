"""The single flight of the tasks of a client, on an event loop in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from operations.virtual import in_virtual_time
from shardcache.io.task_flights import TaskSingleFlight
from shardcache.io.tasks import SharedReplies
from shardcache.operations.port import FlightEnd

LONG = 30.0


async def cancel_soon(tasks):
    """Cancel tasks that have begun to wait."""
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestTasks:
    """Tasks of one client."""

    @in_virtual_time
    async def test_one_task_works_and_all_have_the_result(self):
        """Of ten thousand; the registry is empty after them."""
        flights = TaskSingleFlight()
        calls = []

        async def work():
            calls.append(1)
            await asyncio.sleep(0.05)
            return "made"

        landed = await asyncio.gather(
            *(flights.do(b"k", work, LONG, takes_over=False) for _ in range(10_000))
        )
        assert {value for value, _ in landed} == {"made"}
        assert sum(own for _, own in landed) == len(calls) == 1
        assert len(flights) == 0

    @in_virtual_time
    async def test_cancelling_the_first_cancels_no_other(self):
        """The work goes on for the tasks that still wait."""
        flights = TaskSingleFlight()
        calls = []

        async def work():
            calls.append(1)
            await asyncio.sleep(0.05)
            return "made"

        tasks = [
            asyncio.create_task(flights.do(b"k", work, LONG, takes_over=False)) for _ in range(1000)
        ]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert {value for value, _ in results[1:]} == {"made"}
        assert len(calls) == 1

    @in_virtual_time
    async def test_when_the_last_is_cancelled_so_is_the_work(self):
        """The next caller starts again."""
        flights = TaskSingleFlight()
        ended = []

        async def work():
            try:
                await asyncio.sleep(LONG)
            finally:
                ended.append(1)

        async def other():
            return "made"

        tasks = [
            asyncio.create_task(flights.do(b"k", work, LONG, takes_over=False)) for _ in range(3)
        ]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await flights.do(b"k", other, LONG, takes_over=False) == ("made", True)
        assert ended == [1]
        assert len(flights) == 0

    @in_virtual_time
    async def test_work_that_outlives_its_callers_goes_on(self):
        """A later caller joins it; it is told of once, and its outcome is that of all."""
        flights = TaskSingleFlight()
        told = []

        async def work():
            await asyncio.sleep(1.0)
            return "made"

        def do():
            return flights.do(
                b"k", work, LONG, takes_over=False, outlives=lambda: told.append(1) or 10.0
            )

        for _ in range(2):
            await cancel_soon([asyncio.create_task(do()) for _ in range(3)])
            assert len(flights) == 1
        assert len(flights.tasks()) == 1
        assert await do() == ("made", False)
        assert told == [1]
        assert len(flights) == 0
        assert flights.tasks() == []

    @in_virtual_time
    async def test_work_outlives_its_callers_for_a_while(self):
        """Then it is cancelled, at once or when those who have joined it leave."""
        flights = TaskSingleFlight()
        ended = []

        async def work():
            try:
                await asyncio.sleep(1000.0)
            finally:
                ended.append(asyncio.get_running_loop().time())

        def do():
            return flights.do(b"k", work, LONG, takes_over=False, outlives=lambda: 10.0)

        for joined in (False, True):
            began = asyncio.get_running_loop().time()
            await cancel_soon([asyncio.create_task(do())])
            if joined:
                assert await do() == (FlightEnd.TIMED_OUT, False)
            else:
                await asyncio.sleep(11.0)
            await asyncio.sleep(0.01)
            assert ended.pop() - began == pytest.approx(LONG if joined else 10.0, abs=0.5)
            assert flights.tasks() == []

    @in_virtual_time
    async def test_work_that_was_replaced_is_among_the_tasks(self):
        """So that a client that is closed can cancel it."""
        flights = TaskSingleFlight()

        async def work():
            await asyncio.sleep(LONG)

        task = asyncio.create_task(
            flights.do(b"k", work, LONG, takes_over=False, outlives=lambda: LONG)
        )
        await asyncio.sleep(0.01)
        flights.forget(b"k")
        assert flights.tasks() == []  # its caller waits for it
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (left,) = flights.tasks()
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert flights.tasks() == []

    @in_virtual_time
    async def test_the_work_has_the_context_of_the_first(self):
        """It sees the context variables of the task that began it, and changes none."""
        import contextvars  # noqa: PLC0415

        seen = contextvars.ContextVar("seen", default="nobody")

        async def work():
            found = seen.get()
            seen.set("work")
            return found

        flights = TaskSingleFlight()
        seen.set("first")
        assert await flights.do(b"k", work, LONG, takes_over=False) == ("first", True)
        assert seen.get() == "first"

    @in_virtual_time
    async def test_a_wait_has_an_end(self):
        """A task that does not take over times out; one that does works."""
        flights = TaskSingleFlight()

        async def stuck():
            await asyncio.sleep(LONG)

        async def work():
            return "made"

        leader = asyncio.create_task(flights.do(b"k", stuck, LONG, takes_over=False))
        await asyncio.sleep(0.01)
        assert await flights.do(b"k", work, 0.02, takes_over=False) == (FlightEnd.TIMED_OUT, False)
        assert await flights.do(b"k", work, 0.02, takes_over=True) == ("made", True)
        leader.cancel()
        await asyncio.gather(leader, return_exceptions=True)

    @in_virtual_time
    async def test_a_flight_that_has_landed_has_no_timer(self):
        """Nor has one that was cancelled: a loop with a timer keeps all that it holds."""
        flights = TaskSingleFlight()
        loop = asyncio.get_running_loop()

        async def work():
            await asyncio.sleep(0.05)

        await asyncio.gather(*(flights.do(b"k", work, LONG, takes_over=False) for _ in range(5)))
        await cancel_soon(
            [asyncio.ensure_future(flights.do(b"k", work, LONG, takes_over=False)) for _ in "ab"]
        )
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    @pytest.mark.parametrize("takes_over", [True, False])
    @in_virtual_time
    async def test_a_loop_that_stood_still_is_no_slow_flight(self, takes_over):
        """The tasks wait for as much longer, and the work is done once."""
        flights, calls = TaskSingleFlight(), []

        async def work():
            calls.append(1)
            for _ in range(10):  # as many steps as one on a few nodes has
                await asyncio.sleep(0.001)
            return "made"

        async def do():
            return await flights.do(b"k", work, 0.2, takes_over=takes_over)

        tasks = [asyncio.ensure_future(do()) for _ in range(50)]
        await asyncio.sleep(0)  # all of them wait, and the work has not begun
        await asyncio.sleep(0)
        asyncio.get_running_loop().passed += 1.0  # the loop stands still
        assert {landed for landed, _ in await asyncio.gather(*tasks)} == {"made"}
        assert calls == [1]

    @in_virtual_time
    async def test_a_slow_flight_is_overtaken_once_a_wait(self):
        """One of the tasks that timed out starts another, and the first to end ends for all."""
        flights = TaskSingleFlight()
        begun = []

        async def work():
            begun.append(1)
            await asyncio.sleep(1.0)
            return "made"

        loop = asyncio.get_running_loop()
        started = loop.time()
        results = await asyncio.gather(
            *(flights.do(b"k", work, 0.3, takes_over=True) for _ in range(200))
        )
        assert {value for value, _ in results} == {"made"}
        assert 2 <= len(begun) <= 4
        assert loop.time() - started < 2.5
        assert len(flights) == 0

    @in_virtual_time
    async def test_a_flight_that_does_not_fit_is_not_joined(self):
        """The caller's own flight replaces it for later callers; the old one ends for its own."""
        flights = TaskSingleFlight()
        go = asyncio.Event()

        async def old():
            await go.wait()
            return "old"

        async def new():
            await asyncio.sleep(0.02)
            return "new"

        def do(work, progress):
            return flights.do(
                b"k",
                work,
                LONG,
                takes_over=True,
                progress=progress,
                joins=lambda progress: progress == "new",
            )

        first = asyncio.create_task(do(old, "old"))
        await asyncio.sleep(0)
        second = asyncio.create_task(do(new, "new"))
        await asyncio.sleep(0)
        assert flights.progress(b"k") == "new"
        assert await do(old, "third") == ("new", False)
        assert await second == ("new", True)
        go.set()
        assert await first == ("old", True)
        assert len(flights) == 0

    @in_virtual_time
    async def test_tasks_that_would_wait_for_each_other_do_not(self):
        """Nor does a task wait for itself: both work alone."""
        flights = TaskSingleFlight()
        began = asyncio.Event()

        async def inner():
            return "inner"

        async def first():
            await began.wait()
            return (await flights.do(b"b", inner, LONG, takes_over=False))[0]

        async def second():
            began.set()
            return (await flights.do(b"a", inner, LONG, takes_over=False))[0]

        async with asyncio.timeout(LONG / 2):
            results = await asyncio.gather(
                flights.do(b"a", first, LONG, takes_over=False),
                flights.do(b"b", second, LONG, takes_over=False),
            )
        assert FlightEnd.REENTRANT in [value for value, _ in results]

    @in_virtual_time
    async def test_equal_reads_are_coalesced(self):
        """A read under way is not repeated; a cancelled reader is replaced."""
        shared = SharedReplies()
        asked = []

        async def ask():
            asked.append(1)
            await asyncio.sleep(0.02)
            return len(asked)

        tasks = [asyncio.create_task(shared.get(b"k", ask)) for _ in range(100)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1:] == [2] * 99
        assert await shared.get(b"k", ask) == 3
