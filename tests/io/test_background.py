"""Work in the background, while one of a few threads is free."""

from __future__ import annotations

import os
import threading

import pytest

from shardcache.backends import threads
from shardcache.io.blocking import REFRESHERS, BlockingIO
from shardcache.testing.waiting import eventually

LONG = 30.0


class TestBackground:
    """Work of threads in the background, while one of a few is free."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch):
        """Let idle threads end soon."""
        monkeypatch.setattr(threads, "LINGER", 0.01)

    def test_background_threads_are_few(self):
        """Work is declined while all are busy, and accepted when one is free again."""
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

    def test_failed_work_frees_its_thread(self, caplog):
        """Every time; the log tells it."""
        io, tries = BlockingIO(), []

        async def failing():
            tries.append(1)
            raise ZeroDivisionError

        for number in range(1, 3 * REFRESHERS):
            eventually(lambda: io.try_spawn(failing, "refresh"), within=LONG)
            eventually(lambda number=number: len(tries) == number, within=LONG)
        assert "background task failed" in caplog.text

    def test_a_process_that_can_start_no_thread_loses_no_place(self, monkeypatch):
        """It declines work, and accepts it when threads can start again."""
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
    def test_a_forked_child_has_its_own_places(self):
        """The work of its parent's threads does not run there."""
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
