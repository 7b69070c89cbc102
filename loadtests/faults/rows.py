"""The rows: what is played, by which crews, on which servers, and which rules of the client they guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from faults.scenes import (
    broken,
    crowds,
    edges,
    exits,
    failover,
    hostile,
    lives,
    locks,
    moving,
    network,
    outages,
    pauses,
    secrets,
    single,
    stale,
    states,
)
from faults.scenes.common import Scene
from faults.stage import (
    BOTH,
    FEW_TASKS,
    GREENLETS,
    MANY_TASKS,
    MANY_THREADS,
    RUNS,
    TASK,
    TASKS,
    THREAD,
    THREADS,
    Crew,
)

MEMCACHED: Final = ("memcached",)
REDIS: Final = ("redis",)
ALL: Final = ("memcached", "redis")
WITH_PYMEMCACHE: Final = (*ALL, "pymemcache")


@dataclass(frozen=True, slots=True)
class Guard:
    """A rule that a row guards: `figure` is missed once the rule is switched off.

    It is played by `crew` on one `kind` of servers. `--quick` plays it in the short form of the row.
    """

    rule: str
    figure: str
    crew: Crew
    kind: str = "memcached"
    quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: its name, the fault in words, and how it is played by each crew on each kind.

    `--quick` plays a short form of it if it has one. `guards` are the rules that it guards.
    """

    name: str
    fault: str
    scene: Scene
    crews: Sequence[Crew] = BOTH
    kinds: Sequence[str] = MEMCACHED
    quick: bool = False
    guards: Sequence[Guard] = ()


ROWS: Final = (
    Row(
        name="A1",
        fault="1 of 5 stopped for 8 s",
        scene=outages.stopped,
        guards=(
            Guard("ejection", "asked again after", THREADS),
            Guard("return", "asked again after", TASKS),
        ),
    ),
    Row(name="A2", fault="1 of 5 killed, back after 8 s", scene=outages.killed),
    Row(
        name="A4",
        fault="one killed every 2 s",
        scene=outages.churn,
        quick=True,
        guards=(
            Guard("return", "all asked again after", THREADS),
            Guard("matching", "of another key", TASKS, quick=True),
        ),
    ),
    Row(
        name="A5",
        fault="1 of 5 flaps, 0.3/0.7 s",
        scene=outages.flapping,
        guards=(Guard("flap-rule", "times left out", TASKS),),
    ),
    Row(
        name="A6",
        fault="all 5 stopped",
        scene=partial(outages.all_stopped, 5),
        crews=(THREAD, *BOTH),
        guards=(
            Guard("ejection", "all left out after", THREAD),
            Guard("refusal", "time spent on those out", THREAD),
        ),
    ),
    Row(
        name="A6",
        fault="3 of 5 stopped",
        scene=partial(outages.all_stopped, 3),
        crews=(THREAD, *BOTH),
    ),
    Row(
        name="A7",
        fault="slow and dripping replies",
        scene=network.slow,
        guards=(Guard("deadlines", "longest call, +200 ms", THREADS),),
    ),
    Row(
        name="A9",
        fault="replies cut",
        scene=network.cut,
        kinds=ALL,
        quick=True,
        guards=(Guard("boundaries", "next calls that were not right", THREADS, quick=True),),
    ),
    Row(
        name="E2",
        fault="1 of 3 fails each call",
        scene=network.failing,
        quick=True,
        guards=(
            Guard("restraint", "attempts at the failing node", THREADS, quick=True),
            Guard("ejection", "attempts at the failing node", TASKS, quick=True),
        ),
    ),
    Row(
        name="A10",
        fault="replies that lie",
        scene=hostile.lied_to,
        crews=(THREAD, TASK),
        kinds=ALL,
        quick=True,
        guards=(Guard("line-limit", "memory", THREAD),),
    ),
    Row(
        name="A12",
        fault="fewer connections than callers",
        scene=network.limited,
        crews=(MANY_THREADS, MANY_TASKS),
        kinds=ALL,
        guards=(Guard("limits", "times left out", MANY_THREADS),),
    ),
    Row(
        name="A13",
        fault="states of a Redis",
        scene=states.met,
        crews=(THREAD, TASK),
        kinds=REDIS,
        guards=(Guard("writable-probe", "READONLY", THREAD, "redis"),),
    ),
    Row(
        name="deadline",
        fault="data that always comes, read slowly",
        scene=single.slowly_read,
        crews=(THREAD, TASK),
        kinds=ALL,
        guards=(Guard("clock", "whole call", THREAD),),
    ),
    Row(
        name="batch",
        fault="a large reply stalls",
        scene=single.cut_in_a_batch,
        crews=(THREAD, TASK),
        kinds=ALL,
        quick=True,
        guards=(Guard("arrivals", "values kept", THREAD, "redis", quick=True),),
    ),
    Row(
        name="names",
        fault="look-ups of names hang",
        scene=single.names_hang,
        crews=(THREAD, TASK),
        quick=True,
        guards=(Guard("last-address", "stored again after the restart", TASK, quick=True),),
    ),
    Row(
        name="rights",
        fault="no right to write, then no password",
        scene=single.rights_taken,
        crews=(THREAD, TASK),
        kinds=REDIS,
        quick=True,
        guards=(
            Guard("drops", "old values read after a refused write", THREAD, "redis", quick=True),
        ),
    ),
    Row(
        name="B1",
        fault="back with its memory",
        scene=stale.returned,
        kinds=ALL,
        quick=True,
        guards=(Guard("replay", "old once it is asked again", THREADS, quick=True),),
    ),
    Row(
        name="B3",
        fault="writes that land late",
        scene=stale.late,
        kinds=ALL,
        quick=True,
        guards=(
            Guard("replay", "old once it is asked again", TASKS, quick=True),
            Guard("follow-up", "old 200 ms after that", THREADS, "redis"),
        ),
    ),
    Row(
        name="B6",
        fault="read by another process",
        scene=stale.read_elsewhere,
        kinds=ALL,
        guards=(
            Guard("replay", "old after the longest wait for a probe and 1 s", THREADS, "redis"),
        ),
    ),
    Row(
        name="overflow",
        fault="20,000 failed writes",
        scene=stale.overflowed,
        kinds=ALL,
        guards=(Guard("replay", "events", TASKS),),
    ),
    Row(
        name="B7",
        fault="1 of 3 stopped, values from a source",
        scene=failover.loading,
        kinds=ALL,
        quick=True,
        guards=(
            Guard("failover", "loads of one of them in 3 s", THREADS, quick=True),
            Guard("ttl-cap", "seconds that they live", TASKS, quick=True),
        ),
    ),
    Row(
        name="B5",
        fault="a node added, then removed",
        scene=moving.added,
        quick=True,
        guards=(Guard("warming", "least hit rate, added", THREADS, quick=True),),
    ),
    Row(name="B5", fault="a node added, then removed", scene=moving.added, kinds=REDIS),
    Row(name="B5", fault="nodes of another kind", scene=moving.replaced, kinds=ALL),
    Row(
        name="B5",
        fault="2 clients change 3 s apart",
        scene=moving.apart,
        quick=True,
        guards=(Guard("announcement", "older than acknowledged", TASKS, quick=True),),
    ),
    Row(name="B5", fault="2 clients change 3 s apart", scene=moving.apart, kinds=REDIS),
    Row(
        name="C1",
        fault="millions of reads, nodes stopped and killed",
        scene=crowds.read,
        quick=True,
        guards=(Guard("matching", "of another key", TASKS, quick=True),),
    ),
    Row(
        name="C1",
        fault="millions of reads, nodes stopped and killed",
        scene=crowds.read,
        kinds=REDIS,
        guards=(Guard("matching", "of another key", THREADS, "redis"),),
    ),
    Row(
        name="C2",
        fault="reads cancelled",
        scene=lives.cancelled,
        crews=(TASKS,),
        kinds=ALL,
        quick=True,
        guards=(Guard("discards", "of another key", TASKS, "redis", quick=True),),
    ),
    Row(
        name="C3",
        fault="calls interrupted by signals",
        scene=broken.interrupted,
        crews=(THREAD,),
        kinds=WITH_PYMEMCACHE,
        quick=True,
        guards=(Guard("aborts", "wrong answers", THREAD, "redis", quick=True),),
    ),
    Row(
        name="C3",
        fault="an event loop interrupted by signals, calls timed out",
        scene=broken.looped,
        crews=(TASK,),
        kinds=WITH_PYMEMCACHE,
        quick=True,
        guards=(Guard("aborts", "wrong answers", TASK, "redis", quick=True),),
    ),
    Row(
        name="C3",
        fault="calls broken off by gevent's timeouts",
        scene=broken.timed_out,
        crews=(GREENLETS,),
        kinds=WITH_PYMEMCACHE,
        quick=True,
        guards=(Guard("aborts", "wrong answers", GREENLETS, "redis", quick=True),),
    ),
    Row(
        name="C4",
        fault="4 children forked",
        scene=lives.forked,
        kinds=ALL,
        quick=True,
        guards=(Guard("fork-hooks", "children's reads that were not hits", THREADS, quick=True),),
    ),
    Row(
        name="C5",
        fault="3 event loops, 1 client",
        scene=lives.reused,
        crews=(TASKS,),
        kinds=ALL,
        quick=True,
        guards=(Guard("closed-loops", "exit status", TASKS, quick=True),),
    ),
    Row(
        name="C7",
        fault="the program ends with things to do",
        scene=exits.ended,
        crews=(THREAD, TASK),
        kinds=WITH_PYMEMCACHE,
        guards=(
            Guard("open-exit", "handlers' writes that did not arrive", THREAD),
            Guard("short-exit", "ends, in-flight", THREAD),
        ),
    ),
    Row(
        name="C8",
        fault="45 s among faults",
        scene=lives.lasting,
        quick=True,
        guards=(Guard("release", "memory", TASKS),),
    ),
    Row(
        name="D1-D4",
        fault="keys, lives, values and counts at their edges",
        scene=edges.met,
        crews=(THREAD, TASK),
        kinds=WITH_PYMEMCACHE,
        quick=True,
        guards=(
            Guard("key-forms", "keys that differ", THREAD, quick=True),
            Guard("dates", "lives that differ", TASK, quick=True),
            Guard("size-limit", "bytes sent for values too large", THREAD, quick=True),
        ),
    ),
    Row(
        name="D5",
        fault="bits flipped, payloads swapped, pickles planted",
        scene=hostile.planted,
        crews=(THREAD, TASK),
        kinds=ALL,
        quick=True,
        guards=(
            Guard("signatures", "pickles executed", THREAD, quick=True),
            Guard("signatures", "altered payloads that were read", TASK, "redis", quick=True),
        ),
    ),
    Row(
        name="F1",
        fault="2 of a lock's 5 nodes stopped",
        scene=locks.contended,
        crews=(THREADS, FEW_TASKS),
        kinds=ALL,
        quick=True,
        guards=(
            Guard("votes", "double holders", THREADS, quick=True),
            Guard("majority", "acquired", FEW_TASKS, "redis"),
        ),
    ),
    Row(
        name="G1",
        fault="configurations that fail",
        scene=secrets.failing,
        crews=(THREAD, TASK),
        kinds=REDIS,
        quick=True,
        guards=(
            Guard("secrecy", "configurations that show a secret", THREAD, "redis", quick=True),
        ),
    ),
    Row(
        name="L1",
        fault="the process held up",
        scene=pauses.paused,
        quick=True,
        guards=(Guard("excuses", "times left out", TASKS, quick=True),),
    ),
    Row(
        name="L1",
        fault="gevent's hub busy",
        scene=pauses.busy_hub,
        crews=(GREENLETS,),
        quick=True,
        # Not in the short form: too few calls may be under way in its two pauses.
        guards=(Guard("excuses", "times left out", GREENLETS),),
    ),
    Row(
        name="L2",
        fault="an event loop a call",
        scene=pauses.reran,
        crews=(RUNS,),
        guards=(Guard("return", "asked again after it was killed", RUNS),),
    ),
    Row(
        name="L3",
        fault="small replies behind 8 MB ones",
        scene=pauses.behind_large,
        crews=(TASKS,),
        quick=True,
        guards=(Guard("excuses", "times left out", TASKS, quick=True),),
    ),
)
