"""A check asks each node for one command of each kind, and tells all that is wrong at once."""

from __future__ import annotations

import pytest

from operations.check_harness import CheckHarness
from operations.harness import ROUND_TRIP, EventLog
from shardcache.core.capabilities import CAS, COMPARE, EVERYTHING, LOCKS, PLAIN, STUBS
from shardcache.core.commands import (
    Acquire,
    CompareAndDelete,
    CompareAndExpire,
    DeleteCas,
    DeleteMany,
    FlushAll,
    GetOrStub,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
)
from shardcache.core.keys import KeySpace
from shardcache.errors import (
    NodeRefusedError,
)
from shardcache.operations.keys.checking import NodeCheck, check

KINDS = {"redis": False, "memcached": True}  # whether the node counts whole seconds


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def harness(request):
    """Return one node of each kind in turn."""
    return CheckHarness(memcached=request.param, log=EventLog())


class TestSoundNodes:
    """What is found where nothing is wrong."""

    def test_every_node_is_asked_for_every_kind_of_command(self):
        """Of each backend; one that cannot compare is asked for what stands in for that."""
        asked = (PLAIN | CAS | STUBS | LOCKS | COMPARE | {Peek}) - {FlushAll}
        for memcached, never in ((False, {DeleteCas}), (True, COMPARE)):
            harness = CheckHarness(5, memcached=memcached)
            found = harness.check()
            assert list(found) == [f"n{place}" for place in range(5)]
            for commands in harness.received:
                assert {type(command) for command in commands} == asked - never

    def test_nothing_is_left_counted_or_reported(self, harness):
        """Counters, events and keys are as they were before."""
        harness.store("v")
        harness.log.events.clear()
        before = harness.member().counters()
        (found,) = harness.check().values()
        assert isinstance(found, NodeCheck)
        assert harness.kept == [b"k"]
        assert harness.member().counters() == before
        assert harness.log.events == []

    def test_the_time_is_that_of_one_answer(self, harness):
        """Not of all together."""
        (found,) = harness.check().values()
        assert found == ("memory", pytest.approx(ROUND_TRIP), ())

    def test_a_check_is_as_slow_as_its_slowest_node(self):
        """All are asked at once, one command after the other."""
        alone = CheckHarness()
        seconds = alone.seconds(check(alone.cluster))
        many = CheckHarness(5)
        assert many.seconds(check(many.cluster)) == pytest.approx(seconds)

    def test_keys_are_in_the_namespace(self, harness):
        """Or are shardcache's own, as an ACL must allow."""
        harness.cluster.keys = KeySpace("shop")
        harness.check()
        (keys,) = [[command.key for command in harness.received[0] if isinstance(command, Set)]]
        assert keys
        assert all(key.startswith(b"4:shop:check:") for key in keys)

    def test_two_checks_at_once_have_their_own_keys(self):
        """Neither sees the other's."""
        harness = CheckHarness()
        tasks = [harness.start(check(harness.cluster)) for _ in range(2)]
        harness.finish(*tasks)
        assert [list(task.result) for task in tasks] == [["n0"], ["n0"]]
        assert harness.kept == []

    def test_what_a_backend_does_not_offer_is_a_note(self, harness):
        """It is not asked for."""
        harness.member().supports = EVERYTHING - STUBS - LOCKS
        (found,) = harness.check().values()
        assert found.notes == ("its backend cannot cache functions, take a lock",)
        assert not {GetOrStub, Renew, Acquire} & set(map(type, harness.received[0]))

    def test_an_ejected_node_that_answers_is_restored(self):
        """It is asked as well."""
        harness = CheckHarness()
        harness.kill(0)
        (fault,) = harness.faults()
        assert fault.startswith("refused")
        assert harness.ejected()
        harness.nodes[0].up = True
        harness.check()
        assert not harness.ejected()

    def test_nodes_for_locks_are_asked_for_locks_alone(self):
        """And the others for none."""
        harness = CheckHarness()
        locks = harness.add_lock_node()
        asked = harness.record_commands(nodes=[locks])
        found = harness.check()
        assert list(found) == ["n0", "lock n0"]
        assert found["lock n0"].seconds == pytest.approx(ROUND_TRIP)
        assert {type(command) for command in asked} == {
            *(Ping, Acquire, CompareAndExpire, CompareAndDelete, DeleteMany, ServerStats)
        }
        assert Acquire not in set(map(type, harness.received[0]))
        assert locks.store._entries == {}


class TestServers:
    """What a server says of itself."""

    @pytest.mark.parametrize(
        ("url", "figures", "server"),
        [
            ("memcached://h", {"version": "1.6.21"}, "memcached 1.6.21"),
            ("pymemcache://h", {"version": "1.4.5"}, "memcached 1.4.5"),
            ("redis://h", {"redis_version": "7.2.4"}, "Redis 7.2.4"),
            ("redis+unix:///run/redis.sock", {"redis_version": "7.2.4"}, "Redis 7.2.4"),
            ("redis+sentinel://orders", {"redis_version": "7.2.4"}, "Redis 7.2.4"),
            ("redis://h", {"redis_version": "7.2.4", "valkey_version": "8.0"}, "Valkey 8.0"),
            ("redis://h", {"redis_version": "7\x1b[2J"}, r"Redis 7\x1b[2J"),
            ("redis://h", {}, "Redis"),
            ("memory://h", {"version": "3"}, "memory 3"),
        ],
    )
    def test_it_is_named_with_its_version(self, url, figures, server):
        """In printable characters, and without one if it tells none."""
        harness = CheckHarness(url=url)
        harness.answer_stats(figures)
        (found,) = harness.check().values()
        assert (found.server, found.notes) == (server, ())

    @pytest.mark.parametrize(
        ("url", "figures", "told"),
        [
            ("memcached://h", {"version": "1.5.22"}, "memcached 1.5.22 is too old: memcached 1.6"),
            ("redis://h", {"redis_version": "6.0.20"}, "Redis 6.0.20 is too old: Redis 6.2"),
        ],
    )
    def test_one_that_is_too_old_is_a_fault(self, url, figures, told):
        """What is supported is named."""
        harness = CheckHarness(url=url)
        harness.answer_stats(figures)
        assert harness.faults() == (f"{told} or newer is needed",)

    @pytest.mark.parametrize("version", ["6.2", "6.10.1", "10.0", "unknown"])
    def test_one_that_is_new_enough_or_unknown_is_not(self, version):
        """Versions are compared by their numbers."""
        harness = CheckHarness(url="redis://h")
        harness.answer_stats({"redis_version": version})
        assert list(harness.check()) == ["n0"]

    def test_figures_that_are_refused_are_a_note(self):
        """A proxy serves none the less."""
        harness = CheckHarness(url="redis://h")
        harness.answer_stats(NodeRefusedError("unknown command", "n0"))
        (found,) = harness.check().values()
        assert (found.server, found.notes) == (
            "Redis",
            ("its version is not known: unknown command",),
        )

    def test_figures_that_make_no_sense_are_none(self):
        """Nothing is known of the server."""
        harness = CheckHarness(url="redis://h")
        harness.answer_stats(None)
        (found,) = harness.check().values()
        assert (found.server, found.notes) == ("Redis", ())

    @pytest.mark.parametrize(
        ("default_ttl", "told"),
        [
            (None, ": without a ttl values stay for ever, and there is no default_ttl"),
            (60.0, ""),
        ],
    )
    def test_one_that_evicts_nothing_is_a_note(self, default_ttl, told):
        """It matters more where values have no end."""
        harness = CheckHarness()
        harness.cluster.default_ttl = default_ttl
        harness.answer_stats({"maxmemory_policy": "noeviction"})
        (found,) = harness.check().values()
        assert found.notes == (f"it evicts nothing (maxmemory-policy noeviction){told}",)

    def test_a_node_for_locks_should_evict_nothing(self):
        """One that evicts nothing gets no note."""
        harness = CheckHarness()
        locks = harness.add_lock_node()
        execute = locks.store.execute
        locks.store.execute = lambda command: (
            {"maxmemory_policy": "noeviction"}
            if isinstance(command, ServerStats)
            else execute(command)
        )
        assert harness.check()["lock n0"].notes == ()

    @pytest.mark.parametrize(
        ("url", "figures", "told"),
        [
            ("memory://x", {"role": "slave"}, "a writable replica of another server"),
            ("redis://:hunter2@h", {}, "its password is sent unencrypted"),
            ("rediss://h?ssl_cert_reqs=none", {}, "any server is accepted"),
        ],
    )
    def test_what_works_for_now_is_a_note(self, url, figures, told):
        """It names the danger, and no password."""
        harness = CheckHarness(url=url)
        harness.answer_stats(figures)
        (found,) = harness.check().values()
        (note,) = found.notes
        assert told in note
        assert "hunter2" not in note
