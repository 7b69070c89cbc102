"""Harnesses for cached values: one value of a slow source, and one function of many values."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from lock_service import LockService
from operations.harness import A_FEW_ROUND_TRIPS, REDIS, Harness
from operations.simulation import Process, SimulatedNode, Task
from shardcache.clients.function_cache import FunctionCache
from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Command, Payload, Set
from shardcache.core.reserved_keys import GENERATIONS, VALUE_LOCKS, own_key
from shardcache.core.values.flags import MARK_FLAGS, is_mark
from shardcache.core.values.freshness import open_stored
from shardcache.core.values.payloads import Payloads
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.request import Request

DELTA = 0.2  # seconds that a slow source takes
# What an attacker may plant where a generation or a mark is kept.
PLANTED: dict[str, Payload] = {
    "junk": (MARK_FLAGS, b"zzz"),
    "extreme": (MARK_FLAGS, b"f" * 16),
    "17 digits": (MARK_FLAGS, b"1" * 17),
    "old": (MARK_FLAGS, b"0" * 12 + b"beef"),
    "now": (MARK_FLAGS, b"%012xbeef" % 1_005_000),
    "nearly a day ahead": (MARK_FLAGS, b"%012xbeef" % 87_000_000),
    "more than a day ahead": (MARK_FLAGS, b"%012xbeef" % 99_000_000),
    "stub": (0, b""),
    "empty": (MARK_FLAGS, b""),
    "of another kind": (0, b"0" * 12 + b"beef"),
}


class Source:
    """A slow source: returns its version of the moment of the call, `delta` seconds later."""

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.version: Any = 0
        self.calls = 0
        self.busy = 0
        self.most_busy = 0
        self.error: BaseException | None = None

    def for_process(self, process: Process) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Return the function that a process calls."""

        async def load() -> Any:
            self.calls += 1
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            version = self.version
            await process.cluster.io.sleep(self.delta)
            self.busy -= 1
            if self.error is not None:
                raise self.error
            return version

        return load


class RecomputeHarness(Harness):
    """Processes that cache one value of one slow source."""

    KEY = "report"

    def __init__(
        self, processes: int = 8, kinds: Sequence[bool] = REDIS, seed: int = 0, **terms: Any
    ) -> None:
        super().__init__(kinds=kinds, processes=processes, seed=seed)
        self.source = Source(DELTA)
        self.policy = CachePolicy(**{"ttl": 60.0, "jitter": 0.0, **terms})
        self.payloads: Payloads | None = None  # of the function, in place of the client's

    def request(
        self,
        process: int | Process = 0,
        policy: CachePolicy | None = None,
        tags: tuple[str, ...] = (),
    ) -> Request:
        """Return one request of a process."""
        process = self.processes[process] if isinstance(process, int) else process
        factory = self.source.for_process(process)
        protection = process.protection
        return Request(
            process.cluster,
            self.KEY,
            factory,
            policy or self.policy,
            protection,
            protection.direct,
            tags,
            payloads=self.payloads,
        )

    def start_call(self, process: int = 0, policy: CachePolicy | None = None) -> Task:
        """Start a call of a process."""
        return self.start(cached_value.get(self.request(process, policy)), process)

    def call(self, process: int = 0) -> Any:
        """Have a process call, and return what it gets."""
        (value,) = self.call_all(process)
        return value

    def call_all(self, *processes: int, seconds: float = 30.0) -> list[Any]:
        """Have processes call at once, by default all, and return what they get."""
        tasks = [self.start_call(process) for process in processes or range(len(self.processes))]
        self.finish(*tasks, within=seconds)
        assert all(task.done for task in tasks)
        self.advance(0.0)  # what they started in the background starts
        for task in tasks:
            if task.error is not None:
                raise task.error
        return [task.result for task in tasks]

    @property
    def lock_key(self) -> bytes:
        """Return the key of the value's lock."""
        return own_key(VALUE_LOCKS, self.KEY.encode())

    @property
    def shard(self) -> SimulatedNode:
        """Return the node that owns the key."""
        return self.request().member.backend

    def use_lock_service(self) -> LockService:
        """Have a service keep the locks; return it."""
        service = LockService(lambda: self.now)
        for process in self.processes:
            process.cluster.lock_provider = service
        return service

    def before(
        self, kind: type[Command], act: Callable[[Callable[[Command], Any]], Any], times: int = 1
    ) -> None:
        """Have others act just before the value's node executes its next commands of a kind.

        `act` gets the node's `execute`.
        """
        store, left = self.shard.store, times
        execute = store.execute

        def executed(command: Command) -> Any:
            nonlocal left
            if isinstance(command, kind) and left:
                left -= 1
                act(execute)
            return execute(command)

        store.execute = executed

    def store(self, value: Any, lifetime: float | None = None, process: int = 0) -> Command:
        """Return the command by which a process would store a value that was just recomputed."""
        request = self.request(process)
        payload = request.cluster.payloads.dump(request.name, value)
        return Set(request.name, *request.seal(payload, lifetime, DELTA, ()))

    def stored(self) -> Any:
        """Return the version that is stored, or `None`."""
        name = self.request().name
        held = self.shard.held(name)
        if held is None or is_mark(held[0]):
            return None
        stored = open_stored(held[0])
        return self.cluster.payloads.decode(name, stored.payload)

    def count(self, counter: str) -> float:
        """Return a counter, summed over all processes."""
        return sum(process.protection.counters.counts[counter] for process in self.processes)


class FunctionHarness(Harness):
    """Processes that cache one function, whose source has a version."""

    FUNCTION = "reports"
    NAME = own_key(GENERATIONS, b"reports:0")  # of its generation

    settling = A_FEW_ROUND_TRIPS

    def __init__(self, nodes: int = 1, processes: int = 2, skews: Iterable[float] = ()) -> None:
        self.version = 0
        self.computed = 0
        self.functions: list[FunctionCache[Any, Any]] = []
        super().__init__(nodes, processes, skews=skews)
        self.node = self.nodes[0]

    def add_process(self, skew: float = 0.0) -> int:
        """Start one more process, and return its number."""
        number = super().add_process(skew)
        process = self.processes[number]

        def reports() -> int:
            self.computed += 1
            return self.version

        keys = KeyBuilder(reports, KeySpec(namespace=self.FUNCTION))
        policy = CachePolicy(ttl=None)
        self.functions.append(FunctionCache(lambda: process.caches, reports, policy, keys))
        return number

    def start_call(self, process: int = 0) -> Task:
        """Start a call of the function by a process."""
        return self.start(self.functions[process].value((), {}), process)

    def call(self, process: int = 0) -> Any:
        """Have a process call the function, and return what it gets."""
        return self.run(self.functions[process].value((), {}), process)

    def call_seconds(self, process: int = 0) -> float:
        """Return how long a call of a process takes."""
        return self.seconds(self.functions[process].value((), {}), process)

    def invalidate(self, process: int = 0) -> bool:
        """Change the source, have a process invalidate all, and return whether that is in force."""
        self.version += 1
        return bool(self.run(self.functions[process].invalidate_all(), process))

    def known(self, process: int = 0) -> str:
        """Return the generation that a process knows of."""
        return self.processes[process].generations["reports:0"].name

    @property
    def owner(self) -> SimulatedNode:
        """Return the node of the value that is stored while nothing was invalidated."""
        return self.cluster.route(self.functions[0]._keys.key((), {}, ""))[1].backend

    @property
    def kept(self) -> list[str | None]:
        """Return the generation that each node keeps."""
        held = [node.held(self.NAME) for node in self.nodes]
        return [None if each is None else each[0][1].decode() for each in held]

    def plant(self, key: bytes, payload: Payload, nodes: Iterable[SimulatedNode]) -> None:
        """Put something under a key of some nodes."""
        for node in nodes:
            node.store.execute(Set(key, payload))
