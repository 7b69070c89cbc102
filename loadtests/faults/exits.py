"""A program that ends while there is still something to do: `python -m faults.exits HOW CLIENT URL …`.

It writes the moment at which its last line is over, in monotonic seconds, to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from faults.crippling import RULES, cripple
from shardcache import AsyncClient, Client

PATIENT: Final = 60.0  # seconds of a call, which no exit waits for
SHORT: Final = 0.2  # seconds
LEASE: Final = 30.0  # seconds
KEY: Final = "exit:written"
KEYS: Final = [f"exit:{number}" for number in range(20)]  # some of them on each node
VALUE: Final = "written while the program ends"

# Kept until the interpreter's very end, hence at the module's top.
_kept: list[Any] = []


def threads_in_flight(urls: Sequence[str]) -> None:
    """End while threads call, and while a lock is removed from its nodes."""
    client = Client(urls, timeout=PATIENT)
    for call in (client.get_many, *(partial(_each, act) for act in (client.get, client.incr))):
        threading.Thread(target=call, args=(KEYS,), daemon=True).start()
    with Client(urls, timeout=SHORT).lock("exit", ttl=LEASE):
        time.sleep(SHORT)


def _each(act: Callable[[str], object], keys: Sequence[str]) -> None:
    for key in keys:
        act(key)


def tasks_in_flight(urls: Sequence[str]) -> None:
    """Do the same with tasks, whose loop ends before the program."""

    async def leave() -> None:
        client = AsyncClient(urls, timeout=PATIENT)
        calls = [client.get_many(KEYS), *(client.get(key) for key in KEYS)]
        _kept.extend(asyncio.ensure_future(call) for call in calls)
        async with AsyncClient(urls, timeout=SHORT).lock("exit", ttl=LEASE):
            await asyncio.sleep(SHORT)

    asyncio.run(leave())


def handler_of_threads(urls: Sequence[str]) -> None:
    """Write in a handler of the exit that was registered before there was a client."""
    atexit.register(lambda: client.set(KEY, VALUE))
    client = Client(urls)
    client.get(KEY)


def handler_of_tasks(urls: Sequence[str]) -> None:
    """Do the same in an event loop of the handler's own."""
    atexit.register(lambda: asyncio.run(_call(client.set, KEY, VALUE)))
    client = AsyncClient(urls)
    asyncio.run(_call(client.get, KEY))


async def _call(call: Callable[..., Any], *arguments: Any) -> Any:
    return await call(*arguments)


class Session:
    """An object that calls when it is dropped, which is last of all: it refers to itself."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.me = self
        _kept.append(self)

    def __del__(self) -> None:
        """Call; there may be an answer or an error, but at once."""
        with suppress(Exception):
            self.act()


def finalizer_of_threads(urls: Sequence[str]) -> None:
    """Call from a finalizer at the interpreter's end."""
    client = Client(urls, timeout=PATIENT)
    client.get(KEY)
    Session(lambda: client.get_many(KEYS))


def finalizer_of_tasks(urls: Sequence[str]) -> None:
    """Do the same in an event loop that goes on until then."""
    client = AsyncClient(urls, timeout=PATIENT)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.get(KEY))
    Session(lambda: loop.run_until_complete(client.get_many(KEYS)))


WAYS: Final[dict[str, dict[str, Callable[[Sequence[str]], None]]]] = {
    "in-flight": {"threads": threads_in_flight, "tasks": tasks_in_flight},
    "handler": {"threads": handler_of_threads, "tasks": handler_of_tasks},
    "finalizer": {"threads": finalizer_of_threads, "tasks": finalizer_of_tasks},
}


def main() -> None:
    """Leave something to do, and end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=WAYS)
    parser.add_argument("client", choices=("threads", "tasks"))
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--without", action="append", default=[], choices=RULES)
    arguments = parser.parse_args()
    cripple(arguments.without)
    WAYS[arguments.how][arguments.client](arguments.urls)
    sys.stdout.write(f"{time.monotonic()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
