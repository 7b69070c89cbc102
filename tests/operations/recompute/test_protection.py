"""The gate that keeps one process from refreshing a value twice, and from losing for ever."""

from __future__ import annotations

import pytest

from shardcache.operations.recompute.protection import LOST_PAUSE, MOST_MARKS, RefreshGate

NAME = b"k"
PATIENCE = 10.0


@pytest.fixture
def gate():
    """Return a gate."""
    return RefreshGate()


def test_one_caller_enters_at_a_time(gate):
    """The next may once the first is done, or its seconds are over; names do not matter to each other."""
    assert gate.try_enter(NAME, 0.0, 5.0)
    assert not gate.try_enter(NAME, 4.9, 5.0)
    assert gate.try_enter(b"another", 4.9, 5.0)
    assert gate.try_enter(NAME, 5.0, 5.0)
    gate.clear(NAME)
    assert gate.try_enter(NAME, 5.1, 5.0)


def test_a_gate_forgets_what_is_over(gate):
    """However many values are refreshed, it holds few more than those in progress."""
    for number in range(MOST_MARKS):
        assert gate.try_enter(b"%d" % number, 0.0, 5.0 if number else 100.0)
    assert gate.try_enter(NAME, 50.0, 5.0)
    assert set(gate._until) == {b"0", NAME}
    assert not gate.try_enter(b"0", 50.0, 5.0)


def test_a_caller_that_lost_pauses(gate):
    """Not every call asks the node."""
    gate.try_enter(NAME, 0.0, 100.0)
    assert gate.back_off(NAME, 1.0, PATIENCE) is False
    assert not gate.try_enter(NAME, 1.0 + 0.9 * LOST_PAUSE, 5.0)
    assert gate.try_enter(NAME, 1.0 + 1.1 * LOST_PAUSE, 5.0)


class TestPatience:
    """A mark that outlasts every refresh has no holder."""

    def test_losing_for_too_long_is_reported(self, gate):
        """Once every try within the patience was lost."""
        losses = [gate.back_off(NAME, float(now), PATIENCE) for now in range(12)]
        assert losses == [False] * 11 + [True]

    def test_each_value_has_its_own_losses(self, gate):
        """Those of another value neither count nor excuse."""
        assert gate.back_off(NAME, 0.0, PATIENCE) is False
        assert gate.back_off(b"another", 9.0, PATIENCE) is False
        assert gate.back_off(NAME, 9.5, PATIENCE) is False
        assert gate.back_off(b"another", 10.5, PATIENCE) is False
        assert gate.back_off(NAME, 10.5, PATIENCE) is True

    def test_a_win_in_between_begins_again(self, gate):
        """Then the mark had a holder that went away."""
        for now in range(10):
            gate.back_off(NAME, float(now), PATIENCE)
        gate.clear(NAME)
        assert gate.back_off(NAME, 11.0, PATIENCE) is False

    def test_a_long_time_without_a_try_begins_again(self, gate):
        """What was lost before that says nothing about the mark of now."""
        assert gate.back_off(NAME, 0.0, PATIENCE) is False
        assert gate.back_off(NAME, 10.1, PATIENCE) is False
        assert gate.back_off(NAME, 20.0, PATIENCE) is False
        assert gate.back_off(NAME, 20.2, PATIENCE) is True

    def test_the_losses_that_are_known_are_bounded(self, gate):
        """Beyond that they begin again."""
        for number in range(MOST_MARKS):
            gate.back_off(b"%d" % number, 0.0, PATIENCE)
        gate.back_off(NAME, 5.0, PATIENCE)
        assert set(gate._losing) == {NAME}
        assert gate.back_off(NAME, 10.0, PATIENCE) is False
        assert gate.back_off(NAME, 15.1, PATIENCE) is True
