"""A node that takes no more connections is dialed now and then."""

import pytest

from shardcache.backends.transport.limits import FIRST_PAUSE, FORGOTTEN, LONGEST_PAUSE, DialLimit

NOW = 1_000.0


@pytest.fixture
def limit():
    """Make a limit that has just refused one connection."""
    limit = DialLimit()
    assert limit.record_refusal(NOW)
    return limit


def test_nothing_is_limited_before_a_refusal():
    """However many connections are dialed at once."""
    limit = DialLimit()
    assert all(limit.may_dial(NOW) for _ in range(100))


def test_after_a_refusal_one_is_dialed_after_a_pause(limit):
    """And no other at the same time."""
    assert not limit.may_dial(NOW + 0.9 * FIRST_PAUSE)
    assert limit.may_dial(NOW + FIRST_PAUSE)
    assert not limit.may_dial(NOW + 1.5 * FIRST_PAUSE)


def test_those_dialed_beside_the_first_count_as_one(limit):
    """They were on their way when it was refused."""
    assert not any(limit.record_refusal(NOW + 0.01 * number) for number in range(8))
    assert limit.may_dial(NOW + FIRST_PAUSE)


def test_pauses_double_to_a_longest_one(limit):
    """Each trial that fails makes the next one later."""
    now, pauses = NOW, []
    for _ in range(10):
        began = now
        while not limit.may_dial(now):
            now += 0.001
        pauses.append(now - began)
        assert not limit.record_refusal(now)
    expected = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(10)]
    assert pauses == pytest.approx(expected, abs=0.002)


def test_a_trial_without_an_outcome_delays_no_other(limit):
    """It may have ended by its deadline."""
    assert limit.may_dial(NOW + FIRST_PAUSE)
    assert limit.may_dial(NOW + 2 * FIRST_PAUSE)


def test_after_a_success_the_next_is_dialed_at_once(limit):
    """Still one at a time."""
    assert limit.may_dial(NOW + FIRST_PAUSE)
    limit.record_success()
    assert limit.may_dial(NOW + FIRST_PAUSE)
    assert not limit.may_dial(NOW + FIRST_PAUSE)


def test_a_refusal_is_forgotten(limit):
    """A later one starts a new series, with a log line of its own."""
    assert all(limit.may_dial(NOW + FORGOTTEN) for _ in range(10))
    assert limit.record_refusal(NOW + FORGOTTEN)
