"""Somebody else who writes to a node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from faults.findings import Finding, at_least, holds, none
from faults.stage import Stage

PATIENT: Final = 5.0  # seconds; a miss is to be one of the value's, not of a busy machine
READS: Final = 2  # of each payload: alone, and in a batch


def planted(stage: Stage) -> Iterator[Finding]:
    """Alter, swap and forge what a client that signs has stored (D5)."""
    subject = f"faults.planting:{'Thread' if stage.crew.blocking else 'Task'}Planter"
    with stage.play(1, subject=subject, filled=False, timeout=PATIENT) as play:
        works = play.actor.tell("works")
        altered = play.actor.tell("alter")
        swapped = play.actor.tell("swap")
        forged = play.actor.tell("plant")
    yield holds("intact values are read", fact=works)
    yield at_least("bits flipped", altered["planted"], 1_000)
    yield none("altered payloads that were read", altered["read"])
    yield none("swapped payloads that were read", swapped["read"])
    yield none("planted payloads that were read", forged["read"])
    yield none("pickles executed", forged["executed"])
    total = altered + swapped
    yield none("leaked", total["leaked"] + forged["leaked"])
    yield none("such misses that were not counted", READS * total["planted"] - total["counted"])
