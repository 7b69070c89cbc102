"""What a process uses: processor time, descriptors, threads, memory."""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

MIB: Final = 1024 * 1024


class Usage(NamedTuple):
    """What this process uses at a moment; `cpu` are seconds of the processor so far."""

    at: float
    cpu: float
    descriptors: int
    threads: int
    tasks: int
    mib: float


def measure_usage(tasks: int = 0) -> Usage:
    """Return what this process uses; `tasks` are those that its event loop has."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no file of ours
        pages = int(file.read().split()[1])
    return Usage(
        at=time.monotonic(),
        cpu=time.process_time(),
        descriptors=len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 - one is the listing's own
        threads=len(os.listdir("/proc/self/task")),  # noqa: PTH208 - as above
        tasks=tasks,
        mib=pages * os.sysconf("SC_PAGE_SIZE") / MIB,
    )


def growth(samples: list[Usage]) -> float:
    """Return by how many MiB a minute the memory grew: the slope of a line through all samples."""
    times = [sample.at for sample in samples]
    middle, mean = sum(times) / len(times), sum(s.mib for s in samples) / len(samples)
    spread = sum((at - middle) ** 2 for at in times)
    slope = sum((s.at - middle) * (s.mib - mean) for s in samples) / spread if spread else 0.0
    return 60 * slope
