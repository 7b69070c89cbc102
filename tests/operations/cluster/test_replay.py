"""No old value after a node is back: deletes are made up for before it is asked, in virtual time."""

from __future__ import annotations

import pytest

from operations.harness import TwoClients
from operations.simulation import TIMEOUT
from shardcache.core.commands import (
    Delete,
    DeleteMany,
    FlushAll,
    Get,
    Incr,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.events import (
    DeletesOverflowed,
    DeletesReplayed,
    NodeEjected,
    NodeRestored,
)
from shardcache.core.health import DEFAULT_EJECTION, Circuit
from shardcache.errors import NodeRefusedError, NodeUnavailableError, UnsupportedError
from shardcache.operations.cluster import pending
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import ROUNDS
from shardcache.operations.cluster.replay import Replayer
from shardcache.operations.keys import admin

OLD, NEW = (0, b"old"), (0, b"new")
KEYS = (b"set", b"deleted", b"counted", b"touched", b"batch", b"kept")


@pytest.fixture
def harness(make_harness):
    """Return a node with an old value under some keys."""
    harness = make_harness()
    for key in KEYS:
        assert harness.ask(command=Set(key, OLD)) is True
    return harness


def circuit(harness):
    """Return the state of the node's circuit."""
    return harness.member().health.circuit


def write_all(harness):
    """Write in every way, while the node is out or silent."""
    harness.ask(command=Set(b"set", NEW))
    harness.ask(command=Delete(b"deleted"))
    harness.ask(command=Incr(b"counted", 1))
    harness.ask(command=Touch(b"touched", 9.0))
    harness.ask(command=SetMany([(b"batch", NEW)]))


def held(harness):
    """Return the keys that the node still has."""
    return [key for key in KEYS if harness.nodes[0].held(key) is not None]


def await_return(harness, within=30.0):
    """Let time pass until the node is asked again."""
    harness.advance(within, lambda: not harness.ejected())
    assert not harness.ejected()


class TestReturn:
    """A node that was ejected is asked again when no key has an old value."""

    @pytest.mark.parametrize("how", ["silence", "kill"])
    def test_what_was_refused_is_deleted_first(self, harness, how):
        """Whatever kind of write it was; keys that nobody wrote stay."""
        getattr(harness, how)(0)
        write_all(harness)
        harness.ask(command=Get(b"kept"))
        assert harness.member().counters()["pending_deletes"] == 5
        harness.nodes[0].up = True
        harness.nodes[0].resume()
        await_return(harness)
        assert held(harness) == [b"kept"]
        assert harness.member().counters()["pending_deletes"] == 0
        assert harness.ask(command=Get(b"kept")) == OLD

    def test_so_is_what_timed_out_before_the_ejection(self, harness):
        """These writes may also land now."""
        harness.nodes[0].stopped = True
        write_all(harness)
        assert harness.ejected()
        harness.advance(2.0)
        harness.nodes[0].resume()
        await_return(harness)
        assert held(harness) == [b"kept"]

    def test_reads_miss_until_then(self, harness):
        """100 ms pass between the first answer and the deletes."""
        harness.silence(0)
        harness.ask(command=Delete(b"deleted"))
        harness.nodes[0].resume()
        harness.advance(9.0, lambda: circuit(harness) is Circuit.QUARANTINE)
        began = harness.now
        assert isinstance(harness.ask(command=Get(b"deleted")), NodeUnavailableError)
        deletes = harness.record_commands(DeleteMany)
        harness.advance(DEFAULT_EJECTION.quarantine - 0.001)
        assert deletes == []
        await_return(harness)
        assert deletes == [DeleteMany([b"deleted"])]
        assert 0.1 <= harness.now - began <= 0.3

    def test_a_write_that_lands_meanwhile_is_deleted(self, harness):
        """It had left before the node was ejected."""
        harness.silence(0)
        harness.ask(command=Set(b"set", NEW))
        harness.nodes[0].resume()
        harness.advance(9.0, lambda: circuit(harness) is Circuit.QUARANTINE)
        node = harness.nodes[0]
        harness.world.at(0.09, lambda: node.store.execute(Set(b"set", OLD)))
        await_return(harness)
        assert node.held(b"set") is None

    def test_a_node_that_fails_meanwhile_stays_out(self, harness):
        """Its keys are deleted when it is back for good."""
        harness.silence(0)
        harness.ask(command=Delete(b"deleted"))
        harness.nodes[0].resume()
        harness.advance(9.0, lambda: circuit(harness) is Circuit.QUARANTINE)
        harness.nodes[0].stopped = True
        harness.advance(0.1 + 0.1 + 2 * TIMEOUT)
        assert circuit(harness) in {Circuit.OPEN, Circuit.PROBING}
        harness.nodes[0].stopped = False  # without what it was sent
        await_return(harness)
        assert b"deleted" not in held(harness)
        assert harness.node_changes == [NodeEjected, NodeRestored]

    def test_nothing_to_delete_takes_no_time(self, harness):
        """A node on which no write failed is asked as soon as it answers."""
        harness.silence(0)
        harness.ask(command=Set(b"new", NEW, None, When.ABSENT))  # an add replaces nothing
        harness.nodes[0].resume()
        harness.run(admin.ping(harness.cluster))
        assert not harness.ejected()

    def test_a_ping_by_the_user_begins_the_quarantine(self, harness):
        """The prober does the rest."""
        harness.kill(0)
        harness.ask(command=Delete(b"deleted"))
        harness.member().health.due = harness.now + 100.0
        harness.nodes[0].up = True
        for _ in range(2):
            harness.run(admin.ping(harness.cluster))
            assert circuit(harness) is Circuit.QUARANTINE
        await_return(harness, within=0.3)
        assert b"deleted" not in held(harness)

    def test_a_late_reply_begins_the_quarantine(self, harness):
        """A silent node that answers is silent no longer."""
        harness.nodes[0].delay = 0.1
        early = harness.start_ask(within=1.0)
        harness.advance(0.001)
        for _ in range(3):
            harness.ask(command=Delete(b"deleted"), within=0.02)
        assert harness.ejected()
        harness.nodes[0].delay = 0.001
        harness.advance(1.0, lambda: early.done)
        assert circuit(harness) is Circuit.QUARANTINE
        await_return(harness, within=0.4)
        assert b"deleted" not in held(harness)

    def test_most_nodes_silent_is_no_reason_to_probe_in_quarantine(self, harness):
        """Its end is near anyway."""
        harness.silence(0)
        harness.ask(command=Delete(b"deleted"))
        health = harness.member().health
        health.begin_quarantine(harness.now)
        health.due = harness.now + 3.0
        before = harness.probes()
        harness.nodes[0].resume()
        harness.advance(2.0)
        assert harness.probes() == before
        await_return(harness, within=1.5)

    def test_calls_that_are_refused_meanwhile_are_deleted_too(self, harness, monkeypatch):
        """In some more rounds, and those of the last moment right after the return."""
        replay, moments = Replayer.replay, []

        async def refuse_one_more(self, health):
            reply = await replay(self, health)
            moments.append(harness.ejected())
            if len(moments) <= ROUNDS:
                key = KEYS[len(moments) - 1]
                harness.cluster.refuse(harness.member(), Delete(key))
            return reply

        monkeypatch.setattr(Replayer, "replay", refuse_one_more)
        harness.silence(0)
        harness.ask(command=Delete(b"x"))
        harness.nodes[0].resume()
        await_return(harness)
        harness.advance(0.01)
        assert moments == [True] * ROUNDS + [False]
        assert held(harness) == list(KEYS[ROUNDS:])
        harness.advance(1.0)
        assert not harness.member().health.watched

    def test_nothing_is_kept_for_a_node_that_its_client_has_left(self, make_harness):
        """A call that was under way may fail after that."""
        harness = make_harness(nodes=2)
        member = harness.member(0)
        harness.cluster.ejector.keep([harness.member(1)])
        harness.nodes[0].up = False
        harness.run(harness.cluster.ask(member, Delete(b"k")))
        assert not member.health.pending

    def test_a_node_that_all_clients_have_left_is_left_alone(self, harness):
        """Its quarantine does not end."""
        harness.silence(0)
        harness.ask(command=Delete(b"deleted"))
        health = harness.member().health
        harness.cluster.ejector.stop()
        deletes = harness.record_commands(DeleteMany)
        harness.nodes[0].resume()
        assert harness.run(harness.process.prober._replayer.replay(health)) == 0
        harness.advance(9.0)
        assert deletes == []


class TestRefusals:
    """A node that does not delete is asked again all the same: it would be out for ever."""

    def test_a_refused_delete_is_logged(self):
        """The user of the node may have no right to delete."""
        harness = TwoClients()
        harness.kill(0)
        harness.ask(command=DeleteMany([b"a", b"b"]))
        harness.nodes[0].up = True
        execute = harness.nodes[0].store.execute
        harness.nodes[0].store.execute = lambda command: (
            NodeRefusedError("NOPERM") if isinstance(command, DeleteMany) else execute(command)
        )
        await_return(harness)
        name, count, error = harness.lines[-2]
        assert (name, count, str(error)) == ("n0", 2, "NOPERM")
        assert harness.lines[-1][2] == 0
        assert harness.logs[0].of(DeletesReplayed) == []
        assert not harness.member().health.pending
        harness.close()

    def test_one_refused_key_does_not_hide_the_others(self):
        """Each has its own reply."""
        harness = TwoClients()
        harness.kill(0)
        harness.ask(command=DeleteMany([b"a", b"b", b"c"]))
        harness.nodes[0].up = True
        harness.answer([True, NodeRefusedError("NOPERM"), False])
        await_return(harness)
        assert harness.lines[-2][1] == 1
        assert [event.keys for event in harness.logs[0].of(DeletesReplayed)] == [2]
        harness.close()

    def test_a_backend_that_raises_refuses(self, harness, monkeypatch):
        """A fault in a plugin is no failure of its node."""
        harness.kill(0)
        harness.ask(command=Delete(b"deleted"))
        call_many = type(harness.cluster.io).call_many

        async def raising(io, asks, *terms):
            if isinstance(asks[0][1], DeleteMany):
                raise UnsupportedError("no DeleteMany")
            return await call_many(io, asks, *terms)

        monkeypatch.setattr(type(harness.cluster.io), "call_many", raising)
        harness.nodes[0].up = True
        await_return(harness)
        assert not harness.member().health.pending

    def test_a_backend_for_this_alone_is_closed(self, harness, monkeypatch):
        """An asyncio client has no blocking backend of its own."""

        class Reached:
            def __init__(self):
                self.closed = False

            def __getattr__(self, name):
                return getattr(harness.nodes[0], name)

            def close(self):
                self.closed = True

        reached = []

        def reach(_):
            reached.append(Reached())
            return reached[-1]

        monkeypatch.setattr(harness.cluster.ejector, "reach", reach)
        harness.kill(0)
        harness.ask(command=Delete(b"deleted"))
        harness.nodes[0].up = True
        await_return(harness)
        assert b"deleted" not in held(harness)
        assert len(reached) >= 2
        assert all(each.closed for each in reached)


class TestSharing:
    """The clients of a process delete together what each of them could not write."""

    def test_the_writes_of_all_clients_are_made_up_for(self):
        """Before the node is asked for any of them; both are told, and one line is logged."""
        harness = TwoClients()
        for key in (b"a", b"b"):
            harness.ask(command=Set(key, OLD))
        harness.kill(0)
        harness.ask(command=Delete(b"a"), process=0)
        harness.ask(command=Delete(b"b"), process=1)
        harness.nodes[0].up = True
        await_return(harness)
        assert [harness.nodes[0].held(key) for key in (b"a", b"b")] == [None, None]
        for log in harness.logs:
            (event,) = log.of(DeletesReplayed)
            assert (event.node.name, event.keys, event.flushed) == ("n0", 2, False)
        (name, _, deleted) = harness.lines[-1]
        assert (name, deleted) == ("n0", 2)
        harness.close()


class TestOtherOptions:
    """A client reaches the same server under other options, as another member."""

    @staticmethod
    def succeed(harness):
        """Have another member take over from the node's; return it."""
        former = harness.member()
        heir = Member(former.node, former.backend)
        ejector = harness.cluster.ejector
        ejector.add(heir, "other options")
        ejector.succeed(heir, former)
        ejector.keep([heir])
        return heir

    def test_what_was_refused_is_deleted_before_it_is_asked(self, harness):
        """It is out, as the former member was."""
        harness.kill(0)
        write_all(harness)
        heir = self.succeed(harness)
        assert heir.health.ejected
        harness.nodes[0].up = True
        harness.advance(9.0, lambda: not heir.health.ejected)
        assert held(harness) == [b"kept"]

    def test_so_is_what_fails_meanwhile(self, harness):
        """A call that goes on knows the former member only; what it notes counts, all the same."""
        harness.nodes[0].stopped = True
        former, heir = harness.member(), self.succeed(harness)
        assert not heir.health.ejected
        harness.ask(command=Delete(b"deleted"))
        assert len(heir.health.pending) == 1
        assert not former.health.pending
        harness.nodes[0].resume()
        harness.advance(9.0)
        assert b"deleted" not in held(harness)

    def test_a_node_that_was_not_ejected_stays_so(self, harness):
        """Its keys are deleted soon after it answers."""
        harness.nodes[0].stopped = True
        harness.ask(command=Delete(b"deleted"))
        heir = self.succeed(harness)
        harness.nodes[0].resume()
        harness.nodes[0].store.execute(Set(b"deleted", OLD))
        harness.advance(9.0)
        assert not heir.health.ejected
        assert b"deleted" not in held(harness)

    def test_one_that_is_ejected_already_stays_so(self, harness):
        """As when another client knows it by those options."""
        harness.kill(0)
        former = harness.member()
        heir = Member(former.node, former.backend)
        ejector = harness.cluster.ejector
        ejector.add(heir, "other options")
        ejector.record_failure(heir, NodeUnavailableError("refused"), harness.now, TIMEOUT)
        write_all(harness)
        ejector.succeed(heir, former)
        assert len(heir.health.pending) == 5
        assert heir.health.ejected

    def test_a_change_and_its_undoing_end(self, harness):
        """The first member may take over again."""
        harness.kill(0)
        former, ejector = harness.member(), harness.cluster.ejector
        heir = self.succeed(harness)
        ejector.add(former, "n0")
        ejector.succeed(former, heir)
        ejector.keep([former])
        ejector.note_writes(heir, Delete(b"k"), NodeUnavailableError("lost"))
        assert len(former.health.pending) == 1


class TestOverflow:
    """More writes fail than can be remembered."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        """Have three keys remembered at most."""
        monkeypatch.setattr(pending, "MOST", 3)

    def overflow(self, harness):
        """Kill a node with five values, fail to delete them, and bring it back."""
        names = [b"k%d" % number for number in range(5)]
        for name in names:
            harness.ask(command=Set(name, OLD))
        harness.kill(0)
        for name in names:
            harness.ask(command=Delete(name))
        harness.nodes[0].up = True
        commands = harness.record_commands(FlushAll)
        await_return(harness)
        return [name for name in names if harness.nodes[0].held(name)], commands

    def test_it_is_reported_once_and_the_rest_stays(self):
        """One event for each client, and one line in the log."""
        harness = TwoClients()
        left, flushes = self.overflow(harness)
        assert (left, flushes) == ([b"k3", b"k4"], [])
        for log in harness.logs:
            (event,) = log.of(DeletesOverflowed)
            assert (event.node.name, event.kept) == ("n0", 3)
        assert harness.lines.count(("n0", 3)) == 1
        assert harness.member().health.pending.lost == 0
        harness.close()

    def test_the_node_is_emptied_if_a_client_wants_that(self):
        """Before it is asked again."""
        harness = TwoClients()
        harness.processes[1].cluster.ejector.flushes = True
        left, flushes = self.overflow(harness)
        assert (left, flushes) == ([], [FlushAll()])
        assert [event.flushed for event in harness.logs[0].of(DeletesReplayed)] == [True]
        harness.close()

    def test_without_an_overflow_no_node_is_emptied(self, harness):
        """Only the keys are deleted."""
        harness.cluster.ejector.flushes = True
        harness.kill(0)
        harness.ask(command=Delete(b"deleted"))
        harness.nodes[0].up = True
        await_return(harness)
        assert len(held(harness)) == len(KEYS) - 1

    def test_a_client_without_observers_hears_nothing(self, make_harness):
        """Nothing is built for nobody."""
        harness = make_harness()
        harness.cluster.ejector._observers = type(harness.cluster.observers)()
        assert self.overflow(harness)[0] == [b"k3", b"k4"]
        assert harness.events.of(DeletesOverflowed, DeletesReplayed) == []

    def test_an_overflow_after_the_last_client_left_is_not_reported(self, harness):
        """There is nobody to tell."""
        replayer = harness.process.prober._replayer
        health = harness.member().health
        harness.cluster.ejector.stop()
        refused = NodeUnavailableError("ejected")
        replayer.note(health, DeleteMany([b"a", b"b", b"c", b"d"]), refused)
        harness.advance(1.0)
        assert health.pending.lost == 1
        assert harness.events.of(DeletesOverflowed) == []

    def test_many_keys_are_deleted_in_parts(self, make_harness, monkeypatch):
        """Each has the time of a call."""
        monkeypatch.setattr("shardcache.operations.cluster.replay.AT_ONCE", 2)
        harness = make_harness()
        harness.kill(0)
        harness.ask(command=DeleteMany([b"a", b"b", b"c"]))
        harness.nodes[0].up = True
        deletes = harness.record_commands(DeleteMany)
        await_return(harness)
        assert deletes == [DeleteMany([b"a", b"b"]), DeleteMany([b"c"])]
