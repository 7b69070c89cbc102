"""Subjects measured in turn, A B C A B C, so that a noisy moment hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

Subject = Callable[[int], object]  # makes so many calls

FEWEST: Final = 3  # rounds; with less there is no minimum to speak of


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure of one subject; a time is in seconds a call.

    `cpu` is the CPU of this process a call, `spread` how far the median round lies above the best.
    """

    value: float
    cpu: float | None = None
    spread: float | None = None
    unit: str = "s"


Figures = Mapping[str, Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure: rounds at most, and the seconds of a case and of one round of a subject.

    Many short rounds: one that nothing else on the machine interrupts is soon among them.
    """

    rounds: int = 120
    calls: int = 1500  # of a round, at most; as many keys has each client
    seconds: float = 3.0
    slice: float = 0.01
    quick: bool = False

    def scaled(self, number: int, quick: int) -> int:
        """Return how many of something to measure with."""
        return quick if self.quick else number


FULL: Final = Plan()
QUICK: Final = Plan(rounds=1, calls=1000, seconds=0.1, slice=0.002, quick=True)


def run_interleaved(
    subjects: Mapping[str, Subject], plan: Plan, *, calls: int | None = None, step: int = 1
) -> dict[str, Figure]:
    """Run every subject once a round; return the best round of each.

    A round of a subject makes `calls` calls at most, the plan's unless given, and fewer if they take
    longer than a slice; always a multiple of `step`. The first round warms up and is not counted.
    """
    most = calls or plan.calls
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}
    with settled_heap():
        counts = {name: _fit(subject, plan, most, step) for name, subject in subjects.items()}
        until = time.perf_counter() + plan.seconds
        for turn in range(plan.rounds):
            if turn >= FEWEST and time.perf_counter() > until:
                break
            for name, subject in subjects.items():
                rounds[name].append(_time(subject, counts[name]))
    return {name: _best(times) for name, times in rounds.items()}


def _fit(subject: Subject, plan: Plan, calls: int, step: int) -> int:
    """Return how many calls fit into a slice; so many have been made."""
    _time(subject, step)  # connects
    wall, _ = _time(subject, step)
    fitting = int(plan.slice / wall) // step * step
    count = max(step, min(calls // step * step, fitting))
    _time(subject, count)
    return count


@contextmanager
def settled_heap() -> Iterator[None]:
    """Leave what is there to no collection: the objects of the other clients are nobody's cost."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _time(subject: Subject, calls: int) -> tuple[float, float]:
    """Return the wall and the CPU seconds of a call."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    subject(calls)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / calls, cpu / calls


def _best(times: list[tuple[float, float]]) -> Figure:
    walls = [wall for wall, _ in times]
    best = min(walls)
    return Figure(best, min(cpu for _, cpu in times), statistics.median(walls) / best - 1)
