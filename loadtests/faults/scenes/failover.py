"""Nodes whose keys are kept by others while they are out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from faults.findings import Finding, at_least, at_most, holds, none, within
from faults.scenes.common import BACK
from faults.stage import TIMEOUT, Stage
from shardcache.core.timeouts import TTL_CAP

NODES: Final = 3
STRUCK: Final = 0  # the place of the node
KEYS: Final = 300


def loading(stage: Stage) -> Iterator[Finding]:
    """Stop one of three nodes whose values come from a source (B7)."""
    subject = f"faults.loading:Loading{'Threads' if stage.crew.blocking else 'Tasks'}"
    with stage.play(
        NODES,
        subject=subject,
        filled=False,
        keys=KEYS,
        timeout=stage.seconds(TIMEOUT, 0.5),  # a busy machine is to eject no other node
        options={"failover": "next"},
    ) as play:
        play.actor.tell("load", 1.0, STRUCK)
        play.servers[STRUCK].pause()
        play.actor.tell("eject", STRUCK)
        while_out = play.actor.tell("load", 3.0, STRUCK)
        life = play.actor.tell("longest_life", STRUCK)
        play.servers[STRUCK].resume()
        back = play.wait_closed(BACK)
        afterwards = play.actor.tell("load", 1.0, STRUCK)
    yield at_least("its keys that were loaded", while_out.keys, 1)
    yield at_most("loads of one of them in 3 s", while_out.most, 1)
    if not stage.quick:  # a busy machine has timeouts of its own
        yield none("loads of other keys", while_out.others)
    yield at_most("seconds that they live", life, TTL_CAP)
    yield holds("kept on another node", fact=life > 0)
    yield within("asked again after", back, BACK)
    yield at_most("loads of one of them after its return", afterwards.most, 1)
    yield none("values of other keys", while_out.wrong + afterwards.wrong)
