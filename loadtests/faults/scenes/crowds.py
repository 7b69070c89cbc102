"""Many reads among stopped and dying nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from faults.chaos import Chaos, process_faults
from faults.findings import Finding, at_least, none, shown
from faults.stage import Stage

SEED: Final = 5
EVERY: Final = (0.5, 1.5)  # seconds between two faults
CALL: Final = 0.25  # seconds; of a batch, while workers wait for the processor


def read(stage: Stage) -> Iterator[Finding]:
    """Read five million keys while nodes are stopped and killed (C1)."""
    wanted = 150_000 if stage.quick else 5_000_000
    subject = f"faults.reading:Reading{'Threads' if stage.crew.blocking else 'Tasks'}"
    every = (0.05, 0.1) if stage.quick else EVERY
    with stage.play(subject=subject, timeout=CALL) as play:
        with Chaos(process_faults(play.servers), SEED, every) as chaos:
            tally = play.actor.tell("read", wanted)
        planted = chaos.planted
    yield at_least("keys read", tally["found"], wanted)
    yield none("of another key", tally["mixed"])
    kinds = sorted(kind for kind in tally if kind.startswith("leaked: "))
    yield none(", ".join(["leaked", *kinds[:2]]), tally["leaked"])
    yield at_least("faults", sum(planted.values()), 1)
    yield shown("nodes killed, stopped", f"{planted['kill']}, {planted['stop']}")
