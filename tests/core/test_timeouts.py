"""How long a client waits."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.timeouts import MAX_TIMEOUT, TimeoutPolicy, positive_seconds, seconds_or_zero
from shardcache.errors import ConfigurationError

SECONDS = st.floats(0, MAX_TIMEOUT, exclude_min=True)
LENGTHS = st.timedeltas(timedelta.resolution, timedelta(seconds=MAX_TIMEOUT))


@given(LENGTHS, LENGTHS)
def test_durations_are_seconds(call, connect):
    """A `timedelta` and its seconds make the same policy."""
    assert TimeoutPolicy(call, connect) == TimeoutPolicy(
        call.total_seconds(), connect.total_seconds()
    )


@given(SECONDS, st.none() | SECONDS)
def test_a_dial_may_take_as_long_as_a_call(call, connect):
    """`connect_seconds` bounds a dial, and is the call's when it is not set."""
    policy = TimeoutPolicy(call, connect)
    assert policy.connect_seconds == (call if connect is None else connect)
    assert replace(policy, connect=None).connect_seconds == call


def test_whole_numbers_become_floats():
    """Deadlines are computed with floats."""
    assert type(TimeoutPolicy(1).call) is float


def test_a_policy_does_not_change():
    """It is frozen, and shared between threads."""
    with pytest.raises(FrozenInstanceError):
        TimeoutPolicy().call = 1.0


@pytest.mark.parametrize("value", [-1, timedelta(days=-1), float("nan")])
def test_the_error_says_where_zero_is_allowed(value):
    """It does not ask for a number above zero where zero is allowed."""
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
def test_impossible_durations_are_refused(value, fault):
    """Only finite numbers above zero bound a wait; a bool is no number."""
    with pytest.raises(ConfigurationError) as caught:
        positive_seconds(value, 10)
    assert str(caught.value).startswith(fault)


def test_two_faults_are_one_error():
    """A bad call and a bad connect, each under its name."""
    with pytest.raises(ConfigurationError) as caught:
        TimeoutPolicy(call=0, connect="x")
    assert caught.value.faults == (
        "call: must be above zero",
        "connect: must be seconds as a number",
    )


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, timedelta()])
def test_zero_is_a_duration_where_it_has_a_meaning(zero):
    """Where none at all has a meaning; what is no number never has."""
    assert seconds_or_zero(zero, 10) == 0.0
    assert seconds_or_zero(2, 10) == 2.0
    for nothing in (None, "", False, []):
        with pytest.raises(ConfigurationError, match="must be seconds as a number"):
            seconds_or_zero(nothing, 10)
