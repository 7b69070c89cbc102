"""A lock is held when a majority of the nodes says so."""

from __future__ import annotations

import pytest

from operations.harness import MIXED, LockHarness
from shardcache.core.commands import Acquire
from shardcache.core.leases import LockPolicy
from shardcache.errors import LockUnavailable
from shardcache.operations.locks.acquire import is_held

TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)


def test_held_is_what_a_majority_says():
    """It takes one round trip, changes nothing, and needs no node beyond the majority."""
    harness = LockHarness(kinds=MIXED)
    first, second, *_ = harness.processes

    def held():
        return harness.run(is_held(second.cluster, harness.NAME), second)

    assert held() is False
    hold = harness.attempt(first, POLICY)
    began = harness.now
    assert held() is True
    assert harness.now - began < 0.005
    assert harness.writes == [1] * 5
    for node in harness.nodes[3:]:
        node.stopped = True
    assert held() is True
    harness.run(hold.release(), first)
    assert held() is False
    for node in harness.nodes[3:]:
        node.resume()


def test_two_halves_are_no_holder():
    """Two attempts that share the nodes between them hold nothing."""
    harness = LockHarness()
    process = harness.process
    for place, node in enumerate(harness.nodes):
        node.store.execute(
            Acquire(harness.KEY, (256, b"two" if place < 2 else b"%d" % place), 60.0)
        )
    assert harness.run(is_held(process.cluster, harness.NAME), process) is False


@pytest.mark.parametrize(("down", "known"), [(1, True), (2, False), (3, False)])
def test_held_is_not_guessed(down, known):
    """When the failed nodes could decide, it is an error that names them."""
    harness = LockHarness()
    process = harness.process
    for node in harness.nodes[:2]:
        node.store.execute(Acquire(harness.KEY, (256, b"token"), 60.0))
    for node in harness.nodes[5 - down :]:
        node.up = False
    if known and down == 1:
        harness.nodes[1].forget()
    work = is_held(process.cluster, harness.NAME)
    if known:
        assert harness.run(work, process) is False
        return
    with pytest.raises(LockUnavailable, match=f"{down} of 5 nodes failed.*and 3 must agree"):
        harness.run(work, process)
