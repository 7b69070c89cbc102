"""One rule for a node that flaps and for one that pauses regularly, simulated in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from shardcache.core.health import EjectionPolicy, Health
from shardcache.errors import NodeError, NodeTimeoutError, NodeUnavailableError

TIMEOUT = 0.1  # seconds; of a call, and of a probe
PAUSE = 0.5
TICK = 0.005
SILENCE = NodeTimeoutError("did not answer in time")
REFUSED = NodeUnavailableError("cannot be reached")

FORMER = EjectionPolicy(flap_window=60.0, flap_factor=2.0, flap_limit=30.0)
Down = Callable[[float], bool]


@dataclass
class Watched:
    """What became of a node: how often and for how long it was left out, and when it came back last."""

    opens: int = 0
    out: float = 0.0
    back: float = 0.0


def flaps(now: float) -> bool:
    """Return whether a node is down that is stopped for 0.3 s of every second."""
    return now % 1.0 < 0.3


def pauses_every(seconds: float) -> Down:
    """Return whether a node is down that pauses for half a second every so often."""
    return lambda now: now > seconds and now % seconds < PAUSE


def watch(
    policy: EjectionPolicy, down: Down, seconds: float, seed: int, error: NodeError = SILENCE
) -> Watched:
    """Return what a client does with a node that it asks all the time.

    While the node is down it is silent, and a call or probe takes its timeout, or it refuses at once.
    """
    chance, health, watched = random.Random(seed), Health(policy), Watched()
    patience = TIMEOUT if error is SILENCE else 0.0
    now = 0.0
    while now < seconds or health.ejected:
        if not health.ejected:
            now += TICK
            if down(now):  # many calls are under way, and none is answered in time
                now += patience
                health.eject(error, now, chance.random())
                watched.opens += 1
            continue
        watched.out += health.due - now
        now = health.due
        began = now
        while down(now) and now - began < patience:
            now += TICK
        watched.out += now - began
        if down(now):
            health.record_probe_failure(error, now, chance.random())
        else:
            health.restore(now)
            watched.back = now
    return watched


@pytest.mark.parametrize("seed", range(50))
def test_a_flapping_node_is_ejected_at_most_six_times(seed):
    """In twenty seconds, whatever chance does to the delays."""
    assert watch(EjectionPolicy(), flaps, 20.0, seed).opens <= 6


@pytest.mark.parametrize("every", [20.0, 30.0, 50.0, 60.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_node_that_pauses_regularly_is_used_in_between(every, seed):
    """It is ejected for at most 8 % of the time: 3 % where it pauses for 2.5 %."""
    share = watch(EjectionPolicy(), pauses_every(every), 1200.0, seed).out / 1200.0
    assert share <= 0.08


@pytest.mark.parametrize("seed", range(50))
def test_a_node_that_is_killed_now_and_then_is_back_within_three_seconds(seed):
    """One of five nodes is killed every two seconds, and started again 0.3 s later."""
    chance = random.Random(seed)
    kills = [2.0 * turn for turn in range(1, 20) if chance.randrange(5) == 0]

    def killed(now: float) -> bool:
        return any(kill <= now < kill + 0.3 for kill in kills)

    watched = watch(EjectionPolicy(), killed, 40.0, seed, REFUSED)
    assert watched.back - max(kills, default=0.0) <= 0.3 + 3.0


@pytest.mark.parametrize("seed", range(50))
def test_a_node_that_crashes_every_second_is_asked_less_often(seed):
    """Each crash costs a call: at most twelve of twenty."""
    assert watch(EjectionPolicy(), flaps, 20.0, seed, REFUSED).opens <= 12


def test_the_former_rule_ejected_it_for_most_of_the_time():
    """Each ejection within a minute doubled the delay, up to 30 s: the test can tell the rules apart."""
    assert watch(FORMER, pauses_every(20.0), 1200.0, seed=1).out > 600.0
