"""The generated traffic is the profile's: its mix, sizes, popularity and misses."""

from __future__ import annotations

from collections import Counter

import profiles
import pytest
from traffic import ABSENT, PREFIX, VALUES, Keys, Traffic, calls_of

from shardcache import ConfigurationError
from shardcache.testing import Profile

DRAWS = 60_000
NAMES = profiles.known()


def drawn(profile: Profile, draws: int = DRAWS, seed: int = 1):
    """Return the first calls of a profile's traffic."""
    traffic = Traffic(Keys(profile), seed)
    return [traffic.draw() for _ in range(draws)]


@pytest.fixture(params=NAMES)
def profile(request) -> Profile:
    """Return one of the profiles that come with the kit."""
    return profiles.find(request.param)


def test_six_profiles_differ_in_what_they_stress():
    """There are at least six, each with its source, and no two of one mix and popularity."""
    found = [profiles.find(name) for name in NAMES]
    assert len(found) >= 6
    assert all("OSDI 2020 (CC BY 4.0)" in profile.source for profile in found)
    assert len({(profile.alpha, tuple(profile.mix.items())) for profile in found}) == len(found)


def test_the_mix_is_the_profile_s(profile):
    """Each operation has its share of the keys, within a point."""
    keys = Counter()
    for operation in drawn(profile):
        keys[operation.kind.removesuffix("_many")] += len(operation.keys)
        keys["get"] += operation.kind == "cas"  # it reads first
    shares = {kind: count / keys.total() for kind, count in (+keys).items()}
    assert shares.keys() == profile.mix.keys()
    assert all(abs(shares[kind] - share) < 0.01 for kind, share in profile.mix.items())


def test_batches_have_their_share_of_the_reads(profile):
    """So many of the keys read are read 24 at a time, each batch of distinct keys."""
    alone, together = 0, 0
    for operation in drawn(profile):
        if operation.kind == "get":
            alone += 1
        elif operation.kind == "get_many":
            assert len(set(operation.keys)) == len(operation.keys) == profile.batch
            together += len(operation.keys)
    assert abs(together / (alone + together) - profile.batch_share) < 0.03


def test_the_misses_are_the_profile_s(profile):
    """The share of reads that ask for what nobody wrote is exact to a tenth of a point."""
    reads = [
        key for operation in drawn(profile) if "get" in operation.kind for key in operation.keys
    ]
    missing = sum(key.startswith(ABSENT) for key in reads)
    assert abs(missing / len(reads) - profile.miss_ratio) < 0.001


def test_the_hottest_keys_are_as_hot_as_zipf_says(profile):
    """Each of the first ten ranks is read as often as 1 / rank^alpha says, within 4 deviations."""
    keys = Keys(profile)
    read = Counter(
        keys.rank(key)
        for operation in drawn(profile)
        for key in operation.keys
        if key.startswith(VALUES) and operation.kind == "get"
    )
    weights = [rank**-profile.alpha for rank in range(1, profile.keys + 1)]
    for rank in range(1, 11):
        expected = read.total() * weights[rank - 1] / sum(weights)
        assert abs(read[rank] - expected) < 4 * expected**0.5 + 1


def test_sizes_are_the_profile_s(profile):
    """Keys on their nodes, and values, have the mean size of the profile, within 2 %."""
    keys = Keys(profile)
    ranks = range(1, profile.keys + 1)
    names = [PREFIX + keys.key(VALUES, rank) for rank in ranks]
    values = [keys.value(keys.key(VALUES, rank), rank) for rank in ranks]
    mean = sum(size * share for size, share in profile.sizes)
    assert sum(map(len, names)) / len(names) == pytest.approx(profile.key_size, rel=0.02)
    assert sum(map(len, values)) / len(values) == pytest.approx(mean, rel=0.02)


def test_times_to_live_are_the_profile_s(profile):
    """Each time to live has its share of the keys, within two points."""
    keys = Keys(profile)
    lives = Counter(keys.ttl(rank) for rank in range(1, profile.keys + 1))
    assert lives.keys() == {ttl for ttl, _ in profile.ttls}
    for ttl, share in profile.ttls:
        assert abs(lives[ttl] / profile.keys - share) < 0.02


def test_sizes_of_many_kinds_are_spread_over_the_keys():
    """A profile with several sizes gives each its share of the keys."""
    profile = _profile(sizes=((100, 0.75), (1000, 0.25)))
    keys = Keys(profile)
    sizes = Counter(len(keys.value("v1", rank)) for rank in range(1, profile.keys + 1))
    assert sizes.keys() == {100, 1000}
    assert abs(sizes[1000] / profile.keys - 0.25) < 0.02


def test_a_value_names_its_key():
    """Values of two keys differ, so that one in the place of the other is noticed."""
    keys = Keys(_profile(sizes=((40, 1.0),)))
    names = [keys.key(VALUES, rank) for rank in range(1, 2000)]
    assert len({keys.value(name, keys.rank(name)) for name in names}) == len(names)


def test_all_processes_agree_on_a_key():
    """What a key is called, holds and lives for follows from its rank; the order of calls does not."""
    one, other = Keys(_profile()), Keys(_profile())
    assert [one.ttl(rank) for rank in range(99)] == [other.ttl(rank) for rank in range(99)]
    assert one.values() == other.values()
    assert drawn(_profile(), 50, seed=1) == drawn(_profile(), 50, seed=1)
    assert drawn(_profile(), 50, seed=1) != drawn(_profile(), 50, seed=2)


def test_a_key_has_the_rank_it_was_made_of():
    """The rank can be read off a key, padded or not."""
    keys = Keys(_profile(key_size=40))
    assert [keys.rank(keys.key(VALUES, rank)) for rank in (1, 10, 100, 9_999)] == [
        1,
        10,
        100,
        9_999,
    ]


def test_what_a_run_writes_can_be_listed():
    """Every key of a write, a counter or a delete is in the list of keys to be deleted after it."""
    profile = _profile(mix={"set": 1, "incr": 1, "delete": 1, "cas": 1, "get": 1, "touch": 1})
    written = set(Keys(profile).all_written())
    for operation in drawn(profile, 3_000):
        assert set(operation.keys) <= written or operation.keys[0].startswith(ABSENT)


def test_calls_are_fewer_than_keys():
    """A batch of 24 is one call for 24 keys."""
    calls = calls_of(_profile(mix={"get": 1}, batch=24, batch_share=0.5))
    assert calls == {"get": 0.5, "get_many": pytest.approx(0.5 / 24)}


def test_an_unknown_profile_names_those_there_are():
    """A name that is none is answered with all names."""
    with pytest.raises(
        ConfigurationError, match=r"no profile 'kettle' \(known: counters, .*\.toml"
    ):
        profiles.find("kettle")


def test_a_profile_of_one_s_own_is_a_file(tmp_path):
    """A path that ends in `.toml` is read; without a name, the default profile is taken."""
    file = tmp_path / "mine.toml"
    file.write_text(_profile(keys=77).dumps(), encoding="utf-8")
    assert profiles.find(str(file)).keys == 77
    assert profiles.find(None).name == profiles.find("").name == profiles.DEFAULT


def _profile(**changed) -> Profile:
    given = {
        "name": "test",
        "keys": 2_000,
        "alpha": 1.0,
        "key_size": 30,
        "sizes": ((200, 1.0),),
        "ttls": ((60.0, 0.5), (None, 0.5)),
        "mix": {"get": 0.9, "set": 0.1},
        "miss_ratio": 0.1,
    }
    return Profile(**{**given, **changed})
