"""Threads for calls that can only block."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from shardcache.backends import threads
from shardcache.backends.threads import Workers
from shardcache.testing.waiting import eventually


def test_all_work_is_done_by_few_threads():
    """More work than threads waits its turn, and none is lost."""
    workers = Workers("test", 3)
    done = threading.Semaphore(0)
    most = []

    def work():
        most.append(workers.running)
        done.release()

    for _ in range(200):
        workers.submit(work)
    assert all(done.acquire(timeout=10) for _ in range(200))
    assert 1 <= max(most) <= 3


def test_work_that_waits_for_other_work_gets_threads():
    """As many run at once as are allowed."""
    workers = Workers("test", 4)
    barrier = threading.Barrier(4 + 1)
    for _ in range(4):
        workers.submit(lambda: barrier.wait(10))
    barrier.wait(10)


def test_an_idle_thread_is_used_again():
    """One piece of work after another needs one thread, or two after a race for it."""
    workers = Workers("test", 50)
    for _ in range(100):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(10)
        eventually(lambda: workers._idle >= 1, within=10)
    assert workers.running == 1


def test_threads_without_work_end(monkeypatch):
    """They come back when there is work."""
    monkeypatch.setattr(threads, "LINGER", 0.01)
    workers = Workers("test", 5)
    for pieces in (20, 1, 1):
        done = threading.Semaphore(0)
        for _ in range(pieces):
            workers.submit(done.release)
        assert all(done.acquire(timeout=10) for _ in range(pieces))
        eventually(lambda: workers.running == 0, within=10)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_no_work_is_lost_while_threads_end(monkeypatch, pieces):
    """A thread that is counted on does not end, however short it lingers."""
    monkeypatch.setattr(threads, "LINGER", 0.0001)
    workers = Workers("test", 2)
    for _ in range(500):
        done = threading.Semaphore(0)
        for _ in range(pieces):
            workers.submit(done.release)
        assert all(done.acquire(timeout=10) for _ in range(pieces))


def test_work_that_raises_ends_no_thread():
    """The error is counted and logged, and the thread goes on."""
    workers = Workers("test", 1)
    done = threading.Event()
    for error in (ValueError("of work"), SystemExit(), KeyboardInterrupt()):
        workers.submit(partial(fail, error))
    workers.submit(done.set)
    assert done.wait(10)
    assert (workers.running, workers.failures) == (1, 3)
    workers.close()


def fail(error):
    """Raise an error."""
    raise error


def test_without_a_thread_work_is_refused(monkeypatch):
    """The caller is told, and the work is not done later."""
    workers = Workers("test", 2)
    done = []
    with monkeypatch.context() as patched:
        patched.setattr(
            threading.Thread, "start", staticmethod(partial(fail, RuntimeError("can't start")))
        )
        for _ in range(3):
            with pytest.raises(OSError, match="can't start") as raised:
                workers.submit(lambda: done.append("late"))
            assert raised.value.errno == errno.ENOMEM
    assert workers.running == 0
    finished = threading.Event()
    workers.submit(finished.set)
    assert finished.wait(10)
    assert done == []
    workers.close()


def test_existing_threads_do_the_work_of_one_that_cannot_start(monkeypatch):
    """A process that may have no further thread goes on with those it has."""
    workers = Workers("test", 2)
    held, started, done = threading.Event(), threading.Event(), threading.Event()
    workers.submit(lambda: (started.set(), held.wait(10)))
    assert started.wait(10)
    with monkeypatch.context() as patched:
        patched.setattr(
            threading.Thread, "start", staticmethod(partial(fail, RuntimeError("can't start")))
        )
        workers.submit(done.set)
    held.set()
    assert done.wait(10)
    workers.close()


class Interrupt(BaseException):
    """Raised by a signal, in the middle of anything."""


@pytest.mark.parametrize("comes_up", [False, True])
def test_an_interrupted_start_costs_no_place(monkeypatch, comes_up):
    """The work is dropped, whether its thread starts later or never."""
    workers = Workers("test", 1)
    start, threads_begun, done = threading.Thread.start, [], []

    def interrupted(thread):
        threads_begun.append(thread)
        raise Interrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        for _ in range(3):
            with pytest.raises(Interrupt):
                workers.submit(lambda: done.append("late"))
    assert workers.running == 0
    if comes_up:
        for thread in threads_begun:
            start(thread)
    finished = threading.Event()
    workers.submit(finished.set)
    assert finished.wait(10)
    assert done == []
    assert workers.running == 1
    workers.close()


def test_an_interrupted_start_is_repeated_for_others(monkeypatch):
    """Another thread may have counted on that start."""
    workers, done = Workers("test", 1), threading.Event()
    start = threading.Thread.start

    def interrupt(_):
        monkeypatch.setattr(threading.Thread, "start", start)
        other = threading.Thread(target=workers.submit, args=(done.set,))
        other.start()
        other.join()
        raise Interrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(Interrupt):
        workers.submit(lambda: None)
    assert done.wait(10)
    workers.close()


def test_threads_end_with_their_workers():
    """When the workers are closed or dropped, and not seconds later; work under way is done."""
    for end in (Workers.close, lambda _: None):
        workers = Workers("ending", 4)
        barrier = threading.Barrier(4 + 1)
        for _ in range(4):
            workers.submit(lambda barrier=barrier: barrier.wait(10))
        barrier.wait(10)
        began = time.monotonic()
        end(workers)
        del workers
        eventually(lambda: not alive("ending"), within=10)
        assert time.monotonic() - began < threads.LINGER / 2


def alive(name):
    """Return the threads of that name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_closed_workers_still_work():
    """A call that began before the close is served, by a thread that does not stay."""
    workers = Workers("closed", 2)
    workers.close()
    done = threading.Event()
    workers.submit(done.set)
    assert done.wait(10)
    eventually(lambda: workers.running == 0, within=threads.LINGER / 2)


def test_the_exit_waits_for_no_thread():
    """A program ends though one of these threads is stuck."""
    program = (
        "import threading; from shardcache.backends.threads import Workers;"
        "started = threading.Event();"
        "Workers('stuck', 1).submit(lambda: (started.set(), threading.Event().wait()));"
        "started.wait()"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, timeout=30, capture_output=True
    )
    assert ended.stderr == b""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_its_own_threads():
    """It does not wait for the work of its parent's threads."""
    workers = Workers("test", 1)
    held = threading.Event()
    started = threading.Event()
    workers.submit(lambda: (started.set(), held.wait(10)))
    started.wait(10)
    if (child := os.fork()) == 0:
        done = threading.Event()
        workers.submit(done.set)
        os._exit(0 if done.wait(10) else 1)
    held.set()
    assert os.waitpid(child, 0)[1] == 0


def test_an_interrupt_of_a_start_is_seen_as_it_is(monkeypatch):
    """A time limit that strikes while a thread starts is no `KeyError` of `threading`."""
    name = "_start_new_thread" if sys.version_info < (3, 13) else "_start_joinable_thread"
    begin, begun = getattr(threading, name), threading.Event()

    def interrupted(*arguments, **options):
        begin(*arguments, **options)
        assert begun.wait(10)
        raise SoftTimeLimitError

    monkeypatch.setattr(threading, name, interrupted)
    with pytest.raises(SoftTimeLimitError):
        threads.start_thread(begun.set, "test")


class SoftTimeLimitError(Exception):
    """What a task queue raises in the main thread, out of a signal's handler."""
