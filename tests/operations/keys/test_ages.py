"""How long a key lives, and whether it exists."""

from __future__ import annotations

import math

import pytest

from operations.keys.scripted_harness import ScriptedHarness
from shardcache.core.capabilities import AGES, EVERYTHING
from shardcache.core.codecs import Msgpack
from shardcache.core.commands import Get, GetAged, Peek, Set, When
from shardcache.core.events import OperationFinished
from shardcache.core.values.flags import ERROR_FLAGS, RAW_FLAGS, abandoned, stub
from shardcache.core.values.payloads import SignedPayloads
from shardcache.errors import NodeUnavailableError
from shardcache.operations.keys import ages, single

LOST = NodeUnavailableError("lost", "node")


class Aging(ScriptedHarness):
    """A harness with one key."""

    def store(self, value="value", ttl=None):
        """Store a value."""
        self.run(single.store(self.cluster, "k", value, ttl, When.ALWAYS))
        self.commands.clear()

    def plant(self, payload):
        """Put a payload in its place."""
        self._execute(Set(b"k", payload))

    def ttl(self):
        """Return how long it lives."""
        return self.run(ages.ttl(self.cluster, "k"))

    def exists(self):
        """Return whether it exists."""
        return self.run(ages.exists(self.cluster, "k"))

    def sign(self):
        """Sign values from now on."""
        io = self.cluster.io
        self.cluster.payloads = SignedPayloads(Msgpack(), [b"at least 16 bytes"], io.wall)


@pytest.fixture
def harness():
    """Return a harness."""
    return Aging()


@pytest.fixture(params=[False, True], ids=["plain", "signed"])
def either(request, harness):
    """Return a harness that signs, and one that does not."""
    if request.param:
        harness.sign()
    return harness


def test_a_ttl_is_the_seconds_left(either):
    """Infinite without an expiry, `None` without a value."""
    assert either.ttl() is None
    assert either.exists() is False
    either.store(ttl=60.0)
    either.world.advance(20.0)
    assert either.ttl() == pytest.approx(40.0, abs=0.1)
    assert either.exists() is True
    either.world.advance(41.0)
    assert either.ttl() is None
    either.store()
    assert either.ttl() == math.inf


def test_the_bytes_are_read_only_to_verify_them(harness):
    """With a secret only they tell whether the value is valid."""
    harness.store([1])
    harness.ttl()
    harness.exists()
    assert harness.kinds == [Peek, Peek]
    harness.sign()
    harness.store([1])
    harness.ttl()
    harness.exists()
    assert harness.kinds == [GetAged, GetAged]


@pytest.mark.parametrize(
    "mark", [stub(b"m"), abandoned(b"m"), (ERROR_FLAGS, b"error"), (0, b"")], ids=repr
)
def test_a_mark_is_no_value(either, mark):
    """It stands for a recompute that runs or has failed."""
    either.plant(mark)
    assert either.ttl() is None
    assert either.exists() is False
    assert either.known.misses == 2
    assert either.known.decode_failures == 0


def test_an_unsigned_value_does_not_exist_with_a_secret(harness):
    """As `get` does not find it."""
    harness.sign()
    harness.plant((RAW_FLAGS, b"planted"))
    assert harness.exists() is False
    assert harness.ttl() is None
    assert harness.known.decode_failures == 2


def test_hits_and_misses_are_counted(either):
    """As those of `get`."""
    either.exists()
    either.ttl()
    either.store()
    either.exists()
    either.ttl()
    assert (either.known.hits, either.known.misses) == (2, 2)


def test_the_failure_of_a_node_is_a_miss(either):
    """With `on_error="miss"`; otherwise it is raised."""
    either.store()
    either.replies = dict.fromkeys((Peek, GetAged), LOST)
    assert either.exists() is False
    assert either.ttl() is None
    either.cluster.raises = True
    for call in (either.exists, either.ttl):
        with pytest.raises(NodeUnavailableError):
            call()


def test_a_backend_without_ages_reads_the_value(either):
    """To tell whether it exists."""
    either.known.supports = EVERYTHING - AGES
    assert either.exists() is False
    either.store()
    assert either.exists() is True
    assert either.kinds == [Get]


@pytest.mark.parametrize(("call", "name"), [(ages.ttl, "ttl"), (ages.exists, "exists")])
def test_each_call_is_one_event(harness, call, name):
    """A value that was found is a hit."""
    harness.run(call(harness.cluster, "k"))
    harness.store()
    harness.run(call(harness.cluster, "k"))
    events = [event[:3] for event in harness.events.of(OperationFinished)]
    assert events == [(name, 1, 0), ("set", 1, 0), (name, 1, 1)]
    harness.events.events.clear()
    harness.cluster.observes_operations = False
    assert harness.run(call(harness.cluster, "k"))
    assert harness.events.of(OperationFinished) == []
