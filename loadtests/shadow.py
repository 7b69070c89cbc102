"""What a shadow finds, and what it costs the callers, for both clients.

`python loadtests/shadow.py` needs memcached and Redis. It plants differences between three memcached
nodes and three Redis nodes, and counts how many a client with `sample=1.0` finds. Then a client
without a shadow and one with `sample=0.01` read by turns, in one run, so that a noisy moment hits both
alike, and their medians are compared. Status 1 when less than 99 % of the differences are
found, or a median grows by more than 5 %.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from shardcache import Client, Shadow
from shardcache.testing.driving import MODES, Mode, make_client
from shardcache.testing.servers import Server, start_memcached, start_redis

KEYS = [f"user:{number}:profile" for number in range(5_000)]
WRONG = frozenset(KEYS[::10])
BATCHES = [KEYS[start : start + 100] for start in range(0, len(KEYS), 100)]
READS: dict[str, Sequence[Any]] = {"get": KEYS, "get_many": BATCHES}
KINDS = 3  # without a shadow, with one, and without one again, to show the noise
CLIENTS = 4  # of each kind
TURNS = 100
BURST = 100  # reads of one process in a turn


class Differences:
    """An observer that keeps the keys that differ."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def shadow_compared(self, event: Any) -> None:
        """Keep the key of a difference."""
        if event.outcome == "differs":
            self.keys.add(event.key.decode())


def find(mode: Mode, here: Sequence[str], there: Sequence[str]) -> bool:
    """Return whether a client of this kind finds nearly all planted differences, and no others."""
    found = Differences()
    with Client(there, timeout=10) as other:
        other.set_many({key: "wrong" if key in WRONG else "v" for key in KEYS}, ttl=600)
    client = make_client(
        mode, here, timeout=10, shadow=Shadow(there, sample=1.0, settle=0.5), observers=[found]
    )
    client.set_many(dict.fromkeys(KEYS, "v"), ttl=600)
    for batch in BATCHES:
        client.get_many(batch)
    while client.counters().shadow["waiting"]:
        time.sleep(0.1)
    counts = client.counters().shadow
    client.close()
    share = len(found.keys & WRONG) / len(WRONG)
    passed = share >= 0.99 and found.keys <= WRONG
    print(f"{mode:9} found {share:.1%} of {len(WRONG)} planted differences: {counts}")  # noqa: T201
    return passed


def cost(mode: Mode, here: Sequence[str], there: Sequence[str]) -> bool:
    """Return whether a shadow leaves the medians of this kind of client as they are.

    Each client has its own process: two kinds of ports in one would slow down both, because CPython
    specialises the code for one kind. There are a few clients of each kind, because equal processes
    differ by some per cent, as their memory lies.
    """
    passed = True
    for name in READS:
        without, with_shadow, again = medians(mode, name, here, (None, there, None) * CLIENTS)
        ratio, noise = with_shadow / without, again / without
        passed = passed and ratio <= 1.05
        print(  # noqa: T201
            f"{mode:9} {name:8} p50 {without * 1e6:6.1f} µs without a shadow,"
            f" {with_shadow * 1e6:6.1f} µs with one (×{ratio:.3f};"
            f" another without one: ×{noise:.3f})"
        )
    return passed


def medians(
    mode: Mode, name: str, here: Sequence[str], shadows: Sequence[Sequence[str] | None]
) -> list[float]:
    """Return the median seconds of a read with each of the kinds of shadow; processes read by turns."""
    context = multiprocessing.get_context("spawn")
    taken: list[list[float]] = [[] for _ in range(KINDS)]
    pipes: list[Connection] = []
    processes = []
    for shadow in shadows:
        ours, theirs = context.Pipe()
        pipes.append(ours)
        processes.append(context.Process(target=read, args=(theirs, mode, name, here, shadow)))
        processes[-1].start()
    for turn in range(TURNS):
        for step in range(len(shadows)):
            which = (turn + step) % len(shadows)
            pipes[which].send("read")
            taken[which % KINDS] += pipes[which].recv()
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send("")
        process.join()
    return [statistics.median(seconds) for seconds in taken]


def read(
    pipe: Connection, mode: Mode, name: str, here: Sequence[str], there: Sequence[str] | None
) -> None:
    """Read in its own process: a burst for each request, answered by the seconds of each read."""
    shadow = None if there is None else Shadow(there)
    client = make_client(mode, here, timeout=10, shadow=shadow)
    call, what = getattr(client, name), READS[name]
    place = 0
    while pipe.recv():
        seconds = []
        for _ in range(BURST):
            each = what[place % len(what)]
            place += 1
            began = time.perf_counter()
            call(each)
            seconds.append(time.perf_counter() - began)
        pipe.send(seconds[BURST // 10 :])  # the first ones find everything cold
    client.close()


def urls_of(stack: ExitStack, start: Callable[[], Server]) -> list[str]:
    """Start three servers, and return their URLs."""
    servers = []
    for _ in range(3):
        servers.append(start())
        stack.callback(servers[-1].stop)
    return [server.url for server in servers]


def main() -> int:
    """Print what is found and what it costs; return the exit status."""
    with ExitStack() as stack:
        here, there = urls_of(stack, start_memcached), urls_of(stack, start_redis)
        verdicts = [find(mode, here, there) for mode in MODES]
        verdicts += [cost(mode, here, there) for mode in MODES]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
