"""Random faults, one after the other; a seed draws kind, place, moment and duration."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeAlias

from shardcache.testing import FaultProxy
from shardcache.testing.servers import Server

Wait: TypeAlias = Callable[[float], bool]
Fault: TypeAlias = Callable[[random.Random, Wait], None]

LONGEST: Final = 3.0  # seconds of one fault


class Chaos:
    """Causes faults from a thread, one at a time, each undone before the next.

    Pauses between them are drawn from `every`, in seconds. `planted` counts them by name. What goes
    wrong in planting is raised when the block ends.
    """

    def __init__(
        self, faults: Mapping[str, Sequence[Fault]], seed: int, every: tuple[float, float]
    ) -> None:
        self.planted: Counter[str] = Counter()
        self._faults = faults
        self._random = random.Random(seed)
        self._every = every
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._plant_all, name="chaos", daemon=True)

    def _plant_all(self) -> None:
        names = sorted(self._faults)
        try:
            while not self._over.wait(self._random.uniform(*self._every)):
                name = self._random.choice(names)
                self.planted[name] += 1
                self._random.choice(self._faults[name])(self._random, self._over.wait)
        except Exception as error:  # noqa: BLE001 - raised in the thread that began it
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error


def process_faults(servers: Sequence[Server]) -> dict[str, list[Fault]]:
    """Return the faults of servers: they are killed and paused."""
    return {
        "kill": [_killing(server) for server in servers],
        "stop": [_stopping(server) for server in servers],
    }


def network_faults(
    servers: Sequence[Server], proxies: Sequence[FaultProxy]
) -> dict[str, list[Fault]]:
    """Return the faults of networks; their servers flap as well."""
    faults: dict[str, Callable[[FaultProxy, random.Random], None]] = {
        "slow": lambda proxy, chance: proxy.delay(chance.uniform(0.005, 0.3), "replies"),
        "drip": lambda proxy, chance: proxy.drip(chance.randint(1, 64), chance.uniform(0.005, 0.1)),
        "half-open": lambda proxy, _: proxy.half_open(),
        "cut": lambda proxy, chance: proxy.cut_after(
            chance.randrange(500), chance.choice(("rst", "fin", "stall"))
        ),
    }
    planted = {
        name: [_planting(proxy, plant) for proxy in proxies] for name, plant in faults.items()
    }
    planted["RST storm"] = [_storming(proxy) for proxy in proxies]
    planted["flap"] = [_flapping(server) for server in servers]
    return planted


def _killing(server: Server) -> Fault:
    def kill(chance: random.Random, wait: Wait) -> None:
        server.kill()
        wait(chance.uniform(0.2, LONGEST))
        server.restart()

    return kill


def _stopping(server: Server) -> Fault:
    def stop(chance: random.Random, wait: Wait) -> None:
        with _stop(server):
            wait(chance.uniform(0.2, LONGEST))

    return stop


def _flapping(server: Server) -> Fault:
    def flap(chance: random.Random, wait: Wait) -> None:
        for _ in range(chance.randint(2, 4)):
            with _stop(server):
                wait(0.3)
            if wait(0.5):
                return

    return flap


@contextmanager
def _stop(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


def _planting(proxy: FaultProxy, plant: Callable[[FaultProxy, random.Random], None]) -> Fault:
    def begin(chance: random.Random, wait: Wait) -> None:
        plant(proxy, chance)
        try:
            wait(chance.uniform(0.2, LONGEST))
        finally:
            proxy.heal()

    return begin


def _storming(proxy: FaultProxy) -> Fault:
    """Reset connections at their first reply, and dials at once, in turns."""

    def storm(chance: random.Random, wait: Wait) -> None:
        try:
            for _ in range(chance.randint(3, 10)):
                proxy.cut_after(0, "rst")
                proxy.refuse("rst")
                wait(0.05)
                proxy.heal()
                if wait(0.1):
                    return
        finally:
            proxy.heal()

    return storm
