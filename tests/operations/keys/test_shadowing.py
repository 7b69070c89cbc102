"""Sampled reads are compared with what other nodes have, in virtual time."""

from __future__ import annotations

import random

import pytest

from operations.client_harness import ClientHarness
from operations.harness import EventLog, closing
from shardcache.core.capabilities import AGES, LISTS
from shardcache.core.commands import CommandList, FlushAll, GetAged, GetMany, Set
from shardcache.core.events import ShadowCompared
from shardcache.core.placement.topology import Topology
from shardcache.core.shadow import SampledReads
from shardcache.core.values.flags import TEXT_FLAGS
from shardcache.errors import NodeUnavailableError
from shardcache.operations.keys.shadowing import BATCH, Comparer, Rules, Side
from shardcache.strategies.ketama import Ketama
from shardcache.strategies.rendezvous import Rendezvous

SETTLE = 2.0


class ShadowHarness(ClientHarness):
    """A client of the first two nodes, whose reads are compared with the other two."""

    def __init__(self, strategy=None, settle=SETTLE, queue=100):
        super().__init__(4)
        cluster = self.cluster
        self.there = self.side("n2", "n3", strategy=strategy or Rendezvous())
        self.here = self.side("n0", "n1", strategy=cluster.topology.strategy)
        self.process.cluster = cluster.with_nodes(self.here.topology, self.here.members)
        self.reads = SampledReads(1.0, queue, random.Random(1).random)
        self.log = EventLog(ShadowCompared)
        self.closed = False
        self.comparer = Comparer(
            cluster.io,
            self.reads,
            here=lambda: None if self.closed else self.here,
            there=self.there,
            payloads=cluster.payloads,
            rules=Rules(self.timeout, settle, 2.0, queue),
            notify=self.log.shadow_compared,
        )

    def side(self, *names, strategy):
        """Return some of the nodes as a side."""
        members = {name: self.cluster.members[name] for name in names}
        topology = Topology([member.node for member in members.values()], strategy)
        return Side(topology, members, lambda member: member.backend)

    def put(self, side, key, value, ttl=None):
        """Store a value on one side, as its own client would."""
        own = self.cluster.with_nodes(side.topology, side.members)
        name, member, _ = own.route(key)
        payload = own.payloads.encode(name, value)
        self.run(own.ask(member, Set(name, payload, ttl)))

    def plant(self, key, here=None, there=None, ttl=None):
        """Store values on the sides."""
        for side, value in ((self.here, here), (self.there, there)):
            if value is not None:
                self.put(side, key, value, ttl)

    def read(self, *keys):
        """Note reads of keys, as a client does."""
        self.reads.note([key.encode() for key in keys])

    def turn(self):
        """Compare once; return whether there was anything."""
        return self.run(self.comparer.turn())

    def settle(self):
        """Compare all, and look again at what differs."""
        while self.comparer.counts()["waiting"]:
            if not self.turn():
                self.advance(SETTLE)

    def counts(self):
        """Return the counts that are not zero."""
        return {name: count for name, count in self.comparer.counts().items() if count}


@pytest.fixture
def make():
    """Yield a maker of harnesses."""
    yield from closing(ShadowHarness)


def test_each_outcome_is_counted_and_reported(make):
    """Of two sides with values planted on them."""
    world = make()
    world.plant("same", "v", "v")
    world.plant("differs", "v", "w")
    world.plant("here", here="v")
    world.plant("there", there="v")
    world.plant("neither")
    world.plant("ttl", here="v")
    world.put(world.there, "ttl", "v", ttl=60)
    world.read("same", "differs", "here", "there", "neither", "ttl")
    world.settle()
    each = ("same", "differs", "only_here", "only_there", "ttl_differs", "neither")
    assert world.counts() == dict.fromkeys(each, 1)
    told = {event.key.decode(): event.outcome for event in world.log.events}
    assert told == {
        "same": "same",
        "differs": "differs",
        "here": "only_here",
        "there": "only_there",
        "neither": "neither",
        "ttl": "ttl_differs",
    }
    event = world.log.events[0]
    assert event.here.name in world.here.members
    assert event.there.name in world.there.members
    assert event.error is None


def test_nothing_is_written(make):
    """Neither side gets anything but reads."""
    world = make()
    world.plant("k", "v", "w")
    for received in world.received:
        received.clear()
    world.read("k", "l")
    world.settle()
    sent = [command for received in world.received for command in received]
    assert {type(command) for command in sent} == {CommandList}
    assert {type(each) for command in sent for each in command.commands} == {GetAged}


def test_every_planted_difference_is_found(make):
    """Of 500 keys, each tenth is wrong on the other side."""
    world = make(queue=1000)
    keys = [f"user:{number}" for number in range(500)]
    for number, key in enumerate(keys):
        world.plant(key, "v", "w" if number % 10 == 0 else "v")
    world.read(*keys)
    world.settle()
    wrong = {event.key for event in world.log.events if event.outcome == "differs"}
    assert wrong == {key.encode() for key in keys[::10]}
    assert world.counts() == {"same": 450, "differs": 50}


def test_each_side_has_its_own_strategy(make):
    """A key is looked for where that strategy places it."""
    world = make(strategy=Ketama())
    keys = [f"user:{number}" for number in range(50)]
    for key in keys:
        world.plant(key, "v", "v")
    world.read(*keys)
    world.settle()
    assert world.counts() == {"same": 50}


def test_a_write_on_its_way_is_no_difference(make):
    """What is equal two seconds later was equal."""
    world = make()
    world.plant("k", "old", "old")
    world.put(world.here, "k", "new")
    world.read("k")
    assert world.turn()
    assert world.counts() == {"waiting": 1}
    assert not world.turn()
    world.put(world.there, "k", "new")
    world.advance(SETTLE)
    assert world.turn()
    assert world.counts() == {"same": 1}


def test_without_a_second_look_a_difference_counts_at_once(make):
    """With `settle=0`."""
    world = make(settle=0.0)
    world.plant("k", "v", "w")
    world.read("k")
    assert world.turn()
    assert world.counts() == {"differs": 1}


def test_differences_that_find_no_room_are_dropped(make):
    """The queue of the second looks is bounded as well."""
    world = make(queue=3)
    for key in "abcde":
        world.plant(key, "v", "w")
    world.read("a", "b")
    world.turn()
    world.read("c", "d", "e")
    world.turn()
    assert world.counts() == {"waiting": 3, "dropped": 2}
    world.advance(SETTLE)
    world.settle()
    assert world.counts() == {"differs": 3, "dropped": 2}


def test_a_turn_takes_a_batch(make):
    """So that no node is asked for too much at once, and second looks come first."""
    world = make(queue=1000)
    world.plant("k", "v", "w")
    world.read("k")
    world.turn()
    world.advance(SETTLE)
    world.read(*(f"k{number}" for number in range(2 * BATCH)))
    world.turn()
    assert world.counts() == {"differs": 1, "neither": BATCH - 1, "waiting": BATCH + 1}
    world.settle()
    assert world.counts() == {"differs": 1, "neither": 2 * BATCH}


def test_second_looks_are_bounded_by_a_batch(make):
    """Also when more are due."""
    world = make(queue=1000)
    keys = [f"k{number}" for number in range(BATCH + 1)]
    for key in keys:
        world.plant(key, "v", "w")
    world.read(*keys)
    world.turn()
    world.turn()
    world.advance(SETTLE)
    world.turn()
    assert world.counts() == {"differs": BATCH, "waiting": 1}


@pytest.mark.parametrize("down", [0, 2], ids=["here", "there"])
def test_a_node_that_fails_is_reported(make, down):
    """Its keys are no differences."""
    world = make()
    keys = [f"user:{number}" for number in range(40)]
    for key in keys:
        world.plant(key, "v", "v")
    world.nodes[down].up = False
    world.read(*keys)
    world.settle()
    side = world.here if down == 0 else world.there
    failed = sum(side.owner(key.encode()).node.name == f"n{down}" for key in keys)
    assert world.counts() == {"same": 40 - failed, "failed": failed}
    event = next(event for event in world.log.events if event.outcome == "failed")
    assert "refused" in str(event.error)


def test_an_ejected_node_is_not_asked(make):
    """Its keys fail at once."""
    world = make()
    world.kill(0)
    sent = world.calls(0)
    key = next(key for key in map("k{}".format, range(100)) if world.owner(key) is world.nodes[0])
    world.read(key)
    world.settle()
    assert world.counts() == {"failed": 1}
    assert world.calls(0) == sent


def test_without_a_node_to_ask_keys_fail_at_once(make):
    """All are ejected."""
    world = make()
    for side in (world.here, world.there):
        for member in side.members.values():
            member.health.eject(NodeUnavailableError("refused"), world.now, 0.5)
    sent = [world.calls(node) for node in range(4)]
    world.read("k")
    assert world.turn()
    assert world.counts() == {"failed": 1}
    assert [world.calls(node) for node in range(4)] == sent


def test_a_backend_that_raises_fails_its_batch(make):
    """A plugin's may raise anything; the next turn goes on."""
    world = make()

    def reach(_):
        raise RuntimeError("broken")

    world.here = world.here._replace(reach=reach)
    world.read("k")
    assert world.turn()
    assert world.counts() == {"failed": 1}
    assert isinstance(world.log.events[0].error, RuntimeError)


def test_nodes_that_tell_no_ttl_are_compared_by_value(make):
    """As those of `pymemcache`."""
    world = make()
    for member in world.there.members.values():
        member.supports -= AGES | LISTS
    world.plant("k", here="v")
    world.put(world.there, "k", "v", ttl=5)
    world.plant("l", "v", "w")
    world.read("k", "l", "m")
    world.settle()
    assert world.counts() == {"same": 1, "differs": 1, "neither": 1}
    kinds = {type(command) for received in world.received[2:] for command in received[1:]}
    assert GetMany in kinds


def test_names_with_a_generation_are_placed_without_it(make):
    """A namespace that can be cleared moves no key."""
    world = make()
    stamp = b"~sc:n:0123456789abcdef:"
    names = [b"4:shop:%d" % number for number in range(50)]
    for side in (world.here, world.there):
        assert [side.owner(stamp + name) for name in names] == [side.owner(name) for name in names]


def test_strategies_of_other_clients_hash_the_key_alone(make):
    """The namespace moves no key then."""

    class Alone(Rendezvous):
        hashes_namespace = False

    world = make(strategy=Alone())
    keys = [b"%d" % number for number in range(50)]
    assert all(world.there.owner(b"4:shop:" + key) is world.there.owner(key) for key in keys)


def test_a_client_that_is_closed_compares_nothing_more(make):
    """What waits is left."""
    world = make()
    world.closed = True
    world.read("k")
    assert not world.turn()
    assert world.counts() == {"waiting": 1}
    world.comparer.clear()
    assert world.counts() == {}


def test_the_mark_of_a_recompute_is_no_value(make):
    """One side recomputes just now."""
    world = make()
    world.plant("k", here="v")
    world.nodes[2].store.execute(FlushAll())
    own = world.there.owner(b"k")
    own.backend.store._write(b"k", (4 << 16, b"mark"), own.backend.store._expiry(None))
    world.read("k")
    world.settle()
    assert world.counts() == {"only_here": 1}
    assert world.held("k")[0] == (TEXT_FLAGS, b"v")
