"""No read finds a value that is older than a confirmed write or delete, while keys move.

Two processes switch at different times; the nodes take a different time for each command. A model knows
what was confirmed before each read began. The same model finds old values when a rule is broken, or when a
process switches that the others were not told of.
"""

from __future__ import annotations

import random

import pytest

from operations.harness import closing
from operations.moving_harness import MovingHarness
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Cas, Delete, GetAged, GetOrStub, Set, When
from shardcache.core.reserved_keys import TAGS, own_key
from shardcache.core.values.flags import abandoned, stub
from shardcache.errors import NodeRefusedError
from shardcache.operations.invalidation import tags
from shardcache.operations.keys import counters, many, single
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.request import Request

SEEDS = range(60)
SECONDS = 3.0  # of each run
READERS = 3  # in each process


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(MovingHarness)


class Model:
    """What is known of one key: the number of the last write or delete that was confirmed."""

    def __init__(self):
        self.last = 0  # begun
        self.confirmed = 0
        self.reads = 0
        self.found = 0
        self.old = []

    def judge(self, floor, value):
        """Note what a read has found that began when `floor` was confirmed."""
        self.reads += 1
        if value is not None:
            self.found += 1
            if value < floor:
                self.old.append((floor, value))


async def write(process, chance, model):
    """Write or delete the key, in one of the ways of a client."""
    model.last = number = model.last + 1
    way = chance.choice(["set", "set", "delete", "delete_many", "set_many", "cas", "incr"])
    cluster = process.cluster
    done = True
    if way == "set":
        done = await single.store(cluster, "k", number, 60.0, When.ALWAYS)
    elif way == "set_many":
        done = not await many.set_many(cluster, {"k": number}, 60.0)
    elif way == "delete":
        await single.delete(cluster, "k")
    elif way == "delete_many":
        await many.delete_many(cluster, ["k"])
    elif way == "cas":
        _, token = await single.gets(cluster, "k", None)
        done = token is not None and await single.cas(cluster, "k", number, token, 60.0)
    else:  # a counter that has the number of the last write goes on to this one
        value, token = await single.gets(cluster, "k", None)
        done = token is not None and value == number - 1
        done = done and await counters.incr(cluster, "k", 1, None, None, 0) == number
    if done:
        model.confirmed = number


def play(harness, steps, *, seconds=SECONDS):
    """Have two processes read, and one at a time write, while they take the `steps` of a change."""
    world, chance, model = harness.world, random.Random(harness.world.chance.random()), Model()
    end = world.now + seconds

    async def reads(process):
        while world.now < end:
            await process.cluster.io.sleep(chance.uniform(0.0, 0.02))
            floor = model.confirmed
            if chance.random() < 0.3:
                found = await many.get_many(process.cluster, ["k"])
                model.judge(floor, found.get("k"))
            else:
                model.judge(floor, await single.get(process.cluster, "k", None))

    async def writes():
        while world.now < end:
            process = chance.choice(harness.processes)
            await process.cluster.io.sleep(chance.uniform(0.0, 0.1))
            await write(process, chance, model)

    for at, step in steps(chance):
        world.at(at, step)
    tasks = [
        harness.start(reads(process), process)
        for process in harness.processes
        for _ in range(READERS)
    ]
    tasks.append(harness.start(writes()))
    harness.finish(*tasks)
    assert [task.error for task in tasks if task.error] == []
    return model


def announced_first(harness):
    """Return the steps of a change that both processes know before one of them switches."""

    def steps(chance):
        yield 0.0, lambda: harness.announce(0)
        yield 0.0, lambda: harness.announce(1)
        yield chance.uniform(0.4, 2.4), lambda: harness.switch(0)
        yield chance.uniform(0.4, 2.4), lambda: harness.switch(1)

    return steps


def switched_at_once(harness):
    """Return the steps of a change of which the second process learns when it switches."""

    def steps(_chance):
        yield 0.3, lambda: harness.switch(0)
        yield 2.0, lambda: harness.switch(1)

    return steps


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_read_is_older_than_what_was_confirmed(make_harness, seed):
    """Whatever process wrote or deleted, and whichever of the two nodes each of them uses."""
    kinds = [(False, False), (True, True), (True, False), (False, True)][seed % 4]
    harness = make_harness(processes=2, kinds=kinds, seed=seed, uneven=True)
    model = play(harness, announced_first(harness))
    assert model.old == []
    assert model.reads > 100
    assert model.found > 20


def test_without_an_announcement_old_values_are_found(make_harness):
    """A process that does not know of the change deletes on the old node alone."""
    old = 0
    for seed in range(10):
        harness = make_harness(processes=2, seed=seed, uneven=True)
        old += len(play(harness, switched_at_once(harness)).old)
    assert old > 0


class TestDeletesDuringACopy:
    """A delete that comes between the steps of a copy, by a process that has switched or not."""

    @pytest.mark.parametrize("switched", [False, True])
    @pytest.mark.parametrize(
        ("node", "command"), [(1, GetOrStub), (0, GetAged), (1, Cas)], ids=["stub", "read", "store"]
    )
    def test_the_copy_is_not_stored(self, make_harness, switched, node, command):
        """Nothing is left of it, on either node."""
        harness = make_harness(processes=2)
        harness.set("old")
        harness.announce(1)
        if switched:
            harness.switch(1)
        harness.switch(0)

        def delete_at_once():
            for place in (0, 1):  # as the other process does, source first
                harness.nodes[place].store.execute(Delete(b"k"))

        harness.before(node, command, delete_at_once)
        harness.get()
        harness.advance(3.0)
        assert harness.held(0) is harness.held(1) is None

    def test_a_stub_whose_value_is_gone_is_removed(self, make_harness):
        """It would hold up the next recompute."""
        harness = make_harness()
        harness.set("old")
        harness.switch()
        harness.before(1, GetOrStub, lambda: harness.nodes[0].store.execute(Delete(b"k")))
        assert harness.get() == "old"  # it was there when the read began
        assert harness.held(1) is None

    def test_the_stub_of_another_caller_stays(self, make_harness):
        """It may be that of a recompute."""
        harness = make_harness()
        harness.set("old")
        harness.switch()
        harness.plant(1, stub(b"x" * 16))
        harness.before(1, GetOrStub, lambda: harness.nodes[0].store.execute(Delete(b"k")))
        assert harness.get() == "old"
        assert harness.held(1)[0] == stub(b"x" * 16)

    def test_a_node_that_refuses_a_stub_gets_no_copy(self, make_harness):
        """It may be out of memory."""
        harness = make_harness()
        harness.set("old")
        harness.switch()
        execute = harness.nodes[1].store.execute
        refused = NodeRefusedError("out of memory")
        harness.nodes[1].store.execute = lambda command: (
            refused if isinstance(command, GetOrStub) else execute(command)
        )
        assert harness.get() == "old"
        assert harness.held(1) is None

    def test_a_newer_value_stays(self, make_harness):
        """What was written during a copy is not replaced."""
        harness = make_harness()
        harness.set("old")
        newer = harness.held(0)[0][0], b"\xa5newer"
        harness.switch()
        harness.before(1, Cas, lambda: harness.plant(1, newer))
        harness.get()
        assert harness.held(1)[0] == newer

    def test_two_copies_at_once_are_one(self, make_harness):
        """The second finds the stub of the first, and either may store."""
        harness = make_harness()
        harness.set("old")
        move = harness.switch()
        tasks = [harness.start(single.get(harness.cluster, "k", None)) for _ in range(3)]
        harness.finish(*tasks)
        assert [task.result for task in tasks] == ["old"] * 3
        assert move.copied == 1

    def test_a_copy_that_is_late_is_not_stored(self, make_harness):
        """A process that is stopped during it finds its stub gone."""
        harness = make_harness()
        harness.set("old")
        harness.switch()
        harness.before(1, Cas, lambda: harness.nodes[1].store.execute(Delete(b"k")))
        assert harness.get() == "old"
        assert harness.held(1) is None

    def test_a_value_of_an_abandoned_recompute_is_left(self, make_harness):
        """Another caller may recompute it just now."""
        harness = make_harness()
        harness.set("old")
        harness.switch()
        mark = abandoned(b"m")
        harness.before(1, GetOrStub, lambda: harness.plant(1, mark))
        assert harness.get() == "old"
        assert harness.held(1)[0] == mark


class TestOrder:
    """A write or delete reaches the node that values are copied from before the one they are copied to."""

    @pytest.mark.parametrize("write", ["set", "delete"])
    def test_of_a_process_that_has_switched(self, make_harness, write):
        """The old value is gone when the new node hears of it."""
        harness = make_harness()
        harness.set("old")
        harness.switch()
        harness.get()
        seen = []
        command = Set if write == "set" else Delete
        harness.before(1, command, lambda: seen.append(harness.held(0)))
        harness.set("new") if write == "set" else harness.delete()
        assert seen == [None]

    def test_of_a_process_that_has_announced(self, make_harness):
        """The new value is there when the copy of the old one is deleted."""
        harness = make_harness()
        harness.set("old")
        old = harness.held(0)
        harness.announce()
        seen = []
        harness.before(1, Delete, lambda: seen.append(harness.held(0)))
        harness.set("new")
        assert seen == [harness.held(0)] != [old]


class TestTags:
    """An invalidated tag stays invalidated, whichever process invalidates it."""

    def request(self, harness, process, source):
        """Return a call of a process for the value of a source, with a tag by its result."""
        process = harness.processes[process]

        async def load():
            version = source[0]
            await process.cluster.io.sleep(0.2)
            return version

        protection = process.protection
        policy = CachePolicy(ttl=60.0, jitter=0.0)
        return Request(
            process.cluster, "k", load, policy, protection, protection.direct, (), lambda _: ["t"]
        )

    @pytest.mark.parametrize("invalidating", [0, 1])
    def test_a_recompute_that_began_before_it_is_void(self, make_harness, invalidating):
        """The tag is logged on both nodes: a recompute looks at the log of its own."""
        harness = make_harness(processes=2)
        source = [1]
        for place in (0, 1):
            harness.announce(place)
        harness.run(cached_value.get(self.request(harness, 0, source)))
        harness.run(tags.invalidate(harness.processes[0].cluster, "t"))
        harness.switch(0)
        other = 1 - invalidating
        recompute = harness.start(cached_value.get(self.request(harness, other, source)), other)
        harness.advance(0.1)
        source[0] = 2
        cluster = harness.processes[invalidating].cluster
        assert harness.run(tags.invalidate(cluster, "t"), invalidating) is True
        harness.finish(recompute)
        for place in (0, 1):
            assert harness.run(cached_value.get(self.request(harness, place, source)), place) == 2

    @pytest.mark.parametrize("invalidating", [0, 1])
    def test_a_copied_value_is_void_after_it(self, make_harness, invalidating):
        """The versions on both nodes are removed."""
        harness = make_harness(processes=2)
        source = [1]
        for place in (0, 1):
            harness.announce(place)
        assert harness.run(cached_value.get(self.request(harness, 0, source))) == 1
        harness.switch(0)
        source[0] = 2
        assert harness.run(cached_value.get(self.request(harness, 0, source))) == 1  # copied
        assert harness.nodes[1].held(own_key(TAGS, b"t")) is not None
        cluster = harness.processes[invalidating].cluster
        assert harness.run(tags.invalidate(cluster, "t"), invalidating) is True
        for place in (0, 1):
            assert harness.run(cached_value.get(self.request(harness, place, source)), place) == 2


@pytest.mark.parametrize("seed", range(20))
def test_a_counter_loses_no_step(make_harness, seed):
    """Callers of a process that has switched count at once while the counter moves."""
    harness = make_harness(seed=seed, uneven=True)
    harness.set(100)
    harness.switch()
    tasks = [harness.start(counters.incr(harness.cluster, "k", 1, None, None, 0)) for _ in range(8)]
    harness.finish(*tasks)
    assert sorted(task.result for task in tasks) == list(range(101, 109))
