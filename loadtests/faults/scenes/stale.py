"""Nodes that return with their memory, after their keys were written and deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from faults.actors import Actor, acting
from faults.findings import Finding, at_least, at_most, none, shown, within
from faults.lag import Lag
from faults.scenes.common import BACK
from faults.stage import NODES, Play, Stage

KEYS: Final = 40  # of one node
LATE_KEYS: Final = 8
SHORT: Final = 0.05  # seconds; a timeout, so that a write is late while its node stays in
AFTER: Final = 0.2  # seconds from a confirmed delete until no old value may be read
MANY: Final = 20_000
BACK_AND_MORE: Final = BACK + 1.0


@contextmanager
def _writing(stage: Stage, count: int = NODES, timeout: float = 0.1) -> Iterator[Play]:
    with stage.play(count, subject=_subject(stage), filled=False, timeout=timeout) as play:
        play.meter.reset()
        yield play
        play.lags.append(Lag(play.meter.worst))


def _subject(stage: Stage) -> str:
    return f"faults.returning:{'Threads' if stage.crew.blocking else 'Tasks'}Writer"


def returned(stage: Stage) -> Iterator[Finding]:
    """Write values, stop their node, overwrite and delete them, resume the node, and read (B1)."""
    rounds = 1 if stage.quick else NODES
    old = scripts = 0
    with _writing(stage) as play:
        for place in range(rounds):
            keys = play.actor.tell("keys_on", place, KEYS, "returned")
            play.actor.tell("store", keys)
            play.servers[place].pause()
            done = play.actor.tell("overwrite", keys)
            left_out = play.actor.tell("ejected")
            play.servers[place].resume()
            back = play.wait_closed(BACK)
            old += play.actor.tell("count_old", keys)
            scripts += len(keys) - done if left_out and back is not None else 0
    yield at_least("scripts", scripts, rounds * KEYS)
    yield none("old once it is asked again", old)


def late(stage: Stage) -> Iterator[Finding]:
    """Delete keys whose writes have timed out and land later (B3)."""
    turns = 5 if stage.quick else 100
    old = deletes = 0
    with _writing(stage, 1, SHORT) as play:
        for turn in range(turns):
            key = f"late:{turn}"
            play.actor.tell("store", [key])
            play.servers[0].pause()
            play.actor.tell("store_at_once", [key, key])
            play.servers[0].resume()
            if play.actor.tell("delete", [key]) == [True]:
                deletes += 1
                time.sleep(AFTER)
                old += play.actor.tell("count_old", [key])
            play.wait_closed(BACK)
    yield at_least("deletes that were confirmed", deletes, turns / 2)
    yield none("old 200 ms after that", old)
    yield from _late_and_ejected(stage)


def _late_and_ejected(stage: Stage) -> Iterator[Finding]:
    """Time out as many writes as eject a node."""
    old = scripts = 0
    with _writing(stage, timeout=SHORT) as play:
        for place in range(1 if stage.quick else NODES):
            keys = play.actor.tell("keys_on", place, LATE_KEYS, "late")
            play.servers[place].pause()
            play.actor.tell("store_at_once", keys)
            scripts += LATE_KEYS * play.actor.tell("ejected")
            play.actor.tell("delete", keys)
            play.servers[place].resume()
            play.wait_closed(BACK)
            time.sleep(AFTER)
            old += play.actor.tell("count_old", keys)
    yield at_least("late writes to a node left out", scripts, LATE_KEYS)
    yield none("old once it is asked again", old)


def read_elsewhere(stage: Stage) -> Iterator[Finding]:
    """Do the same, and read in another process, which knows nothing of the writes (B6)."""
    found = []
    with _writing(stage) as play, acting(_subject(stage), stage.part(play.urls)) as reader:
        for place in range(1 if stage.quick else 3):
            keys = play.actor.tell("keys_on", place, KEYS, "elsewhere")
            play.actor.tell("store", keys)
            play.servers[place].pause()
            play.actor.tell("overwrite", keys)
            _read_out(reader, keys)
            time.sleep(stage.seconds(3.0, 0.5))
            play.servers[place].resume()
            found += reader.tell("watch_old", keys, BACK_AND_MORE)
    last = max(found, default=0.0)
    yield none("old after the longest wait for a probe and 1 s", sum(at > BACK for at in found))
    yield shown(
        "old before that", f"{len(found):,}, the last {last * 1000:,.0f} ms after its return"
    )


def _read_out(reader: Actor, keys: list[str]) -> None:
    """Have the other process eject the node as well."""
    while not reader.tell("ejected"):
        reader.tell("count_old", keys[:1])


def overflowed(stage: Stage) -> Iterator[Finding]:
    """Fail more writes than a client remembers."""
    with _writing(stage, 1) as play:
        keys = play.actor.tell("keys_on", 0, MANY, "overflowed")
        play.servers[0].kill()
        play.actor.tell("delete", keys[:10])
        before = play.usage()
        play.actor.tell("delete", keys)
        after = play.usage()
        events, pending = play.actor.tell("overflows"), play.actor.tell("pending")
        play.servers[0].restart()
        back = play.wait_closed(BACK)
        left = play.actor.tell("pending")
    yield at_most("memory", after.mib - before.mib, 5.0, "MiB")
    yield at_most("events", events, 1)
    yield at_least("events", events, 1)
    yield at_least("keys remembered", pending, MANY // 2)
    yield within("asked again after", back, BACK)
    yield none("keys left after that", left)
