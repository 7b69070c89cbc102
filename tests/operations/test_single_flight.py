"""Single flight in virtual time: who joins, who takes over, and what an invalidation reaches."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from operations.simulation import SimulatedNode
from operations.virtual import LoopWorld, VirtualLoop, virtual_cluster
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.leases import LockPolicy
from shardcache.operations.invalidation import tags
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.protection import Protection
from shardcache.operations.recompute.request import Request

KEY = "report"
TAG = "t"
DELTA = 0.2  # seconds that the source takes
WAIT = 2.0
MODES = [False, "local", "shard", True]
REDIS, MEMCACHED = (False,) * 5, (True,) * 5
WAYS = ["invalidate", "invalidate_tag"]


class Storm:
    """Five nodes, some clients of one loop that share nothing else, one key, one source."""

    def __init__(self, clients=2, kinds=REDIS, seed=0, tags=(TAG,), delays=(None,), **terms):
        self.loop = VirtualLoop()
        self.world = LoopWorld(self.loop, seed)
        self.nodes = [SimulatedNode(self.world, whole_seconds=kind) for kind in kinds]
        self.clusters = [
            virtual_cluster(self.loop, self.world, self.nodes, delays[place % len(delays)])
            for place in range(clients)
        ]
        self.policy = CachePolicy(**{"ttl": 60.0, "jitter": 0.0, **terms})
        self.tags = tags
        self.version = 0
        self.calls = 0
        self.busy = [0] * clients
        self.protections = [Protection() for _ in range(clients)]
        self.most_busy = 0
        self.delta = DELTA

    def request(self, place):
        """Return one call of a client."""

        async def make():
            self.calls += 1
            self.busy[place] += 1
            self.most_busy = max(self.most_busy, self.busy[place])
            version = self.version
            try:
                await asyncio.sleep(self.delta)
            finally:
                self.busy[place] -= 1
            return version

        cluster = self.clusters[place]
        protection = self.protections[place]
        return Request(cluster, KEY, make, self.policy, protection, protection.direct, self.tags)

    def start(self, place=0):
        """Begin a call of a client."""
        return self.loop.create_task(cached_value.get(self.request(place)))

    def void(self, place, way):
        """Change the source, and invalidate what was made of it before."""
        self.version += 1
        if way == "invalidate":
            self.loop.run(cached_value.invalidate(self.request(place)))
        else:
            self.loop.run(tags.invalidate(self.clusters[place], TAG))

    def results(self, tasks):
        """Return what came of calls."""

        async def all_of_them():
            return await asyncio.gather(*tasks, return_exceptions=True)

        return self.loop.run(all_of_them())

    @property
    def shard(self):
        """Return the node that has the key."""
        return self.nodes[int(self.clusters[0].route(KEY)[1].node.name[1:])]

    def close(self):
        """Let all come to its end; check that nothing is left of any flight."""
        try:
            for node in self.nodes:
                node.up = True
            self.loop.advance(200.0)
            for cluster in self.clusters:
                assert len(cluster.io.single_flight) == 0
            assert self.busy == [0] * len(self.clusters)
            assert not asyncio.all_tasks(self.loop)
        finally:
            self.loop.close()


@pytest.fixture
def storm():
    """Return what makes a storm; it is checked and closed at the end."""
    made = []

    def make(**terms):
        made.append(Storm(**terms))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize("lock", MODES)
class TestVoidFlights:
    """An invalidation in another process reaches the flights of this one."""

    @pytest.mark.parametrize("way", WAYS)
    def test_who_calls_after_an_invalidation_gets_no_older_value(self, storm, kinds, lock, way):
        """Whoever called before has the old value, and whoever calls after has the new one."""
        here = storm(kinds=kinds, lock=lock)
        here.delta = 5.0
        before = [here.start() for _ in range(3)]
        here.loop.advance(1.0)
        here.void(1, way)
        here.delta = DELTA
        began = here.world.now
        after = [here.start() for _ in range(3)]
        assert here.results(after) == [1] * 3
        assert here.world.now - began <= DELTA + 0.05  # nothing void is in anybody's way
        assert here.results(before) == [0] * 3
        assert here.calls == 2

    def test_another_s_stub_is_not_the_leader_s(self, storm, kinds, lock):
        """Nor where stubs have no names: one that was begun after the invalidation is not joined to it."""
        here = storm(kinds=kinds, lock=lock)
        here.delta = 5.0
        here.start()
        here.loop.advance(1.0)
        here.void(1, "invalidate")
        here.delta = 1.0
        there = here.start(1)
        here.loop.advance(0.2)
        assert here.results([here.start(), there]) == [1, 1]

    def test_whoever_finds_the_stub_of_its_leader_joins(self, storm, kinds, lock):
        """However late, and after renewals: the function runs once."""
        here = storm(kinds=kinds, lock=lock, wait=60.0)
        here.delta = 12.0
        tasks = []
        for _ in range(23):
            tasks += [here.start() for _ in range(3)]
            here.loop.advance(0.5)
        assert here.results(tasks) == [0] * len(tasks)
        assert here.calls == 1

    def test_ten_thousand_at_once(self, storm, kinds, lock):
        """The function runs once, and the node is asked few times."""
        here = storm(kinds=kinds, lock=lock, tags=())
        asked = []
        execute = here.shard.store.execute
        here.shard.store.execute = lambda command: asked.append(command) or execute(command)
        tasks = [here.start() for _ in range(10_000)]
        here.loop.advance(0.003)
        late = [here.start() for _ in range(1000)]
        assert here.results([*tasks, *late]) == [0] * 11_000
        assert here.calls == 1
        assert len(asked) < 40

    def test_those_without_a_node_join(self, storm, kinds, lock):
        """While it is down nothing is known of invalidations: the function is called once."""
        here = storm(kinds=kinds, lock=lock)
        here.shard.up = False
        tasks = []
        for _ in range(10):
            tasks += [here.start() for _ in range(10)]
            here.loop.advance(0.01)
        assert here.results(tasks) == [0] * 100
        assert here.calls == 1

    def test_those_whose_node_takes_no_stub_join(self, storm, kinds, lock):
        """One that can be read and not be written, as one without memory, is spared as well."""
        here = storm(kinds=kinds, lock=lock)
        refuse_stubs(here.shard)
        tasks = []
        for _ in range(10):
            tasks += [here.start() for _ in range(10)]
            here.loop.advance(0.01)
        assert here.results(tasks) == [0] * 100
        assert here.calls == 1


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize("lock", MODES)
class TestHungRecomputes:
    """Whoever waits in vain stores, so that what hangs costs one wait and not one for each call."""

    def timed(self, here, place=0):
        """Return the result of a call, and how long it took."""
        began = here.world.now
        (result,) = here.results([here.start(place)])
        return result, here.world.now - began

    @pytest.mark.parametrize("refresh", ["background", "inline"])
    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_a_hung_refresh_costs_one_wait(self, storm, kinds, lock, refresh, elsewhere):
        """The next caller stores over the old value, and later ones have its value at once."""
        here = storm(kinds=kinds, lock=lock, ttl=2.0, stale=1.0, wait=1.0, refresh=refresh, tags=())
        here.results([here.start()])
        here.loop.advance(2.1)
        here.delta, here.version = 50.0, 1
        hung = here.start(int(elsewhere))  # it is elected
        here.loop.advance(1.0)
        assert here.calls == 2
        here.delta, here.version = DELTA, 2
        result, seconds = self.timed(here)
        assert result == 2
        assert 1.0 <= seconds <= 1.0 + DELTA + 0.1
        for place in (0, 1, 0, 1):
            assert self.timed(here, place)[0] == 2
            assert self.timed(here, place)[1] <= 0.01
        assert here.calls == 3
        here.loop.advance(60.0)
        assert hung.done()
        here.version = 3
        assert self.timed(here)[0] == 3  # and nothing is in anybody's way

    def test_a_hung_refresh_is_no_more_elected(self, storm, kinds, lock):
        """What was stored in its place is refreshed as any value, while it still hangs."""
        here = storm(kinds=kinds, lock=lock, ttl=2.0, stale=3.0, wait=1.0, tags=())
        here.results([here.start()])
        here.loop.advance(2.1)
        here.delta = 50.0
        here.results([here.start()])
        here.loop.advance(3.0)
        here.delta = DELTA
        self.timed(here)
        slowest = 0.0
        for here.version in range(1, 8):
            here.loop.advance(2.1)
            slowest = max(slowest, self.timed(here)[1])
            here.loop.advance(0.5)
            assert self.timed(here)[0] == here.version
        assert slowest <= 0.01

    def test_a_slow_refresh_is_stored_when_it_is_first(self, storm, kinds, lock):
        """One that takes longer than `stale` and `wait` is overtaken, and yet not thrown away."""
        here = storm(kinds=kinds, lock=lock, ttl=2.0, stale=1.0, wait=1.0, tags=())
        here.results([here.start()])
        here.loop.advance(2.1)
        here.delta, here.version = 4.0, 1
        here.results([here.start()])
        here.loop.advance(1.0)
        here.version = 2
        tasks = [here.start(place) for place in (0, 1)]
        here.loop.advance(3.2)
        assert self.timed(here)[0] == 1
        assert self.timed(here)[1] <= 0.01
        assert set(here.results(tasks)) <= {1, 2}

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_a_hung_leader_costs_one_wait(self, storm, kinds, lock, elsewhere):
        """Also when it goes on renewing its stub while the next one computes."""
        here = storm(kinds=kinds, lock=lock, ttl=60.0, wait=2.0, tags=())
        here.delta = 50.0
        hung = here.start(int(elsewhere))
        here.loop.advance(0.1)
        here.delta, here.version = 4.0, 1  # several renewals
        result, seconds = self.timed(here)
        assert result == 1
        assert seconds <= 2.0 + 4.0 + 0.1
        for place in (0, 1):
            assert self.timed(here, place)[0] == 1
            assert self.timed(here, place)[1] <= 0.01
        assert here.results([hung]) == [0]
        assert self.timed(here)[0] == 1  # the late store was rejected


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize("lock", MODES)
@pytest.mark.parametrize("who", [0, 1])
def test_whoever_is_cancelled_is_so_alone(storm, kinds, lock, who):
    """The leader or a waiter, at any moment: the others have the value, and the function runs once."""
    for moment in range(2 * 15 * 4 + 1):
        here = storm(kinds=kinds, lock=lock)
        tasks = [here.start() for _ in range(3)]
        step = 0.00025 * moment  # of a round trip of two milliseconds
        here.loop.advance(step if moment <= 15 * 4 else step + DELTA - 0.015)
        tasks[who].cancel()
        results = here.results(tasks)
        assert results[2] == 0
        assert all(result == 0 or result is results[who] for result in results)
        assert here.calls == 1
        assert here.results([here.start()]) == [0]
        assert here.calls == 1


def refuse_stubs(node):
    """Let a node take no stubs."""
    from shardcache.core.commands import GetOrStub  # noqa: PLC0415
    from shardcache.errors import NodeRefusedError  # noqa: PLC0415

    execute = node.store.execute
    node.store.execute = lambda command: (
        NodeRefusedError("out of memory") if isinstance(command, GetOrStub) else execute(command)
    )


class Storms(RuleBasedStateMachine):
    """Clients that call, leave and invalidate, at any moment: nobody gets what was void before."""

    @initialize(
        kinds=st.sampled_from([REDIS, MEMCACHED]),
        lock=st.sampled_from(["local", "shard", LockPolicy(ttl=4.0)]),
        tagged=st.booleans(),
        terms=st.sampled_from(
            [{}, {"ttl": 1.0, "stale": 1.0}, {"ttl": 1.0, "stale_if_error": 9.0}]
        ),
        delta=st.sampled_from([0.2, 1.5, 5.0]),
        delays=st.sampled_from([(0.001, 0.001), (0.02, 0.001), (0.001, 0.02)]),
        seed=st.integers(0, 99),
    )
    def begin(self, delta, tagged, terms, **options):
        """Make the storm."""
        self.storm = Storm(tags=(TAG,) if tagged else (), wait=WAIT, **terms, **options)
        self.storm.delta = delta
        self.began = self.storm.world.now
        self.floors = [(0.0, 0)]  # from when on what was made of an older version is void
        self.voided = 0
        self.calls = []  # with the floor at their beginning
        self.cancelled = set()

    @rule(place=st.integers(0, 1), count=st.integers(1, 3))
    def request(self, place, count):
        """Begin calls."""
        # Tasks share a read that is under way: what it shows is up to a round trip older.
        storm = self.storm
        since = storm.world.now - (0.0 if storm.tags else 2 * storm.clusters[place].io.delay)
        floor = max(version for moment, version in self.floors if moment <= since)
        self.calls += [(storm.start(place), floor) for _ in range(count)]

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
        storm = self.storm
        storm.version += 1
        self.voided += 1
        version = storm.version

        async def acknowledged():
            if tag and storm.tags:
                await tags.invalidate(storm.clusters[place], TAG)
            else:
                await cached_value.invalidate(storm.request(place))
            self.floors.append((storm.world.now, version))

        storm.loop.create_task(acknowledged())

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.0015, 0.003, 0.02, 0.1, 0.5, 1.1, 2.3]))
    def pass_time(self, seconds):
        """Let time pass."""
        self.storm.loop.advance(seconds)

    def teardown(self):
        """Every call has come to its end, with nothing that was void when it began."""
        if not hasattr(self, "storm"):
            return
        storm = self.storm
        try:
            storm.results([task for task, _ in self.calls])
            waits = (storm.world.now - self.began) / WAIT
        finally:
            storm.close()
        for task, floor in self.calls:
            if task.cancelled():
                assert task in self.cancelled
            else:
                assert task.result() >= floor, "a value that was void before its caller came"
        assert storm.most_busy <= 1 + self.voided + waits


TestStorms = Storms.TestCase
TestStorms.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
