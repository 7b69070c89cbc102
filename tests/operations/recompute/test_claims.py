"""What a leader holds on the node of its value: stubs and refresh keys, and what it leaves there."""

from __future__ import annotations

import pytest

from operations.cached_harness import RecomputeHarness
from operations.harness import MEMCACHED, ON_THE_WAY, REDIS
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Cas, Set
from shardcache.core.leases import LockPolicy
from shardcache.core.values.flags import is_abandoned
from shardcache.core.values.freshness import open_stored
from shardcache.operations.recompute.claims import BACKING_OFF
from shardcache.operations.recompute.recompute import begin, claim_refresh

LOCK = LockPolicy(ttl=4.0)


def test_a_lease_on_memcached_is_at_least_two_seconds():
    """A node that counts whole seconds might drop a shorter one at once."""
    harness = RecomputeHarness(processes=1, kinds=(True,), lock="shard")
    policy = CachePolicy(ttl=60.0, lock=LockPolicy(ttl=0.5))
    request = harness.request(0, policy)
    assert request.lease == 2.0
    assert RecomputeHarness(processes=1).request(harness.processes[0], policy).lease == 2.0
    fine = RecomputeHarness(processes=1)
    assert fine.request(fine.processes[0], policy).lease == 0.5


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
@pytest.mark.parametrize("lock", ["shard", True])
def test_a_slow_leader_keeps_its_claim(lock, kinds):
    """A recompute of many times the lock's ttl runs once."""
    policy = LOCK if lock is True else lock
    harness = RecomputeHarness(processes=4, kinds=kinds, lock=policy, wait=60.0)
    harness.source.delta = 20.0
    assert harness.call_all(seconds=60.0) == [0] * 4
    assert harness.source.calls == 1
    assert harness.count("rejected") == 0


@pytest.mark.parametrize("steps", range(8))
def test_an_error_during_a_renewal_leaves_a_mark(steps):
    """The renewal ends before the mark is stored, or memcached would refuse the mark."""
    harness = RecomputeHarness(processes=1, kinds=MEMCACHED, lock="shard")
    harness.source.delta = harness.policy.locking.ttl / 3 - 0.001 + steps * ON_THE_WAY
    harness.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report"):
        harness.call(0)
    payload, _ = harness.shard.held(harness.request().name)
    assert is_abandoned(payload)


class TestClaims:
    """What a leader has on the node of its value, and what it leaves there."""

    def begin(self, harness, place=0):
        """Have a process begin a recompute, as after a miss."""
        return harness.run(begin(harness.request(place)), place)

    def held(self, harness):
        """Return what the node has in the value's place."""
        return harness.shard.held(harness.request().name)

    @pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
    def test_the_stub_of_another_process_is_left_alone(self, kinds):
        """A process that did not begin first neither renews nor removes that stub."""
        harness = RecomputeHarness(processes=2, kinds=kinds, lock="shard")
        first, second = self.begin(harness, 0), self.begin(harness, 1)
        assert (first.leads, second.leads) == (True, False)
        before = self.held(harness)
        assert harness.run(second.renew(60.0), 1) is False
        harness.run(second.abandon(0.0), 1)
        harness.run(second.release(), 1)
        assert self.held(harness) == before

    @pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
    def test_a_stub_is_renewed_while_it_is_there(self, kinds):
        """Its token changes with it, and one timeout of the node ends nothing."""
        harness = RecomputeHarness(processes=1, kinds=kinds, lock="shard")
        claim = self.begin(harness)
        for _ in range(3):
            assert harness.run(claim.renew(60.0)) is True
        harness.shard.up = False
        assert harness.run(claim.renew(60.0)) is True
        harness.shard.up = True
        harness.advance(10.0)
        assert harness.run(claim.renew(60.0)) is True
        request = harness.request()
        assert harness.run(request.ask(Cas(request.name, (0, b"made"), claim.token, 60.0))) is True
        assert harness.run(claim.renew(60.0)) is False
        harness.run(claim.release())
        assert self.held(harness)[0] == (0, b"made")

    def test_the_mark_of_an_abandoned_recompute_is_soon_gone(self):
        """It is for the processes that wait now."""
        harness = RecomputeHarness(processes=1, lock="shard")
        claim = self.begin(harness)
        harness.run(claim.abandon(60.0))
        assert is_abandoned(self.held(harness)[0])
        harness.advance(2.1)
        assert self.held(harness) is None

    @pytest.fixture(params=[REDIS, MEMCACHED], ids=["redis", "memcached"])
    def grown(self, request):
        """Return a harness with a stale value, and the claim of the process that refreshes it."""
        harness = RecomputeHarness(processes=2, kinds=request.param, ttl=10.0, stale=60.0)
        harness.call(0)
        harness.advance(15.0)
        request = harness.request()
        stored = open_stored(harness.shard.held(request.name)[0])
        return harness, request, harness.run(claim_refresh(request, stored))

    def test_one_process_refreshes_at_a_time(self, grown):
        """No other process until its claim is released."""
        harness, request, claim = grown
        stored = open_stored(harness.shard.held(request.name)[0])
        assert harness.run(claim_refresh(harness.request(1), stored), 1) is None
        harness.run(claim.release())
        assert harness.run(claim_refresh(harness.request(1), stored), 1) is not None

    def test_a_refresh_claim_is_renewed(self, grown):
        """One timeout of the node ends nothing; a claim of another process is not overwritten."""
        harness, request, claim = grown
        for _ in range(3):
            assert harness.run(claim.renew(4.0)) is True
            harness.advance(2.0)
        harness.shard.up = False
        assert harness.run(claim.renew(4.0)) is True
        harness.shard.up = True
        harness.advance(1.0)
        assert harness.run(claim.renew(4.0)) is True
        harness.run(request.ask(Set(request.refresh_key, (0, b"another"), 60.0)))
        assert harness.run(claim.renew(4.0)) is False
        harness.run(claim.release())
        assert harness.shard.held(request.refresh_key)[0] == (0, b"another")

    def test_an_abandoned_refresh_backs_off(self, grown):
        """For the seconds asked; with zero the next process may try at once."""
        harness, request, claim = grown
        harness.run(claim.abandon(5.0))
        assert harness.shard.held(request.refresh_key)[0] == BACKING_OFF
        harness.advance(5.1)
        assert harness.shard.held(request.refresh_key) is None
        claim = harness.run(
            claim_refresh(request, open_stored(harness.shard.held(request.name)[0]))
        )
        harness.run(claim.abandon(0.0))
        assert harness.shard.held(request.refresh_key) is None
