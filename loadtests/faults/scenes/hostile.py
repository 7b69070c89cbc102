"""Somebody else who writes to a node, and nodes that lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from faults.actors import acting
from faults.findings import Finding, at_least, at_most, holds, none, shown
from faults.planting import ALTERED, VALUES
from faults.stage import Stage

PATIENT: Final = 5.0  # seconds; a miss is to be one of the value's, not of a busy machine
# Those that read anything, where their rule allows it.
FORGED: Final = ("json", "pickle")


def planted(stage: Stage) -> Iterator[Finding]:
    """Alter, swap and forge what a client that signs has stored (D5)."""
    subject = f"faults.planting:{'Thread' if stage.crew.blocking else 'Task'}Planter"
    with stage.play(1, subject=subject, filled=False, timeout=PATIENT) as play:
        works = play.actor.tell("works")
        altered = play.actor.tell("alter", ALTERED[:1] if stage.quick else ALTERED)
        swapped = play.actor.tell("swap")
        forged = play.actor.tell("plant", FORGED if stage.quick else tuple(VALUES))
    yield holds("intact values are read", fact=works)
    yield at_least("bits flipped", altered["planted"], 400)
    yield none("altered payloads that were read", altered["read"])
    yield none("swapped payloads that were read", swapped["read"])
    yield none("planted payloads that were read", forged["read"])
    yield none("pickles executed", forged["executed"])
    total = altered + swapped
    yield none("leaked", total["leaked"] + forged["leaked"])
    yield none("such misses that were not counted", total["reads"] - total["counted"])


LIES: Final = 20_000
MEMORY: Final = 16  # MiB
LYING: Final = 3.0  # seconds that a lie may hold a call up


def lied_to(stage: Stage) -> Iterator[Finding]:
    """Answer with generated replies, untrue sizes and lines without end (A10)."""
    count = 500 if stage.quick else LIES
    subject = f"faults.lying:{'Thread' if stage.crew.blocking else 'Task'}Lied"
    part = stage.part((stage.kind,), timeout=LYING)  # the server that lies is its own
    with acting(subject, part) as actor:
        tally = actor.tell("hear", count)
    yield at_least("lies", tally["lies"], count)
    yield none("lies that were believed", tally["believed"])
    kinds = sorted(kind for kind in tally if kind.startswith("leaked: "))
    yield none(", ".join(["leaked", *kinds[:2]]), tally["leaked"])
    yield none("connections used after one", tally["used again"])
    yield at_most("memory", (tally["after"] - tally["before"]) / 1024, MEMORY, "MiB")
    yield shown("calls that were refused", f"{tally['refused']:,}")
