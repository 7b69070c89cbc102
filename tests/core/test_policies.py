"""How long a client waits."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.timeouts import (
    MAX_TIMEOUT,
    TimeoutPolicy,
    positive_seconds,
    seconds_or_zero,
)
from shardcache.errors import ConfigurationError

SECONDS = st.floats(0, MAX_TIMEOUT, exclude_min=True)


LENGTHS = st.timedeltas(timedelta.resolution, timedelta(seconds=MAX_TIMEOUT))


@given(LENGTHS, LENGTHS)
def test_durations_are_seconds_whatever_they_were_given_as(call, connect):
    """A `timedelta` and its number of seconds make the same policy."""
    assert TimeoutPolicy(call, connect) == TimeoutPolicy(
        call.total_seconds(), connect.total_seconds()
    )


@given(SECONDS, st.none() | SECONDS)
def test_a_dial_may_take_as_long_as_the_call_unless_told(call, connect):
    """`connect_seconds` is the bound of a dial, and follows the call's when there is none."""
    policy = TimeoutPolicy(call, connect)
    assert policy.connect_seconds == (call if connect is None else connect)
    assert replace(policy, connect=None).connect_seconds == call


def test_whole_numbers_become_floats():
    """Deadlines are computed with floats, so that is what the policy holds."""
    assert type(TimeoutPolicy(1).call) is float


def test_a_policy_does_not_change():
    """A policy is shared between threads, and is frozen."""
    with pytest.raises(FrozenInstanceError):
        TimeoutPolicy().call = 1.0


@pytest.mark.parametrize("value", [-1, timedelta(days=-1), float("nan")])
def test_where_zero_is_a_length_of_time_the_error_says_so(value):
    """Nobody is told to stay above zero where zero is taken."""
    assert seconds_or_zero(0, 10) == 0
    with pytest.raises(ConfigurationError) as caught:
        seconds_or_zero(value, 10)
    assert str(caught.value) == "must be zero or more"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (0, "must be above zero"),
        (-0.5, "must be above zero"),
        (timedelta(0), "must be above zero"),
        (timedelta(days=-1), "must be above zero"),
        (float("nan"), "must be above zero"),
        (float("inf"), "must be at most 10 seconds"),
        (10**400, "must be at most 10 seconds"),
        pytest.param(-(10**5000), "must be above zero", id="-huge"),
        (10.5, "must be at most 10 seconds"),
        (True, "must be seconds as a number"),
        ("1", "must be seconds as a number"),
        (None, "must be seconds as a number"),
    ],
)
def test_what_is_no_length_of_time_is_refused(value, fault):
    """Only finite numbers above zero bound a wait; a bool is no number."""
    with pytest.raises(ConfigurationError) as caught:
        positive_seconds(value, 10)
    assert str(caught.value).startswith(fault)


def test_both_faults_are_told_at_once():
    """A bad call and a bad connect come in one error, each under its name."""
    with pytest.raises(ConfigurationError) as caught:
        TimeoutPolicy(call=0, connect="x")
    assert caught.value.faults == (
        "call: must be above zero",
        "connect: must be seconds as a number",
    )


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, timedelta()])
def test_zero_may_be_a_length_of_time(zero):
    """Where none at all has a meaning; what is no number never has."""
    assert seconds_or_zero(zero, 10) == 0.0
    assert seconds_or_zero(2, 10) == 2.0
    for nothing in (None, "", False, []):
        with pytest.raises(ConfigurationError, match="must be seconds as a number"):
            seconds_or_zero(nothing, 10)
