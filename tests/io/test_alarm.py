"""One timer wakes many waiters, each in its time."""

from __future__ import annotations

import asyncio

import pytest

from operations.virtual import in_virtual_time
from shardcache.backends.transport.channel import OWN_DELAY
from shardcache.io.alarm import Alarm


def waiters(alarm, *seconds):
    """Return a future for each length of time, and a list of when each was woken."""
    loop = asyncio.get_running_loop()
    began, woken = loop.time(), {}
    futures = []
    for each in seconds:
        future = loop.create_future()
        future.add_done_callback(
            lambda _, each=each: woken.setdefault(each, round(loop.time() - began, 3))
        )
        alarm.set(future, each)
        futures.append(future)
    return futures, woken


@pytest.fixture
def timers(monkeypatch):
    """Count the timers that loops are asked for."""
    started = []
    call_at = asyncio.SelectorEventLoop.call_at

    def count(loop, when, *args, **kwargs):
        started.append(when)
        return call_at(loop, when, *args, **kwargs)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "call_at", count)
    return started


@in_virtual_time
async def test_each_is_woken_in_its_time():
    """Whatever the order in which they were set; two of one time as well."""
    alarm = Alarm()
    futures, woken = waiters(alarm, 3.0, 1.0, 2.0, 2.0, 0.5)
    await asyncio.gather(*futures)
    await asyncio.sleep(0)
    assert woken == {3.0: 3.0, 1.0: 1.0, 2.0: 2.0, 0.5: 0.5}


@in_virtual_time
async def test_one_that_is_done_is_left_alone():
    """It was woken by what it waited for."""
    alarm = Alarm()
    (done, other), woken = waiters(alarm, 1.0, 2.0)
    done.set_result(None)
    await other
    await asyncio.sleep(0)
    assert woken == {1.0: 0.0, 2.0: 2.0}


@in_virtual_time
async def test_none_is_woken_when_it_is_off():
    """And it can be set again."""
    alarm = Alarm()
    futures, woken = waiters(alarm, 1.0, 2.0)
    alarm.turn_off()
    await asyncio.sleep(5.0)
    assert woken == {}
    assert not any(future.done() for future in futures)
    (again,), woken = waiters(alarm, 1.0)
    await again
    await asyncio.sleep(0)
    assert woken == {1.0: 1.0}


@in_virtual_time
async def test_the_time_for_which_the_loop_stood_still_is_added():
    """Once more the whole time at most; a little delay adds nothing."""
    loop, alarm = asyncio.get_running_loop(), Alarm()
    (short, long), woken = waiters(alarm, 1.0, 10.0)
    await asyncio.sleep(0)
    loop.passed += 5.0  # it wakes the first 4 s late
    await short
    await asyncio.sleep(0)
    assert woken == {1.0: 6.0}
    loop.passed += 4.0 + OWN_DELAY / 2
    await long
    await asyncio.sleep(0)
    assert woken[10.0] == pytest.approx(10.0, abs=OWN_DELAY)


@in_virtual_time
async def test_a_loop_that_stands_still_again_and_again_wakes_in_the_end():
    """The time that is added is no more than the whole time, in all."""
    loop, alarm = asyncio.get_running_loop(), Alarm()
    (waiter,), woken = waiters(alarm, 1.0)
    for _ in range(3):
        await asyncio.sleep(0)
        loop.passed += 1.6  # 0.6 s late, then the 0.4 s that are left
        await asyncio.sleep(0)
    await waiter
    await asyncio.sleep(0)
    assert woken[1.0] == pytest.approx(4.8, abs=0.1)


def test_many_waiters_take_one_timer(timers):
    """Ten thousand that are set one after the other."""

    @in_virtual_time
    async def run():
        alarm, loop = Alarm(), asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(10_000)]
        for future in futures:
            alarm.set(future, 5.0)
        await asyncio.gather(*futures)

    run()
    assert len(timers) == 1
