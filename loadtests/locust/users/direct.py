"""Users that call the cache client itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, ClassVar, Final

from functions import BY_HAND, PAGES
from run import Run, current
from traffic import ABSENT, Operation

from locust import User, constant_throughput, task
from shardcache import LockError

LOCK_TTL: Final = 5.0
LOCKS: Final = 10
HUNG: Final = 2.0  # seconds that no call of the kit may take
STANDS_IN: Final = 50.0  # seconds that a stand-in keeps a value at the least

# A call returns the caller's own value, hence `Any`.


class CacheUser(User):
    """One of many users of this process's client, with a fixed rate of calls.

    A call that takes too long is followed by the next at once, and the calls that were due
    meanwhile are counted as not made: nothing hides in a user that waits.
    """

    abstract = True

    def on_start(self) -> None:
        """Begin at the pace of the run."""
        self._rate = current.plan.rate
        self._pace = constant_throughput(self._rate)
        self._due = time.perf_counter()
        self._began: float | None = None  # when the call began that is under way

    def on_stop(self) -> None:
        """Count a call that is still in progress, and the calls that it delayed."""
        now = time.perf_counter()
        self._count_not_made(now)
        if self._began is not None and now - self._began > HUNG:
            current.figures.count(current.moment(), "", "hung")

    def wait_time(self) -> float:
        """Return the seconds until the next call is due."""
        return float(self._pace(self))

    @task
    def call(self) -> None:
        """Make the next call."""
        now = time.perf_counter()
        self._count_not_made(now)
        self._due = now + 1 / self._rate
        self._began = now
        current.figures.count(current.moment(), "", "made")
        self.act(current)
        self._began = None

    def _count_not_made(self, now: float) -> None:
        """Count the calls that were due but not made, at the moments they were due."""
        late = int((now - self._due) * self._rate)
        if late > 0:
            current.figures.count(current.moment_of(self._due), "", "not made", late)

    def act(self, run: Run) -> None:
        """Do what this kind of user does."""
        raise NotImplementedError

    def measure(
        self,
        call: Callable[[], Any],
        nodes: Sequence[str],
        name: str | Callable[[Any], str],
        size: int | Callable[[Any], int] = 0,
    ) -> Any:
        """Return the result of `call`, and report it to Locust and our figures; `None` on an error.

        `nodes` are those that are asked. A name or size that follows from the result is a function
        of it.
        """
        run, began, moment = current, time.perf_counter(), current.moment()
        result, error = None, None
        try:
            result = call()
        except Exception as raised:  # noqa: BLE001 - what reaches a caller is what is counted
            error = raised
        seconds = time.perf_counter() - began
        node = _node_of(nodes, run.plan.target)
        run.calls += 1
        run.figures.call(moment, node, seconds)
        if error is not None:
            run.figures.count(moment, node, "errors")
        if callable(name):
            name = name(result)
        self.environment.events.request.fire(
            request_type="cache",
            name=name,
            response_time=seconds * 1000,
            response_length=0 if error else size(result) if callable(size) else size,
            exception=error,
            context={},
        )
        return result


class TrafficUser(CacheUser):
    """A user who calls with the keys, sizes, mix and misses of the profile."""

    weight = 18

    def act(self, run: Run) -> None:
        """Make the next call of the profile's traffic."""
        operation = run.traffic.draw()
        DOES[operation.kind](self, run, operation)

    def get(self, run: Run, operation: Operation) -> None:
        """Read a key; write it again if it is gone, as applications do."""
        (key,) = operation.keys
        node, moment = run.client.node_for(key).name, run.moment()
        value = self.measure(
            lambda: run.client.get(key),
            [node],
            lambda value: "get miss" if value is None else "get hit",
            lambda value: 0 if value is None else len(value),
        )
        self._take(run, moment, node, key, value)

    def get_many(self, run: Run, operation: Operation) -> None:
        """Read a batch of keys."""
        keys, moment = operation.keys, run.moment()
        nodes = [run.client.node_for(key).name for key in keys]
        found = self.measure(
            lambda: run.client.get_many(keys),
            nodes,
            f"get_many({len(keys)})",
            lambda found: sum(map(len, found.values())),
        )
        for key, node in zip(keys, nodes, strict=True):
            self._take(run, moment, node, key, (found or {}).get(key))

    def write(self, run: Run, operation: Operation) -> None:
        """Store a value by `set`, `add` or `replace`."""
        self._store(run, operation.keys[0], operation.kind)

    def cas(self, run: Run, operation: Operation) -> None:
        """Read a value and store it again, unless another user did."""
        (key,) = operation.keys
        rank = run.keys.rank(key)
        value, ttl = run.keys.value(key, rank), run.keys.ttl(rank)

        def exchange() -> bool | None:
            _, token = run.client.gets(key)
            return None if token is None else run.client.cas(key, value, token, ttl)

        self.measure(exchange, [run.client.node_for(key).name], "cas", len(value))

    def delete(self, run: Run, operation: Operation) -> None:
        """Remove a key."""
        (key,) = operation.keys
        self.measure(lambda: run.client.delete(key), [run.client.node_for(key).name], "delete")

    def touch(self, run: Run, operation: Operation) -> None:
        """Renew the time to live of a key."""
        (key,) = operation.keys
        ttl = run.keys.ttl(run.keys.rank(key))
        node = run.client.node_for(key).name
        self.measure(lambda: run.client.touch(key, ttl), [node], "touch")

    def incr(self, run: Run, operation: Operation) -> None:
        """Count one more."""
        (key,) = operation.keys
        ttl = run.keys.ttl(run.keys.rank(key))
        node, moment = run.client.node_for(key).name, run.moment()
        count = self.measure(lambda: run.client.incr(key, initial=1, ttl=ttl), [node], "incr")
        run.figures.count(moment, node, "not stored", count is None)

    def _take(self, run: Run, moment: float, node: str, key: str, value: bytes | None) -> None:
        """Count the result of a read."""
        if value is not None:
            right = value == run.keys.value(key, run.keys.rank(key))
            run.figures.count(moment, _answering(run, node, key), "hits" if right else "wrong")
            return
        if key.startswith(ABSENT):
            run.figures.count(moment, node, "misses")
            return
        expires = run.keys.expires_within(run.keys.rank(key), run.plan.seconds)
        run.figures.count(moment, node, "expired" if expires else "misses")
        run.figures.count(moment, node, "loads")
        out = run.plan.timeline.settled
        last = run.loaded.get(key)
        if last is not None and out.has(moment) and 0 < moment - last < STANDS_IN:
            run.figures.count(moment, node, "loads again")
        self._store(run, key, "refill")
        if out.has(moment):
            run.loaded[key] = run.moment()

    def _store(self, run: Run, key: str, name: str) -> None:
        rank = run.keys.rank(key)
        value, ttl = run.keys.value(key, rank), run.keys.ttl(rank)
        node, moment = run.client.node_for(key).name, run.moment()
        store = {"add": run.client.add, "replace": run.client.replace}.get(name, run.client.set)
        stored = self.measure(lambda: store(key, value, ttl), [node], name, len(value))
        if name in {"set", "refill"}:
            run.figures.count(moment, node, "not stored", not stored)


DOES: Final[dict[str, Callable[[TrafficUser, Run, Operation], None]]] = {
    "get": TrafficUser.get,
    "get_many": TrafficUser.get_many,
    "set": TrafficUser.write,
    "add": TrafficUser.write,
    "replace": TrafficUser.write,
    "cas": TrafficUser.cas,
    "delete": TrafficUser.delete,
    "touch": TrafficUser.touch,
    "incr": TrafficUser.incr,
}


class CachedUser(CacheUser):
    """A user of a function behind `cached(lock=True)`, which returns one of fifty pages."""

    weight = 1

    def act(self, run: Run) -> None:
        """Ask for the next page."""
        self._number = (getattr(self, "_number", -1) + 1) % PAGES
        page = run.functions.page
        node = run.functions.node_of(page.key_for(self._number))
        self.measure(lambda: page(self._number), [node], "cached(lock)")


class LockUser(CacheUser):
    """A user who tries one of ten locks, and releases it."""

    weight = 1
    wanted: ClassVar = 0

    def act(self, run: Run) -> None:
        """Try the next lock."""
        LockUser.wanted = (LockUser.wanted + 1) % LOCKS
        lock = run.client.lock(f"lock:{LockUser.wanted}", ttl=LOCK_TTL)

        def hold() -> bool:
            try:
                lease = lock.try_acquire()
            except LockError:
                return False
            if lease is None:
                return False
            lease.release()
            return True

        self.measure(hold, [lock.nodes[0].name], lambda held: "lock" if held else "lock held")


class StampedeUser(CacheUser):
    """A user of the hot value: every other user reads it behind a lock, the others cache by hand."""

    _numbers = count()

    def on_start(self) -> None:
        """Choose a side."""
        super().on_start()
        self._by_hand = next(self._numbers) % 2 == 1

    def act(self, run: Run) -> None:
        """Ask for the value."""
        functions = run.functions
        if self._by_hand:
            self.measure(functions.by_hand, [functions.node_of(BY_HAND)], "by hand")
        else:
            node = functions.node_of(functions.locked.key_for())
            self.measure(functions.locked, [node], "cached(lock)")


def _node_of(nodes: Sequence[str], target: str) -> str:
    """Return the node to which a call counts: the one with the fault, if it was asked."""
    return target if target in nodes else nodes[0]


def _answering(run: Run, node: str, key: str) -> str:
    """Return the node that has answered a read: the key's own, or its stand-in if that is out."""
    if node != run.plan.target or run.plan.variant.failover == "miss":
        return node
    stand_in = run.client.stand_in_for(key)
    return node if stand_in is None else stand_in.name
