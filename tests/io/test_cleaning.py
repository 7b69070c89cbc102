"""Work is cleaned up in the background: once at a time, to its end, and not for ever."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from shardcache.io.asyncio import AsyncIO
from shardcache.io.blocking import BlockingIO
from shardcache.operations.port import Pause
from shardcache.testing.waiting import eventually

SOON = 10.0  # seconds


class Pile:
    """Things to be undone, one a turn; it waits for `gate` before each."""

    def __init__(self):
        self.left = []
        self.turns = 0
        self.busy = 0
        self.crowd = 0
        self.stuck = False
        self.gate = threading.Event()
        self.gate.set()

    async def turn(self):
        """Undo one."""
        self.busy += 1
        self.crowd = max(self.crowd, self.busy)
        while not self.gate.is_set():
            await asyncio.sleep(0) if is_on_a_loop() else time.sleep(0.001)
        self.turns += 1
        if self.left and not self.stuck:
            self.left.pop()
        self.busy -= 1
        return Pause(0.001, stuck=self.stuck) if self.left else None


def is_on_a_loop():
    """Return whether this code is run by an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def awaited_until(fact):
    """Wait for something on a loop."""
    end = time.monotonic() + SOON
    while not fact():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


class TestThreads:
    """The threads of the blocking client."""

    def test_one_thread_cleans_up_all_of_one_name(self):
        """Work added while it runs is done as well."""
        io, pile = BlockingIO(), Pile()
        pile.gate.clear()
        for _ in range(20):
            pile.left.append(1)
            io.clean_up("pile", pile.turn)
        pile.gate.set()
        eventually(lambda: not pile.left, within=SOON)
        for _ in range(200):  # at every moment of its end
            pile.left.append(1)
            io.clean_up("pile", pile.turn)
            time.sleep(0.0002)
        eventually(lambda: not pile.left, within=SOON)
        assert pile.crowd == 1
        io.close()

    def test_stuck_work_delays_no_other_name(self):
        """Each name has a thread of its own."""
        io, stuck, pile = BlockingIO(), Pile(), Pile()
        stuck.left, stuck.stuck, pile.left = [1], True, [1, 1]
        io.clean_up("stuck", stuck.turn)
        io.clean_up("pile", pile.turn)
        eventually(lambda: not pile.left, within=SOON)
        io.close()
        turns = stuck.turns
        eventually(lambda: stuck.busy == 0, within=SOON)
        time.sleep(0.01)
        assert stuck.turns <= turns + 1

    @pytest.mark.parametrize("stuck", [False, True])
    def test_closing_waits_a_moment_unless_it_is_stuck(self, stuck):
        """A node that was silent all the time may stay so."""
        io, pile = BlockingIO(), Pile()
        pile.left, pile.stuck = [1] * 10, stuck
        io.clean_up("pile", pile.turn)
        eventually(lambda: pile.turns > 0, within=SOON)
        io.close()
        assert bool(pile.left) is stuck

    def test_without_a_thread_nothing_is_cleaned_up(self, monkeypatch):
        """Nothing is raised: the nodes let it expire."""

        def refuse(_):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        io, pile = BlockingIO(), Pile()
        pile.left = [1]
        io.clean_up("pile", pile.turn)
        monkeypatch.undo()
        io.clean_up("pile", pile.turn)
        eventually(lambda: not pile.left, within=SOON)
        io.close()

    def test_a_forked_child_starts_afresh(self):
        """Work of its parent's thread does not block it."""
        io, pile = BlockingIO(), Pile()
        pile.left = [1]
        pile.gate.clear()
        io.clean_up("pile", pile.turn)
        eventually(lambda: pile.busy == 1, within=SOON)
        child = os.fork()
        if not child:
            pile.gate.set()
            pile.left = [1]
            io.clean_up("pile", pile.turn)
            eventually(lambda: not pile.left, within=SOON)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        pile.gate.set()
        io.close()


class TestTasks:
    """The tasks of the asyncio client."""

    async def test_one_task_cleans_up_all_of_one_name(self):
        """Work added while it runs is done as well."""
        io, pile = AsyncIO(), Pile()
        for _ in range(20):
            pile.left.append(1)
            io.clean_up("pile", pile.turn)
            await asyncio.sleep(0)
        await awaited_until(lambda: not pile.left)
        assert pile.crowd == 1
        await io.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    @pytest.mark.parametrize("stuck", [False, True])
    async def test_closing_waits_a_moment_unless_it_is_stuck(self, stuck):
        """A node that was silent all the time may stay so."""
        io, pile = AsyncIO(), Pile()
        pile.left, pile.stuck = [1] * 10, stuck
        io.clean_up("pile", pile.turn)
        await awaited_until(lambda: pile.turns > 0)
        await io.aclose()
        assert bool(pile.left) is stuck
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_closed_client_starts_nothing(self):
        """No caller would wait for it."""
        io, pile = AsyncIO(), Pile()
        await io.aclose()
        io.clean_up("pile", pile.turn)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def test_the_work_of_an_ended_loop_starts_again_on_the_next(self):
        """A loop that has ended is not awaited."""
        io, pile = AsyncIO(), Pile()
        pile.left, pile.stuck = [1], True

        async def add():
            io.clean_up("pile", pile.turn)
            await awaited_until(lambda: pile.turns > 0)

        asyncio.run(add())
        pile.stuck, pile.turns = False, 0
        asyncio.run(add())
        assert not pile.left
        assert len(io._cleaning) == 0
