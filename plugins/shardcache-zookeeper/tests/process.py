"""A process with a client of an ensemble: `process.py LOCKS [NODES]`; obeys its stdin, line by line."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from shardcache import Client, LockLost, LockPolicy, LockTimeout, LockUnavailable


class Commands:
    """What the tests may ask of it."""

    def __init__(self, locks: str, nodes: str = "memory://a") -> None:
        self.lost: list[float] = []
        self.seconds = 0.0
        self.client = Client(nodes, locks=locks, timeout=2.0, observers=[self])
        self.lease: Any = None

    def lease_lost(self, _event: object) -> None:
        """Record when a lease was lost, as an observer."""
        self.lost.append(time.monotonic())

    def acquire(self, name: str, ttl: float, wait: float = 30.0) -> object:
        """Return the fence of the lock, once it is held."""
        self.lease = self.client.lock(name, ttl=ttl, renew=True, max_hold=3600).acquire(wait)
        return self.lease.fence

    def state(self) -> object:
        """Return what the lease tells, and how many losses were told."""
        return self.lease.valid, self.lease.lost, len(self.lost)

    def release(self) -> object:
        """Release the lease."""
        return self.lease.release()

    def write(self, database: str, text: str) -> object:
        """Write to a row unless a later holder has; return whether it was written."""
        with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
            done = connection.execute(
                "UPDATE reports SET text = ?, fence = ? WHERE id = 1 AND fence < ?",
                (text, self.lease.fence, self.lease.fence),
            )
            return done.rowcount == 1

    def crowd(self, key: str, callers: int, seconds: float, ledger: str) -> object:
        """Call a cached function from threads; return how many got a value."""
        self.seconds = seconds  # a cached function always closes over the same values

        @self.client.cached(ttl=60, namespace="crowd", key=key, lock=LockPolicy(ttl=5), wait=30)
        def compute() -> int:
            with Path(ledger).open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(self.seconds)
            return 1

        with ThreadPoolExecutor(callers) as pool:
            return sum(future.result() for future in [pool.submit(compute) for _ in range(callers)])

    def contend(self, name: str, times: int, ttl: float, ledger: str) -> object:
        """Acquire a lock many times; write down when it was held for sure, and with which fence."""
        lock = self.client.lock(name, ttl=ttl, on_lost="ignore")
        lines = []
        failures = 0
        while len(lines) < times:
            try:
                lease = lock.acquire(wait=30)
            except (LockTimeout, LockUnavailable):
                failures += 1
                time.sleep(0.05)
                continue
            begun = time.monotonic()
            valid = lease.valid
            time.sleep(0.02)  # so that servers fail while locks are held
            valid = valid and lease.valid
            ended = time.monotonic()
            if valid and lease.valid:
                lines.append(f"{begun} {ended} {lease.fence}\n")
            lease.release()
        with Path(ledger).open("a") as file:
            file.write("".join(lines))
        return failures

    def fork(self, name: str, ttl: float) -> object:
        """Take another lock in a forked child; return its fence, and whether ours lasts there."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            lease = self.client.lock(name, ttl=ttl).acquire(20)
            told = [lease.fence, self.lease.valid, self.lease.release()]
            self.client.close()
            os.write(writer, json.dumps(told).encode())
            sys.exit(0)  # with exit handlers, as programs do
        os.close(writer)
        with os.fdopen(reader) as pipe:
            return json.loads(pipe.read() or "null")

    def close(self) -> None:
        """Close the client."""
        self.client.close()


def main() -> None:
    """Obey, until the pipe is closed."""
    commands = Commands(*sys.argv[1:])
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = getattr(commands, name)(*arguments)
        except (LockTimeout, LockUnavailable, LockLost) as error:
            answer = {"error": type(error).__name__}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
