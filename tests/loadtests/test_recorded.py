"""A recorder that watches generated traffic writes the profile that it was generated from."""

from __future__ import annotations

import profiles
import pytest
from traffic import ABSENT, COUNTERS, NAMESPACE, VALUES, Keys, Traffic

from shardcache import Client
from shardcache.testing import Profile, ProfileRecorder
from shardcache.testing.traffic import round_ttl

pytestmark = pytest.mark.slow

CALLS = 60_000


def play(client: Client, keys: Keys, calls: int) -> float:
    """Make the calls of a profile's traffic, as a user of the kit does; return the share of misses."""
    traffic = Traffic(keys, seed=3)
    read = found = 0
    for _ in range(calls):
        operation = traffic.draw()
        kind, first = operation.kind, operation.keys[0]
        rank = 0 if first.startswith(ABSENT) else keys.rank(first)
        value, ttl = keys.value(first, rank), keys.ttl(rank)
        if kind in {"get", "get_many"}:
            read += len(operation.keys)
            found += (
                len(client.get_many(operation.keys))
                if kind == "get_many"
                else (client.get(first) is not None)
            )
        elif kind == "delete":
            client.delete(first)
        elif kind == "incr":
            client.incr(first, initial=1, ttl=ttl)
        elif kind == "cas":
            _, token = client.gets(first)
            client.cas(first, value, token, ttl)
        else:
            getattr(client, kind)(first, value, ttl)
    return 1 - found / read


@pytest.mark.parametrize("name", profiles.known())
def test_a_recorder_writes_what_was_played(name, memcached_servers, tmp_path):
    """Mix within 1.5 points, alpha within 0.05, key sizes within 5 %; all misses and times to live."""
    profile = profiles.find(name)
    keys = Keys(profile)
    file = tmp_path / "mine.toml"
    urls = [server.url for server in memcached_servers]
    with Client(urls, namespace=NAMESPACE, timeout=10) as client:
        for rank in range(1, profile.keys + 1):
            key = keys.key(VALUES, rank)
            client.set(key, keys.value(key, rank), keys.ttl(rank))
            if "incr" in profile.mix:
                client.set(keys.key(COUNTERS, rank), 1)
    with (
        ProfileRecorder(file) as recorder,
        Client(urls, namespace=NAMESPACE, observers=[recorder], timeout=10) as watched,
    ):
        missed = play(watched, keys, CALLS)
    recorded = Profile.load(file)
    assert recorded.mix.keys() == profile.mix.keys()
    for kind, share in profile.mix.items():
        assert recorded.mix[kind] == pytest.approx(share, abs=0.015)
    # Values of short times to live expire meanwhile, the more of them the busier the machine is.
    assert recorded.miss_ratio == pytest.approx(missed, abs=0.001)
    assert missed >= profile.miss_ratio - 0.01
    assert recorded.alpha == pytest.approx(profile.alpha, abs=0.05)
    assert recorded.key_size == pytest.approx(profile.key_size, rel=0.05)
    assert _mean(recorded.sizes) == pytest.approx(_mean(profile.sizes), rel=0.05)
    if _writes(profile) > 0.05:
        assert dict(recorded.ttls).keys() == {round_ttl(ttl) for ttl, _ in profile.ttls}
    assert recorded.batch == pytest.approx(profile.batch, abs=1)
    assert recorded.batch_share == pytest.approx(profile.batch_share, abs=0.05)


def _mean(shares):
    return sum(value * share for value, share in shares)


def _writes(profile):
    return sum(profile.mix.get(kind, 0.0) for kind in ("set", "add", "cas"))
