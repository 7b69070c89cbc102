"""A cached function has one policy: the one that was passed, or one of single options."""

from __future__ import annotations

import pytest

from shardcache import CachePolicy, ConfigurationError
from shardcache.core.cache_policy import cached_policy, lifetime_of, not_a_factory
from shardcache.core.lifetimes import DEFAULT

POLICY = CachePolicy(ttl=60, stale=5)


def test_single_options_make_a_policy():
    """With the ttl by position, by name, or the client's own."""
    for ttl in ((60, DEFAULT), (DEFAULT, 60)):
        assert cached_policy(None, *ttl, {"stale": 5}, "cached") == POLICY
    assert cached_policy(None, DEFAULT, DEFAULT, {}, "cached").ttl is DEFAULT


def test_a_policy_is_taken_as_it_is():
    """When no other option is given."""
    assert cached_policy(POLICY, DEFAULT, DEFAULT, {}, "cached") is POLICY


@pytest.mark.parametrize(
    ("seconds", "ttl", "options", "named"),
    [
        (60, DEFAULT, {}, "ttl"),
        (DEFAULT, None, {}, "ttl"),
        (DEFAULT, DEFAULT, {"stale": 5}, "stale"),
        (60, DEFAULT, {"stale": 5, "lock": True}, "ttl and stale and lock"),
    ],
)
def test_a_policy_and_single_options_are_refused(seconds, ttl, options, named):
    """It would not be clear which of them holds; the error names those that were given."""
    with pytest.raises(ConfigurationError) as caught:
        cached_policy(POLICY, seconds, ttl, options, "cached")
    assert str(caught.value).startswith(f"cached: {named} cannot be given with a policy")


def test_faults_come_before_the_policy():
    """An unknown option, a ttl given twice, and what is no policy at all."""
    with pytest.raises(TypeError, match=r"^cached\(\) got an unexpected keyword argument 'stael'"):
        cached_policy(POLICY, DEFAULT, DEFAULT, {"stael": 5}, "cached")
    with pytest.raises(ConfigurationError, match="ttl is given twice"):
        cached_policy(POLICY, 1, 2, {}, "cached")
    with pytest.raises(ConfigurationError, match="cached: policy must be a CachePolicy, not dict"):
        cached_policy({"ttl": 60}, DEFAULT, DEFAULT, {}, "cached")


def test_a_policy_for_many_keys_has_no_quorum_and_keeps_no_errors():
    """Both faults are named, by the decorator; the same policy is one for single values."""
    policy = CachePolicy(ttl=60, lock=True, cache_errors=KeyError)
    with pytest.raises(ConfigurationError) as caught:
        cached_policy(policy, DEFAULT, DEFAULT, {}, "client.cached_many")
    lock, errors = caught.value.faults
    assert lock.startswith("cached_many: lock must be False, 'local' or 'shard', not True: ")
    assert errors.startswith("cached_many: cache_errors is not for many keys")
    assert cached_policy(policy, DEFAULT, DEFAULT, {}, "client.cached") is policy
    assert cached_policy(POLICY, DEFAULT, DEFAULT, {}, "cached_many") is POLICY


def test_a_value_is_no_factory():
    """The error says how to pass one."""
    assert "get_or_set: factory must be a function, not int: pass" in str(
        not_a_factory("get_or_set", 7)
    )


def test_a_function_takes_the_arguments_if_it_must():
    """One that can be called with the result alone is; arguments are asked for by the others only."""
    asked = []

    def arguments():
        asked.append(1)
        return {"user": 7}

    def by_default(_result, seconds=30):
        return seconds

    alone = CachePolicy(ttl=by_default, condition=bool)
    assert alone.takes_arguments == ()
    assert lifetime_of(alone, "x", arguments) == 30.0
    assert asked == []
    both = CachePolicy(ttl=lambda _, call: call["user"], condition=lambda _, call: call["user"] > 1)
    assert both.takes_arguments == ("condition", "ttl")
    assert lifetime_of(both, "x", arguments) == 7.0
    assert asked == [1, 1]
    with pytest.raises(ConfigurationError, match="must take one argument, the result, or two"):
        CachePolicy(ttl=1, condition=lambda _one, _two, _three: True)
