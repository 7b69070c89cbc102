"""The keys of one node whose writes failed: which are kept, for how long, and how many."""

from __future__ import annotations

import tracemalloc

from shardcache.core.commands import Cas, Delete, DeleteMany, Incr, Set, SetMany
from shardcache.errors import NodeTimeoutError, NodeUnavailableError
from shardcache.operations.cluster import pending as pending_deletes
from shardcache.operations.cluster.pending import MOST, Noted, PendingDeletes

VALUE = (0, b"v")
DONE = True
LATE = NodeTimeoutError("did not answer in time")
EJECTED = NodeUnavailableError("ejected")
EJECTED.sent = False
FAILED = Noted(failed=True, overflowed=False)
OVERFLOWED = Noted(failed=True, overflowed=True)
NOT_FAILED = Noted(failed=False, overflowed=False)


def names(first, last):
    """Return the names of some keys, as long as most are."""
    return [b"4:shop:product:%032d" % number for number in range(first, last)]


def test_keys_are_kept_until_they_are_deleted():
    """All of them, each with the moment of its last failure."""
    pending = PendingDeletes()
    assert not pending
    assert pending.note(Set(b"a", VALUE), LATE, 1.0) == FAILED
    assert pending.note(DeleteMany([b"b", b"c"]), EJECTED, 2.0) == FAILED
    assert pending.note(Set(b"d", VALUE), DONE, 2.0) == NOT_FAILED
    assert (len(pending), bool(pending)) == (3, True)
    assert pending.keys_until(1.5) == [b"a"]
    assert pending.keys_until(2.0) == [b"a", b"b", b"c"]
    pending.discard([b"a", b"b", b"never seen"], 2.0)
    assert pending.keys_until(9.0) == [b"c"]


def test_those_of_the_same_node_are_added(monkeypatch):
    """The later failure and the stronger repair count; what has no room is lost."""
    monkeypatch.setattr(pending_deletes, "MOST", 3)
    pending, others = PendingDeletes(), PendingDeletes()
    pending.note(Set(b"a", VALUE), LATE, 3.0)
    pending.note(Delete(b"b"), EJECTED, 1.0)
    others.note(DeleteMany([b"a", b"b", b"c"]), EJECTED, 2.0)
    others.note(Delete(b"d"), EJECTED, 2.0)
    pending.add(others)
    assert pending.keys_until(1.5) == []
    assert pending.keys_until(2.0) == [b"b", b"c"]
    assert pending.settle(3.0) == [b"a", b"b", b"c"]
    assert (pending.lost, others.lost) == (1, 1)
    full = PendingDeletes()
    full.note(DeleteMany([b"x", b"y"]), EJECTED, 1.0)
    full.add(others)
    assert (len(full), full.lost) == (3, 3)


def test_a_key_whose_write_failed_meanwhile_is_kept():
    """The delete may have come before that write."""
    pending = PendingDeletes()
    pending.note(Delete(b"k"), EJECTED, 1.0)
    pending.note(Delete(b"k"), EJECTED, 3.0)
    pending.discard([b"k"], 2.0)
    assert pending.keys_until(3.0) == [b"k"]


def test_a_late_write_is_forgotten_if_nothing_was_written_after_it():
    """It lands on nothing newer: on a node that stayed in, there is nothing to repair."""
    pending = PendingDeletes()
    for command in (Set(b"set", VALUE), Incr(b"incr", 1), Cas(b"cas", VALUE, 7)):
        pending.note(command, LATE, 1.0)
    assert pending.settle(0.5) == []
    assert len(pending) == 3
    assert pending.settle(1.0) == []
    assert not pending


def test_a_late_write_is_repaired_if_a_newer_one_was_confirmed():
    """It may land after that, and so bring an old value back."""
    for newer in (Delete(b"k"), Set(b"k", VALUE), SetMany([(b"k", VALUE)])):
        pending = PendingDeletes()
        pending.note(Set(b"k", VALUE), LATE, 1.0)
        confirmed = [True] if isinstance(newer, SetMany) else True
        assert pending.note(newer, confirmed, 1.5) == NOT_FAILED
        assert pending.settle(2.0) == [b"k"]
        assert pending.keys_until(2.0) == [b"k"]  # until it has been deleted
        pending.discard([b"k"], 2.0)
        assert not pending


def test_a_counter_is_not_lost_to_a_late_increment():
    """Nothing old lands on a counter: one that stayed in is not deleted."""
    pending = PendingDeletes()
    pending.note(Incr(b"k", 1), LATE, 1.0)
    pending.note(Incr(b"k", 1), 2, 1.5)
    assert pending.settle(2.0) == []
    assert not pending


def test_a_delete_that_failed_is_repeated():
    """Also on a node that stayed in, and whatever failed after it."""
    pending = PendingDeletes()
    pending.note(Delete(b"k"), LATE, 1.0)
    pending.note(Set(b"k", VALUE), LATE, 1.0)
    assert pending.settle(1.0) == [b"k"]


def test_beyond_the_most_keys_are_counted_and_the_first_is_reported():
    """Those that are known are kept, and noted again."""
    pending = PendingDeletes()
    pending.note(DeleteMany(names(0, MOST - 1)), EJECTED, 1.0)
    assert pending.note(Delete(b"last"), EJECTED, 1.0) == FAILED
    assert pending.note(DeleteMany([b"x", b"y", b"last"]), EJECTED, 2.0) == OVERFLOWED
    assert pending.note(Delete(b"z"), EJECTED, 2.0) == FAILED
    assert (len(pending), pending.lost) == (MOST, 3)
    pending.discard([b"last"], 1.5)
    assert len(pending) == MOST


def test_20_000_failed_writes_take_less_than_5_mib():
    """With keys of 45 bytes that nothing else refers to."""
    pending = PendingDeletes()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            (name,) = names(number, number + 1)
            pending.note(Set(name, VALUE), EJECTED, float(number))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5 * 2**20
    assert (len(pending), pending.lost) == (MOST, 10_000)
