"""What the policy says of many values, what observers learn of them, and what a factory may return."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from operations.cached_harness import DELTA
from operations.harness import ROUND_TRIP
from operations.many_harness import KEYS, ManyHarness
from shardcache.core.cache_policy import CachePolicy, cached_policy
from shardcache.core.commands import Cas, CommandList, GetOrStub
from shardcache.core.events import OperationFinished
from shardcache.core.leases import LockPolicy
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.reserved_keys import REFRESHING, own_key
from shardcache.errors import ConfigurationError
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.blocks import bypass, refresh


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, which are checked and closed at the end."""
    made = []

    def make(**terms):
        made.append(ManyHarness(**terms))
        return made[-1]

    yield make
    for each in made:
        assert each.in_flight == 0
        each.close()


def checked(policy):
    """Return a policy that was passed to `cached_many`."""
    return cached_policy(policy, DEFAULT, DEFAULT, {}, "client.cached_many")


class TestPolicies:
    """What the policy says of one value holds for each of many."""

    def test_stale_values_are_refreshed_by_one_call(self, make_harness):
        """They are served at once."""
        harness = make_harness(ttl=10.0, stale=60.0)
        harness.results([harness.start_many()])
        harness.advance(11.0)
        harness.version = 1
        assert harness.results([harness.start_many()]) == [harness.values()]
        harness.advance(1.0)
        assert harness.batches == [KEYS, KEYS]
        assert harness.results([harness.start_many()]) == [harness.values(version=1)]

    def test_stale_values_are_refreshed_inline_with_what_is_missing(self, make_harness):
        """By one call of the factory."""
        harness = make_harness(ttl=10.0, stale=60.0, refresh="inline")
        harness.results([harness.start_many(keys=KEYS[:6])])
        harness.advance(11.0)
        harness.version = 1
        assert harness.results([harness.start_many()]) == [harness.values(version=1)]
        assert [sorted(batch) for batch in harness.batches] == [KEYS[:6], sorted(KEYS)]

    def test_a_refresh_is_put_off_if_too_many_run(self, make_harness):
        """The next call tries again."""
        harness = make_harness(ttl=10.0, stale=60.0)
        harness.results([harness.start_many()])
        harness.advance(11.0)
        io = harness.clusters[0].io
        refuse, type(io).try_spawn = type(io).try_spawn, lambda *_: False
        try:
            assert harness.results([harness.start_many()]) == [harness.values()]
        finally:
            type(io).try_spawn = refuse
        harness.results([harness.start_many()])
        harness.advance(1.0)
        assert harness.batches == [KEYS, KEYS]

    def test_old_values_are_served_if_the_factory_fails(self, make_harness):
        """`stale_if_error`, for each."""
        harness = make_harness(ttl=10.0, stale_if_error=60.0)
        harness.results([harness.start_many()])
        harness.advance(11.0)
        harness.error = KeyError("source")
        assert harness.results([harness.start_many()]) == [harness.values()]
        assert harness.count("swallowed") == len(KEYS)

    def test_conditions_hold_for_each_value(self, make_harness):
        """What is not kept is returned all the same."""
        harness = make_harness(condition=lambda value: value != f"{KEYS[0]}:0")
        assert harness.results([harness.start_many()]) == [harness.values()]
        assert harness.results([harness.start_many()]) == [harness.values()]
        assert harness.batches == [KEYS, KEYS[:1]]

    def test_without_coalescing_every_caller_recomputes(self, make_harness):
        """As for one value."""
        harness = make_harness(coalesce=False)
        assert (
            harness.results([harness.start_many(), harness.start_many()]) == [harness.values()] * 2
        )
        assert harness.batches == [KEYS, KEYS]

    def test_tags_are_read_along(self, make_harness):
        """A tag's version is made once, and its invalidation voids all."""
        harness = make_harness(tags=("t",))
        assert harness.results([harness.start_many()]) == [harness.values()]
        began = harness.now
        assert harness.results([harness.start_many(1)]) == [harness.values()]
        assert harness.now - began == pytest.approx(ROUND_TRIP)
        harness.void(1, "invalidate_tag")
        assert harness.results([harness.start_many()]) == [harness.values(version=1)]

    def test_bypassed_and_refreshed_blocks(self, make_harness):
        """They hold for many keys as for one, with one call of the factory."""
        harness = make_harness()
        harness.results([harness.start_many()])
        harness.version = 1
        with bypass():
            task = harness.start_many()
        assert harness.results([task]) == [harness.values(version=1)]
        assert harness.results([harness.start_many()]) == [harness.values()]

        async def twice():
            with refresh():
                return [await harness.many(), await harness.many()]

        assert harness.loop.run(twice()) == [harness.values(version=1)] * 2
        assert harness.batches == [KEYS] * 3

    def test_bypassed_keys_may_be_absent(self, make_harness):
        """As from the cache."""
        harness = make_harness()
        harness.left_out = {KEYS[0]}
        with bypass():
            task = harness.start_many()
        assert harness.results([task]) == [harness.values(KEYS[1:])]

    @pytest.mark.parametrize("lock", [True, LockPolicy()])
    def test_a_quorum_is_refused(self, lock):
        """The error says why, and what to do."""
        with pytest.raises(
            ConfigurationError, match=r"cached_many: lock must .* hundreds .* 'shard'"
        ):
            checked(CachePolicy(ttl=60, lock=lock))

    def test_kept_errors_are_refused(self):
        """As above."""
        with pytest.raises(
            ConfigurationError, match="cached_many: cache_errors is not for many keys"
        ):
            checked(CachePolicy(ttl=60, cache_errors=KeyError))


class TestForms:
    """What a factory returns, and what is asked for."""

    def test_a_factory_must_return_a_mapping(self, make_harness):
        """Anything else is an error that names it."""
        harness = make_harness()

        async def wrong(keys):
            return list(keys)

        (error,) = harness.results([harness.start_many(factory=wrong)])
        assert isinstance(error, TypeError)
        assert "must return a mapping" in str(error)

    def test_no_key_asks_nothing(self, make_harness):
        """The factory is not called."""
        harness = make_harness()
        assert harness.results([harness.start_many(keys=[])]) == [{}]
        assert (harness.batches, harness.received) == ([], [])

    def test_any_collection_of_keys_is_taken(self, make_harness):
        """But not text, which is a list of its letters."""
        harness = make_harness()
        assert harness.results([harness.start_many(keys=tuple(KEYS))]) == [harness.values()]
        with pytest.raises(TypeError, match="get_or_set_many: keys must be a list, not str"):
            harness.start_many(keys="k")

    def test_equal_keys_are_one(self, make_harness):
        """Text and its bytes name the same value."""
        harness = make_harness()
        (values,) = harness.results([harness.start_many(keys=["k", b"k", "k"])])
        assert values == {"k": "k:0", b"k": "k:0"}
        assert harness.batches == [["k"]]

    def test_commands_of_a_node_travel_together(self, make_harness):
        """Each node gets one command to read, one list to claim, one to store."""
        harness = make_harness()
        sent = []
        for node in harness.nodes:
            ask = node.ask
            node.ask = lambda *a, ask=ask: (sent.append(a[1]), ask(*a))[1]
        harness.results([harness.start_many()])
        assert len(sent) <= 3 * len(harness.nodes)
        assert {Cas, GetOrStub} <= set(map(type, harness.received))

    def test_nodes_without_lists_get_one_command_for_each_key(self, make_harness):
        """A plugin's backend need not know them."""
        harness = make_harness()
        for member in harness.clusters[0].members.values():
            member.supports -= {CommandList}
        assert harness.results([harness.start_many()]) == [harness.values()]

    def test_peeking_refreshing_and_invalidating(self, make_harness):
        """Any operation on one key runs in lockstep."""
        harness = make_harness()
        harness.results([harness.start_many(keys=KEYS[:6])])
        assert harness.each(cached_value.peek) == harness.values(KEYS[:6])
        harness.version = 1
        assert harness.each(cached_value.refresh) == harness.values(version=1)
        assert set(harness.each(cached_value.invalidate).values()) == {True}
        assert harness.each(cached_value.peek) == {}


class TestSeen:
    """What observers, counters and the log learn."""

    def test_a_call_is_one_operation(self, make_harness):
        """With the number of keys that were served at once."""
        harness = make_harness()
        told = []
        cluster = harness.clusters[0]
        cluster.observes_operations = True
        cluster.observers = SimpleNamespace(notify=told.append, heard={OperationFinished})
        harness.results([harness.start_many(keys=KEYS[:3])])
        harness.results([harness.start_many()])
        finished = [event for event in told if isinstance(event, OperationFinished)]
        assert [(each.name, each.keys, each.hits) for each in finished] == [
            ("cached_many", 3, 0),
            ("cached_many", 12, 3),
        ]

    def test_a_failing_refresh_names_the_factory(self, make_harness):
        """The log says whose it is."""
        harness = make_harness(ttl=10.0, stale=60.0)
        harness.results([harness.start_many()])
        harness.advance(11.0)
        harness.error = KeyError("source")
        failed = []
        harness.protections[0].notes.refresh_failed = lambda *note: failed.append(note)
        harness.results([harness.start_many()])
        harness.advance(1.0)
        assert {name for name, _ in failed} == {"get_or_set_many with ManyHarness.load_many()"}

    def test_the_mark_of_a_refresh_is_removed_later(self, make_harness):
        """When its node fails in between, as for one value."""
        harness = make_harness(ttl=10.0, stale=60.0)
        harness.results([harness.start_many()])
        harness.advance(11.0)
        harness.results([harness.start_many()])
        harness.advance(DELTA / 2)
        node = harness.node_of(KEYS[0])
        node.loses = "replies"
        harness.advance(DELTA)
        node.loses = ""
        harness.advance(5.0)
        marks = [harness.clusters[0].route(key)[0] for key in KEYS if harness.node_of(key) is node]
        assert {node.held(own_key(REFRESHING, name)) for name in marks} == {None}


def test_all_other_policies_are_taken():
    """As they are."""
    policy = CachePolicy(ttl=60, lock="shard", stale=5, early=1.0, on_cancel="finish")
    assert checked(policy) is policy
