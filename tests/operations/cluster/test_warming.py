"""Keys that move to other nodes: their values follow, with what they are and for as long as they live."""

from __future__ import annotations

import math

import pytest

from operations.harness import EventLog, closing
from operations.moving_harness import WARM_FOR, MovingHarness
from shardcache.core.capabilities import AGES, CAS, EVERYTHING, LISTS
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.commands import (
    CommandList,
    Delete,
    Get,
    GetAged,
    GetMany,
    GetOrStub,
    When,
)
from shardcache.core.events import OldNodesRead
from shardcache.core.reserved_keys import REFRESHING, TAG_LOGS, TAGS, own_key
from shardcache.core.values.flags import (
    ERROR_FLAGS,
    INTEGER_FLAGS,
    MARK_FLAGS,
    TEXT_FLAGS,
    UNKNOWN_FLAGS,
    abandoned,
    stub,
)
from shardcache.core.values.payloads import SignedPayloads
from shardcache.errors import NodeTimeoutError, NodeUnavailableError
from shardcache.operations.cluster import moves
from shardcache.operations.cluster.moves import SPREAD
from shardcache.operations.cluster.warming import with_move
from shardcache.operations.keys import admin, ages, counters, single

ADDED = {"old": (0, 1, 2), "new": (0, 1, 2, 3), "kinds": (False,) * 4}
KEYS = [f"k{number}" for number in range(60)]


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(MovingHarness)


@pytest.fixture
def harness(make_harness):
    """Return a harness whose one process has stored a value, and switched."""
    harness = make_harness()
    harness.set("old", ttl=100)
    harness.switch()
    return harness


class TestReads:
    """A key that is missing on its new node is read on its old one."""

    def test_an_old_node_that_is_to_be_repaired_is_not_read(self, harness):
        """A failed write may have left an old value there, which is deleted in a moment."""
        old = harness.cluster.move.members["n0"]
        failed = NodeTimeoutError("late", "n0")
        old.health.pending.note(Delete(b"another"), failed, harness.now)
        assert harness.get() is None
        old.health.pending.discard([b"another"], harness.now)
        assert harness.get() == "old"

    def test_flushing_all_nodes_flushes_the_old_ones(self, harness):
        """A value that was flushed is not copied."""
        assert harness.run(admin.flush_all(harness.cluster)) is True
        assert harness.get() is None

    def test_a_value_is_found_and_copied(self, harness):
        """The next read finds it on its new node, with the rest of its ttl."""
        ends = harness.held(0)[1]
        harness.advance(30.0)
        assert harness.get() == "old"
        payload, copy_ends = harness.held(1)
        assert payload == harness.held(0)[0]
        assert copy_ends == pytest.approx(ends, abs=0.1)
        harness.sent(0)
        assert harness.get() == "old"
        assert harness.sent(0) == []

    def test_a_value_without_an_expiry_has_none_after_it(self, make_harness):
        """Infinite seconds are left."""
        harness = make_harness()
        harness.set("old")
        harness.switch()
        assert harness.get() == "old"
        assert harness.held(1)[1] == math.inf

    def test_a_key_that_no_node_has_costs_one_read_more(self, make_harness):
        """And leaves no stub."""
        harness = make_harness()
        harness.switch()
        assert harness.get() is None
        assert harness.sent(1) == ["Get"]
        assert harness.sent(0) == ["GetAged"]
        assert harness.held(1) is None

    def test_many_keys_are_read_in_one_more_fan_out(self, make_harness):
        """Each node gets one command for all of its keys at each step."""
        harness = make_harness(**ADDED)
        cluster = harness.cluster
        for key in KEYS:
            harness.set(key.upper(), key)
        moved = [key for key in KEYS if harness.topologies[1].owner(key.encode()).name == "n3"]
        assert 5 < len(moved) < 30
        assert cluster.members["n0"] is harness.process.known["n0"]
        harness.switch()
        for node in range(4):
            harness.sent(node)
        assert harness.get_many(*KEYS, "missing") == {key: key.upper() for key in KEYS}
        assert harness.sent(3) == ["GetMany", "CommandList", "CommandList"]
        assert set(harness.sent(0)) <= {"GetMany", "CommandList", "GetAged"}
        assert all(harness.held(3, key) for key in moved)

    def test_nodes_without_lists_are_asked_one_by_one(self, make_harness):
        """As for every call about many keys."""
        harness = make_harness()
        for key in KEYS[:3]:
            harness.set(key, key)
        for member in harness.process.known.values():
            member.supports = EVERYTHING - LISTS
        harness.switch()
        assert harness.get_many(*KEYS[:3]) == {key: key for key in KEYS[:3]}
        assert harness.sent(1) == ["GetMany", *["GetOrStub"] * 3, *["Cas"] * 3]

    def test_a_stub_of_another_caller_is_read_through(self, harness):
        """It may be that of a copy in progress."""
        harness.plant(1, stub(b"x" * 16))
        assert harness.get() == "old"

    def test_a_kept_error_on_the_new_node_is_left_alone(self, harness):
        """It is newer than what the old node has."""
        harness.plant(1, (ERROR_FLAGS, b"x"))
        assert harness.get() is None
        assert harness.sent(0) == ["Set"]

    def test_an_old_node_that_is_down_is_a_miss(self, harness):
        """Its keys are recomputed, as without a warm-up."""
        harness.nodes[0].up = False
        assert harness.get() is None

    def test_a_failing_new_node_is_no_miss(self, harness):
        """Its error is the result."""
        harness.nodes[1].up = False
        assert harness.get() is None
        assert harness.sent(0) == ["Set"]

    def test_keys_that_stay_cost_nothing(self, make_harness):
        """They are asked for on their own node alone."""
        harness = make_harness(**ADDED)
        stays = next(k for k in KEYS if harness.topologies[1].owner(k.encode()).name != "n3")
        harness.switch()
        harness.get(stays)
        assert [name for node in range(4) for name in harness.sent(node)] == ["Get"]

    def test_reads_and_copies_are_counted_and_reported(self, make_harness):
        """By the client's counters and by an event, which name no key."""
        log = EventLog(OldNodesRead)
        harness = make_harness(log=log)
        harness.set("old")
        move = harness.switch()
        harness.get()
        harness.get("missing")
        assert log.events == [OldNodesRead(1, 1, 1), OldNodesRead(1, 0, 0)]
        counted = move.counters(harness.now)
        assert (counted["reads"], counted["hits"], counted["copied"]) == (2, 1, 1)
        assert counted["seconds_left"] == pytest.approx(WARM_FOR + SPREAD, abs=1)

    def test_it_works_with_keys_that_can_be_cleared(self, make_harness):
        """The generation of the namespace precedes the key on both nodes."""
        harness = make_harness(clearable=True)
        harness.set("old")
        harness.switch()
        assert harness.get() == "old"
        assert harness.delete() is True
        harness.advance(2.0)  # the next call looks along whether the namespace was cleared
        assert harness.get() is None
        harness.set("new")
        harness.advance(2.0)
        assert harness.get() == "new"

    def test_signed_values_stay_valid(self, make_harness):
        """A signature is for a key, not for a node."""
        harness = make_harness()
        cluster = harness.cluster
        cluster.payloads = SignedPayloads(Msgpack(), [b"s" * 32], cluster.io.wall)
        harness.set({"a": 1}, ttl=50)
        harness.switch()
        assert harness.get() == {"a": 1}
        harness.nodes[0].forget()
        assert harness.get() == {"a": 1}


class TestWhatIsCopied:
    """Values are, as what they are; what stands in the place of a value is not."""

    @pytest.mark.parametrize(
        "mark", [stub(b"x" * 16), abandoned(b"x" * 16), (ERROR_FLAGS, b"x"), (0, b"")], ids=repr
    )
    def test_marks_are_not(self, make_harness, mark):
        """A recompute in progress belongs to its node, and a kept error is soon over."""
        harness = make_harness()
        harness.plant(0, mark)
        harness.switch()
        assert harness.get() is None
        assert harness.held(1) is None

    @pytest.mark.parametrize("prefix", [REFRESHING, TAG_LOGS])
    def test_claims_and_logs_are_not(self, make_harness, prefix):
        """They are not even looked for."""
        harness = make_harness()
        name = own_key(prefix, b"k")
        harness.plant(0, (MARK_FLAGS, b"x" * 16), name)
        harness.switch()
        member = harness.cluster.members["n1"]
        assert harness.run(harness.cluster.ask(member, Get(name))) is None
        assert harness.sent(0) == []

    def test_versions_of_tags_are(self, make_harness):
        """A value is valid only with the versions of its tags."""
        harness = make_harness()
        name, version = own_key(TAGS, b"t"), (MARK_FLAGS, b"8 bytes.")
        harness.plant(0, version, name)
        harness.switch()
        member = harness.cluster.members["n1"]
        asked = harness.cluster.ask_many([(member, GetMany([name]))])
        assert harness.run(asked) == [[version]]
        assert harness.nodes[1].held(name) == (version, math.inf)

    @pytest.mark.parametrize(
        ("flags", "scheme", "copied"),
        [
            (TEXT_FLAGS, "redis", True),
            (INTEGER_FLAGS, "redis", True),
            (1, "redis", False),
            (1, "memcached", True),
            (1, "memory", True),
            (UNKNOWN_FLAGS, "memcached", False),
            (UNKNOWN_FLAGS, "redis", False),
        ],
    )
    def test_foreign_values_are_where_the_new_node_keeps_what_they_are(
        self, make_harness, flags, scheme, copied
    ):
        """Redis keeps no flags of other clients, and memcached none that do not fit in 32 bits."""
        harness = make_harness(schemes=("memcached", scheme))
        harness.plant(0, (flags, b"7"))
        move = harness.switch()
        harness.get()
        assert (harness.held(1) is not None) is copied
        assert move.hits == 1

    def test_a_value_whose_end_is_not_known_is_only_read(self, make_harness):
        """A copy might outlive it."""
        harness = make_harness()
        harness.set("old")
        harness.set("other", "l")
        harness.process.known["n0"].supports = EVERYTHING - AGES
        harness.switch()
        assert harness.get_many("k", "l", "m") == {"k": "old", "l": "other"}
        assert harness.sent(0)[2:] == ["GetMany"]
        assert harness.held(1) is None

    def test_a_node_that_cannot_hold_a_copy_gets_none(self, make_harness):
        """Without stubs or CAS an older value could replace a newer one."""
        harness = make_harness()
        harness.set("old")
        harness.process.known["n1"].supports = EVERYTHING - CAS
        harness.switch()
        assert harness.get() == "old"
        assert harness.held(1) is None

    def test_a_value_that_ends_now_is_not(self, make_harness):
        """It has no time left."""
        harness = make_harness()
        harness.set("old", ttl=10)
        harness.switch()
        harness.nodes[0].store.execute = lambda _: (harness.held(0)[0], 0.0)
        assert harness.get() == "old"
        assert harness.held(1) is None


class TestOtherCalls:
    """What each call does with a key that is on its old node only."""

    def test_gets_copies_first(self, harness):
        """Its token is of the new node, where `cas` stores."""
        value, token = harness.run(single.gets(harness.cluster, "k", None))
        assert value == "old"
        assert harness.run(single.cas(harness.cluster, "k", "new", token, None)) is True
        assert harness.get() == "new"
        assert harness.held(0) is None

    def test_ttl_and_exists_copy_first(self, harness):
        """They see what a `get` would find."""
        assert harness.run(ages.exists(harness.cluster, "k")) is True
        assert harness.run(ages.ttl(harness.cluster, "k")) == pytest.approx(100, abs=1)
        assert harness.run(ages.exists(harness.cluster, "missing")) is False

    def test_touch_moves_first(self, harness):
        """The old copy is gone, so that no later read finds its expiry."""
        assert harness.run(single.touch(harness.cluster, "k", 500)) is True
        assert harness.held(1)[1] == pytest.approx(harness.now + 500, abs=1)
        assert harness.held(0) is None
        assert harness.run(single.touch(harness.cluster, "missing", 500)) is False

    def test_a_counter_moves_before_it_counts(self, make_harness):
        """It does not start again."""
        harness = make_harness()
        harness.set(5)
        harness.switch()
        count = counters.incr(harness.cluster, "k", 1, 100, None, 0)
        assert harness.run(count) == 6
        assert harness.held(0) is None
        assert harness.run(counters.decr(harness.cluster, "k", 10, None, None, None)) == -4
        assert harness.run(counters.incr(harness.cluster, "other", 1, 100, None, 0)) == 100

    @pytest.mark.parametrize(
        ("when", "key", "stored"),
        [
            (When.ABSENT, "k", False),
            (When.ABSENT, "missing", True),
            (When.PRESENT, "k", True),
            (When.PRESENT, "missing", False),
        ],
    )
    def test_conditions_hold_for_both_nodes(self, harness, when, key, stored):
        """`add` and `replace` find what `get` finds."""
        store = single.store(harness.cluster, key, "new", None, when)
        assert harness.run(store) is stored
        expected = {("k", False): "old", ("missing", False): None}.get((key, stored), "new")
        assert harness.get(key) == expected

    def test_add_is_refused_by_a_value_that_cannot_be_copied(self, harness):
        """The key is not free."""
        harness.process.known["n0"].supports = EVERYTHING - AGES
        store = single.store(harness.cluster, "k", "new", None, When.ABSENT)
        assert harness.run(store) is False
        assert harness.sent(1) == []
        assert harness.get() == "old"

    def test_a_recompute_finds_the_old_value_before_it_begins(self, harness):
        """Its stub is not left where a value can be had."""
        member = harness.cluster.members["n1"]
        reply = harness.run(harness.cluster.ask(member, GetOrStub(b"k", b"m" * 16, 10.0)))
        assert reply.payload == harness.held(0)[0]
        assert not reply.leads

    @pytest.mark.parametrize("found", [True, False])
    def test_a_delete_tells_of_both(self, harness, found):
        """Whether either node had the key."""
        if found:
            harness.get()
        assert harness.delete() is True
        assert harness.held(0) is harness.held(1) is None
        assert harness.delete() is False
        assert harness.get() is None

    def test_many_deletes_tell_of_both(self, harness):
        """Each key counts once."""
        harness.set("other", "l")
        member = harness.cluster.members["n1"]
        command = CommandList([Delete(b"k"), Delete(b"l"), Delete(b"m"), GetAged(b"k")])
        reply = harness.run(harness.cluster.ask(member, command))
        assert reply == [True, True, False, None]

    def test_a_delete_that_an_old_node_does_not_confirm_is_an_error(self, harness):
        """Other processes may still read the old value; this one does not."""
        harness.nodes[0].up = False
        member = harness.cluster.members["n1"]
        reply = harness.run(harness.cluster.ask(member, Delete(b"k")))
        assert isinstance(reply, NodeUnavailableError)
        harness.nodes[0].up = True
        harness.advance(10.0)
        assert harness.get() is None

    def test_a_delete_that_its_own_node_does_not_confirm_is_an_error(self, harness):
        """Whatever the old node says."""
        harness.nodes[1].up = False
        member = harness.cluster.members["n1"]
        reply = harness.run(harness.cluster.ask(member, Delete(b"k")))
        assert isinstance(reply, NodeUnavailableError)
        assert harness.held(0) is None

    def test_a_write_counts_when_its_own_node_has_it(self, harness):
        """The old node is cleaned up when it is back."""
        harness.nodes[0].up = False
        assert harness.set("new") is True

    def test_after_too_many_unconfirmed_deletes_old_nodes_are_not_read(self, harness, monkeypatch):
        """The list of these keys has an end."""
        monkeypatch.setattr(moves, "MOST_UNCONFIRMED", 2)
        harness.nodes[0].up = False
        for key in ("a", "b", "c"):
            harness.delete(key)
        harness.nodes[0].up = True
        harness.advance(10.0)
        assert harness.get() is None


class TestPhases:
    """Announced, switched, over."""

    def test_an_announced_process_reads_and_writes_where_it_did(self, make_harness):
        """And deletes on the next node what it has written or deleted."""
        harness = make_harness()
        harness.announce()
        harness.set("value")
        harness.plant(1, harness.held(0)[0])
        assert harness.get() == "value"
        assert harness.held(1) is not None
        harness.set("newer")
        assert harness.held(1) is None
        harness.plant(1, harness.held(0)[0])
        assert harness.delete() is True
        assert harness.held(0) is harness.held(1) is None

    def test_a_write_that_changes_nothing_leaves_the_next_node_alone(self, make_harness):
        """What another process has put there may be newer."""
        harness = make_harness()
        harness.announce()
        harness.plant(1, (INTEGER_FLAGS, b"7"))
        assert harness.run(single.touch(harness.cluster, "k", 60)) is False
        assert harness.run(counters.incr(harness.cluster, "k", 1, None, None, 0)) is None
        assert harness.held(1) is not None

    def test_a_delete_that_the_next_node_does_not_confirm_is_an_error(self, make_harness):
        """A process that has switched may find a copy there."""
        harness = make_harness()
        harness.announce()
        harness.nodes[1].up = False
        member = harness.cluster.members["n0"]
        reply = harness.run(harness.cluster.ask(member, CommandList([Delete(b"k"), Get(b"k")])))
        assert isinstance(reply[0], NodeUnavailableError)
        assert reply[1] is None

    def test_old_nodes_are_read_for_as_long_as_was_asked(self, harness):
        """After that, keys that were not read are misses."""
        harness.advance(WARM_FOR + 1)
        assert harness.get() is None

    def test_deletes_reach_both_for_a_minute_more(self, make_harness):
        """Processes that switched later read the old nodes still."""
        harness = make_harness(processes=2)
        harness.set("old")
        harness.switch(0)
        harness.advance(SPREAD - 1)
        harness.switch(1)
        harness.advance(WARM_FOR - SPREAD + 2)
        assert harness.get() is None
        assert harness.get(process=1) == "old"
        harness.delete(process=0)
        assert harness.get(process=1) is None

    def test_the_first_call_after_the_end_ends_it(self, harness):
        """Old nodes are not asked any more, not even for a delete."""
        harness.advance(WARM_FOR + SPREAD + 1)
        harness.sent(0)
        assert harness.delete() is False
        assert harness.sent(0) == []
        assert harness.ended == [harness.cluster.move]

    def test_so_does_a_call_for_a_key_that_stays(self, make_harness):
        """A program that reads no key that moved closes its connections to old nodes as well."""
        harness = make_harness(old=(0, 1), new=(0,), kinds=(False, False))
        owner = harness.topologies[0].owner
        stays = next(k for k in map(str, range(99)) if owner(k.encode()).name == "n0")
        harness.switch()
        harness.advance(WARM_FOR + SPREAD - 1)
        harness.get(stays)
        assert harness.ended == []
        harness.advance(2)
        harness.get(stays)
        assert harness.ended == [harness.cluster.move]

    def test_operators_see_the_other_nodes(self, make_harness):
        """By their names, after `next` or `old`."""
        harness = make_harness()
        assert set(harness.cluster.all_members) == {"n0"}
        harness.announce()
        assert set(harness.cluster.all_members) == {"n0", "next n1"}
        harness.switch()
        assert set(harness.cluster.all_members) == {"n1", "old n0"}

    def test_a_cluster_of_other_nodes_has_no_move(self, harness):
        """A change ends the one before it."""
        cluster = harness.cluster
        plain = cluster.with_nodes(cluster.topology, cluster.members)
        assert type(plain) is cluster.plain
        assert plain.move is None
        assert with_move(plain, None) is plain
        assert plain.holders(b"k", cluster.members["n1"]) == [cluster.members["n1"]]
