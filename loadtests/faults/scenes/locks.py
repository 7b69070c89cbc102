"""A lock whose nodes are stopped while many contend for it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from faults.chaos import Chaos, Wait
from faults.findings import Finding, at_least, none, shown
from faults.stage import Stage
from shardcache.testing.servers import Server

STOPPED: Final = 2  # of five nodes
EVERY: Final = (0.3, 0.7)  # seconds from one swap to the next
CALL: Final = 0.5  # seconds


def contended(stage: Stage) -> Iterator[Finding]:
    """Contend for one lock while two of its five nodes are stopped, in turn (F1)."""
    wanted = 100 if stage.quick else 2_000
    subject = f"faults.contending:Contending{'Threads' if stage.crew.blocking else 'Tasks'}"
    with stage.play(subject=subject, filled=False, timeout=CALL) as play:
        with _stopped_in_turn(play.servers) as chaos:
            tally = play.actor.tell("contend", wanted)
        swaps = chaos.planted["swap"]
    yield at_least("acquired", tally["acquired"], wanted)
    yield none("double holders", tally["double"])
    yield none("leaked", tally["leaked"])
    yield shown("acquires that failed", f"{tally['not acquired']:,}")
    yield shown("times another node was stopped", f"{swaps:,}")


@contextmanager
def _stopped_in_turn(servers: Sequence[Server]) -> Iterator[Chaos]:
    """Keep two servers stopped; now and then the older one runs on, and another is stopped."""
    stopped = deque(servers[:STOPPED])

    def swap(chance: random.Random, _: Wait) -> None:
        other = chance.choice([server for server in servers if server not in stopped])
        stopped[0].resume()
        stopped.popleft()
        other.pause()
        stopped.append(other)

    for server in stopped:
        server.pause()
    try:
        with Chaos({"swap": [swap]}, 1, EVERY) as chaos:
            yield chaos
    finally:
        for server in stopped:
            server.resume()
