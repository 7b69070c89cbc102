"""The age of a value: jitter, XFetch, and the envelope that has it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.cache_policy import CachePolicy, apply_jitter, lifetime_of
from shardcache.core.codecs.msgpack import Msgpack
from shardcache.core.values.envelopes import FORM_WITH_TAGS, Envelope, pack, unpack
from shardcache.core.values.flags import ENVELOPE_FLAGS, TEXT_FLAGS
from shardcache.core.values.freshness import (
    Freshness,
    Stored,
    freshness,
    open_stored,
    seal,
    serves_after_error,
)
from shardcache.core.values.payloads import Payloads
from shardcache.errors import ConfigurationError, DecodeError

unit = st.floats(0, 1, exclude_max=True)


@given(st.floats(0.001, 1e6), st.floats(0, 0.999), unit)
def test_jitter_shortens_and_never_lengthens(ttl, jitter, chance):
    """A life is from `1 - jitter` of its ttl up to all of it."""
    assert ttl * (1 - jitter) <= apply_jitter(ttl, jitter, chance) <= ttl


def test_jitter_spreads_evenly():
    """Values stored together end apart."""
    chance = random.Random(1)
    lives = [apply_jitter(100.0, 0.1, chance.random()) for _ in range(10_000)]
    assert 94.8 < sum(lives) / len(lives) < 95.2
    assert min(lives) < 90.1
    assert max(lives) > 99.9


@given(
    st.integers(0, 2**32 - 1),
    st.binary(),
    st.floats(allow_nan=False),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.lists(st.binary(min_size=8, max_size=8), max_size=255),
    st.none() | st.lists(st.binary(min_size=1), max_size=255),
)
def test_an_envelope_comes_back_whole(  # noqa: PLR0913, PLR0917 - an envelope is all of these
    flags, data, fresh_until, delta, ttl, versions, tags
):
    """Whatever bytes it holds."""
    envelope = Envelope(flags, data, fresh_until, delta, ttl, versions, tags)
    assert unpack(pack(envelope)) == envelope


def test_the_form_of_an_envelope_never_changes():
    """Clients of two releases read each other's values."""
    envelope = Envelope(TEXT_FLAGS, b"text", 1_700_000_000.5, 0.25, math.inf, [b"12345678"])
    stored = "010000001041d954fc402000003fd00000000000007ff000000000000001"
    stored += b"12345678text".hex()
    assert pack(envelope).hex() == stored
    assert unpack(bytes.fromhex(stored)) == envelope


@given(st.binary(max_size=60))
def test_garbage_is_no_envelope(data):
    """Any bytes give an envelope or a `DecodeError`, and nothing else."""
    payload = (ENVELOPE_FLAGS, data)
    try:
        unpack(data)
    except DecodeError:
        assert open_stored(payload) is None
    else:
        assert open_stored(payload) is not None


@pytest.mark.parametrize("versions", [1, 3, 255])
def test_a_cut_envelope_is_refused(versions):
    """All versions that it announces must be there; the value behind them may be empty."""
    whole = pack(Envelope(0, b"", 0.0, 0.0, 1.0, [b"12345678"] * versions))
    assert len(unpack(whole).versions) == versions
    for cut in (1, 8):
        with pytest.raises(DecodeError):
            unpack(whole[:-cut])


def test_a_cut_envelope_with_tags_is_refused():
    """Wherever it is cut: the lengths of the tags must fit."""
    tags = [b"user:7", b"u", b"users"]
    whole = pack(Envelope(0, b"", 0.0, 0.0, 1.0, [b"12345678"] * 3, tags))
    assert unpack(whole).tags == tags
    for end in range(len(whole)):
        with pytest.raises(DecodeError):
            unpack(whole[:end])
    with pytest.raises(DecodeError, match="empty tag"):
        unpack(pack(Envelope(0, b"", 0.0, 0.0, 1.0, [b"12345678"] * 3, [b"u", b""])))


def test_an_envelope_of_another_form_is_refused():
    """A later release may write one."""
    whole = pack(Envelope(0, b"", 0.0, 0.0, 1.0))
    with pytest.raises(DecodeError):
        unpack(bytes((FORM_WITH_TAGS + 1,)) + whole[1:])


def test_a_value_is_read_through_its_envelope():
    """A plain `get` returns the value within, and refuses an envelope in an envelope."""
    payloads = Payloads(Msgpack())
    inner = payloads.encode(b"k", "text")
    outer = (ENVELOPE_FLAGS, pack(Envelope(*inner, 0.0, 0.0, 1.0)))
    assert inner[0] == TEXT_FLAGS
    assert payloads.decode(b"k", outer) == "text"
    with pytest.raises(DecodeError):
        payloads.decode(b"k", (ENVELOPE_FLAGS, pack(Envelope(*outer, 0.0, 0.0, 1.0))))


def state(  # noqa: PLR0913 - each has its default
    age, policy, *, delta=0.0, chance=0.0, ttl=10.0, versions=()
):
    """Return what may be done with a value of an age."""
    stored = Stored((TEXT_FLAGS, b""), 1000.0 + ttl, delta, ttl, list(versions))
    return freshness(stored, policy, 1000.0 + age, chance, list(versions))


def test_a_value_grows_old_in_steps():
    """Fresh up to its ttl, then stale, then a last resort, then gone."""
    policy = CachePolicy(ttl=10, stale=5, stale_if_error=20)
    steps = [(9.9, "FRESH"), (10.1, "STALE"), (14.9, "STALE"), (15.1, "LAST_RESORT")]
    for age, name in [*steps, (29.9, "LAST_RESORT"), (30.1, "EXPIRED")]:
        assert state(age, policy) is Freshness[name], age
    for age, name in [(10.0, "STALE"), (15.0, "LAST_RESORT"), (30.0, "EXPIRED")]:
        assert state(age, policy) is Freshness[name], f"in the moment {age}"


def test_the_version_of_a_tag_decides_first():
    """A value with another version of its tag is gone, however young."""
    policy = CachePolicy(ttl=10, stale=5)
    stored = Stored((TEXT_FLAGS, b""), 1010.0, 0.0, 10.0, [b"12345678"])
    assert freshness(stored, policy, 1001.0, 0.0, [b"12345678"]) is Freshness.FRESH
    for versions in ([b"87654321"], [None], [b"12345678", b"12345678"]):
        assert freshness(stored, policy, 1001.0, 0.0, versions) is Freshness.INVALID
    bare = Stored((TEXT_FLAGS, b""))
    assert freshness(bare, policy, 1001.0, 0.0, []) is Freshness.FRESH
    assert freshness(bare, policy, 1001.0, 0.0, [b"12345678"]) is Freshness.INVALID


@pytest.mark.parametrize("ttl", [None, 0.0, 60.0])
def test_a_sealed_value_is_opened_with_its_age(ttl):
    """An envelope has all that was known when the value was made; without a ttl it has no end."""
    versions = [b"12345678"]
    envelope = seal((TEXT_FLAGS, b"text"), 1000.0, 0.5, ttl, versions)
    lifetime = math.inf if ttl is None else ttl
    opened = open_stored((ENVELOPE_FLAGS, pack(envelope)))
    assert opened == Stored((TEXT_FLAGS, b"text"), 1000.0 + lifetime, 0.5, lifetime, versions)


def test_a_value_without_an_envelope_has_no_age():
    """It is fresh until its node drops it; an envelope around what is no value is unreadable."""
    assert open_stored((TEXT_FLAGS, b"text")) == Stored((TEXT_FLAGS, b"text"))
    assert (
        freshness(Stored((TEXT_FLAGS, b"")), CachePolicy(ttl=1), 1e12, 0.0, []) is Freshness.FRESH
    )
    assert open_stored((ENVELOPE_FLAGS, pack(Envelope(ENVELOPE_FLAGS, b"", 0.0, 0.0, 1.0)))) is None


def test_an_old_value_may_stand_in_for_an_error():
    """For `stale_if_error` after its ttl; if that is left out, for as long as `stale`."""
    stored = Stored((TEXT_FLAGS, b""), 1000.0)
    for options, seconds in [({"stale_if_error": 20}, 20.0), ({}, 5.0), ({"stale_if_error": 0}, 0)]:
        policy = CachePolicy(ttl=10, stale=5, **options)
        assert serves_after_error(stored, policy, 999.9 + seconds)
        assert not serves_after_error(stored, policy, 1000.0 + seconds)


def test_xfetch_is_likelier_near_the_end_and_for_expensive_values():
    """As in the paper: with probability exp(-left / (Δ·β))."""
    policy = CachePolicy(ttl=10, early=1.0)
    chance = random.Random(1)
    for left, delta in [(0.5, 1.0), (1.0, 1.0), (2.0, 1.0), (0.5, 0.1), (4.0, 2.0)]:
        states = [
            state(10.0 - left, policy, delta=delta, chance=chance.random()) for _ in range(20_000)
        ]
        share = states.count(Freshness.EARLY) / len(states)
        assert share == pytest.approx(math.exp(-left / delta), abs=0.01)


def test_xfetch_never_comes_in_the_first_half():
    """However expensive the value and however unlucky the draw."""
    policy = CachePolicy(ttl=10, early=1.0)
    assert state(4.9, policy, delta=100.0, chance=0.999999) is Freshness.FRESH
    assert state(5.1, policy, delta=100.0, chance=0.999999) is Freshness.EARLY
    assert state(9.9, CachePolicy(ttl=10), delta=100.0, chance=0.9) is Freshness.FRESH


def test_the_result_decides_its_ttl():
    """By `ttl`, `none_ttl`, `cache_none` and `condition`."""
    assert lifetime_of(CachePolicy(ttl=10), "x") == 10
    assert lifetime_of(CachePolicy(ttl=None), "x") is None
    assert lifetime_of(CachePolicy(ttl=len), "four") == 4
    assert lifetime_of(CachePolicy(ttl=lambda _: -3), "x") == 0
    assert lifetime_of(CachePolicy(ttl=10, none_ttl=2), None) == 2
    assert lifetime_of(CachePolicy(ttl=10, cache_none=False), None) == 0
    assert lifetime_of(CachePolicy(ttl=10, condition=bool), "") == 0
    with pytest.raises(ValueError, match="NaN"):
        lifetime_of(CachePolicy(ttl=lambda _: math.nan), "x")


def test_the_arguments_decide_with_the_result():
    """Where a function has a second parameter without a default, and nowhere else."""
    arguments = {"number": 7}.copy
    by_both = CachePolicy(ttl=lambda result, call: result + call["number"])
    assert by_both.takes_arguments == ("ttl",)
    assert lifetime_of(by_both, 3, arguments) == 10
    by_result = CachePolicy(ttl=lambda result, more=2: result + more, condition=bool)
    assert by_result.takes_arguments == ()
    assert lifetime_of(by_result, 3, arguments) == 5
    condition = CachePolicy(ttl=10, condition=lambda result, call: result < call["number"])
    assert [lifetime_of(condition, each, arguments) for each in (6, 7)] == [10, 0]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"ttl": -1}, "ttl must be zero or more"),
        ({"ttl": "60"}, "ttl must be seconds"),
        ({"ttl": 1, "jitter": 1.0}, "jitter must be from 0 up to 1"),
        ({"ttl": 1, "early": -1}, "early must be from 0"),
        ({"ttl": 1, "lock": "all"}, "lock must be True, False"),
        ({"ttl": 1, "on_timeout": "wait"}, "on_timeout must be 'compute', 'stale' or 'raise'"),
        ({"ttl": 1, "refresh": "later"}, "refresh must be"),
        ({"ttl": 1, "wait": -1}, "wait must be zero or more"),
        *(
            ({"ttl": 1, name: value}, f"CachePolicy: {name} must be seconds as a number")
            for name in ("wait", "stale", "error_backoff", "error_ttl")
            for value in (None, "", False)
        ),
        *(
            ({"ttl": 1, name: value}, f"CachePolicy: {name} must be seconds as a number")
            for name in ("stale_if_error", "none_ttl")
            for value in ("", False)
        ),
        ({"ttl": 1, "condition": 7}, "condition must be a function"),
        ({"ttl": 1, "cache_errors": (BaseException,)}, "cache_errors must be types of exceptions"),
    ],
)
def test_each_bad_option_is_named(terms, message):
    """With what it must be."""
    with pytest.raises(ConfigurationError, match=message):
        CachePolicy(**terms)
