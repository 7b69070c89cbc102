"""Work that is repeated in the background, by one thread of a client or by tasks."""

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
from shardcache.io.tasks import TaskRepetition
from shardcache.io.threads import Repeater
from shardcache.operations.port import step
from shardcache.testing.waiting import eventually

LONG = 30.0

OURS = {io_threads.__file__, single_flight.__file__, threads.__file__}


def turning_once(turned):
    """Return work that tells of its first turn, and is done then."""

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
while not turns:
    gevent.sleep(0.01)
if (child := os.fork()) == 0:
    gevent.sleep(0.3)
    os._exit(0 if turns and os.getpid() not in turns else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
step(repetition.stop())
print("done")
"""


class TestRepeating:
    """Work that is repeated every few seconds in the background."""

    def test_all_repetitions_share_one_thread(self):
        """The thread ends with the last of them."""
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

    def test_stop_waits_for_the_turn_under_way(self):
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

    def test_a_failing_repetition_ends_alone(self, caplog):
        """The log tells it, and the thread goes on for the others."""
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
        assert "background task failed" in caplog.text

    def test_an_interrupted_add_leaves_the_thread_usable(self):
        """A signal may raise at any step of `add`."""
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

    def test_an_interrupted_start_is_repeated_for_others(self, monkeypatch):
        """Another thread may have counted on that start."""
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
    def test_a_forked_child_has_its_own_thread(self):
        """Its parent's repetitions are not the child's."""
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

    async def test_stop_waits_for_the_turn_of_a_task(self):
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
