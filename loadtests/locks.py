"""What a lock costs: acquire and release, Redlock on five Redis nodes and ZooKeeper, in one run.

`python loadtests/locks.py` needs the plugin shardcache-zookeeper, Redis and ZooKeeper. Each round
takes a lock of every provider in turn, a new name each time, and then a held lock without success.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from shardcache import Client
from shardcache.testing.servers import start_redis
from shardcache.testing.zookeeper import start_zookeeper_ensemble

ROUNDS = 1_000
WARM_UP = 50
REDIS = 5


def clients(stack: ExitStack) -> dict[str, Client]:
    """Return a client of each provider, by what it is called in the table."""
    nodes = []
    for _ in range(REDIS):
        server = start_redis()
        stack.callback(server.stop)
        nodes.append(server.url)
    ensemble = start_zookeeper_ensemble(force_sync=True)
    stack.callback(ensemble.stop)
    return {
        f"Redlock, {REDIS} Redis nodes": stack.enter_context(Client(nodes, timeout=5)),
        f"ZooKeeper, {len(ensemble.servers)} servers": stack.enter_context(
            Client(nodes, timeout=5, locks=ensemble.url)
        ),
    }


def timed(call: Callable[[], object], seconds: list[float]) -> object:
    """Return the result of a call, and append how long it took."""
    began = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - began)
    return result


def measure(providers: dict[str, Client]) -> None:
    """Print a line for each provider and call."""
    acts = ("acquire", "release", "both", "try a held one")
    seconds: dict[tuple[str, str], list[float]] = {
        (act, name): [] for act in acts for name in providers
    }
    held = {
        name: client.lock("held", ttl=3600, renew=True, max_hold=3600).acquire()
        for name, client in providers.items()
    }
    for number in range(WARM_UP + ROUNDS):
        if number == WARM_UP:
            for each in seconds.values():
                each.clear()
        for name, client in providers.items():
            lock = client.lock(f"lock {number}", ttl=10)
            lease = timed(lock.acquire, seconds["acquire", name])
            timed(lease.release, seconds["release", name])  # type: ignore[attr-defined]  # a lease
            seconds["both", name].append(
                seconds["acquire", name][-1] + seconds["release", name][-1]
            )
            timed(client.lock("held", ttl=10).try_acquire, seconds["try a held one", name])
    for (act, name), each in seconds.items():
        each.sort()
        print(  # noqa: T201 - its purpose
            f"{act:15} {name:22} median {each[len(each) // 2] * 1e3:6.2f} ms"
            f"  p99 {each[len(each) * 99 // 100] * 1e3:6.2f} ms"
        )
    for lease in held.values():
        lease.release()


if __name__ == "__main__":
    with ExitStack() as running:
        measure(clients(running))
