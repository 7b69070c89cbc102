"""A namespace whose keys carry a generation is cleared in one step, for all processes."""

from __future__ import annotations

import pytest

from operations.client_harness import ClientHarness
from operations.harness import ON_THE_WAY_BACK, ROUND_TRIP, EventLog
from shardcache.core.commands import (
    Acquire,
    CompareAndDelete,
    Delete,
    Get,
    GetMany,
    Ping,
    SetMany,
)
from shardcache.core.events import CallFinished, KeysAccessed
from shardcache.core.leases import LockPolicy
from shardcache.core.reserved_keys import CLEARABLE, CLEARED, LOCKS, MARKS, TAGS
from shardcache.errors import ConfigurationError, NodeUnavailableError
from shardcache.operations.invalidation import clearing, tags
from shardcache.operations.invalidation.generations import LOOK_AGAIN
from shardcache.operations.keys import many, single
from shardcache.operations.locks.acquire import attempt

FIRST = CLEARABLE + b"0" * 16 + b":"
PAYLOAD = (256, b"v")


class ClearHarness(ClientHarness):
    """Processes with clearable clients of the same nodes."""

    def __init__(self, nodes=1, **options):
        super().__init__(nodes, clearable=True, **options)
        self.add_process()
        self.forgotten = []
        for process in self.processes:
            process.cluster.io.single_flight.forget_all = lambda: self.forgotten.append(1)

    def clear(self, process=0):
        """Clear the namespace, and return whether that is in force."""
        work = clearing.clear(self.processes[process].cluster, self.processes[process].generations)
        return self.run(work, process)

    def read(self, process=0, key="k"):
        """Have a process read a key."""
        return self.run(single.get(self.processes[process].cluster, key, None), process)

    def read_seconds(self, process=0):
        """Return how long a process takes to read a key."""
        return self.seconds(single.get(self.processes[process].cluster, "k", None), process)

    def names(self, node=0):
        """Return the keys of a node, those of generations and marks apart."""
        own = (CLEARED, MARKS)
        return [name for name in self.nodes[node].store._entries if not name.startswith(own)]


class TestClear:
    """After a clear no value of before is found."""

    def test_no_process_finds_a_value_of_before(self):
        """The process that cleared at once, others a second later at most; new values are found."""
        harness = ClearHarness(3)
        keys = [f"k{number}" for number in range(10)]
        harness.set_many(dict.fromkeys(keys, "old"))
        assert harness.read(1, "k3") == "old"
        assert harness.clear() is True
        assert harness.get_many(*keys) == {}
        harness.set_many(dict.fromkeys(keys, "new"))
        harness.advance(LOOK_AGAIN)
        for key in keys:
            assert harness.read(1, key) == "new"
        late = harness.add_process()
        assert harness.read(late, "k3") == "new"

    def test_a_clear_moves_no_key(self):
        """Keys are placed by their own names, so their nodes stay the same."""
        harness = ClearHarness(3)
        before = {key: harness.owner(key) for key in map(str, range(20))}
        harness.clear()
        assert {key: harness.owner(key) for key in before} == before

    def test_a_clear_forgets_the_flights(self):
        """No caller joins a recompute that began before; also when the nodes are down."""
        harness = ClearHarness()
        harness.clear()
        assert harness.forgotten == [1]
        harness.nodes[0].up = False
        assert harness.clear() is False
        assert harness.forgotten == [1, 1]
        harness.cluster.raises = True
        with pytest.raises(NodeUnavailableError):
            harness.clear()
        assert harness.forgotten == [1, 1, 1]

    def test_a_client_without_generations_cannot_clear(self):
        """The error names the two ways out, and no node is asked."""
        harness = ClientHarness()
        with pytest.raises(ConfigurationError, match=r"clearable=True.*flush_all\(\)"):
            harness.run(clearing.clear(harness.cluster, harness.process.generations))
        assert harness.received == [[]]

    def test_a_lock_outlives_a_clear(self):
        """It guards what its holder does, not a value."""
        harness = ClearHarness()
        policy = LockPolicy(ttl=5.0, renew=False)
        hold = harness.run(attempt(harness.cluster, "job", policy))
        assert harness.clear() is True
        other = attempt(harness.processes[1].cluster, "job", policy)
        assert harness.run(other, 1) is None
        assert harness.run(hold.release()) is True

    def test_a_tag_of_before_is_cleared_too(self):
        """Its version has the name of the new generation."""
        harness = ClearHarness()
        (before,) = harness.run(tags.get_or_create(harness.cluster, ["t"]))
        harness.clear()
        (after,) = harness.run(tags.get_or_create(harness.cluster, ["t"]))
        assert before != after
        assert sum(name.endswith(TAGS + b"t") for name in harness.names()) == 2


class TestNames:
    """The generation stands before each key of a caller, and before no other."""

    def test_a_key_has_the_first_generation_until_a_clear(self):
        """All names are equally long."""
        harness = ClearHarness()
        harness.store("v")
        assert harness.names() == [FIRST + b"k"]
        harness.clear()
        harness.store("v")
        generation = harness.process.generations.cleared.name
        assert harness.names()[1:] == [CLEARABLE + generation.encode() + b":k"]
        assert len(set(map(len, harness.names()))) == 1

    @pytest.mark.parametrize(
        ("command", "stamped"),
        [
            (Get(b"k"), Get(FIRST + b"k")),
            (GetMany([b"k", MARKS]), GetMany([FIRST + b"k", MARKS])),
            (SetMany([(b"k", PAYLOAD)], 9.0), SetMany([(FIRST + b"k", PAYLOAD)], 9.0)),
            (Get(TAGS + b"t"), Get(FIRST + TAGS + b"t")),
            *(
                (command, command)
                for command in (Ping(), Acquire(LOCKS + b"job", PAYLOAD, 5.0), Delete(CLEARED))
            ),
        ],
    )
    def test_each_kind_of_command_is_stamped(self, command, stamped):
        """Keys of locks, generations and marks have no generation."""
        harness = ClearHarness()
        assert harness.cluster.stamp(command) == stamped

    def test_observers_hear_the_keys_own_names(self):
        """They know nothing of generations."""
        harness = ClearHarness(log=EventLog(KeysAccessed))
        harness.store("v", 60.0)
        harness.get()
        harness.get_many("k", "missing")
        told = [
            (event.operation, list(event.keys), list(event.sizes)) for event in harness.log.events
        ]
        assert told == [
            ("set", [b"k"], [1]),
            ("get", [b"k"], [1]),
            ("get_many", [b"k", b"missing"], [1, None]),
        ]

    def test_a_call_is_reported_once_with_its_look(self):
        """The look at the mark is another call, to each of the keepers."""
        harness = ClearHarness(3, log=EventLog(CallFinished))
        harness.get()
        assert sorted(event.command for event in harness.log.events) == ["get", *["getmany"] * 3]
        harness.get()
        assert [event.command for event in harness.log.events[4:]] == ["get"]


class TestLooks:
    """Once a second a call looks, along with its own commands, whether the namespace was cleared."""

    def test_a_look_takes_no_further_round_trip(self):
        """Unless the namespace was cleared: then the commands are sent again, with the new names."""
        harness = ClearHarness(5)
        for _ in range(3):
            assert harness.read_seconds(1) == pytest.approx(ROUND_TRIP)
            harness.advance(LOOK_AGAIN)
        harness.clear()
        seconds = harness.read_seconds(1)
        assert ROUND_TRIP < seconds <= 3 * ROUND_TRIP + 0.001

    def test_within_a_second_only_the_keys_node_is_asked(self):
        """For one key or for many."""
        harness = ClearHarness(5)
        harness.get()
        for node in range(5):
            harness.sent(node)
        harness.get()
        harness.get_many("k")
        assert sorted(harness.sent(node) for node in range(5)) == [[]] * 4 + [["Get", "GetMany"]]

    def test_a_write_that_meets_a_clear_is_repeated(self):
        """A value stored under a name of the old generation would be found by no process."""
        harness = ClearHarness(3)
        harness.read(1)
        harness.clear()
        harness.advance(LOOK_AGAIN)
        cluster = harness.processes[1].cluster
        assert harness.run(many.set_many(cluster, {"k": "v"}, None), 1) == []
        assert harness.forgotten == [1, 1]  # the second by the process that found out
        assert harness.read(0) == "v"

    def test_a_call_about_shardcaches_own_keys_does_not_look(self):
        """A lock has no generation."""
        harness = ClearHarness()
        policy = LockPolicy(ttl=5.0, renew=False)
        harness.run(attempt(harness.cluster, "job", policy))
        member = harness.member()
        harness.run(harness.cluster.ask(member, Get(LOCKS + b"job")))
        harness.run(harness.cluster.ask_many([(member, Ping())]))
        assert harness.sent() == ["Acquire", "Get", "Ping"]

    @pytest.mark.parametrize("cleared", [False, True])
    def test_a_call_that_awaits_only_some_replies_looks_before(self, cleared):
        """Its commands go out once, with the names that are in force then."""
        harness = ClearHarness()
        harness.read(1)
        if cleared:
            harness.clear()
        harness.advance(LOOK_AGAIN)
        harness.sent()
        cluster, member = harness.processes[1].cluster, harness.member(process=1)
        harness.plant(PAYLOAD, "k")  # under the key's own name, where no clearable client looks
        command = CompareAndDelete(b"k", PAYLOAD)
        work = cluster.ask_many([(member, command)], cluster.deadline(), lambda _: False)
        assert harness.run(work, 1) == [False]
        generation = harness.processes[1].generations.cleared.name or "0" * 16
        compared = [each for each in harness.received[0] if isinstance(each, CompareAndDelete)]
        assert [each.key for each in compared] == [CLEARABLE + generation.encode() + b":k"]
        assert bool(harness.processes[1].generations.cleared.name) is cleared

    def test_a_reader_does_not_wait_for_the_look_of_another(self):
        """It reads meanwhile, and then waits for the look: its values are those of a current name."""
        harness = ClearHarness()
        harness.set_many({"a": 1, "b": 2})
        harness.advance(LOOK_AGAIN)
        harness.sent()
        one = harness.start(single.get(harness.cluster, "a", None))
        two = harness.start(many.get_many(harness.cluster, ["a", "b"]))
        harness.finish(one, two)
        assert (one.result, two.result) == (1, {"a": 1, "b": 2})
        assert [command for command in harness.received[0] if type(command) is GetMany][1] == (
            [FIRST + b"a", FIRST + b"b"],
        )

    def test_a_clear_while_a_value_is_read(self):
        """The reader may get what was there when it asked; the next call finds nothing."""
        harness = ClearHarness()
        harness.store("old")
        harness.read(1)
        reading = harness.start(single.get(harness.processes[1].cluster, "k", None), 1)
        harness.advance(ON_THE_WAY_BACK)
        assert harness.clear() is True
        harness.finish(reading)
        assert reading.result == "old"
        harness.advance(LOOK_AGAIN)
        assert harness.read(1) is None
