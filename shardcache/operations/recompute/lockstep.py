"""Operations about one key each, run in lockstep: what all of them need next is done at once.

An operation is a coroutine that awaits nothing but its cluster and its port. Here both are stand-ins:
in place of asking a node, calling the function or waiting for another caller, an operation suspends
with a *wish*. When all have suspended, one fan-out carries the commands of all, and then one call of
the factory makes the values of all. An operation waits for other callers only when nothing else is
left to do, so that two callers that want the same keys cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar, cast

from shardcache.core.commands import REPLIES, Command, CommandList, Get, GetMany, Reply
from shardcache.core.urls import redact
from shardcache.errors import NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import (
    Enough,
    FlightBatch,
    FlightEnd,
    Pause,
    Repetition,
    SharedFlight,
    SingleFlight,
    Work,
)
from shardcache.operations.recompute.outcomes import AbsentError

T = TypeVar("T")

Asks: TypeAlias = Sequence[tuple[Member, Command]]
# The batch and its flight, and whether that is the caller's own.
Entered: TypeAlias = tuple[FlightBatch, Any, bool]

# Items, values and functions are the caller's own, and flights the port's, hence `Any`.


class Ask(NamedTuple):
    """The wish to ask nodes: it gets the reply to each command."""

    asks: Asks

    def __await__(self) -> Generator[Self, list[Reply], list[Reply]]:
        return (yield self)


class Compute(NamedTuple):
    """The wish for the value of an item: the factory's, or its error."""

    item: Hashable

    def __await__(self) -> Generator[Self, Any, Any]:
        return (yield self)


class Await(NamedTuple):
    """The wish that something of the port is awaited by itself."""

    work: Work[Any]

    def __await__(self) -> Generator[Self, Any, Any]:
        return (yield self)


class Sleep(NamedTuple):
    """The wish to wait before the next look at a node."""

    seconds: float

    def __await__(self) -> Generator[Self, None, None]:
        yield self


class Enter(NamedTuple):
    """The wish to lead or to follow a flight, as for `FlightBatch.enter`."""

    name: bytes
    progress: Any
    joins: Callable[[Any], bool] | None
    outlives: Callable[[], float] | None

    def __await__(self) -> Generator[Self, Entered, Entered]:
        return (yield self)


class Follow(NamedTuple):
    """The wish to wait for any of some flights until a time: it gets whether one has landed."""

    flights: Sequence[Any]
    until: float

    @property
    def landed(self) -> bool:
        """Whether any of the flights has."""
        return any(flight.landed for flight in self.flights)

    def __await__(self) -> Generator[Self, bool, bool]:
        return (yield self)


Wish: TypeAlias = Ask | Compute | Await | Sleep | Enter | Follow


class Stopped(BaseException):
    """Raised in an operation whose caller was stopped: it undoes what it has begun."""


class Operation(Generic[T]):
    """A coroutine, driven from wish to wish. It has ended when it has none; `result` or `error` is set."""

    __slots__ = ("_coroutine", "error", "result", "wish")

    result: T

    def __init__(self, work: Work[T]) -> None:
        self._coroutine = work()
        self.error: Exception | None = None
        self.wish: Wish | None = None
        self.resume(None)

    def resume(self, granted: Any) -> None:
        """Grant the wish, and go on to the next."""
        self._step(self._coroutine.send, granted)

    def throw(self, error: BaseException) -> None:
        """Raise an error in place of the wish, and go on to the next."""
        self._step(self._coroutine.throw, error)

    def outcome(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result

    def _step(self, step: Callable[[Any], Any], value: Any) -> None:
        self.wish = None
        try:
            self.wish = step(value)
        except StopIteration as done:
            self.result = done.value
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - its caller gets it
            self.error = error
        else:
            if not isinstance(self.wish, Wish):
                raise RuntimeError(  # noqa: TRY004 - it is not an argument
                    f"{self._coroutine!r} awaits something else than its cluster and its port"
                )


Operations: TypeAlias = Sequence[Operation[Any]]


class Lockstep:
    """Runs operations in lockstep on `cluster`, whose stand-in they get as `stand_in`.

    `factory` is called with a list of items, and returns a mapping from item to value.
    """

    def __init__(self, cluster: Cluster, factory: Callable[[list[Any]], Any]) -> None:
        self.io = cluster.io
        self._cluster = cluster
        self._factory = factory
        self._background: list[Work[None]] = []
        self.stand_in = cast("Cluster", _Cluster(cluster, _IO(self)))

    async def run(self, works: Sequence[Work[T]]) -> list[Operation[T]]:
        """Run operations to their end."""
        operations = [Operation(work) for work in works]
        with self.io.single_flight.batch() as flights:
            while any(each.wish is not None for each in operations):
                await self._drive(operations)
                led = _enter(operations, flights)
                if led:
                    await flights.lead(partial(self._lead, led, flights, operations))
                    continue
                following = [each for each in operations if isinstance(each.wish, Follow)]
                if following and not self._resume_followers(following):
                    await self._wait(following, flights)
        return operations

    async def alone(self, work: Work[T]) -> T:
        """Run one operation that is beside the others, such as a renewal."""
        operation = Operation(work)
        await self._drive([operation])
        return operation.outcome()

    def try_spawn(self, work: Work[None], name: str) -> bool:
        """Run an operation in the background, in lockstep with others that are added meanwhile."""
        self._background.append(work)
        if len(self._background) > 1 or self.io.try_spawn(self._run_background, name):
            return True
        self._background.clear()
        return False

    async def _run_background(self) -> None:
        works, self._background = self._background, []
        await self._drive([Operation(work) for work in works])

    async def _lead(
        self,
        led: Sequence[tuple[Operation[Any], Any]],
        flights: FlightBatch,
        operations: Operations,
    ) -> None:
        """Do the work of the flights that the caller leads, and what else there is to do."""
        for operation, flight in led:
            operation.resume((flights, flight, True))
        await self._drive(operations)

    def _resume_followers(self, following: Operations) -> bool:
        """Go on with the operations whose flight has landed, or is late; return whether there are any."""
        now = self.io.now()
        ready = []
        for each in following:
            wish = cast("Follow", each.wish)
            if wish.landed or wish.until <= now:
                ready.append((each, wish.landed))
        for each, landed in ready:
            each.resume(landed)
        return bool(ready)

    async def _wait(self, following: Operations, flights: FlightBatch) -> None:
        until = min(cast("Follow", each.wish).until for each in following)
        await flights.wait(until - self.io.now())

    async def _drive(self, operations: Operations) -> None:
        """Grant wishes until each operation has ended, or wants to share a flight."""
        try:
            await self._grant(operations)
        except BaseException:
            await self.io.shield(lambda: self._stop(operations))
            raise

    async def _grant(self, operations: Operations) -> None:
        while True:
            if asking := _wishing(operations, Ask):
                await self._ask(asking)
            elif awaiting := _wishing(operations, Await):
                for operation, wish in awaiting:
                    operation.resume(await wish.work())
            elif _wishing(operations, Enter):
                return
            elif computing := _wishing(operations, Compute):
                await self._compute(computing)
            elif sleeping := _wishing(operations, Sleep):
                await self.io.sleep(max(wish.seconds for _, wish in sleeping))
                for operation, _ in sleeping:
                    operation.resume(None)
            else:
                return

    async def _stop(self, operations: Operations) -> None:
        """End operations whose caller was stopped; they release what they have claimed."""
        going = [each for each in operations if each.wish is not None]
        for each in going:
            each.throw(Stopped())
        await self._grant(going)

    async def _ask(self, asking: Sequence[tuple[Operation[Any], Ask]]) -> None:
        """Ask for all at once. The replies reach the operations even if the caller is stopped meanwhile."""
        stopped = False

        async def work() -> None:
            try:
                replies = iter(await self._send([ask for _, wish in asking for ask in wish.asks]))
            except BaseException:
                for operation, wish in asking:  # there is nothing to wait for any more
                    operation.wish = wish
                raise
            for operation, wish in asking:
                operation.resume([next(replies) for _ in wish.asks])
            if stopped:
                await self._stop([operation for operation, _ in asking])

        for operation, _ in asking:
            operation.wish = None  # they are not to be stopped before they know what they have got
        try:
            await self.io.shield(work)
        except BaseException:
            stopped = True
            raise

    async def _send(self, asks: Asks) -> list[Reply]:
        """Return the replies: reads of one node travel as one command, and so do all other commands."""
        groups: dict[Hashable, list[int]] = {}
        for place, (member, command) in enumerate(asks):
            kind: Hashable = type(command) is Get
            if type(command) is GetMany or not (kind or CommandList in member.supports):
                kind = place, "alone"
            groups.setdefault((member, kind), []).append(place)
        joined = [_join([asks[place] for place in places]) for places in groups.values()]
        replies: list[Reply] = [None] * len(asks)
        answers = await self._cluster.ask_many(joined)
        for places, answer in zip(groups.values(), answers, strict=True):
            for place, reply in zip(places, _split(answer, len(places)), strict=True):
                replies[place] = reply
        return replies

    async def _compute(self, computing: Sequence[tuple[Operation[Any], Compute]]) -> None:
        items = [wish.item for _, wish in computing]
        try:
            values = _mapping(await self.io.compute(lambda: self._factory(items)))
        except Exception as error:  # noqa: BLE001 - the function's own; its callers get it
            for operation, _ in computing:
                operation.throw(error)
            return
        for operation, wish in computing:
            if wish.item in values:
                operation.resume(values[wish.item])
            else:
                operation.throw(AbsentError())


WishT = TypeVar("WishT", bound=Wish)


def _mapping(values: Any) -> Mapping[Any, Any]:
    if not isinstance(values, Mapping):
        raise TypeError(
            f"a function of many keys must return a mapping from key to value, not {redact(values)}"
        )
    return values


def _wishing(operations: Operations, kind: type[WishT]) -> list[tuple[Operation[Any], WishT]]:
    """Return the operations that have a wish of a kind, each with its wish."""
    return [(each, each.wish) for each in operations if isinstance(each.wish, kind)]


def _enter(operations: Operations, flights: FlightBatch) -> list[tuple[Operation[Any], Any]]:
    """Enter the flights that operations wish for; return the operations that lead, with their flights."""
    led = []
    for operation, wish in _wishing(operations, Enter):
        flight, own = flights.enter(*wish)
        if own:
            led.append((operation, flight))
        else:
            operation.resume((flights, flight, False))
    return led


def _join(asks: Asks) -> tuple[Member, Command]:
    """Return one command to a node for all of its commands."""
    member, command = asks[0]
    if len(asks) == 1:
        return asks[0]
    commands = [each for _, each in asks]
    if type(command) is Get:
        return member, GetMany([each.key for each in commands if isinstance(each, Get)])
    return member, CommandList(commands)


def _split(answer: Reply, count: int) -> Sequence[Reply]:
    """Return the replies to commands that were joined; the error of a failed node stands for each."""
    if count == 1:
        return [answer]
    return answer if isinstance(answer, REPLIES) else [cast("NodeError", answer)] * count


class _Cluster:
    """The stand-in for a cluster: what asks nodes suspends, and all else is the cluster's own."""

    observes_operations = False  # the operations are one to an observer
    straight = False  # the reads of many keys of a node are one

    def __init__(self, cluster: Cluster, io: _IO) -> None:
        self._cluster = cluster
        self.io = io

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    async def ask(self, member: Member, command: Command, deadline: float | None = None) -> Reply:  # noqa: ARG002 - each fan-out has its own
        """Return the reply of a key's node."""
        (reply,) = await Ask([(member, command)])
        return reply

    async def ask_many(
        self,
        asks: Asks,
        deadline: float | None = None,  # noqa: ARG002 - as above
        enough: Enough | None = None,  # noqa: ARG002 - the others need all replies anyway
    ) -> list[Reply]:
        """Return the replies of the nodes of many keys."""
        return await Ask(asks) if asks else []

    async def ask_timed(
        self,
        asks: Asks,
        deadline: float | None = None,
        enough: Enough | None = None,
        *,
        ejected_too: bool = False,
    ) -> list[tuple[Reply, float]]:
        """Ask many nodes by themselves, as a clean-up does."""
        ask, ejected = self._cluster.ask_timed, ejected_too
        timed: list[tuple[Reply, float]] = await Await(
            lambda: ask(asks, deadline, enough, ejected_too=ejected)
        )
        return timed


class _IO:
    """The stand-in for a port: what takes time suspends, and all else is the port's own."""

    def __init__(self, lockstep: Lockstep) -> None:
        self._lockstep = lockstep
        self._io = lockstep.io
        self.single_flight = _SingleFlight(self._io.single_flight, self._io.now)
        self.try_spawn = lockstep.try_spawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._io, name)

    async def coalesce(self, _name: Hashable, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Ask: the other keys' commands go along."""
        return await ask()

    async def compute(self, item: Callable[[], Hashable]) -> Any:
        """Return the factory's value for an item."""
        return await Compute(item())

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`, and as long as the others."""
        await Sleep(seconds)

    async def shield(self, work: Work[T]) -> T:
        """Run an operation: every fan-out is shielded."""
        return await work()

    def repeat(self, every: float, work: Work[bool], name: str) -> _Repetition:
        """Call `work` in the background every `every` seconds."""
        return _Repetition(self._io.repeat(every, partial(self._lockstep.alone, work), name))

    def clean_up(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Clean up in the background."""
        self._io.clean_up(name, partial(self._lockstep.alone, turn))


class _Repetition:
    """Periodic work in the background, beside the operations."""

    def __init__(self, repetition: Repetition) -> None:
        self._repetition = repetition

    async def stop(self) -> None:
        """End it."""

        async def stop() -> None:
            await self._repetition.stop()

        await Await(stop)


class _SingleFlight:
    """The stand-in for a single-flight group: an operation enters and follows flights by wishes."""

    def __init__(self, group: SingleFlight, now: Callable[[], float]) -> None:
        self._group = group
        self._now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    async def do(  # noqa: PLR0913 - as in the port
        self,
        name: bytes,
        work: Work[T],
        wait: float,
        *,
        takes_over: bool,
        progress: Any = None,
        joins: Callable[[Any], bool] | None = None,
        outlives: Callable[[], float] | None = None,
    ) -> tuple[T | FlightEnd, bool]:
        """Run `work`, or wait for the flight under this name, after all work of the caller's own."""
        joined: list[SharedFlight] = []
        while True:
            flights, flight, own = await Enter(name, progress, joins, outlives)
            if own:
                outcome = await work()
                flights.land(flight, outcome)
                return outcome, True
            if flight is FlightEnd.REENTRANT:
                return FlightEnd.REENTRANT, False
            joined.append(flight)
            if await Follow(joined, self._now() + wait):
                return next(each.outcome for each in joined if each.landed), False
            if not takes_over:
                return FlightEnd.TIMED_OUT, False
            flights.forget(name, flight)
