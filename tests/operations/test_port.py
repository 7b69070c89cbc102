"""`run` drives an operation in one step, and calls aside what must not run on its frames."""

from __future__ import annotations

import inspect

import pytest

from shardcache.operations.port import Aside, CarriedError, raisable, run, step


class Signal(BaseException):
    """What the handler of a signal may raise."""


def test_an_operation_that_never_suspends_returns_its_result():
    """Other coroutines in it are part of the one step."""

    async def inner():
        return 6

    async def operation():
        return await inner() + 1

    assert run(operation) == 7
    assert step(operation()) == 7


def test_a_function_aside_runs_off_the_frames_of_its_operation():
    """So recursive functions can go deep: the operation is suspended meanwhile."""
    frames = []

    async def operation():
        def function():
            frames.extend(frame.function for frame in inspect.stack())
            return 3

        return await Aside(function), await Aside(lambda: 4)

    assert run(operation) == (3, 4)
    assert frames[0] == "function"
    assert "operation" not in frames


@pytest.mark.parametrize("error", [ValueError("no such user"), Signal()])
def test_the_error_of_a_function_aside_is_the_operations(error):
    """It is raised where the function was called: the operation may handle it, or its caller gets it."""
    ended = []

    def fail():
        raise error

    async def handling():
        try:
            await Aside(fail)
        except (ValueError, Signal) as raised:
            return raised

    async def operation():
        try:
            await Aside(fail)
        finally:
            ended.append(await Aside(lambda: "ended"))

    assert run(handling) is error
    with pytest.raises(type(error)) as raised:
        run(operation)
    assert raised.value is error
    assert ended == ["ended"]


class TestStopIteration:
    """A cached function may raise what no coroutine can."""

    def test_the_caller_gets_the_very_error(self):
        """It is carried through the operation, whether that was aside or not."""
        error = StopIteration(7)

        def fail():
            raise error

        async def aside():
            await Aside(fail)

        async def direct():
            raise raisable(error)

        for operation in (aside, direct):
            with pytest.raises(StopIteration) as raised:
                run(operation)
            assert raised.value is error

    def test_the_operation_sees_its_carrier(self):
        """It says what the function raised."""

        def fail():
            raise StopIteration(7)

        async def operation():
            try:
                await Aside(fail)
            except CarriedError as carried:
                return carried

        carried = run(operation)
        assert carried.__cause__ is carried.error
        assert carried.error.value == 7
        assert str(carried) == "a cached function raised StopIteration"

    def test_any_other_error_is_raised_as_it_is(self):
        """Only `StopIteration` needs a carrier."""
        error = ValueError("no such user")
        assert raisable(error) is error


@pytest.mark.parametrize("first", [False, True])
def test_an_operation_that_awaits_something_else_is_refused(first):
    """Its driver could not go on: it is closed, and the error says what it may await."""

    class Forever:
        def __await__(self):
            yield self

    async def operation():
        if not first:
            await Aside(lambda: None)
        await Forever()

    suspended = operation()
    with pytest.raises(RuntimeError, match="may await nothing but their IO port"):
        step(suspended)
    assert inspect.getcoroutinestate(suspended) == inspect.CORO_CLOSED
