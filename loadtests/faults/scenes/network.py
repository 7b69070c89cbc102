"""Networks that are slow, drip, or cut replies, and servers that take no more connections."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from faults.findings import Finding, at_least, at_most, none, within
from faults.lag import Lag
from faults.scenes.common import BACK, judge_values, warm_up
from faults.stage import RATE, TIMEOUT, Play, Stage
from shardcache import Client
from shardcache.testing import FaultProxy
from shardcache.testing.servers import Server

LATEST: Final = TIMEOUT + 0.020  # seconds within which every call is over
PROXIED: Final = 0


def slow(stage: Stage) -> Iterator[Finding]:
    """Delay the replies of one node, then more, then send a byte at a time (A7)."""
    faults: dict[str, Callable[[FaultProxy], None]] = {
        "+20 ms": lambda proxy: proxy.delay(0.020, "replies"),
        "+200 ms": lambda proxy: proxy.delay(0.200, "replies"),
        "a byte every 90 ms": lambda proxy: proxy.drip(1, 0.090, "replies"),
    }
    spans = {}
    with stage.play(proxied=True) as play:
        warm_up(play, 1.0)
        for name, plant in faults.items():
            began = time.monotonic()
            plant(play.proxies[PROXIED])
            time.sleep(3.0)
            spans[name] = (began, time.monotonic())
            play.proxies[PROXIED].heal()
            play.wait_closed(BACK)
        report = play.end()
    began, ended = spans["+20 ms"]
    ejections = [at for at in report.moments("ejected") if began <= at < ended]
    yield none("times left out at +20 ms", len(ejections))
    for name, (began, ended) in spans.items():
        longest = max(call.seconds for call in report.between(began, ended))
        yield within(f"longest call, {name}", longest, LATEST)
    yield from judge_values(report)


def cut(stage: Stage) -> Iterator[Finding]:
    """Cut replies after some bytes, in three ways; the next call must be right (A9, short)."""
    step = 8 if stage.quick else 1
    tally: Counter[str] = Counter()
    longest = 0.0
    subject = f"faults.cutting:{'Threads' if stage.crew.blocking else 'Tasks'}Caller"
    timeout = stage.seconds(TIMEOUT, 0.5)
    with stage.play(1, proxied=True, subject=subject, filled=False, timeout=timeout) as play:
        play.meter.reset()
        for operation in play.actor.tell("operations"):
            for how in ("rst", "fin", "stall"):
                for size in _places(_size(play, operation))[::step]:
                    outcome, following, seconds = _cut_once(play, operation, size, how)
                    if how == "stall" and seconds < timeout / 2:
                        continue  # it held nothing up: it began behind a reply that was shorter
                    tally.update((outcome, f"next {following}", "cases"))
                    longest = max(longest, seconds)
        play.lags.append(Lag(play.meter.worst))
    yield at_least("cases", tally["cases"], 1)
    yield none("wrong answers", tally["wrong"])
    yield none("leaked", tally["leaked"])
    yield none("next calls that were not right", tally["cases"] - tally["next right"])
    yield within("longest call", longest, LATEST)


def _size(play: Play, operation: str) -> int:
    """Return how long the reply to an operation is, on a connection as old as each will be."""
    for _ in ("miss", "raise"):
        _cut_once(play, operation, 0, "rst")
    before = play.proxies[PROXIED].received
    play.actor.tell("attempt", operation)
    return play.proxies[PROXIED].received - before


def _places(size: int) -> list[int]:
    """Return the places of cuts in a reply: after each of the first bytes, then after fewer."""
    return [*range(min(size, 8)), *range(8, size, max(1, size // 8))]


def _cut_once(play: Play, operation: str, size: int, how: str) -> tuple[str, str, float]:
    proxy = play.proxies[PROXIED]
    proxy.cut_after(size, how, connections=1)
    outcome, seconds = play.actor.tell("attempt", operation)
    following = play.actor.tell("follow")
    proxy.heal()
    play.wait_closed(BACK)
    return outcome, following, seconds


FAILING_NODES: Final = 3


def failing(stage: Stage) -> Iterator[Finding]:
    """Reset each connection to one of three nodes before its first reply, and count the attempts (E2)."""
    with stage.play(FAILING_NODES, proxied=True, timeout=stage.seconds(TIMEOUT, 0.5)) as play:
        warm_up(play, 0.5)
        before = _commands(play.servers)
        began = time.monotonic()
        play.proxies[PROXIED].cut_after(0, "rst")
        time.sleep(stage.seconds(8.0, 3.0))
        ended = time.monotonic()
        sent = [now - then for now, then in zip(_commands(play.servers), before, strict=True)]
        play.proxies[PROXIED].heal()
        back = play.wait_closed(BACK)
        report = play.end()
    seconds = ended - began
    due, its = len(report.between(began, ended)), len(report.between(began, ended, PROXIED))
    yield at_least("times left out", len(report.moments("ejected", PROXIED)), 1)
    yield at_most("attempts", sum(sent), round(1.1 * due + seconds))
    yield at_most("attempts at the failing node", sent[PROXIED], round(0.1 * its + seconds))
    yield within("asked again after", back, BACK)
    yield from judge_values(report)


def _commands(servers: Sequence[Server]) -> list[int]:
    """Return how many reads and writes each memcached has received so far."""
    with Client([server.url for server in servers], timeout=5, on_error="raise") as client:
        figures = client.stats().values()
        return [int(each.server["cmd_get"]) + int(each.server["cmd_set"]) for each in figures]


LIMITS: Final = {"memcached": ("-c", "24"), "redis": ("--maxclients", "10")}
BUSY: Final = (
    0.015  # seconds for each command, so that more connections are wanted than there may be
)
QUEUED: Final = 2.0  # seconds that a call may wait for one of them


def limited(stage: Stage) -> Iterator[Finding]:
    """Call a server that takes fewer connections than there are callers (A12)."""
    unlimited = {"memcached": ("-c", "1024"), "redis": ("--maxclients", "1024")}
    seconds = 4.0
    reports, dials = [], 0.0
    for arguments in (unlimited[stage.kind], LIMITS[stage.kind]):
        with stage.play(1, arguments=arguments, proxied=True, timeout=QUEUED) as play:
            play.proxies[PROXIED].delay(BUSY, "requests")
            began, before = time.monotonic(), play.proxies[PROXIED].accepted
            warm_up(play, seconds)
            reports.append(play.end())
            dials = (play.proxies[PROXIED].accepted - before) / (time.monotonic() - began)
    free, limited = reports
    yield none("times left out", len(limited.moments("ejected")))
    yield at_most("dials a second", dials, 20)
    share = 100 * limited.tally["hit"] / (free.tally["hit"] or RATE)
    yield at_least("hits of those without the limit", share, 50, "%")
    yield from judge_values(free, limited)
