"""A fan-out of a task: every node is asked in one turn, and one future is awaited."""

from __future__ import annotations

import asyncio
import time

import pytest

from shardcache.backends.base import BackendOptions
from shardcache.backends.transport.asyncio import MultiplexedBackend
from shardcache.core.commands import Get
from shardcache.errors import NodeUnavailableError
from shardcache.io.task_fanout import LOOK_AGAIN, Answer, TaskFanOut, ask_all

COMMAND = Get(b"k")
SOON = 0.01  # seconds


class ByFuture:
    """A backend as a plugin writes it: it returns a future."""

    def __init__(self, reply=None, seconds=None):
        self.reply = reply
        self.seconds = seconds
        self.future = None

    def execute(self, _command, _deadline):
        """Return a future that is settled after some seconds, or now."""
        loop = asyncio.get_running_loop()
        self.future = loop.create_future()
        if self.seconds is None:
            self.settle()
        else:
            loop.call_later(self.seconds, self.settle)
        return self.future

    def settle(self):
        """Set the reply, or the error."""
        if self.future.done():
            return
        if isinstance(self.reply, Exception):
            self.future.set_exception(self.reply)
        else:
            self.future.set_result(self.reply)


class Refusing:
    """A backend that raises at once."""

    def __init__(self, error):
        self.error = error

    def execute(self, _command, _deadline):
        """Raise the error."""
        raise self.error


def ask(*backends):
    """Ask the backends; return the replies."""

    async def main():
        answers = await ask_all([(backend, COMMAND) for backend in backends], 1.0)
        return [reply for reply, _ in answers]

    return asyncio.run(main())


def test_every_reply_has_its_place():
    """Whoever answers first, and whether by a reply, an error at once or an error later."""
    early, late = NodeUnavailableError("early"), NodeUnavailableError("late")
    backends = ByFuture("slow", 3 * SOON), ByFuture("now"), Refusing(early), ByFuture(late, SOON)
    assert ask(*backends) == ["slow", "now", early, late]
    assert ask() == []


def test_a_reply_has_the_time_of_its_arrival():
    """Not that of the last: each node's time is its own."""

    async def main():
        began = time.monotonic()
        backends = [ByFuture("fast", SOON), ByFuture("slow", 30 * SOON)]
        (_, fast), (_, slow) = await ask_all([(each, COMMAND) for each in backends], 1.0)
        assert began + SOON <= fast + 0.001
        assert fast < slow

    asyncio.run(main())


def test_a_cancelled_caller_leaves_nothing():
    """No future goes on, and no exception is left unread."""

    async def main():
        backends = [ByFuture("x", 60), ByFuture(NodeUnavailableError("y"), SOON), ByFuture("z", 60)]
        caller = asyncio.ensure_future(ask_all([(each, COMMAND) for each in backends], 1.0))
        await asyncio.sleep(2 * SOON)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await asyncio.sleep(0)
        assert [each.future.cancelled() for each in backends] == [True, False, True]

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [None, SOON])
def test_an_error_of_another_kind_ends_the_call(seconds):
    """It is a fault of the program; the other nodes are not waited for."""
    waiting = ByFuture("never", 60)
    with pytest.raises(ZeroDivisionError):
        ask(waiting, ByFuture(ZeroDivisionError(), seconds))
    assert waiting.future.cancelled()
    waiting = ByFuture("never", 60)
    with pytest.raises(ZeroDivisionError):
        ask(waiting, Refusing(ZeroDivisionError()))
    assert waiting.future.cancelled()


def test_a_future_that_a_backend_cancels_ends_the_call():
    """As it would if it were awaited."""

    async def main():
        backend = ByFuture("never", 60)
        caller = asyncio.ensure_future(ask_all([(backend, COMMAND), (ByFuture(), COMMAND)], 1.0))
        await asyncio.sleep(0)
        backend.future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(main())


def test_a_place_keeps_its_first_reply():
    """A connection that is closed settles again what it has settled, and wakes the task if need be."""

    async def main():
        fan_out = TaskFanOut([], 1.0)
        fan_out.finished = asyncio.get_running_loop().create_future()
        fan_out.answers, fan_out.missing = [None, None], {0, 1}
        first, second = Answer(fan_out, 0), Answer(fan_out, 1)
        first.set_result("reply")
        first.set_exception(NodeUnavailableError("closed"))
        assert not first.done()
        fan_out.answers[1] = ("kept", 0.0)
        fan_out.missing.discard(1)  # an interrupt came here
        second.set_exception(NodeUnavailableError("closed"))
        assert first.done()
        assert [reply for reply, _ in fan_out.answers] == ["reply", "kept"]

    asyncio.run(main())


def test_a_subclass_with_its_own_execute_is_asked_by_it():
    """A plugin that counts or changes commands sees those of a fan-out too."""
    seen = []

    class Counting(MultiplexedBackend):
        def execute(self, command, deadline):
            seen.append((command, deadline))
            future = asyncio.get_running_loop().create_future()
            future.set_result("counted")
            return future

    class Target:
        supports = frozenset({Get})
        whole_seconds = False

        class node:  # noqa: N801 - as the attribute
            name = "a"

    backend = Counting(Target(), BackendOptions())
    assert ask(backend) == ["counted"]
    assert seen == [(COMMAND, 1.0)]


def test_a_reply_whose_callback_an_interrupt_has_lost_is_taken_later(monkeypatch):
    """The task does not wait for ever; it has the reply soon after the deadline."""
    take, lost = Answer.take, []

    def lose_one(answer, future):
        if lost:
            take(answer, future)
        lost.append(future)

    monkeypatch.setattr(Answer, "take", lose_one)

    async def main():
        asks = [(ByFuture("first", SOON), COMMAND), (ByFuture("second", SOON), COMMAND)]
        answers = await asyncio.wait_for(ask_all(asks, time.monotonic() + SOON), 10)
        return [reply for reply, _ in answers]

    assert asyncio.run(main()) == ["first", "second"]
    assert lost


def test_a_call_that_is_over_is_not_looked_at_again(monkeypatch):
    """Its timer and its futures are cancelled, also if an interrupt ends it while nodes are asked."""
    looked = []
    monkeypatch.setattr(TaskFanOut, "_take_all", looked.append)

    class Interrupted:
        def execute(self, _command, _deadline):
            raise KeyboardInterrupt

    async def main():
        await ask_all([(ByFuture("reply", SOON), COMMAND)], time.monotonic())
        unanswered = ByFuture("reply", 60)
        with pytest.raises(KeyboardInterrupt):
            await ask_all([(unanswered, COMMAND), (Interrupted(), COMMAND)], time.monotonic())
        await asyncio.sleep(2 * LOOK_AGAIN)
        return unanswered.future.cancelled()

    assert asyncio.run(main())
    assert not looked
