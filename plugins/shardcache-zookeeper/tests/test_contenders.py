"""Eight contenders for one lock while servers are stopped and killed."""

from __future__ import annotations

import itertools
import random
import time

import pytest

SESSION = 3.0  # seconds, as in the fixture `url`
CONTENDERS = 8
ACQUIRES = 2_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_two_hold_a_lock_at_once(url, ensemble, start, tmp_path):
    """In two thousand acquires; and the fence of each holder is larger than the one before."""
    ledger = tmp_path / "ledger"
    processes = [start(url) for _ in range(CONTENDERS)]
    for process in processes:
        process.tell("contend", "report", ACQUIRES // CONTENDERS, SESSION, str(ledger))
    chance = random.Random(16)
    until = time.monotonic() + 60
    faults = 0
    while time.monotonic() < until and not _ended(ledger):
        faults += 1
        server = chance.choice(ensemble.servers)
        chance.choice([server.kill, server.pause])()
        time.sleep(chance.uniform(0.3, 4))
        ensemble.heal()
        time.sleep(chance.uniform(0.5, 2))
    failures = sum(process.answer() for process in processes)
    holds = sorted(tuple(map(float, line.split())) for line in ledger.read_text().splitlines())
    # The figures of this test.
    print(f"{len(holds)} acquires, {faults} faults, {failures} unavailable")  # noqa: T201
    assert faults > 3
    assert len(holds) == ACQUIRES
    doubles = [(one, other) for one, other in itertools.pairwise(holds) if other[0] < one[1]]
    assert doubles == []
    fences = [fence for _, _, fence in holds]
    assert fences == sorted(set(fences))


def _ended(ledger):
    return ledger.exists() and len(ledger.read_text().splitlines()) == ACQUIRES
