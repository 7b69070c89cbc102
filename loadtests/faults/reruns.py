"""A program that runs three event loops with one client: `python -m faults.reruns URL …`.

Started with `-W error -X dev`, so that whatever is left behind is an error.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Final

from faults.crippling import RULES, cripple
from shardcache import AsyncClient

PATIENCE: Final = 60.0  # seconds


async def use(client: AsyncClient, run: int) -> None:
    """Write and read in one run of a loop."""
    # A busy machine is slow, which the debug mode of asyncio would write to stderr.
    asyncio.get_running_loop().slow_callback_duration = PATIENCE
    keys = {f"run:{run}:{number}": number for number in range(100)}
    await asyncio.gather(*(client.set(key, value) for key, value in keys.items()))
    found = await asyncio.gather(*map(client.get, keys))
    assert found == list(keys.values()), f"run {run} read {found}"


async def end(client: AsyncClient) -> None:
    """Use it a last time, and close it."""
    await use(client, 3)
    await client.aclose()


def main() -> None:
    """Run three loops one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--without", action="append", default=[], choices=RULES)
    arguments = parser.parse_args()
    cripple(arguments.without)
    client = AsyncClient(arguments.urls, on_error="raise", timeout=5)
    asyncio.run(use(client, 1))
    asyncio.run(use(client, 2))
    asyncio.run(end(client))


if __name__ == "__main__":
    main()
