"""What a leader holds on the node of its value: stubs and refresh keys, and what it leaves there."""

from __future__ import annotations

import pytest

from operations.cached_harness import RecomputeHarness
from operations.harness import MEMCACHED, ON_THE_WAY, REDIS
from shardcache.core.caching import CachePolicy
from shardcache.core.commands import Cas, Set
from shardcache.core.freshness import open_stored
from shardcache.core.leases import LockPolicy
from shardcache.core.payloads import is_abandoned
from shardcache.operations.recompute.claims import BACKING_OFF
from shardcache.operations.recompute.recompute import begin, claim_refresh

LOCK = LockPolicy(ttl=4.0)


def test_a_stub_outlives_the_ticks_of_its_node():
    """A short lease for lock nodes that count well is a longer one on a node that does not."""
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
    """Four times the ttl of the lock, and nobody else computes."""
    policy = LOCK if lock is True else lock
    harness = RecomputeHarness(processes=4, kinds=kinds, lock=policy, wait=60.0)
    harness.source.delta = 20.0
    assert harness.call_all(seconds=60.0) == [0] * 4
    assert harness.source.calls == 1
    assert harness.count("rejected") == 0


@pytest.mark.parametrize("steps", range(8))
def test_an_error_during_a_renewal_is_told_to_those_who_wait(steps):
    """The renewal has come to its end before the mark is left, or memcached would refuse that."""
    harness = RecomputeHarness(processes=1, kinds=MEMCACHED, lock="shard")
    harness.source.delta = harness.policy.locking.ttl / 3 - 0.001 + steps * ON_THE_WAY
    harness.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report"):
        harness.call(0)
    payload, _ = harness.shard.held(harness.request().name)
    assert is_abandoned(payload)


class TestClaims:
    """What one who makes a value has on its node, and what it leaves there."""

    def begin(self, harness, place=0):
        """Have a process begin, as one does that finds nothing."""
        return harness.run(begin(harness.request(place)), place)

    def held(self, harness):
        """Give what the node has in the value's place."""
        return harness.shard.held(harness.request().name)

    @pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
    def test_another_s_stub_is_left_alone(self, kinds):
        """Who did not begin first may be faster, but neither prolongs nor removes what it met."""
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
        """Its token goes with it, and a node that keeps silent for once ends nothing."""
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

    def test_a_mark_of_what_was_given_up_is_soon_gone(self):
        """It is there for those who wait now."""
        harness = RecomputeHarness(processes=1, lock="shard")
        claim = self.begin(harness)
        harness.run(claim.abandon(60.0))
        assert is_abandoned(self.held(harness)[0])
        harness.advance(2.1)
        assert self.held(harness) is None

    @pytest.fixture(params=[REDIS, MEMCACHED], ids=["redis", "memcached"])
    def grown(self, request):
        """Give a harness with a stale value, and the claim of the process that makes it anew."""
        harness = RecomputeHarness(processes=2, kinds=request.param, ttl=10.0, stale=60.0)
        harness.call(0)
        harness.advance(15.0)
        request = harness.request()
        stored = open_stored(harness.shard.held(request.name)[0])
        return harness, request, harness.run(claim_refresh(request, stored))

    def test_one_is_elected_at_a_time(self, grown):
        """Nobody else, until it is done."""
        harness, request, claim = grown
        stored = open_stored(harness.shard.held(request.name)[0])
        assert harness.run(claim_refresh(harness.request(1), stored), 1) is None
        harness.run(claim.release())
        assert harness.run(claim_refresh(harness.request(1), stored), 1) is not None

    def test_who_is_elected_stays_so(self, grown):
        """While it is renewed, also if its node keeps silent for once; and not over another's head."""
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

    def test_what_was_given_up_rests(self, grown):
        """For as long as is said; when that is for no time, the next may try at once."""
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
