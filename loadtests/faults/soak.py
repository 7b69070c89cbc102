"""Two processes that share six servers, of both kinds, among faults that a seed draws."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Final

from faults.actors import Actor, acting
from faults.chaos import Chaos, network_faults, process_faults
from faults.findings import Finding, none, shown
from faults.lag import LagMeter
from faults.players import Part, Report
from faults.stage import KEYS, STARTS, TASKS, THREADS
from faults.usage import Usage, growth
from faults.values import Wrong
from shardcache.testing import FaultProxy

SERVERS: Final = {"memcached": 3, "redis": 3}
CREWS: Final = (THREADS, TASKS)
RATE: Final = 500.0  # calls a second of each process
TIMEOUT: Final = 0.25  # seconds
LATE: Final = 0.2  # seconds after the timeout
DELETES: Final = 0.2  # of the writes
RECOVERY: Final = 10.0  # seconds in which all nodes should be asked again
PATIENCE: Final = 60.0  # seconds more, after which it has failed
EVERY: Final = (0.3, 1.5)  # seconds between two faults


@dataclass(frozen=True, slots=True)
class Lived:
    """What came of a soak: the faults that were planted, and the findings of each client."""

    planted: Counter[str]
    findings: dict[str, list[Finding]]

    @property
    def held(self) -> bool:
        """Return whether all did that was asked."""
        return all(finding.held for each in self.findings.values() for finding in each)

    def plain(self) -> dict[str, object]:
        """Return it as JSON has it."""
        findings = {name: list(map(asdict, each)) for name, each in self.findings.items()}
        return {"planted": dict(self.planted), "findings": findings}


def live(seconds: float, seed: int) -> Lived:
    """Call through both clients during faults for `seconds`."""
    with ExitStack() as stack:
        servers = []
        for kind, count in SERVERS.items():
            for _ in range(count):
                servers.append(STARTS[kind]())
                stack.callback(servers[-1].stop)
        proxies = [stack.enter_context(FaultProxy(server.url)) for server in servers]
        urls = tuple(proxy.url for proxy in proxies)
        meter = stack.enter_context(LagMeter())
        actors = [
            stack.enter_context(acting(crew.subject, _part(urls, crew.workers, crew.name, seed)))
            for crew in CREWS
        ]
        for actor in actors:
            actor.tell("fill")
        for actor in actors:
            actor.tell("begin")
        faults = {**process_faults(servers), **network_faults(servers, proxies)}
        samples: list[list[Usage]] = [[] for _ in actors]
        with Chaos(faults, seed, EVERY) as chaos:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(1.0)
                for actor, measured in zip(actors, samples, strict=True):
                    measured.append(actor.tell("usage"))
        recoveries = [actor.tell("wait_closed", RECOVERY) for actor in actors]
        findings = {
            crew.name: _end(actor, measured, recovery, meter)
            for crew, actor, measured, recovery in zip(
                CREWS, actors, samples, recoveries, strict=True
            )
        }
        return Lived(chaos.planted, findings)


def _part(urls: tuple[str, ...], workers: int, name: str, seed: int) -> Part:
    return Part(
        urls=urls,
        workers=workers,
        rate=RATE,
        keys=KEYS,
        timeout=TIMEOUT,
        ways=("miss", "raise"),
        deletes=DELETES,
        seed=seed,
        keeps=False,
        late=TIMEOUT + LATE,
        options={"namespace": name.replace(" ", "-")},
    )


def _end(
    actor: Actor, samples: list[Usage], recovery: float | None, meter: LagMeter
) -> list[Finding]:
    report: Report = actor.tell("end")
    actor.tell("close")
    time.sleep(0.5)
    after: Usage = actor.tell("usage")
    tally = report.tally
    calls = sum(
        count for what, count in tally.items() if what not in ("late", "leaked") and count > 0
    )
    leaks = sorted(kind for kind in tally if kind.startswith("leaked: "))
    settled = samples[len(samples) // 4 :]
    return [
        *(none(what, tally[what]) for what in Wrong),
        none(", ".join(["leaked", *leaks[:2]]), tally["leaked"]),
        shown("calls", f"{calls:,}"),
        shown("hits, misses", f"{tally['hit']:,}, {tally['miss']:,}"),
        shown("documented errors", f"{tally['failed']:,}"),
        shown("longest call", f"{report.longest * 1000:,.0f} ms of {TIMEOUT * 1000:.0f}"),
        shown(f"more than {LATE * 1000:.0f} ms late", f"{tally['late']:,}"),
        shown("times left out", f"{len(report.moments('ejected')):,}"),
        shown("all asked again after", "not yet" if recovery is None else f"{recovery:.1f} s"),
        shown("memory", f"{settled[-1].mib:.1f} MiB, {growth(settled):+.2f} MiB/min"),
        shown("descriptors", _range([sample.descriptors for sample in samples])),
        shown("threads", _range([sample.threads for sample in samples])),
        shown("after close", f"{after.descriptors} descriptors, {after.threads} threads"),
        shown("lag", f"{meter.worst * 1000:.0f} ms, crew {report.lag * 1000:.0f} ms"),
    ]


def _range(values: list[int]) -> str:
    return f"{min(values)} to {max(values)}, {values[-1]} at the end"
