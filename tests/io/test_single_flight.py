"""One call's work for all who want it, among threads and among tasks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from interrupting import Interrupt, interrupted
from shardcache.backends import threads
from shardcache.io import single_flight
from shardcache.io import threads as io_threads
from shardcache.io.blocking import REFRESHERS, BlockingIO
from shardcache.io.tasks import SharedReplies, TaskRepetition, TaskSingleFlight
from shardcache.io.threads import Repeater, ThreadSingleFlight
from shardcache.operations.port import FlightEnd, step
from shardcache.testing.waiting import eventually

LONG = 30.0


def crowd(count, work):
    """Run `work(place)` in so many threads at once; give what each returned or raised."""
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

    def test_one_works_and_all_have_it(self):
        """Of many at once one works, and the registry is empty behind them."""
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
        """Each name has a flight of its own."""
        flights = ThreadSingleFlight()

        async def work():
            time.sleep(0.05)
            return 1

        results = crowd(4, lambda place: self.do(flights, work, name=b"%d" % place))
        assert [own for _, own in results] == [True] * 4

    def test_what_is_no_exception_is_not_shared(self):
        """Whoever is interrupted is interrupted alone, and somebody else takes it up."""
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

    def test_waiting_has_an_end(self):
        """One who does not take over is told that it is late."""
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

    def test_of_those_who_take_over_one_works(self):
        """When the flight is late one begins another, and the rest wait for that."""
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
        """Of those who wait in vain one begins another, and whichever lands first lands for all."""
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
        """Nor by those who come later: the caller's own takes its place, and the old one lands for its own."""
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

    def test_the_same_name_within_itself_goes_alone(self):
        """A function that calls itself with the same arguments does not wait for itself."""
        flights = ThreadSingleFlight()

        async def inner():
            return "inner"

        async def outer():
            return self.do(flights, inner)

        assert self.do(flights, outer) == ((FlightEnd.REENTRANT, False), True)

    def test_two_that_would_wait_for_each_other_do_not(self):
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

    def test_nested_flights_know_it(self):
        """Only who is within a flight within another is nested."""
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

    def test_an_interruption_anywhere_leaves_no_flight_behind(self):
        """A signal's exception may come before any line: others then fly for themselves."""
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
        """Wherever a signal raises: what this thread does later is no part of that flight."""
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


class TestTasks:
    """Tasks of one client."""

    async def test_one_works_and_all_have_it(self):
        """Of ten thousand one task works, and the registry is empty behind them."""
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

    async def test_cancelling_the_first_cancels_nobody_else(self):
        """The work goes on for those who still wait."""
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

    async def test_when_the_last_leaves_the_work_is_cancelled(self):
        """Nobody wants it any more, and the next caller begins anew."""
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

    async def test_the_work_has_the_context_of_the_first(self):
        """Context variables of whoever began it are seen, and not changed."""
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

    async def test_waiting_has_an_end(self):
        """One who does not take over is told that it is late; one who does, works."""
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

    @pytest.mark.parametrize("takes_over", [True, False])
    async def test_a_loop_that_stood_still_is_no_slow_flight(self, takes_over):
        """Whoever waited meanwhile waits for as much longer, and the work is done once."""
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
        time.sleep(1.0)
        assert {landed for landed, _ in await asyncio.gather(*tasks)} == {"made"}
        assert calls == [1]

    async def test_a_slow_flight_is_overtaken_once_a_wait(self):
        """Of those who wait in vain one begins another, and whichever lands first lands for all."""
        flights = TaskSingleFlight()
        begun = []

        async def work():
            begun.append(1)
            await asyncio.sleep(1.0)
            return "made"

        started = time.monotonic()
        results = await asyncio.gather(
            *(flights.do(b"k", work, 0.3, takes_over=True) for _ in range(200))
        )
        assert {value for value, _ in results} == {"made"}
        assert 2 <= len(begun) <= 4
        assert time.monotonic() - started < 2.5
        assert len(flights) == 0

    async def test_a_flight_that_does_not_fit_is_not_joined(self):
        """Nor by those who come later: the caller's own takes its place, and the old one lands for its own."""
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

    async def test_circles_are_seen(self):
        """Tasks that would wait for each other, or for themselves, go alone."""
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

    async def test_equal_reads_are_one(self):
        """What is asked while it is under way is not asked again; a cancelled asker is replaced."""
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


OURS = {io_threads.__file__, single_flight.__file__, threads.__file__}


def turning_once(turned):
    """Give work that tells of its first turn, and is done then."""

    async def work():
        turned.set()
        return False

    return work


INHERITED = """
from gevent import monkey; monkey.patch_all()
import gevent, os
from shardcache.io.threads import Repeater
from shardcache.operations.port import step

repeater, turns = Repeater(), []

async def turn():
    turns.append(os.getpid())
    return True

repetition = repeater.add(0.01, turn)
gevent.sleep(0.1)
if (child := os.fork()) == 0:
    gevent.sleep(0.3)
    os._exit(0 if turns and os.getpid() not in turns else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
step(repetition.stop())
print("done")
"""


class TestAgainAndAgain:
    """What is done every so many seconds beside the calls."""

    def test_threads_share_one(self):
        """All repetitions of a client run in one thread, which ends with the last."""
        repeater = Repeater()
        turns = [0] * 3
        threads = set()

        def counting(place):
            async def turn():
                turns[place] += 1
                threads.add(threading.get_ident())
                return turns[place] < 3

            return turn

        for place in range(3):
            repeater.add(0.01, counting(place))
        end = time.monotonic() + LONG
        while turns != [3] * 3:
            assert time.monotonic() < end
            time.sleep(0.001)
        assert len(threads) == 1
        while any(thread.ident in threads for thread in threading.enumerate()):
            assert time.monotonic() < end
            time.sleep(0.001)

    def test_a_stopped_one_is_not_under_way(self):
        """`stop` waits for the turn that has begun."""
        repeater = Repeater()
        begun, state = threading.Event(), []

        async def turn():
            begun.set()
            time.sleep(0.1)
            state.append("ended")
            return True

        repetition = repeater.add(0.01, turn)
        begun.wait(LONG)
        step(repetition.stop())
        assert state == ["ended"]
        time.sleep(0.05)
        assert state == ["ended"]

    def test_one_that_fails_ends_alone(self, caplog):
        """It is told in the log, and the thread goes on for the others."""
        repeater = Repeater()
        turns, tries = [], []

        async def failing():
            tries.append(1)
            raise ZeroDivisionError

        async def turning():
            turns.append(1)
            return len(turns) < 5

        failed = repeater.add(0.001, failing)
        repeater.add(0.005, turning)
        eventually(lambda: len(turns) == 5, within=LONG)
        assert (len(tries), failed.ended) == (1, True)
        assert "has failed" in caplog.text

    def test_an_interrupted_one_ends_and_the_next_is_done(self):
        """Wherever a signal raises in `add`: the thread is there for whoever comes next."""
        repeaters, done = [], []

        async def interrupted_work():
            done.append("interrupted")
            return False

        def add():
            repeaters.append(Repeater())
            repeaters[-1].add(0.001, interrupted_work)

        moments = 0
        for _ in interrupted(add, lambda code: code.co_filename in OURS):
            moments += 1
            turned = threading.Event()
            if repeaters:
                repeaters.pop().add(0.001, turning_once(turned))
                assert turned.wait(LONG)
        assert moments > 20
        repeaters.pop().close()

    def test_an_interrupted_start_is_made_good_for_others(self, monkeypatch):
        """What another thread added meanwhile, counting on that start, is done all the same."""
        repeater, turned = Repeater(), threading.Event()
        start = threading.Thread.start

        def interrupt(_):
            monkeypatch.setattr(threading.Thread, "start", start)
            other = threading.Thread(target=repeater.add, args=(0.001, turning_once(turned)))
            other.start()
            other.join()
            raise Interrupt

        monkeypatch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(Interrupt):
            repeater.add(0.001, turning_once(threading.Event()))
        assert turned.wait(LONG)

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_has_a_thread_of_its_own(self):
        """Its parent's does nothing there; and what the parent does again and again is not the child's."""
        repeater = Repeater()
        begun, turned = threading.Event(), threading.Event()

        async def parents():
            begun.set()
            return True

        async def childs():
            turned.set()
            return False

        repetition = repeater.add(0.01, parents)
        begun.wait(LONG)
        if (child := os.fork()) == 0:
            begun.clear()
            repeater.add(0.01, childs)
            os._exit(0 if turned.wait(LONG) and not begun.is_set() else 1)
        step(repetition.stop())
        assert os.waitpid(child, 0)[1] == 0

    def test_a_greenlet_inherited_by_a_forked_child_does_nothing_there(self):
        """Under gevent the child has a copy of the greenlet that works for its parent."""
        ended = subprocess.run(
            [sys.executable, "-P", "-c", INHERITED],
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
        # Not what it wrote: Python tells of any greenlet that ends in the child as a thread that it
        # does not know.
        assert (ended.returncode, ended.stdout) == (0, "done\n")

    async def test_a_task_s_turn_is_not_under_way_either(self):
        """The same holds on a loop."""
        state = []

        async def turn():
            state.append("begun")
            await asyncio.sleep(0.05)
            state.append("ended")
            return True

        repetition = TaskRepetition(0.01, turn, "test")
        await asyncio.sleep(0.03)
        await repetition.stop()
        assert state == ["begun", "ended"]
        await asyncio.sleep(0.05)
        assert state == ["begun", "ended"]


class TestBeside:
    """What threads do beside the calls, when one of a few is free."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch):
        """Let idle threads end soon."""
        monkeypatch.setattr(threads, "LINGER", 0.01)

    def test_there_are_but_a_few(self):
        """What is offered while all are busy is declined, and taken when one is free again."""
        io, go, done = BlockingIO(), threading.Event(), []

        async def work():
            go.wait(LONG)
            done.append(1)

        offers = [io.try_spawn(work, "refresh") for _ in range(REFRESHERS + 2)]
        assert offers == [True] * REFRESHERS + [False] * 2
        go.set()
        eventually(lambda: len(done) == REFRESHERS, within=LONG)
        eventually(lambda: io.try_spawn(work, "refresh"), within=LONG)
        eventually(lambda: len(done) == REFRESHERS + 1, within=LONG)

    def test_what_fails_gives_its_place_back(self, caplog):
        """However often: and it is told in the log."""
        io, tries = BlockingIO(), []

        async def failing():
            tries.append(1)
            raise ZeroDivisionError

        for number in range(1, 3 * REFRESHERS):
            eventually(lambda: io.try_spawn(failing, "refresh"), within=LONG)
            eventually(lambda number=number: len(tries) == number, within=LONG)
        assert "background task failed" in caplog.text

    def test_a_process_without_threads_to_spare_keeps_its_places(self, monkeypatch):
        """It declines, and takes what is offered when there are threads again."""
        io, done = BlockingIO(), threading.Semaphore(0)

        async def work():
            done.release()

        def refuse(_):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            assert not any(io.try_spawn(work, "refresh") for _ in range(2 * REFRESHERS))
        assert io.try_spawn(work, "refresh")
        assert done.acquire(timeout=LONG)

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_has_places_of_its_own(self):
        """What keeps its parent's threads busy does not run there."""
        io, go, done = BlockingIO(), threading.Event(), threading.Event()

        async def work():
            go.wait(LONG)

        async def childs():
            done.set()

        assert all(io.try_spawn(work, "refresh") for _ in range(REFRESHERS))
        if (child := os.fork()) == 0:
            os._exit(0 if io.try_spawn(childs, "refresh") and done.wait(LONG) else 1)
        go.set()
        assert os.waitpid(child, 0)[1] == 0


def test_a_flight_s_error_is_not_kept_alive():
    """A landed flight is gone with its last caller."""
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


@pytest.fixture(autouse=True)
def _bounded():
    """Let no test of this page leave threads behind."""
    before = threading.active_count()
    yield
    end = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before
