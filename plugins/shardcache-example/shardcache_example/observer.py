"""An observer: how many calls were slow, by node."""

from __future__ import annotations

from collections import Counter

from shardcache import CallFinished, Observer

SLOW = 0.05  # seconds


class SlowCalls(Observer):
    """A count of the calls that took longer than `SLOW`, by node name."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def call_finished(self, event: CallFinished) -> None:
        """Count a slow call."""
        if event.seconds > SLOW:
            self.counts[event.node.name] += 1


slow_calls = SlowCalls()  # one per process; a program may read it anywhere
