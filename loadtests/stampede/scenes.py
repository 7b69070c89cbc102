"""How each case is played on real servers, and the figures that come of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from shardcache import Client, LockPolicy, Node
from stampede.counting import is_lock
from stampede.crowd import Crowd, Member, start_crowd
from stampede.figures import Figures, percentile
from stampede.ledger import Ledger
from stampede.servers import NODES, Servers, running
from stampede.workers import Call, Part, decorate, errors

CACHED = "stampede.workers:Cached"
PATIENT_CACHED = "stampede.workers:PatientCached"
ASYNC_CACHED = "stampede.workers:AsyncCached"

DELTA = 0.2  # seconds that the function under test takes
KEY = 1
LOCK = "stampede"

# Each caller reads four times a second, one after another, for two seconds.
READING = {"times": 8, "every": 0.25, "spread": 0.25}

Fault = Callable[[Servers, Sequence[Node]], None]

# Options of `cached` are of many types, hence `Any`.


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a crowd: processes, callers in each, and processes that try one lock."""

    processes: int
    callers: int
    takers: int

    @property
    def size(self) -> int:
        """Return the number of callers in all."""
        return self.processes * self.callers


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a case is played: kind of servers, size of the crowd, seconds until all must be over."""

    kind: str
    scale: Scale
    seconds: float

    @property
    def shortest_ttl(self) -> float:
        """Return the shortest time to live that a lock may have on these servers."""
        return 2.0 if self.kind == "memcached" else 0.5

    @contextmanager
    def play(
        self,
        subject: str = CACHED,
        *,
        processes: int | None = None,
        nodes: int = NODES,
        **part: Any,
    ) -> Iterator[Play]:
        """Start servers and a crowd that wants one key of them."""
        with ExitStack() as stack:
            servers = stack.enter_context(running(self.kind, nodes))
            ledger = Ledger(stack.enter_context(tempfile.NamedTemporaryFile()).name)
            part.setdefault("callers", self.scale.callers)
            whole = Part(subject=subject, urls=servers.urls, ledger=ledger, **part)
            count = processes or self.scale.processes
            crowd = stack.enter_context(start_crowd(whole, count, self.seconds))
            yield Play(servers, crowd, ledger, whole)


@dataclass(frozen=True, slots=True)
class Play:
    """Servers, and a crowd in front of them."""

    servers: Servers
    crowd: Crowd
    ledger: Ledger
    part: Part

    def nodes(self) -> Sequence[Node]:
        """Return the nodes of the key in its order of preference: first its shard, the lock's gate."""
        with Client(self.part.urls) as client:
            plain = replace(self.part, options={"ttl": 60})
            return client.nodes_for(decorate(client, plain).key_for(KEY), len(self.part.urls))

    def lock_nodes(self) -> Sequence[Node]:
        """Return the nodes of the lock, its gate first."""
        with Client(self.part.urls) as client:
            return client.lock(LOCK).nodes

    def leader(self) -> Member:
        """Wait until the function runs; return the process that runs it."""
        return self.crowd.of(self.ledger.await_runs(1)[0].pid)

    def figures(self, calls: Sequence[Call], before: int = 0) -> dict[str, float]:
        """Return the figures of a crowd; `before` runs had happened before these calls."""
        counts: dict[str, float] = {
            "recomputes": len(self.ledger.runs()) - before,
            "without a value": sum(call.run is None for call in calls),
        }
        if not calls:
            return counts
        waits = [call.wait for call in calls]
        return {
            **counts,
            "first value": min(c.ended for c in calls) - min(c.begun for c in calls),
            "p99 wait": percentile(waits, 0.99),
            "longest wait": max(waits),
        }


# Faults, by the nodes in order of preference.


def no_fault(_servers: Servers, _nodes: Sequence[Node]) -> None:
    """Leave all as it is."""


def two_killed(servers: Servers, nodes: Sequence[Node]) -> None:
    """Kill two lock nodes, not the key's own."""
    servers.kill((nodes[1], nodes[3]))


def two_stopped(servers: Servers, nodes: Sequence[Node]) -> None:
    """Stop two lock nodes, not the key's own."""
    servers.pause((nodes[1], nodes[3]))


def three_killed(servers: Servers, nodes: Sequence[Node]) -> None:
    """Kill three lock nodes, not the key's own."""
    servers.kill(nodes[1:4])


def three_stopped(servers: Servers, nodes: Sequence[Node]) -> None:
    """Stop three lock nodes, not the key's own."""
    servers.pause(nodes[1:4])


def shard_killed(servers: Servers, nodes: Sequence[Node]) -> None:
    """Kill the key's own node."""
    servers.kill(nodes[:1])


def shard_stopped(servers: Servers, nodes: Sequence[Node]) -> None:
    """Stop the key's own node."""
    servers.pause(nodes[:1])


# Crowds that ask for a missing key.


def cold(fault: Fault = no_fault, **options: Any) -> Callable[[Stage], Figures]:
    """All callers ask for the key at once."""

    def scene(stage: Stage) -> Figures:
        with stage.play(options={"ttl": 60, **options}) as play:
            fault(play.servers, play.nodes())
            with play.servers.watch_commands() as seen:
                calls = play.crowd.call()
            locks = sum(each.locks for each in seen)
            return {**play.figures(calls), "lock commands": locks, "commands": len(seen)}

    return scene


def raising(stage: Stage) -> Figures:
    """All callers ask for a value whose function raises."""
    with stage.play(fails=True, options={"ttl": 60, "lock": True}) as play:
        calls = play.crowd.call()
        return {**play.figures(calls), "got the error": errors(calls, "RefusedError")}


def never(_result: object) -> bool:
    """Be a condition that no result meets."""
    return False


def unmet(stage: Stage) -> Figures:
    """All callers ask for a value that must not be stored."""
    with stage.play(options={"ttl": 60, "lock": True, "condition": never}) as play:
        calls = play.crowd.call()
        left = sum(is_lock(key) for key in play.servers.stored())
        return {**play.figures(calls), "lock keys left": left}


def unavailable(fault: Fault) -> Callable[[Stage], Figures]:
    """Let one process after another try a lock of which too few nodes are up."""

    def scene(stage: Stage) -> Figures:
        with stage.play(callers=1, options={"ttl": 60}) as play:
            fault(play.servers, play.lock_nodes())
            # Not at once: an attempt that meets another one at the gate finds the lock held.
            tries = [member.tell("tries", LOCK, 5.0, 0.0) for member in play.crowd.members]
            return {
                "LockUnavailable": sum(outcome == "LockUnavailable" for outcome, _ in tries),
                "longest try": max(seconds for _, seconds in tries),
            }

    return scene


# Crowds that have a value.


def hit(stage: Stage) -> Figures:
    """All callers read a cached value."""
    times = 20
    with stage.play(options={"ttl": 60, "lock": True}) as play:
        play.crowd.call()
        first = len(play.ledger.runs())
        before = play.servers.count_commands()
        with play.servers.watch_commands() as seen:
            calls = play.crowd.call(times=times)
        commands = (play.servers.count_commands() - before).total()
        return {
            **play.figures(calls, first),
            "commands a hit": commands / len(calls),
            "lock commands": sum(each.locks for each in seen),
        }


def expiring(stage: Stage) -> Figures:
    """All callers read a value while it expires, and may be served stale."""
    options = {"ttl": 2, "stale": 30, "lock": True, "jitter": 0}
    with stage.play(options=options) as play:
        play.crowd.call()
        first = len(play.ledger.runs())
        return play.figures(play.crowd.call(**READING), first)


# Leaders to whom something happens.


def killed(stage: Stage) -> Figures:
    """Kill the leader while it computes."""
    ttl = stage.shortest_ttl
    options = {"ttl": 60, "lock": LockPolicy(ttl=ttl), "wait": 3 * ttl}
    with stage.play(options=options) as play:
        play.crowd.begin()
        leader = play.leader()
        time.sleep(DELTA / 2)
        leader.kill()
        died = time.monotonic()
        calls = play.crowd.without(leader).results()
        runs = play.ledger.runs()
        return {
            **play.figures(calls),
            "completed": sum(run.ended is not None for run in runs),
            "second begins": runs[1].begun - died if len(runs) > 1 else float("inf"),
        }


def stopped(stage: Stage) -> Figures:
    """Stop the leader for three times its lock's ttl while it computes, then let it run on."""
    ttl = stage.shortest_ttl
    options = {"ttl": 60, "lock": LockPolicy(ttl=ttl), "wait": 3 * ttl}
    with stage.play(options=options) as play:
        play.crowd.begin()
        leader = play.leader()
        time.sleep(DELTA / 2)
        leader.pause()
        paused = time.monotonic()
        others = play.crowd.without(leader).results()
        time.sleep(max(0.0, paused + 3 * ttl - time.monotonic()))
        leader.resume()
        late = leader.answer()
        runs = play.ledger.runs()
        mine, second = runs[0].name, runs[-1].name
        return {
            **play.figures([*others, *late]),
            "rejected stores": leader.tell("rejected"),
            "final value is the second's": leader.tell("stored", KEY) == second,
            "leader's own result": sum(call.run == mine for call in late),
            "errors": errors([*others, *late]),
        }


def slow(stage: Stage) -> Figures:
    """Let the function take four times as long as the lock lives unless it is renewed."""
    ttl = stage.shortest_ttl
    options = {"ttl": 60, "lock": LockPolicy(ttl=ttl), "wait": 6 * ttl}
    with stage.play(seconds=4 * ttl, options=options) as play:
        return play.figures(play.crowd.call())


def invalidated(stage: Stage) -> Figures:
    """Invalidate the key from another process while its value is being recomputed."""
    with stage.play(processes=2, callers=1, options={"ttl": 60, "lock": True}) as play:
        one, other = play.crowd.members
        alone = Crowd([one])
        alone.begin()
        play.ledger.await_runs(1)
        time.sleep(DELTA / 2)
        other.tell("invalidate", KEY)
        first = alone.results()
        rejected = one.tell("rejected")
        first_runs = len(play.ledger.runs())
        again = Crowd([other]).call()
        figures = play.figures([*first, *again])
        return {
            "recomputes before": first_runs,
            "recomputes after": figures["recomputes"] - first_runs,
            "rejected stores": rejected,
            "without a value": figures["without a value"],
        }


# One event loop.


def tasks(stage: Stage) -> Figures:
    """Ask for the key from 10,000 tasks of one loop at once, each with a minute to wait for it."""
    options = {"ttl": 60, "lock": True, "wait": 60}
    with stage.play(ASYNC_CACHED, processes=1, callers=10_000, options=options) as play:
        before = play.servers.count_commands()
        calls = play.crowd.call()
        reads = (play.servers.count_commands() - before)["get"]
        ended = play.ledger.runs()[0].ended or float("inf")
        return {
            **play.figures(calls),
            "shard reads": reads,  # and the few with which a lock is given back
            "woken after the value": max(call.ended for call in calls) - ended,
        }


def cancelled(stage: Stage) -> Figures:
    """Cancel the caller who came first while 1,000 others wait for what it makes."""
    options = {"ttl": 60, "lock": True}
    with stage.play(ASYNC_CACHED, processes=1, callers=1_001, options=options) as play:
        calls = play.crowd.call(cancelled=DELTA / 2)
        figures = play.figures(calls)
        return {
            "recomputes": figures["recomputes"],
            "cancelled": errors(calls, "CancelledError"),
            "got the value": sum(call.run is not None for call in calls),
        }


# The lock by itself.


def contended(fault: Fault = no_fault, subject: str = PATIENT_CACHED) -> Callable[[Stage], Figures]:
    """Let many processes try one lock at once."""

    def scene(stage: Stage) -> Figures:
        takers = stage.scale.takers
        with stage.play(subject, processes=takers, callers=1, options={"ttl": 60}) as play:
            fault(play.servers, play.lock_nodes())
            before = play.servers.count_commands()
            tries = play.crowd.tell("tries", LOCK, 30.0, play.crowd.moment())
            commands = play.servers.count_commands() - before
            return {
                "winners": sum(outcome == "won" for outcome, _ in tries),
                "losers": sum(outcome == "held" for outcome, _ in tries),
                "acquire commands": commands["set"],
                "longest try": max(seconds for _, seconds in tries),
            }

    return scene


def gate_stopped(stage: Stage) -> Figures:
    """Stop the node that is asked first, then take the lock again and again."""
    with stage.play(processes=1, callers=1, options={"ttl": 60}) as play:
        play.servers.pause(play.lock_nodes()[:1])
        (taken,) = play.crowd.tell("time_acquires", LOCK, 10)
        return {"first taking": taken[0], "longest later": max(taken[1:])}
