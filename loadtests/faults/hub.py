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

from faults.crippling import cripple  # noqa: E402
from faults.players import ThreadsPlayer  # noqa: E402

BUSY: Final = 0.6  # seconds


def work(seconds: float) -> tuple[float, float]:
    """Compute for so long without giving way; return from when to when."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        pass
    return began, time.monotonic()


def main() -> None:
    """Play, and let the hub be busy now and then."""
    part, count, every = pickle.load(sys.stdin.buffer)
    cripple(part.without)
    player = ThreadsPlayer(part)
    player.fill()
    player.begin()
    pauses = []
    for _ in range(count):
        time.sleep(every - BUSY)
        pauses.append(work(BUSY))
    time.sleep(1.0)
    sys.stdout.buffer.write(pickle.dumps((player.end(), pauses)))


if __name__ == "__main__":
    main()
