"""Clients whose calls are cancelled, or whose process forks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import time
from collections import Counter
from typing import Any, Final

from faults.calls import Book
from faults.players import Player, TasksPlayer, ThreadsPlayer
from faults.values import Step

CROWD: Final = 100  # tasks that read at once
MOST: Final = 20
CHILD_SECONDS: Final = 20.0
HUNG: Final = Counter({"hung": 1})


class CancelledPlayer(TasksPlayer):
    """Tasks that are cancelled while they read."""

    def cancel_many(self, count: int) -> Counter[str]:
        """Cancel reading tasks at random moments, as many as asked for; return the results.

        Some have their answer before. It ends after `MOST` reads for each that is wanted.
        """
        return self.loop.run(lambda: self._cancel_many(count))

    async def _cancel_many(self, count: int) -> Counter[str]:
        book = Book(self.truth, self.nodes, keeps=False)
        chance = random.Random(self.part.seed)
        loop = asyncio.get_running_loop()
        for _ in range(MOST * count // CROWD):
            if book.tally["cancelled"] >= count:
                break
            tasks = []
            for _ in range(CROWD):
                step = Step("get", chance.randrange(self.part.keys))
                tasks.append(loop.create_task(self.call(book, self.clients[0], step)))
                loop.call_later(chance.uniform(0, 0.005), tasks[-1].cancel)
            await asyncio.wait(tasks)
            book.tally["cancelled"] += sum(task.cancelled() for task in tasks)
        return book.tally


class Forking(Player):
    """A process that forks."""

    def fork(self, children: int, calls: int) -> list[Counter[str]]:
        """Fork, and have each child read on with the same client; return the result of each."""
        begun = [_fork_one(self, calls, seed) for seed in range(children)]
        deadline = time.monotonic() + CHILD_SECONDS
        return [_await_child(child, pipe, deadline) for child, pipe in begun]


class ForkingThreads(Forking, ThreadsPlayer):
    """Forks while threads call."""


class ForkingTasks(Forking, TasksPlayer):
    """Forks while tasks call; each child has its own loop."""

    def read_all(self, numbers: list[int]) -> Counter[str]:
        """Read keys in a new event loop."""
        return asyncio.run(self._read_each(numbers))


def _fork_one(player: Any, calls: int, seed: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        chance = random.Random(seed)
        numbers = [chance.randrange(player.part.keys) for _ in range(calls)]
        tally = player.read_all(numbers)
        os.write(writing, json.dumps(tally).encode())
    finally:
        os._exit(0)


def _await_child(child: int, pipe: int, deadline: float) -> Counter[str]:
    ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
    said = os.read(pipe, 1 << 16) if ready else b""
    os.close(pipe)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Counter(json.loads(said)) if said else HUNG
