"""A call that ejects its node is tried once more, on the stand-in, if that is safe and seldom."""

from __future__ import annotations

import pytest

from operations.failover_harness import FailoverHarness
from operations.harness import closing
from shardcache.core.commands import (
    Delete,
    DeleteMany,
    Get,
    GetMany,
    Gets,
    Incr,
    Set,
    SetMany,
    When,
)
from shardcache.core.keys import KeySpace
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.core.reserved_keys import TAGS, own_key
from shardcache.errors import NodeTimeoutError, NodeUnavailableError, PartialFailureError
from shardcache.operations.cluster.failover import BURST, SHARE, Failover
from shardcache.operations.keys import counters
from shardcache.strategies.pymemcache import Pymemcache
from shardcache.strategies.rendezvous import Rendezvous

PAYLOAD = (0, b"v")


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(FailoverHarness)


@pytest.fixture
def harness(make_harness):
    """Return three nodes, the first of which is dead and not ejected yet, with its keys in `mine`."""
    made = make_harness()
    made.mine = made.keys_of(0, 6)
    made.cluster.raises = True
    made.nodes[0].up = False
    return made


class TestWhatIsTried:
    """Reads, sets and deletes."""

    def test_a_read_is_a_miss_and_no_error(self, harness):
        """The first call to a dead node ejects it, and is answered by the stand-in."""
        assert harness.get(harness.mine[0]) is None
        assert harness.ejected(0)
        assert harness.members[0].detoured == 1

    def test_a_write_is_not_lost(self, harness):
        """It is stored where it is looked for from now on."""
        assert harness.store("v", key=harness.mine[0]) is True
        assert harness.get(harness.mine[0]) == "v"

    def test_a_delete_is_answered(self, harness):
        """It counts for the ejected node as any other."""
        assert harness.delete(harness.mine[0]) is False
        assert harness.members[0].refused == 1

    def test_many_keys_are_split_over_their_stand_ins(self, harness):
        """Each is answered in its place."""
        keys = [*harness.mine, *harness.keys_of(1, 2)]
        assert harness.set_many({key: key for key in keys}) == []
        assert harness.get_many(*keys) == {key: key for key in keys}
        harness.process.prober.restore(harness.members[0].health)
        assert harness.get_many(*keys) == {key: key for key in keys}
        harness.process.prober.restore(harness.members[0].health)
        assert harness.delete_many(*keys) == len(keys)

    def test_a_stand_in_that_fails_too_fails_its_part(self, harness):
        """There is no third try: the errors of its keys reach the caller."""
        harness.nodes[1].up = False
        with pytest.raises(PartialFailureError) as raised:
            harness.get_many(*harness.mine)
        refused = set(raised.value.failed)
        assert refused == {key for key in harness.mine if harness.order(key)[1] == 1}
        assert refused != set(harness.mine)

    @pytest.mark.parametrize("clearable", [False, True])
    def test_a_clearable_name_is_found(self, make_harness, clearable):
        """The generation in a name is no part of its place."""
        harness = make_harness(3, clearable=clearable)
        keys = harness.keys_of(0, 4)
        harness.get(keys[0])  # a clearable client looks at its generation first
        harness.nodes[0].up = False
        assert harness.store("v", key=keys[0]) is True
        harness.process.prober.restore(harness.members[0].health)
        assert harness.set_many(dict.fromkeys(keys[1:], "v")) == []
        assert harness.get_many(*keys) == dict.fromkeys(keys, "v")

    def test_strategies_that_hash_the_callers_key_find_its_place(self, make_harness):
        """Without the namespace, which is part of the name only."""
        harness = make_harness(3)
        cluster = harness.cluster
        cluster.keys = KeySpace("shop")
        topology = Topology(cluster.topology.nodes, Pymemcache())
        harness.process.cluster = cluster = cluster.with_nodes(topology, cluster.members)
        key = next(key for key in map(str, range(99)) if harness.order(key)[0] == 0)
        harness.nodes[0].up = False
        assert harness.store("v", key=key) is True
        assert harness.detoured(harness.nodes[harness.order(key)[1]], key) is not None


class TestWhatIsNot:
    """What might be done twice, and what has no other node."""

    def test_a_call_to_a_node_that_is_not_the_key_s_own(self, harness):
        """While keys move, a stand-in of the new node does not answer for the old one."""
        harness.kill(0)
        name = harness.cluster.keys.canonical(harness.mine[0].encode())
        harness.nodes[1].up = False
        reply = harness.run(harness.cluster.ask(harness.members[1], Delete(name)))
        assert isinstance(reply, NodeUnavailableError)

    @pytest.mark.parametrize(
        "command",
        [
            Gets(b"k"),
            Incr(b"k", 1),
            Set(b"k", PAYLOAD, None, When.ABSENT),
            Set(b"k", PAYLOAD, None, When.PRESENT),
            Get(own_key(TAGS, b"t")),
            GetMany([b"k", own_key(TAGS, b"t")]),
        ],
    )
    def test_commands(self, harness, command):
        """Those that count, add or compare, and keys of shardcache's own: their operations go on."""
        assert isinstance(harness.ask(0, command), NodeUnavailableError)
        assert harness.members[0].detoured == 0

    def test_a_counter_may_have_been_moved(self, harness):
        """An `incr` whose reply was lost is not repeated."""
        key = harness.mine[0]
        with pytest.raises(NodeUnavailableError):
            harness.run(counters.incr(harness.cluster, key, 1, 1, None, 0))

    @pytest.mark.parametrize(
        "command",
        [Get(b"k"), GetMany([b"k"]), Set(b"k", PAYLOAD), SetMany([]), Delete(b"k"), DeleteMany([])],
    )
    def test_the_members_own_door(self, harness, command):
        """A vote or a flush is of that very node."""
        reply = harness.run(harness.cluster.ask_member(harness.members[0], command))
        assert isinstance(reply, NodeUnavailableError)
        assert harness.members[0].detoured == 0

    def test_a_node_that_is_not_ejected(self, harness):
        """A single timeout leaves the key where it is, and a stand-in would know nothing of it."""
        harness.nodes[0].up, harness.nodes[0].stopped = True, True
        with pytest.raises(NodeTimeoutError):
            harness.get(harness.mine[0])
        assert harness.members[0].detoured == 0

    def test_a_call_without_time(self, harness):
        """The timeout that ejects the node has used up the call's."""
        harness.nodes[0].up, harness.nodes[0].stopped = True, True
        for _ in range(3):
            began = harness.now
            with pytest.raises(NodeTimeoutError):
                harness.get(harness.mine[0])
            assert harness.now - began == pytest.approx(harness.timeout)
        assert harness.ejected(0)
        assert harness.members[0].detoured == 0

    def test_one_that_a_stand_in_has_failed(self, harness):
        """A second try of that would be a third, whichever node it went to."""
        harness.get(harness.mine[0])
        _, stand_in, _ = harness.cluster.route(harness.mine[0])
        place = int(stand_in.node.name[1:])
        harness.nodes[place].loses = "replies"
        harness.received[place].clear()
        for call in (harness.get, harness.get_many):
            with pytest.raises((NodeUnavailableError, PartialFailureError)):
                call(harness.mine[0])
        assert len(harness.received[place]) == 2

    def test_without_a_stand_in(self, harness):
        """All others are ejected."""
        harness.kill(1, 2)
        with pytest.raises(NodeUnavailableError):
            harness.get(harness.mine[0])

    def test_one_that_was_refused(self, make_harness):
        """A call that began before the ejection, and comes after it, was never sent."""
        harness = make_harness(3)
        harness.kill(0)
        assert isinstance(harness.ask(0, Get(b"k")), NodeUnavailableError)
        timed = harness.run(harness.cluster.ask_many([(harness.members[0], Get(b"k"))]))
        assert isinstance(timed[0], NodeUnavailableError)


class TestBudget:
    """Second tries are a tenth of all calls, so that a failing node does not double the load."""

    def test_a_burst_is_bounded(self, harness):
        """After so many at once the next calls have their errors."""
        key = harness.mine[0]
        failed = 0
        for _ in range(3 * int(BURST)):
            harness.process.prober.restore(harness.members[0].health)
            try:
                harness.get(key)
            except NodeUnavailableError:
                failed += 1
        tries = 3 * BURST - failed
        assert BURST <= tries <= BURST + SHARE * (3 * BURST + tries)

    def test_a_tenth_of_the_calls_is_earned(self):
        """One for ten calls, and never more than a burst is saved."""
        failover = Failover(None, {})
        assert [failover.admits(0) for _ in range(11)] == [True] * 10 + [False]
        assert not failover.admits(9)
        assert [failover.admits(10), failover.admits(10)] == [True, False]
        assert [failover.admits(10_000) for _ in range(11)] == [True] * 10 + [False]

    def test_a_node_that_leaves_takes_no_budget_along(self):
        """Its calls are not among those of the nodes that stay."""
        failover = Failover(None, {})
        assert failover.admits(1_000_000)
        assert failover.admits(0)
        assert failover.admits(10)

    def test_views_share_one_budget_after_a_change(self):
        """Otherwise each of them would add a tenth."""
        topology = Topology([Node("memory://a")], Rendezvous())
        first = Failover(topology, {})
        views = [first.over(topology, {}) for _ in range(2)]
        assert [views[place % 2].admits(0) for place in range(11)] == [True] * 10 + [False]
