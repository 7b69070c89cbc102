"""A program under gevent whose calls its timeouts break off: `python -m faults.greenlets`.

It reads a pickled `Part`, the number of timeouts and for how long idle threads may last, and writes what came of it, pickled too.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import pickle  # noqa: E402 - what is imported before is not patched
import random  # noqa: E402
import sys  # noqa: E402
from typing import Final  # noqa: E402

import gevent  # noqa: E402

from faults.crippling import cripple  # noqa: E402
from faults.interrupting import Broken, Bystanders, Calls, DeadThreads, count_leak, settle  # noqa: E402
from faults.usage import measure_usage  # noqa: E402
from shardcache import Client  # noqa: E402

LONGEST: Final = 2e-3  # seconds until a timeout


def break_off(calls: Calls, count: int, seed: int) -> None:
    """Call again and again, and break off what is under way, as many times as asked for."""
    chance = random.Random(seed)
    for _ in range(count):
        with gevent.Timeout(chance.uniform(0, LONGEST), exception=False):
            while True:
                try:
                    calls.one(chance)
                except Exception as error:  # noqa: BLE001 - it is what is looked for
                    count_leak(calls.tally, error)
        calls.tally["interrupts"] += 1


def main() -> None:
    """Break calls off in every greenlet at once."""
    part, count, patience = pickle.load(sys.stdin.buffer)
    cripple(part.without)
    dead = DeadThreads()
    calls = Calls(Client(part.urls, timeout=part.timeout, **part.options))
    calls.fill(part)
    bystanders = Bystanders()
    before = measure_usage()
    each = -(-count // part.workers)
    gevent.joinall(
        [gevent.spawn(break_off, calls, each, seed) for seed in range(part.workers)],
        raise_error=True,
    )
    calls.tally["harmed"] = bystanders.check_all()
    calls.tally["found afterwards"] = calls.read_all()
    calls.tally["lost"] = calls.lost()
    calls.tally["dead"] = dead.count
    broken = Broken(calls.tally, before, settle(before.threads, patience))
    sys.stdout.buffer.write(pickle.dumps(broken))


if __name__ == "__main__":
    main()
