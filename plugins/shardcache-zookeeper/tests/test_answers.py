"""An answer comes once, to all who await it, whatever a signal breaks off."""

from __future__ import annotations

import logging
import threading

import pytest
from shardcache_zookeeper.answers import Answer


def test_the_first_outcome_counts():
    """Later ones are dropped: a request may be refused, and be answered all the same."""
    answer = Answer()
    assert not answer.done()
    answer.set_result(1)
    answer.set_exception(ValueError("late"))
    assert (answer.done(), answer.result(), answer.exception()) == (True, 1, None)


def test_an_error_is_raised():
    """It is the same one to all."""
    answer, error = Answer(), ValueError("refused")
    answer.set_exception(error)
    assert answer.exception() is error
    for _ in range(2):
        with pytest.raises(ValueError, match="refused") as raised:
            answer.result()
        assert raised.value is error


def test_who_waits_is_woken_or_told_that_it_is_late():
    """By the thread that settles it."""
    answer = Answer()
    with pytest.raises(TimeoutError):
        answer.result(0.01)
    threading.Timer(0.05, answer.set_result, ("here",)).start()
    assert answer.result(20) == "here"


def test_each_callback_is_called_once(caplog):
    """Before or after the outcome; the error of one keeps no other from being called."""
    answer, called = Answer(), []

    def fail(_):
        raise KeyError("callback")

    answer.add_done_callback(fail)
    answer.add_done_callback(called.append)
    assert not called
    answer.set_result(None)
    answer.add_done_callback(called.append)
    answer.set_result(None)
    assert called == [answer, answer]
    (record,) = caplog.records
    assert (record.levelno, record.exc_info[0]) == (logging.ERROR, KeyError)


def test_a_callback_that_is_added_meanwhile_is_called_once():
    """By one of the two threads."""
    for _ in range(300):
        answer, called, ready = Answer(), [], threading.Barrier(2)

        def settle(answer=answer, ready=ready):
            ready.wait()
            answer.set_result(1)

        thread = threading.Thread(target=settle)
        thread.start()
        ready.wait()
        answer.add_done_callback(called.append)
        thread.join()
        assert called == [answer]
