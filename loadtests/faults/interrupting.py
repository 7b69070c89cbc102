"""Calls that are broken off at any moment, and bystanders whose descriptors no call may touch."""

from __future__ import annotations

import gc
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from types import FrameType
from typing import Any, ClassVar, Final, NamedTuple

from faults.players import FILL_TIMEOUT, Part
from faults.usage import Usage, measure_usage
from shardcache import Client

SOON: Final = (2e-5, 6e-4)  # seconds from the begin of a call to its interrupt
BYSTANDERS: Final = 40  # pairs of sockets
EVERY: Final = 10  # interrupts; then one pair is replaced, so that freed numbers are taken again
KEYS: Final = tuple(f"broken:{number}" for number in range(100))
SOME: Final = 20
ENOUGH: Final = 2  # calls that hang, each for seconds
COUNTER: Final = "broken:count"


class Interrupt(BaseException):
    """What the handler of a signal raises."""


class SoftInterrupt(Exception):  # noqa: N818 - named as the other
    """The same, of a class that a careless `except` would catch: Celery's time limit is so."""


class Broken(NamedTuple):
    """What came of calls that were broken off: counts, and the resources before and after."""

    tally: Counter[str]
    before: Usage
    after: Usage


class Calls:
    """Calls of a client whose answers are known."""

    # Of either kind: an asyncio client comes with a loop that makes its calls blocking ones.
    def __init__(self, client: Any) -> None:
        self.tally: Counter[str] = Counter()
        self._client = client
        self._counted = 0
        self._calls = (self._get, self._get_many, self._incr, self._delete)

    def fill(self, part: Part) -> None:
        """Store the values, and connect."""
        with Client(part.urls, timeout=FILL_TIMEOUT, on_error="raise") as patient:
            patient.set_many({key: value_of(key) for key in KEYS})
            patient.incr(COUNTER, initial=0)
        for call in self._calls:
            call(random.Random(0))

    def one(self, chance: random.Random) -> None:
        """Make one call, and judge its answer."""
        chance.choice(self._calls)(chance)

    def read_all(self) -> int:
        """Return how many keys have their value now."""
        return sum(map(self._is_there, KEYS))

    def _is_there(self, key: str) -> bool:
        try:
            return bool(self._client.get(key) == value_of(key))
        except Exception:  # noqa: BLE001 - the next read of a connection that is out of step
            return False

    def lost(self) -> int:
        """Return how many connections are in use though no call is in progress."""
        gc.collect()
        return sum(use.busy for use in self._client.counters().pools.values())

    def _get(self, chance: random.Random) -> None:
        key = chance.choice(KEYS)
        value = self._client.get(key)
        self.tally["wrong"] += value not in (value_of(key), None)

    def _get_many(self, chance: random.Random) -> None:
        keys = chance.sample(KEYS, SOME)
        found = self._client.get_many(keys)
        self.tally["wrong"] += not found.items() <= {key: value_of(key) for key in keys}.items()

    def _incr(self, _: random.Random) -> None:
        before = self._counted
        answer = self._client.incr(COUNTER)
        if answer is not None:
            self.tally["wrong"] += not isinstance(answer, int) or answer <= before
            self._counted = max(self._counted, answer)

    def _delete(self, _: random.Random) -> None:
        self.tally["wrong"] += self._client.delete("broken:absent") is not False


def value_of(key: str) -> str:
    """Return the value of a key."""
    return f"value of {key}"


class Bystanders:
    """Sockets of this program that the client has nothing to do with."""

    def __init__(self) -> None:
        self._pairs = [_open_pair() for _ in range(BYSTANDERS)]
        self.harmed = 0

    def replace(self, place: int) -> None:
        """Close a pair and open another, under the numbers that are free now."""
        self._check(place)
        for one in self._pairs[place]:
            one.close()
        self._pairs[place] = _open_pair()

    def check_all(self) -> int:
        """Return how many pairs were closed or written to."""
        for place in range(len(self._pairs)):
            self._check(place)
        return self.harmed

    def _check(self, place: int) -> None:
        # Who closes one end leaves the end of everything to be read at the other.
        self.harmed += any(map(_has_news, self._pairs[place]))


def _open_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for one in pair:
        one.settimeout(0)
    return pair


def _has_news(one: socket.socket) -> bool:
    """Return whether there is anything to read, or the end."""
    try:
        one.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class DeadThreads:
    """Counts threads that an error ends."""

    def __init__(self) -> None:
        self.count = 0
        threading.excepthook = self._note

    def _note(self, _: Any) -> None:  # the arguments of the hook
        self.count += 1


class Interrupted:
    """The main thread of a program, whose calls signals interrupt."""

    kinds: ClassVar[tuple[type[BaseException], ...]] = (Interrupt, SoftInterrupt)

    def __init__(self, part: Part) -> None:
        self._part = part
        # Of an interrupted finalizer Python tells on stderr; what it has left is counted here.
        sys.unraisablehook = lambda _: None
        self._calls = self._open(part)
        self._armed = False
        self._next_kind = cycle(self.kinds)

    def _open(self, part: Part) -> Calls:
        return Calls(Client(part.urls, timeout=part.timeout, **part.options))

    def interrupt(self, count: int, patience: float) -> Broken:
        """Interrupt calls at random moments, as many as asked for; return what came of it.

        Threads that are idle have `patience` seconds to end.
        """
        dead, chance = DeadThreads(), random.Random(self._part.seed)
        self._calls.fill(self._part)
        bystanders = Bystanders()
        before, tally = measure_usage(), self._calls.tally
        former = signal.signal(signal.SIGALRM, self._raise)
        try:
            while tally["interrupts"] < count and tally["hung"] < ENOUGH:
                self._call_once(chance)
                if tally["interrupts"] % EVERY == 0:
                    bystanders.replace(chance.randrange(BYSTANDERS))
        finally:
            signal.signal(signal.SIGALRM, former)
        tally["harmed"] = bystanders.check_all()
        tally["found afterwards"] = self._calls.read_all()
        tally["lost"] = self._calls.lost()
        tally["dead"] = dead.count
        return Broken(tally, before, settle(before.threads, patience))

    def _call_once(self, chance: random.Random) -> None:
        try:
            try:
                self._armed = True
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(*SOON))
                self._calls.one(chance)
            finally:
                self._armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except self.kinds:
            return
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            count_leak(self._calls.tally, error)

    def _raise(self, _: int, frame: FrameType | None) -> None:
        if self._armed and self._may_interrupt(frame):
            self._calls.tally["interrupts"] += 1
            raise next(self._next_kind)

    def _may_interrupt(self, _: FrameType | None) -> bool:
        return True


def count_leak(tally: Counter[str], error: BaseException) -> None:
    """Count an error that no caller should see, and what it was."""
    tally["leaked"] += 1
    tally[f"leaked: {type(error).__name__}: {error}"] += 1


def settle(threads: int, patience: float) -> Usage:
    """Return what this process uses once it has no more threads than that, or after some seconds."""
    until = time.monotonic() + patience
    while (usage := measure_usage()).threads > threads and time.monotonic() < until:
        time.sleep(0.1)
    return usage
