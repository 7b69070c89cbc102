"""Profiles recorded from running programs."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter

import pytest

from shardcache import Client
from shardcache.testing import Profile, ProfileRecorder
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.popularity import estimate_alpha
from shardcache.testing.traffic import Traffic, round_size, round_ttl, whole_batch
from testing.streams import BATCH, NODES, Stream, access, profile_of, run_program


@pytest.fixture
def file(tmp_path):
    """Return the path of a file that is not there yet."""
    return tmp_path / "shop.toml"


def shares(counts):
    """Return the share of each, as close as a file has it."""
    return {key: pytest.approx(count / counts.total(), abs=2e-4) for key, count in counts.items()}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alpha", [0.6, 1.1])
def test_a_profile_is_that_of_the_traffic(file, mode, alpha):
    """What went through a client is in the file, to the digits that it has."""
    with ProfileRecorder(file) as recorder:
        client = make_client(mode, NODES, observers=[recorder], timeout=5.0)
        stream = Stream(client, keys=1_000, alpha=alpha, seed=7)
        stream.run(12_000)
    profile = Profile.load(file)
    assert client.observer_errors == 0
    client.close()
    assert dict(profile.mix) == shares(stream.done)
    assert dict(profile.sizes) == shares(stream.sizes)
    assert dict(profile.ttls) == shares(stream.ttls)
    assert profile.miss_ratio == pytest.approx(stream.misses / stream.done["get"], abs=1e-4)
    assert profile.batch_share == pytest.approx(stream.batched / stream.done["get"], abs=1e-4)
    assert profile.batch == pytest.approx(BATCH, abs=1)
    assert profile.alpha == estimate_alpha(stream.reads.values(), len(stream.met))
    # Batches are of keys that are drawn equally, and flatten it a little.
    assert profile.alpha == pytest.approx(alpha, abs=0.1)
    assert profile.keys == len(stream.met)
    assert profile.key_size == len("secret:000000")
    assert profile.name == "shop"
    assert profile.source.startswith(f"recorded: {stream.done.total():,} accesses to keys in ")


def test_a_key_that_was_only_missed_is_none_of_the_profile_s():
    """There may be no end of such keys; each of their reads is a miss, and no more."""
    profile = profile_of(
        access(b"a", b"x", b"y", operation="get_many"),
        access(b"a", operation="set", size=1),
        access(b"a", size=1),
    )
    assert (profile.keys, profile.miss_ratio) == (1, 0.75)


def test_no_key_and_no_value_is_written(file):
    """Nor is what they hash to, in any base, nor the namespace."""
    with ProfileRecorder(file) as recorder:
        client = Client("memory://a", observers=[recorder], namespace="confidential")
        client.set("password:alice", "correct horse", ttl=60)
        client.delete("password:bob")
        client.get_many(["password:alice", "password:bob"])
        hashes = [*recorder._traffic.touched]
    text = file.read_text(encoding="utf-8")
    assert len(hashes) == 2
    secrets = ["alice", "bob", "password", "horse", "confidential", str(recorder._salt)]
    assert not [
        secret
        for secret in (*secrets, *map(str, hashes), *(f"{each:x}" for each in hashes))
        if secret in text
    ]


def test_the_same_key_hashes_differently_in_each_recorder(file):
    """Nobody who has two recordings can tell that they are of the same keys."""
    recorders = [ProfileRecorder(file) for _ in range(2)]
    for recorder in recorders:
        recorder.keys_accessed(access(b"k"))
        recorder.write()
    one, other = (set(recorder._traffic.touched) for recorder in recorders)
    assert one.isdisjoint(other)


class TestFigures:
    """How events become figures."""

    def test_batches_count_as_their_keys(self):
        """In the mix there are no batches."""
        profile = profile_of(
            access(b"a", b"b", b"c", operation="get_many"),
            access(b"a", b"b", operation="set_many", size=1),
            access(b"a", operation="delete_many"),
            access(b"a"),
            access(b"a", operation="incr"),
        )
        assert dict(profile.mix) == {
            "get": 0.5,
            "set": 0.25,
            "delete": 0.125,
            "incr": 0.125,
        }
        assert (profile.batch, profile.batch_share) == (3, 0.75)

    def test_reads_alone_count_for_popularity(self):
        """A program that writes each key once has not made them equally popular."""
        reads = [
            access(b"%d" % key, size=1) for key in range(100) for _ in range(1_000 // (key + 1))
        ]
        writes = [access(b"%d" % key, operation="set", size=1) for key in range(100)] * 50
        assert profile_of(*reads, *writes).alpha == profile_of(*reads).alpha
        assert profile_of(*reads).alpha == pytest.approx(1.0, abs=0.02)
        assert profile_of(*writes).alpha == 0.0

    def test_writes_count_for_it_when_nothing_was_read(self):
        """There is nothing better to go by."""
        writes = [
            access(b"%d" % key, operation="set", size=1)
            for key in range(100)
            for _ in range(1_000 // (key + 1))
        ]
        assert profile_of(*writes).alpha == pytest.approx(1.0, abs=0.02)

    def test_further_keys_count_in_all_but_popularity(self):
        """The profile says that there are more."""
        events = [access(b"%d" % key, operation="set", size=key) for key in range(50)]
        profile = profile_of(*events, access(b"new"), access(b"0", size=0), max_keys=10)
        assert profile.keys == 10
        assert "at least 10 keys" in profile.source
        assert profile.mix["get"] == pytest.approx(2 / 52, abs=1e-4)
        assert profile.miss_ratio == 0.5
        assert "at least" not in profile_of(*events, max_keys=50).source

    def test_many_sizes_become_few(self):
        """The most frequent are kept, and quantiles of the rest keep the mean."""
        drawn = random.Random(3)
        sizes = [round(drawn.lognormvariate(6, 1.5)) for _ in range(5_000)] + [1936] * 1_000
        profile = profile_of(*(access(b"k", size=size) for size in sizes))
        assert len(profile.sizes) <= 20
        assert profile.sizes[0][0] == 1900
        mean = sum(size * share for size, share in profile.sizes)
        assert mean == pytest.approx(sum(sizes) / len(sizes), rel=0.03)
        ranges = [sum(share for size, share in profile.sizes if size < 10**n) for n in (2, 3, 4)]
        truth = [sum(size < 10**n for size in sizes) / len(sizes) for n in (2, 3, 4)]
        assert ranges == pytest.approx(truth, abs=0.12)

    def test_many_lifetimes_become_few(self):
        """What never expires stays apart from what does."""
        drawn = random.Random(4)
        ttls = [drawn.uniform(30, 90_000) for _ in range(5_000)]
        writes = [access(b"k", operation="set", size=1, ttl=ttl) for ttl in ttls]
        never = [access(b"k", operation="add", size=1)] * 5
        profile = profile_of(*writes, *never)
        assert len(profile.ttls) <= 21
        found = dict(profile.ttls)
        assert found.pop(None) == pytest.approx(5 / 5005, abs=1e-4)
        mean = sum(ttl * share for ttl, share in found.items()) / sum(found.values())
        assert mean == pytest.approx(sum(ttls) / len(ttls), rel=0.03)

    def test_shares_have_few_digits_and_no_remainder(self):
        """What rounding takes goes to whoever lost most by it."""
        operations = ["get", "set", "delete"]
        profile = profile_of(*(access(b"k", operation=operation) for operation in operations))
        assert sorted(profile.mix.values()) == [0.3333, 0.3333, 0.3334]

    def test_a_copy_is_of_one_moment(self):
        """What is counted later is not in it."""
        traffic = Traffic(10)
        traffic.add(access(b"k", operation="get_many"), [1])
        before, copy = traffic.profile("p", 1.0), traffic.copy()
        traffic.add(access(b"l", operation="set", size=7, ttl=60.0), [2])
        assert copy.profile("p", 1.0) == before
        assert traffic.profile("p", 1.0) != before

    def test_touches_have_no_lifetime_of_a_write(self):
        """`ttls` are those of what is written."""
        profile = profile_of(
            access(b"k", operation="touch", ttl=5.0),
            access(b"k", operation="cas", size=1, ttl=60.0),
        )
        assert profile.ttls == ((60.0, 1.0),)

    def test_what_was_not_seen_is_said(self):
        """A profile is complete all the same."""
        profile = profile_of(access(b"k"))
        assert (profile.sizes, profile.ttls) == (((0, 1.0),), ((None, 1.0),))
        assert "sizes are unknown" in profile.source
        assert "times to live are unknown" in profile.source
        assert "unknown" not in profile_of(access(b"k", operation="set", size=1)).source

    @pytest.mark.parametrize(
        ("size", "rounded"), [(0, 0), (7, 7), (99, 99), (104, 100), (1936, 1900), (96_543, 97_000)]
    )
    def test_sizes_have_two_digits(self, size, rounded):
        """No more, so that there are few of them."""
        assert round_size(size) == rounded

    @pytest.mark.parametrize(
        ("ttl", "rounded"),
        [(None, None), (0.123, 0.12), (59.4, 59), (86_400, 86_400), (6_512, 6_480), (90, 90)],
    )
    def test_lifetimes_have_two_digits_of_their_unit(self, ttl, rounded):
        """A day stays a day."""
        assert round_ttl(ttl) == rounded

    @pytest.mark.parametrize("nodes", [1, 2, 3, 8])
    @pytest.mark.parametrize("batch", [1, 5, 24, 100])
    def test_a_batch_is_as_large_as_before_it_was_split(self, batch, nodes):
        """Each node is told of its part only."""
        drawn = random.Random(batch * nodes)
        parts = [
            len(part)
            for _ in range(3_000)
            if (part := Counter(drawn.randrange(nodes) for _ in range(batch)))
        ]
        assert whole_batch(3_000 * batch / sum(parts), nodes) == pytest.approx(batch, rel=0.03)


def test_threads_lose_no_access(file):
    """However often they are switched, and also when all meet a key for the first time."""
    recorder = ProfileRecorder(file)
    events = [access(b"%d" % key, size=key) for key in range(5_000)]
    barrier = threading.Barrier(4)

    def work():
        barrier.wait(60)
        for event in events:
            recorder.keys_accessed(event)

    threads = [threading.Thread(target=work) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    recorder.write()
    assert set(recorder._traffic.touched.values()) == {4}
    assert recorder._traffic.accesses == recorder._traffic.sizes.total() == 20_000


@pytest.mark.timeout(20)
def test_an_access_within_an_access_is_recorded(file):
    """The handler of a signal may use the client while its thread is in the midst of an event."""
    recorder = ProfileRecorder(file)
    with recorder._lock:
        recorder.keys_accessed(access(b"a"))
    assert recorder.write().keys == 1


def test_it_needs_no_library_of_tests(file):
    """Programs that run for users have neither pytest nor locust."""
    loaded = run_program(file, "print(*sys.modules, file=sys.stderr)").split()
    assert "shardcache.testing.recording" in loaded
    assert not {"pytest", "locust", "hypothesis"}.intersection(loaded)
