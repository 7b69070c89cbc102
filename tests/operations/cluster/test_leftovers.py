"""Which replies may leave a token behind, and when a node is asked for it no more."""

from __future__ import annotations

import pytest

from operations.harness import A_FEW_ROUND_TRIPS, ON_THE_WAY, ROUND_TRIP, LockHarness
from shardcache.core.commands import Acquire, Acquired, Delete, DeleteCas, Gets, Set
from shardcache.errors import (
    ConnectTimeoutError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    PoolTimeoutError,
    UnsupportedError,
)
from shardcache.operations.cluster.leftovers import (
    AT_ONCE,
    LOOKS,
    PATIENCE,
    PAUSE,
    clear,
    may_store,
    remove_later,
)
from shardcache.operations.port import UNANSWERED

TOKEN = (256, b"token")


def caused(error, cause):
    """Return an error with its cause."""
    error.__cause__ = cause
    return error


def unsent():
    """Return the error of a call to an ejected node."""
    error = NodeUnavailableError("ejected")
    error.sent = False
    return error


@pytest.mark.parametrize(
    ("reply", "may"),
    [
        (UNANSWERED, True),
        (NodeTimeoutError("late"), True),
        (NodeProtocolError("nonsense"), True),
        (NodeUnavailableError("gone"), True),
        (caused(NodeUnavailableError("lost"), ConnectionResetError()), True),
        (caused(NodeUnavailableError("refused"), ConnectionRefusedError()), False),
        (unsent(), False),
        (ConnectTimeoutError("no connection"), False),
        (PoolTimeoutError("all in use"), False),
        (NodeRefusedError("out of memory"), False),
        (Acquired(7), False),
        (False, False),
        (True, False),
        (None, False),
    ],
)
def test_a_store_may_still_happen_unless_the_node_has_answered(reply, may):
    """Or the command cannot have reached it."""
    assert may_store(reply) is may


@pytest.fixture
def harness():
    """Return one node that cannot compare values, as few as there may be."""
    return LockHarness(kinds=(True,), processes=1)


def remove(harness, looks=1, key=LockHarness.KEY, token=TOKEN):
    """Have a token removed in the background."""
    remove_later(harness.cluster, harness.members, key, token, looks)


def looks(harness, key=LockHarness.KEY):
    """Return how often the node was asked for a key, and forget it."""
    count = sum(command == Gets(key) for command in harness.received[0])
    harness.received[0].clear()
    return count


class TestLooking:
    """A node is asked until the token is gone, or can no longer come."""

    def test_a_token_that_is_there_is_removed(self, harness):
        """By its CAS number, which no later store has."""
        harness.nodes[0].store.execute(Acquire(harness.KEY, TOKEN, 60.0))
        remove(harness)
        harness.advance(A_FEW_ROUND_TRIPS)
        assert harness.held == [None]
        assert [type(command) for command in harness.received[0]] == [Gets, DeleteCas]
        assert harness.member().leftovers == {}

    def test_one_look_suffices_for_a_store_that_was_answered(self, harness):
        """Nothing is there, and nothing will come."""
        remove(harness)
        harness.advance(5.0)
        assert looks(harness) == 1
        assert harness.member().leftovers == {}

    def test_a_store_that_may_still_come_is_looked_for_several_times(self, harness):
        """Each pause is twice as long as the one before."""
        began = harness.now
        remove(harness, LOOKS)
        harness.advance(5.0, lambda: not harness.member().leftovers)
        assert looks(harness) == LOOKS
        assert harness.now - began == pytest.approx((2 ** (LOOKS - 1) - 1) * PAUSE, rel=0.2)

    def test_another_holders_token_is_left_alone(self, harness):
        """It is no leftover of this client's."""
        harness.nodes[0].store.execute(Acquire(harness.KEY, (256, b"another's"), 60.0))
        remove(harness)
        harness.advance(1.0)
        assert harness.held[0][0] == (256, b"another's")
        assert looks(harness) == 1

    def test_a_token_that_is_replaced_just_then_stays_replaced(self, harness):
        """Another client got the lock between the look and the removal."""
        harness.nodes[0].store.execute(Acquire(harness.KEY, TOKEN, 60.0))
        execute = harness.nodes[0].store.execute

        def replaced(command):
            if isinstance(command, DeleteCas):
                execute(Set(harness.KEY, (256, b"another's"), 60.0))
            return execute(command)

        harness.nodes[0].store.execute = replaced
        remove(harness)
        harness.advance(1.0)
        assert harness.held[0][0] == (256, b"another's")
        assert harness.member().leftovers == {}

    def test_a_token_left_again_during_a_look_is_looked_for_again(self, harness):
        """The look may have come before its store."""
        remove(harness)
        harness.advance(ON_THE_WAY)
        remove(harness)
        harness.advance(ROUND_TRIP)
        harness.nodes[0].store.execute(Acquire(harness.KEY, TOKEN, 60.0))
        harness.advance(1.0)
        assert harness.held == [None]
        assert looks(harness) == 2

    def test_a_key_whose_value_is_refused_counts_as_looked_at(self, harness):
        """Another program keeps something else there: the token cannot be."""
        harness.answer(NodeRefusedError("WRONGTYPE"))
        remove(harness)
        harness.advance(5.0)
        assert looks(harness) == 1

    def test_many_keys_are_looked_at_a_few_at_a_time(self, harness):
        """All are in the end."""
        keys = [b"%s:%d" % (harness.KEY, number) for number in range(2 * AT_ONCE + 1)]
        for key in keys:
            harness.nodes[0].store.execute(Acquire(key, TOKEN, 60.0))
            remove(harness, key=key)
        harness.advance(1.0)
        assert [harness.nodes[0].held(key) for key in keys] == [None] * len(keys)
        assert harness.member().leftovers == {}
        at_once = [type(command) for command in harness.received[0]]
        assert at_once == [Gets] * AT_ONCE + [DeleteCas] * AT_ONCE + [
            *([Gets] * AT_ONCE + [DeleteCas] * AT_ONCE),
            *(Gets, DeleteCas),
        ]


class TestGivingUp:
    """Some nodes are asked no more."""

    def test_a_node_that_can_never_serve_this_client(self, harness):
        """Such as a member of a Redis Cluster: nothing was stored there."""

        async def refuse(*_):
            raise UnsupportedError("the server is part of a Redis Cluster")

        harness.cluster.io.call_many = refuse
        remove(harness, LOOKS)
        harness.advance(0.001)
        assert harness.member().leftovers == {}
        del harness.cluster.io.call_many
        harness.advance(5.0)
        assert looks(harness) == 0

    def test_a_node_that_stays_silent(self, harness):
        """After half a minute the token has expired, or will."""
        harness.nodes[0].stopped = True
        remove(harness)
        harness.advance(0.9 * PATIENCE)
        assert harness.member().leftovers
        assert looks(harness) > 10
        harness.advance(0.2 * PATIENCE)
        assert harness.member().leftovers == {}
        looks(harness)
        harness.advance(PATIENCE)
        assert looks(harness) == 0

    def test_a_later_token_is_looked_for_longer(self, harness):
        """Each has its own half minute."""
        harness.nodes[0].stopped = True
        remove(harness)
        harness.advance(0.5 * PATIENCE)
        remove(harness, key=b"later")
        harness.advance(0.7 * PATIENCE)
        assert [key for key, _ in harness.member().leftovers] == [b"later"]


class TestClearing:
    """An attempt at a lock that meets its own leftovers removes them at once."""

    def clear(self, harness):
        """Clear the key, and return whether another attempt may succeed."""
        return harness.run(clear(harness.cluster, harness.members, harness.KEY))

    def test_without_leftovers_no_node_is_asked(self, harness):
        """The key is another's: another attempt would fail as well."""
        assert self.clear(harness) is False
        assert harness.received == [[]]

    def test_a_leftover_is_removed_and_the_key_free(self, harness):
        """The caller need not wait for the background."""
        harness.nodes[0].store.execute(Acquire(harness.KEY, TOKEN, 60.0))
        remove(harness)
        assert self.clear(harness) is True
        assert harness.held == [None]

    @pytest.mark.parametrize("how", ["another's", "failed", "not removed"])
    def test_a_key_that_is_not_free(self, harness, how):
        """It has another's token, or that is not known."""
        node = harness.nodes[0]
        payload = (256, b"another's") if how == "another's" else TOKEN
        node.store.execute(Acquire(harness.KEY, payload, 60.0))
        execute = node.store.execute
        if how == "not removed":
            node.store.execute = lambda command: (
                NodeTimeoutError("late") if isinstance(command, DeleteCas) else execute(command)
            )
        node.stopped = how == "failed"
        remove(harness, LOOKS)
        assert self.clear(harness) is False
        execute(Delete(harness.KEY))
