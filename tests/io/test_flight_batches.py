"""Batches of flights: many names led by one piece of work, in both groups."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shardcache.io.task_flights import TaskSingleFlight
from shardcache.io.thread_flights import ThreadSingleFlight
from shardcache.operations.port import FlightEnd, step

NAMES = [b"a", b"b", b"c"]


def enter_all(batch, names=NAMES, **options):
    """Enter flights; return which the caller leads, and which it follows."""
    led, followed = {}, {}
    for name in names:
        flight, own = batch.enter(name, **options)
        (led if own else followed)[name] = flight
    return led, followed


class TestThreads:
    """The batch of a thread."""

    def test_each_flight_lands_by_itself(self):
        """A follower has its outcome while the leader goes on."""
        group = ThreadSingleFlight()
        with group.batch() as leader, group.batch() as follower:
            led, _ = enter_all(leader)
            none, followed = enter_all(follower, [b"c", b"b", b"a"])
            assert (list(led), none) == (NAMES, {})

            async def work():
                leader.land(led[b"b"], 7)

            step(leader.lead(work))
            step(follower.wait(5.0))
            assert [flight.landed for flight in followed.values()] == [False, True, False]
            assert followed[b"b"].outcome == 7
            assert len(group) == 2
        assert len(group) == 0
        assert {flight.outcome for flight in followed.values()} == {7, FlightEnd.CANCELLED}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_whatever_stops_the_leader_wakes_the_followers(self, error):
        """What has not landed is cancelled: the next caller leads."""
        group = ThreadSingleFlight()
        entered, ends = threading.Event(), []

        def follow():
            with group.batch() as batch:
                _, followed = enter_all(batch)
                entered.set()
                while not all(flight.landed for flight in followed.values()):
                    step(batch.wait(10.0))
                ends.extend(flight.outcome for flight in followed.values())

        thread = threading.Thread(target=follow)

        async def work():
            thread.start()
            entered.wait(10.0)
            raise error

        def lead():
            with group.batch() as batch:
                enter_all(batch)
                step(batch.lead(work))

        with pytest.raises(error):
            lead()
        thread.join(10.0)
        assert ends == [FlightEnd.CANCELLED] * 3
        assert len(group) == 0

    def test_a_late_flight_gives_way_to_another(self):
        """A later caller leads; who followed the late one may still get its outcome."""
        group = ThreadSingleFlight()
        with group.batch() as late, group.batch() as batch:
            led, _ = enter_all(late, [b"a"])
            _, followed = enter_all(batch, [b"a"])
            assert batch.enter(b"a") == (followed[b"a"], False)  # once is enough
            batch.forget(b"a", followed[b"a"])
            own, leads = batch.enter(b"a")
            assert leads
            late.land(led[b"a"], 1)
            assert followed[b"a"].outcome == 1
            assert group.progress(b"a") is None
            batch.land(own, 2)
        assert len(group) == 0

    def test_flights_that_are_refused_or_over_are_replaced(self):
        """As for a single one."""
        group = ThreadSingleFlight()
        with group.batch() as first, group.batch() as second:
            enter_all(first, [b"a"], progress="old")
            _, leads = second.enter(b"a", joins=lambda progress: progress != "old")
            assert leads

    def test_a_caller_within_the_batch_does_not_wait_for_it(self):
        """It would wait for itself, whichever of the flights it wants."""
        group = ThreadSingleFlight()

        async def work():
            with group.batch() as inner:
                assert inner.enter(b"c") == (FlightEnd.REENTRANT, False)

        with group.batch() as batch:
            enter_all(batch)
            step(batch.lead(work))


class TestTasks:
    """The batch of a task."""

    def test_flights_that_were_never_led_are_cancelled(self):
        """A caller that fails in between leaves nothing behind."""

        async def main():
            group = TaskSingleFlight()
            with group.batch() as batch:
                led, _ = enter_all(batch)
                assert len(group) == 3
            assert {flight.outcome for flight in led.values()} == {FlightEnd.CANCELLED}
            assert len(group) == 0

        asyncio.run(main())

    def test_the_error_of_the_work_is_the_callers(self):
        """Its followers are told to do the work again."""

        async def main():
            group = TaskSingleFlight()

            async def work():
                with group.batch() as follower:
                    followed.update(enter_all(follower, NAMES[:1])[1])
                raise LookupError

            followed = {}
            with group.batch() as outer:
                flight, _ = outer.enter(b"other")
                with group.batch() as batch:
                    led, _ = enter_all(batch)
                    with pytest.raises(LookupError):
                        await batch.lead(work)
                outer.land(flight, 1)
            assert {each.outcome for each in led.values()} == {FlightEnd.CANCELLED}
            assert followed == {b"a": FlightEnd.REENTRANT}
            assert len(group) == 0

        asyncio.run(main())

    def test_a_batch_is_cancelled_after_its_time_without_a_caller(self):
        """`outlives`, unless a follower has come meanwhile."""

        async def main(*, followed):
            group, ended, end = TaskSingleFlight(), [], asyncio.Event()

            async def work():
                try:
                    await asyncio.sleep(0.2)
                    ended.append("done")
                except asyncio.CancelledError:
                    ended.append("cancelled")
                    raise
                finally:
                    end.set()

            async def call():
                with group.batch() as batch:
                    enter_all(batch, outlives=lambda: 0.05)
                    await batch.lead(work)

            async def follow():
                with group.batch() as batch:
                    enter_all(batch, NAMES[:1])
                    await batch.wait(5.0)

            caller = asyncio.create_task(call())
            await asyncio.sleep(0.02)
            follower = asyncio.create_task(follow()) if followed else None
            await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
            if follower is not None:
                await follower
            await end.wait()
            await asyncio.sleep(0)
            return ended

        assert asyncio.run(main(followed=False)) == ["cancelled"]
        assert asyncio.run(main(followed=True)) == ["done"]
