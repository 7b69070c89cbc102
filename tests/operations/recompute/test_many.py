"""Many values at once, in virtual time: each is kept as one alone is, and all of them take three fan-outs."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from operations.cached_harness import DELTA
from operations.harness import A_FEW_ROUND_TRIPS, MEMCACHED, MIXED, REDIS, ROUND_TRIP
from operations.many_harness import KEYS, ManyHarness
from shardcache.core.commands import CommandList, GetMany, GetOrStub
from shardcache.core.leases import LockPolicy
from shardcache.errors import RecomputeTimeoutError, UnsupportedError

KINDS = pytest.mark.parametrize(
    "kinds", [REDIS, MEMCACHED, MIXED], ids=["redis", "memcached", "mixed"]
)
LOCKS = pytest.mark.parametrize("lock", [False, "shard"])


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


@KINDS
@LOCKS
class TestOneCaller:
    """A caller that has all nodes to itself."""

    def test_three_fan_outs(self, make_harness, kinds, lock):
        """One to read, one to claim, one to store, and one call of the factory between them."""
        harness = make_harness(kinds=kinds, lock=lock)
        began = harness.now
        assert harness.results([harness.start_many()]) == [harness.values()]
        assert harness.now - began == pytest.approx(3 * ROUND_TRIP + DELTA)
        assert harness.batches == [KEYS]
        began = harness.now
        assert harness.results([harness.start_many(1)]) == [harness.values()]
        assert harness.now - began == pytest.approx(ROUND_TRIP)
        assert harness.batches == [KEYS]

    def test_only_what_is_missing_is_recomputed(self, make_harness, kinds, lock):
        """The others are served."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.results([harness.start_many(keys=KEYS[:5])])
        harness.version = 1
        (values,) = harness.results([harness.start_many()])
        assert values == harness.values(KEYS[:5]) | harness.values(KEYS[5:], 1)
        assert harness.batches == [KEYS[:5], KEYS[5:]]
        assert (harness.count("hits"), harness.count("misses")) == (5, 12)

    def test_a_key_that_is_left_out_is_absent(self, make_harness, kinds, lock):
        """Nothing is stored, and the next call asks for it again."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.left_out = set(KEYS[:2])
        assert harness.results([harness.start_many()]) == [harness.values(KEYS[2:])]
        assert harness.held(KEYS[0]) in {None, "stub"}  # the mark of one that was abandoned
        assert (harness.count("uncached"), harness.count("errors")) == (2, 0)
        harness.left_out = set()
        assert harness.results([harness.start_many(1)]) == [harness.values()]
        assert harness.batches == [KEYS, KEYS[:2]]

    def test_an_error_of_the_factory_fails_the_call(self, make_harness, kinds, lock):
        """Its claims are given up, so that the next caller begins at once."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.error = KeyError("source")
        assert harness.results([harness.start_many()]) == [harness.error]
        harness.error = None
        began = harness.now
        assert harness.results([harness.start_many(1)]) == [harness.values()]
        assert harness.now - began < DELTA + A_FEW_ROUND_TRIPS

    def test_an_invalidation_meanwhile_voids_its_key_alone(self, make_harness, kinds, lock):
        """The others are stored."""
        harness = make_harness(kinds=kinds, lock=lock)
        task = harness.start_many()
        harness.advance(DELTA / 2)
        harness.invalidate(KEYS[:1], place=1)
        assert harness.results([task]) == [harness.values()]
        assert harness.held(KEYS[0]) is None
        assert {harness.held(key) for key in KEYS[1:]} == {"value"}
        assert harness.count("rejected") == 1

    def test_claims_are_renewed_while_the_factory_runs(self, make_harness, kinds, lock):
        """Another process waits for longer than a claim lives."""
        harness = make_harness(kinds=kinds, lock=lock, wait=60.0)
        harness.delta = 4 * LockPolicy().ttl
        first = harness.start_many()
        harness.advance(3 * LockPolicy().ttl)
        assert {harness.held(key) for key in KEYS} == {"stub"}
        if lock:
            assert harness.results([harness.start_many(1)]) == [harness.values()]
            assert harness.batches == [KEYS]
        assert harness.results([first]) == [harness.values()]

    def test_a_node_that_is_down(self, make_harness, kinds, lock):
        """Its keys are recomputed by each call, in the same call of the factory; the rest is kept."""
        harness = make_harness(kinds=kinds, lock=lock)
        node = harness.node_of(KEYS[0])
        node.up = False
        lost = [key for key in KEYS if harness.node_of(key) is node]
        assert harness.results([harness.start_many()]) == [harness.values()]
        assert harness.results([harness.start_many(1)]) == [harness.values()]
        assert harness.batches == [KEYS, lost]

    def test_a_node_that_is_stopped(self, make_harness, kinds, lock):
        """It costs one timeout of a call."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.node_of(KEYS[0]).stopped = True
        began = harness.now
        assert harness.results([harness.start_many()]) == [harness.values()]
        assert harness.now - began < 0.1 + DELTA + A_FEW_ROUND_TRIPS
        harness.node_of(KEYS[0]).resume()


@KINDS
@LOCKS
class TestManyCallers:
    """Callers of one process and of others, for keys that overlap."""

    def test_each_key_is_recomputed_once_in_a_process(self, make_harness, kinds, lock):
        """Each caller leads what no other does yet, and follows the others."""
        harness = make_harness(kinds=kinds, lock=lock)
        tasks = [harness.start_many(keys=KEYS[start : start + 6]) for start in (0, 3, 6)]
        expected = [harness.values(KEYS[start : start + 6]) for start in (0, 3, 6)]
        began = harness.now
        assert harness.results(tasks) == expected
        assert sorted(itertools.chain(*harness.batches)) == sorted(KEYS)
        assert harness.now - began < DELTA + A_FEW_ROUND_TRIPS
        assert harness.count("coalesced") == 6

    def test_opposite_orders_do_not_wait_for_each_other(self, make_harness, kinds, lock):
        """Whoever comes second leads nothing, or something else."""
        harness = make_harness(kinds=kinds, lock=lock)
        middle = KEYS[4:8]
        tasks = [
            harness.start_many(keys=[*KEYS[:4], *middle]),
            harness.start_many(keys=[*reversed(middle), *KEYS[8:]]),
            harness.start_many(1, keys=list(reversed(KEYS))),
        ]
        began = harness.now
        results = harness.results(tasks)
        assert [sorted(result) for result in results] == [
            sorted(keys) for keys in (KEYS[:8], KEYS[4:], KEYS)
        ]
        assert harness.now - began < 2 * DELTA + 0.2

    def test_followers_get_the_error_of_their_leader(self, make_harness, kinds, lock):
        """Those who asked for other keys do not."""
        harness = make_harness(kinds=kinds, lock=lock)

        async def broken(_):
            await asyncio.sleep(DELTA)
            raise KeyError("source")

        first = harness.start_many(keys=KEYS[:4], factory=broken)
        harness.advance(A_FEW_ROUND_TRIPS)
        second = harness.start_many(keys=KEYS[2:6])
        third = harness.start_many(keys=KEYS[4:])
        results = harness.results([first, second, third])
        assert [type(each) for each in results] == [KeyError, KeyError, dict]
        assert results[0] is not results[1]

    def test_followers_learn_that_a_key_is_absent(self, make_harness, kinds, lock):
        """The factory is not called for it again."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.left_out = {KEYS[0]}
        tasks = [harness.start_many() for _ in range(3)]
        assert harness.results(tasks) == [harness.values(KEYS[1:])] * 3
        assert harness.batches == [KEYS]

    def test_a_single_call_follows_a_batch(self, make_harness, kinds, lock):
        """And calls its own function for a key that the batch has left out."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.KEY = KEYS[0]
        first = harness.start_many()
        harness.advance(A_FEW_ROUND_TRIPS)
        tasks = [first, harness.start_call()]
        assert harness.results(tasks) == [harness.values(), f"{KEYS[0]}:0"]
        assert harness.calls == 0
        harness.invalidate(KEYS)
        harness.left_out = {KEYS[0]}
        first = harness.start_many()
        harness.advance(A_FEW_ROUND_TRIPS)
        tasks = [first, harness.start_call()]
        assert harness.results(tasks) == [harness.values(KEYS[1:], 1), 1]
        assert harness.calls == 1

    def test_a_batch_follows_a_single_call(self, make_harness, kinds, lock):
        """It recomputes the other keys meanwhile."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.KEY = KEYS[0]
        first = harness.start_call()
        harness.advance(A_FEW_ROUND_TRIPS)
        tasks = [first, harness.start_many()]
        began = harness.now
        assert harness.results(tasks) == [0, harness.values() | {KEYS[0]: 0}]
        assert harness.batches == [KEYS[1:]]
        assert harness.now - began < DELTA + A_FEW_ROUND_TRIPS

    def test_who_calls_after_an_invalidation_joins_no_older_flight(self, make_harness, kinds, lock):
        """Of its key alone, in this process and in another."""
        harness = make_harness(kinds=kinds, lock=lock)
        first = harness.start_many()
        harness.advance(DELTA / 2)
        harness.invalidate(KEYS[:3], place=1)
        second = harness.start_many()
        assert harness.results([first, second]) == [
            harness.values(),
            harness.values(KEYS[3:]) | harness.values(KEYS[:3], 1),
        ]
        assert harness.batches == [KEYS, KEYS[:3]]


@KINDS
class TestProcesses:
    """`lock="shard"`: processes become one, for each key."""

    def test_each_key_is_recomputed_once(self, make_harness, kinds):
        """A process recomputes what it has claimed, and then waits for the others."""
        harness = make_harness(kinds=kinds, clients=4, lock="shard")
        tasks = [
            harness.start_many(place, keys=KEYS[place:] + KEYS[:place])
            for place in range(4)
            for _ in range(3)
        ]
        assert harness.results(tasks) == [harness.values()] * 12
        assert sorted(key for batch in harness.batches for key in batch) == sorted(KEYS)

    def test_polls_are_fan_outs(self, make_harness, kinds):
        """All keys that are waited for are looked at together."""
        harness = make_harness(kinds=kinds, lock="shard")
        tasks = [harness.start_many()]
        harness.advance(A_FEW_ROUND_TRIPS)
        harness.received.clear()
        tasks.append(harness.start_many(1))
        assert harness.results(tasks) == [harness.values()] * 2
        reads = [command for command in harness.received if isinstance(command, GetMany)]
        assert len(reads) <= 8 * len(harness.nodes)

    def test_stubs_of_a_process_that_died_are_taken_over(self, make_harness, kinds):
        """After their ttl; one call of the factory makes what it had claimed."""
        harness = make_harness(kinds=kinds, lock="shard", wait=20.0)
        dead = KEYS[:4]
        for key in dead:
            name, member, _ = harness.clusters[1].route(key)
            ttl = harness.request(0).lease
            harness.loop.run(harness.clusters[1].ask(member, GetOrStub(name, name, ttl)))
        began = harness.now
        assert harness.results([harness.start_many()]) == [harness.values()]
        assert harness.batches[0] == KEYS[4:]
        assert sorted(itertools.chain(*harness.batches[1:])) == sorted(dead)
        assert harness.now - began < harness.request(0).lease + 2 * DELTA + 1.3

    @pytest.mark.parametrize("on_timeout", ["compute", "raise"])
    def test_who_has_waited_long_enough(self, make_harness, kinds, on_timeout):
        """Recomputes the values in one batch, or raises."""
        harness = make_harness(kinds=kinds, lock="shard", wait=1.0, on_timeout=on_timeout)
        harness.delta = 8.0
        first = harness.start_many()
        harness.advance(DELTA)
        harness.delta = DELTA
        second = harness.start_many(1)
        harness.advance(2.0)
        assert second.done()
        if on_timeout == "compute":
            assert second.result() == harness.values()
            assert harness.batches == [KEYS, KEYS]
        else:
            assert isinstance(second.exception(), RecomputeTimeoutError)
        assert harness.results([first]) == [harness.values()]


class TestWaiting:
    """Callers of one process whose flights are late, or end without an outcome."""

    @pytest.mark.parametrize("on_timeout", ["compute", "raise"])
    def test_followers_wait_for_as_long_as_the_policy_says(self, make_harness, on_timeout):
        """One of them takes over, for all keys at once."""
        harness = make_harness(wait=1.0, on_timeout=on_timeout)
        harness.delta = 8.0
        first = harness.start_many()
        harness.advance(DELTA)
        harness.delta = DELTA
        others = [harness.start_many() for _ in range(3)]
        harness.advance(2.0)
        if on_timeout == "compute":
            assert [task.result() for task in others] == [harness.values()] * 3
            assert harness.batches == [KEYS, KEYS]
        else:
            assert {type(task.exception()) for task in others} == {RecomputeTimeoutError}
        harness.results([first])

    def test_a_factory_that_wants_its_own_keys(self, make_harness):
        """It recomputes them itself, rather than wait for itself."""
        harness = make_harness()

        async def recursive(keys):
            inner = await harness.many(keys=KEYS[:2])
            return {key: inner.get(key, key) for key in keys}

        (values,) = harness.results([harness.start_many(factory=recursive)])
        assert values == {key: key for key in KEYS} | harness.values(KEYS[:2])

    def test_factories_that_want_each_others_keys(self, make_harness):
        """One of the two does not wait: a circle is seen through any flight of a batch."""
        harness = make_harness(wait=60.0)

        def wanting(others):
            async def factory(keys):
                await asyncio.sleep(DELTA)
                inner = await harness.many(keys=others)
                return {key: sorted(inner) for key in keys}

            return factory

        one, other = KEYS[:4], KEYS[4:8]
        tasks = [
            harness.start_many(keys=one, factory=wanting(other[:1])),
            harness.start_many(keys=other, factory=wanting(one[3:])),
        ]
        began = harness.now
        results = harness.results(tasks)
        assert [sorted(each) for each in results] == [one, other]
        assert harness.now - began < 4 * DELTA

    def test_a_cancelled_caller_leaves_its_work_to_those_who_wait(self, make_harness):
        """It goes on as long as any of its keys is wanted."""
        harness = make_harness()
        first = harness.start_many()
        harness.advance(DELTA / 4)
        second = harness.start_many(keys=KEYS[:1])
        harness.advance(DELTA / 4)
        first.cancel()
        assert harness.results([second]) == [harness.values(KEYS[:1])]
        assert harness.batches == [KEYS]
        harness.advance(1.0)
        assert {harness.held(key) for key in KEYS} == {"value"}

    def test_a_busy_caller_counts_as_a_follower(self, make_harness):
        """It follows from the moment at which it found that another leads."""
        harness = make_harness()
        first = harness.start_many(keys=KEYS[:4])
        harness.advance(DELTA / 4)
        second = harness.start_many(keys=KEYS[2:8])
        harness.advance(DELTA / 4)
        first.cancel()
        assert harness.results([second]) == [harness.values(KEYS[2:8])]
        assert harness.batches == [KEYS[:4], KEYS[4:8]]

    @pytest.mark.parametrize(
        "after", [ROUND_TRIP / 2, 1.5 * ROUND_TRIP, 1.75 * ROUND_TRIP, DELTA / 2]
    )
    def test_cancelled_callers_leave_no_claim(self, make_harness, after):
        """Whenever they were: the next one begins at once."""
        harness = make_harness(lock="shard")
        tasks = [harness.start_many(), harness.start_many(keys=KEYS[:2])]
        harness.advance(after)
        for task in tasks:
            task.cancel()
        harness.results(tasks)
        harness.advance(A_FEW_ROUND_TRIPS)
        assert {harness.held(key) for key in KEYS} == {None}
        assert harness.in_flight == 0
        began = harness.now
        assert harness.results([harness.start_many(1)]) == [harness.values()]
        assert harness.now - began < DELTA + A_FEW_ROUND_TRIPS

    def test_a_follower_takes_over_what_was_cancelled(self, make_harness):
        """A caller that begins while the work is being cancelled does it again."""
        harness = make_harness()
        first = harness.start_many()
        harness.advance(DELTA / 2)
        first.cancel()
        harness.loop.run(asyncio.sleep(0))
        assert harness.results([harness.start_many()]) == [harness.values()]

    def test_work_goes_on_without_a_caller_if_the_policy_says_so(self, make_harness):
        """It stores what it has made."""
        harness = make_harness(on_cancel="finish")
        task = harness.start_many()
        harness.advance(DELTA / 2)
        task.cancel()
        harness.results([task])
        harness.advance(DELTA)
        assert {harness.held(key) for key in KEYS} == {"value"}
        assert harness.count("orphaned") == len(KEYS)


class TestBackends:
    """Nodes that cannot do what is asked."""

    def test_an_error_that_is_not_the_nodes_ends_the_call(self, make_harness):
        """As that of a backend without stubs; nothing is left of the operations."""
        harness = make_harness()
        backend = harness.clusters[0].members["n0"].backend
        execute = backend.execute

        def refuse(command, deadline):
            if isinstance(command, CommandList):
                raise UnsupportedError("no lists")
            return execute(command, deadline)

        backend.execute = refuse
        (error,) = harness.results([harness.start_many()])
        assert isinstance(error, UnsupportedError)
        assert harness.batches == []
        backend.execute = execute
        assert harness.results([harness.start_many()]) == [harness.values()]

    def test_operations_await_nothing_but_their_stand_ins(self, make_harness):
        """Nothing would answer an operation that waits for anything else."""
        harness = make_harness()

        async def stray(_):
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="something else than its cluster and its port"):
            harness.each(stray)
