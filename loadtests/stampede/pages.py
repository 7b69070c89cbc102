"""A page of fifty items over eight nodes: what `get_or_set_many` makes of a crowd that wants it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from shardcache import Client
from shardcache.core.commands import Get, GetMany, Gets
from stampede.figures import Figures
from stampede.scenes import DELTA, Play, Stage
from stampede.workers import Cached, Part

SUBJECT = "stampede.pages:CachedPage"
NODES = 8
ITEMS = tuple(f"item:{number}" for number in range(50))

READS = (Get, GetMany, Gets)


class CachedPage(Cached):
    """`Client.get_or_set_many`; notes the fan-outs of each caller.

    A node has time enough on a machine that has other work: only a stopped one passes for silent.
    """

    TIMEOUT = 2.0

    def cached(self, part: Part) -> Any:
        """Return a function that gets the page."""
        self.client = Client(part.urls, timeout=self.TIMEOUT)
        self._counting = threading.local()
        self._fan_outs: list[int] = []
        io = self.client._io
        ask = io.call_many

        async def call_many(asks: Sequence[Any], *others: Any) -> Any:
            # After the first read, reads are looks for another's value.
            looks = all(isinstance(command, READS) for _, command in asks)
            if not (looks and getattr(self._counting, "fan_outs", 0)):
                self._counting.fan_outs = getattr(self._counting, "fan_outs", 0) + 1
            return await ask(asks, *others)

        type(io).call_many = lambda _, *arguments: call_many(*arguments)  # type: ignore[method-assign]

        def make(keys: list[str]) -> dict[str, str]:
            with ExitStack() as runs:
                names = {key: runs.enter_context(part.ledger.run(key)) for key in keys}
                time.sleep(part.seconds)
                return names

        def page(_number: int) -> dict[str, Any]:
            self._counting.fan_outs = 0
            found = self.client.get_or_set_many(ITEMS, make, **part.options)
            self._fan_outs.append(self._counting.fan_outs)
            return {"run": "whole" if found.keys() == set(ITEMS) else None}

        return page

    def fan_outs(self) -> int:
        """Return the most fan-outs of one caller so far, without its looks for others' values."""
        return max(self._fan_outs, default=0)


def _items(play: Play) -> list[str]:
    """Return the item of each run of the factory."""
    return [run.name.split(":", 3)[3] for run in play.ledger.runs()]


def missing(stage: Stage) -> Figures:
    """All callers want the page at once, and nothing is stored."""
    with stage.play(SUBJECT, nodes=NODES, options={"ttl": 60, "lock": "shard"}) as play:
        calls = play.crowd.call()
        computed = Counter(_items(play))
        batches = {(run.pid, run.name.split(":")[1]) for run in play.ledger.runs()}
        return {
            **play.figures(calls),
            "items": len(computed),
            "computed twice": sum(count > 1 for count in computed.values()),
            "calling threads": len(batches),
            "fan-outs": max(play.crowd.tell("fan_outs")),
        }


def one_gone(stage: Stage) -> Figures:
    """Stop a node first, and kill a process that computes items."""
    options = {"ttl": 60, "lock": "shard", "wait": 12.0}
    with (
        stage.play(SUBJECT, nodes=NODES, options=options) as play,
        Client(play.part.urls) as client,
    ):
        silent = client.nodes[0]
        play.servers.pause([silent])
        play.crowd.begin()
        victim = play.leader()
        time.sleep(DELTA / 2)
        victim.kill()
        calls = play.crowd.without(victim).results()
        runs = [(run.name.split(":", 3)[3], run.pid) for run in play.ledger.runs()]
        theirs = {item for item, pid in runs if pid == victim.pid}
        unaffected = {item for item in ITEMS if client.node_for(item) != silent} - theirs
        counts = Counter(item for item, pid in runs if pid != victim.pid)
        return {
            **play.figures(calls),
            "unaffected items computed twice": sum(counts[item] > 1 for item in unaffected),
            "items of the killed computed twice": sum(
                counts[item] > 1 for item in theirs if client.node_for(item) != silent
            ),
        }
