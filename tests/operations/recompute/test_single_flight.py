"""Single flight in virtual time: callers join, take over, and are reached by invalidations."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from operations.cached_harness import DELTA
from operations.harness import MEMCACHED, ONE_WAY, REDIS, ROUND_TRIP
from operations.virtual import LoopHarness
from shardcache.core.leases import LockPolicy
from shardcache.operations.invalidation import tags
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.blocks import refresh

WAIT = 2.0
MODES = [False, "local", "shard", True]
WAYS = ["invalidate", "invalidate_tag"]
BLOCKS = [nullcontext(), refresh()]


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, which are checked and closed at the end."""
    made = []

    def make(**terms):
        made.append(LoopHarness(**terms))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize("lock", MODES)
class TestVoidFlights:
    """An invalidation in another process reaches the flights of this one."""

    @pytest.mark.parametrize("way", WAYS)
    def test_a_call_after_an_invalidation_gets_no_older_value(self, make_harness, kinds, lock, way):
        """Earlier callers have the old value, and later ones the new one."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.delta = 5.0
        before = [harness.start_call() for _ in range(3)]
        harness.advance(1.0)
        harness.void(1, way)
        harness.delta = DELTA
        began = harness.now
        after = [harness.start_call() for _ in range(3)]
        assert harness.results(after) == [1] * 3
        assert harness.now - began <= DELTA + 0.05  # nothing void delays the calls
        assert harness.results(before) == [0] * 3
        assert harness.calls == 2

    def test_the_stub_of_another_process_is_not_the_leaders(self, make_harness, kinds, lock):
        """A call after the invalidation does not join the leader, also where stubs have no names."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.delta = 5.0
        harness.start_call()
        harness.advance(1.0)
        harness.void(1, "invalidate")
        harness.delta = 1.0
        there = harness.start_call(1)
        harness.advance(0.2)
        assert harness.results([harness.start_call(), there]) == [1, 1]

    def test_a_caller_that_finds_its_leaders_stub_joins(self, make_harness, kinds, lock):
        """However late, and after renewals: the function runs once."""
        harness = make_harness(kinds=kinds, lock=lock, wait=60.0)
        harness.delta = 12.0
        tasks = []
        for _ in range(23):
            tasks += [harness.start_call() for _ in range(3)]
            harness.advance(0.5)
        assert harness.results(tasks) == [0] * len(tasks)
        assert harness.calls == 1

    @pytest.mark.slow
    def test_ten_thousand_calls_run_the_function_once(self, make_harness, kinds, lock):
        """The node is asked few times."""
        harness = make_harness(kinds=kinds, lock=lock, tags=())
        asked = []
        execute = harness.shard.store.execute
        harness.shard.store.execute = lambda command: asked.append(command) or execute(command)
        tasks = [harness.start_call() for _ in range(10_000)]
        harness.advance(ROUND_TRIP + ONE_WAY)  # the leader leaves its stub
        late = [harness.start_call() for _ in range(1000)]
        assert harness.results([*tasks, *late]) == [0] * 11_000
        assert harness.calls == 1
        assert len(asked) < 40

    def test_callers_join_while_the_node_is_down(self, make_harness, kinds, lock):
        """Nothing is known of invalidations then: the function runs once."""
        harness = make_harness(kinds=kinds, lock=lock)
        harness.shard.up = False
        tasks = []
        for _ in range(10):
            tasks += [harness.start_call() for _ in range(10)]
            harness.advance(0.01)
        assert harness.results(tasks) == [0] * 100
        assert harness.calls == 1

    def test_callers_join_when_the_node_takes_no_stub(self, make_harness, kinds, lock):
        """A node without memory can be read, not written: the source is spared as well."""
        harness = make_harness(kinds=kinds, lock=lock)
        refuse_stubs(harness.shard)
        tasks = []
        for _ in range(10):
            tasks += [harness.start_call() for _ in range(10)]
            harness.advance(0.01)
        assert harness.results(tasks) == [0] * 100
        assert harness.calls == 1


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize("lock", MODES)
class TestHungRecomputes:
    """A follower that timed out stores its value, so one hung call costs one wait and not many."""

    def timed(self, harness, place=0):
        """Return the result of a call, and how long it took."""
        began = harness.now
        (result,) = harness.results([harness.start_call(place)])
        return result, harness.now - began

    @pytest.mark.parametrize("refresh", ["background", "inline"])
    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_a_hung_refresh_costs_one_wait(self, make_harness, kinds, lock, refresh, elsewhere):
        """The next caller stores over the old value, and later ones have its value at once."""
        harness = make_harness(
            kinds=kinds, lock=lock, ttl=2.0, stale=1.0, wait=1.0, refresh=refresh, tags=()
        )
        harness.results([harness.start_call()])
        harness.advance(2.1)
        harness.delta, harness.version = 50.0, 1
        hung = harness.start_call(int(elsewhere))  # it is elected
        harness.advance(1.0)
        assert harness.calls == 2
        harness.delta, harness.version = DELTA, 2
        result, seconds = self.timed(harness)
        assert result == 2
        assert 1.0 <= seconds <= 1.0 + DELTA + 0.1
        for place in (0, 1, 0, 1):
            assert self.timed(harness, place)[0] == 2
            assert self.timed(harness, place)[1] <= 0.01
        assert harness.calls == 3
        harness.advance(60.0)
        assert hung.done()
        harness.version = 3
        assert self.timed(harness)[0] == 3  # and nothing delays it

    def test_a_hung_refresh_blocks_no_later_one(self, make_harness, kinds, lock):
        """The value stored in its place is refreshed as any value, while it still hangs."""
        harness = make_harness(kinds=kinds, lock=lock, ttl=2.0, stale=3.0, wait=1.0, tags=())
        harness.results([harness.start_call()])
        harness.advance(2.1)
        harness.delta = 50.0
        harness.results([harness.start_call()])
        harness.advance(3.0)
        harness.delta = DELTA
        self.timed(harness)
        slowest = 0.0
        for harness.version in range(1, 8):
            harness.advance(2.1)
            slowest = max(slowest, self.timed(harness)[1])
            harness.advance(0.5)
            assert self.timed(harness)[0] == harness.version
        assert slowest <= 0.01

    def test_a_slow_refresh_is_stored_when_it_is_first(self, make_harness, kinds, lock):
        """One slower than `stale` and `wait` is overtaken, and still stored if it ends first."""
        harness = make_harness(kinds=kinds, lock=lock, ttl=2.0, stale=1.0, wait=1.0, tags=())
        harness.results([harness.start_call()])
        harness.advance(2.1)
        harness.delta, harness.version = 4.0, 1
        harness.results([harness.start_call()])
        harness.advance(1.0)
        harness.version = 2
        tasks = [harness.start_call(place) for place in (0, 1)]
        harness.advance(3.2)
        assert self.timed(harness)[0] == 1
        assert self.timed(harness)[1] <= 0.01
        assert set(harness.results(tasks)) <= {1, 2}

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_a_hung_leader_costs_one_wait(self, make_harness, kinds, lock, elsewhere):
        """Also when it goes on renewing its stub while the next process recomputes."""
        harness = make_harness(kinds=kinds, lock=lock, ttl=60.0, wait=2.0, tags=())
        harness.delta = 50.0
        hung = harness.start_call(int(elsewhere))
        harness.advance(0.1)
        harness.delta, harness.version = 4.0, 1  # several renewals
        result, seconds = self.timed(harness)
        assert result == 1
        assert seconds <= 2.0 + 4.0 + 0.1
        for place in (0, 1):
            assert self.timed(harness, place)[0] == 1
            assert self.timed(harness, place)[1] <= 0.01
        assert harness.results([hung]) == [0]
        assert self.timed(harness)[0] == 1  # the late store was rejected


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize("lock", MODES)
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.slow
def test_a_cancelled_caller_cancels_no_other(make_harness, kinds, lock, who):
    """Leader or follower, at any moment: the others have the value, and the function runs once."""
    near = 0.015  # seconds around the start and the end of the function, in which the node is asked
    steps = round(near / (ROUND_TRIP / 8))
    for moment in range(2 * steps + 1):
        harness = make_harness(kinds=kinds, lock=lock)
        tasks = [harness.start_call() for _ in range(3)]
        instant = moment * ROUND_TRIP / 8
        harness.advance(instant if moment <= steps else instant + DELTA - near)
        tasks[who].cancel()
        results = harness.results(tasks)
        assert results[2] == 0
        assert all(result == 0 or result is results[who] for result in results)
        assert harness.calls == 1
        assert harness.results([harness.start_call()]) == [0]
        assert harness.calls == 1


def refuse_stubs(node):
    """Let a node take no stubs."""
    from shardcache.core.commands import GetOrStub  # noqa: PLC0415
    from shardcache.errors import NodeRefusedError  # noqa: PLC0415

    execute = node.store.execute
    node.store.execute = lambda command: (
        NodeRefusedError("out of memory") if isinstance(command, GetOrStub) else execute(command)
    )


class Storms(RuleBasedStateMachine):
    """Clients that call, leave and invalidate, at any moment: no call gets a value that was void before it."""

    @initialize(
        kinds=st.sampled_from([REDIS, MEMCACHED]),
        lock=st.sampled_from(["local", "shard", LockPolicy(ttl=4.0)]),
        tagged=st.sampled_from([{"tags": ()}, {}, {"tags": (), "result_tags": (LoopHarness.TAG,)}]),
        terms=st.sampled_from(
            [
                {},
                {"on_cancel": "finish"},
                {"ttl": 1.0, "stale": 1.0},
                {"ttl": 1.0, "stale_if_error": 9.0},
            ]
        ),
        delta=st.sampled_from([0.2, 1.5, 5.0]),
        delays=st.sampled_from([(0.001, 0.001), (0.02, 0.001), (0.001, 0.02)]),
        seed=st.integers(0, 99),
    )
    def begin(self, delta, tagged, terms, **options):
        """Make the harness."""
        self.harness = LoopHarness(wait=WAIT, **tagged, **terms, **options)
        self.harness.delta = delta
        self.began = self.harness.now
        self.floors = [(0.0, 0)]  # from when on what was made of an older version is void
        self.voided = 0
        self.renewed = 0
        self.calls = []  # with the floor at their beginning
        self.cancelled = set()

    @rule(place=st.integers(0, 1), count=st.integers(1, 3), block=st.sampled_from(BLOCKS))
    def request(self, place, count, block):
        """Begin calls, in a block or not."""
        # Tasks share a read that is under way: what it shows is up to a round trip older.
        harness = self.harness
        since = harness.now - (0.0 if harness.tags else 2 * harness.clusters[place].io.delay)
        floor = max(version for moment, version in self.floors if moment <= since)
        self.renewed += count * (block is not BLOCKS[0])
        with block:
            self.calls += [(harness.start_call(place), floor) for _ in range(count)]

    @rule(data=st.data())
    def cancel(self, data):
        """Stop a caller wherever it is."""
        waiting = [task for task, _ in self.calls if not task.done()]
        if waiting:
            task = data.draw(st.sampled_from(waiting))
            self.cancelled.add(task)
            task.cancel()

    @rule(place=st.integers(0, 1), tag=st.booleans())
    def void(self, place, tag):
        """Change the source, and invalidate what was made of it."""
        harness = self.harness
        harness.version += 1
        self.voided += 1
        version = harness.version

        async def acknowledged():
            if tag and (harness.tags or harness.result_tags):
                await tags.invalidate(harness.clusters[place], harness.TAG)
            else:
                await cached_value.invalidate(harness.request(place))
            self.floors.append((harness.now, version))

        harness.loop.create_task(acknowledged())

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.0015, 0.003, 0.02, 0.1, 0.5, 1.1, 2.3]))
    def pass_time(self, seconds):
        """Let time pass."""
        self.harness.advance(seconds)

    def teardown(self):
        """Every call has come to its end, with nothing that was void when it began."""
        if not hasattr(self, "harness"):
            return
        harness = self.harness
        try:
            harness.results([task for task, _ in self.calls])
            waits = (harness.now - self.began) / WAIT
        finally:
            harness.close()
        for task, floor in self.calls:
            if task.cancelled():
                assert task in self.cancelled
            else:
                assert task.result() >= floor, "a value that was void before its caller came"
        assert harness.most_busy <= 1 + self.voided + self.renewed + waits


TestStorms = Storms.TestCase
TestStorms.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
