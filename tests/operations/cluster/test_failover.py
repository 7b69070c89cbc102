"""The keys of an ejected node are kept on a stand-in until it is back."""

from __future__ import annotations

import pytest

from operations.failover_harness import CAP, FailoverHarness
from operations.harness import closing
from shardcache.core.capabilities import CAS, EVERYTHING, STUBS
from shardcache.core.commands import (
    Cas,
    CommandList,
    Delete,
    DeleteCas,
    Get,
    GetOrStub,
    Gets,
    Set,
    Touch,
    When,
)
from shardcache.core.leases import LockPolicy
from shardcache.core.lifetimes import KEEP
from shardcache.core.reserved_keys import DETOURED, RESERVED
from shardcache.errors import NodeUnavailableError, PartialFailureError
from shardcache.operations.cluster import leftovers
from shardcache.operations.cluster.failover import StandIn
from shardcache.operations.invalidation import clearing
from shardcache.operations.keys import admin, ages, single
from shardcache.operations.locks.acquire import attempt

KEYS = [f"k{number}" for number in range(40)]


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(FailoverHarness)


@pytest.fixture
def harness(make_harness):
    """Return three nodes, the first of which is killed and ejected, with its keys in `mine`."""
    made = make_harness()
    made.mine = made.keys_of(0, 6)
    made.kill(0)
    return made


class TestPlace:
    """Which node stands in for another."""

    @pytest.mark.parametrize("out", [(0,), (1, 3), (0, 1, 2)])
    def test_it_is_the_next_in_the_order_of_preference_that_answers(self, make_harness, out):
        """Each key has its own order, so the keys of one node are spread over the others."""
        harness = make_harness(5)
        harness.kill(*out)
        used = set()
        for key in map("many{}".format, range(120)):
            assert harness.store(key, key=key) is True
            first, *rest = harness.order(key)
            if first not in out:
                assert harness.held(key) is not None
                continue
            place = next(each for each in rest if each not in out)
            assert harness.detoured(harness.nodes[place], key) is not None
            used.add(place)
            assert harness.get(key) == key
        assert used == set(range(5)) - set(out)

    def test_the_name_on_it_is_reserved(self, harness):
        """No caller's key has it, so the value cannot be taken for one of the stand-in's own keys."""
        key = harness.mine[0]
        harness.store("v", key=key)
        names = [name for node in harness.nodes for name in node.store._entries]
        assert names == [DETOURED + key.encode()]
        assert DETOURED.startswith(RESERVED)

    def test_there_is_none_when_all_are_ejected(self, harness):
        """Then calls are refused, as without a failover."""
        harness.kill(1, 2)
        refused = harness.members[0].refused
        assert harness.get(harness.mine[0]) is None
        assert harness.store(1, key=harness.mine[0]) is False
        assert harness.members[0].refused == refused + 2

    def test_a_healthy_node_is_asked_as_without(self, harness):
        """Its commands are the same, and none takes a detour."""
        (key,) = harness.keys_of(1, 1)
        harness.received[1].clear()
        before = harness.members[0].detoured
        harness.store("v", 7.0, key=key)
        harness.get(key)
        assert [type(each) for each in harness.received[1]] == [Set, Get]
        assert [each.key for each in harness.received[1]] == [key.encode()] * 2
        assert [member.detoured for member in harness.members] == [before, 0, 0]

    def test_one_that_can_do_less_is_passed_over(self, make_harness):
        """A node without CAS and stubs can recompute nothing; it may stand in for one of its kind."""
        harness = make_harness(3)
        key = next(key for key in KEYS if harness.order(key) == [0, 1, 2])
        harness.members[1].supports = EVERYTHING - CAS - STUBS
        harness.kill(0)
        harness.store("v", key=key)
        assert harness.detoured(harness.nodes[2], key) is not None
        harness.members[0].supports = EVERYTHING - CAS
        harness.members[1].supports = EVERYTHING - CAS
        harness.store("v", key=key)
        assert harness.detoured(harness.nodes[1], key) is not None

    def test_a_change_of_nodes_is_one_of_the_stand_ins(self, make_harness):
        """The keys of an ejected node go to the next of the nodes that there are then."""
        harness = make_harness(3)
        key = next(key for key in KEYS if harness.order(key) == [0, 1, 2])
        cluster = harness.cluster
        topology = cluster.topology.removing("n1")
        members = {name: each for name, each in cluster.members.items() if name != "n1"}
        harness.process.cluster = cluster.with_nodes(topology, members)
        harness.kill(0)
        harness.store("v", key=key)
        assert harness.detoured(harness.nodes[2], key) is not None


class TestGutter:
    """Spare nodes in place of the next ones: the same mechanism with another list."""

    def test_spare_nodes_keep_the_keys_of_those_that_are_out(self, make_harness):
        """The other nodes get none of them; what they keep lives as short."""
        harness = make_harness(3, spares=2)
        mine = harness.keys_of(0, 20)
        harness.kill(0)
        assert harness.set_many(dict.fromkeys(mine, "v")) == []
        assert harness.get_many(*mine) == dict.fromkeys(mine, "v")
        kept = [sum(bool(harness.detoured(spare, key)) for key in mine) for spare in harness.spares]
        assert sum(kept) == 20
        assert all(kept)
        assert harness.received[1:] == [[], []]
        assert harness.detoured(harness.owner(mine[0]), mine[0])[1] == pytest.approx(
            harness.now + CAP, abs=1
        )

    def test_a_spare_node_that_is_ejected_has_another(self, make_harness):
        """A spare node is watched as any other is."""
        harness = make_harness(2, spares=2)
        mine = harness.keys_of(0, 20)
        harness.kill(0)
        harness.spares[0].up = False
        for key in mine:
            harness.store("v", key=key)
        assert harness.cluster.spares["s0"].health.ejected
        assert harness.set_many(dict.fromkeys(mine, "v")) == []
        assert all(harness.detoured(harness.spares[1], key) for key in mine)

    def test_they_stay_when_the_nodes_change(self, make_harness):
        """A change of nodes is none of theirs."""
        harness = make_harness(3, spares=1)
        cluster = harness.cluster
        topology = cluster.topology.removing("n1")
        members = {name: each for name, each in cluster.members.items() if name != "n1"}
        changed = cluster.with_nodes(topology, members)
        assert changed.spares is cluster.spares
        assert list(changed.all_members) == ["n0", "n2", "gutter s0"]

    def test_a_flush_empties_them(self, make_harness):
        """What they keep would be found again."""
        harness = make_harness(2, spares=1)
        (key,) = harness.keys_of(0, 1)
        harness.kill(0)
        harness.store("v", key=key)
        harness.run(admin.flush_all(harness.cluster))
        assert harness.get(key) is None

    def test_all_stand_ins_are_reported(self, make_harness):
        """What looks at every node where a key may be looks at them as well."""
        harness = make_harness(2, spares=2)
        assert harness.cluster.reachable == harness.members
        harness.kill(0)
        *members, first, second = harness.cluster.reachable
        assert members == harness.members
        assert {first.member, second.member} == set(harness.cluster.spares.values())


class TestLifetimes:
    """A value on a stand-in lives for a minute at most."""

    @pytest.mark.parametrize(
        ("asked", "kept"), [(None, CAP), (3600.0, CAP), (CAP, CAP), (5.0, 5.0)]
    )
    def test_it_is_the_shorter_of_the_two(self, harness, asked, kept):
        """For one key, for many, for an `add`, a counter and a touch."""
        one, two, three, four, five, _ = harness.mine
        began = harness.now
        harness.store("v", asked, key=one)
        harness.set_many({two: "v", three: "v"}, asked)
        harness.store("v", asked, When.ABSENT, key=four)
        harness.store("v", 1.0, key=five)
        _, member, _ = harness.cluster.route(five)
        harness.run(harness.cluster.ask(member, Touch(five.encode(), asked)))
        for key in (one, two, three, four, five):
            _, expires = harness.detoured(harness.owner(key), key)
            assert expires == pytest.approx(began + kept, abs=0.1)

    def test_leases_and_marks_keep_theirs(self, harness):
        """A stub has the lease of its recompute, however long."""
        key = harness.mine[0]
        _, member, _ = harness.cluster.route(key)
        harness.run(harness.cluster.ask(member, GetOrStub(key.encode(), b"m" * 16, 90.0)))
        assert harness.detoured(member.backend, key)[1] == pytest.approx(harness.now + 90, abs=0.1)


class TestCalls:
    """What the calls of a client find and leave on a stand-in."""

    def test_reads_and_writes(self, harness):
        """They answer as they do on the node itself."""
        key = harness.mine[0]
        assert harness.get(key) is None
        assert harness.store("v", 9.0, When.ABSENT, key=key) is True
        assert harness.store("w", 9.0, When.ABSENT, key=key) is False
        assert harness.get(key) == "v"
        assert harness.gets(key)[0] == "v"
        assert harness.run(ages.ttl(harness.cluster, key)) == pytest.approx(9.0, abs=0.1)
        assert harness.run(ages.exists(harness.cluster, key)) is True
        assert harness.delete(key) is True
        assert harness.delete(key) is False
        assert harness.get(key) is None

    def test_counters(self, make_harness):
        """They count on, from the `initial` value, below zero too."""
        harness = make_harness(3)
        home = harness.order("k")[0]
        harness.kill(home)
        assert harness.incr(2, initial=5) == 5
        assert harness.incr(2) == 7
        assert harness.decr(9, floor=None) == -2

    def test_many(self, harness):
        """Keys of all nodes in one call, in the one command that each node gets."""
        for received in harness.received:
            received.clear()
        assert harness.set_many({key: key for key in KEYS}) == []
        assert harness.get_many(*KEYS) == {key: key for key in KEYS}
        assert harness.delete_many(*KEYS) == len(KEYS)
        assert harness.received[0] == []
        # Its own keys, and those that it keeps for another.
        assert len(harness.received[1]) == len(harness.received[2]) == 6

    @pytest.mark.parametrize("ttl", [None, KEEP])
    def test_a_cas_is_refused(self, harness, ttl):
        """A token is of one node: on another it would compare with something else."""
        key = harness.mine[0]
        harness.store("v", key=key)
        _, token = harness.gets(key)
        sent = [len(each) for each in harness.received]
        assert harness.run(single.cas(harness.cluster, key, "w", token, ttl)) is False
        harness.cluster.raises = True
        with pytest.raises(NodeUnavailableError, match="ejected"):
            harness.run(single.cas(harness.cluster, key, "w", token, ttl))
        assert [len(each) for each in harness.received] == sent

    def test_a_delete_is_the_ejected_nodes_too(self, harness):
        """It fails there and counts, for one key and for many; the caller gets the stand-in's answer."""
        one, two, *_ = harness.mine
        harness.set_many({one: 1, two: 2})
        member = harness.members[0]
        harness.cluster.raises = True
        before = member.refused, member.errors
        assert harness.delete(one) is True
        assert harness.delete_many(one, two) == 1
        calls = 1 + len({harness.owner(one), harness.owner(two)})
        assert (member.refused, member.errors) == (before[0] + calls, before[1] + calls)

    def test_no_error_reaches_a_caller(self, harness):
        """With `on_error="raise"` reads and writes go on."""
        harness.cluster.raises = True
        key = harness.mine[0]
        assert harness.store("v", key=key) is True
        assert harness.get(key) == "v"
        assert harness.get_many(key) == {key: "v"}

    def test_a_stand_in_that_fails_is_a_failing_node(self, harness):
        """Its error is one as any other, and it is ejected for it: the next one stands in then."""
        key = next(key for key in KEYS if harness.order(key) == [0, 1, 2])
        harness.store("v", key=key)
        harness.nodes[1].up = False
        harness.cluster.raises = True
        with pytest.raises(NodeUnavailableError):
            harness.get(key)
        assert harness.ejected(1)
        assert harness.get(key) is None

    def test_signed_values_are_read_back(self, make_harness):
        """A signature binds a value to the caller's key, not to its name on a stand-in."""
        harness = make_harness(3, signed=True)
        (key,) = harness.keys_of(0, 1)
        harness.kill(0)
        harness.store("v", 9.0, key=key)
        assert harness.get(key) == "v"


class TestLeftovers:
    """Lock tokens and marks that a stand-in may still keep."""

    def test_one_on_a_stand_in_is_removed_there(self, harness):
        """Although its owner is ejected, and the stand-in itself was silent for a moment."""
        key, mark = harness.mine[0], (0, b"mark")
        _, stand_in, _ = harness.cluster.route(key)
        harness.run(harness.cluster.ask(stand_in, Set(key.encode(), mark)))
        leftovers.remove_later(harness.cluster, [stand_in], key.encode(), mark)
        assert harness.detoured(stand_in.backend, key) is not None
        harness.advance(1.0)
        assert harness.detoured(stand_in.backend, key) is None
        assert stand_in.leftovers == {}


class TestNoDetour:
    """What is about a node is not asked of another."""

    def test_a_lock_is_voted_on_by_its_own_nodes(self, make_harness):
        """The vote of an ejected node is missing, and no other node votes twice."""
        harness = make_harness(3)
        harness.kill(0)
        lock = harness.run(attempt(harness.cluster, "job", LockPolicy()))
        assert lock is not None
        names = [name for node in harness.nodes for name in node.store._entries]
        assert len(names) == 2
        assert not any(name.startswith(DETOURED) for name in names)

    def test_a_member_is_refused_at_its_own_door(self, harness):
        """One or many, with or without times."""
        cluster, (first, *_) = harness.cluster, harness.members
        before = first.detoured
        asks = [(first, Get(b"k"))]
        for work in (
            cluster.ask_member(*asks[0]),
            cluster.ask_members(asks),
            cluster.ask_members_timed(asks),
        ):
            reply = str(harness.run(work))
            assert "ejected" in reply
        assert first.detoured == before

    def test_all_nodes_are_pinged(self, harness):
        """The ejected one as well, which answers for itself."""
        pings = harness.run(admin.ping(harness.cluster))
        assert isinstance(pings["n0"], NodeUnavailableError)


class TestReturn:
    """When the node is back, its keys are its own again."""

    def test_its_keys_are_read_there(self, harness):
        """What the stand-in kept is not asked for any more."""
        key = harness.mine[0]
        harness.store("v", key=key)
        harness.nodes[0].up = True
        harness.advance(2.0)
        assert not harness.ejected(0)
        assert harness.get(key) is None
        assert harness.store("w", key=key) is True
        assert harness.held(key) is not None

    def test_a_token_of_the_stand_in_matches_nothing_there(self, harness):
        """Each node numbers its writes, so both may have the same number for different values."""
        key = harness.mine[0]
        harness.store("v", key=key)
        value, token = harness.gets(key)
        number = harness.owner(key).store._writes
        harness.nodes[0].up = True
        harness.advance(2.0)
        harness.nodes[0].store._writes = number - 1
        harness.store("newer", key=key)
        assert (value, harness.run(single.cas(harness.cluster, key, "w", token, None))) == (
            "v",
            False,
        )
        assert harness.get(key) == "newer"

    def test_it_is_probed_although_no_call_is_refused(self, harness):
        """The prober runs as long as calls take the detour, after a fork too."""
        prober = harness.process.prober
        prober._watch = None  # as in a child, where no thread of the parent runs
        harness.get(harness.mine[0])
        assert prober._watch is not None

    @pytest.mark.parametrize(
        ("command", "node"),
        [
            (Get(b"k"), "owner"),
            (Set(b"k", (0, b"v")), "owner"),
            (Delete(b"k"), "owner"),
            (Gets(b"k"), "stand-in"),
            (Cas(b"k", (0, b"v"), 1), "stand-in"),
            (DeleteCas(b"k", 1), "stand-in"),
            (CommandList([Get(b"k")]), "stand-in"),
        ],
    )
    def test_the_steps_of_an_operation_that_began_before(self, harness, command, node):
        """What stands for itself goes to the owner; tokens are of the stand-in, and go there."""
        _, stand_in, _ = harness.cluster.route(harness.mine[0])
        harness.members[0].health.restore(harness.now)
        harness.nodes[0].up = True
        before = [len(each) for each in harness.received]
        harness.run(harness.cluster.ask(stand_in, command))
        place = 0 if node == "owner" else int(stand_in.member.node.name[1:])
        assert len(harness.received[place]) == before[place] + 1
        assert harness.members[0].refused == 0

    def test_a_write_at_the_moment_of_the_return_is_noted(self, harness):
        """The stand-in has it, so what the owner has is old."""
        _, stand_in, _ = harness.cluster.route(harness.mine[0])
        owner = harness.members[0]
        owner.health.error = None  # the first thing that the return of a node changes for others
        harness.run(harness.cluster.ask(stand_in, Set(b"k", (0, b"v"))))
        assert owner.health.pending.keys_until(harness.now) == [b"k"]

    def test_claims_are_no_writes(self, harness):
        """Of a list of commands only those are noted that write a value."""
        _, stand_in, _ = harness.cluster.route(harness.mine[0])
        commands = [GetOrStub(b"a", b"0123456789abcdef", 2.0), Set(b"b", (0, b"v"))]
        harness.run(harness.cluster.ask(stand_in, CommandList(commands)))
        assert harness.members[0].health.pending.keys_until(harness.now) == [b"b"]


class TestClearable:
    """A namespace that can be cleared."""

    def test_a_clear_holds_on_stand_ins(self, make_harness):
        """The generation is part of the name there too."""
        harness = make_harness(3, clearable=True)
        mine = harness.keys_of(0, 3)
        harness.kill(0)
        harness.set_many(dict.fromkeys(mine, "v"))
        assert harness.get_many(*mine) == dict.fromkeys(mine, "v")
        cleared = clearing.clear(harness.cluster, harness.process.generations)
        assert harness.run(cleared) is True
        assert harness.get_many(*mine) == {}


def test_stand_ins_are_one_for_each_pair(harness):
    """Keys of one owner on one stand-in are one group, and one command."""
    found = {harness.cluster.route(key)[1] for key in harness.mine}
    assert all(isinstance(each, StandIn) for each in found)
    assert len(found) == len({each.member for each in found})


def test_errors_of_a_batch_name_keys_that_no_node_keeps(harness):
    """With all nodes out, a batch fails as without a failover."""
    harness.kill(1, 2)
    harness.cluster.raises = True
    with pytest.raises(PartialFailureError):
        harness.get_many(*KEYS)
