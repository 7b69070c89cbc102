"""The table of cases: scenes, and what is expected of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stampede import pages, peers, scenes
from stampede.figures import Bound, Figures, at_most, exactly, within
from stampede.scenes import DELTA, Scale, Stage
from stampede.servers import KINDS
from stampede.workers import Cached

TIMEOUT = Cached.TIMEOUT  # of one call to nodes
POLL = 0.125  # the longest pause between two looks of a waiter
SERVED = within("p99 wait", DELTA + POLL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table for each kind of servers.

    `bounds` may depend on the size of the crowd and on the servers; figures that it only `shows`
    are not judged. `quick_kinds` are those on which `--quick` plays it too; `seconds` are the
    watchdog's.
    """

    name: str
    scene: Callable[[Stage], Figures]
    bounds: Callable[[Stage], Sequence[Bound]] = lambda _: ()
    kinds: Sequence[str] = KINDS
    quick_kinds: Sequence[str] = ()
    seconds: float = 20.0
    shows: Sequence[Bound] = ()

    @property
    def asserted(self) -> bool:
        """Return whether anything is expected of it."""
        return not self.shows


def _once(_stage: Stage) -> Sequence[Bound]:
    return (exactly("recomputes", 1), exactly("without a value", 0))


def _cold(stage: Stage) -> Sequence[Bound]:
    # A leader acquires and releases on five nodes; each other process asks the gate once.
    return (
        *_once(stage),
        within("first value", DELTA + 0.015),
        SERVED,
        at_most("lock commands", 13 + stage.scale.processes),
    )


def _leaderless(stage: Stage) -> Sequence[Bound]:
    return (
        Bound(figure="recomputes", low=1, high=stage.scale.processes),
        exactly("without a value", 0),
        within("longest wait", DELTA + 2 * TIMEOUT),
    )


def _majority_down(stage: Stage) -> Sequence[Bound]:
    return (
        Bound(figure="recomputes", low=1, high=stage.scale.processes),
        exactly("without a value", 0),
        # The lock's share of the node timeouts comes before the function.
        within("longest wait", DELTA + 2 * TIMEOUT + POLL),
    )


def _unavailable(stage: Stage) -> Sequence[Bound]:
    return (
        exactly("LockUnavailable", stage.scale.processes),
        within("longest try", 2 * TIMEOUT),
    )


def _hit(_stage: Stage) -> Sequence[Bound]:
    return (
        exactly("recomputes", 0),
        exactly("without a value", 0),
        at_most("commands a hit", 1),
        exactly("lock commands", 0),
    )


def _killed(stage: Stage) -> Sequence[Bound]:
    return (
        exactly("recomputes", 2),
        exactly("completed", 1),
        exactly("without a value", 0),
        within("second begins", stage.shortest_ttl + POLL),
    )


def _stopped(_stage: Stage) -> Sequence[Bound]:
    return (
        exactly("recomputes", 2),
        exactly("rejected stores", 1),
        exactly("final value is the second's", 1),
        Bound(figure="leader's own result", low=1),
        exactly("errors", 0),
    )


def _raising(stage: Stage) -> Sequence[Bound]:
    return (
        Bound(figure="recomputes", low=1, high=stage.scale.processes),
        within("longest wait", 2 * DELTA + 0.2),
        exactly("got the error", stage.scale.size),
    )


def _unmet(_stage: Stage) -> Sequence[Bound]:
    return (
        exactly("without a value", 0),
        within("longest wait", 2 * DELTA + 0.2),
        exactly("lock keys left", 0),
    )


def _expiring(stage: Stage) -> Sequence[Bound]:
    # The caller who refreshes inline waits for the function, and is above the percentile.
    return (*_once(stage), within("p99 wait", 0.005))


def _tasks(stage: Stage) -> Sequence[Bound]:
    return (
        *_once(stage),
        Bound(figure="shard reads", low=1, high=99),
        within("woken after the value", 0.3),
    )


def _contended(stage: Stage) -> Sequence[Bound]:
    return (
        exactly("winners", 1),
        exactly("losers", stage.scale.takers - 1),
        at_most("acquire commands", stage.scale.takers + 10),
    )


CASES = (
    Case(
        name="control: nothing",
        scene=scenes.cold(lock=False, coalesce=False),
        bounds=lambda stage: (
            Bound(figure="recomputes", low=0.9 * stage.scale.size, high=stage.scale.size),
        ),
        quick_kinds=("redis",),
    ),
    Case(
        name="control: single flight only",
        scene=scenes.cold(lock=False),
        bounds=lambda stage: (exactly("recomputes", stage.scale.processes),),
        quick_kinds=("redis",),
    ),
    Case(
        name="cold key, all at once", scene=scenes.cold(lock=True), bounds=_cold, quick_kinds=KINDS
    ),
    Case(
        name="cold key, lease of its shard only",
        scene=scenes.cold(lock="shard"),
        bounds=lambda stage: (*_once(stage), SERVED, exactly("lock commands", 0)),
        quick_kinds=KINDS,
    ),
    Case(name="hit", scene=scenes.hit, bounds=_hit, quick_kinds=KINDS),
    Case(name="expiry with stale", scene=scenes.expiring, bounds=_expiring, quick_kinds=("redis",)),
    Case(
        name="2 of 5 lock nodes killed",
        scene=scenes.cold(scenes.two_killed, lock=True),
        bounds=lambda stage: (*_once(stage), within("first value", DELTA + 0.015), SERVED),
        quick_kinds=("memcached",),
    ),
    Case(
        name="2 of 5 lock nodes stopped",
        scene=scenes.cold(scenes.two_stopped, lock=True),
        bounds=lambda stage: (*_once(stage), within("first value", DELTA + 0.015), SERVED),
        quick_kinds=("redis",),
    ),
    Case(
        name="gate node stopped",
        scene=scenes.gate_stopped,
        bounds=lambda _: (
            Bound(figure="first taking", high=TIMEOUT + 0.02, timed=True),
            within("longest later", 0.02),
        ),
        quick_kinds=("memcached",),
    ),
    Case(
        name="3 of 5 killed: the lock",
        scene=scenes.unavailable(scenes.three_killed),
        bounds=_unavailable,
    ),
    Case(
        name="3 of 5 stopped: the lock",
        scene=scenes.unavailable(scenes.three_stopped),
        bounds=_unavailable,
        quick_kinds=("memcached",),
    ),
    Case(
        name="3 of 5 killed: the crowd",
        scene=scenes.cold(scenes.three_killed, lock=True),
        bounds=_majority_down,
    ),
    Case(
        name="3 of 5 stopped: the crowd",
        scene=scenes.cold(scenes.three_stopped, lock=True),
        bounds=_majority_down,
        quick_kinds=("redis",),
    ),
    Case(
        name="the value's shard killed",
        scene=scenes.cold(scenes.shard_killed, lock=True),
        bounds=_leaderless,
    ),
    Case(
        name="the value's shard stopped",
        scene=scenes.cold(scenes.shard_stopped, lock=True),
        bounds=_leaderless,
        quick_kinds=("memcached",),
    ),
    Case(
        name="leader killed at half time",
        scene=scenes.killed,
        bounds=_killed,
        quick_kinds=("redis",),
    ),
    Case(
        name="leader stopped for 3 ttl",
        scene=scenes.stopped,
        bounds=_stopped,
        quick_kinds=("redis",),
        seconds=30.0,
    ),
    Case(
        name="function of 4 ttl, renewed",
        scene=scenes.slow,
        bounds=_once,
        quick_kinds=("redis",),
        seconds=30.0,
    ),
    Case(
        name="recompute raises",
        scene=scenes.raising,
        bounds=_raising,
        quick_kinds=("memcached",),
    ),
    Case(name="condition is false", scene=scenes.unmet, bounds=_unmet, quick_kinds=("redis",)),
    Case(
        name="10,000 tasks in one loop",
        scene=scenes.tasks,
        bounds=_tasks,
        quick_kinds=("memcached",),
        seconds=60.0,  # the loop has work for seconds, and for many when other programs run
    ),
    Case(
        name="processes try one lock at once",
        scene=scenes.contended(),
        bounds=_contended,
        quick_kinds=("redis",),
        seconds=40.0,
    ),
    Case(
        name="the same, gate node stopped",
        scene=scenes.contended(scenes.shard_stopped, scenes.CACHED),
        bounds=lambda stage: (
            exactly("winners", 1),
            exactly("losers", stage.scale.takers - 1),
        ),
        seconds=40.0,
    ),
    Case(
        name="async leader cancelled, 1,000 wait",
        scene=scenes.cancelled,
        bounds=lambda _: (
            exactly("recomputes", 1),
            exactly("cancelled", 1),
            exactly("got the value", 1000),
        ),
        quick_kinds=("redis",),
    ),
    Case(
        name="invalidated while computed",
        scene=scenes.invalidated,
        bounds=lambda _: (
            exactly("recomputes before", 1),
            exactly("rejected stores", 1),
            exactly("recomputes after", 1),
            exactly("without a value", 0),
        ),
        quick_kinds=KINDS,
    ),
    Case(
        name="a page of 50 items, all missing",
        scene=pages.missing,
        bounds=lambda stage: (
            exactly("items", 50),
            exactly("computed twice", 0),
            exactly("recomputes", 50),
            exactly("without a value", 0),
            at_most("calling threads", 2 * stage.scale.processes),
            at_most("fan-outs", 3),
            within("p99 wait", 1.0),
        ),
        quick_kinds=KINDS,
    ),
    Case(
        name="a page, a node stopped, a process killed",
        scene=pages.one_gone,
        bounds=lambda _: (
            exactly("unaffected items computed twice", 0),
            exactly("items of the killed computed twice", 0),
            exactly("without a value", 0),
        ),
        quick_kinds=("redis",),
        seconds=30.0,
    ),
)

# The figures that are shown of other caches, which are never judged.
SHOWN = (
    *(Bound(figure=count) for count in ("recomputes", "without a value", "processes left waiting")),
    *(Bound(figure=time, timed=True) for time in ("first value", "p99 wait", "longest wait")),
    Bound(figure="commands"),
)
PEERS = tuple(
    Case(
        name=f"{what}: {peer.name}",
        scene=act.by(peer),
        kinds=peer.kinds if peer.installed else (),
        shows=SHOWN,
        seconds=30.0,
    )
    for what, act in peers.ACTS.items()
    for peer in peers.PEERS
)

FULL = Scale(processes=8, callers=25, takers=200)
QUICK = Scale(processes=4, callers=10, takers=40)
