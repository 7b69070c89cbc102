"""A cached value whose node is ejected is recomputed once, not at every call."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA
from operations.failover_harness import CAP, CachedFailoverHarness, turn_on
from operations.harness import MEMCACHED, MIXED, REDIS, closing
from operations.many_harness import KEYS, ManyHarness
from shardcache.core.commands import Incr
from shardcache.core.reserved_keys import DETOURED
from shardcache.operations.invalidation import tags
from shardcache.operations.recompute import cached_value

KINDS = {"redis": REDIS[:3], "memcached": MEMCACHED[:3], "mixed": MIXED[:3]}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def make_harness(request):
    """Return a maker of harnesses over three nodes of each kind."""

    def make(processes=2, **terms):
        return CachedFailoverHarness(processes, request.param, **terms)

    yield from closing(make)


@pytest.mark.parametrize("lock", [False, "shard", True])
def test_one_process_recomputes_it_for_all(make_harness, lock):
    """The value is stored on the stand-in, for all processes that have ejected the node."""
    harness = make_harness(3, lock=lock)
    harness.kill_home()
    harness.source.version = 7
    assert harness.call(0) == 7
    for _ in range(3):
        assert harness.call_all() == [7] * 3
    assert harness.source.calls == 1


def test_stubs_and_claims_are_where_the_value_is(make_harness):
    """So of all processes that miss it at once, one recomputes it."""
    harness = make_harness(3, lock="shard")
    harness.kill_home()
    harness.call_all()
    assert harness.source.calls == 1


def test_a_refresh_is_claimed_there_too(make_harness):
    """While one process refreshes it, the others are served the old value."""
    harness = make_harness(3, lock="shard", ttl=5.0, stale=30.0, refresh="background")
    harness.kill_home()
    harness.call_all()
    harness.advance(6.0)
    harness.source.version = 1
    assert harness.call_all() == [0, 0, 0]
    harness.advance(2 * DELTA)
    assert harness.call_all() == [1, 1, 1]
    assert harness.source.calls == 2
    names = {name for node in harness.nodes for name in node.store._entries}
    assert names == {DETOURED + b"report"}


def test_it_lives_for_a_minute_there(make_harness):
    """Whatever the function's ttl."""
    harness = make_harness(1, ttl=3600.0)
    harness.kill_home()
    harness.call()
    harness.advance(CAP - 2)
    harness.call()
    assert harness.source.calls == 1
    harness.advance(4)
    harness.call()
    assert harness.source.calls == 2


def test_a_recompute_that_outlasts_the_ejection_is_not_stored_on_the_node(make_harness):
    """Its token is the stand-in's. The next call recomputes the value on the node that is back."""
    harness = make_harness(1)
    harness.kill_home()
    task = harness.start_call()
    harness.advance(DELTA / 2)
    harness.nodes[harness.home].up = True
    harness.member(harness.home).health.restore(harness.now)
    harness.finish(task)
    assert task.result == 0
    assert harness.stored() is None
    harness.call()
    harness.call()
    assert (harness.stored(), harness.source.calls) == (0, 2)


def test_after_an_error_it_is_not_stored(make_harness):
    """The call that meets the failure calls the function; the next one stores its result."""
    harness = make_harness(1)
    home = harness.home
    harness.nodes[home].stopped = True
    calls = 0
    while not harness.ejected(home):
        harness.call()
        calls += 1
    assert harness.source.calls == calls == 3
    harness.call()
    harness.call()
    assert harness.source.calls == calls + 1


class TestTags:
    """The versions of tags on an ejected node."""

    @staticmethod
    def tag_on(harness, node):
        """Return a tag whose version a node keeps, and not the value's own node."""
        for tag in map("t{}".format, range(99)):
            if harness.cluster.home(tag)[1] is harness.member(node):
                return tag
        raise AssertionError(node)

    def call_with(self, harness, tag, process=0):
        """Have a process call for the value with a tag."""
        request = harness.request(process, tags=(tag,))
        return harness.run(cached_value.get(request), process)

    def test_they_are_kept_on_a_stand_in(self, make_harness):
        """A value with such a tag is recomputed once, and again once it is invalidated."""
        harness = make_harness(2)
        out = (harness.home + 1) % 3
        tag = self.tag_on(harness, out)
        for process in (0, 1):
            harness.kill(out, process=process)
        for _ in range(2):
            assert [self.call_with(harness, tag, process) for process in (0, 1)] == [0, 0]
        assert harness.source.calls == 1
        harness.source.version = 1
        harness.run(tags.invalidate(harness.cluster, tag))
        assert [self.call_with(harness, tag, process) for process in (0, 1)] == [1, 1]

    def test_an_invalidation_is_not_confirmed(self, make_harness):
        """The tag's own node has not got it, and may come back with the old version."""
        harness = make_harness(1)
        tag = self.tag_on(harness, 0)
        assert harness.run(tags.invalidate(harness.cluster, tag)) is True
        harness.kill(0)
        assert harness.run(tags.invalidate(harness.cluster, tag)) is False
        assert harness.member(0).refused >= 1

    def test_tags_of_results_too(self, make_harness):
        """Their log is on the stand-in as well, so a recompute can be stored."""
        harness = make_harness(1)
        out = (harness.home + 1) % 3
        tag = self.tag_on(harness, out)
        harness.kill(out)
        for _ in range(3):
            request = harness.request()
            request.result_tags = lambda _: [tag]
            assert harness.run(cached_value.get(request)) == harness.source.version
        assert harness.source.calls == 1
        harness.source.version = 1
        harness.run(tags.invalidate(harness.cluster, tag))
        request = harness.request()
        request.result_tags = lambda _: [tag]
        assert harness.run(cached_value.get(request)) == 1


class TestMany:
    """Many values at once."""

    @pytest.fixture(params=[REDIS, MEMCACHED, MIXED], ids=["redis", "memcached", "mixed"])
    def harness(self, request):
        """Return clients with a failover, one node of which is ejected."""
        harness = ManyHarness(kinds=request.param)
        for cluster in harness.clusters:
            turn_on(cluster)
        yield harness
        harness.close()

    def test_each_is_recomputed_once(self, harness):
        """Those of the ejected node too, in the same calls."""
        harness.nodes[0].up = False
        for cluster in harness.clusters:
            member = cluster.members["n0"]
            harness.loop.run(cluster.ask(member, Incr(b"k", 1)))
            assert member.health.ejected
        expected = {key: f"{key}:{harness.version}" for key in KEYS}
        for place in (0, 1, 0):
            assert harness.loop.run(harness.many(place)) == expected
        assert harness.batches == [KEYS]
