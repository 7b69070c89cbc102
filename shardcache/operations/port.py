"""The port through which operations touch the world, and the step that drives them without a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable, Sequence
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from shardcache.core.commands import Command, Reply

T = TypeVar("T")
BackendT_contra = TypeVar("BackendT_contra", contravariant=True)

# Stands for the reply of a node that was not awaited any longer, which may still do as it was told.
UNANSWERED: Final[Reply] = object()

Enough: TypeAlias = Callable[[Sequence[Reply]], bool]
Work: TypeAlias = Callable[[], Coroutine[Any, Any, T]]


class FlightEnd(Enum):
    """How a flight ended for a caller who got no outcome from it."""

    REENTRANT = "reentrant"  # it would have waited for itself: it has to do the work alone
    TIMED_OUT = "timed out"  # it waited as long as it would
    CANCELLED = "cancelled"  # the task or thread that did the work was stopped: do it again


class Pause(NamedTuple):
    """The seconds until something is tried again; it is `stuck` while its node does not answer."""

    seconds: float
    stuck: bool = False


class SingleFlight(Protocol):
    """Work that is under way in this process, for all who want what comes of it."""

    def do(  # noqa: PLR0913 - each says something of its own
        self,
        name: bytes,
        work: Work[T],
        wait: float,
        *,
        takes_over: bool,
        progress: Any = None,
        joins: Callable[[Any], bool] | None = None,
    ) -> Awaitable[tuple[T | FlightEnd, bool]]:
        """Do `work`, or wait up to `wait` seconds for whoever does it under this name.

        Give what came of it, and whether it was the caller's own. When a flight is late, one of
        those who `takes_over` begins another; the rest wait for whichever lands first. `work`
        raises no `Exception`; what else it raises is not shared.

        `progress` is what others may know of the caller's own flight. One whose progress `joins`
        refuses is not waited for, and nobody joins it any more.
        """

    def progress(self, name: bytes) -> Any:
        """Return the progress of the flight under this name, `None` if there is none."""

    def forget(self, name: bytes) -> None:
        """Let nobody join the flight under this name any more; those who wait for it get it."""

    def forget_all(self) -> None:
        """Let nobody join any flight any more."""

    def nested(self) -> bool:
        """Return whether the caller is itself within a flight that is within another."""


class Repetition(Protocol):
    """What is done again and again beside the calls."""

    def stop(self) -> Awaitable[None]:
        """End it; when this returns, nothing of it is under way."""


class IO(Protocol[BackendT_contra]):
    """Asks nodes and tells the time, by blocking or by awaiting. Deadlines are `now()` seconds."""

    @property
    def refreshes_in_background(self) -> bool:
        """Return whether what is made anew is best made beside the calls."""

    @property
    def single_flight(self) -> SingleFlight:
        """Return the work under way."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""

    def wall(self) -> float:
        """Return the time in seconds that all machines share, more or less."""

    def process(self) -> int:
        """Return the number of this process, which a forked child does not share."""

    def call(self, backend: BackendT_contra, command: Command, deadline: float) -> Awaitable[Reply]:
        """Ask one node; raise the `NodeError` that stands in the way of a reply."""

    def call_many(
        self,
        asks: Sequence[tuple[BackendT_contra, Command]],
        deadline: float,
        enough: Enough | None = None,
    ) -> Awaitable[list[tuple[Reply, float]]]:
        """Ask all at once; return each reply, or `NodeError` as a value, and when it came.

        Once `enough` holds for the replies so far, wait little longer. The others are `UNANSWERED`
        then: so they are in what `enough` is given.
        """

    def coalesce(self, name: Hashable, ask: Callable[[], Awaitable[Reply]]) -> Awaitable[Reply]:
        """Return the reply of `ask`, or that of an equal one that is under way just now."""

    def compute(self, factory: Callable[[], Any]) -> Awaitable[Any]:
        """Return what the caller's own function makes."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Let time pass."""

    def give_way(self) -> Awaitable[None]:
        """Let others have their turn, once."""

    def random(self) -> float:
        """Return a number from 0 up to 1 by chance."""

    def token(self) -> bytes:
        """Return 16 bytes that nobody can guess, and that come but once."""

    def spawn(self, work: Work[None], name: str) -> None:
        """Begin an operation that goes on beside the calls, in a thread or a task of that name.

        Raise `OSError` when no thread is to be had.
        """

    def try_spawn(self, work: Work[None], name: str) -> bool:
        """Begin it beside the calls if not too many are under way; return whether.

        It sees the caller's context variables, and is no part of the caller's flight.
        """

    def clean_up(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Undo something beside the calls: do `turn` again after the pause it returns, until `None`.

        What is under way under the same name suffices: it takes in what was added meanwhile. A
        client that is closed, or whose process ends, waits a moment for it unless it is stuck.
        """

    def shield(self, work: Work[T]) -> Awaitable[T]:
        """Do what has to be done to its end, even when the caller is stopped meanwhile."""

    def repeat(self, every: float, work: Work[bool], name: str) -> Repetition:
        """Do `work` beside the calls, every so many seconds, until it says that it is done."""


class Aside(Generic[T]):
    """A function that an operation has called by whoever runs it, while the operation is suspended.

    Its frames are off the stack then, so that functions which call themselves get deep.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function

    def __await__(self) -> Generator[Aside[T], T, T]:
        return (yield self)


class CarriedError(RuntimeError):
    """Carries a `StopIteration` of the caller's function, which no coroutine can raise."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__("a cached function raised StopIteration")
        self.__cause__ = self.error = error


def raisable(error: Exception) -> Exception:
    """Return what an operation raises to have its caller see `error`."""
    return CarriedError(error) if isinstance(error, StopIteration) else error


def run(work: Work[T]) -> T:
    """Begin an operation that suspends for nothing but `Aside`, and run it to its end.

    It is begun here, and by a call that goes through no C code, so that no signal can raise before
    its first step: Python would write a warning about a coroutine that was never awaited.
    """
    operation = work()
    try:
        aside = operation.send(None)
        # A list can be emptied: an error in a local name would keep this frame alive, and itself.
        given: list[Any] = []
        while isinstance(aside, Aside):
            try:
                given.append(aside.function())
                resume: Callable[[Any], Any] = operation.send
            except StopIteration as error:
                given.append(CarriedError(error))
                resume = operation.throw
            except BaseException as error:  # noqa: BLE001 - the operation has to know
                given.append(error)
                resume = operation.throw
            aside = resume(given.pop())
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
    except CarriedError as carried:
        stop = [carried.error]
    except BaseException:
        operation.close()
        raise
    else:
        operation.close()
        raise RuntimeError(
            f"{operation!r} suspended; operations may await nothing but their IO port"
        )
    raise stop.pop()


def step(operation: Coroutine[Any, Any, T]) -> T:  # what a coroutine yields and is sent is unused
    """Run an operation that has been made, and never suspends, in one step."""
    return run(lambda: operation)
