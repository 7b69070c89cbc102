"""The port of a simulated process: asks model nodes, and passes the time in virtual seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from operations.later import Later
from shardcache.errors import NodeTimeoutError, NodeUnavailableError
from shardcache.operations.port import UNANSWERED

if TYPE_CHECKING:
    from operations.simulation import Process, SimulatedNode, Task, World

GRACE = 0.001


class SimulatedRepetition:
    """Work that is repeated until it is stopped."""

    def __init__(self) -> None:
        self.stopped = False
        self.busy: Task | None = None

    async def stop(self) -> None:
        """End it."""
        self.stopped = True
        if self.busy is not None:
            await self.busy


class SimulatedSingleFlight:
    """The single flight of a process with one caller at a time, which always does the work itself."""

    async def do(self, name: bytes, work: Any, wait: float, **_: Any) -> Any:
        """Do the work."""
        del name, wait
        return await work(), True

    def progress(self, name: bytes) -> None:
        """Return nothing: there is no other flight."""

    def forget(self, *names: bytes) -> None:
        """Do nothing: no caller joins."""

    def forget_all(self) -> None:
        """Do nothing, as above."""

    def nested(self) -> bool:
        """Return false."""
        return False


class SimulatedIO:
    """The port of a simulated process."""

    refreshes_in_background = True
    straight = False

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._cleaning: dict[Any, Task] = {}
        self.single_flight = SimulatedSingleFlight()

    def now(self) -> float:
        """Return the process's monotonic time."""
        return self._world.now * self._process.rate

    def process(self) -> int:
        """Return a number: nothing forks here."""
        return 1

    def wall(self) -> float:
        """Return the time of its clock."""
        return self._world.now + self._process.skew

    def random(self) -> float:
        """Return a number by the world's chance."""
        return self._world.chance.random()

    def token(self) -> bytes:
        """Return 16 bytes by the world's chance."""
        return self._world.chance.randbytes(16)

    async def call(self, node: SimulatedNode, command: Any, deadline: float) -> Any:
        """Ask one node; raise its error."""
        reply = await self._asked(node, command, deadline)
        if isinstance(reply, (NodeTimeoutError, NodeUnavailableError)):
            raise reply
        return reply

    async def call_many(
        self, asks: Sequence[tuple[SimulatedNode, Any]], deadline: float, enough: Any = None
    ) -> Any:
        """Ask all at once, until it is enough and a moment longer."""
        replies = [self._asked(node, command, deadline) for node, command in asks]
        arrivals: dict[Later, float] = {}
        for reply in replies:
            reply.watchers.append(lambda reply=reply: arrivals.setdefault(reply, self.now()))
        if enough is None:
            return [(await reply, arrivals[reply]) for reply in replies]
        over = Later()

        def heard() -> list[Any]:
            return [reply.result if reply.done else UNANSWERED for reply in replies]

        def look() -> None:
            if all(reply.done for reply in replies):
                over.set(None)
            elif enough(heard()):
                self._world.at(GRACE, lambda: over.set(None))

        for reply in replies:
            reply.watchers.append(look)
        look()
        await over
        ended = [arrivals.get(reply, self.now()) for reply in replies]
        return list(zip(heard(), ended, strict=True))

    async def coalesce(self, name: Any, ask: Any) -> Any:
        """Ask: there is one caller."""
        del name
        return await ask()

    async def compute(self, factory: Any) -> Any:
        """Return what the function makes, in virtual time if it is awaited."""
        made = factory()
        return await made if hasattr(made, "__await__") else made

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        over = Later()
        self._world.at(seconds / self._process.rate, lambda: over.set(None))
        await over

    async def give_way(self) -> None:
        """Go on: there is one caller."""

    def spawn(self, work: Any, name: str) -> None:
        """Start an operation in the background."""
        del name
        self._process.begin(work)

    def try_spawn(self, work: Any, name: str) -> bool:
        """Start it as well."""
        self.spawn(work, name)
        return True

    async def shield(self, work: Any) -> Any:
        """Do it in a task that goes on when the caller is cancelled."""
        task = self._process.begin(work)
        result = await task
        if task.error is not None:
            raise task.error
        return result

    def clean_up(self, name: Any, turn: Any) -> None:
        """Clean it up in the background, unless that is under way."""
        task = self._cleaning.get(name)
        if task is not None and not task.done:
            return

        async def take_turns() -> None:
            try:
                while (pause := await turn()) is not None:
                    await self.sleep(pause.seconds)
            finally:
                self._cleaning.pop(name, None)

        self._cleaning[name] = self._process.begin(take_turns)

    def repeat(self, every: float, work: Any, name: str) -> SimulatedRepetition:
        """Repeat the work."""
        del name
        repetition = SimulatedRepetition()

        async def turns() -> None:
            await self.sleep(every)
            while not repetition.stopped:
                repetition.busy = self._process.run(work())
                if not await repetition.busy:
                    repetition.stopped = True
                await self.sleep(every)

        self._process.run(turns())
        return repetition

    def _asked(self, node: SimulatedNode, command: Any, deadline: float) -> Later:
        reply = Later()
        node.ask(self._process, command, deadline / self._process.rate, reply)
        return reply
