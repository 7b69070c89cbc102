"""The port through which operations touch the world, and the step that drives them without a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from shardcache.core.commands import Command, Reply

T = TypeVar("T")
BackendT_contra = TypeVar("BackendT_contra", contravariant=True)

# Stands for the reply of a node that was not awaited any longer. The node may still carry out the
# command.
UNANSWERED: Final[Reply] = object()

Enough: TypeAlias = Callable[[Sequence[Reply]], bool]
Work: TypeAlias = Callable[[], Coroutine[Any, Any, T]]


class FlightEnd(Enum):
    """How a flight ended for a caller that got no outcome from it."""

    REENTRANT = "reentrant"  # the caller would wait for itself: it does the work alone
    TIMED_OUT = "timed out"  # the caller waited its full time
    CANCELLED = "cancelled"  # the task or thread of the leader was stopped: do the work again


class Pause(NamedTuple):
    """The seconds until the next turn of a clean-up; it is `stuck` while its node does not answer."""

    seconds: float
    stuck: bool = False


class SharedFlight(Protocol):
    """A flight as a caller sees that leads it or follows it."""

    @property
    def landed(self) -> bool:
        """Whether it has an outcome."""

    @property
    def outcome(self) -> Any:
        """The outcome of a flight that has landed, or `FlightEnd.CANCELLED`."""


class FlightBatch(AbstractContextManager["FlightBatch"], Protocol):
    """The flights that one caller leads by one piece of work, and those of others that it follows.

    At the end of the `with` block its own flights that have not landed are cancelled.
    """

    def enter(
        self,
        name: bytes,
        progress: Any = None,
        joins: Callable[[Any], bool] | None = None,
        outlives: Callable[[], float] | None = None,
    ) -> tuple[SharedFlight | FlightEnd, bool]:
        """Lead the flight under this name, or follow it; return it, and whether it is the caller's own.

        That is one atomic step. A flight that the caller must not wait for, because it waits for the
        caller, is `REENTRANT`. The other parameters are those of `SingleFlight.do`.
        """

    def lead(self, work: Work[None]) -> Awaitable[None]:
        """Run the work of all own flights that have been entered."""

    def land(self, flight: Any, outcome: Any) -> None:  # each group has its own
        """Set the outcome of one of the own flights, for its followers."""

    def forget(self, name: bytes, flight: Any) -> None:  # as above
        """Replace a flight that is late by another."""

    def wait(self, seconds: float) -> Awaitable[None]:
        """Wait until another flight that is followed lands, up to `seconds`."""


class SingleFlight(Protocol):
    """Single flight within this process: one caller does the work, the others share its outcome."""

    def do(  # noqa: PLR0913 - each is needed
        self,
        name: bytes,
        work: Work[T],
        wait: float,
        *,
        takes_over: bool,
        progress: Any = None,
        joins: Callable[[Any], bool] | None = None,
        outlives: Callable[[], float] | None = None,
    ) -> Awaitable[tuple[T | FlightEnd, bool]]:
        """Run `work`, or wait up to `wait` seconds for the flight under this name.

        Return the outcome, and whether the work was the caller's own. When a flight is late, one
        caller that `takes_over` begins another; the rest wait for the flight that lands first.
        `work` raises no `Exception`; any other exception is not shared.

        `progress` is what other callers may know of the caller's own flight. A caller does not wait
        for a flight whose progress `joins` refuses, and no caller joins that one any more.

        When the last caller of the caller's own flight is cancelled, its work is too. `outlives` is
        called instead, if there is one, and returns for how many more seconds the work may go on.
        """

    def batch(self) -> FlightBatch:
        """Return an empty batch of flights."""

    def progress(self, name: bytes) -> Any:
        """Return the progress of the flight under this name, `None` if there is none."""

    def forget(self, *names: bytes) -> None:
        """Forget the flights under these names: no caller joins them any more, their followers still get them."""

    def forget_all(self) -> None:
        """Forget all flights: no caller joins them any more."""

    def nested(self) -> bool:
        """Return whether the running code is in a flight that is itself within another."""


class Repetition(Protocol):
    """Periodic work in the background."""

    def stop(self) -> Awaitable[None]:
        """End it. When this returns, no turn is in progress."""


class IO(Protocol[BackendT_contra]):
    """The world of an operation: nodes, time, chance and background work. Deadlines are `now()` seconds."""

    @property
    def refreshes_in_background(self) -> bool:
        """Whether `refresh="auto"` refreshes stale values in the background."""

    @property
    def straight(self) -> bool:
        """Whether a backend may be called past this port, which does no more than that."""

    @property
    def single_flight(self) -> SingleFlight:
        """The single-flight group of the client."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""

    def wall(self) -> float:
        """Return the time of day in seconds, which all machines roughly share."""

    def process(self) -> int:
        """Return the id of this process; a forked child has another."""

    def call(self, backend: BackendT_contra, command: Command, deadline: float) -> Awaitable[Reply]:
        """Ask one node; raise its `NodeError`."""

    def call_many(
        self,
        asks: Sequence[tuple[BackendT_contra, Command]],
        deadline: float,
        enough: Enough | None = None,
    ) -> Awaitable[list[tuple[Reply, float]]]:
        """Ask many nodes at once; return each reply or `NodeError`, and when it came by `now()`.

        Once `enough` holds for the replies so far, wait only a moment longer. Missing replies are
        `UNANSWERED`, in the result and in what `enough` gets.
        """

    def coalesce(self, name: Hashable, ask: Callable[[], Awaitable[Reply]]) -> Awaitable[Reply]:
        """Return the reply of `ask`, or the reply to an equal command that is already in progress."""

    def compute(self, factory: Callable[[], Any]) -> Awaitable[Any]:
        """Return the result of the caller's own function."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait for `seconds`."""

    def give_way(self) -> Awaitable[None]:
        """Let other tasks or greenlets run once."""

    def random(self) -> float:
        """Return a random number from 0 up to 1."""

    def token(self) -> bytes:
        """Return 16 random bytes, unique and not to be guessed."""

    def spawn(self, work: Work[None], name: str) -> None:
        """Start an operation in the background, in a thread or task of that name.

        Raise `OSError` if no thread can be started.
        """

    def try_spawn(self, work: Work[None], name: str) -> bool:
        """Start an operation in the background unless too many run already; return whether it started.

        It sees the caller's context variables, and is not part of the caller's flight.
        """

    def clean_up(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Clean up in the background: call `turn` again after each pause that it returns, until `None`.

        Only one runs under each name: it takes in what is added meanwhile. A client that is closed,
        or whose process ends, waits a moment for a clean-up that is not stuck.
        """

    def shield(self, work: Work[T]) -> Awaitable[T]:
        """Run an operation to its end, even if the caller is cancelled meanwhile."""

    def repeat(self, every: float, work: Work[bool], name: str) -> Repetition:
        """Call `work` in the background every `every` seconds, until it returns `False`."""


class Aside(Generic[T]):
    """A function for the driver of an operation to call while the operation is suspended.

    The operation's frames are off the stack then, so that recursive cached functions can go deep.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function

    def __await__(self) -> Generator[Aside[T], T, T]:
        return (yield self)


class CarriedError(RuntimeError):
    """A carrier for a `StopIteration` of the caller's function, which no coroutine can raise."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__("a cached function raised StopIteration")
        self.__cause__ = self.error = error


def raisable(error: Exception) -> Exception:
    """Return the exception that an operation must raise for its caller to see `error`."""
    return CarriedError(error) if isinstance(error, StopIteration) else error


def run(work: Work[T]) -> T:
    """Start an operation that suspends only for `Aside`, and run it to its end.

    It is started here, by a call that goes through no C code, so that no signal can raise before
    its first step: Python would warn of a coroutine that was never awaited.
    """
    operation = work()
    try:
        aside = operation.send(None)
        # A list can be emptied: an error in a local name would keep this frame alive, and itself.
        results: list[Any] = []
        while isinstance(aside, Aside):
            try:
                results.append(aside.function())
                resume: Callable[[Any], Any] = operation.send
            except StopIteration as error:
                results.append(CarriedError(error))
                resume = operation.throw
            except BaseException as error:  # noqa: BLE001 - the operation handles it
                results.append(error)
                resume = operation.throw
            aside = resume(results.pop())
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


def step(operation: Coroutine[Any, Any, T]) -> T:  # the types that it yields and is sent are unused
    """Run an existing coroutine that never suspends, in one step."""
    return run(lambda: operation)
