"""Until when a session surely lives, by what its ensemble has confirmed."""

from __future__ import annotations

import pytest
from shardcache_zookeeper.words import REPORT, Words

TIMEOUT = 10.0
DRIFT = 0.102


@pytest.fixture
def words():
    """Return the words of a session that a server took at 100 s."""
    words = Words(1.0)
    words.connect(100.0, TIMEOUT)
    return words


def test_a_new_session_lives_for_its_timeout(words):
    """From when it was requested, by the timeout that the servers grant, less drift."""
    assert words.until() == pytest.approx(100 + TIMEOUT - DRIFT)
    assert Words(1.0).until() < 0


def test_an_answer_alone_proves_nothing(words):
    """The server that gave it may have lost its leader."""
    words.record(109.0, written=False)
    assert words.until() == pytest.approx(100 + TIMEOUT - DRIFT)


def test_a_confirmed_write_proves_what_was_reported_before_it(words):
    """Of what a follower has heard its leader knows a moment later; itself the write does not count."""
    words.record(103.0, written=False)
    words.record(103.0 + REPORT * TIMEOUT - 0.1, written=True)
    assert words.until() == pytest.approx(100 + TIMEOUT - DRIFT)
    words.record(103.0 + REPORT * TIMEOUT, written=True)
    assert words.until() == pytest.approx(103 + TIMEOUT - DRIFT)


def test_after_a_pause_the_last_words_before_it_count(words):
    """A process that was stopped has said nothing meanwhile."""
    words.record(101.0, written=True)
    words.record(109.0, written=True)
    assert words.until() == pytest.approx(101 + TIMEOUT - DRIFT)


def test_what_an_earlier_server_heard_is_forgotten(words):
    """It may not have reported it; the leader has confirmed the session to the next one."""
    words.record(104.0, written=False)
    words.connect(105.0, TIMEOUT)
    words.record(108.0, written=True)
    assert words.until() == pytest.approx(105 + TIMEOUT - DRIFT)


@pytest.mark.parametrize("apart", [0.001, 1.25])
def test_few_words_are_remembered(words, apart):
    """However many requests there are, and for however long none of them writes."""
    for number in range(10_000):
        words.record(100 + number * apart, written=False)
    assert len(words._heard) < 40
    last = 100 + 10_000 * apart
    words.record(last, written=True)
    known = words.until() - TIMEOUT + DRIFT
    assert last - REPORT * TIMEOUT - 1.25 < known <= last - REPORT * TIMEOUT
