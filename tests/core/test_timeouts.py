"""How long a client waits."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.timeouts import MAX_TIMEOUT, TimeoutPolicy
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


def test_two_faults_are_one_error():
    """A bad call and a bad connect, each under its name."""
    with pytest.raises(ConfigurationError) as caught:
        TimeoutPolicy(call=0, connect="x")
    assert caught.value.faults == (
        "call: must be above zero",
        "connect: must be seconds as a number",
    )
