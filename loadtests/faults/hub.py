"""A program under gevent whose hub is busy now and then: `python -m faults.hub`.

It reads a pickled `Part` with the seconds of the play, and writes what came of it, pickled too.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import pickle  # noqa: E402 - what is imported before is not patched
import sys  # noqa: E402
import time  # noqa: E402
from typing import Final  # noqa: E402

import gevent  # noqa: E402

from faults.crippling import cripple  # noqa: E402
from faults.players import ThreadsPlayer  # noqa: E402
from faults.values import Step  # noqa: E402

BUSY: Final = 0.6  # seconds
UNDER_WAY: Final = 100  # reads; a node takes 32 connections of one client


def read_together(player: ThreadsPlayer) -> list[gevent.Greenlet]:
    """Start reads at once, each on its own connection; return them."""
    return [
        gevent.spawn(player.call, player.books[0], player.clients[0], Step("get", number))
        for number in range(UNDER_WAY)
    ]


def work(player: ThreadsPlayer, seconds: float) -> tuple[float, float]:
    """Compute without yielding, during reads; return when that began and ended."""
    gevent.joinall(read_together(player))  # so that there are as many connections
    reads = read_together(player)
    gevent.sleep(0)
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        pass
    ended = time.monotonic()
    gevent.joinall(reads)
    return began, ended


def main() -> None:
    """Play, and keep the hub busy now and then."""
    part, count, every = pickle.load(sys.stdin.buffer)
    cripple(part.without)
    player = ThreadsPlayer(part)
    player.fill()
    player.begin()
    pauses = []
    for _ in range(count):
        time.sleep(every - BUSY)
        pauses.append(work(player, BUSY))
    time.sleep(1.0)
    sys.stdout.buffer.write(pickle.dumps((player.end(), pauses)))


if __name__ == "__main__":
    main()
