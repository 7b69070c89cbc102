"""Keys, lives, values and counts at their edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from faults.edges import LIMIT
from faults.findings import Finding, at_most, none, shown
from faults.stage import Play, Stage

PATIENT: Final = 5.0  # seconds
DELETES: Final = 300  # bytes that suffice for some


def met(stage: Stage) -> Iterator[Finding]:
    """Meet each edge on a server, and compare with a node in memory (D1 to D4)."""
    subject = f"faults.edges:{'Thread' if stage.crew.blocking else 'Task'}Edges"
    options = {"subject": subject, "filled": False, "timeout": PATIENT}
    with stage.play(1, proxied=True, query=LIMIT, **options) as play:
        for name, count in play.actor.tell("edges").items():
            yield from _meet_all(play, name, count)


def _meet_all(play: Play, subject: str, count: int) -> Iterator[Finding]:
    different, sent, refused, too_large = [], 0, 0, 0
    for place in range(count):
        play.actor.tell("prepare", subject, place)
        before = play.proxies[0].sent
        outcome = play.actor.tell("meet", subject, place)
        after = play.proxies[0].sent
        edge, expected = play.actor.tell("expect", subject, place)
        if outcome != expected:
            different.append(f"{edge}: {outcome.words}, not {expected.words}")
        if outcome.refused:
            refused += 1
            sent += after - before
        if outcome.words == "ValueTooLargeError":
            too_large += after - before
    yield none(f"{subject} that differ", len(different))
    if different:
        yield shown(f"such {subject}", "; ".join(different[:4]))
    yield shown(f"refused {subject}", f"{refused} of {count}")
    yield none(f"bytes sent for refused {subject}", sent)
    if subject == "values":  # the old value is deleted, as memcached does itself
        yield at_most("bytes sent for values too large", too_large, DELETES)
