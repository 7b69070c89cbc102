"""What must hold at the end of each scenario, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from figures import Figures, Window, bursts
from scenarios import Timeline, Variant

from app.examples import EXAMPLES
from shardcache.testing import Profile

POINT: Final = 0.01  # of a rate
SLACK: Final = 0.005  # seconds by which calls may take longer than before the fault
MADE: Final = 0.97  # of the calls that are due: a fault may hold up no more
BACK: Final = 6.0  # seconds until a node is asked again: the slowest probe, and one more
LAG: Final = 0.020  # seconds late at the 99th percentile: beyond it this machine measures itself
VOID: Final = "void"
LOCKED, BY_HAND = "recomputed with the lock", "recomputed by hand"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its subject, what was measured, and whether it holds.

    `held` is `None` for a length of time on a machine that was too busy to measure one, and for
    what is only shown.
    """

    what: str
    measured: str
    held: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A run as its verdict sees it.

    The hot value takes `seconds_to_recompute` and lives for `hot_ttl` seconds. `target` is the node
    that the fault hits; `moved` and `ideal` are the share of keys that went to
    an added node, and the least that has to. `lost` are workers that ended before the run did, and
    `stopped` is when it was ended before its time, if it was.
    """

    scenario: str
    servers: str
    profile: Profile
    timeline: Timeline
    figures: Figures
    users: int
    rate: float
    variant: Variant = field(default_factory=Variant)
    seconds_to_recompute: float = 0.2
    hot_ttl: float = 5.0
    target: str = ""
    moved: float = 0.0
    ideal: float = 0.0
    lost: Sequence[str] = field(default=())
    stopped: float | None = None

    @property
    def busy(self) -> bool:
        """Return whether this machine was too busy, without any fault, to measure time."""
        lag = self.figures.lag_percentile(0.99, self.timeline.before)
        return lag is not None and lag > LAG


def judge(record: Record) -> Sequence[Check]:
    """Return every check of a record's scenario."""
    return [*_always(record), *RULES[record.scenario](record)]


def held(checks: Sequence[Check]) -> bool:
    """Return whether no check is missed."""
    return all(check.held is not False for check in checks)


# The rules, by scenario.


def _always(record: Record) -> Iterator[Check]:
    figures = record.figures
    yield _none("errors that reached a caller", figures.total("errors"))
    yield _none("values of another key", figures.total("wrong"))
    yield _none("calls that hung to the end", figures.total("hung"))
    yield Check(
        "no worker lost",
        ", ".join(record.lost) if record.lost else "none",
        not record.lost,
    )
    if record.stopped is not None:
        yield Check(
            "the run went to its end", f"it was stopped at {record.stopped:.0f} s", held=False
        )


def _steady(record: Record) -> Iterator[Check]:
    expected = 1 - record.profile.miss_ratio
    rate = record.figures.hit_rate(record.timeline.whole, kept=True)
    yield Check(
        f"hit rate within 1 point of the profile's {expected:.1%}",
        _share(rate),
        rate is not None and abs(rate - expected) <= POINT,
    )
    yield _none("writes that were not stored", record.figures.total("not stored"))
    yield _none("nodes ejected", len(record.figures.moments("ejected")))
    yield _shown_made(record, record.timeline.whole)


def _stampede(record: Record) -> Iterator[Check]:
    yield from _once_for_each_expiry(record)
    by_hand = bursts(record.figures.moments(BY_HAND), 2 * record.seconds_to_recompute)
    yield Check(
        "by hand, more than 1: there was a stampede to prevent",
        _counts(by_hand),
        bool(by_hand) and max(by_hand) > 1,
    )


def _examples(record: Record) -> Iterator[Check]:
    for name in EXAMPLES:
        requests = record.figures.total("calls", where=name.__eq__)
        failed = record.figures.total("errors", where=name.__eq__)
        yield Check(
            f"{name}: no request failed",
            f"{failed:.0f} of {requests:.0f}",
            requests > 0 and not failed,
        )
        yield from _once_for_each_expiry(record, name)


def _once_for_each_expiry(record: Record, site: str = "") -> Iterator[Check]:
    """Check the recomputes with the lock; of those of one site, if it is named."""
    moments = record.figures.moments(LOCKED, where=site or None)
    locked = bursts(moments, 2 * record.seconds_to_recompute)
    prefix = site and f"{site}: "
    yield Check(
        f"{prefix}1 recompute for each time the value was missing, with the lock",
        _counts(locked),
        bool(locked) and max(locked) == 1,
    )
    most = _most_expiries(record)
    yield Check(
        f"{prefix}the value was missing at least twice, and at most {most} times",
        f"{len(locked)} times",
        1 < len(locked) <= most,
    )


def _most_expiries(record: Record) -> int:
    """Return how often the hot value can have expired; memcached may be a second early each time."""
    least = max(record.hot_ttl - 1, record.hot_ttl / 2) + record.seconds_to_recompute
    return int(record.timeline.seconds / least) + 1


def _node_out(record: Record) -> Iterator[Check]:
    yield from _healthy(record)
    yield _no_longer(
        record,
        f"p99 of calls for the node itself, from {record.timeline.settled.begin:.1f} s",
        record.timeline.settled,
        record.target.__eq__,
    )
    yield _made(record)
    since = Window(record.timeline.fault, record.timeline.seconds)
    out = record.figures.moments("ejected", since, record.target)
    yield Check("the node is ejected", _moments(out[:1]) if out else "never", bool(out))
    # Not the event: what a client says of a node is less than what it has from it.
    serves = record.figures.first("hits", record.timeline.after, record.target)
    late = None if serves is None else serves - record.timeline.fault_end
    yield Check(
        f"the node serves hits within {BACK:g} s of its return",
        "never" if late is None else f"after {max(0.0, late):.1f} s",
        late is not None and late <= BACK,
    )
    yield _loads(record)
    gap = record.figures.lag_percentile(1.0, record.timeline.during)
    yield Check("longest time that a process stood still meanwhile", _seconds(gap), None)
    yield _hit_rates(record)


def _loads(record: Record) -> Check:
    """Check that a stand-in spares the source a second call for a key; without one, show them."""
    again = record.figures.total("loads again", record.timeline.settled)
    if record.variant.failover == "miss":
        calls = record.figures.total("loads", record.timeline.during)
        shown = f"{calls:.0f}, {again:.0f} of them for a key that had been loaded"
        return Check("calls of the source during the fault", shown, None)
    return _none("key loaded twice while its node is out", again)


def _slow_node(record: Record) -> Iterator[Check]:
    yield from _healthy(record)
    ejected = record.figures.moments("ejected")
    yield Check(
        "no node is ejected for being slow",
        _moments(ejected) if ejected else "none",
        not ejected,
    )
    slow = record.figures.percentile(0.5, record.timeline.during, record.target.__eq__)
    yield Check("median of calls to the slow node", _seconds(slow), None)


def _node_added(record: Record) -> Iterator[Check]:
    most = record.ideal + 2 * POINT
    yield Check(
        f"keys that move: at most {record.ideal:.1%} and 2 points",
        _share(record.moved),
        0 < record.moved <= most,
    )
    calls = record.figures.total("calls", record.timeline.during, record.target.__eq__)
    yield Check("the new node is asked", f"{calls:.0f} calls", calls > 0)
    yield _none("nodes ejected", len(record.figures.moments("ejected")))
    if record.variant.warm_for:
        yield _as_before(record)
    yield _hit_rates(record)


def _as_before(record: Record) -> Check:
    """Check that the hit rate is that of the time before the change."""
    before = record.figures.hit_rate(record.timeline.before, kept=True)
    during = record.figures.hit_rate(record.timeline.during, kept=True)
    return Check(
        f"hit rate after the change within 1 point of the {_share(before)} before",
        _share(during),
        before is not None and during is not None and during >= before - POINT,
    )


RULES: Final[dict[str, Callable[[Record], Iterator[Check]]]] = {
    "steady": _steady,
    "stampede": _stampede,
    "app": _stampede,
    "examples": _examples,
    "node-killed": _node_out,
    "node-stopped": _node_out,
    "node-added": _node_added,
    "slow-node": _slow_node,
}


# What rules have in common.


def _none(what: str, number: float) -> Check:
    return Check(f"no {what}", f"{number:.0f}", not number)


def _healthy(record: Record) -> Iterator[Check]:
    yield _no_longer(
        record,
        "p99 of calls for the other nodes during the fault",
        record.timeline.during,
        record.target.__ne__,
    )


def _no_longer(record: Record, what: str, within: Window, where: Callable[[str], bool]) -> Check:
    """Check that calls take no longer than they did before the fault, within limits."""
    others = record.target.__ne__
    base = record.figures.percentile(0.99, record.timeline.before, others)
    measured = record.figures.percentile(0.99, within, where)
    if base is None or measured is None:
        return Check(what, "no calls", held=False)
    limit = max(2 * base, base + SLACK)
    shown = f"{_seconds(measured)} ({_seconds(base)} before)"
    return _timed(record, f"{what}: at most {_seconds(limit)}", shown, measured <= limit)


def _made(record: Record) -> Check:
    share = _share_made(record, record.timeline.during)
    what = f"calls made of those that were due: at least {MADE:.0%}"
    return _timed(record, what, _share(share), share >= MADE)


def _shown_made(record: Record, within: Window) -> Check:
    return Check("calls made of those that were due", _share(_share_made(record, within)), None)


def _share_made(record: Record, within: Window) -> float:
    made = record.figures.total("made", within)
    late = record.figures.total("not made", within)
    return made / (made + late) if made else 0.0


def _timed(record: Record, what: str, measured: str, ok: bool) -> Check:  # noqa: FBT001 - the outcome
    if record.busy:
        lag = record.figures.lag_percentile(0.99, record.timeline.before)
        return Check(what, f"{measured}; {VOID}, this process woke up {_seconds(lag)} late", None)
    return Check(what, measured, ok)


def _hit_rates(record: Record) -> Check:
    line, rate = record.timeline, record.figures.hit_rate
    shown = ", ".join(
        f"{_share(rate(within))} {when}"
        for when, within in (
            ("before", line.before),
            ("during", line.during),
            ("after", line.after),
        )
    )
    return Check("hit rate", shown, None)


def _share(share: float | None) -> str:
    return "nothing was read" if share is None else f"{share:.1%}"


def _seconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds * 1000:.3g} ms"


def _moments(moments: Sequence[float]) -> str:
    return ", ".join(f"at {moment:.1f} s" for moment in moments)


def _counts(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) if numbers else "it never was"
