"""Configurations that fail, and what is shown of their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from faults.actors import acting
from faults.findings import Finding, at_least, holds, none, shown
from faults.misconfigured import Told
from faults.stage import Stage
from shardcache.testing.servers import free_port, start_memcached

FAILING: Final = 30
CALL: Final = 0.5  # seconds
LOCKED: Final = ("--requirepass", "another password")


def failing(stage: Stage) -> Iterator[Finding]:
    """Open clients with configurations that fail, and look for secrets in all they show (G1)."""
    subject = f"faults.misconfigured:{'Thread' if stage.crew.blocking else 'Task'}Misconfigured"
    with stage.serve(1) as (plain,), stage.serve(1, LOCKED) as (locked,):
        memcached = start_memcached()
        addresses = [f"{each.host}:{each.port}" for each in (plain, locked, memcached)]
        part = stage.part((*addresses, f"127.0.0.1:{free_port()}"), timeout=CALL)
        try:
            with acting(subject, part) as actor:
                notices = actor.tell("notices")
                told: Told = actor.tell("fail_all")
        finally:
            memcached.stop()
    yield holds("a secret that is shown is noticed", fact=notices)
    yield at_least("configurations that failed", told.failed, FAILING)
    yield none("configurations that show a secret", len(told.shown))
    yield shown("such configurations", ", ".join(told.shown[:3]) or "none")
