"""Subjects measured in turn, A B C A B C, so that a noisy moment hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Subject = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """The best round of one subject, in seconds per call."""

    name: str
    seconds: float

    def ratio(self, base: Timing) -> float:
        """Return how many times `base` this one takes."""
        return self.seconds / base.seconds


def run_interleaved(
    subjects: Mapping[str, Subject], *, calls: int, rounds: int
) -> dict[str, Timing]:
    """Run every subject once a round; return each one's minimum, divided by `calls`.

    A subject is a function that makes `calls` calls. The first round warms up and is not counted.
    """
    best = dict.fromkeys(subjects, float("inf"))
    for turn in range(rounds + 1):
        for name, subject in subjects.items():
            seconds = _time(subject)
            if turn:
                best[name] = min(best[name], seconds)
    return {name: Timing(name, seconds / calls) for name, seconds in best.items()}


def _time(subject: Subject) -> float:
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        subject()
        return time.perf_counter() - started
    finally:
        gc.enable()
