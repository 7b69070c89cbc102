"""Deletes on a node that was not ejected: an older write may land after a newer one."""

from __future__ import annotations

import pytest

from shardcache.core.commands import Delete, DeleteMany, Ping, Set, SetMany
from shardcache.core.events import DeletesReplayed
from shardcache.errors import NodeRefusedError

OLD, NEW = (0, b"old"), (0, b"new")


@pytest.fixture
def harness(make_harness):
    """Return a node with an old value under two keys."""
    harness = make_harness()
    for key in (b"set", b"deleted"):
        assert harness.ask(command=Set(key, OLD)) is True
    return harness


def held(harness, key):
    """Return what the node has under a key, `None` for nothing."""
    entry = harness.nodes[0].held(key)
    return None if entry is None else entry[0]


def time_out(harness, command):
    """Have a command time out once, which may land later; the node goes on without it."""
    harness.nodes[0].stopped = True
    harness.ask(command=command)
    harness.nodes[0].stopped = False
    assert not harness.ejected()


def test_a_late_write_does_not_outlive_a_delete(harness):
    """The old value is gone 200 ms after the delete was confirmed."""
    time_out(harness, Set(b"set", OLD))
    assert harness.ask(command=Delete(b"set")) is True
    harness.advance(0.02)
    harness.nodes[0].resume()  # it lands
    assert held(harness, b"set") == OLD
    harness.advance(0.2)
    assert held(harness, b"set") is None
    assert not harness.member().health.watched
    assert [event.keys for event in harness.events.of(DeletesReplayed)] == [1]


def test_nor_does_it_outlive_a_newer_value(harness):
    """That one is deleted too: a miss, and no old value."""
    time_out(harness, Set(b"set", OLD))
    assert harness.ask(command=SetMany([(b"set", NEW)])) == [True]
    harness.nodes[0].resume()
    harness.advance(0.3)
    assert held(harness, b"set") is None


def test_without_a_newer_write_nothing_is_deleted(harness):
    """A value that came late is still the newest."""
    deletes = harness.record_commands(DeleteMany)
    time_out(harness, Set(b"set", NEW))
    harness.nodes[0].resume()
    harness.advance(1.0)
    assert held(harness, b"set") == NEW
    assert deletes == []
    assert not harness.member().health.pending


def test_a_delete_that_timed_out_is_repeated(harness):
    """It may have been lost."""
    time_out(harness, Delete(b"deleted"))
    harness.advance(0.3)
    assert held(harness, b"deleted") is None


def test_a_write_after_that_costs_no_look(harness):
    """Replies are looked at only while there are such keys."""
    time_out(harness, Set(b"set", NEW))
    assert harness.member().health.watched
    harness.advance(1.0)
    assert not harness.member().health.watched
    harness.ask(command=Set(b"set", NEW))
    assert not harness.member().health.pending


def test_a_node_that_stays_silent_is_ejected_by_the_pings(harness):
    """Then its return is the time for the deletes."""
    harness.nodes[0].stopped = True
    harness.ask(command=Delete(b"deleted"))
    harness.advance(2.0)
    assert harness.ejected()
    harness.nodes[0].stopped = False
    harness.advance(30.0, lambda: not harness.ejected())
    assert not harness.ejected()
    assert held(harness, b"deleted") is None


def test_a_node_that_restarts_is_not_ejected_by_the_pings(harness):
    """They are refused for a moment, which no call notices."""
    time_out(harness, Delete(b"deleted"))
    harness.nodes[0].up = False
    harness.advance(5.0)
    assert not harness.ejected()
    assert harness.probes() < 20
    harness.nodes[0].up = True
    harness.advance(2.0)
    assert held(harness, b"deleted") is None


def test_a_node_that_fails_in_between_is_asked_again(harness):
    """Its keys are kept."""
    time_out(harness, Delete(b"deleted"))
    harness.advance(0.05)
    harness.nodes[0].stopped = True
    harness.advance(0.1)
    harness.nodes[0].stopped = False
    assert held(harness, b"deleted") == OLD
    harness.advance(1.0)
    assert held(harness, b"deleted") is None


def test_more_that_comes_meanwhile_has_its_own_turn(harness):
    """The node must have answered after that."""
    time_out(harness, Delete(b"deleted"))
    harness.advance(0.05)
    time_out(harness, Delete(b"set"))
    harness.advance(1.0)
    assert [held(harness, key) for key in (b"deleted", b"set")] == [None, None]
    assert not harness.member().health.pending


def test_a_closed_client_sends_nothing(harness):
    """The turn that is due ends."""
    time_out(harness, Delete(b"deleted"))
    harness.cluster.ejector.stop()
    pings = harness.record_commands(Ping, DeleteMany)
    harness.advance(2.0)
    assert pings == []


def test_a_ping_of_a_node_without_clients_fails_nowhere(harness):
    """The last one may leave while it is on its way."""
    harness.cluster.ejector.stop()
    health = harness.member().health
    assert harness.run(harness.process.prober._replayer.ping(health)) == harness.now


def test_a_refused_ping_is_an_answer(harness):
    """The node has understood it."""
    time_out(harness, Delete(b"deleted"))
    execute = harness.nodes[0].store.execute
    harness.nodes[0].store.execute = lambda command: (
        NodeRefusedError("no") if isinstance(command, Ping) else execute(command)
    )
    harness.advance(1.0)
    assert held(harness, b"deleted") is None
