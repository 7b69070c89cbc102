"""Set and get pairs whose values name their keys, from many threads and many tasks at once.

`python loadtests/pairs.py [--pairs N]` starts three memcached and three Redis, and exits with 1
when a read returned another key's value, lost one, or raised.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from shardcache import AsyncClient, Client
from shardcache.testing.servers import start_memcached, start_redis

THREADS, TASKS, KEYS_EACH = 8, 64, 1000


@dataclass(slots=True)
class PairCounts:
    """How many pairs were written and read, and how many reads did not match."""

    pairs: int = 0
    wrong: int = 0
    lost: int = 0

    def add(self, wrote: object, read: object) -> None:
        """Compare what a writer wrote with what it then read."""
        self.pairs += 1
        self.lost += read is None
        self.wrong += read is not None and read != wrote

    @property
    def clean(self) -> bool:
        """Return whether every read matched."""
        return not self.wrong and not self.lost


def pairs_of(writer: int, count: int) -> Iterator[tuple[str, str]]:
    """Yield keys of one writer, with values that name key, writer and turn."""
    for turn in range(count):
        key = f"w{writer}:k{turn % KEYS_EACH}"
        yield key, f"{key} written by {writer} in turn {turn}"


def with_threads(urls: list[str], pairs: int) -> PairCounts:
    """Write and read the pairs from eight threads that share one client."""
    counts = [PairCounts() for _ in range(THREADS)]
    with Client(urls, timeout=10, on_error="raise") as client:

        def work(writer: int) -> None:
            for key, value in pairs_of(writer, pairs // THREADS):
                client.set(key, value)
                counts[writer].add(value, client.get(key))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return _sum(counts)


def with_tasks(urls: list[str], pairs: int) -> PairCounts:
    """Write and read the pairs from 64 tasks that share one client."""

    async def main() -> PairCounts:
        counts = [PairCounts() for _ in range(TASKS)]
        async with AsyncClient(urls, timeout=10, on_error="raise") as client:

            async def work(writer: int) -> None:
                for key, value in pairs_of(writer, pairs // TASKS):
                    await client.set(key, value)
                    counts[writer].add(value, await client.get(key))

            await asyncio.gather(*map(work, range(TASKS)))
        return _sum(counts)

    return asyncio.run(main())


def _sum(counts: list[PairCounts]) -> PairCounts:
    return PairCounts(*(sum(getattr(t, f) for t in counts) for f in ("pairs", "wrong", "lost")))


def main() -> int:
    """Run both; return 0 when nothing was wrong, lost or missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000, help="default: 1,000,000")
    wanted = parser.parse_args().pairs
    with ExitStack() as stack:
        urls = []
        for start, scheme in ((start_memcached, "memcached"), (start_redis, "redis")):
            for _ in range(3):
                server = start()
                stack.callback(server.stop)
                urls.append(f"{scheme}://{server.host}:{server.port}")
        clean = True
        for how, run in (("8 threads", with_threads), ("64 tasks", with_tasks)):
            began = time.monotonic()
            pair_counts = run(urls, wanted)
            seconds = time.monotonic() - began
            complete = pair_counts.pairs >= wanted - TASKS
            clean = clean and pair_counts.clean and complete
            print(  # noqa: T201 - the result of the command
                f"{how}: {pair_counts.pairs:,} pairs in {seconds:.0f} s:"
                f" {pair_counts.wrong} wrong, {pair_counts.lost} lost"
                + ("" if complete else ", INCOMPLETE")
            )
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
