"""The single flight of the threads of a client."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from interrupting import interrupted
from shardcache.backends import threads
from shardcache.io import single_flight, thread_flights
from shardcache.io.thread_flights import ThreadSingleFlight
from shardcache.operations.port import FlightEnd, step
from shardcache.testing.waiting import eventually

LONG = 30.0


def crowd(count, work):
    """Run `work(place)` in a number of threads at once; return what each returned or raised."""
    barrier = threading.Barrier(count)
    results = [None] * count

    def run(place):
        barrier.wait()
        try:
            results[place] = work(place)
        except BaseException as error:  # noqa: BLE001 - it is the result
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    return results


class TestThreads:
    """Threads of one client."""

    def do(self, flights, work, wait=LONG, *, takes_over=False, name=b"k"):
        """Fly, as an operation does."""
        return step(flights.do(name, work, wait, takes_over=takes_over))

    def test_one_thread_works_and_all_have_the_result(self):
        """The registry is empty after them."""
        flights = ThreadSingleFlight()
        calls = []

        async def work():
            calls.append(1)
            time.sleep(0.1)
            return "made"

        results = crowd(32, lambda _: self.do(flights, work))
        assert [value for value, _ in results] == ["made"] * 32
        assert sum(own for _, own in results) == len(calls) == 1
        assert len(flights) == 0

    def test_other_names_do_not_wait(self):
        """Each name has its own flight."""
        flights = ThreadSingleFlight()

        async def work():
            time.sleep(0.05)
            return 1

        results = crowd(4, lambda place: self.do(flights, work, name=b"%d" % place))
        assert [own for _, own in results] == [True] * 4

    def test_an_interrupt_is_not_shared(self):
        """The interrupted thread alone raises, and another takes over."""
        flights = ThreadSingleFlight()
        calls = []

        async def work():
            calls.append(1)
            time.sleep(0.1)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return "made"

        def persistent(_):
            landed = FlightEnd.CANCELLED
            while landed is FlightEnd.CANCELLED:
                landed, _ = self.do(flights, work)
            return landed

        results = crowd(8, persistent)
        interrupted = [result for result in results if isinstance(result, KeyboardInterrupt)]
        assert len(interrupted) == 1
        assert results.count("made") == 7
        assert len(calls) == 2
        assert len(flights) == 0

    def test_a_wait_has_an_end(self):
        """A thread that does not take over times out."""
        flights = ThreadSingleFlight()
        go = threading.Event()

        async def work():
            go.wait(LONG)
            return "made"

        leader = threading.Thread(target=lambda: self.do(flights, work))
        leader.start()
        while not len(flights):
            time.sleep(0.001)
        assert self.do(flights, work, 0.05) == (FlightEnd.TIMED_OUT, False)
        go.set()
        leader.join(LONG)

    def test_one_of_the_threads_that_take_over_works(self):
        """The rest wait for it."""
        flights = ThreadSingleFlight()
        go = threading.Event()
        calls = []

        async def stuck():
            go.wait(LONG)
            return "late"

        async def work():
            calls.append(1)
            time.sleep(0.1)
            return "made"

        leader = threading.Thread(target=lambda: self.do(flights, stuck))
        leader.start()
        while not len(flights):
            time.sleep(0.001)
        results = crowd(8, lambda _: self.do(flights, work, 0.5, takes_over=True))
        go.set()
        leader.join(LONG)
        assert [value for value, _ in results] == ["made"] * 8
        assert len(calls) == 1
        assert len(flights) == 0

    def test_a_slow_flight_is_overtaken_once_a_wait(self):
        """One of the threads that timed out starts another, and the first to end ends for all."""
        flights = ThreadSingleFlight()
        begun = []

        async def work():
            begun.append(time.monotonic())
            time.sleep(1.0)
            return "made"

        started = time.monotonic()
        results = crowd(20, lambda _: self.do(flights, work, 0.3, takes_over=True))
        assert [value for value, _ in results] == ["made"] * 20
        assert 2 <= len(begun) <= 4  # at 0, 0.3, 0.6 and perhaps 0.9 s
        assert time.monotonic() - started < 2.5
        assert len(flights) == 0

    def test_a_flight_that_does_not_fit_is_not_joined(self):
        """The caller's own flight replaces it for later callers; the old one ends for its own."""
        flights = ThreadSingleFlight()
        go, gone = threading.Event(), threading.Event()

        async def old():
            go.wait(LONG)
            return "old"

        async def new():
            gone.wait(LONG)
            return "new"

        def do(work, progress):
            return step(
                flights.do(
                    b"k",
                    work,
                    LONG,
                    takes_over=True,
                    progress=progress,
                    joins=lambda progress: progress == "new",
                )
            )

        results = {}
        first = threading.Thread(target=lambda: results.update(old=do(old, "old")))
        first.start()
        eventually(lambda: flights.progress(b"k") == "old", within=LONG)
        second = threading.Thread(target=lambda: results.update(new=do(new, "new")))
        second.start()
        eventually(lambda: flights.progress(b"k") == "new", within=LONG)
        joining = threading.Event()

        def joins(progress):
            joining.set()
            return progress == "new"

        def join():
            results["third"] = step(flights.do(b"k", old, LONG, takes_over=True, joins=joins))

        third = threading.Thread(target=join)
        third.start()
        assert joining.wait(LONG)
        gone.set()
        for thread in (second, third):
            thread.join(LONG)
        go.set()
        first.join(LONG)
        assert results["new"] == ("new", True)
        assert results["third"] == ("new", False)
        assert results["old"] == ("old", True)
        assert len(flights) == 0

    def test_a_reentrant_call_goes_alone(self):
        """A function that calls itself with the same arguments does not wait for itself."""
        flights = ThreadSingleFlight()

        async def inner():
            return "inner"

        async def outer():
            return self.do(flights, inner)

        assert self.do(flights, outer) == ((FlightEnd.REENTRANT, False), True)

    def test_two_threads_that_would_wait_for_each_other_do_not(self):
        """The thread that would close the circle goes alone."""
        flights = ThreadSingleFlight()
        both = threading.Barrier(2)

        def do(mine, other):
            async def inner():
                return "inner"

            async def outer():
                both.wait(LONG)
                return self.do(flights, inner, name=other)[0]

            return self.do(flights, outer, name=mine)[0]

        names = [(b"a", b"b"), (b"b", b"a")]
        began = time.monotonic()
        results = crowd(2, lambda place: do(*names[place]))
        assert FlightEnd.REENTRANT in results
        assert FlightEnd.TIMED_OUT not in results
        assert time.monotonic() - began < LONG / 2

    def test_nested_flights_are_known(self):
        """A thread is nested only within a flight within another."""
        flights = ThreadSingleFlight()

        async def inner():
            return single_flight.nested()

        async def outer():
            return single_flight.nested(), self.do(flights, inner, name=b"inner")[0]

        assert single_flight.nested() is False
        assert self.do(flights, outer)[0] == (False, True)

    def test_a_forked_child_has_no_flights(self):
        """It does not wait for a thread that only its parent has."""
        flights = ThreadSingleFlight()
        go = threading.Event()

        async def stuck():
            go.wait(LONG)

        async def work():
            return 7

        leader = threading.Thread(target=lambda: self.do(flights, stuck))
        leader.start()
        while not len(flights):
            time.sleep(0.001)
        child = os.fork()
        if not child:
            landed, own = self.do(flights, work, 5.0)
            os._exit(0 if (landed, own) == (7, True) else 1)
        _, status = os.waitpid(child, 0)
        go.set()
        leader.join(LONG)
        assert os.waitstatus_to_exitcode(status) == 0

    def test_an_interrupt_anywhere_leaves_no_flight(self):
        """A signal may raise at any line: other threads then work themselves."""
        code = ThreadSingleFlight.do.__code__
        lines = {line for _, _, line in code.co_lines() if line and line > code.co_firstlineno}

        async def work():
            return "made"

        for wanted in sorted(lines):
            flights = ThreadSingleFlight()

            def interrupt(frame, event, _argument, wanted=wanted):
                if frame.f_code is code and event == "line" and frame.f_lineno == wanted:
                    raise KeyboardInterrupt
                return interrupt

            before = sys.gettrace()
            sys.settrace(interrupt)
            try:
                self.do(flights, work)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
            # What runs in the last five lines is the cleaning itself, of which the next test tells.
            cleaning = wanted >= max(lines) - 4
            assert cleaning or len(flights) == 0, wanted

    @pytest.mark.filterwarnings(
        "ignore:coroutine:RuntimeWarning"
    )  # by moments that no signal knows
    def test_an_interrupted_flight_is_over(self):
        """Later work of its thread is no part of it."""
        own, seen = ThreadSingleFlight(), []

        async def work():
            seen.append(own.nested())

        def do():
            step(own.do(b"k", work, LONG, takes_over=False))

        for _ in interrupted(do, lambda code: code.co_filename in OURS):
            do()
            assert len(own) == 0
        assert len(seen) > 20
        assert not any(seen)


OURS = {thread_flights.__file__, single_flight.__file__, threads.__file__}


def test_the_result_of_a_flight_is_not_kept_alive():
    """A flight is gone with its last caller."""
    import gc  # noqa: PLC0415
    import weakref  # noqa: PLC0415

    class Made:
        """Something that can be watched."""

    flights = ThreadSingleFlight()
    made = []

    async def work():
        thing = Made()
        made.append(weakref.ref(thing))
        return thing

    landed, _ = step(flights.do(b"k", work, LONG, takes_over=False))
    assert isinstance(landed, Made)
    del landed
    gc.collect()
    assert made[0]() is None
